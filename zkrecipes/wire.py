"""Requests through kazoo: the transport of a session, on kazoo's internals.

A request of ours is an object that kazoo's connection thread serialises at the moment of writing. There, and only there,
it asks the session whether it may still be written, and puts a harmless read in its place if not: stock kazoo cannot
withdraw a request that it has queued. Answers go straight to the session on the same thread, in order.

What kazoo does for us: connecting, handshake, authentication, SASL, pings, xids, framing, watch tables. What we rely on
is checked once by `wire_check`; where the check fails, `wire_public` does the same with kazoo's public API alone.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import Any, Final, final

from kazoo.client import KazooClient, KazooState, KeeperState
from kazoo.exceptions import EXCEPTIONS, ZookeeperError
from kazoo.protocol.serialization import GetChildren
from kazoo.retry import KazooRetry

from zkrecipes.errors import AuthenticationError, UnavailableError
from zkrecipes.port import Children, Code, Create, Exists, Get, Kind, Runtime, TransportEvents
from zkrecipes.session import Call
from zkrecipes.wire_codec import HARMLESS_READ, MultiRefused, Opcode, decoder, encode
from zkrecipes.wire_io import Handler

__all__ = ["KazooTransport", "open_kazoo"]

logger = logging.getLogger("zkrecipes.wire")

# These say that nobody knows whether it was done, or that it never was sent.
_NO_ANSWER: Final = frozenset({-4, -7, -112, -115, -122})

# kazoo's queue wakes its thread through a socket pair that is full, and blocks, at 278 requests. With a borrowed client
# others may have filled it.
_QUEUE_LIMIT: Final = 128


class _Operation:
    """One request on its way: what kazoo serialises, and what it gives the answer to.

    Attributes:
        type: 0 lets `serialize` write the operation code itself, at the moment when it is decided what is written.
        path: With the chroot, for kazoo's watch tables.
        watcher: Entered by kazoo into its watch table when the answer has come.
    """

    __slots__ = ("_body", "_decode", "_transport", "call", "done", "path", "type", "watcher", "withdrawn")

    def __init__(self, transport: KazooTransport, call: Call[Any]) -> None:
        request = call.request
        self.type = 0
        self.call = call
        self.done = False
        self.withdrawn = False
        self._transport = transport
        self._body = encode(request, transport.root, containers=transport.containers)
        self._decode = decoder(request)
        self.path = ""
        self.watcher: Any = None
        if isinstance(request, Get | Exists | Children) and request.watch:
            self.path = transport.full_path(request.path)
            self.watcher = transport.children_fired if isinstance(request, Children) else transport.data_fired

    def __repr__(self) -> str:
        # kazoo puts it into its debug log; data stays out of there.
        return f"<{type(self.call.request).__name__} {self.path}>"

    def serialize(self) -> bytes:
        """Called by kazoo on the verge of writing."""
        if self._transport.may_write(self):
            # An answer "no node" to this one is an answer for kazoo, and sets the watch.
            self.type = Opcode.EXISTS if isinstance(self.call.request, Exists) else 0
            return self._body
        self.withdrawn = True
        self.watcher = None
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


class _ChildrenWatch(GetChildren):  # type: ignore[misc]
    """A listing that watches: kazoo tells its table of children watches by this class."""

    type = 0
    operation: _Operation

    @property
    def watcher(self) -> Any:
        return self.operation.watcher

    def serialize(self) -> bytes:
        return self.operation.serialize()

    def deserialize(self, buffer: bytes, offset: int) -> Any:  # kazoo's is a class method
        return self.operation.deserialize(buffer, offset)


@final
class KazooTransport:
    """A session's transport on a KazooClient whose internals are as expected.

    Args:
        kazoo: The client. With `handler`, ours: `start` and `close` start and stop it. Without, borrowed: it is never
            started or stopped.
        events: The session.
        runtime: For the step lock and the clock.
        handler: The handler that the client was made with.
    """

    def __init__(
        self, kazoo: KazooClient, events: TransportEvents, runtime: Runtime, handler: Handler | None = None
    ) -> None:
        self.kazoo = kazoo
        self.containers = True
        self.root: str = kazoo.chroot
        # One bound method each, made once: kazoo's tables are sets, and equal watchers fall together.
        self.data_fired = self._data_fired
        self.children_fired = self._children_fired
        self._events = events
        self._lock = runtime.lock
        self._now = runtime.now
        self._forked = runtime.forked
        self._handler = handler
        self._flight: dict[_Operation, None] = {}
        self._linked = False
        self._closing = False
        self._ended_at: float | None = None
        _complete_error_codes()

    # --- for the session ------------------------------------------------------------------------------------------

    @property
    def servers(self) -> int:
        """How many servers there are to choose from."""
        seen = len(self._handler.addresses) if self._handler is not None else 0
        return max(len(self.kazoo.hosts), seen)

    @property
    def server(self) -> str:
        """Host and port of the server that the session is connected to; empty if none."""
        sock = self.kazoo._connection._socket if self._linked else None  # noqa: SLF001 - this module's business
        try:
            return "{}:{}".format(*sock.getpeername()[:2]) if sock is not None else ""
        except OSError:
            return ""

    @property
    def last_error(self) -> str:
        """Why there is no connection; empty if unknown."""
        return self._handler.last_error if self._handler is not None else ""

    @property
    def authentication_failed(self) -> bool:
        """Whether the last attempt failed for certificates or credentials."""
        return self._handler is not None and self._handler.authentication_failed

    @property
    def client_id(self) -> tuple[int, bytes] | None:
        """Session id and password, while connected."""
        identity: tuple[int, bytes] | None = self.kazoo.client_id
        return identity

    def send(self, call: Call[Any]) -> None:
        """Hand a request to kazoo.

        Raises:
            UnicodeEncodeError: A path cannot be written as UTF-8.
        """
        operation = _Operation(self, call)
        if self._handler is None and len(self.kazoo._queue) >= _QUEUE_LIMIT:  # noqa: SLF001
            # Waiting for room here, under the step lock, could wait for ever: kazoo's thread may want it.
            self._events.dropped(call)
            return
        self._flight[operation] = None
        request: Any = operation
        if operation.watcher is self.children_fired:
            request = _ChildrenWatch(operation.path, None)
            request.operation = operation
        self.kazoo._call(request, operation)  # noqa: SLF001

    def reconnect(self) -> None:
        """Drop the connection and make a new one, the present server last."""
        if self._handler is not None:
            self._handler.drop()
        else:
            drop_connection(self.kazoo)

    # --- for the client -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin connecting (or, borrowed: take over the connection that there is)."""
        self.kazoo.add_listener(self._state_changed)
        if self._handler is not None:
            self.kazoo.start_async()
            return
        with self._lock:
            if self.kazoo.connected and not self._linked:
                self._connected()

    def close(self, timeout: float = 1.0) -> None:
        """End the session and free everything, within about `timeout` seconds; must not be called under the step lock.

        The server is told, if it answers in time; otherwise it ends the session itself when its time is over.
        """
        if self._closing:
            return
        self._closing = True
        if self._handler is not None and not self._forked():
            close_kazoo(self.kazoo, self._handler, timeout)
        self.kazoo.remove_listener(self._state_changed)
        with self._lock:
            self._disconnected()

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
        """The server has done it (or the harmless read in its place, or refused a Multi)."""
        with self._lock:
            if operation.withdrawn:
                self._settle(operation, self._events.dropped)
            elif isinstance(value, MultiRefused):
                self._settle(operation, self._events.refused, value.code, value.index)
            else:
                self._settle(operation, self._events.answered, value)

    def broke_off(self, operation: _Operation, error: BaseException) -> None:
        """The server has refused it, or the connection has ended."""
        code = getattr(error, "code", None)
        with self._lock:
            if operation.withdrawn:
                self._settle(operation, self._events.dropped)
            elif code is None:
                # An answer that cannot be read: nothing that follows on this connection can be trusted.
                logger.error("Unexpected answer to %r (%r); the connection is made anew", operation, error)
                self._settle(operation, self._events.dropped)
                self.reconnect()
            elif code == Code.UNIMPLEMENTED and self._is_container(operation):
                self._settle(operation, self._again_persistent)
            elif code not in _NO_ANSWER:
                self._settle(operation, self._events.refused, code)
            elif self.kazoo.connected:
                self._settle(operation, self._events.dropped)
            # Otherwise the connection has ended: the state listener drops everything, in order. kazoo may come here
            # from within `send`, where the session does not expect it.

    def _settle(self, operation: _Operation, event: Any, *args: Any) -> None:
        if not operation.done:
            operation.done = True
            self._flight.pop(operation, None)
            try:
                event(operation.call, *args)
            except Exception:
                # On kazoo's connection thread this would end it, and with it every other call.
                logger.exception("The session failed; please report this")

    def _is_container(self, operation: _Operation) -> bool:
        request = operation.call.request
        return isinstance(request, Create) and request.kind is Kind.CONTAINER and self.containers

    def _again_persistent(self, call: Call[Any]) -> None:
        logger.info("The server knows no container nodes; persistent ones are made")
        self.containers = False
        self.send(call)

    def _data_fired(self, event: Any) -> None:
        self._fired(event, children=False)

    def _children_fired(self, event: Any) -> None:
        self._fired(event, children=True)

    def _fired(self, event: Any, *, children: bool) -> None:
        # Without a path it only says that the connection ended, which the session is told anyway.
        if event.path is not None:
            with self._lock:
                self._events.watch_fired(event.path, children=children)

    def _state_changed(self, state: str) -> None:
        with self._lock:
            try:
                if state == KazooState.CONNECTED:
                    self._connected()
                elif state == KazooState.SUSPENDED:
                    self._disconnected()
                else:
                    self._ended()
            except Exception:
                logger.exception("The session failed; please report this")

    def _connected(self) -> None:
        if self._linked or self._closing:
            return
        self._linked = True
        identity = self.kazoo.client_id
        session_id = identity[0] if identity else 0
        if self._handler is not None and self._handler.current is not None:
            self._events.connected(session_id, self._handler.session_timeout, self._handler.current.since)
        else:
            self._events.connected(session_id, negotiated_timeout(self.kazoo), self._recently_ended())

    def _recently_ended(self) -> float | None:
        # Of a borrowed client we only know when the connection before ended. That long ago, it says too little.
        ended_at, self._ended_at = self._ended_at, None
        timeout: float = self.kazoo._session_timeout / 1000  # noqa: SLF001
        return ended_at if ended_at is not None and self._now() - ended_at < timeout / 8 else None

    def _disconnected(self) -> None:
        flight, self._flight = self._flight, {}
        for operation in flight:
            # What kazoo still has in its queue finds itself done when it comes to be written.
            self._settle(operation, self._events.dropped)
        if self._linked:
            self._linked = False
            self._ended_at = self._now()
            self._events.disconnected()

    def _ended(self) -> None:
        self._disconnected()
        if self._closing:
            return
        cause = sys.exc_info()[1]
        state = self.kazoo.client_state
        if state == KeeperState.AUTH_FAILED:
            message = f"the server refused our credentials ({cause}); check auth" if cause else _AUTHENTICATION
            error: Exception = AuthenticationError(message)
            error.__cause__ = cause
            self._events.failed(error)
        elif state == KeeperState.CLOSED and self._handler is not None:
            error = UnavailableError(f"kazoo's connection thread has ended ({cause!r}); make a new client")
            error.__cause__ = cause
            self._events.failed(error)
        else:
            # Expired; or the owner of a borrowed client has stopped it, which ends its session as well.
            self._events.expired()

    def full_path(self, path: str) -> str:
        """The path with the chroot."""
        if not self.root:
            return path
        return self.root if path == "/" else self.root + path


