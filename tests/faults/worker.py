"""A process that contends for a lock and stands for election, and writes down each 10 ms whether it believes.

    python -m tests.faults.worker <file> <json>

Settings: hosts, timeout (of the session, seconds), lock, election (paths), hold (seconds for which a turn lasts; null:
until it is lost), traffic (whether the client has other traffic), and further arguments of connect in "connect".
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, final

import zkrecipes as zkr
from zkrecipes.runtime import monotonic

PAUSE: Final = 0.01


@final
class _Log:
    """Lines that survive a SIGKILL: one system call each."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def line(self, *words: object) -> None:
        os.write(self._file, (" ".join(map(str, words)) + "\n").encode())

    def event(self, name: str, text: object = "") -> None:
        self.line("event", name, monotonic(), str(text).replace("\n", " ") or "-")

    def sample(self, what: str, token: int, read: Callable[[], bool]) -> bool:
        before = monotonic()
        valid = read()
        after = monotonic()
        self.line("sample", what, token, before, after, int(valid))
        return valid


@final
class _Worker:
    def __init__(self, log: _Log, settings: dict[str, Any]) -> None:
        self.log = log
        self.settings = settings
        self.stop = zkr.Cancel()
        self.stopped = threading.Event()

    def end(self, *_: object) -> None:
        self.stopped.set()
        # Not here: the signal may have come while this thread holds the client's lock.
        threading.Thread(target=self.stop.cancel, daemon=True).start()

    def turn(self, go_on: Callable[[], bool]) -> None:
        hold = self.settings.get("hold")
        until = monotonic() + (hold if hold is not None else 1e9)
        while go_on() and monotonic() < until and not self.stopped.is_set():
            self.stopped.wait(PAUSE)

    def work(self, leadership: zkr.Leadership) -> None:
        token, stop = leadership.token, leadership.should_stop

        def step() -> bool:
            self.log.sample("election", token, lambda: leadership.valid)
            return self.log.sample("work", token, lambda: not stop.is_set())

        self.log.line("begin", "election", token, monotonic())
        try:
            self.turn(step)
        finally:
            self.log.line("end", "election", token, monotonic())
            step()
            self.log.event("leadership-ended", leadership.should_stop.reason)

    def contend(self, lock: zkr.Lock) -> None:
        while not self.stopped.is_set():
            try:
                held = lock.acquire(timeout=None, cancel=self.stop)
            except zkr.CancelledError:
                return
            except zkr.ZkRecipesError as error:
                self.log.event("error", repr(error))
                self.stopped.wait(0.05)
                continue
            self.log.event("acquired", held.token)
            self.turn(lambda: self.log.sample("lock", held.token, lambda: held.valid))  # noqa: B023  # called at once
            self.log.event("lock-ended", held.lost.reason)
            held.release()
            self.log.sample("lock", held.token, lambda: held.valid)  # noqa: B023

    def traffic(self, zk: zkr.Client) -> None:
        while not self.stopped.wait(0.02):
            try:
                zk.exists("/", timeout=0.5)
                zk.children("/", timeout=0.5)
            except zkr.ZkRecipesError:
                continue

    def main(self) -> None:
        settings = self.settings
        with zkr.connect(
            settings["hosts"],
            session_timeout=settings["timeout"],
            connect_timeout=60.0,
            **settings.get("connect", {}),
        ) as zk:
            zk.on_state(lambda state: self.log.event("state", state.value))
            lock = zkr.Lock(zk, settings["lock"], identity=settings["name"])
            election = zkr.Election(zk, settings["election"], identity=settings["name"])
            threads = [threading.Thread(target=self.contend, args=(lock,), daemon=True)]
            if settings.get("traffic"):
                threads += [threading.Thread(target=self.traffic, args=(zk,), daemon=True) for _ in range(2)]
            for thread in threads:
                thread.start()
            self.log.event("ready", os.getpid())
            try:
                election.run(self.work, cancel=self.stop)
            finally:
                self.stopped.set()
                for thread in threads:
                    thread.join(10.0)
                self.log.event("done")


def main() -> None:
    path, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
    log = _Log(path)
    worker = _Worker(log, {"name": path.stem, **settings})
    signal.signal(signal.SIGTERM, worker.end)
    try:
        worker.main()
    except BaseException as error:
        log.event("crashed", repr(error))
        raise


if __name__ == "__main__":
    main()
