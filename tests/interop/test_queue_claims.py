"""No item is in the hands of Curator's consumers and of ours at once; what one side gives back, the other one has."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Final

import pytest
from kazoo.client import KazooClient

import zkrecipes as zkr
from tests.contracts.subjects import Later
from tests.interop.peer import CuratorPeer
from tests.interop.queues import LAYOUTS, LIMIT, CuratorConsumer, Layout, locks_at, now, ours, put, served
from zkrecipes.testing import Server, wait_until

HI: Final = bytes.fromhex("00010001 01 00000002 6869 02")
ITEMS: Final = 300

# A session that nobody ends: so long do the servers wait for it, and two ticks.
_SHORT: Final = 4.0

CORRUPT: Final = {
    "version": "00010002 01 00000002 6869 02",
    "version cut short": "000100",
    "opcode": "00010001 03 00000002 6869 02",
    "no opcode": "00010001",
    "size below zero": "00010001 01 FFFFFFFE 6869 02",
    "size cut short": "00010001 01 0000",
    "size beyond the end": "00010001 01 00000004 6869 02",
    "huge size": "00010001 01 7FFFFFFF 6869 02",
    "second item cut short": "00010001 01 00000002 6869 01 00000002 68",
    "no end": "00010001 01 00000002 6869",
    "no bytes": "",
}

of_each_layout = pytest.mark.parametrize("layout", LAYOUTS)


@pytest.fixture
def other(zkr_server: Server) -> Iterator[zkr.Client]:
    with zkr.connect(zkr_server.hosts, session_timeout=10.0) as client:
        yield client


@pytest.fixture
def doomed(zkr_server: Server, curator_here: None) -> Iterator[CuratorPeer]:
    """A Curator of the test's own, which may be harmed."""
    with CuratorPeer(zkr_server.hosts, session_timeout=_SHORT) as peer:
        yield peer


def _gone(kazoo: KazooClient, path: str) -> None:
    """Wait until all items are done, and no lock is left."""
    wait_until(lambda: not kazoo.get_children(path), LIMIT, lambda: f"items: {kazoo.get_children(path)}")
    locks = f"{path}-locks"
    wait_until(lambda: not locks_at(kazoo, locks), LIMIT, lambda: f"locks: {locks_at(kazoo, locks)}")


# --- claims -----------------------------------------------------------------------------------------------------------


@of_each_layout
def test_an_item_that_curator_holds_is_not_served_by_us(
    zk: zkr.Client, curator: CuratorPeer, kazoo: KazooClient, path: str, layout: Layout
) -> None:
    queue = ours(zk, path, layout)
    put(curator, path, [b"held"], layout, due=1)
    put(curator, path, [b"free"], layout, due=2)
    with CuratorConsumer(curator, path, layout, hold=True) as theirs:
        assert theirs.wait(1) == [b"held"]
        stats = queue.stats()
        assert (stats.waiting, stats.claimed) == (1, 1)
        assert [each.item for each in queue.peek(5)] == [b"free"]
        assert served(queue, 1) == [b"free"]
        assert queue.purge() == 0
        theirs.proceed()
        _gone(kazoo, path)
        assert theirs.given() == [b"held"]


@of_each_layout
def test_an_item_that_we_hold_is_not_given_to_curator(
    zk: zkr.Client, curator: CuratorPeer, kazoo: KazooClient, path: str, layout: Layout
) -> None:
    queue = ours(zk, path, layout)
    queue.put(b"held")
    with queue.take(LIMIT) as claim:
        [name] = kazoo.get_children(path)
        [lock] = locks_at(kazoo, f"{path}-locks")
        assert lock == name
        assert kazoo.get(f"{path}-locks/{lock}")[1].ephemeralOwner == zk.session_id
        with CuratorConsumer(curator, path, layout) as theirs:
            put(curator, path, [b"free"], layout)
            assert theirs.wait(1) == [b"free"]
            wait_until(lambda: kazoo.get_children(path) == [name], LIMIT, "the free one is done")
            assert claim.valid
            claim.ack()
            _gone(kazoo, path)
            assert theirs.given() == [b"free"]


