"""Our queues in Curator's layouts and Curator's queues are one: the same bytes, names and order, both ways."""

from __future__ import annotations

import re
from typing import Final

import pytest
from kazoo.client import KazooClient

import zkrecipes as zkr
from tests.contracts.subjects import Later
from tests.interop.peer import CuratorPeer
from tests.interop.queues import LAYOUTS, LIMIT, CuratorConsumer, Layout, locks_at, now, ours, put, served
from zkrecipes.testing import wait_until

LOWEST: Final = -(2**31)
HIGHEST: Final = 2**31 - 1
BIG: Final = 900_000

PRIORITIES: Final = (0, 5, -5, HIGHEST, LOWEST, -1, 1)

of_each_layout = pytest.mark.parametrize("layout", LAYOUTS)


def _names(kazoo: KazooClient, path: str) -> list[str]:
    """The items of a queue, in the order in which they were put."""
    return sorted(kazoo.get_children(path), key=lambda name: name[-10:])


def _data(kazoo: KazooClient, path: str) -> list[bytes]:
    return [kazoo.get(f"{path}/{name}")[0] for name in _names(kazoo, path)]


# --- bytes and names --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("item", "stored"),
    [
        (b"", "00010001 01 00000000 02"),
        (b"hi", "00010001 01 00000002 6869 02"),
        (bytes(range(256)), f"00010001 01 00000100 {bytes(range(256)).hex()} 02"),
        (b"x" * BIG, f"00010001 01 000DBBA0 {'78' * BIG} 02"),
    ],
    ids=["empty", "hi", "all bytes", "big"],
)
def test_both_store_the_same_bytes_and_read_the_other_ones(
    zk: zkr.Client, curator: CuratorPeer, kazoo: KazooClient, path: str, *, item: bytes, stored: str
) -> None:
    queue = ours(zk, path)
    queue.put(item)
    put(curator, path, [item])
    assert _data(kazoo, path) == [bytes.fromhex(stored)] * 2
    assert served(queue, 2) == [item] * 2
    put(curator, path, [item])
    queue.put(item)
    with CuratorConsumer(curator, path) as theirs:
        assert theirs.wait(2) == [item] * 2


def test_several_items_in_one_node_of_curator(
    zk: zkr.Client, curator: CuratorPeer, kazoo: KazooClient, path: str
) -> None:
    put(curator, path, [b"a", b"bc"], together=True)
    assert _data(kazoo, path) == [bytes.fromhex("00010001 01 00000001 61 01 00000002 6263 02")]
    assert served(ours(zk, path), 2) == [b"a", b"bc"]


def test_both_name_their_items_alike(zk: zkr.Client, curator: CuratorPeer, kazoo: KazooClient, path: str) -> None:
    queue = ours(zk, path)
    queue.put(b"ours")
    put(curator, path, [b"theirs"])
    queue.put_many([b"ours again"])
    assert _names(kazoo, path) == ["queue-0000000000", "queue-0000000001", "queue-0000000002"]


@pytest.mark.parametrize(
    ("priority", "prefix"),
    [
        (0, "queue-100000000"),
        (5, "queue-100000005"),
        (HIGHEST, "queue-17FFFFFFF"),
        (-1, "queue-0FFFFFFFF"),
        (-5, "queue-0FFFFFFFB"),
        (LOWEST, "queue-080000000"),
    ],
)
def test_both_write_a_priority_alike(
    zk: zkr.Client, curator: CuratorPeer, kazoo: KazooClient, path: str, *, priority: int, prefix: str
) -> None:
    queue = ours(zk, path, "curator-priority")
    queue.put(b"ours", priority=priority)
    put(curator, path, [b"theirs"], "curator-priority", priority=priority)
    assert _names(kazoo, path) == [f"{prefix}0000000000", f"{prefix}0000000001"]
    for item in (b"ours", b"theirs"):
        with queue.take(LIMIT) as claim:
            assert (claim.item, claim.priority) == (item, priority)


def test_both_write_a_time_alike(zk: zkr.Client, curator: CuratorPeer, kazoo: KazooClient, path: str) -> None:
    queue = ours(zk, path, "curator-delay")
    before = now()
    queue.put(b"in an hour", delay=3600.0)
    queue.put(b"at once")
    after = now()
    put(curator, path, [b"long ago"], "curator-delay", due=0x18BCFE56800)
    put(curator, path, [b"in 1970"], "curator-delay", due=1)
    later, at_once, long_ago, in_1970 = _names(kazoo, path)
    assert long_ago == "queue-|18BCFE56800|0000000002"
    assert in_1970 == "queue-|00000001|0000000003"
    found = re.fullmatch(r"queue-\|([0-9A-F]{8,})\|0000000000", later)
    assert found is not None
    assert before + 3_600_000 <= int(found[1], 16) <= after + 3_601_000
    found = re.fullmatch(r"queue-\|([0-9A-F]{8,})\|0000000001", at_once)
    assert found is not None
    assert int(found[1], 16) <= after
    assert served(queue, 3) == [b"in 1970", b"long ago", b"at once"]


