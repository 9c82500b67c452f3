"""Listeners of asyncio: where their callbacks run, and what a cancelled wait leaves behind."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

import zkrecipes as zkr
import zkrecipes.aio as zkr_aio
from zkrecipes.testing import FaultProxy, Server, wait_until

LIMIT = 10.0


async def _until(predicate: Any) -> None:
    await asyncio.to_thread(wait_until, predicate, LIMIT)


def test_callbacks_run_on_the_loop(zkr_async_client: zkr_aio.Opening[zkr_aio.Client]) -> None:
    async def main() -> None:
        async with zkr_async_client as zk:
            await zk.create("/n", b"0")
            threads: set[int] = set()

            def note(*_: object) -> None:
                threads.add(threading.get_ident())

            nodes = zkr_aio.NodeListener(zk, "/n")
            nodes.on_created(note)
            nodes.on_initialized(note)
            nodes.on_changed(note)
            async with nodes:
                await zk.set("/n", b"1")
                await nodes.wait_for(lambda state: state["/n"].value == b"1", LIMIT)
                await _until(lambda: threads)
            assert threads == {threading.get_ident()}

    asyncio.run(main())


def test_a_wait_that_is_cancelled_loses_no_change(zkr_async_client: zkr_aio.Opening[zkr_aio.Client]) -> None:
    """Whether it is cancelled before the change comes, with it, or after it."""

    async def main() -> None:
        async with zkr_async_client as zk:
            await zk.create("/n", b"0")
            async with zkr_aio.NodeListener(zk, "/n") as nodes:
                changes = aiter(nodes)
                last = await anext(changes)
                number = cancelled = 0
                while number < 60 or not cancelled:
                    waiting = asyncio.ensure_future(anext(changes))
                    writing = asyncio.ensure_future(zk.set("/n", b"%d" % (number + 1)))
                    await asyncio.sleep(0.0001 * number)
                    waiting.cancel()
                    await writing
                    number += 1
                    try:
                        change = await waiting
                    except asyncio.CancelledError:
                        cancelled += 1
                        continue
                    assert change.old == last.new
                    last = change
                async with asyncio.timeout(LIMIT):
                    while last.new != b"%d" % number:
                        change = await anext(changes)
                        assert change.old == last.new
                        last = change

    asyncio.run(main())


def test_a_start_that_is_cancelled_leaves_nothing(zkr_proxy: FaultProxy, zkr_namespace: str) -> None:
    async def main() -> None:
        async with zkr_aio.connect(zkr_proxy.hosts, namespace=zkr_namespace) as zk:
            gate = zkr_proxy.hold_reply("addWatch")
            tree = zkr_aio.TreeListener(zk, "/t")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await tree.start()
            gate.release()
            assert tree.closed
            runtime: Any = zk.core.runtime
            await _until(lambda: not [name for name in runtime._tasks.names() if "mirror" in name])
            table = zk.core.session.watches
            assert not any((table._feeds, table._armed, table._waiting))
            with pytest.raises(zkr.ClosedError):
                await tree.start()

    asyncio.run(main())


def test_a_blocked_loop_delays_callbacks_alone(zkr_server: Server, zkr_namespace: str, zkr_client: zkr.Client) -> None:
    """What is known goes on being kept by the engine; afterwards the newest is told, merged."""

    def write() -> None:
        for number in range(1, 51):
            zkr_client.set("/n", b"%d" % number)

    async def main() -> None:
        async with zkr_aio.connect(zkr_server.hosts, namespace=zkr_namespace) as zk:
            await zk.create("/n", b"0")
            nodes = zkr_aio.NodeListener(zk, "/n")
            told: list[tuple[bytes | None, bytes | None]] = []
            nodes.on_changed(lambda change: told.append((change.old, change.new)))
            async with nodes:
                await _until(lambda: nodes.get("/n"))
                writing = threading.Thread(target=write)
                writing.start()
                writing.join(LIMIT)  # blocks the loop, and so does this:
                wait_until(lambda: getattr(nodes.get("/n"), "value", b"") == b"50", LIMIT, "it is kept all the same")
                assert told == []
                await _until(lambda: told and told[-1][1] == b"50")
                assert len(told) <= 2, "merged"
                assert told[0][0] == b"0"

    asyncio.run(main())


def test_many_listeners_and_iterations_at_once(zkr_async_client: zkr_aio.Opening[zkr_aio.Client]) -> None:
    async def follow(zk: zkr_aio.Client, number: int) -> list[bytes | None]:
        seen: list[bytes | None] = []
        async with zkr_aio.TreeListener(zk, "/t") as tree:
            async for change in tree:
                if change.path == "/t/n":
                    seen.append(change.new)
                if change.new == b"end":
                    return seen
        message = f"iteration {number} has ended too early"
        raise AssertionError(message)

    async def main() -> None:
        async with zkr_async_client as zk:
            await zk.create("/t")
            await zk.create("/t/n", b"0")
            tasks = [asyncio.ensure_future(follow(zk, number)) for number in range(30)]
            for number in range(1, 20):
                await zk.set("/t/n", b"%d" % number)
            await zk.set("/t/n", b"end")
            async with asyncio.timeout(LIMIT):
                all_seen = await asyncio.gather(*tasks)
            for seen in all_seen:
                numbers = [int(value) for value in seen[:-1] if value is not None]
                assert numbers == sorted(set(numbers))
                assert seen[-1] == b"end"

    asyncio.run(main())
