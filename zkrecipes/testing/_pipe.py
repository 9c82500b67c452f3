"""One direction of a connection through the proxy: whole frames in, and out when they are due.

Everything here runs on the proxy's thread, so nothing is locked.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections import deque
from dataclasses import dataclass
from typing import Final, Literal, Protocol, final

from zkrecipes.testing.frames import FrameReader
from zkrecipes.testing.traps import Gate, Trap

__all__ = ["Call", "Direction", "Faults", "Pipe"]

Direction = Literal["to_server", "to_client"]

_CHUNK: Final = 256 * 1024
_QUEUE_LIMIT: Final = 16 * 1024 * 1024


@final
@dataclass(slots=True)
class Call:
    """A request on its way, until its reply comes by."""

    xid: int
    flight: int
    trap: Trap | None
    gate: Gate | None


@final
@dataclass(slots=True)
class Item:
    """Something to be passed on: bytes, or the end of the stream (None)."""

    due: float
    data: bytes | None
    call: Call | None = None
    gate: Gate | None = None


class Faults(Protocol):
    """The state of the network."""

    delays: dict[Direction, float]
    blocked: set[Direction]
    rewrite: tuple[bytes, bytes] | None


class Owner(Protocol):
    """What a pipe asks of the connection that it is one half of."""

    framed: bool
    connected: bool

    def request(self, frame: bytes) -> Gate | None:
        """Note a request that has come from the client; a gate for it."""

    def reply(self, frame: bytes) -> Call | None:
        """Find the request that this answers; None if it is a watch notification."""

    def answered(self, call: Call) -> None:
        """A reply goes to the client."""

    def settle(self) -> None:
        """One direction has ended."""

    def close(self) -> None:
        """Close both sockets at once."""


@final
class Pipe:
    """One direction: reads whole frames from `source`, passes them on to `sink` when they are due."""

    def __init__(self, link: Owner, direction: Direction, source: socket.socket, sink: socket.socket) -> None:
        self.link = link
        self.direction = direction
        self.source = source
        self.sink = sink
        self.reader = FrameReader(framed=link.framed)
        self.queue: deque[Item] = deque()
        self.queued = 0
        self.out = b""
        self.ended = False  # the source will give no more
        self.done = False  # nothing more goes to the sink
        self.begun = False

    def wants_read(self, network: Faults) -> bool:
        """Whether there is room for more."""
        return not (self.ended or self.direction in network.blocked or self.queued > _QUEUE_LIMIT)

    def wants_write(self, network: Faults) -> bool:
        """Whether the sink was not ready for all."""
        return bool(self.out) and not self.done and self.direction not in network.blocked

    def next_due(self, network: Faults) -> float | None:
        """When the head of the queue may go; None if it does not wait for time."""
        stuck = self.out or self.done or self.direction in network.blocked or not self.link.connected
        if stuck or not self.queue:
            return None
        head = self.queue[0]
        held = head.gate is not None and head.gate.held
        return head.due if head.due and not held else None

    def read(self, network: Faults) -> None:
        """Take what the source has."""
        try:
            data = self.source.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        delay = network.delays[self.direction]
        due = time.monotonic() + delay if delay else 0.0
        if data:
            if not self.begun:
                self.begun = True
                if network.rewrite is not None and self.direction == "to_server":
                    data = data.replace(*network.rewrite)
            for frame in self.reader.feed(data):
                self._admit(frame, due)
        else:
            self.ended = True
            rest = self.reader.remainder()
            if rest:
                self._append(Item(due, rest))
            self._append(Item(due, None))
        self.pump(network)

    def _admit(self, frame: bytes, due: float) -> None:
        if self.done:
            return
        link = self.link
        if not self.reader.framed:
            self._append(Item(due, frame))
        elif self.direction == "to_server":
            gate = link.request(frame)
            self._append(Item(due, frame, gate=gate))
        else:
            call = link.reply(frame)
            self._append(Item(due, frame, call, call.gate if call else None))

    def _append(self, item: Item) -> None:
        self.queue.append(item)
        self.queued += len(item.data or b"")

    def pump(self, network: Faults) -> None:
        """Pass on what may go now."""
        if self.done or self.direction in network.blocked or not self.link.connected:
            return
        while self._flush() and self.queue:
            item = self.queue[0]
            if item.due and item.due > time.monotonic():
                return
            if item.gate is not None and not self._passes(item.gate):
                return
            call = item.call
            if call is not None and call.trap is not None:
                self.link.close()
                call.trap.fire()
                return
            self.queue.popleft()
            if item.data is None:
                self.finish()
                return
            if call is not None:
                self.link.answered(call)
            self.queued -= len(item.data)
            self.out = item.data if not self.queue else self._gather(item.data)

    def _gather(self, first: bytes) -> bytes:
        """Join what may go together with `first` into one write, as it came in one read."""
        parts = [first]
        while self.queue and len(parts) < 1024:
            item = self.queue[0]
            plain = item.gate is None and (item.call is None or item.call.trap is None)
            if item.data is None or not plain or (item.due and item.due > time.monotonic()):
                break
            self.queue.popleft()
            if item.call is not None:
                self.link.answered(item.call)
            self.queued -= len(item.data)
            parts.append(item.data)
        return b"".join(parts)

    def _passes(self, gate: Gate) -> bool:
        gate.catch()
        if gate.dropped:
            self.link.close()
            gate.fire()
            return False
        if gate.opened:
            gate.fire()
        return gate.opened

    def _flush(self) -> bool:
        """Write what is begun; whether all of it is written."""
        while self.out:
            try:
                sent = self.sink.send(self.out)
            except BlockingIOError:
                return False
            except OSError:
                # The receiver is gone. What it sent before goes on in the other direction, its end included.
                self.done = True
                self.out = b""
                self.link.settle()
                return False
            self.out = self.out[sent:]
        return True

    def finish(self) -> None:
        """Tell the sink that nothing more comes."""
        self.done = True
        with contextlib.suppress(OSError):
            self.sink.shutdown(socket.SHUT_WR)
        self.link.settle()
