"""The port between the algorithms and a server: requests, answers, and what each side calls on the other.

    algorithms  ->  Session.call(request)  ->  Transport.send(call)         kazoo (wire.py) or the simulated ensemble
    algorithms  <-  the call is resolved   <-  Session.answered / refused / dropped / …

Pure data and protocols. Everything here happens under the client's step lock (`Runtime.lock`).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar, final

from zkrecipes.flow import Pending, Wait

if TYPE_CHECKING:
    from zkrecipes.calls import Call

__all__ = [
    "Acl",
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
    "Request",
    "Runtime",
    "Set",
    "Stat",
    "State",
    "Sync",
    "Transport",
    "TransportEvents",
    "is_write",
]

T = TypeVar("T")


class Kind(Enum):
    """What becomes of a node when its session or its children end."""

    PERSISTENT = "persistent"
    EPHEMERAL = "ephemeral"
    CONTAINER = "container"
    """Removed by the server some time after its last child; persistent where the server or the client cannot."""


@final
class State(Enum):
    """The state of a client's session."""

    CONNECTED = "connected"
    SUSPENDED = "suspended"
    """No server answers; what is held is still provable, but uncertain."""
    LOST = "lost"
    """Whatever was held is lost."""


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


Request = Create | Get | Exists | Children | Set | Delete | Multi | Sync


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
    QUOTA_EXCEEDED = -125
    THROTTLED = -127


class Transport(Protocol):
    """What a session needs of the thing that talks to servers. Called under the step lock; none of it blocks."""

    @property
    def servers(self) -> int:
        """How many servers there are to choose from."""
        ...

    @property
    def last_error(self) -> str:
        """Why there is no connection, for messages; empty if unknown."""
        ...

    def send(self, call: Call[Any]) -> None:
        """Hand over a request; called only while connected.

        At the moment of writing the transport asks `TransportEvents.may_write(call)`, and writes a harmless read in its
        place if it may not. It then calls exactly one of answered, refused and dropped, in the order of sending.
        """
        ...

    def reconnect(self) -> None:
        """Drop the connection and make a new one, the present server last."""
        ...


class TransportEvents(Protocol):
    """What a transport calls on the session, under the step lock."""

    def may_write(self, call: Call[Any]) -> bool:
        """Asked at the moment of writing. True: the request counts as written from now on."""
        ...

    def answered(self, call: Call[Any], result: Any) -> None:
        """The server has done it."""
        ...

    def refused(self, call: Call[Any], code: int, index: int = -1) -> None:
        """The server has refused it; `index` is the refused operation of a Multi."""
        ...

    def dropped(self, call: Call[Any]) -> None:
        """The connection ended before the answer came."""
        ...

    def connected(self, session_id: int, timeout: float, since: float | None) -> None:
        """A handshake was answered.

        Args:
            session_id: Of the session that the server gave us.
            timeout: The negotiated session timeout, in seconds.
            since: A time before the handshake was sent; None if unknown.
        """
        ...

    def disconnected(self) -> None:
        """The connection ended. Every call handed over before is dropped, before or after this."""
        ...

    def expired(self) -> None:
        """A server said that the session is over."""
        ...

    def failed(self, error: BaseException) -> None:
        """The transport has given up for good, as after refused credentials."""
        ...

    def watch_fired(self, path: str, *, children: bool) -> None:
        """A watch on a node (or on its children) fired: look again."""
        ...


class Runtime(Protocol):
    """What algorithms take from the world around them: time, chance, tasks. One a client."""

    @property
    def lock(self) -> AbstractContextManager[Any]:
        """The step lock; re-entrant."""
        ...

    def now(self) -> float:
        """Seconds, by a clock that runs on while the machine sleeps."""
        ...

    def unique(self) -> str:
        """A new GUID in lower case. Its version digit is 8, by which we tell our own nodes from other libraries'."""
        ...

    def random(self) -> float:
        """From 0.0 to 1.0."""
        ...

    def spawn(self, algorithm: Coroutine[Wait, None, T], name: str) -> Pending[T]:
        """Run an algorithm in the background, to its end, whatever happens to the caller."""
        ...

    def dispatch(self, key: object, callback: Callable[[], None]) -> None:
        """Run user code off the step lock; callbacks of one key run one after another, in order."""
        ...

    def forked(self) -> bool:
        """Whether this process is a fork of the one that made the client."""
        ...

    def owner(self) -> int:
        """The thread or task that is running now."""
        ...


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
