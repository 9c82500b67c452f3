"""Servers for the tests of the kit itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from zkrecipes.errors import UnavailableError
from zkrecipes.testing import (
    FaultProxy,
    InstallationNotFoundError,
    RawClient,
    Server,
    ZooKeeperServer,
    find_installation,
)

Connect = Callable[..., RawClient]

SOON = 0.2  # seconds in which nothing must happen; on a loaded machine a fault could hide, never be invented


@pytest.fixture(scope="session")
def installed() -> None:
    """For tests that start a process of their own."""
    try:
        find_installation()
    except InstallationNotFoundError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def module_server(installed: None) -> Iterator[ZooKeeperServer]:
    with ZooKeeperServer() as server:
        yield server


@pytest.fixture
def server(module_server: ZooKeeperServer) -> ZooKeeperServer:
    """A local process; it runs, whatever the last test did to it."""
    if module_server.paused:
        module_server.resume()
    return module_server.start()


@pytest.fixture
def proxy(server: ZooKeeperServer) -> Iterator[FaultProxy]:
    with FaultProxy(server) as proxy:
        yield proxy


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Makes raw clients, and closes them afterwards."""
    clients: list[RawClient] = []

    def connect(
        where: Server | FaultProxy,
        *,
        session: tuple[int, bytes] | None = None,
        timeout: float = 30.0,
        limit: float = 20.0,
    ) -> RawClient:
        clients.append(RawClient((where.host, where.port), session=session, session_timeout=timeout, limit=limit))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


@pytest.fixture
def path() -> str:
    """A path that no other test uses: the server is shared."""
    return f"/proxy-{os.urandom(6).hex()}"


@pytest.fixture
def witness(server: ZooKeeperServer, connect: Connect) -> RawClient:
    """A client that is not behind the proxy."""
    return connect(server)


def comes_not(client: RawClient) -> None:
    """Nothing arrives for a while."""
    client._socket.settimeout(SOON)
    with pytest.raises(UnavailableError, match="timed out"):
        client.receive()
    client._socket.settimeout(20.0)


def is_cut(client: RawClient) -> None:
    """The client's connection is gone."""
    with pytest.raises(UnavailableError, match=r"reset|closed|refused|pipe"):
        client.exists("/")
