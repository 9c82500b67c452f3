"""A client of about a page, for what a real client library does not let one do: share a session, or break the rules.

`RawClient` sends one request at a time, or several without waiting (`send`, `receive`), starts no thread and sends no
pings, so its session lives as long as its timeout after the last request.
"""

from __future__ import annotations

import itertools
import socket
import struct
from dataclasses import dataclass
from typing import Final, Self, final

from zkrecipes.errors import UnavailableError
from zkrecipes.testing.frames import EVENT_XID, OPERATIONS, FrameReader, parse_reply

__all__ = ["RawClient", "Reply", "create_payload", "delete_tree", "text"]

EPHEMERAL: Final = 1
SEQUENCE: Final = 2

_ANY_VERSION: Final = struct.pack(">i", -1)
_NOT_EMPTY: Final = -111
_NO_NODE: Final = -101

_CONNECT: Final = struct.Struct(">iqiq")
_WORLD: Final = struct.pack(">ii", 1, 31)  # one entry, all permissions


def text(value: str | bytes) -> bytes:
    """A string or buffer as ZooKeeper writes it: its length and its bytes."""
    data = value.encode() if isinstance(value, str) else value
    return struct.pack(">i", len(data)) + data


_OPEN_ACL: Final = _WORLD + text("world") + text("anyone")


@final
@dataclass(frozen=True, slots=True)
class Reply:
    """What the server answered.

    Attributes:
        xid: The number of the request.
        zxid: The newest transaction that the server had applied.
        error: 0, or ZooKeeper's error code.
        body: The bytes that follow the header.
    """

    xid: int
    zxid: int
    error: int
    body: bytes


@final
class RawClient:
    """One connection with one session.

    Args:
        address: Host and port.
        session_timeout: Asked of the server, in seconds.
        session: The id and password of a session to resume; a new session if None.
        limit: Seconds that any one answer may take.

    Attributes:
        session_id: 0 if the session to be resumed has expired.
        password: The session's password.
        session_timeout: What the server granted, in seconds.
        events: How many watch notifications have come.

    Raises:
        UnavailableError: There was no answer.
    """

    def __init__(
        self,
        address: tuple[str, int],
        *,
        session_timeout: float = 10.0,
        session: tuple[int, bytes] | None = None,
        limit: float = 5.0,
    ) -> None:
        self.events = 0
        self._address = address
        self._xids = itertools.count(1)
        self._reader = FrameReader()
        self._frames: list[bytes] = []
        asked_id, asked_password = session or (0, b"\0" * 16)
        milliseconds = int(session_timeout * 1000)
        try:
            self._socket = socket.create_connection(address, limit)
        except OSError as error:
            raise self._unavailable(error) from error
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._write(_CONNECT.pack(0, 0, milliseconds, asked_id) + text(asked_password) + b"\0")
            answer = self._frame()
        except OSError as error:
            self._socket.close()
            raise self._unavailable(error) from error
        _, granted, self.session_id, size = struct.unpack_from(">iiqi", answer, 4)
        self.session_timeout = granted / 1000
        self.password = answer[24 : 24 + size]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def client_id(self) -> tuple[int, bytes]:
        """The session's id and password."""
        return self.session_id, self.password

    def call(self, operation: str, payload: bytes = b"") -> Reply:
        """Send a request and wait for its reply.

        Raises:
            UnavailableError: The connection is gone, or the reply did not come in time.
        """
        xid = self.send(operation, payload)
        while True:
            reply = self.receive()
            if reply.xid == xid:
                return reply

    def send(self, operation: str, payload: bytes = b"") -> int:
        """Send a request, and return its number without waiting."""
        xid = -2 if operation == "ping" else next(self._xids)
        try:
            self._write(struct.pack(">ii", xid, OPERATIONS[operation]) + payload)
        except OSError as error:
            raise self._unavailable(error) from error
        return xid

    def receive(self) -> Reply:
        """Wait for the next reply; watch notifications are counted and passed over."""
        while True:
            try:
                frame = self._frame()
            except OSError as error:
                raise self._unavailable(error) from error
            xid, zxid, error_code = parse_reply(frame)
            if xid != EVENT_XID:
                return Reply(xid, zxid, error_code, frame[20:])
            self.events += 1

    def create(self, path: str, data: bytes = b"", flags: int = 0) -> Reply:
        """Create a node; `flags` is the sum of EPHEMERAL and SEQUENCE."""
        return self.call("create", create_payload(path, data, flags))

    def exists(self, path: str, *, watch: bool = False) -> bool:
        """Whether there is such a node."""
        return self.call("exists", text(path) + bytes([watch])).error == 0

    def close_session(self) -> None:
        """End the session on the server, and the connection with it.

        Raises:
            UnavailableError: The server did not confirm.
        """
        self.call("closeSession")
        self.close()

    def close(self) -> None:
        """Close the connection only: the session lives on until its timeout."""
        self._socket.close()

    def _write(self, body: bytes) -> None:
        self._socket.sendall(text(body))

    def _frame(self) -> bytes:
        while not self._frames:
            data = self._socket.recv(65536)
            if not data:
                message = "the connection was closed"
                raise ConnectionError(message)
            self._frames.extend(self._reader.feed(data))
        return self._frames.pop(0)

    def _unavailable(self, error: OSError) -> UnavailableError:
        return UnavailableError(f"{self._address[0]}:{self._address[1]} does not answer: {error}")


