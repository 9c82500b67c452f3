"""What a queue promises in Curator's layouts, among clients of ours: what it does in our own, on a real server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

import zkrecipes as zkr
from tests.contracts.subjects import Later
from tests.integration.queue_layouts import LIMIT, LOCKS, PATH, Layout, drain, of_each_layout, text_queue
from zkrecipes import aio
from zkrecipes.testing import Server, wait_until


@pytest.fixture
def zk(zkr_client: zkr.Client) -> zkr.Client:
    return zkr_client


@pytest.fixture
def other(zkr_server: Server, zkr_namespace: str) -> Iterator[zkr.Client]:
    with zkr.connect(zkr_server.hosts, namespace=zkr_namespace) as client:
        yield client


def more(layout: Layout, priority: int) -> dict[str, Any]:
    """What the layout knows beyond an item."""
    return {"priority": priority} if layout == "curator-priority" else {}


# --- failures ---------------------------------------------------------------------------------------------------------


@of_each_layout
def test_an_item_whose_attempts_are_used_up_is_a_dead_letter_and_can_be_put_back(
    zk: zkr.Client, other: zkr.Client, layout: Layout
) -> None:
    queue = text_queue(zk, layout, max_attempts=2)
    first = queue.put("bad", headers={"a": "b"}, **more(layout, -3))
    second = queue.put("worse")
    for _ in range(2):
        for _ in range(2):
            with pytest.raises(ValueError, match="nonsense"), queue.take(LIMIT):
                int("nonsense")
    assert queue.try_take() is None
    letters = text_queue(other, layout).dead_letters()
    assert [(each.id, each.item, each.attempts) for each in letters] == [(first, "bad", 2), (second, "worse", 2)]
    assert "nonsense" in letters[0].error
    assert letters[0].headers == {"a": "b"}
    assert letters[0].dead_at is not None
    assert zk.children(PATH) == []
    assert queue.redrive([second]) == 1
    assert (queue.stats().waiting, queue.stats().dead) == (1, 1)
    assert queue.redrive() == 1
    assert queue.redrive() == 0
    claims = {claim.id: claim for claim in (queue.take(LIMIT), queue.take(LIMIT))}
    assert [claims[id_].attempt for id_ in (first, second)] == [1, 1]
    assert (claims[first].headers, claims[first].priority) == (
        {"a": "b"},
        -3 if layout == "curator-priority" else 0,
    )
    for claim in claims.values():
        claim.ack()
    assert zk.children(PATH) == []


@of_each_layout
def test_an_item_that_ends_its_consumers_is_a_dead_letter(
    zk: zkr.Client, zkr_server: Server, zkr_namespace: str, layout: Layout
) -> None:
    queue = text_queue(zk, layout, max_attempts=2)
    queue.put_many(["poison", "good"])
    for _ in range(2):
        with zkr.connect(zkr_server.hosts, namespace=zkr_namespace) as victim:
            claim = text_queue(victim, layout, max_attempts=2).take(LIMIT)
            assert claim.item == "poison"
    assert drain(queue) == ["good"]
    assert [dead.id for dead in queue.dead_letters()] == [claim.id]


@of_each_layout
def test_an_item_given_back_keeps_its_place_and_what_belongs_to_it(
    zk: zkr.Client, other: zkr.Client, layout: Layout
) -> None:
    queue = text_queue(zk, layout)
    ids = queue.put_many(["first", "second"], headers={"trace": "1"}, **more(layout, 7))
    queue.take(LIMIT).nack(error="broken")
    assert [(each.item, each.attempts, each.error) for each in text_queue(other, layout).peek(5)] == [
        ("first", 1, "broken"),
        ("second", 0, ""),
    ]
    with text_queue(other, layout).take(LIMIT) as claim:
        assert (claim.item, claim.id, claim.attempt, claim.headers) == ("first", ids[0], 2, {"trace": "1"})
        assert claim.priority == (7 if layout == "curator-priority" else 0)
    claim = queue.take(LIMIT)
    claim.release()
    with text_queue(other, layout).take(LIMIT) as claim:
        assert (claim.item, claim.id, claim.attempt) == ("second", ids[1], 1), "release does not count"


@of_each_layout
def test_a_late_acknowledgement_touches_nothing(zk: zkr.Client, other: zkr.Client, layout: Layout) -> None:
    queue = text_queue(zk, layout)
    queue.put("item")
    claim = queue.take(LIMIT)
    [name] = zk.children(PATH)
    other.delete(f"{LOCKS}/{name}")
    taken = text_queue(other, layout).take(LIMIT)
    with pytest.raises(zkr.ClaimLostError):
        claim.ack()
    assert taken.valid
    taken.ack()
    assert queue.try_take() is None


@of_each_layout
def test_a_claim_ends_with_its_visibility_unless_it_is_extended(
    zk: zkr.Client, other: zkr.Client, layout: Layout
) -> None:
    queue, others = text_queue(zk, layout, visibility=0.5), text_queue(other, layout, visibility=5.0)
    queue.put_many(["lost", "kept"])
    lost, kept = queue.take(LIMIT), queue.take(LIMIT)
    kept.extend(60.0)
    again = others.take(LIMIT)
    assert (again.item, again.attempt) == ("lost", 2)
    assert not lost.valid
    assert lost.lost.wait(LIMIT)
    assert lost.lost.reason is zkr.LostReason.TIMED_OUT
    with pytest.raises(zkr.ClaimLostError):
        lost.ack()
    again.ack()
    assert others.try_take() is None
    assert kept.valid
    kept.ack()
    assert zk.children(PATH) == []


@of_each_layout
def test_items_of_a_consumer_that_closed_come_back(zk: zkr.Client, other: zkr.Client, layout: Layout) -> None:
    queue = text_queue(zk, layout)
    queue.put("item")
    claim = text_queue(other, layout).take(LIMIT)
    later = Later(lambda: queue.take(LIMIT))
    other.close()
    again = later.result()
    assert again.attempt == 2
    with pytest.raises(zkr.ClaimLostError):
        claim.ack()
    again.ack()


# --- delays -----------------------------------------------------------------------------------------------------------


def test_an_item_is_given_back_for_later(zk: zkr.Client, other: zkr.Client) -> None:
    queue = text_queue(zk, "curator-delay", backoff=lambda attempt: 0.3 * attempt)
    id_ = queue.put("item", headers={"a": "b"})
    for attempt in (1, 2):
        claim = queue.take(LIMIT)
        began = time.monotonic()
        claim.nack(error=f"failed {attempt}")
        assert text_queue(other, "curator-delay").try_take() is None
        assert queue.stats().delayed == 1
        again = text_queue(other, "curator-delay").take(LIMIT)
        assert time.monotonic() - began >= 0.3 * attempt
        assert (again.id, again.attempt, again.headers) == (id_, 1 + attempt, {"a": "b"})
        again.release()
    assert zk.children(LOCKS) == ["zkrecipes"]
    assert len(zk.children(PATH)) == 1


def test_delayed_items_come_when_they_are_due(zk: zkr.Client, other: zkr.Client) -> None:
    queue = text_queue(zk, "curator-delay")
    began = time.monotonic()
    delays = {"third": 0.9, "first": 0.3, "second": 0.6}
    for name, delay in delays.items():
        text_queue(other, "curator-delay").put(name, delay=delay)
    for name in ("first", "second", "third"):
        with queue.take(LIMIT) as claim:
            assert claim.item == name
            assert time.monotonic() - began >= delays[name]


def test_a_taker_that_waits_is_told_of_an_item_that_is_due_earlier(zk: zkr.Client, other: zkr.Client) -> None:
    queue = text_queue(zk, "curator-delay")
    producer = text_queue(other, "curator-delay")
    producer.put("late", delay=60.0)
    later = Later(lambda: queue.take(LIMIT))
    producer.put("early", delay=0.3)
    assert later.result().item == "early"


# --- deduplication, bounds, many --------------------------------------------------------------------------------------


@of_each_layout
def test_a_duplicate_gives_the_first_id_and_stores_nothing(zk: zkr.Client, other: zkr.Client, layout: Layout) -> None:
    first = text_queue(zk, layout).put("once", dedup_id="order 1")
    assert text_queue(other, layout).put("twice", dedup_id="order 1") == first
    assert text_queue(other, layout).put("another", dedup_id="order 2") != first
    claim = text_queue(zk, layout).take(LIMIT)
    assert (claim.item, claim.id) == ("once", first)
    claim.ack()
    assert drain(text_queue(zk, layout)) == ["another"]
    assert text_queue(zk, layout).put("again", dedup_id="order 1") == first


@of_each_layout
def test_a_full_queue_refuses_or_waits_for_room(zk: zkr.Client, other: zkr.Client, layout: Layout) -> None:
    queue = text_queue(zk, layout, max_size=1)
    queue.put("a")
    with pytest.raises(zkr.QueueFullError):
        queue.put("b")
    patient = text_queue(zk, layout, max_size=1, on_full="wait")
    with pytest.raises(zkr.QueueFullError):
        patient.put("b", timeout=0.3)
    later = Later(lambda: patient.put("b", timeout=LIMIT))
    text_queue(other, layout).take(LIMIT).ack()
    later.result()
    assert drain(queue) == ["b"]


@of_each_layout
def test_many_items_are_one_transaction_and_keep_their_order(zk: zkr.Client, other: zkr.Client, layout: Layout) -> None:
    queue = text_queue(zk, layout)
    items = [f"{number}" for number in range(250)]
    ids = queue.put_many(items, **more(layout, -1))
    names = sorted(zk.children(PATH), key=lambda name: name[-10:])
    assert names == ids, "the server's name is the identifier"
    assert len(dict.fromkeys(stat.czxid for name in names if (stat := zk.exists(f"{PATH}/{name}")))) == 1
    with text_queue(other, layout).take_many(300, LIMIT) as batch:
        assert [claim.item for claim in batch] == items
        assert [claim.id for claim in batch] == ids
    assert zk.children(PATH) == []
    with pytest.raises(zkr.PayloadTooLargeError):
        queue.put_many(["x" * 300_000] * 4)
    assert zk.children(PATH) == []


@of_each_layout
def test_each_item_is_handled_once_by_several_consumers(zk: zkr.Client, other: zkr.Client, layout: Layout) -> None:
    items = [f"{number}" for number in range(200)]
    seen: list[str] = []

    def consume(client: zkr.Client, prefetch: int) -> None:
        with text_queue(client, layout).consume(prefetch) as claims:
            for claim in claims:
                with claim:
                    seen.append(claim.item)
                if claim.item == "end":
                    return

    laters = [
        Later(partial(consume, client, prefetch)) for client, prefetch in ((zk, 1), (other, 7), (zk, 3), (other, 1))
    ]
    producer = text_queue(zk, layout)
    for start in range(0, 200, 10):
        producer.put_many(items[start : start + 10])
    wait_until(lambda: len(seen) == 200, LIMIT, lambda: f"all are handled, not {len(seen)}")

    def ended() -> bool:
        # One after another: what a consumer has claimed ahead, and not begun, it gives back when it leaves.
        if not zk.children(PATH):
            producer.put("end")
        return all(later.done for later in laters)

    wait_until(ended, LIMIT, "all consumers have ended")
    for later in laters:
        later.result()
    assert sorted([item for item in seen if item != "end"], key=int) == items


@of_each_layout
def test_the_same_under_asyncio(zkr_server: Server, zkr_namespace: str, layout: Layout) -> None:
    async def scenario() -> None:
        async with aio.connect(zkr_server.hosts, namespace=zkr_namespace) as client:
            queue = aio.Queue(
                client, PATH, codec=zkr.TextCodec(), layout=layout, lock_path="/elsewhere", max_attempts=1
            )
            await queue.put_many([f"{number}" for number in range(20)])
            items = []
            async with queue.consume(prefetch=6) as claims:
                async for claim in claims:
                    async with claim:
                        items.append(claim.item)
                    if len(items) == 15:
                        break
            assert items == [f"{number}" for number in range(15)]
            with pytest.raises(ZeroDivisionError):
                async with queue.take(LIMIT):
                    1 / 0  # noqa: B018 - a failure
            assert [each.item for each in await queue.dead_letters()] == ["15"]
            assert await queue.redrive() == 1
            rest: list[str] = []
            while len(rest) < 5:
                async with queue.take_many(10, LIMIT) as batch:
                    rest += [claim.item for claim in batch]
            assert rest == ["16", "17", "18", "19", "15"]
            assert (await queue.stats()).waiting == 0
            assert await client.exists(LOCKS) is None

    asyncio.run(scenario())


# --- operators --------------------------------------------------------------------------------------------------------


@of_each_layout
def test_a_queue_that_is_not_there_is_empty_and_is_not_made(zk: zkr.Client, layout: Layout) -> None:
    queue = text_queue(zk, layout)
    assert queue.stats() == zkr.QueueStats(0, 0, 0, 0, None)
    assert (queue.peek(5), queue.dead_letters(), queue.redrive(), queue.purge()) == ([], [], 0, 0)
    assert zk.exists(PATH) is None
    assert zk.exists(LOCKS) is None


@of_each_layout
def test_a_purge_leaves_claims_and_dead_letters_alone(zk: zkr.Client, layout: Layout) -> None:
    queue = text_queue(zk, layout, max_attempts=1)
    queue.put_many([f"item {number}" for number in range(150)])
    if layout == "curator-delay":
        queue.put_many(["later", "much later"], delay=60.0)
    delayed = 2 if layout == "curator-delay" else 0
    queue.take(LIMIT).nack()
    claim = queue.take(LIMIT)
    stats = queue.stats()
    assert (stats.waiting, stats.delayed, stats.claimed, stats.dead) == (148, delayed, 1, 1)
    assert stats.oldest_age is not None
    assert 0 <= stats.oldest_age < LIMIT
    assert [each.item for each in queue.peek(3)] == ["item 2", "item 3", "item 4"]
    assert len(queue.peek(999)) == 148
    assert queue.purge() == 148 + delayed
    stats = queue.stats()
    assert (stats.waiting, stats.delayed, stats.claimed, stats.dead) == (0, 0, 1, 1)
    assert claim.valid
    claim.ack()
    queue.put("after")
    assert drain(queue) == ["after"]
