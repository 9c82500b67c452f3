"""Delays, failures, bounds and strangers: what a queue promises beyond its order, on a real server."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import Any, Final

import pytest

import zkrecipes as zkr
from tests.contracts.subjects import Later
from zkrecipes.testing import FaultProxy, Server, wait_until

PATH: Final = "/queue"
LIMIT: Final = 20.0
LANE: Final = f"{PATH}/lanes/80000000"


@pytest.fixture
def zk(zkr_client: zkr.Client) -> zkr.Client:
    return zkr_client


@pytest.fixture
def other(zkr_server: Server, zkr_namespace: str) -> Iterator[zkr.Client]:
    with zkr.connect(zkr_server.hosts, namespace=zkr_namespace) as client:
        yield client


def text_queue(zk: zkr.Client, **options: Any) -> zkr.Queue[str]:
    return zkr.Queue(zk, PATH, codec=zkr.TextCodec(), **options)


def drain(queue: zkr.Queue[str]) -> list[str]:
    items = []
    while (claim := queue.try_take(0.5)) is not None:  # longer than 0: on a busy machine as well
        items.append(claim.item)
        claim.ack()
    return items


# --- delays -----------------------------------------------------------------------------------------------------------


def test_a_delayed_item_is_served_when_due_and_not_before(zk: zkr.Client, other: zkr.Client) -> None:
    queue = text_queue(zk)
    began = time.monotonic()
    text_queue(other).put("later", delay=0.6)
    assert queue.try_take() is None
    with queue.take(LIMIT) as claim:
        took = time.monotonic() - began
        assert claim.item == "later"
    assert 0.6 <= took < 1.6


def test_delayed_items_come_in_the_order_in_which_they_are_due(zk: zkr.Client) -> None:
    queue = text_queue(zk)
    for name, delay in (("third", 0.9), ("first", 0.3), ("second", 0.6)):
        queue.put(name, delay=delay)
    items = []
    for _ in range(3):
        with queue.take(LIMIT) as claim:
            items.append(claim.item)
    assert items == ["first", "second", "third"]


def test_a_taker_that_waits_is_told_of_an_item_that_is_due_earlier(zk: zkr.Client, other: zkr.Client) -> None:
    queue = text_queue(zk)
    producer = text_queue(other)
    producer.put("late", delay=60.0)
    later = Later(lambda: queue.take(LIMIT))
    producer.put("early", delay=0.3)
    assert later.result().item == "early"


def test_an_item_given_back_for_later_keeps_its_priority_headers_and_id(zk: zkr.Client, other: zkr.Client) -> None:
    queue = text_queue(zk)
    id_ = queue.put("item", priority=4, headers={"a": "b"})
    queue.take(LIMIT).nack(0.3, "not now")
    assert text_queue(other).try_take() is None
    with text_queue(other).take(LIMIT) as claim:
        assert (claim.id, claim.priority, claim.headers, claim.attempt) == (id_, 4, {"a": "b"}, 2)


def test_items_given_back_for_later_come_again_in_their_old_order(zk: zkr.Client) -> None:
    queue = text_queue(zk)
    queue.put_many(["first", "second"])
    first, second = queue.take(LIMIT), queue.take(LIMIT)
    second.nack(0.1)
    first.nack(0.2)
    time_out = time.monotonic() + 0.5
    wait_until(lambda: time.monotonic() > time_out, 2.0, "both are due")
    assert drain(queue) == ["first", "second"]


# --- failures ---------------------------------------------------------------------------------------------------------


def test_an_item_whose_attempts_are_used_up_is_a_dead_letter_with_its_error(zk: zkr.Client) -> None:
    queue = text_queue(zk, max_attempts=2)
    id_ = queue.put("bad", headers={"a": "b"})
    for _ in range(2):
        with pytest.raises(ValueError, match="nonsense"), queue.take(LIMIT):
            int("nonsense")
    assert queue.try_take() is None
    [dead] = queue.dead_letters()
    assert (dead.id, dead.attempts, dead.headers) == (id_, 2, {"a": "b"})
    assert "nonsense" in dead.error


def test_an_item_that_ends_its_consumers_is_a_dead_letter(
    zk: zkr.Client, zkr_server: Server, zkr_namespace: str
) -> None:
    queue = text_queue(zk, max_attempts=2)
    queue.put_many(["poison", "good"])
    for _ in range(2):
        with zkr.connect(zkr_server.hosts, namespace=zkr_namespace) as victim:
            claim = text_queue(victim, max_attempts=2).take(LIMIT)
            assert claim.item == "poison"
    assert drain(queue) == ["good"]
    assert [dead.id for dead in queue.dead_letters()] == [claim.id]


def test_backoff_says_when_the_next_attempt_is(zk: zkr.Client) -> None:
    asked: list[int] = []

    def backoff(attempt: int) -> float:
        asked.append(attempt)
        return 0.2 * attempt

    queue = text_queue(zk, backoff=backoff)
    queue.put("item")
    queue.take(LIMIT).nack()
    began = time.monotonic()
    queue.take(LIMIT).nack()
    assert time.monotonic() - began >= 0.15
    assert asked == [1, 2]


def test_a_claim_ends_with_its_visibility_and_another_has_the_item(zk: zkr.Client, other: zkr.Client) -> None:
    queue = text_queue(zk, visibility=0.5)
    queue.put("item")
    claim = queue.take(LIMIT)
    lost = Later(lambda: claim.lost.wait(LIMIT))
    again = text_queue(other, visibility=5.0).take(LIMIT)
    assert not claim.valid
    assert lost.result()
    assert claim.lost.reason is zkr.LostReason.TIMED_OUT
    with pytest.raises(zkr.ClaimLostError):
        claim.ack()
    assert again.attempt == 2
    again.ack()
    assert queue.try_take() is None


def test_extend_keeps_a_claim(zk: zkr.Client, other: zkr.Client) -> None:
    queue = text_queue(zk, visibility=0.5)
    queue.put("item")
    claim = queue.take(LIMIT)
    claim.extend(5.0)
    with pytest.raises(zkr.AcquireTimeoutError):
        text_queue(other, visibility=0.5).take(0.9)
    assert claim.valid
    claim.ack()


def test_extend_needs_a_visibility_timeout(zk: zkr.Client) -> None:
    queue = text_queue(zk)
    queue.put("item")
    with queue.take(LIMIT) as claim, pytest.raises(ValueError, match="visibility"):
        claim.extend(1.0)


# --- deduplication, bounds --------------------------------------------------------------------------------------------


def test_a_duplicate_gives_the_first_id_and_stores_nothing(zk: zkr.Client, other: zkr.Client) -> None:
    first = text_queue(zk).put("once", dedup_id="order 1")
    assert text_queue(other).put("twice", dedup_id="order 1") == first
    assert text_queue(other).put("another", dedup_id="order 2") != first
    assert drain(text_queue(zk)) == ["once", "another"]
    assert text_queue(zk).put("again", dedup_id="order 1") == first


def test_a_full_queue_refuses(zk: zkr.Client) -> None:
    queue = text_queue(zk, max_size=3)
    queue.put_many(["a", "b"])
    with pytest.raises(zkr.QueueFullError):
        queue.put_many(["c", "d"])
    queue.put("c")
    with pytest.raises(zkr.QueueFullError):
        queue.put("d")
    queue.take(LIMIT).ack()
    queue.put("d")
    assert drain(queue) == ["b", "c", "d"]


def test_a_put_waits_for_room(zk: zkr.Client, other: zkr.Client) -> None:
    queue = text_queue(zk, max_size=1, on_full="wait")
    queue.put("a")
    with pytest.raises(zkr.QueueFullError):
        queue.put("b", timeout=0.3)
    later = Later(lambda: queue.put("b", timeout=LIMIT))
    text_queue(other).take(LIMIT).ack()
    later.result()
    assert drain(queue) == ["b"]


def test_too_much_at_once_is_refused_and_nothing_of_it_stored(zk: zkr.Client) -> None:
    queue = text_queue(zk)
    with pytest.raises(zkr.PayloadTooLargeError):
        queue.put_many(["x" * 300_000] * 4)
    assert queue.try_take() is None


# --- strangers --------------------------------------------------------------------------------------------------------


def test_foreign_empty_and_damaged_nodes_are_reported_left_alone_and_block_nothing(zk: zkr.Client) -> None:
    queue = text_queue(zk)
    errors: list[Exception] = []
    queue.on_error(errors.append)
    queue.put("before")
    shelf = f"{LANE}/s0000000000"
    strangers = [
        f"{shelf}/foreign",
        f"{shelf}/00000000-0000-8000-8000-000000000000-0000000001",
        f"{shelf}/00000000-0000-8000-8000-000000000000-0000000002",
        f"{PATH}/lanes/stranger",
    ]
    for path, data in zip(strangers, (b"?", b"", b"ZR\x01\x00\x00\xff\xff{", b""), strict=True):
        zk.create(path, data)
    queue.put("after")
    assert drain(queue) == ["before", "after"]
    wait_until(lambda: len(errors) >= 4, LIMIT, "each is reported")
    assert {error.path.removeprefix(zk.core.namespace) for error in errors if isinstance(error, zkr.DecodeError)} == {
        *strangers
    }
    for path in strangers:
        assert zk.exists(path) is not None


def test_an_item_that_does_not_decode_is_put_off_and_those_behind_it_are_served(zk: zkr.Client) -> None:
    errors: list[Exception] = []
    zkr.Queue(zk, PATH).put(b"\xff")
    queue = text_queue(zk, max_attempts=5)
    queue.on_error(errors.append)
    queue.put("good")
    assert drain(queue) == ["good"]
    wait_until(lambda: len(errors) == 1, LIMIT, "it is reported")
    assert queue.stats().delayed == 1, "nothing is lost"


def test_a_path_of_something_else_is_refused(zk: zkr.Client) -> None:
    zk.create(PATH, b"mine")
    with pytest.raises(zkr.ForeignNodeError):
        text_queue(zk).put("item")


def test_a_queue_whose_nodes_were_deleted_begins_anew(zk: zkr.Client, other: zkr.Client) -> None:
    queue = text_queue(zk)
    queue.put("gone")
    assert drain(queue) == ["gone"]

    def delete(path: str) -> None:
        for name in other.children(path):
            delete(f"{path}/{name}")
        other.delete(path)

    delete(PATH)
    queue.put("new")
    assert drain(queue) == ["new"]


# --- requests ---------------------------------------------------------------------------------------------------------

_paths = itertools.count(1)


def _cost(proxy: FaultProxy, zk: zkr.Client, job: Any) -> int:
    zk.exists("/")
    proxy.reset_counts()
    job()
    return proxy.counts().total()


def test_what_puts_takes_and_acknowledgements_cost(zkr_server: Server, zkr_namespace: str) -> None:
    with (
        FaultProxy(zkr_server) as proxy,
        zkr.connect(proxy.hosts, namespace=zkr_namespace, session_timeout=60.0) as zk,
    ):
        queue = text_queue(zk)
        queue.put("first")
        assert drain(queue) == ["first"]
        assert _cost(proxy, zk, lambda: queue.put("one")) == 1, proxy.bursts()
        assert _cost(proxy, zk, lambda: queue.put_many(["x"] * 39)) == 1, proxy.bursts()
        assert _cost(proxy, zk, lambda: queue.take_many(20).ack()) <= 5, proxy.bursts()
        assert _cost(proxy, zk, lambda: queue.take(LIMIT).ack()) <= 5, proxy.bursts()
        assert _cost(proxy, zk, lambda: queue.take(LIMIT).ack()) == 3, proxy.bursts()


def test_an_idle_taker_sends_nothing(zkr_server: Server, zkr_namespace: str, zk: zkr.Client) -> None:
    producer = text_queue(zk)
    producer.put_many(["a", "b"])
    with (
        FaultProxy(zkr_server) as proxy,
        zkr.connect(proxy.hosts, namespace=zkr_namespace, session_timeout=60.0) as consumer,
    ):
        queue = text_queue(consumer)
        assert drain(queue) == ["a", "b"]
        with pytest.raises(zkr.AcquireTimeoutError):
            queue.take(0.3)
        assert _cost(proxy, consumer, lambda: Later(lambda: queue.take(1.0)).wait()) <= 2, proxy.bursts()
