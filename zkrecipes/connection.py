"""Puts a client together: runtime, session, transport, core. For threads and asyncio alike."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Self, final

from zkrecipes.core import Core
from zkrecipes.errors import AuthenticationError, UnavailableError
from zkrecipes.health import Health
from zkrecipes.heartbeat import Heartbeat
from zkrecipes.nodes import Nodes
from zkrecipes.observe import Observations, Observer
from zkrecipes.paths import validate_namespace
from zkrecipes.port import Acl, Exists, State, acl_tuple
from zkrecipes.runtime import ThreadRuntime, default_identity
from zkrecipes.session import Session
from zkrecipes.settings import Auth, DigestAuth, Retry, SaslDigest, Tls, auth_list, host_list
from zkrecipes.signals import Undisturbed
from zkrecipes.timing import NEVER, Deadline, Timeout, to_seconds
from zkrecipes.wire import borrowed_transport, own_transport

if TYPE_CHECKING:
    from kazoo.client import KazooClient

    from zkrecipes.wire import KazooTransport
    from zkrecipes.wire_public import PublicTransport

__all__ = ["Connection", "Options"]

logger = logging.getLogger("zkrecipes.client")

MIN_SESSION, MAX_SESSION = 0.1, 86400
MAX_DRIFT = 0.1

LOOK_FOR_REFUSALS = 0.5

CLOSE_LIMIT = 2.0
"""Seconds that close() takes at most, about: politely for half of them, then by force."""


@final
@dataclass(frozen=True)
class Options:
    """The checked arguments of `connect`."""

    hosts: str
    namespace: str
    session_timeout: float
    connect_timeout: float
    default_timeout: float
    auth: tuple[Auth, ...]
    tls: Tls | None
    acl: tuple[Acl, ...]
    retry: Retry
    server_tick: float | None
    drift: float
    observer: Observer | None
    required: bool

    @classmethod
    def checked(
        cls,
        hosts: str | Sequence[str],
        *,
        namespace: str,
        session_timeout: Timeout,
        connect_timeout: Timeout,
        default_timeout: Timeout,
        auth: Auth | Sequence[Auth],
        tls: Tls | None,
        acl: Sequence[Acl] | None,
        retry: Retry | None,
        server_tick: float | None,
        drift: float,
        observer: Observer | None,
        required: bool,
    ) -> Self:
        """Check everything before any I/O.

        Raises:
            TypeError: An argument is of the wrong type.
            ValueError: An argument, or how two of them relate, is not valid.
        """
        session_seconds = to_seconds(session_timeout, "session_timeout")
        if not MIN_SESSION <= session_seconds <= MAX_SESSION:
            message = f"session_timeout must be from {MIN_SESSION} to {MAX_SESSION} seconds, not {session_timeout}"
            raise ValueError(message)
        if server_tick is not None and not 0 < to_seconds(server_tick, "server_tick") <= session_seconds / 2:
            message = f"server_tick must be more than 0 and at most half of session_timeout ({session_seconds:g} s)"
            raise ValueError(message)
        if isinstance(drift, bool) or not isinstance(drift, int | float):
            message = f"drift must be a part of 1, not {type(drift).__name__}"
            raise TypeError(message)
        if not 0 <= drift <= MAX_DRIFT:
            message = f"drift must be a part of 1 from 0 to 0.1, not {drift}"
            raise ValueError(message)
        if tls is not None and not isinstance(tls, Tls):
            message = f"tls must be a zkrecipes.Tls or None, not {type(tls).__name__}"
            raise TypeError(message)
        if retry is not None and not isinstance(retry, Retry):
            message = f"retry must be a zkrecipes.Retry or None, not {type(retry).__name__}"
            raise TypeError(message)
        if not isinstance(required, bool):
            message = f"required must be True or False, not {type(required).__name__}"
            raise TypeError(message)
        return cls(
            hosts=host_list(hosts),
            namespace=validate_namespace(namespace),
            session_timeout=session_seconds,
            connect_timeout=to_seconds(connect_timeout, "connect_timeout"),
            default_timeout=to_seconds(default_timeout, "default_timeout"),
            auth=auth_list(auth),
            tls=tls,
            acl=acl_tuple(acl),
            retry=Retry() if retry is None else retry,
            server_tick=server_tick,
            drift=drift,
            observer=observer,
            required=required,
        )


class Connection:
    """The parts of one client, and their life.

    Args:
        options: Of a client of ours; None for a borrowed one.
        kazoo: The borrowed client.
        dispatch: Where user callbacks run, if not on threads of our own.
    """

    def __init__(
        self,
        options: Options | None,
        kazoo: KazooClient | None = None,
        *,
        namespace: str = "",
        default_timeout: Timeout = 30.0,
        dispatch: Callable[[object, Callable[[], None]], None] | None = None,
    ) -> None:
        retry = Retry() if options is None else options.retry
        self._judged_later = options is not None and any(not isinstance(a, DigestAuth) for a in options.auth)
        self.runtime = ThreadRuntime(dispatch=dispatch)
        self.session = Session(
            self.runtime,
            server_tick=None if options is None else options.server_tick,
            drift=0.01 if options is None else options.drift,
        )
        self.transport = self._make_transport(options, kazoo)
        self.session.transport = self.transport
        self._borrowed = options is None
        self._nodes = Nodes(self.session, _borrowed_acl(kazoo) if options is None else options.acl)
        self.core = Core(
            self._nodes,
            namespace=validate_namespace(namespace) if options is None else options.namespace,
            identity=default_identity(),
            default_timeout=to_seconds(default_timeout, "default_timeout")
            if options is None
            else options.default_timeout,
            pause=retry.pause,
        )
        if options is not None and options.observer is not None:
            self.session.observations = Observations(options.observer, self.runtime, options.namespace)
        self._closing = threading.Lock()
        self._closer: threading.Thread | None = None

    def _make_transport(self, options: Options | None, kazoo: KazooClient | None) -> KazooTransport | PublicTransport:
        if options is None:
            return borrowed_transport(kazoo, self.session, self.runtime)
        return own_transport(
            options.hosts,
            options.session_timeout,
            self.session,
            self.runtime,
            auth=[("digest", f"{a.user}:{a.password}") for a in options.auth if isinstance(a, DigestAuth)],
            sasl=_sasl(options.auth),
            tls=_tls(options.tls),
            pause=lambda attempt: options.retry.pause(attempt, 0.0) or 0.0,
        )

    def start(self) -> None:
        """Start the engine, and connect."""
        with Undisturbed():
            self.runtime.start()
            self.runtime.spawn(Heartbeat(self.session).keep(), "heartbeat")
            self.runtime.spawn(self.core.nodes.sweep(), "reaper")
            self.transport.start()

    async def connected(self, options: Options) -> None:
        """Wait for the first connection; if none is required, no longer than the time for it.

        Raises:
            UnavailableError: No server answered in time.
            AuthenticationError: Credentials or certificates were refused.
        """
        try:
            await self._connected(options.connect_timeout)
        except UnavailableError:
            if options.required:
                raise
            logger.warning("No ZooKeeper server has answered yet; the client goes on trying")

    async def _connected(self, timeout: float) -> None:
        deadline = Deadline.after(None if timeout == NEVER else timeout, self.runtime.now())
        while True:
            # Refused certificates stay refused: there is no use in trying until the deadline. Another server may take
            # them, though, so one look is not enough.
            try:
                await self.session.ready(min(deadline.at, self.runtime.now() + LOOK_FOR_REFUSALS))
                break
            except UnavailableError as error:
                if self.transport.authentication_failed:
                    raise AuthenticationError(self.transport.last_error) from error
                if deadline.passed(self.runtime.now()):
                    raise
        if self._judged_later:
            # A SASL exchange begins when we are connected already. This is answered only behind it.
            await self.core.ask(Exists("/"), deadline, "/")

    def close(self) -> None:
        """End everything, within about two seconds. Idempotent; a second caller waits for the first."""
        if self.runtime.forked():
            return  # the threads, the socket and the session are the parent's
        with Undisturbed(), self._closing:
            if self._closer is None:
                # On a thread that no signal can interrupt: half a close would leave a session that lives on, and holds.
                self._closer = threading.Thread(target=self._tear_down, name="zkrecipes-closer", daemon=True)
                self._closer.start()
        # An interrupt ends the wait, not the work.
        self._closer.join(2 * CLOSE_LIMIT)

    def _tear_down(self) -> None:
        with self.runtime.lock:
            leftovers = self._nodes.leftovers() if self._borrowed else []
            self.session.close()
        self.transport.close(CLOSE_LIMIT)
        self._delete(leftovers)
        self.runtime.stop()

    def _delete(self, leftovers: list[tuple[str, str, str | None]]) -> None:
        """Have a borrowed client delete what is ours: its session lives on, and our nodes with it.

        It does that when it can. The names have GUIDs, so that a late or repeated delete harms nobody.
        """
        for parent, prefix, path in leftovers:
            if path is not None:
                self.transport.kazoo.delete_async(path)
            else:
                # A create that is still under way is answered before this listing.
                self.transport.kazoo.get_children_async(parent).rawlink(partial(self._delete_found, parent, prefix))

    def _delete_found(self, parent: str, prefix: str, listing: Any) -> None:
        if listing.successful():
            for name in listing.value:
                if name.startswith(prefix):
                    self.transport.kazoo.delete_async(f"{parent}/{name}")

    def health(self) -> Health:
        """Whether the client can do its work now."""
        session = self.session
        if self.runtime.forked():
            return Health(ok=False, state="forked", reason="this client belongs to the parent process")
        if session.closed:
            return Health(ok=False, state="closed", reason="the client is closed")
        if session.fatal is not None:
            return Health(ok=False, state="failed", reason=str(session.fatal))
        trouble = self.transport.last_error or "no server answers"
        connected = session.state is State.CONNECTED
        return Health(ok=connected, state=session.state.value, reason="" if connected else trouble)


def _borrowed_acl(kazoo: Any) -> tuple[Acl, ...]:
    """What its owner gives to all nodes that kazoo makes, ours get as well."""
    default = getattr(kazoo, "default_acl", None)
    return acl_tuple([Acl(entry.perms, entry.id.scheme, entry.id.id) for entry in default] if default else None)


@final
class _HideCredentials(logging.Filter):
    """kazoo logs each request at DEBUG, and the text of some has a password in it."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(
                f"{type(arg).__name__}(…)" if type(arg).__name__ in {"Auth", "SASL"} else arg for arg in record.args
            )
        return True


# Without logging set up by the application, a library is silent.
logging.getLogger("zkrecipes").addHandler(logging.NullHandler())
logging.getLogger("zkrecipes.kazoo").addFilter(_HideCredentials())


def _sasl(auth: tuple[Auth, ...]) -> dict[str, Any] | None:
    for entry in auth:
        if isinstance(entry, SaslDigest):
            return {
                "mechanism": "DIGEST-MD5",
                "username": entry.user,
                "password": entry.password,
                "service": entry.service,
                "principal": "zk-sasl-md5",
            }
        if not isinstance(entry, DigestAuth):
            options: dict[str, Any] = {"mechanism": "GSSAPI", "service": entry.service}
            return options if entry.principal is None else {**options, "principal": entry.principal}
    return None


def _tls(tls: Tls | None) -> dict[str, Any] | None:
    if tls is None:
        return None
    files = {"ca": tls.ca, "certfile": tls.cert, "keyfile": tls.key}
    return {
        "use_ssl": True,
        "verify_certs": True,
        "check_hostname": tls.check_hostname,
        "keyfile_password": tls.key_password,
        **{name: str(path) for name, path in files.items() if path is not None},
    }