_AUTHENTICATION: Final = "the server refused our credentials; check the user, the password and the scheme given in auth"


def open_kazoo(
    hosts: str | Sequence[str],
    session_timeout: float,
    handler: Handler | None,
    *,
    auth: Sequence[tuple[str, str]] = (),
    sasl: dict[str, Any] | None = None,
    tls: dict[str, Any] | None = None,
) -> KazooClient:
    """Make a KazooClient; nothing is connected yet.

    Args:
        hosts: "host:port,host:port/chroot", or a sequence of "host:port".
        session_timeout: To be asked for, in seconds.
        handler: Ours, or None for kazoo's own.
        auth: Pairs of scheme and credential ("digest", "user:password").
        sasl: kazoo's sasl_options.
        tls: kazoo's use_ssl, ca, certfile, keyfile, keyfile_password, verify_certs, check_hostname.
    """
    retry = None
    if handler is not None:
        # One call of sleep_func for each round over the servers; how long that takes is the handler's business.
        retry = KazooRetry(max_tries=-1, delay=0.1, backoff=1, max_jitter=0.0, sleep_func=handler.sleep_func)
    return KazooClient(
        hosts=hosts if isinstance(hosts, str) else list(hosts),
        timeout=session_timeout,
        handler=handler,
        auth_data=list(auth),
        sasl_options=dict(sasl) if sasl else None,
        read_only=False,
        connection_retry=retry,
        logger=logging.getLogger("zkrecipes.kazoo"),
        **(tls or {}),
    )


