"""What is asked of a server, and what it answers: plain values. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import NamedTuple, final

__all__ = [
    "OPEN_ACL",
    "Acl",
    "AddWatch",
    "Check",
    "Children",
    "Code",
    "Create",
    "Created",
    "Delete",
    "Exists",
    "Get",
    "Kind",
    "Multi",
    "NodeEvent",
    "ReadMany",
    "Refused",
    "RemoveWatches",
    "Request",
    "Set",
    "Stat",
    "Sync",
    "WatchKind",
    "acl_tuple",
    "is_write",
]


class Kind(Enum):
    """What becomes of a node when its session or its children end."""

    PERSISTENT = "persistent"
    EPHEMERAL = "ephemeral"
    CONTAINER = "container"
    """Removed by the server some time after its last child; persistent where the server or the client cannot."""


@final
class Acl(NamedTuple):
    """One entry of an access control list.

    Attributes:
        perms: Sum of 1 read, 2 write, 4 create, 8 delete, 16 admin.
        scheme: "world", "auth", "digest", "sasl", "ip" or "x509".
        id: The identity in that scheme ("anyone" for world, "" for auth).
    """

    perms: int
    scheme: str
    id: str


ALL_PERMS = 31
OPEN_ACL: tuple[Acl, ...] = (Acl(31, "world", "anyone"),)


@final
class Stat(NamedTuple):
    """A node's metadata, in the server's order. Times are milliseconds since 1970 by the server's clock."""

    czxid: int
    mzxid: int
    ctime: int
    mtime: int
    version: int
    cversion: int
    aversion: int
    ephemeral_owner: int
    data_length: int
    children_count: int
    pzxid: int


@final
@dataclass(frozen=True, slots=True)
class Create:
    """Create a node. Answer: Created."""

    path: str
    data: bytes = b""
    kind: Kind = Kind.PERSISTENT
    sequential: bool = False
    acl: tuple[Acl, ...] = OPEN_ACL


@final
class Created(NamedTuple):
    """The answer of a create.

    Attributes:
        path: The full path, with its sequence number.
        stat: The new node's metadata; None for a container on a server that answers the old way.
    """

    path: str
    stat: Stat | None


@final
@dataclass(frozen=True, slots=True)
class Get:
    """Read a node. Answer: (data, Stat). A watch is set only if the node exists."""

    path: str
    watch: bool = False


@final
@dataclass(frozen=True, slots=True)
class Exists:
    """Read a node's metadata. Answer: Stat or None. A watch is set in both cases."""

    path: str
    watch: bool = False


@final
@dataclass(frozen=True, slots=True)
class Children:
    """List a node's children, in no order. Answer: list of names. A watch tells added and removed children."""

    path: str
    watch: bool = False


@final
@dataclass(frozen=True, slots=True)
class Set:
    """Replace a node's data if its version matches (-1: any). Answer: Stat."""

    path: str
    data: bytes
    version: int = -1


@final
@dataclass(frozen=True, slots=True)
class Delete:
    """Delete a node if its version matches (-1: any). Answer: None."""

    path: str
    version: int = -1


@final
@dataclass(frozen=True, slots=True)
class Check:
    """Only inside a Multi: the node exists and its version matches (-1: any). Answer: None."""

    path: str
    version: int = -1


@final
@dataclass(frozen=True, slots=True)
class Multi:
    """All or nothing. Answer: a tuple with the answer of each operation."""

    operations: tuple[Create | Set | Delete | Check, ...]


@final
@dataclass(frozen=True, slots=True)
class Sync:
    """Bring the connected server up to the leader. Answer: None."""

    path: str = "/"


@final
@dataclass(frozen=True, slots=True)
class ReadMany:
    """Several reads in one request, without watches. Answer: a tuple with the answer of each read, or Refused."""

    reads: tuple[Get | Children, ...]


@final
class Refused(NamedTuple):
    """In the answer of a ReadMany: this read was refused."""

    code: int


@final
@dataclass(frozen=True, slots=True)
class AddWatch:
    """Watch a node and everything below it, present or not, until the connection ends. Answer: None.

    Each created, deleted and changed node at or below the path is told; changed lists of children are not.
    """

    path: str


class WatchKind(IntEnum):
    """What RemoveWatches ends."""

    CHILDREN = 1
    DATA = 2
    ANY = 3


@final
@dataclass(frozen=True, slots=True)
class RemoveWatches:
    """End this session's watches on exactly this node. Answer: None; refused if there is none."""

    path: str
    kind: WatchKind


Request = Create | Get | Exists | Children | Set | Delete | Multi | Sync | ReadMany | AddWatch | RemoveWatches


class NodeEvent(IntEnum):
    """What a watch tells of a node."""

    CREATED = 1
    DELETED = 2
    CHANGED = 3
    CHILDREN = 4
    """Its list of children has changed."""


def is_write(request: Request) -> bool:
    """Whether an answer of this request took a zxid, which only a leader with its quorum gives."""
    return isinstance(request, Create | Set | Delete | Multi)


class Code(IntEnum):
    """The server's error codes that we tell apart; others are passed on as plain numbers."""

    UNIMPLEMENTED = -6
    BAD_ARGUMENTS = -8
    NO_NODE = -101
    NO_AUTH = -102
    BAD_VERSION = -103
    NO_CHILDREN_FOR_EPHEMERALS = -108
    NODE_EXISTS = -110
    NOT_EMPTY = -111
    SESSION_EXPIRED = -112
    INVALID_ACL = -114
    SESSION_MOVED = -118
    NOT_READ_ONLY = -119
    NO_WATCHER = -121
    QUOTA_EXCEEDED = -125
    THROTTLED = -127


def acl_tuple(acl: Sequence[Acl] | None) -> tuple[Acl, ...]:
    """Check an ACL given by the user; None is open to everybody.

    Raises:
        TypeError: An entry is no Acl.
        ValueError: It is empty, which would lock everybody out.
    """
    if acl is None:
        return OPEN_ACL
    entries = tuple(acl)
    for entry in entries:
        if not isinstance(entry, Acl):
            message = f"acl must be a sequence of zkrecipes.Acl, not one with a {type(entry).__name__}"
            raise TypeError(message)
        if not 1 <= entry.perms <= ALL_PERMS or not isinstance(entry.scheme, str) or not isinstance(entry.id, str):
            message = f"acl: perms must be from 1 to {ALL_PERMS} (all), scheme and id a str, in {entry!r}"
            raise ValueError(message)
    if not entries:
        message = "acl must not be empty: nobody could use the nodes; leave it out for an open ACL"
        raise ValueError(message)
    return entries
