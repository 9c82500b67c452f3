"""A TCP proxy in front of a server, that breaks the network as a test tells it to.

It knows how ZooKeeper cuts its stream into requests and replies, so that it can lose the reply of one chosen request,
hold a request or a reply, and count what a client sends. It runs on a thread of its own; every verb returns when it has
taken effect, and may be called from any thread.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection
from typing import Final, Literal, Protocol, Self, final

from zkrecipes.testing._pipe import Direction
from zkrecipes.testing._relay import Relay
from zkrecipes.testing.frames import matching
from zkrecipes.testing.ports import LOOPBACK, ReservedPort, reserve_port
from zkrecipes.testing.traps import Gate, Trap

__all__ = ["FaultProxy", "Target"]

_DIRECTIONS: Final[dict[str, frozenset[Direction]]] = {
    "both": frozenset({"to_server", "to_client"}),
    "to_server": frozenset({"to_server"}),
    "to_client": frozenset({"to_client"}),
}


class _HasHosts(Protocol):
    @property
    def hosts(self) -> str:
        """Where it listens."""


Target = str | tuple[str, int] | _HasHosts
"""Where a proxy leads: "host:port", a pair, or a server (or another proxy)."""


@final
class FaultProxy:
    """A proxy on 127.0.0.1 that listens from its construction until `close`.

    Faults of the network (`cut` apart) last until `heal`; traps and gates act once and stand until they have acted.
    Each of several proxies before one server has faults of its own: give each client its proxy to cut off only one.

    Args:
        target: The server.
        listen_port: 0 chooses a port. It stays ours while connections are refused.
        patience: Seconds for which a server that refuses connections is tried again while the client waits. With 0 the
            client's connection, which was accepted before, is reset at once.
        opaque: True reads no frames: for quorum ports and TLS. Nothing is counted then, and traps never act.

    Raises:
        OSError: The port is taken.
    """

    host: str = LOOPBACK

    def __init__(self, target: Target, listen_port: int = 0, *, patience: float = 0.0, opaque: bool = False) -> None:
        self._closed = False
        self._owner = os.getpid()
        self._reserved = ReservedPort(listen_port, None) if listen_port else reserve_port()
        try:
            self._relay = Relay(_address(target), self._reserved.number, framed=not opaque, patience=patience)
        except BaseException:
            self._reserved.release()
            raise

    def __repr__(self) -> str:
        host, port = self._relay.target
        return f"<FaultProxy {self.hosts} to {host}:{port}{' closed' if self._closed else ''}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def port(self) -> int:
        """Where it listens on 127.0.0.1."""
        return self._reserved.number

    @property
    def hosts(self) -> str:
        """The address to connect to, "127.0.0.1:port"."""
        return f"{self.host}:{self.port}"

    @property
    def connections(self) -> int:
        """How many connections go through it now."""
        return self._relay.do(lambda: len(self._relay.links))

    # -- faults of the network

    def cut(self, side: Literal["both", "client"] = "both") -> None:
        """Cut all connections now; new ones are welcome.

        Args:
            side: "both" resets both ends, and what was under way or held is lost. "client" hangs up on the client
                only: what it has sent reaches the server, the held request included, when its gate opens.
        """
        if side not in {"both", "client"}:
            message = f"side must be 'both' or 'client', not {side!r}"
            raise ValueError(message)
        self._relay.do(self._relay.cut if side == "both" else self._relay.hang_up)

    def refuse(self) -> None:
        """Cut all connections and refuse new ones, until `heal`."""
        self._relay.do(self._relay.refuse)

    def delay(self, seconds: float, direction: Literal["both", "to_server", "to_client"] = "both") -> None:
        """Let everything take longer by `seconds` each way, so a round trip by twice that, until `heal`.

        Replaces an earlier delay; 0 ends it. What is under way already keeps the delay that it was sent with.
        """
        if not seconds >= 0:
            message = f"seconds must be 0 or more, not {seconds!r}"
            raise ValueError(message)
        directions = _directions(direction)
        delays: dict[Direction, float] = {each: seconds if each in directions else 0.0 for each in _DIRECTIONS["both"]}
        self._relay.do(lambda: self._relay.delay(delays))

    def blackhole(self, direction: Literal["both", "to_server", "to_client"] = "both") -> None:
        """Pass nothing on, the end of a connection included, until `heal`. Connections stay open.

        As in a network that loses packets, senders notice nothing. New connections are taken by the kernel and get no
        answer. After `heal`, what was sent on the old connections arrives (as by TCP's own repetition), even if its
        sender has hung up since; to lose it, `cut` before. Connections that were opened after the black hole, and so
        would not exist in a real network, are reset by `heal`; with "to_client" they are made as usual.
        """
        directions = _directions(direction)
        self._relay.do(lambda: self._relay.block(directions))

    def half_close(self, direction: Direction = "to_client") -> None:
        """End one direction of every connection as its sender would (FIN), while the other goes on."""
        if direction not in _DIRECTIONS["both"]:
            message = f"direction must be 'to_server' or 'to_client', not {direction!r}"
            raise ValueError(message)
        self._relay.do(lambda: self._relay.half_close(direction))

    def heal(self) -> None:
        """End `refuse`, `delay` and `blackhole`. Traps and gates stay."""
        self._relay.do(self._relay.heal)

    def retarget(self, target: Target, *, cut: bool = False) -> None:
        """Lead new connections to another server; with `cut`, old ones are cut, so that clients come again."""
        address = _address(target)

        def retarget() -> None:
            self._relay.target = address
            if cut:
                self._relay.cut()

        self._relay.do(retarget)

    def rewrite(self, old: bytes, new: bytes) -> None:
        """In the first bytes that each new connection sends to the server, put `new` for `old`, of the same length.

        For protocols that tell an address in their greeting, which would lead past the proxy.
        """
        if len(old) != len(new):
            message = f"old and new must have the same length, not {len(old)} and {len(new)} bytes"
            raise ValueError(message)
        self._relay.do(lambda: self._relay.set_rewrite(old, new))

    # -- faults at one request

    def drop_reply(self, operation: str | Collection[str], nth: int = 1) -> Trap:
        """Let the nth such request through, swallow the server's reply, and then cut that connection.

        Args:
            operation: A name as in `frames.OPERATIONS` ("create", "create2", "createContainer", "delete", "multi",
                "getChildren", "getData", "setData", "exists" ...), a group ("any create", "any children", "any write",
                "any"), or several of these.
            nth: Counted from now on, over all connections.
        """
        trap = Trap(matching(operation), nth, f"drop the reply of {operation!r} number {nth}")
        self._relay.do(lambda: self._relay.traps.append(trap))
        return trap

    def hold_reply(self, operation: str | Collection[str], nth: int = 1) -> Gate:
        """Hold the server's reply to the nth such request, until the gate is released or the reply dropped."""
        gate = Gate(matching(operation), nth, f"hold the reply of {operation!r} number {nth}", self._relay.pump_soon)
        self._relay.do(lambda: self._relay.reply_gates.append(gate))
        return gate

    def hold_request(self, operation: str | Collection[str], nth: int = 1) -> Gate:
        """Hold the nth such request before it reaches the server, until the gate is released or the request dropped."""
        gate = Gate(matching(operation), nth, f"hold request {operation!r} number {nth}", self._relay.pump_soon)
        self._relay.do(lambda: self._relay.request_gates.append(gate))
        return gate

    # -- what went over the wire

    def counts(self) -> Counter[str]:
        """How many requests of each operation came since `reset_counts`, by name; a handshake is "connect"."""
        return self._relay.do(self._relay.traffic.counts.copy)

    def events(self) -> int:
        """How many watch notifications the server sent since `reset_counts`."""
        return self._relay.do(lambda: self._relay.traffic.events)

    def flights(self) -> int:
        """How many flights the requests took since `reset_counts`, handshakes and pings apart.

        A request begins a new flight if a reply to the flight before it on its connection has gone to the client; so
        a flight is one network round trip of waiting.
        """
        return self._relay.do(lambda: self._relay.traffic.flights)

    def bursts(self) -> list[list[str]]:
        """The operations of each flight, in the order of their beginning; the last 10,000 flights."""
        return self._relay.do(lambda: [list(burst) for burst in self._relay.traffic.bursts])

    def reset_counts(self) -> None:
        """Count from zero. The next request of each connection begins a flight."""
        self._relay.do(self._relay.reset_counts)

    def close(self) -> None:
        """Cut everything, let held frames go nowhere, and give the port back. May be called twice."""
        if self._closed or self._owner != os.getpid():
            return
        self._closed = True
        self._relay.stop()
        self._reserved.release()


def _address(target: Target) -> tuple[str, int]:
    if isinstance(target, tuple):
        return target
    text = target if isinstance(target, str) else target.hosts
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or "," in host:
        message = f"a proxy leads to one server, 'host:port', not {text!r}; choose one of an ensemble's servers"
        raise ValueError(message)
    return host, int(port)


def _directions(direction: str) -> frozenset[Direction]:
    if direction not in _DIRECTIONS:
        message = f"direction must be one of {', '.join(_DIRECTIONS)}, not {direction!r}"
        raise ValueError(message)
    return _DIRECTIONS[direction]
