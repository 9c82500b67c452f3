"""A queue as its operators see it: numbers, what is next, dead letters, redriven and purged."""

from __future__ import annotations

import asyncio
from typing import Final

import pytest

import zkrecipes as zkr
from zkrecipes import aio
from zkrecipes.testing import Server, wait_until

PATH: Final = "/queue"


class Undoable(Exception):  # noqa: N818 - no error of ours
    """Raised by work that cannot be done."""


def fail(queue: zkr.Queue[str], times: int) -> None:
    for _ in range(times):
        with pytest.raises(Undoable), queue.take(timeout=5.0):
            raise Undoable


@pytest.fixture
def zk(zkr_client: zkr.Client) -> zkr.Client:
    return zkr_client


def text_queue(zk: zkr.Client, max_attempts: int | None = None) -> zkr.Queue[str]:
    return zkr.Queue(zk, PATH, codec=zkr.TextCodec(), max_attempts=max_attempts, segment_size=3)


def test_a_queue_that_is_not_there_is_empty_and_is_not_made(zk: zkr.Client) -> None:
    queue = text_queue(zk)
    assert queue.stats() == zkr.QueueStats(0, 0, 0, 0, None)
    assert (queue.peek(5), queue.dead_letters(), queue.redrive(), queue.purge()) == ([], [], 0, 0)
    assert zk.exists(PATH) is None


def test_the_numbers_tell_what_waits_is_delayed_claimed_and_dead(zk: zkr.Client) -> None:
    queue = text_queue(zk, max_attempts=1)
    queue.put_many([f"item {number}" for number in range(8)])
    queue.put_many(["later", "much later"], delay=60.0)
    fail(queue, 1)
    with queue.take(timeout=5.0):
        stats = queue.stats()
    assert (stats.waiting, stats.delayed, stats.claimed, stats.dead) == (6, 2, 1, 1)
    assert stats.oldest_age is not None
    assert 0 <= stats.oldest_age < 60


def test_a_peek_shows_the_order_in_which_items_are_served_and_claims_none(zk: zkr.Client) -> None:
    queue = text_queue(zk)
    queue.put("due", delay=0.01)
    queue.put_many([f"item {number}" for number in range(5)])
    queue.put("urgent", priority=-7, headers={"trace": "1"})
    wait_until(lambda: len(queue.peek(9)) == 7, 5.0, "the delayed one is due")
    with queue.take(timeout=5.0):
        shown = queue.peek(4)
    assert [each.item for each in shown] == ["due", "item 0", "item 1", "item 2"]
    claims = [queue.take(timeout=5.0) for _ in range(6)]
    assert [claim.item for claim in claims] == ["due", *(f"item {number}" for number in range(5))]
    for claim in claims:
        claim.ack()


def test_a_dead_letter_keeps_its_error_and_is_put_back_as_if_never_attempted(zk: zkr.Client) -> None:
    queue = text_queue(zk, max_attempts=2)
    first = queue.put("first", priority=3, headers={"trace": "7"})
    fail(queue, 2)
    second = queue.put("second")
    fail(queue, 2)
    letters = queue.dead_letters()
    assert [(each.id, each.item, each.attempts, each.priority) for each in letters] == [
        (first, "first", 2, 3),
        (second, "second", 2, 0),
    ]
    assert letters[0].error.startswith("Undoable")
    assert letters[0].headers == {"trace": "7"}
    assert letters[0].dead_at is not None
    assert letters[0].dead_at >= letters[0].put_at
    assert queue.redrive([first]) == 1
    assert [each.id for each in queue.dead_letters()] == [second]
    with queue.take(timeout=5.0) as claim:
        assert (claim.id, claim.attempt, claim.priority, claim.headers) == (first, 1, 3, {"trace": "7"})
    assert queue.redrive() == 1
    assert queue.redrive() == 0
    with queue.take(timeout=5.0) as claim:
        assert (claim.id, claim.attempt) == (second, 1)


def test_ids_of_one_text_are_refused(zk: zkr.Client) -> None:
    with pytest.raises(TypeError):
        text_queue(zk).redrive("8f")


def test_a_purge_leaves_claims_and_dead_letters_alone(zk: zkr.Client) -> None:
    queue = text_queue(zk, max_attempts=1)
    queue.put_many([f"item {number}" for number in range(150)])
    queue.put("later", delay=60.0)
    fail(queue, 1)
    claim = queue.take(timeout=5.0)
    assert queue.purge() == 149
    stats = queue.stats()
    assert (stats.waiting, stats.delayed, stats.claimed, stats.dead) == (0, 0, 1, 1)
    assert claim.valid
    claim.ack()
    queue.put("after")
    with queue.take(timeout=5.0) as claim:
        assert claim.item == "after"


def test_what_is_not_ours_is_not_shown_and_not_touched(zk: zkr.Client) -> None:
    queue = text_queue(zk)
    queue.put("mine")
    foreign = f"{PATH}/lanes/80000000/s0000000000/somebody"
    zk.create(foreign, b"else")
    zk.create(f"{PATH}/lanes/nobody", b"")
    zk.create(f"{PATH}/dead/letter", b"")
    assert [each.item for each in queue.peek(5)] == ["mine"]
    assert queue.dead_letters() == []
    assert (queue.redrive(), queue.purge()) == (0, 1)
    assert zk.exists(foreign) is not None


def test_the_same_under_asyncio(zkr_server: Server, zkr_namespace: str) -> None:
    async def scenario() -> None:
        async with aio.connect(zkr_server.hosts, namespace=zkr_namespace) as client:
            queue = aio.Queue(client, PATH, codec=zkr.TextCodec(), max_attempts=1)
            await queue.put_many(["bad", "good"])
            with pytest.raises(Undoable):
                async with queue.take(timeout=5.0):
                    raise Undoable
            assert [each.item for each in await queue.dead_letters()] == ["bad"]
            assert await queue.redrive() == 1
            assert [each.item for each in await queue.peek(3)] == ["good", "bad"]
            assert (await queue.stats()).waiting == 2
            assert await queue.purge() == 2

    asyncio.run(scenario())
