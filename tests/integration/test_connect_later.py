"""`connect(required=False)`: a client for services that can start while no server answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

import zkrecipes as zkr
import zkrecipes.aio as zkr_aio
from zkrecipes.testing import FaultProxy, Server, wait_until


@pytest.fixture
def cut_off(zkr_server: Server) -> Iterator[FaultProxy]:
    """A proxy that refuses every connection so far."""
    with FaultProxy(zkr_server.hosts) as proxy:
        proxy.refuse()
        yield proxy


def test_it_comes_back_without_a_server_and_connects_later(cut_off: FaultProxy) -> None:
    began = time.monotonic()
    with zkr.connect(cut_off.hosts, connect_timeout=0.3, required=False) as zk:
        assert 0.25 < time.monotonic() - began < 1.0
        assert zk.state is zkr.State.LOST
        assert not zk.health().ok
        with pytest.raises(zkr.UnavailableError, match="Check the servers"):
            zk.exists("/", timeout=0.1)
        cut_off.heal()
        assert zk.exists("/", timeout=5.0) is not None
        wait_until(lambda: zk.state is zkr.State.CONNECTED, 5.0, "connected")


def test_not_to_wait_at_all(cut_off: FaultProxy) -> None:
    began = time.monotonic()
    with zkr.connect(cut_off.hosts, connect_timeout=0, required=False) as zk:
        assert time.monotonic() - began < 0.5
        cut_off.heal()
        assert zkr.Lock(zk, "/connect-later").acquire(5.0).valid


def test_for_asyncio(cut_off: FaultProxy) -> None:
    async def main() -> None:
        async with zkr_aio.connect(cut_off.hosts, connect_timeout=0.1, required=False) as zk:
            assert zk.state is zkr.State.LOST
            cut_off.heal()
            assert await zk.exists("/", timeout=5.0) is not None

    asyncio.run(main())


def test_with_a_server_it_is_connected_at_once(zkr_server: Server) -> None:
    with zkr.connect(zkr_server.hosts, required=False) as zk:
        assert zk.state is zkr.State.CONNECTED


def test_it_must_be_required_or_not() -> None:
    with pytest.raises(TypeError, match="required must be True or False"):
        zkr.connect("127.0.0.1:1", required="no")  # type: ignore[arg-type]