def test_a_lock_path_of_another_name_is_used_by_both(
    zk: zkr.Client, curator: CuratorPeer, kazoo: KazooClient, path: str
) -> None:
    locks = f"{path}-elsewhere/claims"
    queue = ours(zk, path, lock_path=locks)
    queue.put(b"ours")
    claim = queue.take(LIMIT)
    assert locks_at(kazoo, locks) == kazoo.get_children(path)
    with CuratorConsumer(curator, path, locks=locks, hold=True) as theirs:
        put(curator, path, [b"theirs"], locks=locks)
        assert theirs.wait(1) == [b"theirs"]
        assert queue.try_take() is None
        claim.ack()
        theirs.proceed()
        wait_until(lambda: not kazoo.get_children(path) + locks_at(kazoo, locks), LIMIT, "all is done")
    assert not kazoo.exists(f"{path}-locks")


# --- given back -------------------------------------------------------------------------------------------------------


@of_each_layout
def test_what_we_give_back_is_given_to_curator(
    zk: zkr.Client, curator: CuratorPeer, kazoo: KazooClient, path: str, layout: Layout
) -> None:
    queue = ours(zk, path, layout)
    queue.put(b"hi", headers={"trace": "7f3a"})
    queue.take(LIMIT).nack(error="not now")
    [name] = kazoo.get_children(path)
    data = kazoo.get(f"{path}/{name}")[0]
    assert data.startswith(HI)
    assert len(data) > len(HI), "what we remember stands behind the end"
    [waiting] = queue.peek()
    assert (waiting.item, waiting.attempts, waiting.error, waiting.headers) == (b"hi", 1, "not now", {"trace": "7f3a"})
    with CuratorConsumer(curator, path, layout) as theirs:
        _gone(kazoo, path)
        assert theirs.given() == [b"hi"]


@of_each_layout
@pytest.mark.parametrize("how", ["nack", "release"])
def test_curator_that_waits_is_told_of_what_we_give_back(
    zk: zkr.Client, curator: CuratorPeer, kazoo: KazooClient, path: str, *, layout: Layout, how: str
) -> None:
    """Curator watches the queue's children, not its locks: that a lock goes tells it nothing."""
    queue = ours(zk, path, layout)
    queue.put(b"hi")
    claim = queue.take(LIMIT)
    with CuratorConsumer(curator, path, layout) as theirs:
        put(curator, path, [b"other"], layout)
        assert theirs.wait(1) == [b"other"]
        wait_until(lambda: len(kazoo.get_children(path)) == 1, LIMIT, "the other one is done")
        theirs.wait_idle()
        if how == "nack":
            claim.nack(error="not now")
        else:
            claim.release()
        assert theirs.wait(2) == [b"other", b"hi"]
        _gone(kazoo, path)


@of_each_layout
def test_what_curator_puts_back_is_served_by_us(
    zk: zkr.Client, curator: CuratorPeer, kazoo: KazooClient, path: str, layout: Layout
) -> None:
    """It puts it back without priority and time: the name is that of a plain queue."""
    queue = ours(zk, path, layout)
    put(curator, path, [b"bad"], layout, due=1)
    put(curator, path, [b"next"], layout, due=2)
    with CuratorConsumer(curator, path, layout, failures=1, hold=True, batch=10) as theirs:
        theirs.wait(1)
        theirs.proceed()
        assert theirs.wait(2) == [b"bad", b"next"]
        assert "queue-0000000002" in kazoo.get_children(path)
        with queue.take(LIMIT) as claim:
            assert (claim.item, claim.attempt) == (b"bad", 1)
        assert queue.try_take() is None
        theirs.proceed()
        _gone(kazoo, path)
        assert theirs.given() == [b"bad", b"next"]


