"""A session without a server: virtual time, and a transport whose answers the test gives."""

from __future__ import annotations

import itertools
import math
import threading
import uuid
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from zkrecipes.calls import Call
from zkrecipes.flow import Pending, Tasks, Wait
from zkrecipes.port import Created, Stat
from zkrecipes.session import Session

T = TypeVar("T")

TIMEOUT = 12.0


class Runtime:
    """Time passes when the test says so; callbacks run when it says so."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.time = 1000.0
        self.is_fork = False
        self.who = 1
        self.callbacks: list[tuple[object, Callable[[], None]]] = []
        self.tasks = Tasks(self.now, lambda: None)
        self._guids = itertools.count(1)

    def now(self) -> float:
        return self.time

    def unique(self) -> str:
        return str(uuid.UUID(int=next(self._guids) | 8 << 76 | 8 << 60))

    def random(self) -> float:
        return 0.5

    def spawn(self, algorithm: Coroutine[Wait, None, T], name: str) -> Pending[T]:
        return self.tasks.spawn(algorithm, name)

    def begin(self, algorithm: Coroutine[Wait, None, T], name: str) -> Pending[T]:
        return self.tasks.begin(algorithm, name)

    def dispatch(self, key: object, callback: Callable[[], None]) -> None:
        self.callbacks.append((key, callback))

    def forked(self) -> bool:
        return self.is_fork

    def owner(self) -> int:
        return self.who

    def run_callbacks(self) -> None:
        while self.callbacks:
            self.callbacks.pop(0)[1]()

    def step(self) -> None:
        """Step every task that can go on, until none can."""
        while self.tasks.next_time() <= self.time:
            self.tasks.step_ready()

    def advance(self, seconds: float) -> None:
        """Let time pass, waking whoever wanted to be woken on the way."""
        end = self.time + seconds
        self.step()
        while (wake := self.tasks.next_time()) <= end:
            self.time = max(self.time, wake)
            self.step()
        self.time = end
        self.step()


class Transport:
    """Requests lie here until the test answers them, in order."""

    def __init__(self, session: Session, servers: int = 1) -> None:
        self.servers = servers
        self.last_error = ""
        self.session = session
        self.queue: list[Call[Any]] = []
        self.reconnects = 0
        self.log: list[Any] = []

    def send(self, call: Call[Any]) -> None:
        self.queue.append(call)
        if self.session.may_write(call):
            self.log.append(call.request)

    def reconnect(self) -> None:
        self.reconnects += 1

    def drop(self) -> None:
        """The connection ends."""
        self.queue.clear()
        self.session.disconnected()


class World:
    """A session on its runtime and transport, connected.

    Attributes:
        requests: What waits for an answer.
    """

    def __init__(self, *, servers: int = 1, connected: bool = True, timeout: float = TIMEOUT) -> None:
        self.runtime = Runtime()
        self.session = Session(self.runtime)
        self.transport = Transport(self.session, servers)
        self.session.transport = self.transport
        self.zxid = 100
        self.timeout = timeout
        if connected:
            self.connect()

    def connect(self, session_id: int = 7) -> None:
        self.session.connected(session_id, self.timeout, self.runtime.time)
        self.runtime.step()

    @property
    def requests(self) -> list[Any]:
        return [call.request for call in self.transport.queue]

    def answer(self, result: Any = None) -> None:
        """Answer the oldest request."""
        call = self.transport.queue.pop(0)
        if call.stamp is None:
            self.session.dropped(call)
        else:
            self.session.answered(call, result)
        self.runtime.step()

    def refuse(self, code: int, index: int = -1) -> None:
        """Refuse the oldest request."""
        self.session.refused(self.transport.queue.pop(0), code, index)
        self.runtime.step()

    def created(self, path: str) -> Created:
        self.zxid += 1
        return Created(path, self.stat())

    def stat(self, owner: int | None = None) -> Stat:
        return Stat(self.zxid, self.zxid, 0, 0, 0, 0, 0, self.session.id if owner is None else owner, 0, 0, 0)

    def end(self) -> None:
        """Close the session, and let every task end."""
        self.session.close()
        self.transport.queue.clear()
        self.runtime.advance(10.0)

    def run(self, algorithm: Coroutine[Wait, None, T]) -> Pending[T]:
        """Start an algorithm and step it until it waits."""
        done = self.runtime.spawn(algorithm, "under test")
        self.runtime.step()
        return done


FOREVER = math.inf
