"""The stage: a real server, a proxy and a process for each worker, and the script of what is done to them."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from examples.demo.judge import Fault, FaultKind
from examples.demo.record import Sample, clock, read_samples
from zkrecipes.testing import FaultProxy, ZooKeeperServer

WORKERS: Final = ("w1", "w2", "w3", "w4", "w5")
SESSION_TIMEOUT: Final = 4.0
TICK: Final = 0.5
SLOW: Final = SESSION_TIMEOUT + 2 * TICK
"""Seconds in which another must lead after a leader that could say nothing."""
QUICK: Final = 1.0
"""Seconds in which another must lead after a leader that resigned."""
START_LIMIT: Final = 20.0
CALM_LIMIT: Final = 10.0
CALM_TURNS: Final = 12
END_LIMIT: Final = 5.0


class Event(NamedTuple):
    """Something that a worker told, or that was done."""

    at: float
    worker: str
    event: str
    details: dict[str, Any]


class Crew:
    """One worker process, with its own way to the server.

    Args:
        name: The worker's.
        server: What its proxy leads to.
        directory: For its file of samples.
        told: Called with each of its events, on a thread of its own.
    """

    def __init__(self, name: str, server: ZooKeeperServer, directory: Path, told: Callable[[Event], None]) -> None:
        self.name = name
        self.file = directory / f"{name}.samples"
        self._log = directory / f"{name}.log"
        self.proxy = FaultProxy(server)
        command = [sys.executable, "-m", "examples.demo.worker", name, self.proxy.hosts, str(self.file)]
        # A session of its own: Ctrl-C is for the demo, which then ends its workers by closing their input.
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, "--session-timeout", str(SESSION_TIMEOUT)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=Path(__file__).parents[2],
                start_new_session=True,
            )
        self._told = told
        threading.Thread(target=self._listen, name=f"output of {name}", daemon=True).start()

    def resign(self) -> None:
        """Ask it to resign."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.write("resign\n")
            self._process.stdin.flush()

    def kill(self) -> None:
        """End it by SIGKILL."""
        self._process.kill()

    def let_go(self) -> None:
        """Ask it to end."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()

    def end(self, limit: float) -> None:
        """Wait until it has ended; after `limit` seconds, kill it."""
        self.let_go()
        try:
            self._process.wait(limit)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self.proxy.close()

    def samples(self) -> list[Sample]:
        """What it has written down."""
        return list(read_samples(self.file)) if self.file.exists() else []

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            details = json.loads(line)
            self._told(Event(details.pop("at"), self.name, details.pop("event"), details))
        # Its output has ended, so it has, too, or will at once.
        if self._process.wait() not in {0, -signal.SIGKILL}:
            why = self._log.read_text(errors="replace").strip().rpartition("\n")[2]
            self._told(Event(clock(), self.name, "trouble", {"why": why or f"status {self._process.returncode}"}))


class Stage:
    """Everything that runs, until the `with` block is left.

    Args:
        directory: For the files of samples.
        show: Called with each event as it comes, one at a time.
    """

    def __init__(self, directory: Path, show: Callable[[Event], None]) -> None:
        self.began = clock()
        self.faults: list[Fault] = []
        self.events: list[Event] = []
        self.cut_off: dict[str, tuple[float, float]] = {}
        """When a worker was cut off and when it was healed."""
        self.crew: dict[str, Crew] = {}
        self._directory = directory
        self._show = show
        self._changed = threading.Condition()
        self._server = ZooKeeperServer(tick_time=TICK, name="demo")

    def __enter__(self) -> Self:
        try:
            self._server.start()
            self._tell("", "server", address=self._server.hosts)
            for name in WORKERS:
                self.crew[name] = Crew(name, self._server, self._directory, self._take)
        except BaseException:
            self.close(0.0)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close(END_LIMIT if error is None else 0.0)

    def close(self, limit: float) -> None:
        """End every process. They get `limit` seconds together to end by themselves."""
        deadline = clock() + limit
        for crew in self.crew.values():
            crew.let_go()
        for crew in self.crew.values():
            crew.end(max(0.0, deadline - clock()))
        self._server.close()

    def recorded(self) -> dict[str, Sequence[Sample]]:
        """What each worker has written down."""
        return {name: crew.samples() for name, crew in self.crew.items()}

    # --- the script ---------------------------------------------------------------------------------------------------

    def play(self) -> bool:
        """Do everything to the workers; False if a step did not come to its end in time."""
        return (
            self._wait(lambda: self._leader() is not None and set(self._turns()) == set(WORKERS), START_LIMIT)
            and self._calm()
            and self._strike("kill", lambda crew: crew.kill(), SLOW)
            and self._calm()
            and self._strike("cut", lambda crew: crew.proxy.blackhole(), SLOW)
            and self._calm()
            and self._strike("resign", lambda crew: crew.resign(), QUICK)
            and self._calm()
            and self._heal()
            and self._calm()
        )

    def _strike(self, kind: FaultKind, do: Callable[[Crew], None], limit: float) -> bool:
        leader = self._leader()
        assert leader is not None
        at, token = clock(), leader.details["token"]
        self.faults.append(Fault(kind, leader.worker, token, at, limit))
        if kind == "cut":
            self.cut_off[leader.worker] = (at, at + 3600.0)
        do(self.crew[leader.worker])
        self._tell(leader.worker, kind)
        # Twice the limit: a late take-over is shown as late, not as missing.
        return self._wait(lambda: self._leader() is not None, limit * 2)

    def _heal(self) -> bool:
        """End the cut; whoever was cut off takes part again, as it must."""
        (name, (at, _)), *_ = self.cut_off.items()
        healed = clock()
        self.cut_off[name] = (at, healed)
        self._tell(name, "heal")
        self.crew[name].proxy.heal()
        return self._wait(lambda: name in self._turns(healed), CALM_LIMIT)

    def _calm(self) -> bool:
        """Let the lock go round for a while."""
        since = clock()
        return self._wait(lambda: len(self._turns(since)) >= CALM_TURNS, CALM_LIMIT)

    # --- what has happened --------------------------------------------------------------------------------------------

    def _leader(self) -> Event | None:
        """The newest word of a leader, if it was not struck yet."""
        leads = [event for event in self.events if event.event == "leads"]
        newest = max(leads, key=lambda event: event.at, default=None)
        struck = {(fault.worker, fault.token) for fault in self.faults}
        return None if newest is None or (newest.worker, newest.details["token"]) in struck else newest

    def _turns(self, since: float = 0.0) -> list[str]:
        return [event.worker for event in self.events if event.event == "turn" and event.at >= since]

    def _take(self, event: Event) -> None:
        with self._changed:
            self.events.append(event)
            self._show(event)
            self._changed.notify_all()

    def _tell(self, worker: str, event: str, **details: object) -> None:
        self._take(Event(clock(), worker, event, details))

    def _wait(self, condition: Callable[[], bool], limit: float) -> bool:
        with self._changed:
            return self._changed.wait_for(condition, limit)
