"""Closing in every state: in time, and with nothing left behind."""

from __future__ import annotations

import contextlib
import os
import socket
import time

import pytest

from tests.integration.wire.link import close_in_time, descriptors, own, started
from zkrecipes.port import Create, Exists, Get, Kind
from zkrecipes.testing import FaultProxy, Server, wait_until


def test_closing_ends_the_session_at_once(zkr_server: Server, root: str) -> None:
    with started(zkr_server.hosts) as other:
        link = own(zkr_server.hosts)
        with link:
            link.ask(Create(f"{root}/mine", b"", Kind.EPHEMERAL))
        assert other.exists(f"{root}/mine") is None
        assert link.events.told[-1] == ("disconnected",)


def test_closing_while_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    before = descriptors()
    link = own(f"127.0.0.1:{port}")
    link.transport.start()
    wait_until(lambda: "refused the connection" in link.transport.last_error, 5.0, "the refusal")
    close_in_time(link)
    assert descriptors() == before


def test_closing_during_the_handshake(proxy: FaultProxy) -> None:
    proxy.blackhole()
    before = descriptors()
    link = own(proxy.hosts, session_timeout=60.0)
    link.transport.start()
    wait_until(lambda: link.transport.kazoo._connection._socket is not None, 5.0, "a connection")
    close_in_time(link)
    assert descriptors() == before


def test_closing_while_connecting() -> None:
    # A full backlog: the kernel answers no further connection, as a dead host would not.
    with socket.socket() as full, contextlib.ExitStack() as clients:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(3):
            client = clients.enter_context(socket.socket())
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                client.connect(full.getsockname())
        link = own(f"127.0.0.1:{full.getsockname()[1]}", session_timeout=60.0)
        link.transport.start()
        handler = link.transport._handler
        assert handler is not None
        wait_until(lambda: handler._attempt is not None, 5.0, "an attempt")
        close_in_time(link)


def test_closing_while_the_server_is_silent(proxy: FaultProxy) -> None:
    link = own(proxy.hosts)
    with link:
        proxy.blackhole()
        calls = link.send(Get("/"), Get("/"))
        close_in_time(link)
        assert [call.result() for call in calls] == ["dropped", "dropped"]


def test_closing_while_suspended(proxy: FaultProxy) -> None:
    link = own(proxy.hosts)
    with link:
        proxy.refuse()
        link.events.wait_for("disconnected")
        close_in_time(link)


def test_closing_what_was_never_started(zkr_server: Server) -> None:
    before = descriptors()
    close_in_time(own(zkr_server.hosts))
    assert descriptors() == before


def test_closing_on_the_public_api_is_bounded_too(proxy: FaultProxy) -> None:
    link = own(proxy.hosts, internals=False)
    with link:
        proxy.blackhole()
        (call,) = link.send(Get("/"))
        before = time.monotonic()
        link.transport.close(2.0)
        assert time.monotonic() - before < 2.3
        assert call.result() == "dropped"


def test_closing_in_a_forked_child_touches_nothing(zkr_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with own(zkr_server.hosts) as link:
        child = os.fork()
        if child == 0:
            link.transport.close(2.0)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert link.ask(Exists("/")) is not None
        assert len(link.events.all("connected")) == 1
