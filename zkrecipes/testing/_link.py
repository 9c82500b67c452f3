"""One connection through the proxy: two sockets, and a pipe in each direction.

Everything here runs on the proxy's thread, so nothing is locked.
"""

from __future__ import annotations

import contextlib
import errno
import selectors
import socket
import struct
import time
from collections import deque
from typing import Final, Protocol, final

from zkrecipes.testing._pipe import Call, Direction, Faults, Pipe
from zkrecipes.testing.frames import CONNECT, parse_reply, parse_request
from zkrecipes.testing.traps import Gate, Trap

__all__ = ["RESET", "Link", "Network"]

_REDIAL: Final = 0.02
RESET: Final = struct.pack("ii", 1, 0)


class Network(Faults, Protocol):
    """What a link asks of its proxy."""

    target: tuple[str, int]
    patience: float

    def note_request(self, operation: str) -> tuple[Trap | None, Gate | None, Gate | None]:
        """Count a request; a trap for its reply, a gate for its reply, a gate for itself."""

    def note_flight(self) -> list[str]:
        """Count a flight; the list that its operations are written to."""

    def note_event(self) -> None:
        """Count a watch notification."""

    def note_delay(self) -> None:
        """A link has something to do at its `next_due`."""

    def note_end(self, link: Link) -> None:
        """The link is closed."""

    def watch(self, owner: socket.socket, mask: int, link: Link) -> None:
        """Tell the link when this socket can be read or written (events of `selectors`); 0 for never."""


@final
class Link:
    """A client's connection and the one that the proxy made to the server for it."""

    def __init__(self, client: socket.socket, network: Network, *, framed: bool) -> None:
        self.framed = framed
        self.connected = False
        self.closed = False
        self._network = network
        self._target = network.target
        self._client = client
        self._server = socket.socket()
        self._patient_until = time.monotonic() + network.patience
        self._dial_at: float | None = None
        self._handshaken: dict[Direction, bool] = {"to_server": False, "to_client": False}
        self._calls: deque[Call] = deque()
        self._masks: dict[socket.socket, int] = {}
        self._flight = 0
        self._burst: list[str] | None = None
        self.to_server = Pipe(self, "to_server", client, self._server)
        self.to_client = Pipe(self, "to_client", self._server, client)
        _prepare(client)

    def dial(self) -> None:
        """Connect to the server; what the client sends meanwhile waits."""
        self._dial_at = None
        self._masks.pop(self._server, None)
        self._server.close()
        self._server = self.to_server.sink = self.to_client.source = socket.socket()
        _prepare(self._server)
        if self._server.connect_ex(self._target) in {0, errno.EINPROGRESS}:
            self.watch()
        else:
            self._missed()

    def _missed(self) -> None:
        """The server refuses: try again for as long as we may, then refuse too."""
        now = time.monotonic()
        if now >= self._patient_until:
            self.close()
            return
        self._watch(self._server, 0)
        self._dial_at = now + _REDIAL
        self._network.note_delay()

    @property
    def pipes(self) -> tuple[Pipe, Pipe]:
        return self.to_server, self.to_client

    def ready(self, owner: socket.socket, mask: int) -> None:
        """One of our sockets can be read or written."""
        if self.closed:
            return
        reading, writing = self.pipes if owner is self._client else (self.to_client, self.to_server)
        if mask & selectors.EVENT_WRITE:
            if owner is self._server and not self.connected:
                if owner.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    self._missed()
                    return
                self.connected = True
            writing.pump(self._network)
        if mask & selectors.EVENT_READ and not self.closed:
            reading.read(self._network)
        self.watch()

    def pump(self) -> None:
        """Pass on what may go since a fault ended or a delay ran out."""
        if self._dial_at is not None and time.monotonic() >= self._dial_at:
            self.dial()
        for pipe in self.pipes:
            if not self.closed:
                pipe.pump(self._network)
        self.watch()

    def watch(self) -> None:
        """Tell the selector what we wait for."""
        if self.closed:
            return
        for owner, reading, writing in (
            (self._client, self.to_server, self.to_client),
            (self._server, self.to_client, self.to_server),
        ):
            mask = 0
            if reading.wants_read(self._network) and (self.connected or owner is self._client):
                mask |= selectors.EVENT_READ
            dialling = owner is self._server and not self.connected and self._dial_at is None
            if writing.wants_write(self._network) or dialling:
                mask |= selectors.EVENT_WRITE
            self._watch(owner, mask)

    def _watch(self, owner: socket.socket, mask: int) -> None:
        if self._masks.get(owner, 0) != mask:
            self._masks[owner] = mask
            self._network.watch(owner, mask, self)

    def next_due(self) -> float | None:
        """When something of ours becomes due."""
        dues = [due for pipe in self.pipes if (due := pipe.next_due(self._network)) is not None]
        if self._dial_at is not None:
            dues.append(self._dial_at)
        return min(dues, default=None)

    def request(self, frame: bytes) -> Gate | None:
        """Note a request that has come from the client."""
        if not self._handshaken["to_server"]:
            self._handshaken["to_server"] = True
            xid, operation = 0, CONNECT
        else:
            xid, operation = parse_request(frame)
        counts = operation not in {"ping", CONNECT}
        if counts:
            if self._burst is None:
                self._flight += 1
                self._burst = self._network.note_flight()
            self._burst.append(operation)
        trap, reply_gate, request_gate = self._network.note_request(operation)
        self._calls.append(Call(xid, self._flight if counts else 0, trap, reply_gate))
        return request_gate

    def reply(self, frame: bytes) -> Call | None:
        """Find the request that this answers; None if it is a watch notification."""
        if not self._handshaken["to_client"]:
            self._handshaken["to_client"] = True
            xid = 0
        else:
            xid = parse_reply(frame)[0]
        for call in self._calls:
            if call.xid == xid:
                self._calls.remove(call)
                return call
        self._network.note_event()
        return None

    def answered(self, call: Call) -> None:
        """A reply goes to the client: what it sends from now on may follow from it, and is another flight."""
        if call.flight == self._flight:
            self._burst = None

    def begin_flight(self) -> None:
        """The next request begins a flight."""
        self._burst = None

    def hang_up(self) -> None:
        """Close the client's side; what it has sent still goes to the server."""
        with contextlib.suppress(OSError):
            self._client.shutdown(socket.SHUT_RDWR)

    def settle(self) -> None:
        """Close when both directions have ended."""
        if all(pipe.done for pipe in self.pipes):
            self.close(reset=False)

    def half_close(self, direction: Direction) -> None:
        """End one direction as its sender would."""
        pipe = self.to_server if direction == "to_server" else self.to_client
        if not pipe.done:
            pipe.ended = True
            pipe.queue.clear()
            pipe.finish()
        self.watch()

    def close(self, *, reset: bool = True) -> None:
        """Close both sockets at once; by a reset, so that both sides notice even with bytes under way."""
        if self.closed:
            return
        self.closed = True
        for owner in (self._client, self._server):
            self._watch(owner, 0)
            if reset:
                with contextlib.suppress(OSError):
                    owner.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            owner.close()
        for pipe in self.pipes:
            for item in pipe.queue:
                if item.gate is not None and item.gate.held:
                    item.gate.fire()
        self._network.note_end(self)


def _prepare(owner: socket.socket) -> None:
    owner.setblocking(False)
    owner.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
