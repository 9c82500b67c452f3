"""Fixtures of the interop tests: a server, a client of each library, a path of the test's own."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

import pytest
from kazoo.client import KazooClient

import zkrecipes as zkr
from tests.interop.peer import CuratorPeer, missing
from zkrecipes.testing import Server

_PATHS = itertools.count(1)


@pytest.fixture
def zk(zkr_server: Server) -> Iterator[zkr.Client]:
    with zkr.connect(zkr_server.hosts, session_timeout=10.0) as client:
        yield client


@pytest.fixture
def kazoo(zkr_server: Server) -> Iterator[KazooClient]:
    """Stock kazoo: a peer in kazoo's layout, and the independent eye in the others."""
    client = KazooClient(zkr_server.hosts)
    client.start()
    yield client
    client.stop()
    client.close()


@pytest.fixture(scope="session")
def curator_here() -> None:
    """Curator can be run; the test is left out, with the reason, where it cannot."""
    reason = missing()
    if reason is not None:
        pytest.skip(reason)


@pytest.fixture(scope="session")
def curator(curator_here: None, zkr_server: Server) -> Iterator[CuratorPeer]:
    """One Java process for all tests of a run: it takes a second to start."""
    with CuratorPeer(zkr_server.hosts) as peer:
        yield peer


@pytest.fixture
def path(request: pytest.FixtureRequest) -> str:
    """A path that nobody else uses."""
    return f"/interop/{os.getpid()}/{request.node.name}-{next(_PATHS)}"
