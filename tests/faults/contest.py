"""Worker processes, each behind a proxy of its own, and the judgement over what they wrote."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, final

from tests.faults import checker
from zkrecipes.runtime import monotonic
from zkrecipes.testing import FaultProxy, wait_until
from zkrecipes.testing.proxy import Target

ROOT: Final = Path(__file__).resolve().parents[2]

_numbers = itertools.count(1)


@final
class Worker:
    """One worker process.

    Attributes:
        proxies: Between it and each of its servers, in order.
    """

    def __init__(self, name: str, directory: Path, targets: list[Target], settings: Mapping[str, Any]) -> None:
        self.name = name
        self.file = directory / f"{name}.log"
        self.stderr = directory / f"{name}.err"
        self.proxies = [FaultProxy(target) for target in targets]
        hosts = ",".join(proxy.hosts for proxy in self.proxies)
        command = [
            sys.executable,
            "-m",
            "tests.faults.worker",
            str(self.file),
            json.dumps({"hosts": hosts, **settings}),
        ]
        with self.stderr.open("wb") as stderr:
            self.process = subprocess.Popen(command, cwd=ROOT, stderr=stderr, stdin=subprocess.DEVNULL)

    @property
    def proxy(self) -> FaultProxy:
        """The only one, where there is one server."""
        assert len(self.proxies) == 1
        return self.proxies[0]

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def believes(self, what: str, since: float = 0.0) -> bool:
        """Whether its newest reading is True, and was made after `since`."""
        last = ""
        for line in self.file.read_text(encoding="utf-8").splitlines() if self.file.exists() else ():
            if line.startswith(f"sample {what} "):
                last = line
        return last.endswith(" 1") and float(last.split()[3]) > since

    def end(self) -> None:
        if self.process.poll() is None:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGTERM)
            try:
                self.process.wait(8.0)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def close(self) -> None:
        for proxy in self.proxies:
            proxy.close()


@final
class Contest:
    """Several workers for one lock and one election.

    Args:
        directory: For their files.
        timeout: Of their sessions, in seconds.
        frozen: Whether workers are to be stopped or killed.
        settings: For all workers.
    """

    def __init__(self, directory: Path, timeout: float, *, frozen: bool = False, **settings: Any) -> None:
        number = f"{os.getpid()}-{next(_numbers)}"
        self.workers: list[Worker] = []
        # A process that is stopped or killed does no work, and cannot write down its end.
        self.frozen = frozen
        self._directory = directory
        self._settings = {
            "timeout": timeout,
            "lock": f"/faults-{number}/lock",
            "election": f"/faults-{number}/election",
            **settings,
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for worker in self.workers:
            worker.end()
        for worker in self.workers:
            worker.close()
        if error is None:
            self.judge()
        else:
            error.add_note(self.story())

    @property
    def files(self) -> list[Path]:
        return [worker.file for worker in self.workers if worker.file.exists()]

    def start(self, *targets: Target, **settings: Any) -> Worker:
        """Start one more, which may go to these servers."""
        name = f"worker{len(self.workers) + 1}"
        worker = Worker(name, self._directory, list(targets), {**self._settings, **settings})
        self.workers.append(worker)
        wait_until(lambda: self._told(worker, "ready"), 20.0, lambda: f"{name} connects: {self.story()}")
        return worker

    def first(self, *targets: Target, **settings: Any) -> Worker:
        """Start one, and wait until it has both the lock and the office."""
        worker = self.start(*targets, **settings)
        for what in ("lock", "election"):
            wait_until(lambda: worker.believes(what), 10.0, f"{worker.name} has the {what}")  # noqa: B023
        return worker

    def wait_for_take_over(self, victim: Worker, since: float, limit: float) -> float:
        """Wait until somebody else has believed in both since then; how long after `since` the later one began."""
        others = [worker.file for worker in self.workers if worker is not victim]

        def starts() -> list[float]:
            found = [checker.beliefs([file for file in others if file.exists()], what) for what in ("lock", "election")]
            later = [[belief.start for belief in beliefs if belief.end > since] for beliefs in found]
            return [min(times) for times in later] if all(later) else []

        return max(wait_until(starts, limit, lambda: f"somebody takes over: {self.story()}")) - since

    def judge(self) -> None:
        """Raise if two believed, or worked, at once, or a handle came back to life."""
        intervals = {
            "locks held": checker.beliefs(self.files, "lock"),
            "leaderships": checker.beliefs(self.files, "election"),
            "leaders' work, step by step": checker.beliefs(self.files, "work"),
        }
        if not self.frozen:
            intervals["leaders' work"] = checker.work(self.files, "election", monotonic())
        for what, found in intervals.items():
            assert found, f"nobody ever had any of the {what}: {self.story()}"
            wrong = checker.overlaps(found)
            assert not wrong, f"{what}: two at once: {wrong}\n{self.story()}"
            tokens = [belief.token for belief in found]
            assert tokens == sorted(tokens), f"{what}: tokens must rise: {found}\n{self.story()}"
        for what in ("lock", "election", "work"):
            assert not checker.revived(self.files, what)
        crashes = [event for event in checker.events(self.files) if event.name == "crashed"]
        assert not crashes, f"{crashes}\n{self.story()}"

    def story(self) -> str:
        """What happened, for people."""
        told = checker.events(self.files)
        lines = [f"{event.time:.3f} {event.worker} {event.name} {event.text}" for event in told]
        for what in ("lock", "election"):
            lines += [
                f"{belief.start:.3f}..{belief.end:.3f} {belief.worker} {what} {belief.token}"
                for belief in checker.beliefs(self.files, what)
            ]
        for worker in self.workers:
            text = worker.stderr.read_text(encoding="utf-8", errors="replace") if worker.stderr.exists() else ""
            lines += [f"{worker.name}: {line}" for line in text.splitlines()[-20:]]
        return "\n".join(["", *lines])

    def _told(self, worker: Worker, name: str) -> bool:
        if worker.process.poll() is not None:
            message = f"{worker.name} has ended: {self.story()}"
            raise AssertionError(message)
        return worker.file.exists() and any(event.name == name for event in checker.events([worker.file]))


def linger(seconds: float) -> None:
    """Let time pass in which nothing must happen; the workers write down what does."""
    end = monotonic() + seconds
    wait_until(lambda: monotonic() >= end, seconds + 5.0)


def during(fault: Callable[[], None], heal: Callable[[], None], seconds: float) -> None:
    """A fault that lasts for some time."""
    fault()
    try:
        linger(seconds)
    finally:
        heal()
