"""A parent near 2^31: numbers then repeat or turn negative, and an order by them would let two in at once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from kazoo.client import KazooClient

import zkrecipes as zkr
from tests.faults.snapshots import set_cversion
from zkrecipes.paths import LAST_NUMBER
from zkrecipes.testing import ZooKeeperServer, wait_until

PATHS = {layout: f"/worn/{layout}" for layout in ("curator", "kazoo", "foreign", "latch", "fresh")}
BEFORE_THE_END = 4


@pytest.fixture(scope="module")
def worn_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZooKeeperServer]:
    data: Path = tmp_path_factory.mktemp("worn")
    with ZooKeeperServer(data=data) as server:
        with zkr.connect(server.hosts) as zk:
            for path in PATHS.values():
                zk.create(path, parents=True)
        server.restart()  # which writes a snapshot
        server.stop()
        for path in PATHS.values():
            ninety = path.endswith("fresh")
            set_cversion(data, path, LAST_NUMBER // 100 * 95 if ninety else LAST_NUMBER - BEFORE_THE_END)
        server.start()
        yield server


def _beyond(name: str) -> bool:
    """Whether this is a number that comes after the last: negative on some servers, the last one again on others."""
    return name.endswith(str(LAST_NUMBER)) or "-2147483" in name[-11:]


@pytest.mark.parametrize("layout", ["curator", "kazoo"])
def test_one_holds_at_a_time_in_the_order_of_arrival(worn_server: ZooKeeperServer, layout: str) -> None:
    contenders, order, inside = 12, list[int](), list[int]()
    with zkr.connect(worn_server.hosts) as zk, zkr.connect(worn_server.hosts) as other:
        clients = [zk, other]
        path = PATHS[layout]
        tokens: list[int] = []
        gate = threading.Event()

        def contend(number: int) -> None:
            lock = zkr.Lock(clients[number % 2], path, layout="kazoo" if layout == "kazoo" else "curator")
            with lock.acquire(timeout=30.0) as held:
                inside.append(number)
                assert inside == [number]
                order.append(number)
                tokens.append(held.token)
                gate.wait(10.0)
                assert held.valid
                inside.remove(number)

        threads = [threading.Thread(target=contend, args=(number,)) for number in range(contenders)]
        for number, thread in enumerate(threads):
            thread.start()
            wait_until(lambda: len(zk.children(path)) == number + 1, 10.0)  # noqa: B023  # asked at once
        worn = [name for name in zk.children(path) if _beyond(name)]
        assert len(worn) > 1, f"the numbers are used up: {zk.children(path)}"
        gate.set()
        for thread in threads:
            thread.join(30.0)
    assert order == list(range(contenders))
    assert tokens == sorted(tokens)


def test_a_foreign_contender_ends_it(worn_server: ZooKeeperServer) -> None:
    """It sorts text, so nobody can say who is first: we refuse, and leave nothing."""
    path = PATHS["foreign"]
    stranger = KazooClient(worn_server.hosts)
    stranger.start()
    try:
        with zkr.connect(worn_server.hosts) as zk:
            lock = zkr.Lock(zk, path, layout="kazoo")
            for _ in range(BEFORE_THE_END + 1):
                lock.acquire(timeout=5.0).release()
            theirs = stranger.Lock(path)
            assert theirs.acquire(timeout=5.0)
            with pytest.raises(zkr.ForeignNodeError, match=str(LAST_NUMBER)):
                lock.acquire(timeout=5.0)
            assert len(zk.children(path)) == 1
            theirs.release()
            lock.acquire(timeout=5.0).release()
    finally:
        stranger.stop()
        stranger.close()


def test_elections_turn_over_as_well(worn_server: ZooKeeperServer) -> None:
    path = PATHS["latch"]
    with zkr.connect(worn_server.hosts) as zk, zkr.connect(worn_server.hosts) as other:
        tokens = []
        for number in range(2 * BEFORE_THE_END):
            client, loser = (zk, other) if number % 2 else (other, zk)
            with zkr.Election(client, path).campaign(timeout=5.0) as leadership:
                assert zkr.Election(loser, path).try_campaign() is None
                leader = zkr.Election(loser, path).leader()
                assert leader is not None
                assert leader.token == leadership.token
                tokens.append(leadership.token)
        assert tokens == sorted(tokens)


def test_a_warning_comes_in_good_time(worn_server: ZooKeeperServer, caplog: pytest.LogCaptureFixture) -> None:
    """From 90 % of the numbers."""
    with caplog.at_level(logging.WARNING, "zkrecipes"), zkr.connect(worn_server.hosts) as zk:
        lock = zkr.Lock(zk, PATHS["fresh"])
        lock.acquire(timeout=5.0).release()
        assert [record for record in caplog.records if PATHS["fresh"] in record.getMessage()], caplog.text
        caplog.clear()
        lock.acquire(timeout=5.0).release()
        assert not caplog.records, "once is enough"
