"""The same on an event loop: callbacks run on it, and files are left to other threads."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

import zkrecipes as zkr
import zkrecipes.aio as zkr_aio
from tests.integration.config.models import PATH, Settings, settings
from zkrecipes.testing import FaultProxy, wait_until

Opening = zkr_aio.Opening[zkr_aio.Client]


async def until(predicate: Any, limit: float = 10.0) -> None:
    await asyncio.to_thread(wait_until, predicate, limit, "it has happened")


def test_reload_and_releases(zkr_async_client: Opening, tmp_path: Path) -> None:
    cache = tmp_path / "cache"

    async def main() -> None:
        async with zkr_async_client as zk:
            config = zkr_aio.Config(zk, PATH, Settings, cache=cache)
            with pytest.raises(zkr.NodeNotFoundError):
                await config.start(5)
            await config.publish(settings(5), reason="first")
            told: list[tuple[int, threading.Thread]] = []
            config.on_change("database.pool_size")(lambda change: told.append((change.new, threading.current_thread())))
            async with config:
                assert config.current == settings(5)
                await config.publish(settings(9), expected=0)
                assert (await config.wait_for(lambda current: current.database.pool_size == 9, 5)) == settings(9)
                await until(lambda: told)
                assert told == [(9, threading.current_thread())]
                assert [each.reason for each in await config.history()] == ["", "first"]
                assert [each.path for each in await config.diff(0, 1)] == ["database.pool_size"]
                await config.rollback(0)
                await config.wait_for(lambda current: current.database.pool_size == 5, 5)
                with pytest.raises(zkr.ConflictError):
                    await config.publish(settings(1), expected=0)
                await config.publish(settings(3), canary=zkr.Canary(percent=100))
                await config.wait_for(lambda current: current.database.pool_size == 3, 5)
                assert (await config.status()).canary is not None
                await config.abort()
                await config.wait_for(lambda current: current.database.pool_size == 5, 5)
                await until(cache.exists)
            assert config.health().state == "closed"
            releases: zkr_aio.ConfigReleases[Any] = zkr_aio.ConfigReleases(zk, PATH)
            version, text = await releases.read()
            assert version == 2
            assert releases.masked(text)["database"]["password"] == "**********"
            assert (await releases.read(1))[1] != text
            await releases.publish("{}")

    asyncio.run(main())


def test_a_cancelled_start_leaves_nothing_and_may_be_repeated(zkr_proxy: FaultProxy, zkr_async_client: Opening) -> None:
    async def main() -> None:
        async with zkr_async_client as zk:
            await zk.create(PATH, b"{}", parents=True)
            config = zkr_aio.Config(zk, PATH, Settings)
            gate = zkr_proxy.hold_reply("any")
            task = asyncio.ensure_future(config.start(10))
            await asyncio.to_thread(gate.wait_held)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert config.health().state == "not started"
            gate.release()
            await config.start(10)
            assert config.version == 0
            await config.close()

    asyncio.run(main())


def test_the_wrong_client_is_refused(zkr_client: zkr.Client) -> None:
    with pytest.raises(TypeError, match="aio"):
        zkr_aio.Config(zkr_client, PATH, Settings)  # type: ignore[arg-type]
