"""The client, for asyncio: the same names as zkrecipes.client, awaited.

The engine thread keeps the lease alive whatever the event loop does: a loop that is blocked costs no lock.
Callbacks run on the event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar, final

from zkrecipes.aio.handle import Handle, Opening
from zkrecipes.connection import Connection, Options
from zkrecipes.core import DEFAULT, Core, DefaultTimeout
from zkrecipes.errors import ForkedError
from zkrecipes.flow import Algorithm, run_async
from zkrecipes.handle import Registration
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

logger = logging.getLogger("zkrecipes.aio")


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
) -> Opening[Client]:
    """Connect to a ZooKeeper ensemble; await it, or use it with `async with`.

    Arguments and errors as of zkrecipes.connect.
    """
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

    async def begin() -> Client:
        connection = Connection(options, dispatch=_on_loop(asyncio.get_running_loop()))
        client = Client.made(connection)
        try:
            connection.start()
            await client.run(connection.connected(options))
        except BaseException:
            await client.close()
            raise
        return client

    return Opening(begin)


def _on_loop(loop: asyncio.AbstractEventLoop) -> Callable[[object, Callable[[], None]], None]:
    def run(callback: Callable[[], None]) -> None:
        try:
            callback()
        except Exception:
            logger.exception("A callback failed; the others go on")

    def dispatch(_key: object, callback: Callable[[], None]) -> None:
        # The loop runs what it is given in order, so callbacks of one key are serial.
        if not loop.is_closed():
            loop.call_soon_threadsafe(run, callback)

    return dispatch


@final
class Client:
    """One session. Tasks may share it; leaving its `async with` block closes it.

    `Client(kazoo_client)` borrows a started KazooClient, which it never stops.
    """

    core: Core
    aio: ClassVar[bool] = True

    def __init__(self, kazoo: KazooClient, *, namespace: str = "", default_timeout: Timeout = 30.0) -> None:
        loop = asyncio.get_running_loop()
        self._set_up(
            Connection(None, kazoo, namespace=namespace, default_timeout=default_timeout, dispatch=_on_loop(loop))
        )
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

    async def run(self, algorithm: Algorithm[T]) -> T:
        """Step an algorithm on the event loop until it returns. For recipes."""
        if self.core.runtime.forked():
            algorithm.close()
            message = "this client belongs to the parent process; make a new one after the fork"
            raise ForkedError(message)
        return await run_async(algorithm, self.core.runtime.lock, self.core.runtime.now)

    # --- operations: arguments and errors as of zkrecipes.Client ------------------------------------------------------

    async def create(
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
        """Create a node and return its path, with the sequence number if it is sequential."""
        return await self.run(
            self._operations.create(
                path, data, kind=kind, sequential=sequential, parents=parents, acl=acl, timeout=timeout
            )
        )

    async def get(self, path: str, *, timeout: Timeout | DefaultTimeout = DEFAULT) -> Node[bytes]:
        """Read a node."""
        return await self.run(self._operations.get(path, timeout=timeout))

    async def exists(self, path: str, *, timeout: Timeout | DefaultTimeout = DEFAULT) -> Stat | None:
        """A node's metadata, or None if it does not exist."""
        return await self.run(self._operations.exists(path, timeout=timeout))

    async def children(self, path: str, *, timeout: Timeout | DefaultTimeout = DEFAULT) -> list[str]:
        """The names of a node's children, sorted."""
        return await self.run(self._operations.children(path, timeout=timeout))

    async def set(
        self, path: str, data: bytes, *, version: int = -1, timeout: Timeout | DefaultTimeout = DEFAULT
    ) -> Stat:
        """Replace a node's data, if it is in `version` (-1: any), and return its new metadata."""
        return await self.run(self._operations.set(path, data, version=version, timeout=timeout))

    async def delete(self, path: str, *, version: int = -1, timeout: Timeout | DefaultTimeout = DEFAULT) -> None:
        """Delete a node, if it is in `version` (-1: any)."""
        await self.run(self._operations.delete(path, version=version, timeout=timeout))

    async def sync(self, path: str = "/", *, timeout: Timeout | DefaultTimeout = DEFAULT) -> None:
        """Bring the connected server up to the leader, so that a read that follows is not older than this call."""
        await self.run(self._operations.sync(path, timeout=timeout))

    def transaction(self) -> Transaction:
        """Several writes and checks, all or nothing. Commits when `async with` is left without an exception."""
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
        """Call `callback(state)` for each change, once each and in order, on the event loop."""
        self.core.session.check_open()
        return self.core.session.on_state(callback)

    def health(self) -> Health:
        """Whether a server answers, for health checks."""
        return self._connection.health()

    async def close(self) -> None:
        """End the session and every handle (reason CLOSED), within about two seconds. Idempotent."""
        # Shielded: a cancelled close would leave threads behind.
        await asyncio.shield(asyncio.to_thread(self._connection.close))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        namespace = self.core.namespace or "/"
        return f"<aio.Client session={self.session_id:#x} namespace={namespace} {self.core.session.state.value}>"


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

    async def commit(self, *, timeout: Timeout | DefaultTimeout = DEFAULT) -> list[Any]:
        """Apply it, once. Errors as of zkrecipes.Transaction."""
        self.results = await self._client.run(self._operations.commit(self.plan, timeout=timeout))
        return self.results

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            await self.commit()
        else:
            self.plan.close()
