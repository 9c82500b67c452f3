"""Our Lock and Curator's InterProcessMutex on one path are one lock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest
from kazoo.client import KazooClient

import zkrecipes as zkr
from tests.interop.line import Contestant, turns
from tests.interop.peer import CuratorPeer
from zkrecipes.testing import Server, wait_until

# A server that closes a session just when its client comes back leaves the new connection open and silent; then only
# the client's own clock tells, after half the session timeout.
_SHORT: Final = 4.0


def _our_contestant(zk: zkr.Client, path: str, name: str) -> Contestant:
    return Contestant(name, lambda: zkr.Lock(zk, path, identity=name).acquire(timeout=20.0).release)


def _their_contestant(curator: CuratorPeer, path: str, name: str) -> Contestant:
    def take() -> Callable[[], object]:
        lock = curator.lock(path, name)
        assert lock.acquire(20.0)
        return lock.release

    return Contestant(name, take)


def test_lock_held_by_curator_keeps_ours_out(zk: zkr.Client, curator: CuratorPeer, path: str) -> None:
    theirs = curator.lock(path)
    assert theirs.acquire(5.0)
    with pytest.raises(zkr.AcquireTimeoutError):
        zkr.Lock(zk, path).acquire(timeout=0.3)
    assert zkr.Lock(zk, path).try_acquire() is None
    theirs.release()
    with zkr.Lock(zk, path).acquire(timeout=5.0) as held:
        assert held.valid


def test_lock_held_by_us_keeps_curator_out(zk: zkr.Client, curator: CuratorPeer, path: str) -> None:
    theirs = curator.lock(path)
    with zkr.Lock(zk, path).acquire(timeout=5.0) as held:
        assert not theirs.acquire(0.3)
        assert held.valid
    assert theirs.acquire(5.0)
    theirs.release()


def test_lock_that_times_out_leaves_nothing_in_curators_line(
    zk: zkr.Client, curator: CuratorPeer, kazoo: KazooClient, path: str
) -> None:
    theirs = curator.lock(path)
    assert theirs.acquire(5.0)
    with pytest.raises(zkr.AcquireTimeoutError) as caught:
        zkr.Lock(zk, path).acquire(timeout=0.2)
    assert not caught.value.left_behind
    assert len(kazoo.get_children(path)) == 1
    theirs.release()
    wait_until(lambda: not kazoo.get_children(path), 5.0, "the line is empty")


def test_mixed_line_of_eight_is_served_in_order(
    zk: zkr.Client, curator: CuratorPeer, kazoo: KazooClient, path: str
) -> None:
    holder = zkr.Lock(zk, path).acquire(timeout=5.0)
    names = [f"{who}-{number}" for number in range(4) for who in ("curator", "ours")]
    contestants = [
        _our_contestant(zk, path, name) if name.startswith("ours") else _their_contestant(curator, path, name)
        for name in names
    ]
    assert turns(lambda: kazoo.get_children(path), contestants, holder.release) == names


def test_line_behind_curator_in_blocks_is_served_in_order(
    zk: zkr.Client, curator: CuratorPeer, kazoo: KazooClient, path: str
) -> None:
    """Two of ours behind two of theirs behind two of ours: each kind waits for its own and for the other."""
    first = curator.lock(path, "first")
    assert first.acquire(5.0)
    names = ["ours-1", "ours-2", "curator-1", "curator-2", "ours-3", "ours-4"]
    contestants = [
        _our_contestant(zk, path, name) if name.startswith("ours") else _their_contestant(curator, path, name)
        for name in names
    ]
    assert turns(lambda: kazoo.get_children(path), contestants, first.release) == names


def test_identities_are_read_by_both_sides(zk: zkr.Client, curator: CuratorPeer, kazoo: KazooClient, path: str) -> None:
    lock = zkr.Lock(zk, path, identity="ours-ä7")
    theirs = curator.lock(path, "theirs-ö3")
    with lock.acquire(timeout=5.0) as held:
        waiting = theirs.acquire_soon(20.0)
        wait_until(lambda: len(kazoo.get_children(path)) == 2, 5.0, "Curator stands in the line")

        seen = lock.contenders()
        assert [(one.identity, one.holder) for one in seen] == [("ours-ä7", True), ("theirs-ö3", False)]
        assert seen[0].token == held.token
        assert seen[1].token > held.token

        line = curator.lock_participants(path)
        assert [(one.identity, one.leads) for one in line] == [("ours-ä7", True), ("theirs-ö3", False)]
        assert sorted(one.node.rpartition("/")[2] for one in line) == sorted(kazoo.get_children(path))
    assert waiting.result(10.0)
    assert [(one.identity, one.holder) for one in lock.contenders()] == [("theirs-ö3", True)]
    theirs.release()


def test_token_rises_from_curators_hold_to_ours(zk: zkr.Client, curator: CuratorPeer, path: str) -> None:
    lock = zkr.Lock(zk, path)
    first = lock.acquire(timeout=5.0)
    first.release()
    theirs = curator.lock(path)
    assert theirs.acquire(5.0)
    between = lock.contenders()[0].token
    theirs.release()
    with lock.acquire(timeout=5.0) as second:
        assert first.token < between < second.token


def test_break_frees_a_lock_held_by_curator(zk: zkr.Client, curator: CuratorPeer, path: str) -> None:
    lock = zkr.Lock(zk, path)
    assert curator.lock(path, "stuck").acquire(5.0)
    lock.break_()
    with lock.acquire(timeout=5.0) as held:
        assert held.valid


def test_our_session_expires_and_curator_takes_over(
    zkr_server: Server, curator: CuratorPeer, kazoo: KazooClient, path: str
) -> None:
    with zkr.connect(zkr_server.hosts, session_timeout=_SHORT) as mine:
        held = zkr.Lock(mine, path).acquire(timeout=5.0)
        theirs = curator.lock(path)
        waiting = theirs.acquire_soon(20.0)
        wait_until(lambda: len(kazoo.get_children(path)) == 2, 5.0, "Curator stands in the line")
        zkr_server.expire(mine)
        assert waiting.result(10.0)
        assert held.lost.wait(5.0)
        assert not held.valid
        with pytest.raises(zkr.AcquireTimeoutError):
            zkr.Lock(mine, path).acquire(timeout=1.0)
        theirs.release()


def test_curator_is_killed_and_we_take_over(zk: zkr.Client, zkr_server: Server, curator_here: None, path: str) -> None:
    with CuratorPeer(zkr_server.hosts, session_timeout=4.0) as doomed:
        assert doomed.lock(path).acquire(5.0)
        assert zkr.Lock(zk, path).try_acquire() is None
        doomed.kill()
        with zkr.Lock(zk, path).acquire(timeout=15.0) as held:
            assert held.valid
