"""A transport with a recorder in the session's place."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Self

from kazoo.client import KazooClient

from zkrecipes.calls import Call
from zkrecipes.flow import Pending
from zkrecipes.port import Code, NodeEvent, Request
from zkrecipes.runtime import ThreadRuntime
from zkrecipes.testing import wait_until
from zkrecipes.wire import KazooTransport, borrowed_transport, own_transport
from zkrecipes.wire_public import PublicTransport

SESSION: Final = 4.0
Transport = KazooTransport | PublicTransport


class Recorder:
    """The session's part: keeps what it is told, in order."""

    def __init__(self) -> None:
        self.runtime = ThreadRuntime()
        self.told: list[tuple[Any, ...]] = []
        self.written: list[Call[Any]] = []
        self.forbidden: set[Call[Any]] = set()

    def may_write(self, call: Call[Any]) -> bool:
        if call not in self.forbidden:
            self.written.append(call)
        return call not in self.forbidden

    def answered(self, call: Call[Any], result: Any) -> None:
        self._ended(call, result)

    def refused(self, call: Call[Any], code: int, index: int = -1) -> None:
        self._ended(call, (Code(code), index))

    def dropped(self, call: Call[Any]) -> None:
        self._ended(call, "dropped")

    def _ended(self, call: Call[Any], outcome: Any) -> None:
        assert not call.done, "told twice"
        self.told.append(("ended", call, outcome))
        call.resolve(outcome)

    def connected(self, session_id: int, timeout: float, since: float | None) -> None:
        self.told.append(("connected", session_id, timeout, since))

    def disconnected(self) -> None:
        self.told.append(("disconnected",))

    def expired(self) -> None:
        self.told.append(("expired",))

    def failed(self, error: BaseException) -> None:
        self.told.append(("failed", error))

    def notified(self, path: str, event: NodeEvent) -> None:
        self.told.append(("fired", path, event))

    # --- for the tests

    def all(self, what: str) -> list[tuple[Any, ...]]:
        return [entry for entry in self.told if entry[0] == what]

    def wait_for(self, what: str, count: int = 1, limit: float = 5.0) -> tuple[Any, ...]:
        wait_until(lambda: len(self.all(what)) >= count, limit, lambda: f"{count} x {what} in {self.told}")
        return self.all(what)[count - 1]


class Link:
    """A transport, and who listens to it."""

    def __init__(self, make: Callable[[Recorder], Transport]) -> None:
        self.events = Recorder()
        self.transport = make(self.events)

    def send(self, *requests: Request, forbidden: bool = False) -> list[Call[Any]]:
        calls: list[Call[Any]] = [Call(request, 0, 0.0) for request in requests]
        with self.events.runtime.lock:
            if forbidden:
                self.events.forbidden.update(calls)
            for call in calls:
                self.transport.send(call)
        return calls

    def ask(self, request: Request) -> Any:
        (call,) = self.send(request)
        wait_done(call)
        return call.result()

    def wait_written(self, count: int) -> None:
        """Wait until so many requests are out of kazoo's hands."""
        wait_until(lambda: len(self.events.written) == count and not self.transport.kazoo._queue, 5.0, "it is written")

    def __enter__(self) -> Self:
        self.transport.start()
        self.events.wait_for("connected")
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.transport.close(2.0)


def wait_done(*calls: Pending[Any]) -> None:
    wait_until(lambda: all(call.done for call in calls), 5.0, f"answers of {calls}")


@contextlib.contextmanager
def started(hosts: str, **options: Any) -> Iterator[KazooClient]:
    kazoo = KazooClient(hosts, **options)
    kazoo.start()
    try:
        yield kazoo
    finally:
        kazoo.stop()
        kazoo.close()


def own(hosts: str, *, internals: bool | None = None, session_timeout: float = SESSION, **options: Any) -> Link:
    return Link(
        lambda events: own_transport(hosts, session_timeout, events, events.runtime, internals=internals, **options)
    )


def borrowing(kazoo: KazooClient, *, internals: bool | None = None) -> Link:
    return Link(lambda events: borrowed_transport(kazoo, events, events.runtime, internals=internals))


@contextlib.contextmanager
def linked(kind: str, hosts: str) -> Iterator[Link]:
    """A link of one of the four kinds."""
    internals = "internals" in kind
    if "own" in kind:
        with own(hosts, internals=internals) as link:
            yield link
    else:
        with started(hosts, timeout=SESSION) as kazoo, borrowing(kazoo, internals=internals) as link:
            yield link


KINDS: Final = ("own, internals", "own, public", "borrowed, internals", "borrowed, public")


def own_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("zkrecipes-c")]


def close_in_time(link: Link) -> None:
    before = time.monotonic()
    link.transport.close(2.0)
    link.transport.close(2.0)
    assert time.monotonic() - before < 2.3
    assert own_threads() == []


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