@of_each_layout
def test_curator_keeps_what_we_remember_when_it_puts_back(
    zk: zkr.Client, curator: CuratorPeer, kazoo: KazooClient, path: str, layout: Layout
) -> None:
    queue = ours(zk, path, layout)
    queue.put(b"bad", headers={"trace": "7f3a"})
    queue.take(LIMIT).nack(error="not now")
    soon = now() + 20  # behind the other one, in a delay queue as well
    put(curator, path, [b"next"], layout, due=soon)
    wait_until(lambda: now() > soon, LIMIT, "both are due")
    with CuratorConsumer(curator, path, layout, failures=1, hold=True, batch=10) as theirs:
        theirs.wait(1)
        theirs.proceed()
        assert theirs.wait(2) == [b"bad", b"next"]
        with queue.take(LIMIT) as claim:
            assert (claim.item, claim.attempt, claim.headers) == (b"bad", 2, {"trace": "7f3a"})
        theirs.proceed()
        _gone(kazoo, path)


# --- many -------------------------------------------------------------------------------------------------------------


def _work(consumer: zkr.Consumer[bytes], done: list[bytes]) -> None:
    for claim in consumer:
        with claim:
            done.append(claim.item)


@of_each_layout
def test_a_mixed_fleet_handles_each_item_once(
    zk: zkr.Client, other: zkr.Client, curator: CuratorPeer, kazoo: KazooClient, path: str, *, layout: Layout
) -> None:
    """Two consumers of Curator, each with an item in its hands when ours begin, and two of ours."""
    items = [f"{number}".encode() for number in range(ITEMS)]
    half = ITEMS // 2
    queues = [ours(zk, path, layout), ours(other, path, layout)]
    done: list[list[bytes]] = [[], []]
    with (
        CuratorConsumer(curator, path, layout, hold=True) as one,
        CuratorConsumer(curator, path, layout, hold=True) as two,
        queues[0].consume(prefetch=8) as three,
        queues[1].consume() as four,
    ):
        put(curator, path, items[:2], layout)
        one.wait(1)
        two.wait(1)
        put(curator, path, items[2:half], layout)
        workers = [Later(partial(_work, four, done[1]))]
        wait_until(lambda: done[1], LIMIT, "one of ours has done something")
        workers.append(Later(partial(_work, three, done[0])))
        one.proceed(ITEMS)
        two.proceed(ITEMS)
        for item in items[half:]:
            queues[0].put(item)
        wait_until(lambda: not kazoo.get_children(path), 2 * LIMIT, lambda: f"left: {kazoo.get_children(path)}")
        three.close()
        four.close()
        for worker in workers:
            worker.result()
        _gone(kazoo, path)
        handled = one.given() + two.given() + done[0] + done[1]
    assert sorted(handled, key=int) == items


# --- sessions that end ------------------------------------------------------------------------------------------------


@of_each_layout
def test_what_curator_held_is_ours_when_its_session_expires(
    zk: zkr.Client, zkr_server: Server, doomed: CuratorPeer, kazoo: KazooClient, path: str, *, layout: Layout
) -> None:
    queue = ours(zk, path, layout)
    put(doomed, path, [b"item"], layout)
    CuratorConsumer(doomed, path, layout, hold=True).wait(1)
    later = Later(lambda: queue.take(LIMIT))
    assert queue.try_take() is None
    zkr_server.expire(doomed)
    with later.result() as claim:
        assert (claim.item, claim.attempt) == (b"item", 1)
    _gone(kazoo, path)


def test_what_curator_held_is_ours_when_its_process_is_killed(
    zk: zkr.Client, doomed: CuratorPeer, kazoo: KazooClient, path: str
) -> None:
    queue = ours(zk, path)
    put(doomed, path, [b"item"])
    CuratorConsumer(doomed, path, hold=True).wait(1)
    assert queue.try_take() is None
    doomed.kill()
    with queue.take(LIMIT) as claim:
        assert (claim.item, claim.attempt) == (b"item", 1)
    _gone(kazoo, path)


def test_we_are_told_when_a_late_consumer_of_curator_deletes_what_we_hold(
    zk: zkr.Client, zkr_server: Server, doomed: CuratorPeer, kazoo: KazooClient, path: str
) -> None:
    """Curator does not look whether its lock is still its own: it deletes the item, and a lock of that name."""
    queue = ours(zk, path)
    put(doomed, path, [b"item"])
    theirs = CuratorConsumer(doomed, path, hold=True)
    theirs.wait(1)
    zkr_server.expire(doomed)
    claim = queue.take(LIMIT)
    theirs.proceed()
    _gone(kazoo, path)
    with pytest.raises(zkr.ClaimLostError):
        claim.ack()
    assert not claim.valid
    put(doomed, path, [b"next"])
    theirs.proceed()
    assert theirs.wait(2) == [b"item", b"next"]


