"""The engine of the fault proxy: a listener, its links and the state of the network, all on one thread."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final, TypeVar, final

from zkrecipes.testing._link import RESET, Link
from zkrecipes.testing._pipe import Direction
from zkrecipes.testing.ports import LOOPBACK
from zkrecipes.testing.traps import Gate, Trap

__all__ = ["Relay", "Traffic"]

T = TypeVar("T")
P = TypeVar("P", Trap, Gate)

_BACKLOG: Final = 512
_ANSWER_LIMIT: Final = 10.0
_BURSTS_KEPT: Final = 10_000


@final
@dataclass(slots=True)
class Traffic:
    """What went over the wire since the last reset."""

    counts: Counter[str] = field(default_factory=Counter)
    events: int = 0
    flights: int = 0
    bursts: deque[list[str]] = field(default_factory=lambda: deque(maxlen=_BURSTS_KEPT))


@final
class Relay:
    """Owns every socket of one proxy. Everything but `do`, `pump_soon` and `stop` runs on its thread."""

    def __init__(self, target: tuple[str, int], port: int, *, framed: bool, patience: float) -> None:
        self.target = target
        self.patience = patience
        self.delays: dict[Direction, float] = {"to_server": 0.0, "to_client": 0.0}
        self.blocked: set[Direction] = set()
        self.links: set[Link] = set()
        self.traps: list[Trap] = []
        self.reply_gates: list[Gate] = []
        self.request_gates: list[Gate] = []
        self.traffic = Traffic()
        self.rewrite: tuple[bytes, bytes] | None = None
        self._port = port
        self._framed = framed
        self._refusing = False
        self._stopping = False
        self._jobs: deque[Callable[[], None]] = deque()
        self._delayed = False
        self._listener = socket.create_server((LOOPBACK, port), backlog=_BACKLOG)
        self._listener.setblocking(False)
        self._waker, self._wakened = socket.socketpair()
        self._waker.setblocking(False)
        self._wakened.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wakened, selectors.EVENT_READ)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name=f"zkrecipes-proxy-{port}", daemon=True)
        self._thread.start()

    # -- for any thread

    def do(self, job: Callable[[], T]) -> T:
        """Run a job on our thread, and return its result when what it changed has taken effect.

        Raises:
            RuntimeError: The proxy is closed.
        """
        answer: Future[T] = Future()

        def run() -> None:
            try:
                answer.set_result(job())
            except BaseException as error:  # noqa: BLE001 -- it belongs to the caller
                answer.set_exception(error)

        if not self._thread.is_alive():
            message = "the proxy is closed; make a new one"
            raise RuntimeError(message)
        self._jobs.append(run)
        self._wake()
        return answer.result(_ANSWER_LIMIT)

    def pump_soon(self) -> None:
        """Look at everything that is held again; when it returns, what may go has gone."""
        if self._thread.is_alive():
            self.do(self._pump)

    def stop(self) -> None:
        """Cut everything and end the thread."""

        def stop() -> None:
            self.cut()
            self._stopping = True

        self.do(stop)
        self._thread.join(_ANSWER_LIMIT)

    # -- faults

    def cut(self) -> None:
        for link in list(self.links):
            link.close()
        # Connections that the kernel has taken and we have not: to their clients they exist.
        for connection in self._waiting():
            _reset(connection)

    def hang_up(self) -> None:
        for link in list(self.links):
            link.hang_up()
            link.watch()

    def half_close(self, direction: Direction) -> None:
        for link in list(self.links):
            link.half_close(direction)

    def refuse(self) -> None:
        if self._refusing:
            return
        self.cut()
        self._refusing = True
        self.watch(self._listener, 0)
        # Not closed: a socket that is bound and does not listen refuses connections and keeps the port ours.
        self._listener.close()
        self._listener = _bound(self._port)

    def block(self, directions: frozenset[Direction]) -> None:
        self.blocked |= directions
        self._watch_listener()
        for link in self.links:
            link.watch()

    def heal(self) -> None:
        self.delays = dict.fromkeys(self.delays, 0.0)
        if "to_server" in self.blocked:
            for connection in self._waiting():
                _reset(connection)
        self.blocked.clear()
        if self._refusing:
            self._refusing = False
            self._listener.listen(_BACKLOG)
        self._watch_listener()
        self._pump()

    def delay(self, delays: dict[Direction, float]) -> None:
        self.delays = delays
        self._delayed = True

    def set_rewrite(self, old: bytes, new: bytes) -> None:
        self.rewrite = (old, new)

    def reset_counts(self) -> None:
        self.traffic = Traffic()
        for link in self.links:
            link.begin_flight()

    # -- for the links

    def note_request(self, operation: str) -> tuple[Trap | None, Gate | None, Gate | None]:
        self.traffic.counts[operation] += 1
        if not (self.traps or self.reply_gates or self.request_gates):
            return None, None, None
        return _met(self.traps, operation), _met(self.reply_gates, operation), _met(self.request_gates, operation)

    def note_flight(self) -> list[str]:
        burst: list[str] = []
        self.traffic.flights += 1
        self.traffic.bursts.append(burst)
        return burst

    def note_event(self) -> None:
        self.traffic.events += 1

    def note_delay(self) -> None:
        self._delayed = True

    def note_end(self, link: Link) -> None:
        self.links.discard(link)

    def watch(self, owner: socket.socket, mask: int, link: Link | None = None) -> None:
        key = self._selector.get_map().get(owner)
        if key is None:
            if mask:
                self._selector.register(owner, mask, link)
        elif not mask:
            self._selector.unregister(owner)
        else:
            self._selector.modify(owner, mask, link)

    # -- the thread

    def _run(self) -> None:
        try:
            while not self._stopping:
                for key, mask in self._selector.select(self._pause()):
                    self._ready(key, mask)
                while self._jobs:
                    self._jobs.popleft()()
                if self._delayed:
                    self._pump()
        finally:
            for owner in (self._listener, self._waker, self._wakened):
                owner.close()
            self._selector.close()

    def _ready(self, key: selectors.SelectorKey, mask: int) -> None:
        if key.data is not None:
            key.data.ready(key.fileobj, mask)
        elif key.fileobj is self._listener:
            for connection in self._waiting():
                self._connect(connection)
        else:
            with contextlib.suppress(BlockingIOError):
                self._wakened.recv(4096)

    def _wake(self) -> None:
        # A full pipe means that the thread will wake anyway, a closed one that it has ended, by the very job that it is
        # woken for.
        with contextlib.suppress(OSError):
            self._waker.send(b"w")

    def _pause(self) -> float | None:
        """Seconds until something that is delayed becomes due; None if nothing is."""
        if not self._delayed:
            return None
        dues = [due for link in self.links if (due := link.next_due()) is not None]
        if not dues:
            self._delayed = any(self.delays.values())
            return None
        return max(0.0, min(dues) - time.monotonic())

    def _pump(self) -> None:
        for link in list(self.links):
            link.pump()

    def _watch_listener(self) -> None:
        open_ = not self._refusing and "to_server" not in self.blocked
        self.watch(self._listener, selectors.EVENT_READ if open_ else 0)

    def _waiting(self) -> list[socket.socket]:
        """The connections that the kernel has taken for us."""
        waiting: list[socket.socket] = []
        with contextlib.suppress(OSError):
            while True:
                waiting.append(self._listener.accept()[0])
        return waiting

    def _connect(self, client: socket.socket) -> None:
        link = Link(client, self, framed=self._framed)
        self.links.add(link)
        link.dial()


def _met(traps: list[P], operation: str) -> P | None:
    """Count the request in every trap; the first for which it is the one."""
    met: P | None = None
    for trap in list(traps):
        if trap.meets(operation):
            met = met or trap
        if trap.spent:
            traps.remove(trap)
    return met


def _bound(port: int) -> socket.socket:
    """A socket that has the port and does not listen."""
    owner = socket.socket()
    owner.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    owner.bind((LOOPBACK, port))
    owner.setblocking(False)
    return owner


def _reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    connection.close()
