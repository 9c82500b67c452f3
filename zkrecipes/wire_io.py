"""The handler that kazoo is given: sockets, waiting, threads, and the pause between attempts to connect.

A handler is kazoo's public plug-in. This one starts no worker threads: a client has kazoo's connection thread and no
other. Watch callbacks and completions run on that thread, so they must be two lines and must not block.

Attempts to connect are bounded: a third of the session timeout, divided among the servers, so that a client that loses
one server has asked all the others before its session ends. Each failed round doubles it, for slow networks. A server
that fell silent is passed over for one round.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import logging
import queue
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, final

from kazoo.handlers.threading import AsyncResult, KazooTimeoutError

from zkrecipes.wire_socket import BufferedSocket, WakeUp, wait_for

__all__ = ["Handler", "default_pause", "tls_context"]

logger = logging.getLogger("zkrecipes.wire")

_Socket = socket.socket

_numbers = itertools.count(1)

# A connection that lived shorter than this many seconds counts as a failed attempt: a server that greets and hangs up
# must not get a storm of reconnects.
_SHORT_LIFE: Final = 1.0


def default_pause(attempt: int) -> float:
    """Seconds to wait before attempt 1, 2, …: doubling from 0.05 up to 1, jittered downward by up to half."""
    return random.uniform(0.5, 1.0) * min(1.0, 0.05 * (1 << min(attempt, 10)))  # noqa: S311 - spreads load, hides nothing


@lru_cache(maxsize=16)
def tls_context(  # noqa: PLR0917 - kazoo's names and order
    ca: str | None,
    certfile: str | None,
    keyfile: str | None,
    keyfile_password: str | None,
    verify_certs: bool,  # noqa: FBT001
    check_hostname: bool,  # noqa: FBT001
) -> ssl.SSLContext:
    """The TLS settings, read from the files once.

    Raises:
        OSError: A file cannot be read, is no certificate or key, or its password is wrong.
    """
    context = ssl.create_default_context(cafile=ca)
    context.check_hostname = check_hostname
    if not verify_certs:
        context.verify_mode = ssl.CERT_NONE
    if certfile:
        # Without a password OpenSSL would ask for one on the terminal, and block.
        context.load_cert_chain(certfile, keyfile, password=keyfile_password or "")
    return context


@final
class Handler:
    """Connects, waits and wakes for one KazooClient.

    Args:
        session_timeout: The requested session timeout, in seconds; the negotiated one takes its place.
        now: The clock by which `since` is told.
        servers: How many servers are configured.
        pause: Seconds to wait before attempt n (1, 2, …) after a failed one. The first attempt after a lost
            connection does not wait.

    Attributes:
        current: The connection that was made last.
        last_error: Why there is no connection, with a remedy; empty if unknown.
        authentication_failed: Whether that was for a certificate.
        answered: The addresses that have answered a handshake.
    """

    name = "zkrecipes"
    timeout_exception = KazooTimeoutError
    queue_impl = queue.Queue
    queue_empty = queue.Empty
    running = False
    """kazoo's results then call back at once, on the thread that sets them."""

    def __init__(
        self,
        session_timeout: float,
        now: Callable[[], float],
        servers: Callable[[], int] = lambda: 1,
        pause: Callable[[int], float] = default_pause,
    ) -> None:
        self.session_timeout = session_timeout
        self.current: BufferedSocket | None = None
        self.last_error = ""
        self.authentication_failed = False
        self.answered: set[tuple[str, int]] = set()
        self._now = now
        self._servers = servers
        self._pause = pause
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._aborted = False
        self._attempt: _Socket | None = None
        self._connected_at: float | None = None
        self._failed_rounds = 0
        self._tried = False
        self._tried_ever: set[tuple[str, int]] = set()
        self._silent: tuple[str, int] | None = None
        self._silent_rounds = 0

    # --- threads and callbacks ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Allow attempts to connect."""
        self._stopping.clear()
        self._aborted = False

    def stop(self) -> None:
        """End a pause or an attempt that is under way, and allow no further one. A made connection lives on."""
        with self._lock:
            self._stopping.set()
            _shut(self._attempt)

    def abort(self) -> None:
        """End everything at once, the connection too."""
        self._aborted = True
        self.stop()
        current = self.current
        if current is not None:
            current.drop(discard=False)

    def drop(self) -> None:
        """Give the present connection up as silent, and try that server last."""
        current = self.current
        if current is not None:
            self._silent = current.address
            self._silent_rounds = 2  # the rest of this round, and the next
            current.drop(discard=True)

    def spawn(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> threading.Thread:
        """Run a function in a thread of its own that does not keep the process alive."""

        def run() -> None:
            try:
                func(*args, **kwargs)
            except Exception as error:  # noqa: BLE001 - kazoo has logged it, and its state listener has told the session
                logger.debug("kazoo's connection thread ended: %r", error)

        thread = threading.Thread(target=run, name=f"zkrecipes-connection-{next(_numbers)}", daemon=True)
        thread.start()
        return thread

    def dispatch_callback(self, callback: Any) -> None:
        """Call a watch callback here and now, which keeps its order relative to answers."""
        try:
            callback.func(*callback.args)
        except Exception:
            logger.exception("A watch callback failed; please report this")

    def async_result(self) -> Any:
        """A result object of kazoo, for its internal uses."""
        return AsyncResult(self)

    def event_object(self) -> threading.Event:
        """A plain event."""
        return threading.Event()

    def lock_object(self) -> Any:
        """A plain lock."""
        return threading.Lock()

    def rlock_object(self) -> Any:
        """A plain re-entrant lock."""
        return threading.RLock()

    # --- waiting ----------------------------------------------------------------------------------------------------

    def sleep_func(self, _seconds: float) -> None:
        """The pause after each round over all servers: none after the first, then as `pause` says. Ends at stop."""
        if not self._tried:
            self._note("none of the host names can be resolved; check hosts, and the name service")
        self._tried = False
        self._silent_rounds -= 1
        self._look_back()
        attempt = self._failed_rounds
        self._failed_rounds += 1
        if attempt > 0:
            self._stopping.wait(self._pause(attempt))

    def select(
        self, rlist: list[Any], wlist: list[Any], _xlist: list[Any], timeout: float | None = None
    ) -> tuple[list[Any], list[Any], list[Any]]:
        """As select.select, for the three uses that kazoo makes of it."""
        if wlist:
            return [], wlist if wlist[0].has_room(timeout) else [], []
        sock: BufferedSocket = rlist[0]
        if len(rlist) > 1:
            sock.established = True
            readable, requested = wait_for(sock, rlist[1], timeout)
            return [ready for ready, yes in zip(rlist, (readable, requested), strict=True) if yes], [], []
        if not sock.established:
            timeout = self._limit(timeout)
        readable, _ = wait_for(sock, None, timeout)
        if not readable and sock.handshaking:
            self._note(f"{_name(sock.address)} did not answer the handshake within {timeout:.2g} s")
        return [sock] if readable else [], [], []

    # --- connections ------------------------------------------------------------------------------------------------

    def socket(self) -> _Socket:
        """A plain TCP socket."""
        return _Socket()

    def create_socket_pair(self) -> tuple[WakeUp, WakeUp]:
        """The wake-up, as both ends."""
        wake = WakeUp()
        return wake, wake

    def create_connection(  # noqa: PLR0917 - kazoo's signature
        self,
        address: tuple[str, int],
        hostname: str | None = None,
        timeout: float | None = None,
        use_ssl: bool = False,  # noqa: FBT001, FBT002
        ca: str | None = None,
        certfile: str | None = None,
        keyfile: str | None = None,
        keyfile_password: str | None = None,
        verify_certs: bool = True,  # noqa: FBT001, FBT002
        check_hostname: bool = False,  # noqa: FBT001, FBT002
    ) -> BufferedSocket:
        """Connect to one server.

        Raises:
            OSError: It cannot be reached in time, its certificate is not accepted, it was silent a moment ago, or the
                client is being closed. The reason stands in `last_error`.
        """
        self._tried = True
        self._look_back()
        self._tried_ever.add(address)
        if address == self._silent and self._silent_rounds > 0 and max(self._servers(), len(self._tried_ever)) > 1:
            message = "passed over, since it was silent a moment ago"
            raise ConnectionRefusedError(errno.ECONNREFUSED, message)
        limit = self._limit(timeout)
        try:
            context = (
                tls_context(ca, certfile, keyfile, keyfile_password, verify_certs, check_hostname) if use_ssl else None
            )
            inner = self._open(address, hostname or address[0], limit, context)
        except OSError as error:
            if not self._stopping.is_set():
                message, credentials = _explain(error, _name(address), limit, tls=use_ssl)
                self._note(message, authentication=credentials)
            raise
        self.current = BufferedSocket(inner, address, self._now, self._handshaken, self._broken)
        if self._aborted:
            self.current.drop(discard=False)
        return self.current

    def _open(self, address: tuple[str, int], hostname: str, limit: float, context: ssl.SSLContext | None) -> _Socket:
        end = time.monotonic() + limit
        family, kind, protocol, _, resolved = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0]
        inner = _Socket(family, kind, protocol)
        try:
            inner.settimeout(limit)
            inner.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._begin(inner)
            inner.connect(resolved)
            if context is not None:
                inner = context.wrap_socket(inner, server_hostname=hostname, do_handshake_on_connect=False)
                self._begin(inner)
                inner.settimeout(max(0.001, end - time.monotonic()))
                inner.do_handshake()
        except BaseException:
            inner.close()
            raise
        finally:
            with self._lock:
                self._attempt = None
        return inner

    def _begin(self, attempt: _Socket) -> None:
        # Under the lock, so that stop() either sees the attempt or is seen by it.
        with self._lock:
            if self._stopping.is_set():
                message = "the client is being closed"
                raise ConnectionAbortedError(errno.ECONNABORTED, message)
            self._attempt = attempt

    def _limit(self, timeout: float | None) -> float:
        share = self.session_timeout / 3 / max(1, self._servers()) * (1 << min(max(0, self._failed_rounds - 1), 10))
        longest = self.session_timeout if timeout is None else min(timeout, self.session_timeout)
        return min(share, longest)

    def _look_back(self) -> None:
        # Whether the connection before this attempt was worth its name.
        if self._connected_at is not None:
            if self._now() - self._connected_at >= _SHORT_LIFE:
                self._failed_rounds = 0
            self._connected_at = None

    def _handshaken(self, negotiated: float) -> None:
        if negotiated > 0:
            self.session_timeout = negotiated
            self._connected_at = self._now()
            if self.current is not None:
                self.answered.add(self.current.address)
        else:
            # The old session is refused as expired; a new one can be had at once.
            self._failed_rounds = 0
        self.last_error = ""
        self.authentication_failed = False
        self._silent = None

    def _broken(self, sock: BufferedSocket, error: OSError | None) -> None:
        name = _name(sock.address)
        if sock.handshaking:
            why = f"{name} closed the connection instead of answering: it may have no quorum, or expect TLS (tls=…)"
            message, credentials = _explain_tls(error, name) if isinstance(error, ssl.SSLError) else (why, False)
            self._note(message, authentication=credentials)
        else:
            self._note(f"the connection to {name} ended{f': {error}' if error else ''}")

    def _note(self, message: str, *, authentication: bool = False) -> None:
        self.last_error = message
        self.authentication_failed = authentication


