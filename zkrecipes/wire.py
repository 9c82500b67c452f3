"""Requests through kazoo: the transport of a session, on kazoo's internals.

A request of ours is an object that kazoo's connection thread serialises at the moment of writing. There, and only
there, it asks the session whether it may still be written, and puts a harmless read in its place if not: stock kazoo
cannot withdraw a request that it has queued. Answers and events go straight to the session, on the same thread and in
order; kazoo's tables of watches know nothing of ours.

What kazoo does for us: connecting, handshake, authentication, SASL, pings, xids, framing. What we rely on is tried once
by `wire_check`; where that fails, `wire_public` does the same with kazoo's public API alone.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from typing import Any, Final, final

from kazoo.client import KazooClient
from kazoo.exceptions import EXCEPTIONS, ConnectionDropped, ZookeeperError

from zkrecipes.calls import Call
from zkrecipes.port import AddWatch, Code, Create, Exists, Kind, RemoveWatches, Request, TransportEvents
from zkrecipes.runtime import ThreadRuntime
from zkrecipes.wire_check import supported_internals
from zkrecipes.wire_codec import HARMLESS_READ, MultiRefused, Opcode, decoder, encode, read_event
from zkrecipes.wire_events import listen, unlisten
from zkrecipes.wire_io import Handler, default_pause
from zkrecipes.wire_kazoo import QUEUE_LIMIT, KazooLink, count_hosts, open_kazoo
from zkrecipes.wire_public import NO_ANSWER, PublicTransport

__all__ = ["KazooTransport", "borrowed_transport", "open_kazoo", "own_transport"]

logger = logging.getLogger("zkrecipes.wire")

# So many requests under way are written by the threads that ask, one by one.
_FEW: Final = 2


class _Operation:
    """One request on its way: what kazoo serialises, and what it gives the answer to.

    Attributes:
        type: 0 lets `serialize` write the operation code itself, at the moment when it is decided what is written.
    """

    __slots__ = ("_body", "_decode", "_transport", "call", "done", "type", "withdrawn")

    def __init__(self, transport: KazooTransport, call: Call[Any]) -> None:
        request = call.request
        self.type = 0
        self.call = call
        self.done = False
        self.withdrawn = False
        self._transport = transport
        if transport.supports(request):
            self._body = encode(request, transport.root, containers=transport.containers)
            self._decode = decoder(request)
        else:
            # The harmless read keeps the refusal in its place among the answers.
            self._body = HARMLESS_READ
            self._decode = _unimplemented

    def __repr__(self) -> str:
        # kazoo puts it into its debug log; data stays out of there.
        return f"<{type(self.call.request).__name__} {getattr(self.call.request, 'path', '')}>"

    def serialize(self) -> bytes:
        """Called by kazoo on the verge of writing."""
        if self._transport.may_write(self):
            # "No node" is an answer to this one, for kazoo as for us.
            self.type = Opcode.EXISTS if isinstance(self.call.request, Exists) else 0
            return self._body
        self.withdrawn = True
        return HARMLESS_READ

    def deserialize(self, buffer: bytes, offset: int) -> Any:
        """Called by kazoo when the server has done it."""
        return None if self.withdrawn else self._decode(buffer, offset, self._transport.root)

    def set(self, value: Any = None) -> None:
        """Called by kazoo with what `deserialize` has returned."""
        self._transport.finished(self, value)

    def set_exception(self, error: BaseException) -> None:
        """Called by kazoo when the server has refused it, or the connection has ended."""
        self._transport.broke_off(self, error)


@final
class KazooTransport(KazooLink):
    """A session's transport on a KazooClient whose internals are as expected. Arguments: see KazooLink."""

    def __init__(
        self,
        kazoo: KazooClient,
        events: TransportEvents,
        runtime: ThreadRuntime,
        handler: Handler | None = None,
        *,
        borrowed: bool | None = None,
    ) -> None:
        super().__init__(kazoo, events, runtime, handler, borrowed=borrowed)
        self.containers = True
        self.root: str = kazoo.chroot
        self._flight: dict[_Operation, None] = {}
        _complete_error_codes()

    def send(self, call: Call[Any]) -> None:
        """Hand a request to kazoo.

        Raises:
            UnicodeEncodeError: A path cannot be written as UTF-8.
        """
        operation = _Operation(self, call)
        if self._borrowed and len(self.kazoo._queue) >= QUEUE_LIMIT:  # noqa: SLF001 - this module's business
            self._events.dropped(call)
            return
        self._flight[operation] = None
        if not self._write_here(operation):
            self.kazoo._call(operation, operation)  # noqa: SLF001

    def _write_here(self, operation: _Operation) -> bool:
        """Do in this thread what kazoo's connection thread would do, while that sleeps and little is under way.

        Two changes of threads are saved for each request. With more under way, the connection thread does it better: it
        sends together what is queued together.
        """
        kazoo, handler = self.kazoo, self._handler
        if handler is None or len(kazoo._pending) >= _FEW or kazoo._queue or self._forked():  # noqa: SLF001
            return False
        connection, sock = kazoo._connection, handler.current  # noqa: SLF001
        wake = connection._write_sock  # noqa: SLF001
        if sock is None or sock.unsent or (place := wake.enter()) is None:
            return False
        try:
            kazoo._call(operation, operation)  # noqa: SLF001
            connection._send_request(1.0, 1.0)  # noqa: SLF001
            sock.flush()
        except BaseException as error:
            # Nobody knows how far it has come (an interrupt may come between any two steps): only a new connection is
            # sure to be sound. The connection thread makes it.
            sock.drop(discard=True)
            if not isinstance(error, OSError | ConnectionDropped):
                raise
        finally:
            wake.leave(place, unfinished=sock.unsent)
        return True

    def supports(self, request: Request) -> bool:
        """Whether this may be asked on this connection.

        Not what touches the watches of others, who share a borrowed client's connection. Until 3.8 a server has one
        watch for each node and connection (ZOOKEEPER-4466): a persistent one would end their watch of a list of
        children. And a removed watch would be theirs as well, on every server.
        """
        return not (self._borrowed and isinstance(request, AddWatch | RemoveWatches))

    def start(self) -> None:
        """Begin connecting; borrowed: take over the connection that there is."""
        listen(self.kazoo, self._told)
        super().start()

    def close(self, timeout: float = 1.0) -> None:
        """See KazooLink."""
        super().close(timeout)
        unlisten(self.kazoo, self._told)

    # --- on kazoo's connection thread -----------------------------------------------------------------------------

    def may_write(self, operation: _Operation) -> bool:
        """Ask the session."""
        with self._lock:
            try:
                return not operation.done and self._events.may_write(operation.call)
            except Exception:
                logger.exception("The session failed; please report this")
                return False

    def finished(self, operation: _Operation, value: Any) -> None:
        """The server has done it (or the harmless read in its place), or it has refused a Multi."""
        with self._delivery:
            if operation.withdrawn:
                self._settle(operation, self._events.dropped)
            elif isinstance(value, MultiRefused):
                self._settle(operation, self._events.refused, value.code, value.index)
            else:
                self._settle(operation, self._events.answered, value)

    def broke_off(self, operation: _Operation, error: BaseException) -> None:
        """The server has refused it, or the connection has ended."""
        code = getattr(error, "code", None)
        # kazoo may come here from within `send`, too, in the midst of somebody's step, but with these codes only.
        with self._lock if code is None or code in NO_ANSWER else self._delivery:
            if code is None:
                # An answer that cannot be read: nothing that follows on this connection can be trusted.
                logger.error("Unexpected answer to %r (%r); the connection is made anew", operation, error)
                self._settle(operation, self._events.dropped)
                self.reconnect()
            elif code in NO_ANSWER:
                # If the connection has ended, the state listener drops everything in flight, in order.
                if self.kazoo.connected:
                    self._settle(operation, self._events.dropped)
            elif operation.withdrawn:
                self._settle(operation, self._events.dropped)
            elif code == Code.UNIMPLEMENTED and self._is_container(operation):
                self._settle(operation, self._send_persistent)
            else:
                self._settle(operation, self._events.refused, code)

    def _settle(self, operation: _Operation, event: Any, *args: Any) -> None:
        if not operation.done:
            operation.done = True
            self._flight.pop(operation, None)
            try:
                event(operation.call, *args)
            except Exception:
                # On kazoo's connection thread it would end that thread, and with it every other call.
                logger.exception("The session failed; please report this")

    def _is_container(self, operation: _Operation) -> bool:
        request = operation.call.request
        return isinstance(request, Create) and request.kind is Kind.CONTAINER and self.containers

    def _send_persistent(self, call: Call[Any]) -> None:
        logger.info("The server knows no container nodes; persistent ones are made")
        self.containers = False
        self.send(call)

    def _disconnected(self) -> None:
        self._drop_flight()
        super()._disconnected()

    def _drop_flight(self) -> None:
        flight, self._flight = self._flight, {}
        for operation in flight:
            # What kazoo still has in its queue finds itself done when it comes to be written.
            self._settle(operation, self._events.dropped)

    def _told(self, buffer: bytes, offset: int) -> None:
        event = read_event(buffer, offset, self.root)
        if event is not None:
            with self._delivery:
                # Whoever else uses a borrowed client may hear something before we are connected, or after the end.
                if self._linked:
                    self._events.notified(*event)


