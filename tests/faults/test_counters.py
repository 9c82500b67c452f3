"""Counters: the reply of each request lost, sessions that end in the midst, processes that are killed."""

from __future__ import annotations

import itertools
import json
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, final

import pytest

import zkrecipes as zkr
from tests.contracts.subjects import Later
from tests.faults.contest import linger
from tests.faults.counter_worker import amount
from zkrecipes.testing import FaultProxy, ZooKeeperServer, wait_until

SESSION: Final = 2.0
LIMIT: Final = 20.0


@pytest.fixture
def other(server: ZooKeeperServer) -> Iterator[zkr.Client]:
    """A client that no fault of the proxy touches."""
    with zkr.connect(server.hosts, session_timeout=10.0) as client:
        yield client


@pytest.fixture
def zk(proxy: FaultProxy) -> Iterator[zkr.Client]:
    with zkr.connect(proxy.hosts, session_timeout=SESSION) as client:
        yield client


@pytest.mark.parametrize("lost", list(itertools.product(["getData", "create", "create2", "multi"], [1, 2])), ids=str)
def test_the_reply_of_each_request_of_a_first_add_is_lost(
    proxy: FaultProxy, zk: zkr.Client, other: zkr.Client, path: str, lost: tuple[str, int]
) -> None:
    trap = proxy.drop_reply(*lost)
    counter = zkr.Counter(zk, path)
    assert [counter.add(10, timeout=LIMIT), counter.add(timeout=LIMIT)] == [10, 11]
    trap.disarm()
    assert zkr.Counter(other, path).value() == 11


@final
class Ender:
    """Ends sessions."""

    def __init__(self, server: ZooKeeperServer, proxy: FaultProxy) -> None:
        self._server = server
        self.proxy = proxy

    def end(self, zk: zkr.Client) -> None:
        """The server ends the session; the client learns it when it comes back."""
        old = zk.session_id
        self._server.expire(zk)
        self.proxy.cut()
        wait_until(lambda: zk.session_id not in {old, 0}, LIMIT, "another session")


@pytest.fixture
def ender(server: ZooKeeperServer, proxy: FaultProxy) -> Ender:
    return Ender(server, proxy)


def _verbs(counter: zkr.Counter, value: zkr.SharedValue[int]) -> dict[str, Callable[[], object]]:
    return {
        "add": lambda: counter.add(timeout=LIMIT),
        "set": lambda: counter.set(8, timeout=LIMIT),
        "compare_and_set": lambda: counter.compare_and_set(7, 8, timeout=LIMIT),
        "update": lambda: value.update(lambda number: number + 1, timeout=LIMIT),
    }


VERBS: Final = ("add", "set", "compare_and_set", "update")


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("first", [True, False])
def test_a_lost_reply_is_settled(
    proxy: FaultProxy, zk: zkr.Client, other: zkr.Client, path: str, verb: str, *, first: bool
) -> None:
    """With the first write of a session, which makes its mark, and with a later one."""
    counter, value, watched = _prepared(zk, other, path, verb, first=first)
    version = other.get(watched).stat.version
    trap = proxy.drop_reply("multi")
    _verbs(counter, value)[verb]()
    trap.wait()
    node = other.get(watched)
    assert (int(node.value), node.stat.version) == (8, version + 1), "written once"


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("first", [True, False])
def test_a_session_that_ends_before_the_reply_leaves_it_unknown(
    ender: Ender, zk: zkr.Client, other: zkr.Client, path: str, verb: str, *, first: bool
) -> None:
    counter, value, watched = _prepared(zk, other, path, verb, first=first)
    gate = ender.proxy.hold_reply("multi")
    call = Later(_verbs(counter, value)[verb])
    gate.wait_held()
    wait_until(lambda: other.get(watched).value == b"8", LIMIT, "written")
    ender.end(zk)
    assert not gate.held, "it went with its connection"
    call.wait()
    assert isinstance(call.error, zkr.OutcomeUnknownError)
    node = other.get(watched)
    assert int(node.value) == 8, "never again"


@pytest.mark.parametrize("verb", ["add", "compare_and_set", "update"])
@pytest.mark.parametrize("first", [True, False])
def test_a_session_that_ends_before_the_write_arrives_is_settled(
    ender: Ender, zk: zkr.Client, other: zkr.Client, path: str, verb: str, *, first: bool
) -> None:
    """The mark is gone with the session; but nobody has touched the node, so it was not written, and never will be."""
    counter, value, watched = _prepared(zk, other, path, verb, first=first)
    version = other.get(watched).stat.version
    gate = ender.proxy.hold_request("multi")
    call = Later(_verbs(counter, value)[verb])
    gate.wait_held()
    ender.end(zk)
    assert not gate.held, "it went with its connection"
    call.result()
    node = other.get(watched)
    assert (int(node.value), node.stat.version) == (8, version + 1)


def _prepared(
    zk: zkr.Client, other: zkr.Client, path: str, verb: str, *, first: bool
) -> tuple[zkr.Counter, zkr.SharedValue[int], str]:
    """Recipes at 7, of which one is to come to 8."""
    counter = zkr.Counter(zk, path, layout="text")
    value = zkr.SharedValue(zk, f"{path}-value", codec=zkr.IntCodec(), initial=7)
    zkr.Counter(other, path, layout="text").set(6)
    zkr.SharedValue(other, f"{path}-value", codec=zkr.IntCodec(), initial=6).get()
    if first:
        zkr.Counter(other, path, layout="text").add()
        zkr.SharedValue(other, f"{path}-value", codec=zkr.IntCodec(), initial=6).set(7)
    else:
        counter.add()
        value.set(7)
    return counter, value, f"{path}-value" if verb == "update" else path


