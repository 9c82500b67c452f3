"""What Topic and LatestTopic do on a real server, for asyncio. For threads: test_topics.py."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

import pytest

import zkrecipes as zkr
import zkrecipes.aio as zkr_aio
from zkrecipes.testing import Server

PATH = "/news/orders"
LIMIT = 20.0

Opening = zkr_aio.Opening[zkr_aio.Client]


def run(algorithm: Coroutine[Any, Any, None]) -> None:
    async def main() -> None:
        async with asyncio.timeout(3 * LIMIT):
            await algorithm

    asyncio.run(main())


async def publish(topic: zkr_aio.Topic, first: int, behind: int) -> list[zkr.Position]:
    return [await topic.publish(b"%d" % number) for number in range(first, behind)]


async def values(subscription: zkr_aio.Subscription, count: int) -> list[int]:
    return [int((await subscription.receive(LIMIT)).value) for _ in range(count)]


async def nothing_comes(subscription: zkr_aio.Subscription) -> bool:
    with pytest.raises(zkr.AcquireTimeoutError, match="no message came"):
        await subscription.receive(0.3)
    return True


async def wait_for(condition: Any) -> None:
    async with asyncio.timeout(LIMIT):
        while not await condition():  # noqa: ASYNC110 - it looks at the server
            await asyncio.sleep(0.01)


def test_messages_come_in_order_over_the_borders_of_segments(zkr_async_client: Opening) -> None:
    async def main() -> None:
        async with zkr_async_client as zk:
            topic = zkr_aio.Topic(zk, PATH, segment_size=3)
            async with topic.subscribe("audit") as audit:
                position = await topic.publish(b"0", key="k", headers={"a": "b"}, message_id="id")
                assert await topic.publish(b"0", message_id="id") == position
                message = await audit.receive(LIMIT)
                assert (message.key, message.headers, message.message_id) == ("k", {"a": "b"}, "id")
                await publish(topic, 1, 20)
                assert await values(audit, 19) == list(range(1, 20))
                for number in range(20, 30):
                    await topic.publish(b"%d" % number)
                    assert await values(audit, 1) == [number]
                assert await nothing_comes(audit)

    run(main())


def test_publishers_at_once_store_each_message_once(zkr_async_client: Opening) -> None:
    async def main() -> None:
        async with zkr_async_client as zk:
            topic = zkr_aio.Topic(zk, PATH, segment_size=50)
            async with topic.subscribe("audit") as audit:
                told = await asyncio.gather(*[topic.publish(b"%d" % number) for number in range(300)])
                expected = [number for _, number in sorted(zip(told, range(300), strict=True))]
                assert await values(audit, 300) == expected
                positions = await topic.publish_many([b"%d" % number for number in range(10)])
                assert await values(audit, 10) == list(range(10))
                assert [each.index for each in positions] == list(range(positions[0].index, positions[0].index + 10))

    run(main())


def test_an_iteration_acknowledges_and_goes_on_later(zkr_async_client: Opening) -> None:
    async def main() -> None:
        async with zkr_async_client as zk:
            topic = zkr_aio.Topic(zk, PATH, segment_size=3)
            await publish(topic, 0, 10)
            audit = await topic.subscribe("audit", start="earliest")
            async for message in audit:
                await message.ack()
                if message.value == b"5":
                    break
            await audit.receive(LIMIT)
            await audit.close()
            await audit.close()
            async with topic.subscribe("audit", ack_every=2) as audit:
                assert await values(audit, 4) == [6, 7, 8, 9]
                assert await nothing_comes(audit)
            async with topic.subscribe("audit") as audit:
                assert await nothing_comes(audit)

    run(main())


def test_close_ends_an_iteration_that_waits(zkr_async_client: Opening) -> None:
    async def main() -> None:
        async with zkr_async_client as zk:
            topic = zkr_aio.Topic(zk, PATH)
            audit = await topic.subscribe("audit")
            await publish(topic, 0, 1)
            seen: list[bytes] = []
            first = asyncio.Event()

            async def read() -> None:
                async for message in audit:
                    seen.append(message.value)
                    first.set()

            reading = asyncio.create_task(read())
            await first.wait()
            await audit.close()
            await reading
            assert seen == [b"0"]
            with pytest.raises(zkr.ClosedError):
                await audit.receive(0.1)

    run(main())


def test_a_receive_that_is_cancelled_loses_nothing(zkr_async_client: Opening) -> None:
    async def main() -> None:
        async with zkr_async_client as zk:
            topic = zkr_aio.Topic(zk, PATH)
            async with topic.subscribe("audit") as audit:
                seen: list[int] = []
                for number in range(40):
                    receiving = asyncio.create_task(audit.receive(LIMIT))
                    publishing = asyncio.create_task(topic.publish(b"%d" % number))
                    for _ in range(number):
                        await asyncio.sleep(0)
                    receiving.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        seen.append(int((await receiving).value))
                    await publishing
                seen += await values(audit, 40 - len(seen))
                assert seen == list(range(40))

    run(main())


def test_seek_and_pause(zkr_async_client: Opening) -> None:
    async def main() -> None:
        async with zkr_async_client as zk:
            topic = zkr_aio.Topic(zk, PATH, segment_size=3)
            positions = await publish(topic, 0, 10)
            async with topic.subscribe("audit", start=positions[4]) as audit:
                assert await values(audit, 2) == [4, 5]
                await audit.seek(positions[1])
                assert await values(audit, 1) == [1]
                audit.pause()
                assert await nothing_comes(audit)
                waiting = asyncio.create_task(audit.receive(LIMIT))
                await asyncio.sleep(0)
                audit.resume()
                assert (await waiting).value == b"2"
                message = await audit.receive(LIMIT)
                await audit.seek("latest")
                with pytest.raises(zkr.ClaimLostError):
                    await message.ack()
                assert await nothing_comes(audit)

    run(main())


def test_a_second_reader_stands_by(zkr_server: Server, zkr_namespace: str) -> None:
    async def main() -> None:
        async with (
            zkr_aio.connect(zkr_server.hosts, namespace=zkr_namespace) as one,
            zkr_aio.connect(zkr_server.hosts, namespace=zkr_namespace) as two,
        ):
            topic = zkr_aio.Topic(one, PATH)
            await publish(topic, 0, 5)
            audit = await topic.subscribe("audit", start="earliest")
            message = await audit.receive(LIMIT)
            with pytest.raises(zkr.SubscriptionBusyError):
                await zkr_aio.Topic(two, PATH).subscribe("audit", timeout=0.5)
            standing_by = asyncio.create_task(_opened(zkr_aio.Topic(two, PATH)))
            await message.ack()
            await audit.close()
            async with await standing_by as second:
                assert await values(second, 4) == [1, 2, 3, 4]

    run(main())


async def _opened(topic: zkr_aio.Topic) -> zkr_aio.Subscription:
    return await topic.subscribe("audit", timeout=LIMIT)


def test_a_subscribe_that_is_cancelled_leaves_its_place(zkr_server: Server, zkr_namespace: str) -> None:
    async def main() -> None:
        async with zkr_aio.connect(zkr_server.hosts, namespace=zkr_namespace) as zk:
            topic = zkr_aio.Topic(zk, PATH)
            audit = await topic.subscribe("audit")
            line = f"{PATH}/subs/audit/owner"
            waiting = asyncio.create_task(_opened(topic))

            async def two() -> bool:
                return len(await zk.children(line)) == 2

            async def one() -> bool:
                return len(await zk.children(line)) == 1

            await wait_for(two)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await wait_for(one)
            await audit.close()
            async with topic.subscribe("audit", timeout=LIMIT):
                pass

    run(main())


def test_gaps_are_raised_or_marked(zkr_async_client: Opening) -> None:
    async def main() -> None:
        async with zkr_async_client as zk:
            topic = zkr_aio.Topic(zk, PATH, segment_size=4, retention=zkr.Retention(keep_for_durable=False))
            positions = await publish(topic, 0, 10)
            raising = await topic.subscribe("raising", start="earliest")
            marking = await topic.subscribe("marking", start="earliest", on_gap="mark")
            assert await topic.trim(before=positions[7]) == positions[7]
            with pytest.raises(zkr.GapError) as caught:
                await raising.receive(LIMIT)
            assert (caught.value.first_missing, caught.value.resumed_at) == (positions[0], positions[7])
            assert await values(raising, 3) == [7, 8, 9]
            message = await marking.receive(LIMIT)
            assert (message.value, message.gap) == (b"7", (positions[0], positions[7]))
            assert (await marking.receive(LIMIT)).gap is None
            await raising.close()
            await marking.close()

    run(main())


def test_a_damaged_message_is_told_once_and_blocks_nothing(zkr_async_client: Opening) -> None:
    async def main() -> None:
        async with zkr_async_client as zk:
            topic = zkr_aio.Topic(zk, PATH)
            positions = await publish(topic, 0, 3)
            path = f"{PATH}/s0000000000/m-{positions[1].index:010d}"
            await zk.set(path, b"garbage")
            async with topic.subscribe("audit", start="earliest") as audit:
                assert await values(audit, 1) == [0]
                with pytest.raises(zkr.DecodeError) as caught:
                    await audit.receive(LIMIT)
                assert (caught.value.path, caught.value.raw) == (path, b"garbage")
                assert await values(audit, 1) == [2]

    run(main())


def test_who_reads_it_is_listed_and_told(zkr_async_client: Opening) -> None:
    async def main() -> None:
        async with zkr_async_client as zk:
            topic = zkr_aio.Topic(zk, PATH)
            joined: asyncio.Queue[zkr.Subscriber] = asyncio.Queue()
            left: asyncio.Queue[zkr.Subscriber] = asyncio.Queue()
            registrations = [await topic.on_join(joined.put_nowait), await topic.on_leave(left.put_nowait)]
            await publish(topic, 0, 3)
            async with topic.subscribe("audit", start="earliest"):
                assert (await joined.get()).name == "audit"
                (only,) = await topic.subscribers()
                assert (only.name, only.lag, only.durable) == ("audit", 3, True)
            assert (await left.get()).name == "audit"
            for registration in registrations:
                registration.cancel()

    run(main())


def test_the_newest_value_is_told_to_whoever_listens(zkr_async_client: Opening) -> None:
    async def main() -> None:
        async with zkr_async_client as zk:
            price = zkr_aio.LatestTopic(zk, PATH, codec=zkr.IntCodec())
            assert await price.latest() is None
            await price.publish(1)
            told: asyncio.Queue[int] = asyncio.Queue()
            listener = await price.subscribe(told.put_nowait)
            assert await told.get() == 1
            for number in range(2, 20):
                await price.publish(number)
            last = 1
            while last != 19:
                following = await told.get()
                assert following > last
                last = following
            await listener.close()
            assert await price.latest() == 19

    run(main())