def _unimplemented(_buffer: bytes, _offset: int, _root: str) -> MultiRefused:
    return MultiRefused(Code.UNIMPLEMENTED, -1)


def own_transport(
    hosts: str | Sequence[str],
    session_timeout: float,
    events: TransportEvents,
    runtime: ThreadRuntime,
    *,
    auth: Sequence[tuple[str, str]] = (),
    sasl: dict[str, Any] | None = None,
    tls: dict[str, Any] | None = None,
    pause: Callable[[int], float] = default_pause,
    internals: bool | None = None,
) -> KazooTransport | PublicTransport:
    """Make a transport with a kazoo client of its own; `start` begins to connect.

    Args:
        hosts: See `open_kazoo`, also for session_timeout, auth, sasl and tls.
        session_timeout: To be asked for, in seconds.
        events: The session.
        runtime: For the step lock and the clock.
        auth: Pairs of scheme and credential.
        sasl: kazoo's `sasl_options`.
        tls: kazoo's arguments for TLS.
        pause: Seconds to wait before attempt n to connect.
        internals: Whether to use kazoo's internals; None: if they are as expected.

    Raises:
        ValueError: The hosts cannot be read, or the files of `tls` cannot be used.
    """
    if _use_internals(internals):
        count = count_hosts(hosts)
        handler = Handler(session_timeout, runtime.now, lambda: count, pause)
        kazoo = open_kazoo(hosts, session_timeout, handler, auth=auth, sasl=sasl, tls=tls)
        if internals or supported_internals(kazoo):
            return KazooTransport(kazoo, events, runtime, handler)
    kazoo = open_kazoo(hosts, session_timeout, None, auth=auth, sasl=sasl, tls=tls)
    return PublicTransport(kazoo, events, runtime, borrowed=False)


def borrowed_transport(
    kazoo: KazooClient, events: TransportEvents, runtime: ThreadRuntime, *, internals: bool | None = None
) -> KazooTransport | PublicTransport:
    """Make a transport on somebody else's client, which is never started or stopped."""
    if _use_internals(internals) and (internals or supported_internals(kazoo)):
        return KazooTransport(kazoo, events, runtime, borrowed=True)
    return PublicTransport(kazoo, events, runtime, borrowed=True)


_SETTING: Final = "ZKRECIPES_WIRE"


def _use_internals(internals: bool | None) -> bool:  # noqa: FBT001 - private
    # The setting lets the whole test suite run on the fallback.
    return os.environ.get(_SETTING) != "public" if internals is None else internals


def _complete_error_codes() -> None:
    # kazoo's connection thread dies of an error code that it does not know.
    for code in range(-1, -256, -1):
        if code not in EXCEPTIONS:
            EXCEPTIONS[code] = type("UnknownServerError", (ZookeeperError,), {"code": code})
