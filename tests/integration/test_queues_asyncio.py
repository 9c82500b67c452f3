"""What a queue promises on a real server, under asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import pytest

import zkrecipes as zkr
import zkrecipes.aio as zkr_aio

PATH: Final = "/queue"
LIMIT: Final = 20.0

Opened = zkr_aio.Opening[zkr_aio.Client]


def run(opening: Opened, main: Callable[[zkr_aio.Queue[str]], Awaitable[object]], **options: Any) -> None:
    async def begin() -> None:
        async with opening as zk:
            await main(zkr_aio.Queue(zk, PATH, codec=zkr.TextCodec(), **options))

    asyncio.run(begin())


def test_put_take_and_leave_the_block(zkr_async_client: Opened) -> None:
    async def main(queue: zkr_aio.Queue[str]) -> None:
        id_ = await queue.put("item", priority=3, headers={"a": "b"})
        async with queue.take(LIMIT) as claim:
            assert (claim.item, claim.id, claim.priority, claim.headers) == ("item", id_, 3, {"a": "b"})
        assert await queue.try_take() is None

    run(zkr_async_client, main)


def test_an_exception_gives_the_item_back(zkr_async_client: Opened) -> None:
    async def main(queue: zkr_aio.Queue[str]) -> None:
        await queue.put("item")
        with pytest.raises(ValueError, match="no number"):
            async with queue.take(LIMIT):
                int("no number")
        claim = await queue.take(LIMIT)
        assert claim.attempt == 2
        await claim.ack()

    run(zkr_async_client, main)


def test_take_many_and_acknowledge_together(zkr_async_client: Opened) -> None:
    async def main(queue: zkr_aio.Queue[str]) -> None:
        await queue.put_many(["a", "b", "c"])
        async with queue.take_many(2) as batch:
            assert [claim.item for claim in batch] == ["a", "b"]
        claim = await queue.take(LIMIT)
        assert claim.item == "c"
        await claim.nack()

    run(zkr_async_client, main)


def test_a_consumer_acknowledges_what_leaves_its_block(zkr_async_client: Opened) -> None:
    async def main(queue: zkr_aio.Queue[str]) -> None:
        await queue.put_many([f"{number}" for number in range(20)])
        items = []
        async with queue.consume(prefetch=6) as consumer:
            async for claim in consumer:
                async with claim:
                    items.append(claim.item)
                if len(items) == 15:
                    break
        assert items == [f"{number}" for number in range(15)]
        async with queue.take_many(10, LIMIT) as batch:
            assert [claim.item for claim in batch] == [f"{number}" for number in range(15, 20)]

    run(zkr_async_client, main)


def test_tasks_wait_for_items_and_one_that_is_cancelled_leaves_nothing(zkr_async_client: Opened) -> None:
    async def main(queue: zkr_aio.Queue[str]) -> None:
        async def take() -> str:
            async with queue.take(LIMIT) as claim:
                return claim.item

        cancelled = asyncio.ensure_future(take())
        others = [asyncio.ensure_future(take()) for _ in range(3)]
        await queue.try_take()
        cancelled.cancel()
        await asyncio.gather(cancelled, return_exceptions=True)
        assert cancelled.cancelled()
        await queue.put_many(["a", "b", "c"])
        assert sorted(await asyncio.gather(*others)) == ["a", "b", "c"]
        assert await queue.try_take() is None

    run(zkr_async_client, main)


def test_a_take_ends_by_its_timeout(zkr_async_client: Opened) -> None:
    async def main(queue: zkr_aio.Queue[str]) -> None:
        with pytest.raises(zkr.AcquireTimeoutError):
            await queue.take(0.2)

    run(zkr_async_client, main)
