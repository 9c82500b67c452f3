"""ZooKeeper's bytes on the wire, as far as the test kit reads them.

A frame is a length of four bytes and as many bytes. The first frame of a connection each way is the session's
handshake. After it a request begins with its number (xid) and operation, a reply with the xid that it answers, the
zxid and an error code. Numbers below zero are kept for what is no ordinary request.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from typing import Final, final

__all__ = ["EVENT_XID", "OPERATIONS", "FrameReader", "ReplyHeader", "matching", "operation_name", "parse_reply"]

OPERATIONS: Final = {
    "create": 1,
    "delete": 2,
    "exists": 3,
    "getData": 4,
    "setData": 5,
    "getACL": 6,
    "setACL": 7,
    "getChildren": 8,
    "sync": 9,
    "ping": 11,
    "getChildren2": 12,
    "check": 13,
    "multi": 14,
    "create2": 15,
    "reconfig": 16,
    "checkWatches": 17,
    "removeWatches": 18,
    "createContainer": 19,
    "deleteContainer": 20,
    "createTTL": 21,
    "multiRead": 22,
    "auth": 100,
    "setWatches": 101,
    "sasl": 102,
    "getEphemerals": 103,
    "getAllChildrenNumber": 104,
    "setWatches2": 105,
    "addWatch": 106,
    "whoAmI": 107,
    "closeSession": -11,
}
"""The number of each operation, by ZooKeeper's name for it."""

CONNECT: Final = "connect"
"""Our name for the handshake, which has no number."""

_CREATES: Final = frozenset({"create", "create2", "createContainer", "createTTL"})
_GROUPS: Final = {
    "any create": _CREATES,
    "any children": frozenset({"getChildren", "getChildren2"}),
    "any write": _CREATES | {"delete", "setData", "setACL", "multi", "reconfig"},
    "any": frozenset(OPERATIONS) - {"ping"},
}
_NAMES: Final = {number: name for name, number in OPERATIONS.items()}

EVENT_XID: Final = -1
"""The number under which the server tells that a watch has fired."""

# Four-letter words are sent without a frame; read as a length they are far over any limit.
_LONGEST: Final = 256 * 1024 * 1024

ReplyHeader = tuple[int, int, int]
"""xid, zxid, error code."""

_REPLY: Final = struct.Struct(">iqi")
_REQUEST: Final = struct.Struct(">ii")


def matching(operation: str | Collection[str]) -> frozenset[str]:
    """The names of operations that are meant.

    Args:
        operation: A name of `OPERATIONS`, "connect", one of the groups "any create", "any children", "any write" and
            "any" (all but pings), or several of these.

    Raises:
        ValueError: There is no such name.
    """
    names: set[str] = set()
    for name in [operation] if isinstance(operation, str) else operation:
        if name in _GROUPS:
            names |= _GROUPS[name]
        elif name in OPERATIONS or name == CONNECT:
            names.add(name)
        else:
            known = ", ".join([*_GROUPS, CONNECT, *OPERATIONS])
            message = f"there is no operation {name!r}; the names are {known}"
            raise ValueError(message)
    return frozenset(names)


def operation_name(number: int) -> str:
    """ZooKeeper's name for an operation; its number as text if it has none here."""
    return _NAMES.get(number, str(number))


def parse_request(frame: bytes) -> tuple[int, str]:
    """The xid and the operation's name of a whole frame that is not a handshake."""
    xid, number = _REQUEST.unpack_from(frame, 4)
    return xid, operation_name(number)


def parse_reply(frame: bytes) -> ReplyHeader:
    """The header of a whole frame that is not a handshake."""
    xid, zxid, error = _REPLY.unpack_from(frame, 4)
    return xid, zxid, error


@final
class FrameReader:
    """Cuts a stream of bytes into whole frames, the length included in each.

    A stream that is not made of frames (four-letter words, TLS) is passed on in the pieces in which it came, and
    `framed` becomes False.
    """

    def __init__(self, *, framed: bool = True) -> None:
        self.framed = framed
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The frames that `data` completes."""
        if not self.framed:
            yield data
            return
        rest = self._rest
        rest += data
        start = 0
        while len(rest) - start >= 4:
            size = int.from_bytes(rest[start : start + 4], "big", signed=True)
            if not 0 <= size <= _LONGEST:
                self.framed = False
                yield bytes(rest[start:])
                rest.clear()
                return
            end = start + 4 + size
            if len(rest) < end:
                break
            yield bytes(rest[start:end])
            start = end
        if start:
            del rest[:start]

    def remainder(self) -> bytes:
        """The bytes of a frame that was never completed, at the end of the stream."""
        return bytes(self._rest)
