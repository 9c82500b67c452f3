"""The awaitables of the port, and the drivers that step an algorithm.

An algorithm is an `async def` that awaits nothing but `Pending` objects. A driver steps it under the client's *step
lock* and lets go of the lock while it waits, so code between two awaits is atomic: other algorithms of the same client,
answers of the server and timers all happen between steps, never inside one. The simulation runs the same coroutines.

    run_blocking   steps in the calling thread; an interrupt is thrown into the algorithm, so that its clean-up runs
    run_async      steps on the event loop; cancellation is thrown in
    Tasks          steps many algorithms by turns, on whatever thread calls it: the engine, or the simulation
"""

from __future__ import annotations

import asyncio
import heapq
import inspect
import itertools
import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterable
from contextlib import AbstractContextManager
from typing import Any, Generic, TypeVar, cast, final

from zkrecipes.signals import Undisturbed

__all__ = ["Pending", "Tasks", "Wait", "first_of", "run_async", "run_blocking", "until_done"]

T = TypeVar("T")
Algorithm = Coroutine["Wait", None, T]

logger = logging.getLogger("zkrecipes.flow")


class Wait:
    """What an algorithm gives its driver: come back when one of these is done, or at this time."""

    __slots__ = ("pendings", "until")

    def __init__(self, pendings: tuple[Pending[Any], ...], until: float) -> None:
        self.pendings = pendings
        self.until = until


class Pending(Generic[T]):
    """Something that will have a result. It is resolved, failed and awaited under the step lock."""

    __slots__ = ("__weakref__", "_error", "_value", "_waiters", "done")

    def __init__(self) -> None:
        self.done = False
        self._value: T | None = None
        self._error: BaseException | None = None
        self._waiters: list[Callable[[], None]] | None = None

    @classmethod
    def of(cls, value: T) -> Pending[T]:
        """One that is done already."""
        pending = cls()
        pending.resolve(value)
        return pending

    def resolve(self, value: T) -> None:
        """Set the result, unless there is one."""
        if not self.done:
            self._value = value
            self._finish()

    def fail(self, error: BaseException) -> None:
        """Set an error as the result, unless there is one."""
        if not self.done:
            self._error = error
            self._finish()

    def _finish(self) -> None:
        self.done = True
        waiters, self._waiters = self._waiters, None
        if waiters is not None:
            for waiter in waiters:
                waiter()

    def add_waiter(self, waiter: Callable[[], None]) -> None:
        """Call `waiter` (two lines, never user code) when done; at once if it is."""
        if self.done:
            waiter()
        elif self._waiters is None:
            self._waiters = [waiter]
        else:
            self._waiters.append(waiter)

    def remove_waiter(self, waiter: Callable[[], None]) -> None:
        """Forget a waiter that no longer waits."""
        if self._waiters is not None and waiter in self._waiters:
            self._waiters.remove(waiter)

    def result(self) -> T:
        """The result of one that is done."""
        if self._error is not None:
            # The same error may be raised in several algorithms: each gets its own traceback.
            raise self._error.with_traceback(None)
        return cast("T", self._value)

    @property
    def error(self) -> BaseException | None:
        """The error it is done with, if any."""
        return self._error

    @property
    def failed(self) -> bool:
        """Whether it is done with an error."""
        return self._error is not None

    def __await__(self) -> Generator[Wait, None, T]:
        while not self.done:
            yield Wait((self,), math.inf)
        return self.result()


class _AnyOf:
    __slots__ = ("_wait",)

    def __init__(self, wait: Wait) -> None:
        self._wait = wait

    def __await__(self) -> Generator[Wait, None, Pending[Any] | None]:
        pendings = self._wait.pendings
        for pending in pendings:
            if pending.done:
                return pending
        yield self._wait
        for pending in pendings:
            if pending.done:
                return pending
        return None


def first_of(*pendings: Pending[Any], until: float = math.inf) -> _AnyOf:
    """Wait for the first of them that is done, in the order given; None if the time came first."""
    return _AnyOf(Wait(pendings, until))


def until_done(pending: Pending[Any], until: float) -> _AnyOf:
    """Wait for one, but not longer than `until`; None if the time came first."""
    return _AnyOf(Wait((pending,), until))


