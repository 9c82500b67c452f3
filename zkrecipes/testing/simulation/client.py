"""A simulated client: the library's own session on a transport that talks to the simulated servers.

The transport behaves as kazoo's: requests are written by a connection thread somewhat later than they were handed over
(and ask then whether they still may), answers come in order, and what stands in its queue when the connection ends
may be written on the next one, unless the session forbids it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, final

from zkrecipes.calls import Call
from zkrecipes.core import Core
from zkrecipes.heartbeat import Heartbeat
from zkrecipes.nodes import Nodes
from zkrecipes.port import Code, Exists, NodeEvent, Request, TransportEvents
from zkrecipes.session import Session
from zkrecipes.testing.simulation.ensemble import Ensemble
from zkrecipes.testing.simulation.server import Role, Server, ServerConnection
from zkrecipes.testing.simulation.tasks import Process, SimulatedRuntime
from zkrecipes.testing.simulation.world import Channel, Gate, World

__all__ = ["SimulatedClient", "SimulatedTransport"]


@final
class _Wire:
    """The client's end of one connection."""

    __slots__ = ("connection", "flight", "open", "server", "since", "to_client", "to_server", "transport", "welcome")

    def __init__(self, transport: SimulatedTransport, server: Server) -> None:
        self.transport = transport
        self.server = server
        self.open = True
        self.welcome = False
        self.flight: deque[tuple[int, Call[Any], bool]] = deque()  # number, call, whether it was withdrawn
        process, world = transport.process, transport.world
        outward, inward = transport.gates(server)
        self.to_server = Channel(world, outward, server, transport.delay)
        self.to_client = Channel(world, inward, process, transport.delay)
        self.connection = ServerConnection(server, self, self.to_server, self.to_client)
        self.since = process.now()
        self.to_server.send(self.connection.connect, transport.session_id, transport.timeout, transport.last_zxid)

    def welcomed(self, session: int, timeout: float, zxid: int) -> None:
        """The handshake's answer."""
        if self.open and self.transport.process.alive:
            self.welcome = True
            self.transport.welcomed(self, session, timeout, zxid)

    def replied(self, number: int, result: Any, code: int, index: int, zxid: int) -> None:
        """An answer."""
        if self.open and self.transport.process.alive:
            self.transport.replied(self, number, result, code, index, zxid)

    def notified(self, path: str, event: NodeEvent) -> None:
        """A watch has told something."""
        if self.open and self.transport.process.alive:
            self.transport.events.notified(path, event)

    def closed(self) -> None:
        """The connection has ended, or was refused."""
        if self.open and self.transport.process.alive:
            self.hang_up("closed by the server")

    def hang_up(self, why: str) -> None:
        """End it from this side."""
        if self.open:
            self.open = False
            self.to_client.drop_all()
            # What was sent before may still arrive at the server, first.
            self.to_server.send(self.connection.hang_up)
            self.transport.ended(self, why)


