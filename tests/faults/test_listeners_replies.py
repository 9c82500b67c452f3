"""Listeners and single faults: replies that are lost or late, servers that fall silent or behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

import zkrecipes as zkr
from tests.listening import Record
from zkrecipes.testing import FaultProxy, ZooKeeperEnsemble, ZooKeeperServer, wait_until

TREE = {"": b"root", "/a": b"1", "/a/x": b"2", "/b": b"3"}


@pytest.fixture
def other(server: ZooKeeperServer) -> Iterator[zkr.Client]:
    """A client that no fault of the proxy touches."""
    with zkr.connect(server.hosts) as client:
        yield client


@pytest.fixture
def tree(other: zkr.Client, path: str) -> dict[str, bytes]:
    """A tree at the path of this test."""
    other.create(path.rpartition("/")[0])
    tree = {path + below: data for below, data in TREE.items()}
    for each, data in tree.items():
        other.create(each, data)
    return tree


@pytest.fixture(params=["persistent", "one-shot"])
def zk(request: pytest.FixtureRequest, proxy: FaultProxy) -> Iterator[zkr.Client]:
    with zkr.connect(proxy.hosts, session_timeout=4.0) as client:
        if request.param == "one-shot":
            client.core.session.watches.recursive = client.core.session.watches.batches = False
        yield client


def _equal(record: Record, listener: Any, tree: dict[str, bytes]) -> None:
    record.wait_equal(tree)
    wait_until(lambda: listener.fresh, 10.0, "it is fresh")
    assert {path: node.value for path, node in listener.snapshot().items()} == tree


READS = ("addWatch", "getData", "any children", "multiRead")


@pytest.mark.parametrize("nth", [1, 2, 3, 4])
def test_a_lost_reply_while_it_starts(
    proxy: FaultProxy, zk: zkr.Client, tree: dict[str, bytes], path: str, nth: int
) -> None:
    """The connection ends with it, and all is begun anew; what was read is told once."""
    trap = proxy.drop_reply(READS, nth)
    listener = zkr.TreeListener(zk, path)
    record = Record(listener)
    with listener:
        trap.wait()
        _equal(record, listener, tree)
        assert len(record.changes) == len(tree)


def test_a_lost_reply_of_each_kind_while_it_listens(
    proxy: FaultProxy, zk: zkr.Client, other: zkr.Client, tree: dict[str, bytes], path: str
) -> None:
    """Of the read that follows a change, and of those that follow the reconnect."""
    listener = zkr.TreeListener(zk, path)
    record = Record(listener)
    with listener:
        for number in range(3):
            traps = [proxy.drop_reply(READS, 1), proxy.drop_reply(READS, 3 + number)]
            tree[f"{path}/a"] = b"%d" % (number + 10)
            other.set(f"{path}/a", tree[f"{path}/a"])
            for trap in traps:
                trap.wait()
            _equal(record, listener, tree)


def test_a_late_reply_shows_what_was_then(
    proxy: FaultProxy, zk: zkr.Client, other: zkr.Client, tree: dict[str, bytes], path: str
) -> None:
    """What changes behind the read that is under way is told, and read again."""
    listener = zkr.TreeListener(zk, path)
    record = Record(listener)
    with listener:
        record.wait_for("initialized")
        record.clear()
        gate = proxy.hold_reply("getData")
        other.set(f"{path}/a", b"10")
        gate.wait_held()
        other.set(f"{path}/a", b"11")
        other.delete(f"{path}/b")
        gate.release()
        tree[f"{path}/a"] = b"11"
        del tree[f"{path}/b"]
        _equal(record, listener, tree)
        assert record.changes[0] == ("changed", f"{path}/a", b"1", b"10"), "of that moment"


def test_an_event_that_is_lost_with_its_connection(
    proxy: FaultProxy, zk: zkr.Client, other: zkr.Client, tree: dict[str, bytes], path: str
) -> None:
    """The server has told it into a black hole; another connection knows nothing of it."""
    listeners: list[Any] = [zkr.TreeListener(zk, path), zkr.NodeListener(zk, f"{path}/a", f"{path}/b")]
    records = [Record(listener) for listener in listeners]
    for listener, record in zip(listeners, records, strict=True):
        listener.start()
        record.wait_for("initialized")
        record.clear()
    proxy.blackhole("to_client")
    other.set(f"{path}/a", b"10")
    other.delete(f"{path}/b")
    for record in records:
        record.wait_for("stale")
        assert record.changes == []
    proxy.cut()
    proxy.heal()
    for record in records:
        record.wait_for("fresh", limit=15.0)
        assert sorted(record.changes) == [
            ("changed", f"{path}/a", b"1", b"10"),
            ("deleted", f"{path}/b", b"3", None),
        ]
    for listener in listeners:
        listener.close()


def test_a_server_that_is_frozen_for_a_while(
    server: ZooKeeperServer, zk: zkr.Client, tree: dict[str, bytes], path: str
) -> None:
    """Its answers are late, and count; it says meanwhile that it may not know the newest."""
    listener = zkr.TreeListener(zk, path)
    record = Record(listener)
    with listener:
        record.wait_for("initialized")
        server.pause()
        wait_until(lambda: not listener.fresh, 5.0, "it is stale")
        server.resume()
        wait_until(lambda: listener.fresh, 15.0, "it is fresh")
        zk.set(f"{path}/a", b"10", timeout=10.0)
        _equal(record, listener, {**tree, f"{path}/a": b"10"})
        assert len(record.changes) == len(tree) + 1


# --- an ensemble ------------------------------------------------------------------------------------------------------


@pytest.mark.ensemble
def test_a_server_that_has_lost_its_leader(zkr_ensemble: ZooKeeperEnsemble) -> None:
    """It answers from what it knew; the listener comes to the newest state with the next server, and nothing twice."""
    path = f"/lagging-{os.getpid()}"
    lagging, fine = zkr_ensemble.followers()
    with (
        zkr.connect(fine.hosts) as other,
        FaultProxy(lagging) as proxy,
        zkr.connect(proxy.hosts, session_timeout=4.0) as zk,
    ):
        for number in range(4):
            other.create(f"{path}{f'/{number}' if number else ''}", b"0")
        zk.sync()
        listeners: list[Any] = [zkr.TreeListener(zk, path), zkr.NodeListener(zk, f"{path}/1", f"{path}/4")]
        records = [Record(listener) for listener in listeners]
        for listener, record in zip(listeners, records, strict=True):
            listener.start()
            record.wait_for("initialized")
            record.clear()
        zkr_ensemble.cut_from_leader(lagging)
        other.set(f"{path}/1", b"1")
        other.delete(f"{path}/2")
        other.delete(f"{path}/3")
        other.create(f"{path}/3", b"0")
        other.create(f"{path}/4", b"4")
        assert records[0].changes == []
        proxy.retarget(fine, cut=True)
        expected = {path: b"0", f"{path}/1": b"1", f"{path}/3": b"0", f"{path}/4": b"4"}
        records[0].wait_equal(expected, limit=15.0)
        records[1].wait_for(("changed", f"{path}/1", b"0", b"1"), ("created", f"{path}/4", None, b"4"), limit=15.0)
        assert sorted(record[:2] for record in records[0].changes) == [
            ("changed", f"{path}/1"),
            ("created", f"{path}/3"),
            ("created", f"{path}/4"),
            ("deleted", f"{path}/2"),
            ("deleted", f"{path}/3"),
        ]
        zkr_ensemble.heal()
        for listener in listeners:
            listener.close()