# --- threads -------------------------------------------------------------------------------------------------------


class _Gate:
    """Lets one thread wait for several pendings. Opened under the step lock, at most once."""

    __slots__ = ("_lock", "_open")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self._open = False

    def open(self) -> None:
        if not self._open:
            self._open = True
            self._lock.release()

    def wait(self, seconds: float) -> bool:
        # threading.TIMEOUT_MAX is about 292 years; longer waits overflow.
        return self._lock.acquire(timeout=-1 if seconds == math.inf else min(max(seconds, 0.0), threading.TIMEOUT_MAX))


def refuse_event_loop(verb: str) -> None:
    """Raise if the calling thread runs an event loop, which a blocking verb would stop."""
    if asyncio._get_running_loop() is not None:  # noqa: SLF001 - the public one raises, which is slow here
        message = f"{verb} would block the running event loop; use the same class from zkrecipes.aio, with await"
        raise RuntimeError(message)


def run_blocking(  # noqa: C901 - an interrupt may come between any two lines, so they stand together
    algorithm: Algorithm[T], lock: AbstractContextManager[Any], now: Callable[[], float]
) -> T:
    """Step `algorithm` in this thread until it returns.

    An exception that arrives while waiting (KeyboardInterrupt) is thrown into the algorithm, so that its clean-up runs.
    """
    try:
        refuse_event_loop("this call")
    except RuntimeError:
        algorithm.close()
        raise
    error: BaseException | None = None
    wait: Wait | None = None
    gate: _Gate | None = None
    result: T | None = None
    undisturbed = Undisturbed()
    try:
        while True:
            stepping, finished = False, False
            try:
                with undisturbed, lock:
                    if gate is not None and wait is not None:
                        for pending in wait.pendings:
                            pending.remove_waiter(gate.open)
                    stepping = True
                    try:
                        wait = algorithm.send(None) if error is None else algorithm.throw(error)
                    except StopIteration as stop:
                        result, finished = stop.value, True
                    else:
                        stepping = False
                        error = None
                        gate = _Gate()
                        for pending in wait.pendings:
                            pending.add_waiter(gate.open)
                if finished or gate is None or wait is None:
                    return cast("T", result)
                # The gate's clock and ours may differ by a little: never come back before the time without a result.
                while not gate.wait(wait.until - now()) and now() < wait.until:
                    pass
            except BaseException as interrupt:
                # An interrupt may arrive anywhere. Where the algorithm itself did not raise, it is suspended, and its
                # clean-up runs when the interrupt is thrown in.
                if stepping:
                    # One that comes too late for the algorithm drops what it has returned: a handle is released then.
                    result = None
                    raise
                error = interrupt
    finally:
        # An error that refers to this frame, which refers to the error, would keep what the caller had until the next
        # collection of cycles: a handle that the interrupt has parted from its owner, for instance.
        error = None


# --- asyncio -------------------------------------------------------------------------------------------------------


async def run_async(algorithm: Algorithm[T], lock: AbstractContextManager[Any], now: Callable[[], float]) -> T:
    """Step `algorithm` on the running event loop until it returns; cancellation is thrown into it."""
    loop = asyncio.get_running_loop()
    error: BaseException | None = None
    undisturbed = Undisturbed()
    try:
        while True:
            with undisturbed, lock:
                try:
                    wait = algorithm.send(None) if error is None else algorithm.throw(error)
                except StopIteration as stop:
                    return cast("T", stop.value)
                error = None
                future: asyncio.Future[None] = loop.create_future()

                def wake(future: asyncio.Future[None] = future) -> None:
                    # A reply may come after the loop has been closed; nobody waits then.
                    if not loop.is_closed():
                        loop.call_soon_threadsafe(_set, future)

                for pending in wait.pendings:
                    pending.add_waiter(wake)
            try:
                await _either(future, wait.until, now)
            except BaseException as interrupt:  # noqa: BLE001 - whatever it is, it belongs to the algorithm
                error = interrupt
            with lock:
                for pending in wait.pendings:
                    pending.remove_waiter(wake)
    finally:
        error = None  # see run_blocking


