"""Fixtures of the tests of the transports."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

import pytest

from tests.integration.wire.link import KINDS, own_threads, started
from zkrecipes.testing import FaultProxy, Server, wait_until

_PATHS = itertools.count(1)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def root(zkr_server: Server, request: pytest.FixtureRequest) -> str:
    """A path of this test alone; it exists."""
    path = f"/wire-{os.getpid()}/{request.node.originalname}-{next(_PATHS)}"
    with started(zkr_server.hosts) as kazoo:
        kazoo.ensure_path(path)
    return path


@pytest.fixture
def proxy(zkr_server: Server) -> Iterator[FaultProxy]:
    with FaultProxy(zkr_server) as proxy:
        yield proxy


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """No thread and no descriptor of ours survives a test."""
    yield
    wait_until(lambda: not own_threads(), 5.0, lambda: f"threads left: {own_threads()}")
