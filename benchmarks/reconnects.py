"""Listeners: what a reconnect with many watched nodes costs, and what a thousand listeners on one client do."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final, Self, final

from kazoo.client import KazooClient
from kazoo.recipe.watchers import DataWatch

import zkrecipes as zkr
from benchmarks.bench import Bench, raw_client, set_payload
from benchmarks.harness import Limit, Measure, Times, Unit, entry
from zkrecipes.testing import FaultProxy
from zkrecipes.testing.raw import RawClient

_LIMIT: Final = 60.0
_REST: Final = 0.0005
_WATCHED: Final = 200
_QUIET: Final = 0.2
_LISTENERS: Final = 1000
_OUR_THREADS: Final = 12
"""kazoo's three, the engine and the dispatcher's eight."""


# --- a reconnect ------------------------------------------------------------------------------------------------------


@final
class _ThreadPeak:
    """The highest number of one competitor's threads while it is in use: its own before, and all that come."""

    def __init__(self) -> None:
        self._others = set(threading.enumerate())
        self._own: set[threading.Thread] = set()
        self._end = threading.Event()
        self._sampler: threading.Thread | None = None
        self.peak = 0

    def begun(self) -> None:
        """What has come since it was made is the competitor's."""
        self._own = set(threading.enumerate()) - self._others

    def __enter__(self) -> Self:
        self._others = set(threading.enumerate()) - self._own
        self.peak = 0
        self._end.clear()
        self._sampler = threading.Thread(target=self._sample, name="sampler")
        self._sampler.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._end.set()
        if self._sampler is not None:
            self._sampler.join()

    def _sample(self) -> None:
        others = self._others | {threading.current_thread()}
        while not self._end.wait(_REST):
            self.peak = max(self.peak, len(set(threading.enumerate()) - others))


@final
class _Reconnects:
    """Some nodes, watched through a proxy; they change while nobody is told, and then the connection is cut.

    Args:
        who: The competitor.
        proxy: Stands before the server, for this competitor alone.
        raw: Writes past the proxy.
        paths: The nodes.
    """

    def __init__(self, who: str, proxy: FaultProxy, raw: RawClient, paths: list[str]) -> None:
        self._who = who
        self._proxy = proxy
        self._raw = raw
        self._paths = paths
        self._awaited = b""
        self._missing: set[str] = set()
        self._complete = threading.Event()

    def told(self, path: str, data: bytes | None) -> None:
        """Called by the callbacks."""
        if data == self._awaited:
            self._missing.discard(path)
            if not self._missing:
                self._complete.set()

    def once(self) -> float:
        """Milliseconds from the cut until all that has changed was told.

        Raises:
            TimeoutError: It was not.
        """
        self._proxy.blackhole("to_client")
        self._missing = set(self._paths)
        self._complete.clear()
        self._awaited = b"%d" % time.monotonic_ns()
        for path in self._paths:
            self._raw.send("setData", set_payload(path, self._awaited))
        for _ in self._paths:
            self._raw.receive()
        self._proxy.reset_counts()
        start = time.perf_counter()
        self._proxy.cut()
        self._proxy.heal()
        if not self._complete.wait(_LIMIT):
            missing, counts = len(self._missing), dict(self._proxy.counts())
            message = f"{self._who}: {missing} nodes were not told within {_LIMIT:.0f} s; requests: {counts}"
            raise TimeoutError(message)
        elapsed = time.perf_counter() - start
        self._settle()
        return elapsed * 1000

    def requests(self) -> float:
        """How many requests a reconnect takes, handshake and pings apart."""
        self.once()
        return float(self._sent())

    def flights(self) -> float:
        """In how many flights they go."""
        self.once()
        return float(self._proxy.flights())

    def threads(self, peak: _ThreadPeak) -> float:
        """How many threads there are at most."""
        with peak:
            self.once()
        return float(peak.peak)

    def _sent(self) -> int:
        counts = self._proxy.counts()
        return counts.total() - counts["connect"] - counts["ping"]

    def _settle(self) -> None:
        """Wait until nothing more is sent."""
        while True:
            sent = self._sent()
            time.sleep(_QUIET)
            if self._sent() == sent:
                return


def _teller(reconnects: _Reconnects) -> Callable[[zkr.Change[bytes]], None]:
    return lambda change: reconnects.told(change.path, change.new)


def _data_watch(client: KazooClient, path: str, told: Callable[[str, bytes | None], None]) -> None:
    DataWatch(client, path, lambda data, _stat: told(path, data))


def _listen(who: str, hosts: str, reconnects: _Reconnects, paths: list[str], stack: ExitStack) -> None:
    if who == "kazoo":
        other = Bench(hosts, seconds=0, samples=0).kazoo(stack)
        for path in paths:
            _data_watch(other, path, reconnects.told)
        return
    client = stack.enter_context(zkr.connect(hosts))
    tree = who == "ours, tree"
    listener = zkr.TreeListener(client, _parent(paths)) if tree else zkr.NodeListener(client, *paths)
    listener.on_changed(_teller(reconnects))
    stack.enter_context(listener)


def _parent(paths: list[str]) -> str:
    return paths[0].rpartition("/")[0]