async def _either(future: asyncio.Future[None], until: float, now: Callable[[], float]) -> None:
    if until == math.inf:
        await future
        return
    # The loop's clock and ours may differ by a little: never come back before the time without a result.
    timer = asyncio.get_running_loop().call_later(max(0.0, until - now()) + _CLOCKS_DIFFER, _set, future)
    try:
        await future
    finally:
        timer.cancel()


_CLOCKS_DIFFER = 0.001


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


# --- many by turns ---------------------------------------------------------------------------------------------------


@final
class _Task(Generic[T]):
    __slots__ = ("algorithm", "done", "name", "queued", "wait", "wake")

    def __init__(self, algorithm: Algorithm[T], name: str) -> None:
        self.algorithm = algorithm
        self.name = name
        self.done: Pending[T] = Pending()
        self.wait: Wait | None = None
        self.wake: Callable[[], None] | None = None
        self.queued = False


class Tasks:
    """Steps many algorithms by turns. All methods are called under the step lock.

    Whoever owns it calls `step_ready` whenever `on_ready` has been called or `next_time` has come.
    """

    def __init__(self, now: Callable[[], float], on_ready: Callable[[], None]) -> None:
        self._now = now
        self._on_ready = on_ready
        self._ready: deque[_Task[Any]] = deque()
        self._timers: list[tuple[float, int, _Task[Any], Wait]] = []
        self._order = itertools.count()
        self._alive: dict[int, _Task[Any]] = {}

    def spawn(self, algorithm: Algorithm[T], name: str) -> Pending[T]:
        """Start an algorithm; the result becomes that of the returned pending. An unawaited error is logged."""
        task = _Task(algorithm, name)
        self._alive[id(task)] = task
        self._wake(task)
        return task.done

    def begin(self, algorithm: Algorithm[T], name: str) -> Pending[T]:
        """As `spawn`, but the first step is taken here and now, as a part of the caller's."""
        task = _Task(algorithm, name)
        self._alive[id(task)] = task
        self._step(task)
        return task.done

    def next_time(self) -> float:
        """When `step_ready` has something to do: minus infinity for at once, infinity for never."""
        if self._ready:
            return -math.inf
        while self._timers and self._timers[0][2].wait is not self._timers[0][3]:
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else math.inf

    def step_ready(self) -> None:
        """Step each algorithm that can go on now, once."""
        now = self._now()
        while self._timers and self._timers[0][0] <= now:
            _, _, task, wait = heapq.heappop(self._timers)
            if task.wait is wait:
                self._wake(task)
        for _ in range(len(self._ready)):
            self._step(self._ready.popleft())

    def close(self) -> None:
        """Let go of algorithms that were never stepped; the others end with the process, or by themselves."""
        for task in self._alive.values():
            if inspect.getcoroutinestate(task.algorithm) == inspect.CORO_CREATED:
                task.algorithm.close()

    def names(self) -> list[str]:
        """The names of the algorithms that have not returned yet."""
        return [task.name for task in self._alive.values()]

    def _wake(self, task: _Task[Any]) -> None:
        if not task.queued:
            task.queued = True
            self._ready.append(task)
            self._on_ready()

    def _step(self, task: _Task[Any]) -> None:
        task.queued = False
        if task.wait is not None and task.wake is not None:
            for pending in task.wait.pendings:
                pending.remove_waiter(task.wake)
        task.wait = None
        try:
            wait = task.algorithm.send(None)
        except StopIteration as stop:
            del self._alive[id(task)]
            task.done.resolve(stop.value)
        except Exception as error:
            del self._alive[id(task)]
            logger.exception("The background task %s failed; please report this", task.name)
            task.done.fail(error)
        else:
            task.wait = wait
            task.wake = lambda: self._wake(task)
            for pending in wait.pendings:
                pending.add_waiter(task.wake)
            if wait.until != math.inf:
                heapq.heappush(self._timers, (wait.until, next(self._order), task, wait))
                if len(self._timers) > 64 + 2 * len(self._alive):
                    # Most are of waits that have ended long before their time; they would keep their tasks alive.
                    self._timers = [timer for timer in self._timers if timer[2].wait is timer[3]]
                    heapq.heapify(self._timers)
                self._on_ready()


def all_done(pendings: Iterable[Pending[Any]]) -> bool:
    """Whether every one of them is done."""
    return all(pending.done for pending in pendings)
