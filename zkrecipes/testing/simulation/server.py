"""One server: its log, its tree, its client connections and their watches. Who leads is the business of quorum.py.

Reads are answered from the server's own tree, behind the earlier writes of the same connection; writes and syncs go to
the leader. A server that lags applies what is committed later than others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol, final

from zkrecipes.port import (
    AddWatch,
    Children,
    Code,
    Exists,
    Get,
    Multi,
    NodeEvent,
    ReadMany,
    Refused,
    RemoveWatches,
    Request,
    Sync,
    is_write,
)
from zkrecipes.testing.simulation.tree import Change, Tree
from zkrecipes.testing.simulation.watchers import Watchers
from zkrecipes.testing.simulation.world import Channel, Pausable, World

if TYPE_CHECKING:
    from zkrecipes.testing.simulation.ensemble import Ensemble
    from zkrecipes.testing.simulation.following import Following
    from zkrecipes.testing.simulation.quorum import Leading

__all__ = ["ClientEnd", "Operation", "Role", "Server", "ServerConnection", "Txn"]


class ClientEnd(Protocol):
    """What a server calls at the other end of a client's connection."""

    def welcomed(self, session: int, timeout: float, zxid: int) -> None:
        """The handshake's answer; session 0: it is over."""

    def replied(self, number: int, result: Any, code: int, index: int, zxid: int) -> None:
        """The answer of a request; code 0: done."""

    def notified(self, path: str, event: NodeEvent) -> None:
        """A watch has told something."""

    def closed(self) -> None:
        """The server has closed the connection."""


class Role(Enum):
    """What a server is doing."""

    DOWN = "down"
    LOOKING = "looking"
    FOLLOWING = "following"
    LEADING = "leading"


@final
class Txn:
    """One entry of the log."""

    __slots__ = ("changes", "code", "index", "kind", "origin", "session", "time", "timeout", "zxid")

    def __init__(self, zxid: int, time: int, kind: str, session: int) -> None:
        self.zxid = zxid
        self.time = time
        self.kind = kind  # "write", "open", "close" or "error"
        self.session = session
        self.changes: tuple[Change, ...] = ()
        self.code = 0
        self.index = -1
        self.timeout = 0.0
        self.origin: Operation | None = None


@final
class Operation:
    """One request at a server."""

    __slots__ = ("code", "connection", "done", "index", "number", "request", "result", "session")

    def __init__(self, connection: ServerConnection, number: int, request: Request | None) -> None:
        self.connection = connection
        self.session = connection.session
        self.number = number
        self.request = request
        self.done = False
        self.result: Any = None
        self.code = 0
        self.index = -1


@final
class ServerConnection:
    """A server's end of a client's connection. What is sent over the client's channel arrives here."""

    __slots__ = ("alive", "client", "pending", "server", "session", "timeout", "to_client", "to_server")

    def __init__(self, server: Server, client: ClientEnd, to_server: Channel, to_client: Channel) -> None:
        self.server = server
        self.client = client
        self.to_server = to_server
        self.to_client = to_client
        self.session = 0
        self.timeout = 0.0
        self.pending: deque[Operation] = deque()
        self.alive = True

    def connect(self, session: int, timeout: float, last_zxid: int) -> None:
        """A handshake has arrived."""
        self.server.accept(self, session, timeout, last_zxid)

    def request(self, number: int, request: Request) -> None:
        """A request has arrived."""
        if self.alive:
            self.server.serve(self, Operation(self, number, request))

    def end_session(self) -> None:
        """The client wants its session closed."""
        if self.alive:
            self.server.end_session(self.session)

    def hang_up(self) -> None:
        """The client has closed it."""
        self.alive = False
        self.to_client.drop_all()
        self.server.forget(self)

    def close(self) -> None:
        """Close it from this side."""
        if self.alive:
            self.alive = False
            self.to_server.drop_all()
            self.to_client.send(self.client.closed)
            self.server.forget(self)

    def welcome(self) -> None:
        """The session is valid: from now on requests are served."""
        if self.alive:
            self.to_client.send(self.client.welcomed, self.session, self.timeout, self.server.zxid)

    def reject(self) -> None:
        """The session is over."""
        if self.alive:
            self.to_client.send(self.client.welcomed, 0, 0.0, self.server.zxid)
            self.close()

    def drain(self) -> None:
        """Answer in order what can be answered."""
        pending, server = self.pending, self.server
        while pending and self.alive:
            operation = pending[0]
            if not operation.done:
                request = operation.request
                if request is None or isinstance(request, Sync) or is_write(request):
                    return
                server.read(operation)
            pending.popleft()
            if operation.code == Code.SESSION_MOVED:
                self.close()
                return
            self.to_client.send(
                self.client.replied, operation.number, operation.result, operation.code, operation.index, server.zxid
            )
            if operation.code == Code.UNIMPLEMENTED:
                self.close()


