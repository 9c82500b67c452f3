"""The same transport on kazoo's public API alone: for a kazoo whose internals have changed.

What it cannot do: withdraw a request (it is asked for at submission, not on the verge of writing), make containers
(persistent nodes instead), try a silent server last. It is slower. Answers come by way of kazoo's completion thread.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final, final

from kazoo.client import KazooClient
from kazoo.exceptions import ZookeeperError
from kazoo.protocol.states import EventType, KeeperState
from kazoo.security import ACL, Id

from zkrecipes.calls import Call
from zkrecipes.port import (
    Acl,
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
    Set,
    Stat,
    Sync,
    TransportEvents,
)
from zkrecipes.runtime import ThreadRuntime
from zkrecipes.wire_codec import MultiRefused, find_refused
from zkrecipes.wire_kazoo import QUEUE_LIMIT, KazooLink

__all__ = ["NO_ANSWER", "PublicTransport"]

logger = logging.getLogger("zkrecipes.wire")

NO_ANSWER: Final = frozenset({-4, -7, -112, -115, -122})
"""Connection loss, operation time-out, session expired, authentication failed, request time-out: these codes say that
nobody knows whether it was done, or that it never was sent."""

_EVENTS: Final = {
    EventType.CREATED: NodeEvent.CREATED,
    EventType.DELETED: NodeEvent.DELETED,
    EventType.CHANGED: NodeEvent.CHANGED,
    EventType.CHILD: NodeEvent.CHILDREN,
}


class _Flight:
    """One request on its way, and what is to be told of it; without a call, an event in its place between answers."""

    __slots__ = ("call", "tell")

    def __init__(self, call: Call[Any] | None, tell: Callable[[], None] | None = None) -> None:
        self.call = call
        self.tell = tell


@final
class PublicTransport(KazooLink):
    """A session's transport on any KazooClient. Arguments: see KazooLink."""

    def __init__(
        self,
        kazoo: KazooClient,
        events: TransportEvents,
        runtime: ThreadRuntime,
        *,
        borrowed: bool = False,
    ) -> None:
        super().__init__(kazoo, events, runtime, borrowed=borrowed)
        self._flights: deque[_Flight] = deque()

    def send(self, call: Call[Any]) -> None:
        """Hand a request to kazoo."""
        flight = _Flight(call)
        self._flights.append(flight)
        crowded = self._borrowed and len(getattr(self.kazoo, "_queue", ())) >= QUEUE_LIMIT
        if crowded or self.kazoo.client_state != KeeperState.CONNECTED or not self._events.may_write(call):
            flight.tell = lambda: self._events.dropped(call)
            self._deliver()
            return
        submitted = self._submit(call)
        if submitted is None:
            flight.tell = lambda: self._events.refused(call, Code.UNIMPLEMENTED)
            self._deliver()
        else:
            submitted.rawlink(lambda result: self._completed(flight, result))

    def _submit(self, call: Call[Any]) -> Any:
        kazoo, request = self.kazoo, call.request
        match request:
            case Create():
                return kazoo.create_async(
                    request.path,
                    request.data,
                    acl=_acls(request.acl),
                    ephemeral=request.kind is Kind.EPHEMERAL,
                    sequence=request.sequential,
                    include_data=True,
                )
            case Get():
                return kazoo.get_async(request.path, watch=self._data_fired if request.watch else None)
            case Exists():
                return kazoo.exists_async(request.path, watch=self._data_fired if request.watch else None)
            case Children():
                return kazoo.get_children_async(request.path, watch=self._children_fired if request.watch else None)
            case Set():
                return kazoo.set_async(request.path, request.data, request.version)
            case Delete():
                return kazoo.delete_async(request.path, request.version)
            case Sync():
                return kazoo.sync_async(request.path)
            case Multi():
                return self._transaction(request).commit_async()
            case _:
                # kazoo's public API has neither reads of many nodes nor persistent watches; single ones are used.
                return None

    def _transaction(self, request: Multi) -> Any:
        transaction = self.kazoo.transaction()
        for operation in request.operations:
            match operation:
                case Create():
                    transaction.create(
                        operation.path,
                        operation.data,
                        acl=_acls(operation.acl),
                        ephemeral=operation.kind is Kind.EPHEMERAL,
                        sequence=operation.sequential,
                    )
                case Set():
                    transaction.set_data(operation.path, operation.data, operation.version)
                case Delete():
                    transaction.delete(operation.path, operation.version)
                case _:
                    transaction.check(operation.path, operation.version)
        return transaction

    # --- on kazoo's completion thread -------------------------------------------------------------------------------

    def _completed(self, flight: _Flight, result: Any) -> None:
        call, events = flight.call, self._events
        error = result.exception
        with self._lock:
            if flight.tell is not None or call is None:
                return
            if error is None:
                value = _value(call, result.value)
                if isinstance(value, MultiRefused):
                    flight.tell = lambda: events.refused(call, value.code, value.index)
                else:
                    flight.tell = lambda: events.answered(call, value)
            elif isinstance(error, ZookeeperError) and error.code not in NO_ANSWER:
                code: int = error.code
                flight.tell = lambda: events.refused(call, code)
            else:
                flight.tell = lambda: events.dropped(call)
            self._deliver()

    def _deliver(self) -> None:
        # In the order of sending: a create takes two turns of the completion thread, and what came behind it one.
        while self._flights and self._flights[0].tell is not None:
            tell = self._flights.popleft().tell
            try:
                if tell is not None:
                    tell()
            except Exception:
                logger.exception("The session failed; please report this")

    def _drop_flight(self) -> None:
        # At close only: after a mere disconnection kazoo itself ends each request, or sends it later, and then the
        # answer shall be told.
        for flight in self._flights:
            if flight.tell is None and flight.call is not None:
                flight.tell = partial(self._events.dropped, flight.call)
        self._deliver()

    def _fired(self, event: Any) -> None:
        # kazoo tells events on another thread than answers. This one stands behind the requests under way, one of which
        # may have set the watch: told before its answer, it would be lost, and a waiter with it.
        # Without a path it only says that the connection ended, which the session is told anyway.
        if event.path is not None and event.type in _EVENTS:
            with self._lock:
                tell = partial(self._events.notified, event.path, _EVENTS[event.type])
                self._flights.append(_Flight(None, tell))
                self._deliver()

    def _data_fired(self, event: Any) -> None:
        self._fired(event)

    def _children_fired(self, event: Any) -> None:
        self._fired(event)


def _value(call: Call[Any], value: Any) -> Any:
    match call.request:
        case Create():
            path, stat = value
            return Created(path, Stat._make(stat))
        case Get():
            data, stat = value
            return data or b"", Stat._make(stat)
        case Exists() | Set():
            return None if value is None else Stat._make(value)
        case Multi() as request:
            return _multi(request, value)
        case Children():
            return value
        case _:
            return None


def _multi(request: Multi, values: list[Any]) -> tuple[Any, ...] | MultiRefused:
    if any(isinstance(value, Exception) for value in values):
        return find_refused([getattr(value, "code", 0) for value in values])
    results: list[Any] = []
    for operation, value in zip(request.operations, values, strict=True):
        match operation:
            case Create():
                results.append(Created(value, None))
            case Set():
                results.append(Stat._make(value))
            case _:
                results.append(None)
    return tuple(results)


def _acls(acl: tuple[Acl, ...]) -> list[ACL]:
    return [ACL(entry.perms, Id(entry.scheme, entry.id)) for entry in acl]
