"""Simulated processes: a clock of their own, and algorithms that are stepped one at a time, when chance decides.

Each step is one event of the world, so code between two awaits is atomic, as under the step lock of the real drivers,
and every order of steps that threads could produce is possible.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Generic, TypeVar, final

from zkrecipes.flow import Pending, Wait
from zkrecipes.testing.simulation.world import Pausable, Violation, World

__all__ = ["Process", "SimulatedRuntime", "Task"]

T = TypeVar("T")


class Process(Pausable):
    """A process on a machine.

    Args:
        world: For time and chance.
        name: For the trace.
        rate: How fast its clock runs.

    Attributes:
        alive: False after a crash: nothing of it ever happens again.
        freezes: How often it has been frozen, or one of its threads starved.
        starved: How often, of 1, a thread gets no processor for up to three seconds.
        pace: The longest time between the moment when an algorithm may go on and its next step.
    """

    def __init__(self, world: World, name: str, rate: float) -> None:
        self.world = world
        self.name = name
        self.rate = rate
        self.offset = world.uniform(100.0, 1000.0)
        self.alive = True
        self.freezes = 0
        self.pace = 0.0005
        self.starved = 0.0

    def now(self) -> float:
        """Its clock, in seconds."""
        self.world.looked(self.name)
        return self.offset + self.world.now * self.rate

    def hesitation(self) -> float:
        """How long it takes until an algorithm that may go on does."""
        chance = self.world.chance
        if self.starved and chance() < self.starved:
            self.freezes += 1
            return 3.0 * chance()
        return self.pace * chance()

    def later(self, delay: float, what: Callable[..., None], *args: Any) -> None:
        """Something that it does after a delay; not while it is frozen, and not after a crash."""
        self.world.at(delay, self._due, what, args)

    def _due(self, what: Callable[..., None], args: tuple[Any, ...]) -> None:
        wait = self.frozen_until - self.world.now
        if wait > 0:
            self.world.at(wait + self.wake_spread * self.world.chance(), self._due, what, args)
        elif self.alive:
            what(*args)


@final
class Task(Generic[T]):
    """An algorithm that is under way.

    Attributes:
        algorithm: None when it has ended.
        done: Its result.
    """

    __slots__ = ("_error", "_process", "_queued", "_runtime", "_stall", "_turn", "_wait", "algorithm", "done", "name")

    def __init__(
        self, runtime: SimulatedRuntime, algorithm: Coroutine[Wait, None, T], name: str, *, at_once: bool = False
    ) -> None:
        self.algorithm: Coroutine[Wait, None, T] | None = algorithm
        self.name = name
        self.done: Pending[T] = Pending()
        self._runtime = runtime
        self._process = runtime.process
        self._wait: Wait | None = None
        self._queued = False
        self._turn = 0
        self._stall = 0.0
        self._error: BaseException | None = None
        runtime.tasks[id(self)] = self
        if at_once:
            self._step()
        else:
            self._wake()

    def interrupt(self, error: BaseException) -> None:
        """Throw something into it where it waits, as Ctrl-C and a cancellation do."""
        self._error = error
        self._wake()

    def stall(self, seconds: float) -> None:
        """Its thread gets no processor for so long after it could have gone on the next time."""
        self._stall = seconds

    def abandon(self) -> None:
        """Forget it where it waits: Python then closes the coroutine, as when its driver has crashed."""
        self._turn += 1
        self._let_go()
        algorithm, self.algorithm = self.algorithm, None
        if algorithm is not None:
            del self._runtime.tasks[id(self)]
            algorithm.close()

    def _wake(self) -> None:
        if not self._queued:
            self._queued = True
            stall, self._stall = self._stall, 0.0
            self._process.later(stall or self._process.hesitation(), self._step)

    def _let_go(self) -> None:
        if self._wait is not None:
            for pending in self._wait.pendings:
                pending.remove_waiter(self._wake)
            self._wait = None

    def _step(self) -> None:
        self._queued = False
        self._turn += 1
        self._let_go()
        algorithm = self.algorithm
        if algorithm is None:
            return
        error, self._error = self._error, None
        caller, self._runtime.current = self._runtime.current, self
        try:
            wait = algorithm.send(None) if error is None else algorithm.throw(error)
        except StopIteration as stop:
            self._end()
            self.done.resolve(stop.value)
        except Violation:
            self._end()
            raise
        except BaseException as failure:  # noqa: BLE001 - it is the task's result
            self._end()
            self.done.fail(failure)
        else:
            self._wait = wait
            for pending in wait.pendings:
                pending.add_waiter(self._wake)
            if wait.until != math.inf:
                self._set_timer(wait.until)
        finally:
            self._runtime.current = caller

    def _end(self) -> None:
        self.algorithm = None
        del self._runtime.tasks[id(self)]

    def _set_timer(self, until: float) -> None:
        process = self._process
        delay = max(0.0, (until - process.now()) / process.rate) + 1e-6
        process.later(delay, self._timer, self._turn)

    def _timer(self, turn: int) -> None:
        if turn == self._turn:
            self._wake()


@final
class SimulatedRuntime:
    """The Runtime of a simulated client."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.lock: AbstractContextManager[Any] = nullcontext()
        self.now = process.now
        self.current: Task[Any] | None = None
        self.on_failure: Callable[[str, BaseException], None] = lambda _name, _error: None
        self._callbacks: dict[object, list[Callable[[], None]]] = {}
        self._random = process.world.random
        self.tasks: dict[int, Task[Any]] = {}

    def unique(self) -> str:
        """A GUID of version 8."""
        digits = f"{self._random.getrandbits(128):032x}"
        return f"{digits[:8]}-{digits[8:12]}-8{digits[13:16]}-{digits[16:20]}-{digits[20:]}"

    def random(self) -> float:
        """From 0.0 to 1.0."""
        return self._random.random()

    def start(self, algorithm: Coroutine[Wait, None, T], name: str) -> Task[T]:
        """Run an algorithm, as a thread or task of the user's would."""
        return Task(self, algorithm, name)

    def spawn(self, algorithm: Coroutine[Wait, None, T], name: str) -> Pending[T]:
        """Run an algorithm in the background."""
        return self._run(algorithm, name, at_once=False)

    def begin(self, algorithm: Coroutine[Wait, None, T], name: str) -> Pending[T]:
        """Run an algorithm in the background, its first step within the caller's."""
        return self._run(algorithm, name, at_once=True)

    def _run(self, algorithm: Coroutine[Wait, None, T], name: str, *, at_once: bool) -> Pending[T]:
        if not self.process.alive:
            algorithm.close()
            return Pending()
        task = Task(self, algorithm, name, at_once=at_once)

        def ended() -> None:
            if task.done.error is not None:
                self.on_failure(name, task.done.error)

        task.done.add_waiter(ended)
        return task.done

    def end(self) -> None:
        """Nothing of it happens any more."""
        self.process.alive = False
        for task in list(self.tasks.values()):
            task.abandon()

    def dispatch(self, key: object, callback: Callable[[], None]) -> None:
        """Run user code later; what has one key runs in order."""
        line = self._callbacks.setdefault(id(key), [])
        line.append(callback)
        self.process.later(4 * self.process.pace * self._random.random(), self._run_callback, line)

    def _run_callback(self, line: list[Callable[[], None]]) -> None:
        line.pop(0)()

    def forked(self) -> bool:
        """Never. Who asks for nothing but this, again and again, goes round for ever."""
        self.process.world.looked(self.process.name)
        return False

    def owner(self) -> int:
        """The task that is running."""
        return id(self.current)
