"""Producers and consumers as processes, while they are killed, cut off, and lose their servers.

Judged from what they wrote down: every item told as stored is acknowledged at least once, one told as failed is never
served, none is served after its acknowledgement was told, and a duplicate is of a claim that was lost.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self, final

import pytest

import zkrecipes as zkr
from tests.faults.contest import ROOT, linger
from zkrecipes.testing import FaultProxy, ZooKeeperEnsemble, ZooKeeperServer, wait_until

SESSION: Final = 4.0
EACH: Final = 4
LIMIT: Final = 60.0
ITEMS: Final = int(os.environ.get("ZKRECIPES_FAULT_ITEMS", "500"))
"""Items of the longest scene: 20,000 are some minutes."""


class Line(NamedTuple):
    """What a process has written down."""

    verb: str
    time: float
    attempt: int
    value: str


def _lines(file: Path) -> list[Line]:
    found = []
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
        verb, time, attempt, value = line.split(" ")
        found.append(Line(verb, float(time), int(attempt), value))
    return found


@final
class Process:
    """One that puts or takes, behind proxies of its own; it may be killed and started again."""

    def __init__(self, name: str, role: str, play: Play) -> None:
        self.name = name
        self.role = role
        self.file = play.directory / f"{name}.log"
        self.errors = play.directory / f"{name}.err"
        self.proxies = [FaultProxy(server) for server in play.servers]
        self._settings = {
            "role": role,
            "name": name,
            "path": play.path,
            "timeout": SESSION,
            "segment_size": 40,
            "hosts": ",".join(proxy.hosts for proxy in self.proxies),
        }
        self.begun = 0
        self.starts = 1
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.faults.queue_worker", str(self.file), json.dumps(self._settings)]
        with self.errors.open("ab") as errors:
            return subprocess.Popen(command, cwd=ROOT, stderr=errors, stdin=subprocess.DEVNULL)

    @property
    def lines(self) -> list[Line]:
        return _lines(self.file)

    def kill(self) -> None:
        """SIGKILL, and a new one at once."""
        self.process.kill()
        self.process.wait()
        self.starts += 1
        self.begun = sum(line.verb == "begin" for line in self.lines)
        self.process = self._start()

    def end(self) -> None:
        begun = f"{self.name}, started {self.starts} times, is at work"
        wait_until(lambda: sum(line.verb == "begin" for line in self.lines) >= self.begun + 1, LIMIT, begun)
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.wait(20.0)
        assert self.process.returncode == 0, f"{self.name} has crashed"

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for proxy in self.proxies:
            proxy.close()


_numbers = itertools.count(1)


@final
class Play:
    """All processes, and the judgement."""

    def __init__(self, directory: Path, servers: Sequence[ZooKeeperServer]) -> None:
        self.directory = directory
        self.servers = servers
        self.path = f"/queue-{os.getpid()}-{next(_numbers)}"
        self.producers: list[Process] = []
        self.consumers: list[Process] = []

    def __enter__(self) -> Self:
        for number in range(EACH):
            self.producers.append(Process(f"producer{number}", "producer", self))
            self.consumers.append(Process(f"consumer{number}", "consumer", self))
        wait_until(
            lambda: (
                all(any(line.verb == "stored" for line in each.lines) for each in self.producers)
                and all(any(line.verb == "acked" for line in each.lines) for each in self.consumers)
            ),
            LIMIT,
            "all are at work",
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for process in self.all:
            process.close()
        if error is not None:
            for process in self.all:
                error.add_note(f"{process.name}: {process.errors.read_text(encoding='utf-8')[-2000:]}")

    @property
    def all(self) -> list[Process]:
        return [*self.producers, *self.consumers]

    @property
    def stored(self) -> int:
        """How many items are told as stored."""
        return sum(line.verb == "stored" for process in self.producers for line in process.lines)

    def judge(self) -> None:
        """End the producers, let the consumers finish, and raise if a promise was broken."""
        for process in self.producers:
            process.end()
        with zkr.connect(",".join(server.hosts for server in self.servers), connect_timeout=LIMIT) as zk:
            queue = zkr.Queue(zk, self.path)

            def empty() -> bool:
                stats = queue.stats(timeout=LIMIT)
                return stats.waiting == stats.claimed == stats.delayed == 0

            wait_until(empty, LIMIT + ITEMS / 50, lambda: f"all is done: {queue.stats()}")
        for process in self.consumers:
            process.end()
        judge([each.lines for each in self.producers], [each.lines for each in self.consumers])


def judge(producers: list[list[Line]], consumers: list[list[Line]]) -> None:
    """Raise if the histories show a broken promise."""
    put = [line for lines in producers for line in lines]
    taken = sorted((line for lines in consumers for line in lines), key=lambda line: line.time)
    stored = {line.value for line in put if line.verb == "stored"}
    failed = {line.value for line in put if line.verb == "failed"}
    assert len(stored) > 100
    got = [line for line in taken if line.verb == "got"]
    acked: dict[str, Line] = {}
    for line in taken:
        if line.verb == "acked":
            assert line.value not in acked, f"{line.value} was acknowledged twice"
            acked[line.value] = line
    maybe = {line.value for line in taken if line.verb in {"ack", "unsure"}}
    missing = stored - acked.keys() - maybe
    assert not missing, f"told as stored, and never acknowledged: {sorted(missing)[:5]} of {len(missing)}"
    assert not failed & {line.value for line in got}, "told as failed, and served"
    for line in got:
        end = acked.get(line.value)
        assert end is None or line.time <= end.time, f"{line.value} was served after its acknowledgement was told"
    attempts: dict[tuple[str, int], Line] = {}
    released = {line.value for line in taken if line.verb == "kept"}
    for line in got:
        # Each claim that nobody gives back by `release` counts: one attempt is handed out once, unless it was so ended.
        before = attempts.setdefault((line.value, line.attempt), line)
        twice = before is not line and line.value not in released
        assert not twice, f"attempt {line.attempt} of {line.value} was handed out twice"
    ends = Counter(line.verb for line in taken if line.verb in {"back", "kept", "lost", "unsure"})
    again = len(got) - len({line.value for line in got})
    print(  # noqa: T201 - pytest -rP shows it
        f"{len(stored)} stored, {len(acked)} acknowledged, {again} served again; claims that ended without: "
        f"{dict(ends)}, and {len(got) - len(acked) - ends.total()} of processes that were killed"
    )


def _trouble(play: Play, seconds: float, chance: random.Random) -> None:
    """Kill, cut, and lose replies, one process after another."""
    for _ in range(int(seconds / 0.5)):
        process = chance.choice(play.all)
        choice = chance.random()
        if choice < 0.3:
            process.kill()
        elif choice < 0.6:
            for proxy in process.proxies:
                proxy.cut()
        else:
            for proxy in process.proxies:
                proxy.drop_reply("multi")
        linger(0.5)


def test_nothing_is_lost_while_processes_die_and_connections_break(server: ZooKeeperServer, tmp_path: Path) -> None:
    with Play(tmp_path, [server]) as play:
        _trouble(play, 8.0, random.Random(4))
        play.judge()


def test_nothing_is_lost_while_the_server_is_killed_and_started_again(server: ZooKeeperServer, tmp_path: Path) -> None:
    with Play(tmp_path, [server]) as play:
        for _ in range(2):
            server.kill()
            linger(1.0)
            server.start()
            linger(2.0)
        play.judge()


@pytest.fixture
def ensemble() -> Iterator[ZooKeeperEnsemble]:
    with ZooKeeperEnsemble() as ensemble:
        yield ensemble


@pytest.mark.ensemble
@pytest.mark.timeout(60 + 2 * ITEMS // 10)
def test_nothing_is_lost_while_everything_happens(ensemble: ZooKeeperEnsemble, tmp_path: Path) -> None:
    """Processes die, connections break, replies are lost, and so are leaders and followers, until enough was put."""
    chance = random.Random(5)
    with Play(tmp_path, ensemble.servers) as play:
        while play.stored < ITEMS:
            # ZooKeeper 3.8.0 may lose what is committed if a server dies while it catches up (ZOOKEEPER-4646).
            wait_until(lambda: len(ensemble.followers()) == 2, LIMIT, "all servers have caught up")
            leader = ensemble.leader()
            server = leader if chance.random() < 0.5 else next(each for each in ensemble.servers if each is not leader)
            server.kill()
            _trouble(play, 4.0, chance)
            server.start()
            _trouble(play, 4.0, chance)
        play.judge()
