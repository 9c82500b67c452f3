"""With layout="kazoo" our Lock and Election are one with kazoo's; without it the two refuse each other's nodes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

import pytest
from kazoo.client import KazooClient
from kazoo.exceptions import LockTimeout

import zkrecipes as zkr
from tests.interop.line import Contestant, turns
from zkrecipes.testing import Server, wait_until

# A server that closes a session just when its client comes back leaves the new connection open and silent; then only
# the client's own clock tells, after half the session timeout.
_SHORT: Final = 4.0


def test_lock_held_by_kazoo_keeps_ours_out(zk: zkr.Client, kazoo: KazooClient, path: str) -> None:
    theirs = kazoo.Lock(path, "theirs")
    assert theirs.acquire(timeout=5.0)
    lock = zkr.Lock(zk, path, layout="kazoo")
    with pytest.raises(zkr.AcquireTimeoutError):
        lock.acquire(timeout=0.3)
    assert lock.try_acquire() is None
    theirs.release()
    with lock.acquire(timeout=5.0) as held:
        assert held.valid


def test_lock_held_by_us_keeps_kazoo_out(zk: zkr.Client, kazoo: KazooClient, path: str) -> None:
    theirs = kazoo.Lock(path, "theirs")
    with zkr.Lock(zk, path, layout="kazoo").acquire(timeout=5.0) as held:
        with pytest.raises(LockTimeout):
            theirs.acquire(timeout=0.3)
        assert not kazoo.Lock(path, "theirs").acquire(blocking=False)
        assert held.valid
    assert theirs.acquire(timeout=5.0)
    theirs.release()


def test_mixed_line_of_eight_is_served_in_order(zk: zkr.Client, kazoo: KazooClient, path: str) -> None:
    holder = zkr.Lock(zk, path, layout="kazoo").acquire(timeout=5.0)

    def ours(name: str) -> Contestant:
        return Contestant(name, lambda: zkr.Lock(zk, path, identity=name, layout="kazoo").acquire(timeout=20.0).release)

    def theirs(name: str) -> Contestant:
        lock = kazoo.Lock(path, name)

        def take() -> Callable[[], object]:
            assert lock.acquire(timeout=20.0)
            release: Callable[[], object] = lock.release
            return release

        return Contestant(name, take)

    names = [f"{who}-{number}" for number in range(4) for who in ("kazoo", "ours")]
    contestants = [ours(name) if name.startswith("ours") else theirs(name) for name in names]
    assert turns(lambda: list(kazoo.get_children(path)), contestants, holder.release) == names


def test_contenders_are_read_by_both_sides(zk: zkr.Client, kazoo: KazooClient, path: str) -> None:
    lock = zkr.Lock(zk, path, identity="ours", layout="kazoo")
    theirs = kazoo.Lock(path, "theirs")
    held = lock.acquire(timeout=5.0)
    taken: list[bool] = []
    waiter = threading.Thread(target=lambda: taken.append(theirs.acquire(timeout=20.0)), daemon=True)
    waiter.start()
    wait_until(lambda: len(kazoo.get_children(path)) == 2, 5.0, "kazoo stands in the line")
    assert kazoo.Lock(path).contenders() == ["ours", "theirs"]
    assert [(one.identity, one.holder) for one in lock.contenders()] == [("ours", True), ("theirs", False)]
    held.release()
    waiter.join(10.0)
    assert taken == [True]
    assert [(one.identity, one.holder) for one in lock.contenders()] == [("theirs", True)]
    theirs.release()


def test_our_session_expires_and_kazoo_takes_over(zkr_server: Server, kazoo: KazooClient, path: str) -> None:
    with zkr.connect(zkr_server.hosts, session_timeout=_SHORT) as mine:
        held = zkr.Lock(mine, path, layout="kazoo").acquire(timeout=5.0)
        zkr_server.expire(mine)
        assert kazoo.Lock(path).acquire(timeout=10.0)
        assert held.lost.wait(5.0)
        assert not held.valid


def test_elections_lead_in_turn(zk: zkr.Client, kazoo: KazooClient, path: str) -> None:
    election = zkr.Election(zk, path, identity="ours", layout="kazoo")
    leadership = election.campaign(timeout=5.0)
    theirs = kazoo.Election(path, "theirs")
    leads, end = threading.Event(), threading.Event()

    def work() -> None:
        leads.set()
        end.wait(20.0)

    thread = threading.Thread(target=theirs.run, args=(work,), daemon=True)
    thread.start()
    wait_until(lambda: len(kazoo.get_children(path)) == 2, 5.0, "kazoo stands in the line")
    assert not leads.is_set()
    assert theirs.contenders() == ["ours", "theirs"]
    leadership.resign()
    assert leads.wait(10.0)
    assert election.try_campaign() is None
    leader = election.leader()
    assert leader is not None
    assert leader.identity == "theirs"
    end.set()
    with election.campaign(timeout=10.0) as again:
        assert again.token > leadership.token
    thread.join(10.0)


def test_kazoos_node_is_refused_in_curators_layout(zk: zkr.Client, kazoo: KazooClient, path: str) -> None:
    """Curator sorts kazoo's names behind its own, so both would hold: ours refuses instead."""
    theirs = kazoo.Lock(path, "theirs")
    assert theirs.acquire(timeout=5.0)
    with pytest.raises(zkr.ForeignNodeError) as caught:
        zkr.Lock(zk, path).acquire(timeout=5.0)
    assert caught.value.path == path
    assert "layout" in str(caught.value)
    assert len(kazoo.get_children(path)) == 1, "our own node was left behind"
    theirs.release()


def test_curators_node_is_refused_in_kazoos_layout(zk: zkr.Client, kazoo: KazooClient, path: str) -> None:
    with zkr.Lock(zk, path).acquire(timeout=5.0):
        with pytest.raises(zkr.ForeignNodeError):
            zkr.Lock(zk, path, layout="kazoo").acquire(timeout=5.0)
        assert len(kazoo.get_children(path)) == 1


@pytest.mark.parametrize("name", ["config", "leases", "lock", "lock-1", "0000000000", "deadbeef__rlock__0000000001"])
@pytest.mark.parametrize("layout", ["curator", "kazoo"])
def test_foreign_child_is_refused(zk: zkr.Client, kazoo: KazooClient, path: str, name: str, layout: str) -> None:
    kazoo.create(f"{path}/{name}", makepath=True)
    lock = zkr.Lock(zk, path, layout="curator" if layout == "curator" else "kazoo")
    with pytest.raises(zkr.ForeignNodeError):
        lock.acquire(timeout=5.0)
    assert kazoo.get_children(path) == [name]


def test_latch_node_is_refused_by_a_lock(zk: zkr.Client, kazoo: KazooClient, path: str) -> None:
    """An election and a lock on one path are an error in the program, and would not exclude each other."""
    with zkr.Election(zk, path).campaign(timeout=5.0):
        with pytest.raises(zkr.ForeignNodeError):
            zkr.Lock(zk, path).acquire(timeout=5.0)
        assert len(kazoo.get_children(path)) == 1
