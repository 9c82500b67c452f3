"""Publishers and durable subscribers as processes, while they are killed, cut off, and lose their servers.

Every subscriber sees every message, in one order, none missing, none twice beyond its last acknowledgement; a message
told as stored is there once, one told as failed is not; numbers have no gap, whoever led.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self, final

import pytest

import zkrecipes as zkr
from tests.faults.contest import ROOT, linger
from zkrecipes.testing import FaultProxy, ZooKeeperEnsemble, ZooKeeperServer, wait_until

SESSION: Final = 4.0
PUBLISHERS: Final = 3
SUBSCRIBERS: Final = 5
LIMIT: Final = 60.0


class Line(NamedTuple):
    """What a process has written down."""

    verb: str
    time: float
    position: zkr.Position | None
    value: str


def _lines(file: Path) -> list[Line]:
    found = []
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
        verb, time, position, value = line.split(" ")
        found.append(Line(verb, float(time), None if position == "-" else zkr.Position.parse(position), value))
    return found


@final
class Process:
    """One that publishes or subscribes, behind proxies of its own; it may be killed and started again."""

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
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.faults.topic_worker", str(self.file), json.dumps(self._settings)]
        with self.errors.open("ab") as errors:
            return subprocess.Popen(command, cwd=ROOT, stderr=errors, stdin=subprocess.DEVNULL)

    @property
    def lines(self) -> list[Line]:
        return _lines(self.file)

    def kill(self) -> None:
        """SIGKILL, and a new one at once."""
        self.process.kill()
        self.process.wait()
        self.process = self._start()

    def cut(self) -> None:
        for proxy in self.proxies:
            proxy.cut()

    def end(self) -> None:
        if self.process.poll() is None:
            # Not before it has its handler for the signal.
            begun = ("begin", str(self.process.pid))
            wait_until(lambda: begun in {(line.verb, line.value) for line in self.lines}, LIMIT, f"{self.name} begins")
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
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
        self.path = f"/topic-{os.getpid()}-{next(_numbers)}"
        self.publishers: list[Process] = []
        self.subscribers: list[Process] = []

    def __enter__(self) -> Self:
        for number in range(PUBLISHERS):
            self.publishers.append(Process(f"publisher{number}", "publisher", self))
        for number in range(SUBSCRIBERS):
            self.subscribers.append(Process(f"subscriber{number}", "subscriber", self))
        wait_until(
            lambda: (
                all(any(line.verb == "stored" for line in each.lines) for each in self.publishers)
                and all(any(line.verb == "got" for line in each.lines) for each in self.subscribers)
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
        return [*self.publishers, *self.subscribers]

    def judge(self) -> None:
        """End the publishers, let the subscribers finish, and raise if a promise was broken."""
        for process in self.publishers:
            process.end()
        order = self._order()
        last = max(order)
        wait_until(
            lambda: all(any(line.position == last for line in each.lines[-40:]) for each in self.subscribers),
            LIMIT,
            lambda: f"all have seen {last}: {[(each.name, each.lines[-1:]) for each in self.subscribers]}",
        )
        for process in self.subscribers:
            process.end()
        assert self._order() == order, "nothing appears later"
        for process in self.publishers:
            _judge_publisher(process.lines, order)
        for process in self.subscribers:
            _judge_subscriber(process.name, process.lines, order)

    def _order(self) -> dict[zkr.Position, str]:
        """All that is there."""
        with zkr.connect(",".join(server.hosts for server in self.servers), connect_timeout=LIMIT) as zk:
            topic = zkr.Topic(zk, self.path, codec=zkr.TextCodec())
            found: dict[zkr.Position, str] = {}
            for segment in itertools.count():
                name = f"{self.path}/s{segment:010d}"
                if zk.exists(name) is None:
                    break
                indices = sorted(int(child.removeprefix("m-")) for child in zk.children(name))
                assert indices == list(range(len(indices))), f"segment {segment} has gaps: {indices}"
            with topic.subscribe("witness", start="earliest", durable=False) as tail:
                while True:
                    try:
                        message = tail.receive(1.0)
                    except zkr.AcquireTimeoutError:
                        return found
                    found[message.position] = message.value


def _judge_publisher(lines: list[Line], order: dict[zkr.Position, str]) -> None:
    values = list(order.values())
    assert len(values) == len(set(values)), "stored twice"
    stored = [line for line in lines if line.verb == "stored"]
    assert len(stored) > 20
    for line in stored:
        assert line.position is not None
        assert order.get(line.position) == line.value, f"{line} was told, and {order.get(line.position)} is there"
    there = set(values)
    assert not [line for line in lines if line.verb == "failed" and line.value in there]


def _judge_subscriber(name: str, lines: list[Line], order: dict[zkr.Position, str]) -> None:
    rank = {position: number for number, position in enumerate(order)}
    newest = acknowledged = previous = -1
    for line in lines:
        if line.verb not in {"got", "acked"}:
            continue
        assert line.position is not None
        assert order.get(line.position) == line.value, f"{name} got {line}, and {order.get(line.position)} is there"
        number = rank[line.position]
        if line.verb == "acked":
            acknowledged = max(acknowledged, number)
            continue
        assert number > acknowledged, f"{name} got {line} again, and had acknowledged {acknowledged}"
        assert number <= newest + 1, f"{name} got {line}, which is number {number}, after {newest}: some are missing"
        if number != previous + 1:
            assert number <= newest, "only what was not acknowledged comes again"
        previous, newest = number, max(newest, number)
    assert newest == len(order) - 1, f"{name} has seen {newest + 1} of {len(order)}"


def _any(processes: list[Process], chance: random.Random) -> Process:
    return processes[chance.randrange(len(processes))]


def test_processes_that_are_killed_and_cut_off(quick_server: ZooKeeperServer, tmp_path: Path) -> None:
    chance = random.Random(7)
    with Play(tmp_path, [quick_server.start()]) as play:
        for turn in range(12):
            linger(0.5)
            _any(play.subscribers if turn % 3 else play.publishers, chance).kill()
            for _ in range(3):
                _any(play.all, chance).cut()
        play.judge()


def test_a_server_that_is_killed(quick_server: ZooKeeperServer, tmp_path: Path) -> None:
    with Play(tmp_path, [quick_server.start()]) as play:
        for _ in range(2):
            linger(1.0)
            quick_server.kill()
            linger(0.5)
            quick_server.start()
            linger(2.0)
        play.judge()


@pytest.fixture
def ensemble() -> Iterator[ZooKeeperEnsemble]:
    with ZooKeeperEnsemble() as ensemble:
        yield ensemble


@pytest.mark.ensemble
@pytest.mark.timeout(240)
def test_a_leader_that_is_killed(ensemble: ZooKeeperEnsemble, tmp_path: Path) -> None:
    """Three times; and processes are killed and cut off in between."""
    chance = random.Random(11)
    with Play(tmp_path, ensemble.servers) as play:
        for _ in range(3):
            linger(1.0)
            # ZooKeeper 3.8.0 may lose what is committed if a server dies while it catches up (ZOOKEEPER-4646).
            wait_until(lambda: len(ensemble.followers()) == 2, LIMIT, "all servers have caught up")
            leader = ensemble.leader()
            ensemble.kill(leader)
            _any(play.subscribers, chance).kill()
            linger(3.0)
            ensemble.restart(leader)
            _any(play.publishers, chance).kill()
            for _ in range(4):
                _any(play.all, chance).cut()
        linger(1.0)
        play.judge()