class Server(Pausable):
    """One server.

    Attributes:
        log: What it has accepted; the first `committed` entries are committed, the first `applied` are in `tree`.
        lag: Seconds for which it holds back what is committed.
        epoch: The newest epoch whose history it has accepted.
        promised: The newest epoch that it has voted for.
    """

    def __init__(self, ensemble: Ensemble, number: int) -> None:
        self.ensemble = ensemble
        self.world: World = ensemble.world
        self.number = number
        self.name = f"server{number}"
        self.role = Role.DOWN
        self.epoch = 0
        self.promised = 0
        self.log: list[Txn] = []
        self.committed = 0
        self.applied = 0
        self.zxid = 0
        self.lag = 0.0
        self.tree = Tree()
        self.serving = False
        self.leading: Leading | None = None
        self.following: Following | None = None
        self.touched: dict[int, None] = {}
        self.connections: dict[ServerConnection, None] = {}
        self.watchers = Watchers()

    def later(self, delay: float, what: Callable[..., None], *args: Any) -> None:
        """A timer of this server's: while it is frozen it does not run out."""
        self.world.at(delay, self._due, what, args)

    def _due(self, what: Callable[..., None], args: tuple[Any, ...]) -> None:
        wait = self.frozen_until - self.world.now
        if wait > 0:
            self.world.at(wait + self.wake_spread * self.world.chance(), self._due, what, args)
        else:
            what(*args)

    # --- clients ------------------------------------------------------------------------------------------------------

    def accept(self, connection: ServerConnection, session: int, timeout: float, last_zxid: int) -> None:
        """A client wants a session, or to take one up again."""
        if not self.serving or last_zxid > self.zxid:
            # A client that has seen more than this server would see time run backwards.
            self.connections[connection] = None
            connection.close()
            return
        tick = self.ensemble.tick
        connection.timeout = min(max(timeout, 2 * tick), 20 * tick)
        if session:
            for old in [other for other in self.connections if other.session == session]:
                old.close()
        self.connections[connection] = None
        connection.session = session
        if session:
            self._touch(session)
            if self.leading is not None:
                self.revalidated(connection, valid=self.leading.revalidate(session, self))
            elif self.following is not None:
                self.following.ask(self.following.leading.revalidate_for, self.following.link, connection)
        else:
            connection.session = self.ensemble.new_session()
            self.forward(Operation(connection, 0, None))

    def revalidated(self, connection: ServerConnection, *, valid: bool) -> None:
        """The leader has said whether a session is alive."""
        if valid and self.serving:
            connection.welcome()
        elif connection.alive:
            connection.reject()

    def serve(self, connection: ServerConnection, operation: Operation) -> None:
        """A request has arrived."""
        self._touch(connection.session)
        request = operation.request
        if self.ensemble.old_servers and isinstance(request, AddWatch | ReadMany) and connection.pending:
            # An old server refuses what it does not know at once, past what is before it; clients then hang up.
            connection.close()
            return
        connection.pending.append(operation)
        if request is not None and (isinstance(request, Sync) or is_write(request)):
            self.forward(operation)
        connection.drain()

    def forward(self, operation: Operation) -> None:
        """To the leader, which may be this server."""
        if self.leading is not None:
            self.leading.submit(operation, self)
        elif self.following is not None:
            self.following.ask(self.following.leading.submit, operation, self.following.link)

    def end_session(self, session: int) -> None:
        """A client wants its session closed."""
        if self.leading is not None:
            self.leading.close_session(session)
        elif self.following is not None:
            self.following.ask(self.following.leading.close_session, session)

    def _touch(self, session: int) -> None:
        if self.leading is not None:
            self.leading.touch(session)
        else:
            self.touched[session] = None

    def complete(self, operation: Operation, result: Any, code: int = 0, index: int = -1) -> None:
        """A write has been applied here, or a sync has caught up."""
        if not operation.connection.alive:
            return
        operation.done = True
        operation.result, operation.code, operation.index = result, code, index
        operation.connection.drain()

    def read(self, operation: Operation) -> None:
        """Answer from our own tree."""
        request, connection = operation.request, operation.connection
        match request:
            case Get() | Exists() | Children():
                operation.result, operation.code = self._read_one(request)
                if request.watch and (operation.code == 0 or isinstance(request, Exists)):
                    self.watchers.once(request.path, connection, children=isinstance(request, Children))
            case AddWatch() | ReadMany() if self.ensemble.old_servers:
                operation.code = Code.UNIMPLEMENTED
            case ReadMany():
                answers = [self._read_one(read) for read in request.reads]
                operation.result = tuple(Refused(code) if code else result for result, code in answers)
            case AddWatch():
                self.watchers.always(request.path, connection)
            case RemoveWatches():
                if not self.watchers.remove(request.path, connection, request.kind):
                    operation.code = Code.NO_WATCHER

    def _read_one(self, request: Get | Exists | Children) -> tuple[Any, int]:
        node = self.tree.nodes.get(request.path)
        if isinstance(request, Exists):
            return None if node is None else node.stat(), 0
        if node is None:
            return None, Code.NO_NODE
        return list(node.children) if isinstance(request, Children) else (node.data, node.stat()), 0

    def forget(self, connection: ServerConnection) -> None:
        """A connection has ended."""
        self.connections.pop(connection, None)
        self.watchers.forget(connection)

    def close_clients(self) -> None:
        """Close all client connections."""
        self.serving = False
        self.touched = {}
        self.watchers.clear()
        for connection in list(self.connections):
            connection.close()

    # --- the log ------------------------------------------------------------------------------------------------------

    def commit(self, count: int) -> None:
        """The first `count` entries of the log are committed."""
        if count > self.committed:
            self.committed = count
            if self.lag and self.leading is None:
                self.later(self.lag * self.world.chance(), self.apply, count)
            else:
                self.apply(count)

    def apply(self, count: int) -> None:
        """Apply what is committed, up to an entry."""
        while self.applied < min(count, self.committed):
            txn = self.log[self.applied]
            self.applied += 1
            self._apply(txn)

    def _apply(self, txn: Txn) -> None:
        self.zxid = txn.zxid
        self.ensemble.applied_by(self, txn)
        tree = self.tree
        if txn.kind == "open":
            tree.sessions[txn.session] = txn.timeout
        origin = txn.origin
        ours = origin is not None and origin.connection.server is self
        answers: list[Any] = []
        for change in txn.changes:
            tree.apply(change, txn.zxid, txn.time, planning=False)
            if ours and origin is not None:
                # At once: a later operation of the same transaction may change the node again, or delete it.
                answers.append(tree.answer(change, alone=not isinstance(origin.request, Multi)))
            self.watchers.fire(change)
        if txn.kind == "close":
            tree.sessions.pop(txn.session, None)
            for connection in [each for each in self.connections if each.session == txn.session]:
                connection.close()
        elif ours and origin is not None:
            self._answer(txn, origin, answers)

    def _answer(self, txn: Txn, operation: Operation, answers: list[Any]) -> None:
        if txn.kind == "open":
            operation.connection.welcome()
        elif txn.kind == "error":
            self.complete(operation, None, txn.code, txn.index)
        else:
            self.complete(operation, tuple(answers) if isinstance(operation.request, Multi) else answers[0])
