"""Requests and answers as bytes: the part of ZooKeeper's protocol that this package speaks. Pure.

`encode` gives the operation code and the body of a request, `decoder` the function that reads its answer. The frame
around them (length, xid, reply header) is kazoo's.

Source: zookeeper.jute, WatcherEvent and MultiOperationRecord / MultiResponse of Apache ZooKeeper 3.5 to 3.9.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, cast, final

from zkrecipes.port import (
    Acl,
    AddWatch,
    Check,
    Children,
    Create,
    Created,
    Delete,
    Exists,
    Get,
    Kind,
    Multi,
    NodeEvent,
    ReadMany,
    Refused,
    RemoveWatches,
    Request,
    Set,
    Stat,
    Sync,
)

__all__ = ["HARMLESS_READ", "Decoder", "MultiRefused", "Opcode", "decoder", "encode", "find_refused", "read_event"]

Decoder = Callable[[bytes, int, str], Any]
"""Reads an answer from a frame, at an offset; the last argument is the chroot to be taken off paths."""


class Opcode:
    """The operation codes used here."""

    DELETE: Final = 2
    EXISTS: Final = 3
    GET: Final = 4
    SET: Final = 5
    CHILDREN: Final = 8
    SYNC: Final = 9
    CHECK: Final = 13
    MULTI: Final = 14
    CREATE: Final = 1
    CREATE2: Final = 15
    REMOVE_WATCHES: Final = 18
    CREATE_CONTAINER: Final = 19
    MULTI_READ: Final = 22
    ADD_WATCH: Final = 106
    ERROR: Final = -1


@final
@dataclass(frozen=True, slots=True)
class MultiRefused:
    """The answer of a Multi that was not applied.

    Attributes:
        code: The error code of the refused operation.
        index: Its position.
    """

    code: int
    index: int


_INT: Final = struct.Struct("!i")
_MULTI_HEADER: Final = struct.Struct("!iBi")
_STAT: Final = struct.Struct("!qqqqiiiqiiq")
_MULTI_END: Final = _MULTI_HEADER.pack(-1, 1, -1)

# An operation of a failed Multi that was not at fault itself has one of these two codes.
_OK: Final = 0
_RUNTIME_INCONSISTENCY: Final = -2

_FLAG_EPHEMERAL: Final = 1
_FLAG_SEQUENTIAL: Final = 2
_FLAG_CONTAINER: Final = 4

_MODE_PERSISTENT_RECURSIVE: Final = 1


# --- requests ---------------------------------------------------------------------------------------------------------


def encode(request: Request, root: str = "", *, containers: bool = True) -> bytes:
    """The operation code and body of a request.

    Args:
        request: The request.
        root: The chroot to be put before every path; empty for none.
        containers: Whether the server knows container nodes; persistent ones are made otherwise.

    Raises:
        UnicodeEncodeError: A path cannot be written as UTF-8.
    """
    if isinstance(request, Multi):
        return _several(Opcode.MULTI, request.operations, root, containers=containers)
    if isinstance(request, ReadMany):
        return _several(Opcode.MULTI_READ, request.reads, root, containers=containers)
    opcode, body = _operation(request, root, containers=containers)
    return _INT.pack(opcode) + body


_Operation = Create | Get | Exists | Children | Set | Delete | Check | Sync | AddWatch | RemoveWatches


def _several(opcode: int, operations: Sequence[_Operation], root: str, *, containers: bool) -> bytes:
    parts = [_INT.pack(opcode)]
    for operation in operations:
        kind, body = _operation(operation, root, containers=containers)
        parts += (_MULTI_HEADER.pack(kind, 0, -1), body)
    parts.append(_MULTI_END)
    return b"".join(parts)


def _operation(request: _Operation, root: str, *, containers: bool) -> tuple[int, bytes]:
    path = _text(_rooted(request.path, root))
    match request:
        case Create():
            return _create(request, path, containers=containers)
        case Get() | Exists() | Children():
            return _READS[type(request)], path + bytes((request.watch,))
        case Set():
            return Opcode.SET, path + _INT.pack(len(request.data)) + request.data + _INT.pack(request.version)
        case Delete():
            return Opcode.DELETE, path + _INT.pack(request.version)
        case Check():
            return Opcode.CHECK, path + _INT.pack(request.version)
        case Sync():
            return Opcode.SYNC, path
        case AddWatch():
            return Opcode.ADD_WATCH, path + _INT.pack(_MODE_PERSISTENT_RECURSIVE)
        case RemoveWatches():
            return Opcode.REMOVE_WATCHES, path + _INT.pack(request.kind)


_READS: Final = {Get: Opcode.GET, Exists: Opcode.EXISTS, Children: Opcode.CHILDREN}


def _create(request: Create, path: bytes, *, containers: bool) -> tuple[int, bytes]:
    opcode = Opcode.CREATE2
    flags = _FLAG_SEQUENTIAL if request.sequential else 0
    if request.kind is Kind.EPHEMERAL:
        flags |= _FLAG_EPHEMERAL
    elif request.kind is Kind.CONTAINER and containers and not request.sequential:
        # The protocol has no sequential containers.
        opcode, flags = Opcode.CREATE_CONTAINER, _FLAG_CONTAINER
    return opcode, path + _INT.pack(len(request.data)) + request.data + _acl(request.acl) + _INT.pack(flags)


def _rooted(path: str, root: str) -> str:
    if not root:
        return path
    return root if path == "/" else root + path


def _text(value: str) -> bytes:
    encoded = value.encode()
    return _INT.pack(len(encoded)) + encoded


@lru_cache(maxsize=256)
def _acl(acl: tuple[Acl, ...]) -> bytes:
    return _INT.pack(len(acl)) + b"".join(
        _INT.pack(entry.perms) + _text(entry.scheme) + _text(entry.id) for entry in acl
    )


HARMLESS_READ: Final = encode(Exists("/"))
"""Written in the place of a request that must not be written any more."""


# --- answers ----------------------------------------------------------------------------------------------------------


def decoder(request: Request) -> Decoder:
    """The function that reads the answer of a request."""
    return _DECODERS[type(request)]


def _read_text(buffer: bytes, offset: int) -> tuple[str, int]:
    start = offset + 4
    end = start + _INT.unpack_from(buffer, offset)[0]
    return buffer[start:end].decode(), end


def _read_stat(buffer: bytes, offset: int, _root: str = "") -> Stat:
    return Stat._make(_STAT.unpack_from(buffer, offset))


def _read_created(buffer: bytes, offset: int, root: str) -> Created:
    path, offset = _read_text(buffer, offset)
    stat = _read_stat(buffer, offset) if len(buffer) >= offset + _STAT.size else None
    return Created(_unrooted(path, root), stat)


def _unrooted(path: str, root: str) -> str:
    return (path[len(root) :] or "/") if root else path


def _read_data(buffer: bytes, offset: int, _root: str) -> tuple[bytes, Stat]:
    length = _INT.unpack_from(buffer, offset)[0]
    start = offset + 4
    end = start + max(0, length)  # -1 stands for no data at all
    return buffer[start:end], _read_stat(buffer, end)


def _read_children(buffer: bytes, offset: int, _root: str) -> list[str]:
    return _read_names(buffer, offset)[0]


def _read_names(buffer: bytes, offset: int) -> tuple[list[str], int]:
    unpack = _INT.unpack_from
    count = unpack(buffer, offset)[0]
    offset += 4
    names = []
    for _ in range(count):
        start = offset + 4
        offset = start + unpack(buffer, offset)[0]
        names.append(buffer[start:offset].decode())
    return names, offset


def _read_nothing(_buffer: bytes, _offset: int, _root: str) -> None:
    return None


def _read_multi(buffer: bytes, offset: int, root: str) -> tuple[Any, ...] | MultiRefused:
    results: list[Any] = []
    errors: list[int] = []
    while True:
        opcode, done, _ = _MULTI_HEADER.unpack_from(buffer, offset)
        offset += _MULTI_HEADER.size
        if done:
            break
        match opcode:
            case Opcode.ERROR:
                errors.append(_INT.unpack_from(buffer, offset)[0])
                offset += 4
            case Opcode.SET:
                results.append(_read_stat(buffer, offset))
                offset += _STAT.size
            case Opcode.CREATE2 | Opcode.CREATE_CONTAINER:
                path, offset = _read_text(buffer, offset)
                results.append(Created(_unrooted(path, root), _read_stat(buffer, offset)))
                offset += _STAT.size
            case Opcode.CREATE:
                path, offset = _read_text(buffer, offset)
                results.append(Created(_unrooted(path, root), None))
            case Opcode.DELETE | Opcode.CHECK:
                results.append(None)
            case _:
                message = f"the answer of a transaction holds the unknown operation {opcode}"
                raise ValueError(message)
    return find_refused(errors) if errors else tuple(results)


def _read_many(buffer: bytes, offset: int, root: str) -> tuple[tuple[bytes, Stat] | list[str] | Refused, ...]:
    results: list[tuple[bytes, Stat] | list[str] | Refused] = []
    while True:
        opcode, done, _ = _MULTI_HEADER.unpack_from(buffer, offset)
        offset += _MULTI_HEADER.size
        if done:
            return tuple(results)
        match opcode:
            case Opcode.ERROR:
                results.append(Refused(_INT.unpack_from(buffer, offset)[0]))
                offset += _INT.size
            case Opcode.GET:
                data, stat = _read_data(buffer, offset, root)
                results.append((data, stat))
                offset += _INT.size + len(data) + _STAT.size
            case Opcode.CHILDREN:
                names, offset = _read_names(buffer, offset)
                results.append(names)
            case _:
                message = f"the answer of several reads holds the unknown operation {opcode}"
                raise ValueError(message)


def read_event(buffer: bytes, offset: int, root: str) -> tuple[str, NodeEvent] | None:
    """What a watch tells, and of which node; None if that is not below the chroot, or no event of a node."""
    number = _INT.unpack_from(buffer, offset)[0]
    path, _ = _read_text(buffer, offset + 2 * _INT.size)  # between them: the state of the connection
    if number not in _EVENTS or (root and path != root and not path.startswith(f"{root}/")):
        return None
    return _unrooted(path, root), NodeEvent(number)


_EVENTS: Final = frozenset(NodeEvent)


def find_refused(codes: Sequence[int]) -> MultiRefused:
    """Which of the operations of a failed Multi was at fault, from the error codes of all of them."""
    for index, code in enumerate(codes):
        if code not in (_OK, _RUNTIME_INCONSISTENCY):
            return MultiRefused(code, index)
    return MultiRefused(_RUNTIME_INCONSISTENCY, -1)


_DECODERS: Final = cast(
    "dict[type, Decoder]",
    {
        Create: _read_created,
        Get: _read_data,
        Exists: _read_stat,
        Children: _read_children,
        Set: _read_stat,
        Delete: _read_nothing,
        Multi: _read_multi,
        Sync: _read_nothing,
        ReadMany: _read_many,
        AddWatch: _read_nothing,
        RemoveWatches: _read_nothing,
    },
)