# --- order ------------------------------------------------------------------------------------------------------------


@of_each_layout
def test_curator_is_given_our_items_in_order(zk: zkr.Client, curator: CuratorPeer, path: str, layout: Layout) -> None:
    queue = ours(zk, path, layout)
    items = [f"{number}".encode() for number in range(40)]
    with CuratorConsumer(curator, path, layout, hold=True) as theirs:
        for item in items[:20]:
            queue.put(item)
        theirs.proceed(40)
        queue.put_many(items[20:])
        given = theirs.wait(40)
    # A delay queue of Curator's does not order what is due in the same millisecond.
    assert (sorted(given, key=int) if layout == "curator-delay" else given) == items


@of_each_layout
def test_curators_items_are_served_by_us_in_order(
    zk: zkr.Client, curator: CuratorPeer, path: str, layout: Layout
) -> None:
    items = [f"{number}".encode() for number in range(40)]
    put(curator, path, items, layout)
    assert [each.item for each in ours(zk, path, layout).peek(3)] == [b"0", b"1", b"2"]
    assert served(ours(zk, path, layout), 40) == items


@of_each_layout
def test_a_taker_of_ours_that_waits_is_woken_by_curators_put(
    zk: zkr.Client, curator: CuratorPeer, path: str, layout: Layout
) -> None:
    queue = ours(zk, path, layout)
    assert queue.try_take() is None
    later = Later(lambda: queue.take(LIMIT))
    put(curator, path, [b"item"], layout)
    with later.result() as claim:
        assert (claim.item, claim.attempt) == (b"item", 1)


@of_each_layout
def test_a_consumer_of_ours_leaves_the_rest_to_curator(
    zk: zkr.Client, curator: CuratorPeer, path: str, layout: Layout
) -> None:
    items = [f"{number}".encode() for number in range(20)]
    put(curator, path, items, layout)
    done = []
    with ours(zk, path, layout).consume(prefetch=8) as claims:
        for claim in claims:
            with claim:
                done.append(claim.item)
            if len(done) == 13:
                break
    assert done == items[:13]
    with CuratorConsumer(curator, path, layout) as theirs:
        assert sorted(theirs.wait(7), key=int) == items[13:]


def test_our_priorities_are_served_by_curator_in_order(zk: zkr.Client, curator: CuratorPeer, path: str) -> None:
    queue = ours(zk, path, "curator-priority")
    for priority in PRIORITIES:
        queue.put(f"{priority}".encode(), priority=priority)
        queue.put(f"{priority} again".encode(), priority=priority)
    with CuratorConsumer(curator, path, "curator-priority") as theirs:
        given = theirs.wait(2 * len(PRIORITIES))
    assert given == [f"{priority}{which}".encode() for priority in sorted(PRIORITIES) for which in ("", " again")]


def test_curators_priorities_are_served_by_us_in_order(zk: zkr.Client, curator: CuratorPeer, path: str) -> None:
    for priority in PRIORITIES:
        items = [f"{priority}".encode(), f"{priority} again".encode()]
        put(curator, path, items, "curator-priority", priority=priority)
    items = served(ours(zk, path, "curator-priority"), 2 * len(PRIORITIES))
    assert items == [f"{priority}{which}".encode() for priority in sorted(PRIORITIES) for which in ("", " again")]


def test_an_urgent_item_of_ours_overtakes_at_curator(zk: zkr.Client, curator: CuratorPeer, path: str) -> None:
    queue = ours(zk, path, "curator-priority")
    with CuratorConsumer(curator, path, "curator-priority", hold=True) as theirs:
        put(curator, path, [f"{number}".encode() for number in range(10)], "curator-priority", priority=5)
        theirs.wait(1)
        queue.put(b"urgent", priority=-1)
        theirs.proceed(11)
        given = theirs.wait(11)
    # One is in its hands already; another one may be begun before it has listed anew.
    assert b"urgent" in given[:3]


def test_an_urgent_item_of_curator_overtakes_at_ours(zk: zkr.Client, curator: CuratorPeer, path: str) -> None:
    queue = ours(zk, path, "curator-priority")
    put(curator, path, [b"first", b"second"], "curator-priority", priority=5)
    with queue.take(LIMIT) as claim:
        assert claim.item == b"first"
        put(curator, path, [b"urgent"], "curator-priority", priority=-1)
    assert served(queue, 2) == [b"urgent", b"second"]


# --- times ------------------------------------------------------------------------------------------------------------