def test_lost_replies_in_a_row_give_no_identifier_twice(
    proxy: FaultProxy, zk: zkr.Client, other: zkr.Client, path: str
) -> None:
    ids, theirs = zkr.IdGenerator(zk, path, block=2), zkr.IdGenerator(other, path, block=2)
    seen: list[int] = []
    for _ in range(10):
        trap = proxy.drop_reply("setData")
        seen += [ids.next(timeout=LIMIT) for _ in range(3)]
        seen += [theirs.next() for _ in range(3)]
        trap.disarm()
    assert len(seen) == len(set(seen))
    mine = [each for number, each in enumerate(seen) if number % 6 < 3]
    assert mine == sorted(mine)


# --- processes --------------------------------------------------------------------------------------------------------

PROCESSES: Final = 4
THREADS: Final = 4


@final
class Crowd:
    """Processes that count; a new one for each that is killed.

    Args:
        servers: A server, to which each gets a proxy of its own; or the hosts of an ensemble.
        path: The counter.
        directory: Of the files in which they write down what they do.
    """

    def __init__(self, servers: ZooKeeperServer | str, path: str, directory: Path) -> None:
        self._directory = directory
        self._path = path
        self._hosts = servers if isinstance(servers, str) else ""
        self.proxies = [] if isinstance(servers, str) else [FaultProxy(servers) for _ in range(PROCESSES)]
        self._places = 0
        self.processes: list[subprocess.Popen[bytes]] = [self._start(number) for number in range(PROCESSES)]

    def _start(self, number: int) -> subprocess.Popen[bytes]:
        places = list(range(self._places, self._places + THREADS))
        self._places += THREADS
        settings = {
            "hosts": self._hosts or self.proxies[number].hosts,
            "timeout": 2 * SESSION if self._hosts else SESSION,
            "path": self._path,
            "places": places,
        }
        command = [sys.executable, "-m", "tests.faults.counter_worker"]
        return subprocess.Popen([*command, str(self._directory / f"{places[0]}.log"), json.dumps(settings)])

    def kill(self, number: int) -> None:
        """SIGKILL, and another one in its place."""
        self.processes[number].kill()
        self.processes[number].wait(LIMIT)
        self.processes[number] = self._start(number)

    def lines(self) -> list[list[str]]:
        """All that was written down."""
        files = sorted(self._directory.glob("*.log"))
        return [line.split() for file in files for line in file.read_text().splitlines()]

    def done(self) -> int:
        """How many adds were acknowledged."""
        return sum(line[0] == "done" for line in self.lines())

    def all_count(self) -> bool:
        """Whether each process has written down something."""
        return len(list(self._directory.glob("*.log"))) == self._places // THREADS

    def end(self) -> None:
        for proxy in self.proxies:
            proxy.heal()
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            assert process.wait(LIMIT) == 0

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait(LIMIT)
        for proxy in self.proxies:
            proxy.close()


def judge(lines: list[list[str]], value: int) -> Counter[str]:
    """Compare what the counter says with what each thread was told."""
    outcomes: dict[int, Counter[str]] = {}
    values: list[int] = []
    for what, where, _number, *rest in lines:
        outcomes.setdefault(int(where), Counter())[what] += 1
        if what == "done":
            values.append(int(rest[0]))
    assert len(values) == len(set(values)), "two adds were told the same value"
    total: Counter[str] = Counter()
    for place, outcome in sorted(outcomes.items()):
        total += outcome
        counted = value // amount(place) % amount(1)
        open_ = outcome["begin"] - outcome["done"] - outcome["unknown"] - outcome["failed"]
        assert 0 <= open_ <= 1, f"thread {place}: {outcome}"  # what was under way when it was killed
        unknown = outcome["unknown"] + open_
        assert outcome["done"] <= counted <= outcome["done"] + unknown, f"thread {place}: {counted}, {outcome}"
        total["happened"] += counted - outcome["done"]
    assert not total["error"]
    return total


@pytest.mark.timeout(180)
@pytest.mark.serial
def test_processes_that_are_cut_and_killed_count_each_add_once(
    server: ZooKeeperServer, other: zkr.Client, path: str, tmp_path: Path
) -> None:
    """Cuts, lost replies, black holes, SIGKILL, a killed server: each thread's digits say what became of its adds."""
    chance = random.Random(4)
    crowd = Crowd(server, path, tmp_path)
    try:
        wait_until(lambda: crowd.done() > 100 and crowd.all_count(), LIMIT, "all have begun")
        for turn in range(24):
            number = chance.randrange(PROCESSES)
            proxy = crowd.proxies[number]
            proxy.heal()
            if turn % 8 == 7:
                crowd.kill(number)
            elif turn == 12:
                server.kill()
                linger(0.5)
                server.start()
            elif turn % 6 == 5:
                proxy.blackhole(chance.choice(["both", "to_client"]))
                linger(chance.choice([0.5, 1.5 * SESSION]))
            elif turn % 2:
                proxy.cut()
            else:
                proxy.drop_reply("multi")
            linger(0.25)
        for proxy in crowd.proxies:
            proxy.heal()
        before = crowd.done()
        wait_until(lambda: crowd.done() > before + 100 and crowd.all_count(), LIMIT, "it goes on, for all")
        crowd.end()
        value = zkr.Counter(other, path, layout="text").value()
        total = judge(crowd.lines(), value)
        print(dict(total))  # noqa: T201 - pytest -rP shows it
        assert total["done"] > 500
        assert total["begin"] - total["done"] > 0, "no fault hit anybody"
        # A bystander's look: the marks of the dead go with their sessions.
        wait_until(lambda: other.children(path) == [], LIMIT, lambda: f"left: {other.children(path)}")
    finally:
        crowd.close()
