"""The client for threads: one session with a ZooKeeper ensemble, typed operations, transactions.

Promises: a call never outlives its timeout; nothing is sent that the caller was told had failed; a write is never
repeated blindly. `state` and its listeners tell CONNECTED, SUSPENDED and LOST once each and in order, and LOST comes
from our own clock, whether or not a server answers again.

Does not promise: that reads are the newest (a server may lag behind the leader; `sync` first, where it matters).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar, final

from zkrecipes.connection import Connection, Options
from zkrecipes.core import DEFAULT, Core, DefaultTimeout
from zkrecipes.errors import ForkedError
from zkrecipes.flow import Algorithm, refuse_event_loop, run_blocking
from zkrecipes.handle import Handle, Registration
from zkrecipes.health import Health
from zkrecipes.observe import Observer
from zkrecipes.operations import Node, Operations, Plan
from zkrecipes.port import Acl, Kind, Stat, State
from zkrecipes.settings import Auth, Retry, Tls
from zkrecipes.timing import Timeout

if TYPE_CHECKING:
    from kazoo.client import KazooClient

__all__ = ["Client", "Transaction", "connect"]

T = TypeVar("T")


def connect(
    hosts: str | Sequence[str],
    *,
    namespace: str = "",
    session_timeout: Timeout = 10.0,
    connect_timeout: Timeout = 15.0,
    default_timeout: Timeout = 30.0,
    auth: Auth | Sequence[Auth] = (),
    tls: Tls | None = None,
    acl: Sequence[Acl] | None = None,
    retry: Retry | None = None,
    observer: Observer | None = None,
    server_tick: float | None = None,
    drift: float = 0.01,
    required: bool = True,
) -> Client:
    """Connect to a ZooKeeper ensemble.

    Args:
        hosts: "host:port,host:port", or a sequence of "host:port".
        namespace: Put before every path of this client; made when it is first needed.
        session_timeout: Seconds of silence after which the servers end the session. They may negotiate it.
        connect_timeout: Longest wait for the first connection, in seconds.
        default_timeout: For verbs that do not wait by nature, in seconds.
        auth: DigestAuth, SaslDigest or SaslGssapi, or several.
        tls: For the servers' secure port.
        acl: For every node and parent that we create; open to everybody where None.
        retry: How requests that were certainly not applied are repeated, and how attempts to connect are spaced.
        observer: Told of requests, states and holds, for metrics and traces.
        server_tick: The servers' tickTime in seconds, if you know it: leases can then last longer.
        drift: The largest difference in speed between our clock and the servers', as a part of 1.
        required: Whether a server must answer within `connect_timeout`. If not, the client is returned without a
            session (`state` is LOST), goes on connecting in the background, and its verbs are bounded by their own
            timeouts: for services that can start without ZooKeeper, as with a cached Config.

    Raises:
        UnavailableError: No server answered in time, and `required` is True.
        AuthenticationError: Credentials or certificates were refused.
        ValueError: An argument is not valid.
    """
    refuse_event_loop("zkrecipes.connect()")
    options = Options.checked(
        hosts,
        namespace=namespace,
        session_timeout=session_timeout,
        connect_timeout=connect_timeout,
        default_timeout=default_timeout,
        auth=auth,
        tls=tls,
        acl=acl,
        retry=retry,
        server_tick=server_tick,
        drift=drift,
        observer=observer,
        required=required,
    )
    connection = Connection(options)
    client = Client.made(connection)
    try:
        connection.start()
        client.run(connection.connected(options))
    except BaseException:
        client.close()
        raise
    return client


@final
class Client:
    """One session. Threads may share it; leaving its `with` block closes it.

    `connect` makes one. `Client(kazoo_client)` borrows a started KazooClient, which it never stops: what that weakens
    is told on the page on sessions.

    Args:
        kazoo: The started KazooClient.
        namespace: Put before every path, below the KazooClient's own chroot.
        default_timeout: For verbs that do not wait by nature, in seconds.
    """

    core: Core
    aio: ClassVar[bool] = False

    def __init__(self, kazoo: KazooClient, *, namespace: str = "", default_timeout: Timeout = 30.0) -> None:
        self._set_up(Connection(None, kazoo, namespace=namespace, default_timeout=default_timeout))
        self._connection.start()

    @classmethod
    def made(cls, connection: Connection) -> Self:
        """For connect()."""
        client = cls.__new__(cls)
        client._set_up(connection)  # noqa: SLF001 - its own class
        return client

    def _set_up(self, connection: Connection) -> None:
        self._connection = connection
        self._operations = Operations(connection.core)
        self.core = connection.core

    def run(self, algorithm: Algorithm[T]) -> T:
        """Step an algorithm in the calling thread until it returns. For recipes."""
        if self.core.runtime.forked():
            # Not even the step lock may be taken: a thread of the parent may have held it when we were forked.
            algorithm.close()
            message = "this client belongs to the parent process; make a new one after the fork"
            raise ForkedError(message)
        return run_blocking(algorithm, self.core.runtime.lock, self.core.runtime.now)

    # --- operations ---------------------------------------------------------------------------------------------------

    def create(
        self,
        path: str,
        data: bytes = b"",
        *,
        kind: Kind = Kind.PERSISTENT,
        sequential: bool = False,
        parents: bool = False,
        acl: Sequence[Acl] | None = None,
        timeout: Timeout | DefaultTimeout = DEFAULT,
    ) -> str:
        """Create a node and return its path, with the sequence number if it is sequential.

        Args:
            path: Below the namespace.
            data: At most about one mebibyte, with the path.
            kind: Persistent, ephemeral or container.
            sequential: Whether the server appends a number.
            parents: Whether missing parents are made, as persistent nodes.
            acl: Instead of the client's.
            timeout: Seconds for the whole call.

        Raises:
            NodeExistsError: It exists already.
            NodeNotFoundError: The parent does not exist.
            PayloadTooLargeError: It is too large; nothing was sent.
            UnavailableError: No server answered in time; it was not created.
            OutcomeUnknownError: The reply was lost; it may have been created.
        """
        return self.run(
            self._operations.create(
                path, data, kind=kind, sequential=sequential, parents=parents, acl=acl, timeout=timeout
            )
        )

    def get(self, path: str, *, timeout: Timeout | DefaultTimeout = DEFAULT) -> Node[bytes]:
        """Read a node.

        Raises:
            NodeNotFoundError: It does not exist.
            UnavailableError: No server answered in time.
        """
        return self.run(self._operations.get(path, timeout=timeout))

    def exists(self, path: str, *, timeout: Timeout | DefaultTimeout = DEFAULT) -> Stat | None:
        """A node's metadata, or None if it does not exist."""
        return self.run(self._operations.exists(path, timeout=timeout))

    def children(self, path: str, *, timeout: Timeout | DefaultTimeout = DEFAULT) -> list[str]:
        """The names of a node's children, sorted.

        Raises:
            NodeNotFoundError: It does not exist.
        """
        return self.run(self._operations.children(path, timeout=timeout))

    def set(self, path: str, data: bytes, *, version: int = -1, timeout: Timeout | DefaultTimeout = DEFAULT) -> Stat:
        """Replace a node's data, if it is in `version` (-1: any), and return its new metadata.

        Raises:
            NodeNotFoundError: It does not exist.
            ConflictError: It is in another version.
            PayloadTooLargeError: It is too large; nothing was sent.
            OutcomeUnknownError: The reply was lost; it may have been set.
        """
        return self.run(self._operations.set(path, data, version=version, timeout=timeout))

    def delete(self, path: str, *, version: int = -1, timeout: Timeout | DefaultTimeout = DEFAULT) -> None:
        """Delete a node, if it is in `version` (-1: any).

        Raises:
            NodeNotFoundError: It does not exist.
            NotEmptyError: It has children.
            ConflictError: It is in another version.
            OutcomeUnknownError: The reply was lost; it may have been deleted.
        """
        self.run(self._operations.delete(path, version=version, timeout=timeout))

    def sync(self, path: str = "/", *, timeout: Timeout | DefaultTimeout = DEFAULT) -> None:
        """Bring the connected server up to the leader, so that a read that follows is not older than this call."""
        self.run(self._operations.sync(path, timeout=timeout))

    def transaction(self) -> Transaction:
        """Several writes and checks, all or nothing. Commits when its `with` block is left without an exception."""
        return Transaction(self, self._operations)

    # --- state --------------------------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """CONNECTED, SUSPENDED (what is held is uncertain) or LOST (what was held is lost)."""
        return self.core.session.state

    @property
    def session_id(self) -> int:
        """The id of the present session; 0 if there is none."""
        return self.core.session.id

    @property
    def session_timeout(self) -> float:
        """The negotiated session timeout, in seconds."""
        return self.core.session.timeout

    @property
    def client_id(self) -> tuple[int, bytes] | None:
        """Session id and password while connected, for tools that take a session over."""
        return self._connection.transport.client_id

    def on_state(self, callback: Callable[[State], None]) -> Registration:
        """Call `callback(state)` for each change, once each and in order, on the dispatcher."""
        self.core.session.check_open()
        return self.core.session.on_state(callback)

    def health(self) -> Health:
        """Whether a server answers, for health checks."""
        return self._connection.health()

    def close(self) -> None:
        """End the session and every handle (reason CLOSED), within about two seconds. Idempotent, from any thread."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        namespace = self.core.namespace or "/"
        return f"<Client session={self.session_id:#x} namespace={namespace} {self.core.session.state.value}>"


@final
class Transaction:
    """Several writes and checks, all or nothing.

    Attributes:
        results: After the commit, one an operation: a path for create, a Stat for set, None for the others.
    """

    def __init__(self, client: Client, operations: Operations) -> None:
        self._client = client
        self._operations = operations
        self.plan = Plan(operations)
        self.results: list[Any] = []
        # The plan's verbs are ours.
        self.create = self.plan.create
        self.set = self.plan.set
        self.delete = self.plan.delete
        self.check = self.plan.check

    def guard(self, handle: Handle) -> None:
        """Refuse the whole transaction unless the handle's node exists; the same as `handle.guard(tx)`."""
        handle.guard(self)

    def commit(self, *, timeout: Timeout | DefaultTimeout = DEFAULT) -> list[Any]:
        """Apply it, once.

        Raises:
            TransactionError: An operation was refused, so none was applied.
            LostError: A guard's handle has been lost; nothing was sent.
            UnavailableError: No server answered in time; nothing was applied.
            OutcomeUnknownError: The reply was lost; all of it may have been applied.
        """
        self.results = self._client.run(self._operations.commit(self.plan, timeout=timeout))
        return self.results

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.commit()
        else:
            self.plan.close()
