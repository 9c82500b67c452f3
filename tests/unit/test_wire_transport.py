"""The transport on kazoo's internals, with a kazoo that keeps what it is given."""

from __future__ import annotations

import struct
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from kazoo.exceptions import EXCEPTIONS, ConnectionClosedError, UnimplementedError

from zkrecipes.calls import Call
from zkrecipes.port import Create, Kind
from zkrecipes.runtime import ThreadRuntime
from zkrecipes.wire import KazooTransport
from zkrecipes.wire_codec import HARMLESS_READ
from zkrecipes.wire_io import Handler
from zkrecipes.wire_kazoo import open_kazoo


class Events:
    """Only what these tests need of a session."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []

    def __getattr__(self, name: str) -> Callable[..., bool]:
        def tell(*args: object) -> bool:
            self.told.append((name, *args))
            return True

        return tell


def unconnected() -> tuple[KazooTransport, Events, list[Any]]:
    """A transport whose kazoo keeps what it is given."""
    runtime, events = ThreadRuntime(), Events()
    handler = Handler(10.0, runtime.now)
    kazoo = open_kazoo("127.0.0.1:1", 10.0, handler)
    given: list[Any] = []
    kazoo._call = lambda request, _result: given.append(request)
    return KazooTransport(kazoo, events, runtime, handler), events, given  # type: ignore[arg-type]


def test_a_server_without_containers_gets_persistent_nodes() -> None:
    transport, events, given = unconnected()
    call: Call[Any] = Call(Create("/c", b"", Kind.CONTAINER), 0, 0.0)
    transport.send(call)
    assert given[0].serialize()[:4] == struct.pack("!i", 19)
    given[0].set_exception(UnimplementedError())
    assert given[1].serialize()[:4] == struct.pack("!i", 15)
    assert [entry[0] for entry in events.told] == ["may_write", "may_write"]
    transport.send(call)
    assert given[2].serialize()[:4] == struct.pack("!i", 15)
    given[2].set_exception(UnimplementedError())
    assert events.told[-1] == ("refused", call, -6)


def test_every_error_code_has_a_class() -> None:
    # kazoo's connection thread dies of one that has none.
    unconnected()
    assert [EXCEPTIONS[code]().code for code in range(-255, 1)] == list(range(-255, 1))


def test_an_answer_that_cannot_be_read_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    transport, events, given = unconnected()
    dropped: list[None] = []
    monkeypatch.setattr(Handler, "drop", lambda _self: dropped.append(None))
    call: Call[Any] = Call(Create("/a"), 0, 0.0)
    transport.send(call)
    given[0].set_exception(struct.error("too short"))
    given[0].set("again")
    assert events.told == [("dropped", call)]
    assert dropped == [None]


def test_a_session_that_fails_does_not_end_the_connection_thread(caplog: pytest.LogCaptureFixture) -> None:
    transport, events, given = unconnected()
    transport.send(Call(Create("/a"), 0, 0.0))

    def fail(*_args: object) -> bool:
        message = "a defect"
        raise RuntimeError(message)

    events.may_write = fail  # type: ignore[attr-defined]
    assert given[0].serialize()[:4] == struct.pack("!i", 3)
    events.dropped = fail  # type: ignore[attr-defined]
    given[0].set(None)
    assert caplog.text.count("a defect") == 2


def test_data_stays_out_of_kazoos_debug_log() -> None:
    transport, _, given = unconnected()
    transport.send(Call(Create("/a", b"secret"), 0, 0.0))
    assert str(given[0]) == "<Create /a>"


def test_a_call_that_kazoo_refuses_at_once_is_dropped_with_the_connection() -> None:
    # kazoo's thread has seen the end of the connection, and has not told it yet.
    transport, events, given = unconnected()
    transport._state_changed("CONNECTED")
    first: Call[Any] = Call(Create("/a"), 0, 0.0)
    second: Call[Any] = Call(Create("/b"), 0, 0.0)
    transport.send(first)
    transport.send(second)
    given[1].set_exception(ConnectionClosedError())
    assert [entry[0] for entry in events.told] == ["connected"]
    transport._state_changed("SUSPENDED")
    assert events.told[1:] == [("dropped", first), ("dropped", second), ("disconnected",)]
    assert given[0].serialize() == HARMLESS_READ


def test_a_server_counts_when_it_has_answered() -> None:
    transport, _, _ = unconnected()
    handler = transport._handler
    assert handler is not None
    for port, answers in ((1, True), (2, False), (1, True), (3, True)):
        handler.current = SimpleNamespace(address=("127.0.0.1", port))  # type: ignore[assignment]
        if answers:
            handler._handshaken(10.0)
    assert transport.servers == 2


def test_a_connection_is_told_once() -> None:
    # A borrowed client may be connected while we are looking at it.
    transport, events, _ = unconnected()
    transport._state_changed("CONNECTED")
    transport._state_changed("CONNECTED")
    transport._state_changed("SUSPENDED")
    transport._state_changed("SUSPENDED")
    assert [entry[0] for entry in events.told] == ["connected", "disconnected"]