def _shut(attempt: _Socket | None) -> None:
    if attempt is not None:
        with contextlib.suppress(OSError):
            _Socket.shutdown(attempt, socket.SHUT_RDWR)


def _explain(error: OSError, name: str, limit: float, *, tls: bool) -> tuple[str, bool]:
    """Why an attempt failed, and whether credentials are the reason."""
    match error:
        case ssl.SSLCertVerificationError():
            remedy = "check the CA given to Tls(), and that the certificate names this host (check_hostname)"
            return f"the certificate of {name} was refused: {error.verify_message}; {remedy}", True
        case ssl.SSLEOFError() | ConnectionResetError() if tls:
            return f"{name} closed the connection during the TLS handshake; is it the port for TLS?", False
        case ssl.SSLError():
            return _explain_tls(error, name)
        case TimeoutError():
            return f"{name} did not accept a connection within {limit:.2g} s", False
        case ConnectionRefusedError():
            return f"{name} refused the connection; is the server running?", False
        case _:
            return f"no connection to {name}: {error.strerror or error}", False


def _explain_tls(error: ssl.SSLError, name: str) -> tuple[str, bool]:
    reason = error.reason or str(error)
    if "CERTIFICATE" in reason or "UNKNOWN_CA" in reason:
        return f"{name} refused our certificate ({reason}); give Tls() a cert and key that its CA has signed", True
    return f"no TLS with {name} ({reason}); is it the port for TLS?", False


def _name(address: tuple[str, int]) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
