"""What recipes cost, counted on the wire between client and server.

Sessions are long here, so that no heartbeat falls into a count: the shortest is due after ten seconds.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterator
from typing import Final

import pytest
from kazoo.client import KazooClient

import zkrecipes as zkr
from zkrecipes.handoff import LocalLine
from zkrecipes.testing import (
    FaultProxy,
    InstallationNotFoundError,
    Server,
    ZooKeeperServer,
    find_installation,
    wait_until,
)

_SESSION: Final = 60.0
_PATHS = itertools.count(1)


@pytest.fixture
def proxy(zkr_server: Server) -> Iterator[FaultProxy]:
    with FaultProxy(zkr_server) as proxy:
        yield proxy


@pytest.fixture
def zk(proxy: FaultProxy) -> Iterator[zkr.Client]:
    with zkr.connect(proxy.hosts, session_timeout=_SESSION) as client:
        yield client


@pytest.fixture
def path(zkr_server: Server, request: pytest.FixtureRequest) -> str:
    """A path that nobody else uses; its parent exists, it does not."""
    client = KazooClient(zkr_server.hosts)
    client.start()
    try:
        parent = f"/wire/{request.node.originalname}-{next(_PATHS)}"
        client.ensure_path(parent)
    finally:
        client.stop()
        client.close()
    return f"{parent}/node"


def _cost(proxy: FaultProxy, zk: zkr.Client, job: Callable[[], object]) -> tuple[int, int]:
    """Requests and flights of a job.

    Replies take their time, as on a real network: what is asked back to back is then one flight on a busy machine, too.
    """
    zk.exists("/")  # traffic counts as heartbeat: the next one is a whole interval away
    proxy.delay(0.05)
    proxy.reset_counts()
    try:
        job()
    finally:
        proxy.delay(0.0)
    return proxy.counts().total(), proxy.flights()


def _cycle(lock: zkr.Lock) -> None:
    with lock.acquire(timeout=5.0):
        pass


@pytest.mark.parametrize("layout", ["curator", "kazoo"])
def test_uncontended_lock_takes_three_requests_in_two_flights(
    proxy: FaultProxy, zk: zkr.Client, path: str, layout: str
) -> None:
    lock = zkr.Lock(zk, path, layout="curator" if layout == "curator" else "kazoo")
    _cycle(lock)
    assert _cost(proxy, zk, lambda: _cycle(lock)) == (3, 2), proxy.bursts()
    assert proxy.counts()["delete"] == 1


@pytest.mark.parametrize("missing", [1, 2, 5])
def test_first_use_takes_the_missing_parents_and_one_request_more(
    proxy: FaultProxy, zk: zkr.Client, missing: int
) -> None:
    lock = zkr.Lock(zk, f"/wire-first-{os.getpid()}-{next(_PATHS)}" + "/deeper" * (missing - 1))
    requests, flights = _cost(proxy, zk, lambda: _cycle(lock))
    assert requests == 3 + missing + 1, proxy.bursts()
    assert flights == 3, proxy.bursts()


def test_first_use_below_existing_parents_takes_no_flight_more(proxy: FaultProxy, zk: zkr.Client, path: str) -> None:
    """Nobody knows beforehand which parents are there: each costs one refused create, in the same flight."""
    parents = path.count("/")
    requests, flights = _cost(proxy, zk, lambda: _cycle(zkr.Lock(zk, path)))
    assert requests <= 3 + parents + 1, proxy.bursts()
    assert flights == 3, proxy.bursts()


def test_try_lock_that_fails_takes_three_requests(proxy: FaultProxy, zk: zkr.Client, path: str) -> None:
    lock = zkr.Lock(zk, path)
    with lock.acquire(timeout=5.0):
        assert _cost(proxy, zk, lambda: lock.try_acquire() and pytest.fail("two hold it")) == (3, 2), proxy.bursts()


@pytest.mark.parametrize("layout", ["latch", "selector", "kazoo"])
def test_campaign_and_resign_take_three_requests(proxy: FaultProxy, zk: zkr.Client, path: str, layout: str) -> None:
    layouts = {"latch": zkr.Election(zk, path), "selector": zkr.Election(zk, path, layout="selector")}
    election = layouts.get(layout) or zkr.Election(zk, path, layout="kazoo")
    election.campaign(timeout=5.0).resign()
    assert _cost(proxy, zk, lambda: election.campaign(timeout=5.0).resign()) == (3, 2), proxy.bursts()


def test_reentrant_acquire_takes_no_request(proxy: FaultProxy, zk: zkr.Client, path: str) -> None:
    lock = zkr.RLock(zk, path)

    def again() -> None:
        with lock.acquire(timeout=5.0) as inner:
            assert inner.token == outer.token

    with lock.acquire(timeout=5.0) as outer:
        assert _cost(proxy, zk, again) == (0, 0), proxy.bursts()


def _local_waiters(zk: zkr.Client) -> int:
    return sum(len(line._waiting) for line in zk.core.shared.values() if isinstance(line, LocalLine))


@pytest.mark.parametrize(("max_turns", "nodes"), [(64, 1), (3, 3)])
def test_local_handoff_takes_no_request(
    proxy: FaultProxy, zk: zkr.Client, path: str, max_turns: int, nodes: int
) -> None:
    """A holder and eight waiters are nine turns: three requests for each node, and nothing in between."""
    lock = zkr.Lock(zk, path, local_handoff=zkr.LocalHandoff(max_turns=max_turns, max_time=60.0))
    _cycle(lock)
    held: list[tuple[int, int]] = []

    def waiter() -> None:
        with lock.acquire(timeout=20.0) as handle:
            held.append((handle.token, handle.turn))

    threads = [threading.Thread(target=waiter, daemon=True) for _ in range(8)]

    def nine_turns() -> None:
        with lock.acquire(timeout=5.0) as handle:
            held.append((handle.token, handle.turn))
            for thread in threads:
                thread.start()
            wait_until(lambda: _local_waiters(zk) == 8, 5.0, "eight wait in this process")
        for thread in threads:
            thread.join(20.0)

    requests, _ = _cost(proxy, zk, nine_turns)
    assert len(held) == 9
    assert requests == 3 * nodes, proxy.bursts()
    assert len({token for token, _ in held}) == nodes
    assert len(set(held)) == 9, "token and turn tell all holders apart"
    assert max(turn for _, turn in held) <= max_turns


@pytest.mark.parametrize("layout", ["int64", "int32", "text"])
def test_an_add_takes_one_request(proxy: FaultProxy, zk: zkr.Client, path: str, layout: str) -> None:
    layouts = {"int32": zkr.Counter(zk, path, layout="int32"), "text": zkr.Counter(zk, path, layout="text")}
    counter = layouts.get(layout) or zkr.Counter(zk, path)
    counter.add()
    assert _cost(proxy, zk, counter.add) == (1, 1), proxy.bursts()


def test_adds_of_many_threads_travel_together(proxy: FaultProxy, zk: zkr.Client, path: str) -> None:
    counter = zkr.Counter(zk, path)
    counter.add()

    def adds() -> None:
        threads = [threading.Thread(target=counter.add) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20.0)

    # The first one goes by itself; the others wait for its reply, and go together.
    requests, _ = _cost(proxy, zk, adds)
    assert requests <= 4, proxy.bursts()
    assert counter.value() == 17


def test_the_first_add_of_a_session_reads_once(proxy: FaultProxy, zk: zkr.Client, path: str) -> None:
    zk.create(path, bytes(8))
    assert _cost(proxy, zk, zkr.Counter(zk, path).add) == (2, 2), proxy.bursts()


def test_an_add_after_a_conflict_takes_three_flights(proxy: FaultProxy, zk: zkr.Client, path: str) -> None:
    counter = zkr.Counter(zk, path)
    counter.add()
    zk.set(path, bytes(8))
    assert _cost(proxy, zk, counter.add) == (4, 3), proxy.bursts()
    assert counter.value() == 1


def test_values_take_a_read_and_a_write(proxy: FaultProxy, zk: zkr.Client, path: str) -> None:
    value = zkr.SharedValue(zk, path, codec=zkr.IntCodec(), initial=0)
    value.set(1)
    assert _cost(proxy, zk, lambda: value.set(2)) == (1, 1), proxy.bursts()
    assert _cost(proxy, zk, value.get) == (1, 1), proxy.bursts()
    assert _cost(proxy, zk, lambda: value.update(lambda number: number + 1)) == (2, 2), proxy.bursts()


def test_identifiers_take_one_write_a_block(proxy: FaultProxy, zk: zkr.Client, path: str) -> None:
    ids = zkr.IdGenerator(zk, path, block=100)
    ids.next()
    requests, _ = _cost(proxy, zk, lambda: [ids.next() for _ in range(1000)])
    assert requests <= 11, proxy.bursts()


class _Counters:
    """A server's counters, less what our asking for them adds."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._asked = 0

    def read(self) -> tuple[int, int]:
        """Watches, and packets received."""
        self._asked += 1  # a four-letter word counts as a packet
        metrics = self._server.metrics()
        return int(metrics["zk_watch_count"]), int(metrics["zk_packets_received"]) - self._asked

    def watches(self) -> int:
        return self.read()[0]


