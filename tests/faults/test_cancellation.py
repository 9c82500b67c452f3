"""Waits cancelled at any moment, once and twice, by a task, a thread or the end of the loop: nothing is left."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
from collections.abc import Callable
from typing import Any

import pytest

import zkrecipes as zkr
import zkrecipes.aio
from tests.faults.contest import linger
from zkrecipes.runtime import monotonic
from zkrecipes.testing import FaultProxy, ZooKeeperServer, wait_until

ROUNDS = 80


def _children(zk: zkr.Client, path: str) -> list[str]:
    try:
        return zk.children(path)
    except zkr.NodeNotFoundError:
        return []


def _free(server: ZooKeeperServer, path: str) -> None:
    """Nothing is left, and somebody else can have it."""
    with zkr.connect(server.hosts) as outsider:
        wait_until(lambda: not _children(outsider, path), 2.0, lambda: f"left: {_children(outsider, path)}")
        linger(0.3)
        assert _children(outsider, path) == []


_KINDS: dict[str, Callable[[Any, str], Any]] = {
    "lock": lambda zk, path: zkrecipes.aio.Lock(zk, path).acquire(),
    "rlock": lambda zk, path: zkrecipes.aio.RLock(zk, path).acquire(),
    "handoff": lambda zk, path: zkrecipes.aio.Lock(zk, path, local_handoff=zkr.LocalHandoff()).acquire(),
    "election": lambda zk, path: zkrecipes.aio.Election(zk, path, data=b"here").campaign(),
}


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("kind", list(_KINDS))
def test_tasks_cancelled_at_any_moment(server: ZooKeeperServer, path: str, kind: str, times: int) -> None:
    """While it is created, listed, waited for, held and released, with a second task in line."""
    chance = random.Random(7)

    async def contend(zk: Any) -> None:
        async with _KINDS[kind](zk, path) as held:
            assert held.valid
            await asyncio.sleep(chance.uniform(0.0, 0.004))

    async def main() -> int:
        cancelled = 0
        async with zkrecipes.aio.connect(server.hosts, session_timeout=6.0) as zk:
            await contend(zk)
            for _ in range(ROUNDS):
                tasks = [asyncio.create_task(contend(zk)) for _ in range(2)]
                for _ in range(times):
                    await asyncio.sleep(chance.uniform(0.0, 0.006))
                    chance.choice(tasks).cancel()
                outcomes = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10.0)
                cancelled += sum(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
                assert all(outcome is None or isinstance(outcome, asyncio.CancelledError) for outcome in outcomes), (
                    outcomes
                )
            assert zk.core.session.holds == {}
            await asyncio.to_thread(_free, server, path)
        return cancelled

    assert asyncio.run(main()) >= ROUNDS / 8


def test_a_cancelled_wait_is_over_when_the_cancellation_is_told(server: ZooKeeperServer, path: str) -> None:
    async def main() -> None:
        async with zkrecipes.aio.connect(server.hosts) as zk, zkrecipes.aio.Lock(zk, path).acquire():
            lock = zkrecipes.aio.Lock(zk, path)
            for _ in range(20):
                task = asyncio.create_task(_await(lock.acquire()))
                while len(await lock.contenders()) < 2:
                    continue
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert len(await lock.contenders()) == 1

    asyncio.run(main())


def test_a_time_limit_of_asyncio_leaves_nothing(server: ZooKeeperServer, path: str) -> None:
    async def main() -> None:
        async with zkrecipes.aio.connect(server.hosts) as zk:
            lock = zkrecipes.aio.Lock(zk, path)
            for milliseconds in range(30):
                try:
                    async with asyncio.timeout(milliseconds / 5000):
                        async with lock:
                            await asyncio.sleep(0.001)
                except TimeoutError:
                    continue
            await asyncio.to_thread(_free, server, path)

    asyncio.run(main())


async def _await(opening: Any) -> Any:
    return await opening


def test_a_coroutine_that_is_collected_half_way_leaves_nothing(server: ZooKeeperServer, path: str) -> None:
    """The loop is given up with the wait still in it, as after a crash of the program's own code."""
    with zkr.connect(server.hosts) as outsider, zkr.Lock(outsider, path).acquire():
        loop = asyncio.new_event_loop()
        zk = loop.run_until_complete(_await(zkrecipes.aio.connect(server.hosts, session_timeout=6.0)))
        task = loop.create_task(_await(zkrecipes.aio.Lock(zk, path).acquire()))
        while len(_children(outsider, path)) < 2:
            loop.run_until_complete(asyncio.sleep(0.005))
        task.get_coro().close()  # what the collector does
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # the loop would complain of what we do
        del task
        gc.collect()
        wait_until(lambda: len(_children(outsider, path)) == 1, 2.0, lambda: str(_children(outsider, path)))
        loop.run_until_complete(zk.close())
        loop.close()