def end_session(address: tuple[str, int], session: tuple[int, bytes], limit: float = 1.0) -> bool:
    """Ask a server to end a session; whether it said that there is no such session (any more).

    Handshake and close travel in one write: a client that comes back as soon as its twin appears, and cuts it off,
    comes too late.

    Raises:
        UnavailableError: There was no answer.
    """
    session_id, password = session
    connect = _CONNECT.pack(0, 0, 10_000, session_id) + text(password) + b"\0"
    close = struct.pack(">ii", 1, OPERATIONS["closeSession"])
    reader, frames = FrameReader(), list[bytes]()
    try:
        with socket.create_connection(address, limit) as twin:
            twin.sendall(text(connect) + text(close))
            while len(frames) < 2 and (data := twin.recv(65536)):  # of the handshake and of the close
                frames.extend(reader.feed(data))
    except OSError as error:
        if not frames:
            message = f"{address[0]}:{address[1]} does not answer: {error}"
            raise UnavailableError(message) from error
    return bool(frames) and struct.unpack_from(">q", frames[0], 12)[0] == 0


def create_payload(path: str, data: bytes = b"", flags: int = 0) -> bytes:
    """The body of a create request for anybody to read and write."""
    return text(path) + text(data) + _OPEN_ACL + struct.pack(">i", flags)


def delete_tree(address: tuple[str, int], path: str) -> None:
    """Delete a node with all that is below it, whoever made it; fine if it is not there.

    Raises:
        UnavailableError: The server does not answer.
    """
    with RawClient(address) as client:
        _delete_below(client, path)
        client.close_session()


def _delete_below(client: RawClient, path: str) -> bool:
    """Whether it is gone; False if an ACL keeps us from listing or deleting it, or something below it."""
    while True:
        listing = client.call("getChildren", text(path) + b"\0")
        if listing.error:
            return listing.error == _NO_NODE
        if not all(_delete_below(client, f"{path}/{name}") for name in _names(listing.body)):
            return False
        # Somebody may still be writing there: list again until the delete finds it empty.
        error = client.call("delete", text(path) + _ANY_VERSION).error
        if error != _NOT_EMPTY:
            return error in {0, _NO_NODE}


def _names(body: bytes) -> list[str]:
    (count,) = struct.unpack_from(">i", body)
    names, at = [], 4
    for _ in range(count):
        (size,) = struct.unpack_from(">i", body, at)
        names.append(body[at + 4 : at + 4 + size].decode())
        at += 4 + size
    return names