def test_our_delayed_items_are_served_by_curator_when_due(zk: zkr.Client, curator: CuratorPeer, path: str) -> None:
    queue = ours(zk, path, "curator-delay")
    delays = {b"third": 1400, b"first": 1000, b"second": 1200}
    with CuratorConsumer(curator, path, "curator-delay") as theirs:
        due = {}
        for item, delay in delays.items():
            due[item] = now() + delay
            queue.put(item, delay=delay / 1000)
        assert theirs.wait(3) == [b"first", b"second", b"third"]
        for item, at in theirs.deliveries():
            assert at >= due[item]


def test_curators_delayed_items_are_served_by_us_when_due(zk: zkr.Client, curator: CuratorPeer, path: str) -> None:
    queue = ours(zk, path, "curator-delay")
    began = now()
    due = {b"third": began + 1400, b"first": began + 1000, b"second": began + 1200}
    for item, when in due.items():
        put(curator, path, [item], "curator-delay", due=when)
    for item in (b"first", b"second", b"third"):
        with queue.take(LIMIT) as claim:
            assert claim.item == item
            assert now() >= due[item]


def test_what_is_not_due_is_kept_by_both(zk: zkr.Client, curator: CuratorPeer, kazoo: KazooClient, path: str) -> None:
    queue = ours(zk, path, "curator-delay")
    queue.put(b"ours, in an hour", delay=3600.0)
    put(curator, path, [b"theirs, in an hour"], "curator-delay", due=now() + 3_600_000)
    assert queue.try_take() is None
    stats = queue.stats()
    assert (stats.waiting, stats.delayed, stats.claimed) == (0, 2, 0)
    put(curator, path, [b"now"], "curator-delay", due=1)
    assert served(queue, 1) == [b"now"]
    with CuratorConsumer(curator, path, "curator-delay") as theirs:
        queue.put(b"now, too")
        assert theirs.wait(1) == [b"now, too"]
        wait_until(lambda: len(_names(kazoo, path)) == 2, LIMIT, "what was due is gone")
        assert theirs.given() == [b"now, too"]


def test_times_are_compared_as_numbers_and_then_the_first_put_is_first(
    zk: zkr.Client, curator: CuratorPeer, path: str
) -> None:
    """A time has at least eight digits, and nine come after eight: as text they would not."""
    put(curator, path, [b"nine digits"], "curator-delay", due=0x100000000)
    put(curator, path, [b"eight", b"eight again"], "curator-delay", due=0xFFFFFFFF)
    put(curator, path, [b"the smallest"], "curator-delay", due=1)
    queue = ours(zk, path, "curator-delay")
    assert served(queue, 4) == [b"the smallest", b"eight", b"eight again", b"nine digits"]


# --- several items in one node ----------------------------------------------------------------------------------------


@of_each_layout
def test_items_of_one_node_are_served_one_at_a_time(
    zk: zkr.Client, curator: CuratorPeer, kazoo: KazooClient, path: str, layout: Layout
) -> None:
    queue = ours(zk, path, layout)
    put(curator, path, [b"a", b"bc", b""], layout, due=1, together=True)
    put(curator, path, [b"alone"], layout, due=2)
    first = queue.take(LIMIT)
    assert first.item == b"a"
    with queue.take(LIMIT) as alone:
        assert alone.item == b"alone"
    assert queue.try_take() is None, "the second one waits for the first one"
    first.ack()
    assert served(queue, 2) == [b"bc", b""]
    assert kazoo.get_children(path) == locks_at(kazoo, f"{path}-locks") == []


@of_each_layout
def test_an_item_of_several_that_is_given_back_comes_again_before_the_others(
    zk: zkr.Client, curator: CuratorPeer, path: str, layout: Layout
) -> None:
    queue = ours(zk, path, layout)
    put(curator, path, [b"a", b"bc", b"d"], layout, together=True)
    queue.take(LIMIT).ack()
    queue.take(LIMIT).nack(error="not now")
    with queue.take(LIMIT) as again:
        assert (again.item, again.attempt) == (b"bc", 2)
    with queue.take(LIMIT) as last:
        assert (last.item, last.attempt) == (b"d", 1)
    assert queue.try_take() is None


@of_each_layout
def test_curator_goes_on_with_the_items_that_we_have_not_done(
    zk: zkr.Client, curator: CuratorPeer, kazoo: KazooClient, path: str, layout: Layout
) -> None:
    put(curator, path, [b"a", b"bc", b"d"], layout, together=True)
    ours(zk, path, layout).take(LIMIT).ack()
    with CuratorConsumer(curator, path, layout) as theirs:
        wait_until(lambda: not kazoo.get_children(path), LIMIT, "the node is gone")
        assert theirs.given() == [b"bc", b"d"]


def test_a_node_without_items_is_nobodys_work(zk: zkr.Client, curator: CuratorPeer, path: str) -> None:
    queue = ours(zk, path)
    put(curator, path, [], together=True)
    put(curator, path, [b"item"])
    assert served(queue, 1) == [b"item"]