def test_waits_cancelled_from_another_thread_at_any_moment(server: ZooKeeperServer, path: str) -> None:
    chance = random.Random(11)
    with zkr.connect(server.hosts, session_timeout=6.0) as zk:
        lock = zkr.Lock(zk, path)
        lock.acquire().release()
        outcomes: list[str] = []

        def contend(cancel: zkr.Cancel) -> None:
            try:
                with lock.acquire(timeout=10.0, cancel=cancel):
                    outcomes.append("held")
            except zkr.CancelledError:
                outcomes.append("cancelled")

        for _ in range(ROUNDS):
            cancels = [zkr.Cancel() for _ in range(3)]
            threads = [threading.Thread(target=contend, args=(cancel,)) for cancel in cancels]
            for thread in threads:
                thread.start()
            linger(chance.uniform(0.0, 0.006))
            chance.choice(cancels).cancel()
            for thread in threads:
                thread.join(15.0)
                assert not thread.is_alive()
        assert outcomes.count("cancelled") >= ROUNDS / 8
        assert len(outcomes) == 3 * ROUNDS
        assert zk.core.session.holds == {}
        _free(server, path)


@pytest.mark.serial
def test_a_wait_cancelled_while_the_server_is_silent_ends_soon(
    proxy: FaultProxy, server: ZooKeeperServer, path: str
) -> None:
    """Within a second, and its node goes when the server is back."""
    with zkr.connect(proxy.hosts, session_timeout=6.0) as zk, zkr.connect(server.hosts) as holder:
        with zkr.Lock(holder, path).acquire():
            cancel, ended = zkr.Cancel(), list[float]()

            def contend() -> None:
                with pytest.raises(zkr.CancelledError):
                    zkr.Lock(zk, path).acquire(cancel=cancel)
                ended.append(monotonic())

            thread = threading.Thread(target=contend)
            thread.start()
            wait_until(lambda: len(_children(holder, path)) == 2)
            proxy.blackhole()
            began = monotonic()
            cancel.cancel()
            thread.join(10.0)
            assert ended[0] - began <= 1.2
            proxy.heal()
            wait_until(lambda: len(_children(holder, path)) == 1, 5.0)
        _free(server, path)


def test_closing_the_client_ends_every_wait(server: ZooKeeperServer, path: str) -> None:
    with zkr.connect(server.hosts) as holder, zkr.Lock(holder, path).acquire():
        zk = zkr.connect(server.hosts, session_timeout=6.0)
        errors: list[type[BaseException]] = []

        def wait(enter: Callable[[], object]) -> None:
            try:
                enter()
            except zkr.ZkRecipesError as error:
                errors.append(type(error))

        waits: list[Callable[[], object]] = [
            zkr.Lock(zk, path).acquire,
            zkr.RLock(zk, path).acquire,
            zkr.Lock(zk, path, local_handoff=zkr.LocalHandoff()).acquire,
            zkr.Lock(zk, path, local_handoff=zkr.LocalHandoff()).acquire,
            zkr.Election(zk, path, layout="selector").campaign,
        ]
        threads = [threading.Thread(target=wait, args=(enter,)) for enter in waits]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(_children(holder, path)) == 5, 5.0, lambda: str(_children(holder, path)))
        zk.close()
        for thread in threads:
            thread.join(5.0)
        assert errors == [zkr.ClosedError] * 5
        wait_until(lambda: len(_children(holder, path)) == 1)