@pytest.fixture
def lonely_server() -> Iterator[Server]:
    """A server that nobody else talks to."""
    try:
        find_installation()
    except InstallationNotFoundError as error:
        pytest.skip(str(error))
    with ZooKeeperServer() as server:
        yield server


def test_one_waiter_of_a_hundred_is_woken_by_a_release(lonely_server: Server) -> None:
    """Every watch and every packet that this server counts is ours."""
    waiters = 100
    turn = threading.Semaphore(0)
    taken = 0

    with FaultProxy(lonely_server) as proxy, zkr.connect(proxy.hosts, session_timeout=_SESSION) as zk:
        lock = zkr.Lock(zk, "/line")
        counters = _Counters(lonely_server)

        def wait() -> None:
            nonlocal taken
            with lock.acquire(timeout=50.0):
                taken += 1
                turn.acquire()

        first = lock.acquire(timeout=5.0)
        threads = [threading.Thread(target=wait, daemon=True) for _ in range(waiters)]
        for thread in threads:
            thread.start()
        wait_until(lambda: counters.watches() == waiters, 20.0, "all stand in the line, and watch the one before them")
        zk.exists("/")  # the next heartbeat is ten seconds away

        _, received = counters.read()
        proxy.reset_counts()
        for released in range(1, 11):
            if released == 1:
                first.release()
            else:
                turn.release()
            wait_until(lambda: taken == released, 5.0, f"waiter {released} has its turn")  # noqa: B023  # asked at once
            # A release is one delete, one notification to one waiter, and that one's listing.
            assert counters.read() == (waiters - released, received + 2 * released)
            assert (proxy.counts(), proxy.events()) == ({"delete": released, "getChildren": released}, released)

        for _ in threads:
            turn.release()
        for thread in threads:
            thread.join(20.0)
        assert taken == waiters
        assert counters.watches() == 0
