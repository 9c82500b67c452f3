"""The world around a client in a real process: clock, engine thread, dispatcher.

The engine thread steps the client's own algorithms (heartbeat, lease, reaper) and never runs user code. What an answer
or an event lets go on is stepped by the thread that brings it (`delivery`), so the engine thread mostly has the timers.
The dispatcher runs user callbacks on a few threads; those of one listener run one after another.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import os
import socket
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager
from typing import Any, Final, TypeVar, final

from zkrecipes.flow import Pending, Tasks, Wait

__all__ = ["Dispatcher", "ThreadRuntime", "default_identity", "monotonic"]

T = TypeVar("T")

logger = logging.getLogger("zkrecipes.runtime")

_numbers = itertools.count(1)
_thread = threading.local()
_tasks: weakref.WeakKeyDictionary[asyncio.Task[Any], int] = weakref.WeakKeyDictionary()

# CLOCK_MONOTONIC stands still while the machine sleeps, and a lease would seem to run on after the server has ended it.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", None)


def _boottime() -> float:
    return time.clock_gettime(_CLOCK)  # type: ignore[arg-type]  # chosen only where there is one


monotonic: Callable[[], float] = time.monotonic if _CLOCK is None else _boottime


def default_identity() -> str:
    """The name of our contenders unless the user gives another: "host:pid"."""
    return f"{socket.gethostname()}:{os.getpid()}"


@final
class Dispatcher:
    """Runs callbacks on up to `size` threads; those of one key in order, one at a time."""

    def __init__(self, name: str, size: int = 8) -> None:
        self._name = name
        self._size = size
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._queues: dict[int, tuple[object, deque[Callable[[], None]]]] = {}
        self._ready: deque[int] = deque()
        self._threads = 0
        self._idle = 0
        self._stopped = False

    def dispatch(self, key: object, callback: Callable[[], None]) -> None:
        """Run `callback` soon, after the earlier ones of the same key."""
        with self._lock:
            if id(key) in self._queues:
                self._queues[id(key)][1].append(callback)
                return
            self._queues[id(key)] = (key, deque([callback]))
            self._ready.append(id(key))
            if len(self._ready) <= self._idle:
                self._work.notify()
            elif self._threads < self._size:
                self._threads += 1
                threading.Thread(target=self._run, name=f"{self._name}-callbacks-{self._threads}", daemon=True).start()
            else:
                logger.warning("All %d callback threads are busy: a callback that blocks delays the others", self._size)

    def stop(self) -> None:
        """Let the threads end when what is queued has run."""
        with self._lock:
            self._stopped = True
            self._work.notify_all()

    def _run(self) -> None:
        while True:
            with self._lock:
                while not self._ready:
                    if self._stopped:
                        self._threads -= 1
                        return
                    self._idle += 1
                    self._work.wait()
                    self._idle -= 1
                key = self._ready.popleft()
                callback = self._queues[key][1].popleft()
            try:
                callback()
            except Exception:
                logger.exception("A callback failed; the others go on")
            del callback
            with self._lock:
                if self._queues[key][1]:
                    self._ready.append(key)
                    self._work.notify()
                else:
                    del self._queues[key]


@final
class _Delivery:
    """Holds the step lock, and at its end steps what has become ready: two changes of threads are saved."""

    # So many rounds; then the engine goes on, and the connection thread turns to its connection.
    ROUNDS: Final = 16

    def __init__(self, runtime: ThreadRuntime) -> None:
        self._runtime = runtime

    def __enter__(self) -> None:
        runtime = self._runtime
        runtime.lock.acquire()
        runtime.depth += 1

    def __exit__(self, *exc_info: object) -> None:
        runtime = self._runtime
        try:
            if runtime.depth == 1 and runtime.due:
                runtime.step(self.ROUNDS)
        finally:
            runtime.depth -= 1
            runtime.lock.release()


@final
class ThreadRuntime:
    """A `Runtime` with an engine thread.

    Args:
        name: For the names of threads.
        dispatch: Runs user callbacks elsewhere than on a dispatcher of its own, as on an event loop.

    Attributes:
        depth: How many deliveries the thread that holds the step lock is in.
        due: Whether something has become ready in them.
    """

    def __init__(
        self, name: str = "zkrecipes", dispatch: Callable[[object, Callable[[], None]], None] | None = None
    ) -> None:
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._wake = threading.Condition(self._lock)
        self._tasks = Tasks(monotonic, self._ready)
        self._sleeps_until = math.inf
        self.depth = 0
        self.due = False
        self.delivery: AbstractContextManager[None] = _Delivery(self)
        """The step lock, for a thread that brings answers and events: never within a step of an algorithm."""
        self._stopped = False
        self._name = name
        self._thread: threading.Thread | None = None
        self._dispatcher = Dispatcher(name) if dispatch is None else None
        self._dispatch = self._dispatcher.dispatch if self._dispatcher is not None else dispatch
        self.now: Callable[[], float] = monotonic

    @property
    def lock(self) -> threading.RLock:
        """The step lock."""
        return self._lock

    def unique(self) -> str:
        """A GUID whose version digit is 8: random, and recognisably ours."""
        text = os.urandom(16).hex()
        variant = "89ab"[int(text[16], 16) & 3]
        return f"{text[:8]}-{text[8:12]}-8{text[13:16]}-{variant}{text[17:20]}-{text[20:]}"

    def random(self) -> float:
        """From 0.0 to 1.0; not the random module's, whose state a fork copies."""
        return int.from_bytes(os.urandom(7), "big") / (1 << 56)

    def spawn(self, algorithm: Coroutine[Wait, None, T], name: str) -> Pending[T]:
        """Run an algorithm on the engine thread."""
        with self._lock:
            return self._tasks.spawn(algorithm, name)

    def begin(self, algorithm: Coroutine[Wait, None, T], name: str) -> Pending[T]:
        """Run an algorithm in the background, its first step in the caller's thread and step."""
        with self._lock:
            return self._tasks.begin(algorithm, name)

    def dispatch(self, key: object, callback: Callable[[], None]) -> None:
        """Run user code off the step lock."""
        if self._dispatch is not None:
            self._dispatch(key, callback)

    def forked(self) -> bool:
        """Whether this is another process than the one that made it."""
        return os.getpid() != self._pid

    def owner(self) -> int:
        """A number for the running task under asyncio, or the running thread; never used again for another.

        The identifiers of both are used again as soon as one has ended, and a re-entrant lock would let a stranger in.
        """
        if asyncio._get_running_loop() is not None:  # noqa: SLF001 - the public one raises, which is slow here
            task = asyncio.current_task()
            if task is not None:
                number = _tasks.get(task)
                if number is None:
                    number = _tasks[task] = next(_numbers)
                return number
        number = getattr(_thread, "number", None)
        if number is None:
            number = _thread.number = next(_numbers)
        return number

    def start(self) -> None:
        """Start the engine thread."""
        self._thread = threading.Thread(target=self._run, name=f"{self._name}-engine", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the engine thread, and the dispatcher's when they have run what is queued."""
        with self._lock:
            self._stopped = True
            self._wake.notify_all()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(1.0)
        with self._lock:
            self._tasks.close()
        if self._dispatcher is not None:
            self._dispatcher.stop()

    def step(self, rounds: int) -> None:
        """For deliveries: step what is ready, and what that makes ready. The engine goes on with what is left."""
        self.due = False
        for _ in range(0 if self._stopped else rounds):
            if self._tasks.next_time() > monotonic():
                break
            self._tasks.step_ready()
        if self._tasks.next_time() < self._sleeps_until:
            self._wake.notify_all()

    def _ready(self) -> None:
        # Called with the step lock held, so the delivery, if there is one, is this thread's own.
        if self.depth:
            self.due = True
        else:
            self._wake.notify_all()

    def _run(self) -> None:
        with self._lock:
            while not self._stopped:
                self._tasks.step_ready()
                self._sleeps_until = self._tasks.next_time()
                seconds = self._sleeps_until - monotonic()
                if seconds > 0:
                    self._wake.wait(None if seconds == math.inf else min(seconds, threading.TIMEOUT_MAX))