def close_kazoo(kazoo: KazooClient, handler: Handler, timeout: float) -> None:
    """Stop a client within about `timeout` seconds: politely for half of them, then by force."""

    def stop() -> None:
        kazoo.stop()
        kazoo.close()

    # kazoo.stop() waits for ten seconds and more when no server answers.
    thread = handler.spawn(stop)
    thread.join(timeout / 2)
    if thread.is_alive():
        handler.abort()
        thread.join(timeout / 2)


def drop_connection(kazoo: KazooClient) -> None:
    """Shut down the socket of a client that is not ours; kazoo then connects anew."""
    import socket  # noqa: PLC0415

    sock = getattr(getattr(kazoo, "_connection", None), "_socket", None)
    if sock is not None:
        try:
            socket.socket.shutdown(sock, socket.SHUT_RDWR)
        except (OSError, TypeError):
            logger.debug("The connection could not be dropped", exc_info=True)


def negotiated_timeout(kazoo: KazooClient) -> float:
    """The session timeout in seconds that kazoo's connection thread works with; the requested one if it cannot be seen.

    kazoo keeps the negotiated value in local variables of that thread alone, so its stack is read.
    """
    thread = kazoo._connection._connection_routine  # noqa: SLF001
    frame = sys._current_frames().get(getattr(thread, "ident", None) or 0)  # noqa: SLF001
    while frame is not None:
        if frame.f_code.co_name == "_connect" and "negotiated_session_timeout" in frame.f_locals:
            return float(frame.f_locals["negotiated_session_timeout"]) / 1000
        if frame.f_code.co_name == "_connect_attempt" and "read_timeout" in frame.f_locals:
            return float(frame.f_locals["read_timeout"]) * 1.5
        frame = frame.f_back
    return float(kazoo._session_timeout) / 1000  # noqa: SLF001


def _complete_error_codes() -> None:
    """Give every error code a class: kazoo's connection thread dies of one that it does not know."""
    for code in range(-1, -256, -1):
        if code not in EXCEPTIONS:
            EXCEPTIONS[code] = type("UnknownServerError", (ZookeeperError,), {"code": code})
