"""What a queue promises on a real server, in threads."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, Final

import pytest

import zkrecipes as zkr
from tests.contracts.subjects import Later
from zkrecipes.testing import Server, wait_until

PATH: Final = "/queue"
LIMIT: Final = 20.0


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
    """Take and acknowledge what is there."""
    items = []
    while (claim := queue.try_take(0.5)) is not None:  # longer than 0: on a busy machine as well
        items.append(claim.item)
        claim.ack()
    return items


def test_items_come_in_the_order_of_their_puts(zk: zkr.Client) -> None:
    queue = text_queue(zk)
    for number in range(5):
        queue.put(f"single {number}")
    queue.put_many([f"together {number}" for number in range(5)])
    assert drain(queue) == [f"single {number}" for number in range(5)] + [f"together {number}" for number in range(5)]
    assert queue.try_take() is None


def test_lower_priorities_come_first_and_negative_ones_too(zk: zkr.Client) -> None:
    queue = text_queue(zk)
    for priority in (0, 5, -(2**31), 2**31 - 1, -3, 5):
        queue.put(f"{priority}", priority=priority)
    assert drain(queue) == [str(-(2**31)), "-3", "0", "5", "5", str(2**31 - 1)]


def test_an_urgent_item_put_later_overtakes(zk: zkr.Client) -> None:
    queue = text_queue(zk)
    queue.put_many([f"{number}" for number in range(10)])
    queue.take().ack()
    queue.put("urgent", priority=-1)
    claim = queue.take()
    assert claim.item == "urgent"
    claim.ack()


def test_a_claim_knows_its_item(zk: zkr.Client) -> None:
    queue = text_queue(zk)
    id_ = queue.put("mail", priority=7, headers={"trace": "1"})
    with queue.take(LIMIT) as claim:
        assert (claim.item, claim.id, claim.attempt, claim.priority) == ("mail", id_, 1, 7)
        assert claim.headers == {"trace": "1"}
        assert claim.valid
        assert claim.token > 0
    assert queue.try_take() is None


def test_leaving_the_block_acknowledges_and_an_exception_gives_back(zk: zkr.Client) -> None:
    queue = text_queue(zk)
    queue.put("item")
    with pytest.raises(ValueError, match="no number"), queue.take(LIMIT):
        int("no number")
    with queue.take(LIMIT) as claim:
        assert claim.attempt == 2
    assert queue.try_take() is None


def test_an_item_given_back_keeps_its_place(zk: zkr.Client, other: zkr.Client) -> None:
    queue = text_queue(zk)
    queue.put_many(["first", "second", "third"])
    queue.take(LIMIT).nack(error="broken")
    assert drain(text_queue(other)) == ["first", "second", "third"]


def test_a_claimed_item_is_served_to_nobody_else(zk: zkr.Client, other: zkr.Client) -> None:
    queue = text_queue(zk)
    queue.put("item")
    claim = queue.take(LIMIT)
    assert text_queue(zk).try_take() is None
    assert text_queue(other).try_take() is None
    claim.release()
    again = text_queue(other).take(LIMIT)
    assert again.attempt == 1, "release does not count"
    assert not claim.valid
    again.ack()


def test_a_waiting_taker_is_woken_by_a_put(zk: zkr.Client, other: zkr.Client) -> None:
    queue = text_queue(zk)
    assert queue.try_take() is None
    later = Later(lambda: queue.take(LIMIT))
    text_queue(other).put("item")
    assert later.result().item == "item"


def test_several_threads_wait_for_items(zk: zkr.Client, other: zkr.Client) -> None:
    queue = text_queue(zk)
    laters = [Later(lambda: queue.take(LIMIT)) for _ in range(4)]
    producer = text_queue(other)
    for number in range(4):
        producer.put(f"{number}")
    assert sorted(later.result().item for later in laters) == ["0", "1", "2", "3"]


def test_a_take_ends_by_its_timeout(zk: zkr.Client) -> None:
    queue = text_queue(zk)
    later = Later(lambda: queue.take(0.3))
    with pytest.raises(zkr.AcquireTimeoutError):
        later.result()
    assert 0.3 <= later.seconds < 1.5


def test_items_of_a_consumer_that_closed_come_back(zk: zkr.Client, other: zkr.Client) -> None:
    queue = text_queue(zk)
    queue.put("item")
    claim = text_queue(other).take(LIMIT)
    later = Later(lambda: queue.take(LIMIT))
    other.close()
    again = later.result()
    assert again.attempt == 2
    with pytest.raises(zkr.ClaimLostError):
        claim.ack()
    again.ack()


def test_a_late_acknowledgement_touches_nothing(zk: zkr.Client, other: zkr.Client) -> None:
    """Somebody deletes the claim, another consumer takes the item: the first one learns it, and does no harm."""
    queue = text_queue(zk)
    queue.put("item")
    claim = queue.take(LIMIT)
    slot = claim._held.want.slot
    other.delete(slot.claim.removeprefix(other.core.namespace))
    taken = text_queue(other).take(LIMIT)
    with pytest.raises(zkr.ClaimLostError):
        claim.ack()
    assert taken.valid
    taken.ack()
    assert queue.try_take() is None


def test_take_many_claims_in_order_and_acknowledges_together(zk: zkr.Client) -> None:
    queue = text_queue(zk)
    queue.put_many([f"{number}" for number in range(10)])
    with queue.take_many(7) as batch:
        assert [claim.item for claim in batch] == [f"{number}" for number in range(7)]
    assert drain(queue) == ["7", "8", "9"]


def test_a_consumer_acknowledges_what_leaves_its_block(zk: zkr.Client, other: zkr.Client) -> None:
    queue = text_queue(zk)
    queue.put_many([f"{number}" for number in range(50)])
    items = []
    with queue.consume(prefetch=8) as consumer:
        for claim in consumer:
            with claim:
                items.append(claim.item)
            if len(items) == 43:
                break
    assert items == [f"{number}" for number in range(43)]
    assert drain(text_queue(other)) == [f"{number}" for number in range(43, 50)]


def test_a_consumer_is_closed_from_another_thread(zk: zkr.Client) -> None:
    consumer = text_queue(zk).consume()
    later = Later(lambda: list(consumer))
    consumer.close()
    assert later.result() == []


def test_shelves_are_rolled_and_retired(zk: zkr.Client) -> None:
    queue = text_queue(zk, segment_size=4)
    for number in range(30):
        queue.put(f"{number}")
    lane = f"{PATH}/lanes/80000000"
    shelves = [name for name in zk.children(lane) if name.startswith("s")]
    assert 5 <= len(shelves) <= 8
    assert drain(queue) == [f"{number}" for number in range(30)]
    queue.put("one more")
    assert drain(queue) == ["one more"]

    def retired() -> bool:
        queue.try_take()
        return len([name for name in zk.children(lane) if name.startswith("s")]) == 1

    wait_until(retired, LIMIT, "empty shelves are deleted")


def test_each_item_is_handled_once_by_several_consumers(zk: zkr.Client, other: zkr.Client) -> None:
    """Absent failures, once each."""
    items = [f"{number}" for number in range(200)]
    seen: list[str] = []

    def consume(client: zkr.Client) -> None:
        queue = text_queue(client)
        while True:
            try:
                with queue.take(1.0) as claim:
                    seen.append(claim.item)
            except zkr.AcquireTimeoutError:
                return

    laters = [Later(partial(consume, client)) for client in (zk, other, zk, other)]
    producer = text_queue(zk, segment_size=30)
    for start in range(0, 200, 10):
        producer.put_many(items[start : start + 10])
    for later in laters:
        later.result()
    assert sorted(seen, key=int) == items


def test_a_consumer_does_not_hand_out_what_it_has_lost_meanwhile(zk: zkr.Client, zkr_server: Server) -> None:
    queue = text_queue(zk)
    queue.put_many(["a", "b", "c"])
    with queue.consume(prefetch=3) as consumer:
        first = next(consumer)
        zkr_server.expire(zk)
        wait_until(lambda: not first.valid, LIMIT, "the session is over")
        again = next(consumer)
        assert again.valid
        assert again.attempt == 2
        again.ack()


def test_what_a_consumer_has_not_handed_out_is_free_when_it_is_closed(zk: zkr.Client, other: zkr.Client) -> None:
    queue = text_queue(zk)
    queue.put_many(["a", "b", "c"])
    consumer = queue.consume(prefetch=3)
    first = next(consumer)
    consumer.close()
    assert list(consumer) == []
    assert drain(text_queue(other)) == ["b", "c"]
    first.ack()