def _reconnects(bench: Bench, stack: ExitStack) -> dict[str, tuple[_Reconnects, _ThreadPeak]]:
    found = {}
    for who in ("ours", "ours, tree", "kazoo"):
        parent = bench.path("reconnect")
        paths = [f"{parent}/{number:03}" for number in range(_WATCHED)]
        bench.kazoo(stack).ensure_path(parent)
        raw = raw_client(bench, stack)
        for path in paths:
            raw.create(path, b"0")
        proxy = stack.enter_context(FaultProxy(bench.hosts))
        reconnects = _Reconnects(who, proxy, raw, paths)
        peak = _ThreadPeak()
        _listen(who, proxy.hosts, reconnects, paths, stack)
        peak.begun()
        found[who] = reconnects, peak
    return found


@entry(
    "listener-reconnect",
    f"Listener: reconnect with {_WATCHED} watched nodes, all changed meanwhile, until all are told",
    Unit.MILLISECONDS,
    Times("ours", 1.0, "kazoo"),
)
def listener_reconnect(bench: Bench, stack: ExitStack) -> dict[str, Measure]:
    """From the cut of the connection; finding the server again is part of it."""
    return {who: reconnects.once for who, (reconnects, _) in _reconnects(bench, stack).items()}


@entry(
    "listener-reconnect-requests",
    f"Listener: requests of a reconnect with {_WATCHED} watched nodes",
    Unit.REQUESTS,
    Limit("ours", lambda _: _WATCHED + 1.0, "one for each node, and one for a watch root", Unit.REQUESTS),
)
def listener_reconnect_requests(bench: Bench, stack: ExitStack) -> dict[str, Measure]:
    """Without handshake and pings."""
    return {who: reconnects.requests for who, (reconnects, _) in _reconnects(bench, stack).items()}


@entry(
    "listener-reconnect-flights",
    f"Listener: network round trips of a reconnect with {_WATCHED} watched nodes",
    Unit.FLIGHTS,
)
def listener_reconnect_flights(bench: Bench, stack: ExitStack) -> dict[str, Measure]:
    """How often something was sent after an answer."""
    return {who: reconnects.flights for who, (reconnects, _) in _reconnects(bench, stack).items()}


@entry(
    "listener-reconnect-threads",
    f"Listener: threads at a reconnect with {_WATCHED} watched nodes",
    Unit.THREADS,
    Limit("ours", lambda _: float(_OUR_THREADS), "a client's, however many nodes", Unit.THREADS),
)
def listener_reconnect_threads(bench: Bench, stack: ExitStack) -> dict[str, Measure]:
    """The most at any moment, those of the client itself included."""
    return {
        who: functools.partial(reconnects.threads, peak)
        for who, (reconnects, peak) in _reconnects(bench, stack).items()
    }


# --- many listeners ---------------------------------------------------------------------------------------------------


class _Many:
    """A thousand listeners on a new client, one node each."""

    def __init__(self, bench: Bench, who: str, paths: list[str]) -> None:
        self._bench = bench
        self._who = who
        self._paths = paths

    def milliseconds(self) -> float:
        """To start them all, one after another."""
        with ExitStack() as stack:
            begin = self._beginner(stack)
            start = time.perf_counter()
            for path in self._paths:
                begin(path)
            return (time.perf_counter() - start) * 1000

    def threads(self) -> float:
        """The most at any moment, those of the client itself included."""
        with _ThreadPeak() as peak, ExitStack() as stack:
            begin = self._beginner(stack)
            for path in self._paths:
                begin(path)
        return float(peak.peak)

    def _beginner(self, stack: ExitStack) -> Callable[[str], object]:
        if self._who == "kazoo":
            other = self._bench.kazoo(stack)
            return lambda path: DataWatch(other, path, lambda _data, _stat: None)
        client = stack.enter_context(zkr.connect(self._bench.hosts))

        def begin(path: str) -> None:
            listener = zkr.NodeListener(client, path)
            listener.on_created(lambda _change: None)
            listener.start()

        return begin


def _many(bench: Bench, stack: ExitStack) -> dict[str, _Many]:
    paths = [bench.path("many") for _ in range(_LISTENERS)]
    other = bench.kazoo(stack)
    other.ensure_path(_parent(paths))
    for path in paths:
        other.create_async(path, b"0")
    other.sync("/")
    return {who: _Many(bench, who, paths) for who in ("ours", "kazoo")}


@entry(
    "listener-many",
    f"Listener: start of {_LISTENERS:,} listeners on one client",
    Unit.MILLISECONDS,
)
def listener_many(bench: Bench, stack: ExitStack) -> dict[str, Measure]:
    """One after another, as a program would."""
    return {who: many.milliseconds for who, many in _many(bench, stack).items()}


@entry(
    "listener-many-threads",
    f"Listener: threads with {_LISTENERS:,} listeners on one client",
    Unit.THREADS,
    Limit("ours", lambda _: float(_OUR_THREADS), "a client's, however many listeners", Unit.THREADS),
)
def listener_many_threads(bench: Bench, stack: ExitStack) -> dict[str, Measure]:
    """While they start and are told their first state."""
    return {who: many.threads for who, many in _many(bench, stack).items()}
