"""The port between the algorithms and a server: requests, answers, and what each side calls on the other.

    algorithms  ->  Session.call(request)  ->  Transport.send(call)         kazoo (wire.py) or the simulated ensemble
    algorithms  <-  the call is resolved   <-  Session.answered / refused / dropped / …

Protocols, and the values of requests.py, which are to be had from here. All of it happens under the client's step lock
(`Runtime.lock`).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, final

from zkrecipes.flow import Pending, Wait
from zkrecipes.requests import (
    OPEN_ACL,
    Acl,
    AddWatch,
    Check,
    Children,
    Code,
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
    WatchKind,
    acl_tuple,
    is_write,
)

if TYPE_CHECKING:
    from zkrecipes.calls import Call

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
    "Runtime",
    "Set",
    "Stat",
    "State",
    "Sync",
    "Transport",
    "TransportEvents",
    "WatchKind",
    "acl_tuple",
    "is_write",
]

T = TypeVar("T")


@final
class State(Enum):
    """The state of a client's session."""

    CONNECTED = "connected"
    SUSPENDED = "suspended"
    """No server answers; what is held is still provable, but uncertain."""
    LOST = "lost"
    """Whatever was held is lost."""


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

    def notified(self, path: str, event: NodeEvent) -> None:
        """A watch has told something of a node. Comes in order with the answers of the same connection."""
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

    def begin(self, algorithm: Coroutine[Wait, None, T], name: str) -> Pending[T]:
        """As `spawn`, but the first step is taken here and now, as a part of the caller's: no other thread has to wake.

        It must be called within a step.
        """
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
