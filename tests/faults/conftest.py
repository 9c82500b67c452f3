"""A server with short ticks, so that sessions of two seconds are possible."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

import pytest

from zkrecipes.testing import FaultProxy, ZooKeeperServer

TICK = 0.2

_paths = itertools.count(1)


@pytest.fixture(scope="session")
def quick_server() -> Iterator[ZooKeeperServer]:
    with ZooKeeperServer(tick_time=TICK) as server:
        yield server


@pytest.fixture
def server(quick_server: ZooKeeperServer) -> ZooKeeperServer:
    """Whole again, whatever the test before has done to it."""
    if quick_server.paused:
        quick_server.resume()
    return quick_server.start()


@pytest.fixture
def proxy(server: ZooKeeperServer) -> Iterator[FaultProxy]:
    with FaultProxy(server) as proxy:
        yield proxy


@pytest.fixture
def path(request: pytest.FixtureRequest) -> str:
    """A lock's path that nobody else uses."""
    return f"/faults-{os.getpid()}-{next(_paths)}/lock"