class SimulatedTransport:
    """A session's transport.

    Args:
        process: Whose it is.
        ensemble: The servers.
        events: The session.
        timeout: The session timeout that it asks for, in seconds.
        delay: Typical delay between client and server, in seconds.
        first: The server that it tries first.

    Attributes:
        stalled_until: Nothing is written before this time.
        began_at: What the server had applied when it answered the handshake: the zxid.
        lose: If set and true for an answered request, its reply is lost with the connection; then it is unset.
        on_answer: Called with the server and the request before each answer is told.
    """

    def __init__(  # noqa: PLR0917 - its surroundings
        self,
        process: Process,
        ensemble: Ensemble,
        events: TransportEvents,
        timeout: float,
        delay: float,
        first: Server | None = None,
    ) -> None:
        self.process = process
        self.world: World = process.world
        self.ensemble = ensemble
        self.events = events
        self.timeout = timeout
        self.delay = delay
        self.session_id = 0
        self.last_zxid = 0
        self.began_at = 0
        self.last_error = ""
        self.wire: _Wire | None = None
        self.stalled_until = 0.0
        self.sent = 0
        self.lose: Callable[[Request], bool] | None = None
        self.on_answer: Callable[[Server, Request], None] = lambda _server, _request: None
        self._gates: dict[int, tuple[Gate, Gate]] = {}
        self._order = list(ensemble.servers)
        self.world.random.shuffle(self._order)
        if first is not None:
            self._order.sort(key=lambda server: server is not first)
        self._outbox: deque[Call[Any]] = deque()
        self._failures = 0
        self._closed = False

    def gates(self, server: Server) -> tuple[Gate, Gate]:
        """The gates to a server and from it."""
        gates = self._gates.get(server.number)
        if gates is None:
            gates = self._gates[server.number] = (Gate(), Gate())
        return gates

    # --- for the session ----------------------------------------------------------------------------------------------

    @property
    def servers(self) -> int:
        """How many servers there are to choose from."""
        return len(self._order)

    def send(self, call: Call[Any]) -> None:
        """Put a request into the queue of the connection thread."""
        self._outbox.append(call)
        self.process.later(0.001 * self.world.chance(), self._write)

    def reconnect(self) -> None:
        """Drop the connection and make a new one."""
        wire = self.wire
        if wire is not None:
            self.process.later(0.001 * self.world.chance(), wire.hang_up, "made anew")

    # --- the connection thread ----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to connect."""
        self.process.later(0.01 * self.world.chance(), self._connect)

    def close(self) -> None:
        """Close the session and the connection."""
        self._closed = True
        wire = self.wire
        if wire is not None:
            wire.to_server.send(wire.connection.end_session)
            wire.hang_up("closed")

    def _connect(self) -> None:
        if self.wire is not None or self._closed:
            return
        server = self._order[0]
        self.wire = wire = _Wire(self, server)
        if server.role is Role.DOWN:
            self.world.at(self.delay * self.world.chance(), wire.closed)
        limit = self.timeout / 3 / len(self._order)
        self.process.later(limit, self._give_up, wire)

    def _give_up(self, wire: _Wire) -> None:
        if wire.open and not wire.welcome:
            wire.hang_up("no answer to the handshake")

    def welcomed(self, wire: _Wire, session: int, timeout: float, zxid: int) -> None:
        """A handshake was answered."""
        self._failures = 0
        self.last_zxid = max(self.last_zxid, zxid)
        if not session:
            self.world.note(self.process.name, "hears that session %d is over", self.session_id)
            self.session_id = 0
            self._failures = -1  # the same server again, at once
            self.events.expired()
            wire.hang_up("the session is over")
            return
        self.world.note(self.process.name, "is connected to %s in session %d", wire.server.name, session)
        self.session_id = session
        self.began_at = zxid
        self.last_error = ""
        self.events.connected(session, timeout, wire.since)
        for _ in self._outbox:
            self.process.later(0.001 * self.world.chance(), self._write)

    def _write(self) -> None:
        wire = self.wire
        if wire is None or not wire.welcome or not wire.open or not self._outbox:
            return
        wait = self.stalled_until - self.world.now
        if wait > 0:
            self.process.later(wait, self._write)
            return
        call = self._outbox.popleft()
        request: Request = call.request
        withdrawn = not self.events.may_write(call)
        if withdrawn:
            request = Exists("/")
        self.sent += 1
        self.world.note(self.process.name, "sends %s", request)
        wire.flight.append((self.sent, call, withdrawn))
        wire.to_server.send(wire.connection.request, self.sent, request)

    def replied(  # noqa: PLR0917 - the fields of a reply
        self, wire: _Wire, number: int, result: Any, code: int, index: int, zxid: int
    ) -> None:
        """An answer has come."""
        sent, call, withdrawn = wire.flight[0]
        if sent != number:
            message = "the model is wrong: an answer out of order"
            raise RuntimeError(message)
        if not withdrawn and self.lose is not None and self.lose(call.request):
            self.lose = None
            self.world.note(self.process.name, "loses the reply to %s", call.request)
            wire.hang_up("lost a reply")
            return
        wire.flight.popleft()
        if withdrawn:
            self.events.dropped(call)
            return
        self.on_answer(wire.server, call.request)
        self.last_zxid = max(self.last_zxid, zxid)
        if code == 0:
            self.world.note(self.process.name, "hears %s", result)
            self.events.answered(call, result)
        elif code == Code.SESSION_EXPIRED:
            self.events.dropped(call)
        else:
            self.world.note(self.process.name, "is refused %s (%d)", call.request, code)
            self.events.refused(call, code, index)

    def ended(self, wire: _Wire, why: str) -> None:
        """A connection has ended."""
        if wire is not self.wire:
            return
        self.wire = None
        self.last_error = why
        self._failures += 1
        if wire.welcome:
            self.world.note(self.process.name, "has lost its connection to %s: %s", wire.server.name, why)
            if self.world.chance() < 0.5:
                outbox, self._outbox = self._outbox, deque()
                for call in outbox:
                    self.events.dropped(call)
            while wire.flight:
                self.events.dropped(wire.flight.popleft()[1])
            self.events.disconnected()
        if self._failures > 0:
            self._order.append(self._order.pop(0))
        # The first attempt at once, then a pause after each round over the servers.
        rounds = max(0, self._failures - 1) // len(self._order)
        pause = 0.005 if not rounds or self._failures % len(self._order) else min(0.1 * rounds, 0.5)
        self.process.later(pause * (0.5 + self.world.chance()), self._connect)


