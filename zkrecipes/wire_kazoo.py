"""What both transports do with a KazooClient: make it, listen to its states, drop its connection, close it."""

from __future__ import annotations

import contextlib
import logging
import socket
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Final

from kazoo.client import KazooClient, KazooState
from kazoo.exceptions import AuthFailedError, ConnectionDropped
from kazoo.protocol.states import KeeperState
from kazoo.retry import KazooRetry

from zkrecipes.errors import AuthenticationError, UnavailableError
from zkrecipes.port import TransportEvents
from zkrecipes.runtime import ThreadRuntime
from zkrecipes.wire_io import Handler, tls_context

__all__ = ["KazooLink", "close_kazoo", "count_hosts", "drop_connection", "negotiated_timeout", "open_kazoo"]

logger = logging.getLogger("zkrecipes.wire")

# Stock kazoo wakes its thread through a socket pair, which is full and blocks at 278 requests; users of a borrowed
# client may have filled it. To wait for room under the step lock could be for ever: kazoo's thread may want the lock.
QUEUE_LIMIT: Final = 128

_ACCIDENTS: Final = 2
"""Connections that may end in the midst of a SASL exchange, one after another, before that counts as a refusal."""


class KazooLink(ABC):
    """A session's link to a KazooClient: its states, and the life of the client.

    Args:
        kazoo: The client.
        events: The session.
        runtime: For the step lock, deliveries and the clock.
        handler: The handler of ours that the client was made with, if it was.
        borrowed: Somebody else's client: it is never started or stopped. None: if there is no handler.
    """

    def __init__(
        self,
        kazoo: KazooClient,
        events: TransportEvents,
        runtime: ThreadRuntime,
        handler: Handler | None = None,
        *,
        borrowed: bool | None = None,
    ) -> None:
        self.kazoo = kazoo
        self._events = events
        self._lock = runtime.lock
        self._delivery = runtime.delivery
        self._now = runtime.now
        self._forked = runtime.forked
        self._handler = handler
        self._borrowed = handler is None if borrowed is None else borrowed
        self._linked = False
        self._closing = False
        self._ended_at: float | None = None

    # --- for the session and the client -----------------------------------------------------------------------------

    @property
    def servers(self) -> int:
        """How many servers there are to choose from."""
        # One name may stand for several servers; or, as localhost, for two addresses of which one answers.
        answered = len(self._handler.answered) if self._handler is not None else 0
        return max(len(self.kazoo.hosts), answered)

    @property
    def server(self) -> str:
        """Host and port of the server that the session is connected to; empty if there is none or it is unknown."""
        sock = getattr(getattr(self.kazoo, "_connection", None), "_socket", None) if self._linked else None
        with contextlib.suppress(OSError):
            return "{}:{}".format(*sock.getpeername()[:2]) if sock is not None else ""
        return ""

    @property
    def last_error(self) -> str:
        """Why there is no connection; empty if unknown."""
        return self._handler.last_error if self._handler is not None else ""

    @property
    def authentication_failed(self) -> bool:
        """Whether the last attempt to connect failed for certificates."""
        return self._handler is not None and self._handler.authentication_failed

    @property
    def client_id(self) -> tuple[int, bytes] | None:
        """Session id and password, while connected."""
        identity: tuple[int, bytes] | None = self.kazoo.client_id
        return identity

    def reconnect(self) -> None:
        """Drop the connection and make a new one, the present server last (with our own handler)."""
        if self._handler is not None:
            self._handler.drop()
        else:
            drop_connection(self.kazoo)

    def start(self) -> None:
        """Begin connecting; borrowed: take over the connection that there is."""
        self.kazoo.add_listener(self._state_changed)
        if not self._borrowed:
            # No handshake is sent before this, so what we hold by the first one can be proven without our handler, too.
            self._ended_at = self._now()
            self.kazoo.start_async()
            return
        with self._lock:
            if self.kazoo.connected and not self._linked:
                self._connected()

    def close(self, timeout: float = 1.0) -> None:
        """End the session and free everything, within about `timeout` seconds.

        Must not be called under the step lock. The server is told, if it answers in time; otherwise the session ends
        by itself when its time is over. May be called again, and in a forked child, where it touches nothing.
        """
        if self._closing:
            return
        self._closing = True
        if not self._borrowed and not self._forked():
            close_kazoo(self.kazoo, self._handler, timeout)
        self.kazoo.remove_listener(self._state_changed)
        with self._lock:
            self._disconnected()
            self._drop_flight()

    # --- on kazoo's threads ---------------------------------------------------------------------------------------

    @abstractmethod
    def _drop_flight(self) -> None:
        """Drop every request that has no answer yet."""

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
        identity = self.client_id
        session_id = identity[0] if identity else 0
        if self._handler is not None and self._handler.current is not None:
            self._events.connected(session_id, self._handler.session_timeout, self._handler.current.since)
        else:
            timeout = negotiated_timeout(self.kazoo)
            self._events.connected(session_id, timeout, self._since(timeout))

    def _since(self, timeout: float) -> float | None:
        # Without our handler we only know when the connection before this one ended, or when we began. Long ago, that
        # says too little.
        ended_at, self._ended_at = self._ended_at, None
        return ended_at if ended_at is not None and self._now() - ended_at < timeout / 8 else None

    def _disconnected(self) -> None:
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
            message = "the server refused our credentials; check user, password and scheme given in auth"
            self._fail(
                AuthenticationError(f"{message}{f' ({cause})' if cause is not None and str(cause) else ''}"), cause
            )
        elif state == KeeperState.CLOSED and not self._borrowed:
            message = f"kazoo's connection thread has ended ({cause!r}); repair the cause and make a new client"
            self._fail(UnavailableError(message), cause)
        else:
            # Expired; or the owner of a borrowed client has stopped it, which ends its session as well.
            self._events.expired()

    def _fail(self, error: Exception, cause: BaseException | None) -> None:
        error.__cause__ = cause
        self._events.failed(error)


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
        sasl: kazoo's `sasl_options`.
        tls: kazoo's `use_ssl`, `ca`, `certfile`, `keyfile`, `keyfile_password`, `verify_certs`, `check_hostname`.

    Raises:
        ValueError: The hosts cannot be read, or the files of `tls` cannot be used.
    """
    if tls and tls.get("use_ssl"):
        _check_tls(tls)
    if handler is not None:
        # One call of sleep_func for each round over the servers; how long that takes is the handler's business.
        retry: Any = KazooRetry(max_tries=-1, delay=0.1, backoff=1, max_jitter=0.0, sleep_func=handler.sleep_func)
    else:
        retry = {"max_tries": -1, "delay": 0.05, "backoff": 2, "max_jitter": 0.5, "max_delay": 1.0}
    try:
        kazoo = KazooClient(
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
    except (ValueError, IndexError) as error:
        message = f"hosts must be like 'zk1:2181,zk2:2181' or a list of 'host:port', not {hosts!r} ({error})"
        raise ValueError(message) from error
    if sasl:
        _tell_drops_from_refusals(kazoo)
    return kazoo


def _tell_drops_from_refusals(kazoo: KazooClient) -> None:
    """Let a connection that ends in the midst of a SASL exchange be made again, like any other.

    kazoo takes it for refused credentials, after which it never connects again. Servers from 3.6 on say so when they
    refuse; older ones just hang up, so three drops in a row are no accident.
    """
    connection = kazoo._connection  # noqa: SLF001 - this module's business
    authenticate = getattr(connection, "_authenticate_with_sasl", None)
    if authenticate is None:
        return
    drops = 0

    def patient(host: str, timeout: float) -> None:
        nonlocal drops
        try:
            authenticate(host, timeout)
        except AuthFailedError as error:
            if isinstance(error.__cause__, ConnectionDropped) and drops < _ACCIDENTS:
                drops += 1
                raise error.__cause__ from None
            raise
        drops = 0

    connection._authenticate_with_sasl = patient  # noqa: SLF001


def count_hosts(hosts: str | Sequence[str]) -> int:
    """How many servers are named."""
    return hosts.partition("/")[0].count(",") + 1 if isinstance(hosts, str) else len(hosts)


def _check_tls(tls: dict[str, Any]) -> None:
    # kazoo would try wrong files for ever, once for each attempt to connect.
    try:
        tls_context(
            tls.get("ca"),
            tls.get("certfile"),
            tls.get("keyfile"),
            tls.get("keyfile_password"),
            tls.get("verify_certs", True),
            tls.get("check_hostname", False),
        )
    except OSError as error:
        message = f"tls cannot be used: {error}; check that ca, cert and key are PEM files, and the key's password"
        raise ValueError(message) from error


def close_kazoo(kazoo: KazooClient, handler: Handler | None, timeout: float) -> None:
    """Stop a client within about `timeout` seconds: politely for half of them, then by force."""

    def stop() -> None:
        kazoo.stop()
        kazoo.close()

    # kazoo.stop() waits for ten seconds and more when no server answers.
    thread = threading.Thread(target=stop, name="zkrecipes-close", daemon=True)
    thread.start()
    thread.join(timeout / 2)
    if thread.is_alive():
        if handler is not None:
            handler.abort()
        else:
            drop_connection(kazoo)
        thread.join(timeout / 2)


def drop_connection(kazoo: KazooClient) -> None:
    """Shut down the socket of a client that does not use our handler; kazoo then connects anew."""
    sock = getattr(getattr(kazoo, "_connection", None), "_socket", None)
    if isinstance(sock, socket.socket):
        with contextlib.suppress(OSError):
            # SSLSocket.shutdown would first take the TLS layer away under the thread that reads.
            socket.socket.shutdown(sock, socket.SHUT_RDWR)


def negotiated_timeout(kazoo: KazooClient) -> float:
    """The session timeout in seconds that kazoo's connection thread works with; the requested one if it cannot be seen.

    kazoo keeps the negotiated value in local variables of that thread alone, so its stack is read.
    """
    thread = getattr(getattr(kazoo, "_connection", None), "_connection_routine", None)
    frame = sys._current_frames().get(getattr(thread, "ident", None) or 0)  # noqa: SLF001 - the only way to see it
    while frame is not None:
        if frame.f_code.co_name == "_connect" and "negotiated_session_timeout" in frame.f_locals:
            return float(frame.f_locals["negotiated_session_timeout"]) / 1000
        if frame.f_code.co_name == "_connect_attempt" and "read_timeout" in frame.f_locals:
            # kazoo's read timeout is two thirds of the session's.
            return float(frame.f_locals["read_timeout"]) * 1.5
        frame = frame.f_back
    return float(getattr(kazoo, "_session_timeout", 10_000)) / 1000