@of_each_layout
def test_what_we_held_is_curators_when_our_session_expires(
    zkr_server: Server, curator: CuratorPeer, kazoo: KazooClient, path: str, layout: Layout
) -> None:
    with zkr.connect(zkr_server.hosts, session_timeout=_SHORT) as mine:
        queue = ours(mine, path, layout)
        queue.put(b"held")
        claim = queue.take(LIMIT)
        with CuratorConsumer(curator, path, layout) as theirs:
            put(curator, path, [b"before"], layout)
            assert theirs.wait(1) == [b"before"]
            zkr_server.expire(mine)
            # The end of a session changes nothing among the items: Curator looks again when another one comes.
            put(curator, path, [b"after"], layout)
            assert sorted(theirs.wait(3)) == [b"after", b"before", b"held"]
            _gone(kazoo, path)
        assert claim.lost.wait(LIMIT)
        with pytest.raises(zkr.ClaimLostError):
            claim.ack()


# --- strangers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stored", CORRUPT.values(), ids=CORRUPT)
def test_bytes_that_are_none_of_curators_are_told_and_block_nothing(
    zk: zkr.Client, curator: CuratorPeer, kazoo: KazooClient, path: str, stored: str
) -> None:
    kazoo.ensure_path(path)
    damaged = kazoo.create(f"{path}/queue-", bytes.fromhex(stored), sequence=True)
    queue = ours(zk, path)
    errors: list[Exception] = []
    queue.on_error(errors.append)
    put(curator, path, [b"theirs"])
    queue.put(b"ours")
    assert served(queue, 2) == [b"theirs", b"ours"]
    wait_until(lambda: errors, LIMIT, "it is told")
    [error] = errors
    assert isinstance(error, zkr.DecodeError)
    assert error.path == damaged
    assert damaged in str(error)


@of_each_layout
def test_what_stands_behind_the_end_is_not_read_where_it_is_not_ours(
    zk: zkr.Client, curator: CuratorPeer, kazoo: KazooClient, path: str, layout: Layout
) -> None:
    kazoo.ensure_path(path)
    middle = {"curator": "", "curator-priority": "100000000", "curator-delay": "|00000001|"}[layout]
    queue = ours(zk, path, layout)
    for rest in (b"anything", b"\x01\x00\x00\x00\x01x\x02", HI):
        kazoo.create(f"{path}/queue-{middle}", HI + rest, sequence=True)
        with queue.take(LIMIT) as claim:
            assert (claim.item, claim.attempt) == (b"hi", 1)
    assert queue.try_take() is None
    kazoo.create(f"{path}/queue-{middle}", HI + b"anything", sequence=True)
    with CuratorConsumer(curator, path, layout) as theirs:
        assert theirs.wait(1) == [b"hi"]


@of_each_layout
def test_foreign_nodes_are_left_alone_and_block_nothing(
    zk: zkr.Client, curator: CuratorPeer, kazoo: KazooClient, path: str, layout: Layout
) -> None:
    kazoo.ensure_path(f"{path}/notes/of an operator")
    kazoo.create(f"{path}/lock-0000000000")
    queue = ours(zk, path, layout)
    errors: list[Exception] = []
    queue.on_error(errors.append)
    put(curator, path, [b"theirs"], layout)
    queue.put(b"ours")
    assert served(queue, 2) == [b"theirs", b"ours"]
    wait_until(lambda: len(errors) == 2, LIMIT, lambda: f"both are told, not only {errors}")
    assert {error.path for error in errors if isinstance(error, zkr.DecodeError)} == {
        f"{path}/notes",
        f"{path}/lock-0000000000",
    }
    with CuratorConsumer(curator, path, layout) as theirs:
        queue.put(b"more")
        assert theirs.wait(1) == [b"more"]
    assert sorted(kazoo.get_children(path)) == ["lock-0000000000", "notes"]
    assert kazoo.get_children(f"{path}/notes") == ["of an operator"]
