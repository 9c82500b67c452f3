"""The public face of the simulation, for algorithms of your own."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Self, TypeVar, final

from zkrecipes.flow import Wait
from zkrecipes.testing.simulation.client import SimulatedClient
from zkrecipes.testing.simulation.ensemble import Ensemble
from zkrecipes.testing.simulation.server import Server
from zkrecipes.testing.simulation.tasks import Task
from zkrecipes.testing.simulation.world import Violation, World

__all__ = ["Simulation"]

T = TypeVar("T")


@final
class Simulation:
    """A ZooKeeper ensemble and its clients in one process, with virtual time.

    Nothing in it waits: an hour of virtual time takes as long as what happens in it. The same seed gives the same run.

        with Simulation(seed=7) as sim:
            worker = sim.client("worker")
            lock = LockRecipe(worker.core, "/lock", identity=None, layout="curator")
            task = sim.start(worker, lock.acquire(5.0, None))
            sim.at(1.0, worker.isolate, 3.0)
            sim.run_until(lambda: task.done.done, 10.0, "the lock is acquired")
            assert task.done.result().valid

    Args:
        seed: Decides all delays, and with them the order of events.
        servers: 1, 3 or 5.
        tick: The servers' tickTime, in seconds. A session lasts two ticks at least, twenty at most.
        sync_limit: For how many ticks a follower without its leader, and a leader without its quorum, go on.
        delay: Typical delay of a message, in seconds.
        container_interval: How often empty containers are removed, in seconds; 0 never.
        old_servers: As before release 3.6, without persistent watches.

    Attributes:
        ensemble: The servers, and what can be done to them: `freeze`, `separate`, `kill`, `start`, `heal`.
        world: Virtual time, chance and the trace.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        servers: int = 3,
        tick: float = 2.0,
        sync_limit: int = 5,
        delay: float = 0.002,
        container_interval: float = 0.0,
        old_servers: bool = False,
    ) -> None:
        self.world = World(seed)
        self._delay = delay
        self.ensemble = Ensemble(
            self.world,
            servers,
            tick=tick,
            sync_limit=sync_limit,
            delay=delay,
            container_interval=container_interval,
            old_servers=old_servers,
        )
        self._clients: list[SimulatedClient] = []
        self._checks: list[tuple[Callable[[], bool], str]] = []
        self._failures: list[tuple[str, BaseException]] = []

    @property
    def now(self) -> float:
        """Virtual time since the beginning, in seconds."""
        return self.world.now

    def client(
        self,
        name: str = "",
        *,
        session_timeout: float = 10.0,
        rate: float = 1.0,
        server_tick: float | None = None,
        first: Server | None = None,
    ) -> SimulatedClient:
        """A process with a client: `client.core` is what recipes take, `client.session` is the port.

        It can be hurt: `freeze`, `crash`, `cut`, `isolate`, `heal`.

        Args:
            name: For the trace.
            session_timeout: In seconds.
            rate: How fast its clock runs: 1.01 is one in a hundred too fast.
            server_tick: As of connect().
            first: The server that it tries first; drawn if None.
        """
        client = SimulatedClient(
            self.ensemble,
            name or f"client{len(self._clients) + 1}",
            timeout=session_timeout,
            delay=self._delay,
            rate=rate,
            server_tick=server_tick,
            first=first,
        )
        client.runtime.on_failure = lambda task, error: self._failures.append((task, error))
        self._clients.append(client)
        return client

    def start(self, client: SimulatedClient, algorithm: Coroutine[Wait, None, T], name: str = "") -> Task[T]:
        """Run an algorithm in a client; its result comes to be `task.done`. A failed assertion in it ends the run.

        Tasks can be interrupted (`task.interrupt(error)`) and forgotten (`task.abandon()`).
        """
        task = client.runtime.start(algorithm, name or "task")

        def ended() -> None:
            if isinstance(task.done.error, AssertionError):
                self._failures.append((task.name, task.done.error))

        task.done.add_waiter(ended)
        return task

    def at(self, delay: float, what: Callable[..., None], *args: object) -> None:
        """Call something after a delay, in seconds."""
        self.world.at(delay, what, *args)

    def always(self, check: Callable[[], bool], message: str) -> None:
        """After every event from now on `check()` must be true."""
        self._checks.append((check, message))
        self.world.after_event = self._look

    def _look(self) -> None:
        for check, message in self._checks:
            if not check():
                self._fail(message)

    def run(self, seconds: float) -> None:
        """Let so much virtual time pass.

        Raises:
            Violation: A check failed, or a background task did.
        """
        self.world.run(self.world.now + seconds, stop=lambda: bool(self._failures))
        self._check_failures()

    def run_until(self, predicate: Callable[[], bool], limit: float = 60.0, message: str = "") -> None:
        """Let time pass until something is true.

        Raises:
            Violation: It did not become true within `limit` seconds; a check, or a background task, failed.
        """
        self.world.run(self.world.now + limit, stop=lambda: bool(self._failures) or predicate())
        self._check_failures()
        if not predicate():
            self._fail(f"not within {limit:g} s: {message or 'what was waited for'}")

    def _check_failures(self) -> None:
        for name, error in self._failures:
            message = f"the task {name!r} failed: {error!r}"
            raise Violation(message, self.world.seed, self.trace(40)) from error

    def _fail(self, message: str) -> None:
        raise Violation(message, self.world.seed, self.trace(40))

    def trace(self, last: int | None = None) -> str:
        """What happened, a line each: virtual time, who, what."""
        return self.world.trace(last)

    def close(self) -> None:
        """Forget everything."""
        for client in self._clients:
            client.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
