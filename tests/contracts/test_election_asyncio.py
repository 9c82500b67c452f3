"""Elections whose work is a coroutine: it is cancelled in time, and never left before it has ended."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

import zkrecipes as zkr
import zkrecipes.aio as zkr_aio
from zkrecipes.testing import FaultProxy, Server, wait_until

PATH = "/office"


def _connect(hosts: str, namespace: str, session_timeout: float = 10.0) -> zkr_aio.Opening[zkr_aio.Client]:
    return zkr_aio.connect(hosts, namespace=namespace, session_timeout=session_timeout)


@pytest.mark.serial
def test_work_is_cancelled_before_the_lease_ends(zkr_proxy: FaultProxy, zkr_namespace: str) -> None:
    """Even work that ignores `should_stop`; and what it still does then, it does within the lease."""
    grace = 0.7
    cancelled_at: list[float] = []
    ended_at: list[float] = []

    async def work(leadership: zkr_aio.Leadership) -> None:
        zkr_proxy.blackhole()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled_at.append(leadership.remaining())
            await asyncio.sleep(0.05)  # the clean-up of the work itself
            ended_at.append(leadership.remaining())
            zkr_proxy.heal()

    async def main() -> None:
        async with _connect(zkr_proxy.hosts, zkr_namespace, 4.0) as zk:
            election = zkr_aio.Election(zk, PATH, on_suspended="keep_until_deadline", stop_grace=grace)
            await asyncio.wait_for(election.run(work, terms=1), 20.0)

    asyncio.run(main())
    assert 0 < cancelled_at[0] <= grace
    assert 0 < ended_at[0] < cancelled_at[0]


def test_cancelling_the_run_waits_for_the_work_and_then_gives_the_node_up(
    zkr_server: Server, zkr_namespace: str
) -> None:
    async def main() -> None:
        async with _connect(zkr_server.hosts, zkr_namespace) as zk, _connect(zkr_server.hosts, zkr_namespace) as other:
            leads, cleaning, may_end = asyncio.Event(), asyncio.Event(), asyncio.Event()

            async def work(_leadership: zkr_aio.Leadership) -> None:
                leads.set()
                try:
                    await asyncio.Event().wait()
                finally:
                    cleaning.set()
                    await may_end.wait()

            run = asyncio.create_task(zkr_aio.Election(zk, PATH).run(work))
            await asyncio.wait_for(leads.wait(), 5.0)
            run.cancel()
            await asyncio.wait_for(cleaning.wait(), 5.0)
            run.cancel()  # as often as one likes
            assert await zkr_aio.Election(other, PATH).try_campaign(0.3) is None, "the work has not ended"
            assert not run.done()
            may_end.set()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(run, 5.0)
            assert await zkr_aio.Election(other, PATH).try_campaign(5.0) is not None

    asyncio.run(main())


def test_a_blocked_loop_does_not_cost_the_lease(zkr_server: Server, zkr_namespace: str) -> None:
    """Blocked for longer than the session: the engine thread keeps the lease."""

    async def main() -> None:
        async with _connect(zkr_server.hosts, zkr_namespace, 2.0) as zk:
            election = zkr_aio.Election(zk, PATH, on_suspended="keep_until_deadline", stop_grace=0.1)
            async with election.campaign() as leadership:
                until = time.monotonic() + 3.0
                # Blocks the thread of the loop, and so the loop: nothing of it runs meanwhile.
                wait_until(lambda: time.monotonic() > until, 10.0)
                assert leadership.valid
                assert not leadership.should_stop.is_set()
            assert not leadership.lost.is_set()

    asyncio.run(main())


def test_the_exception_of_the_work_propagates(zkr_server: Server, zkr_namespace: str) -> None:
    async def work(_leadership: zkr_aio.Leadership) -> None:
        raise KeyError(PATH)

    async def main() -> None:
        async with _connect(zkr_server.hosts, zkr_namespace) as zk:
            election = zkr_aio.Election(zk, PATH)
            with pytest.raises(KeyError):
                await election.run(work)
            assert await election.participants() == []

    asyncio.run(main())


def test_work_that_cancels_itself_ends_the_run(zkr_server: Server, zkr_namespace: str) -> None:
    """Not taken for a term that ran out of time, which would begin the next."""
    terms = 0

    async def work(_leadership: zkr_aio.Leadership) -> None:
        nonlocal terms
        terms += 1
        raise asyncio.CancelledError

    async def main() -> None:
        async with _connect(zkr_server.hosts, zkr_namespace) as zk:
            election = zkr_aio.Election(zk, PATH)
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(election.run(work), 5.0)
            assert await election.participants() == []

    asyncio.run(main())
    assert terms == 1


def test_observers_with_async_for(zkr_server: Server, zkr_namespace: str) -> None:
    async def main() -> list[str | None]:
        seen: list[str | None] = []
        async with _connect(zkr_server.hosts, zkr_namespace) as zk:
            election = zkr_aio.Election(zk, PATH, identity="one")
            async with election.observe() as leaders:
                async for leader in leaders:
                    seen.append(None if leader is None else leader.identity)
                    if leader is None and len(seen) == 1:
                        leadership = await election.campaign(5.0)
                    elif leader is not None:
                        await leadership.resign()
                    else:
                        leaders.close()
        return seen

    assert asyncio.run(asyncio.wait_for(main(), 20.0)) == [None, "one", None]


def test_an_observer_can_be_cancelled_and_asked_again(zkr_server: Server, zkr_namespace: str) -> None:
    async def main() -> None:
        async with _connect(zkr_server.hosts, zkr_namespace) as zk:
            election = zkr_aio.Election(zk, PATH)
            leaders = election.observe()
            assert await anext(leaders) is None
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(leaders), 0.2)
            leadership = await election.campaign(5.0)
            leader = await asyncio.wait_for(anext(leaders), 5.0)
            assert leader is not None
            assert leader.token == leadership.token
            assert isinstance(leader, zkr.Contender)

    asyncio.run(main())


def test_work_that_is_no_coroutine_is_refused_and_leaves_nothing(zkr_server: Server, zkr_namespace: str) -> None:
    def raises(_leadership: object) -> None:
        raise KeyError(PATH)

    async def main() -> None:
        async with _connect(zkr_server.hosts, zkr_namespace) as zk:
            election: Any = zkr_aio.Election(zk, PATH)
            with pytest.raises(TypeError):
                await election.run(lambda _: None)
            assert await election.participants() == []
            with pytest.raises(KeyError):
                await election.run(raises)
            assert await election.participants() == []

    asyncio.run(main())