@final
class SimulatedClient:
    """A process with a client of this library.

    Args:
        ensemble: The servers.
        name: For the trace.
        timeout: The session timeout, in seconds.
        delay: Typical delay to and from a server, in seconds.
        rate: How fast its clock runs.
        server_tick: As of connect().
        first: The server that it tries first; drawn if None.

    Attributes:
        core: What recipes take.
        runtime: To start algorithms.
        process: To freeze or end it.
        transport: Its connection.
    """

    def __init__(
        self,
        ensemble: Ensemble,
        name: str,
        *,
        timeout: float = 4.0,
        delay: float = 0.002,
        rate: float = 1.0,
        server_tick: float | None = None,
        first: Server | None = None,
    ) -> None:
        self.name = name
        self.ensemble = ensemble
        self.world = ensemble.world
        self.process = Process(self.world, name, rate)
        self.runtime = SimulatedRuntime(self.process)
        self.session = Session(self.runtime, server_tick=server_tick)
        self.transport = SimulatedTransport(self.process, ensemble, self.session, timeout, delay, first)
        self.session.transport = self.transport
        self.core = Core(Nodes(self.session), identity=name)
        self.runtime.spawn(Heartbeat(self.session).keep(), "heartbeat")
        self.runtime.spawn(self.core.nodes.sweep(), "sweep")
        self.transport.start()

    def end(self) -> None:
        """Forget everything that it was doing, at the end of a schedule."""
        self.runtime.end()

    def freeze(self, seconds: float) -> None:
        """As SIGSTOP, and SIGCONT after so many seconds. Its kernel goes on: bytes wait in the socket."""
        self.world.note(self.name, "is frozen for %.2f s", seconds)
        self.process.freezes += 1
        self.process.frozen_until = max(self.process.frozen_until, self.world.now + seconds)

    def crash(self, *, power: bool) -> None:
        """As SIGKILL; with `power`, the whole machine is gone, and nobody tells the server."""
        self.world.note(self.name, "loses its power" if power else "is killed")
        self.process.alive = False
        wire = self.transport.wire
        if wire is not None and not power:
            wire.to_server.send(wire.connection.hang_up)

    def cut(self, *, lose: bool = True) -> None:
        """End the connection; with `lose`, what is on its way is lost on both sides."""
        wire = self.transport.wire
        if wire is not None:
            self.world.note(self.name, "is cut from %s", wire.server.name)
            if lose:
                wire.to_server.drop_all()
                wire.connection.hang_up()
            wire.hang_up("connection reset")

    def isolate(self, seconds: float, *, out: bool = True, back: bool = True, server: Server | None = None) -> None:
        """Shut the gates to all servers (or one), from them, or both, for a while. No side is told."""
        text = "hears and is heard no more" if out and back else "is heard no more" if out else "hears nothing"
        self.world.note(
            self.name, "%s for %.2f s (%s)", text, seconds, "all servers" if server is None else server.name
        )
        until = self.world.now + seconds
        for each in self.ensemble.servers if server is None else [server]:
            outward, inward = self.transport.gates(each)
            if out:
                outward.shut_until = max(outward.shut_until, until)
            if back:
                inward.shut_until = max(inward.shut_until, until)

    def heal(self) -> None:
        """Everything between it and the servers works again."""
        self.transport.lose = None
        self.transport.on_answer = lambda _server, _request: None
        self.transport.stalled_until = min(self.transport.stalled_until, self.world.now)
        for server in self.ensemble.servers:
            for gate in self.transport.gates(server):
                gate.shut_until = min(gate.shut_until, self.world.now)
