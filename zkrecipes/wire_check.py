"""Whether kazoo's internals are as this package expects them.

Not by the version number: kazoo's own write and read paths are run once, on a socket pair, with a request, a refusal,
an absent node and events, and the bytes and calls that come out are compared. It takes about a millisecond, once a
process.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable
from functools import lru_cache
from types import SimpleNamespace
from typing import Any, Final

from kazoo.client import KazooClient

from zkrecipes.wire_events import listen, unlisten
from zkrecipes.wire_io import Handler
from zkrecipes.wire_socket import BufferedSocket, WakeUp

__all__ = ["supported_internals"]

logger = logging.getLogger("zkrecipes.wire")

_NEEDED: Final = ("_call", "_queue", "_pending", "_session_timeout", "chroot")
_NEEDED_OF_CONNECTION: Final = ("_socket", "_read_sock", "_write_sock", "_connection_routine", "_read_watch_event")

_NO_NODE: Final = -101


def supported_internals(kazoo: KazooClient) -> bool:
    """Whether requests can be made through the internals of this client."""
    connection = getattr(kazoo, "_connection", None)
    missing = [name for name in _NEEDED if not hasattr(kazoo, name)]
    missing += [name for name in _NEEDED_OF_CONNECTION if not hasattr(connection, name)]
    reason = f"missing: {', '.join(missing)}" if missing else _cached_difference(type(kazoo), type(connection))
    if reason:
        logger.warning(
            "This version of kazoo is new to zkrecipes (%s); its public API alone is used, which is slower", reason
        )
    return not reason


class _Probe:
    """A request in the shape of ours."""

    def __init__(self, path: str, type_: int = 0) -> None:
        self.path = path
        self.type = 0
        self.result: Any = "no answer"
        self._type_when_written = type_

    def serialize(self) -> bytes:
        self.type = self._type_when_written
        return b"body of " + self.path.encode()

    def deserialize(self, buffer: bytes, offset: int) -> bytes:
        return buffer[offset:]

    def set(self, value: Any = None) -> None:
        self.result = value

    def set_exception(self, error: BaseException) -> None:
        self.result = getattr(error, "code", error)


def _difference(client_class: Any, connection_class: Any) -> str:
    """What is different from what we expect; empty if nothing is."""
    near, far = socket.socketpair()
    near.settimeout(1.0)
    far.settimeout(1.0)
    wake = WakeUp()
    sock = BufferedSocket(near, ("probe", 0), time.monotonic, lambda _timeout: None, lambda _sock, _error: None)
    sock.handshaking = False
    with contextlib.closing(far), contextlib.closing(wake), contextlib.closing(sock):
        try:
            return _try_out(client_class, connection_class, sock, far, wake)
        except Exception as error:  # noqa: BLE001 - whatever an unknown version does, it is not what we expect
            return repr(error)


_cached_difference: Callable[[Any, Any], str] = lru_cache(maxsize=8)(_difference)


def _try_out(client_class: Any, connection_class: Any, sock: BufferedSocket, far: socket.socket, wake: WakeUp) -> str:
    theirs: list[Any] = []
    client = SimpleNamespace(
        _state="CONNECTED",
        _queue=deque(),
        _pending=deque(),
        _stopped=threading.Event(),
        _child_watchers=defaultdict(set),
        _data_watchers=defaultdict(set, {"/watched": {theirs.append}}),
        handler=Handler(10.0, time.monotonic),
        last_zxid=0,
        unchroot=lambda path: path,
    )
    connection = connection_class.__new__(connection_class)
    client._connection = connection  # noqa: SLF001
    vars(connection).update(
        client=client,
        handler=client.handler,
        logger=logging.getLogger("zkrecipes.kazoo"),
        ping_outstanding=threading.Event(),
        _socket=sock,
        _read_sock=wake,
        _write_sock=wake,
        _xid=0,
    )

    probes = [_Probe("/done"), _Probe("/refused"), _Probe("/absent", 3)]
    replies = [(0, b"answer"), (_NO_NODE, b""), (_NO_NODE, b"")]
    for number, (probe, (code, body)) in enumerate(zip(probes, replies, strict=True), start=1):
        client_class._call(client, probe, probe)  # noqa: SLF001
        if client.handler.select([sock, wake], [], [], 1.0)[0] != [wake]:
            return "the wake-up is not used as expected"
        connection._send_request(1.0, 1.0)  # noqa: SLF001
        sock.flush()
        if far.recv(1024) != _frame(struct.pack("!i", number) + probe.serialize()):
            return "requests are written differently"
        far.sendall(_frame(struct.pack("!iqi", number, 7, code) + body))
        connection._read_socket(1.0)  # noqa: SLF001
    if [probe.result for probe in probes] != [b"answer", _NO_NODE, None]:
        return "answers are read differently"
    if wake.ready() or client._pending or client._queue:  # noqa: SLF001
        return "requests are queued differently"
    return _try_events(client, far, theirs)


def _try_events(client: Any, far: socket.socket, theirs: list[Any]) -> str:
    ours: list[bytes] = []

    def note(buffer: bytes, offset: int) -> None:
        ours.append(buffer[offset:])

    event = struct.pack("!iii", 1, 3, len(b"/watched")) + b"/watched"
    for _ in range(3):
        listen(client, note)
        far.sendall(_frame(struct.pack("!iqi", -1, 0, 0) + event))
        client._connection._read_socket(1.0)  # noqa: SLF001
        unlisten(client, note)
    far.sendall(_frame(struct.pack("!iqi", -1, 0, 0) + event))
    client._connection._read_socket(1.0)  # noqa: SLF001
    if ours != [event] * 3:
        return "events are read differently"
    return "" if [event.path for event in theirs] == ["/watched"] else "watches are kept differently"


def _frame(content: bytes) -> bytes:
    return struct.pack("!i", len(content)) + content
