"""Listeners: how soon a change is told, and how long the start on a big tree takes."""

from __future__ import annotations

import functools
import random
import statistics
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Final, final

from kazoo.client import KazooClient
from kazoo.recipe.cache import TreeCache, TreeEvent
from kazoo.recipe.watchers import DataWatch

import zkrecipes as zkr
from benchmarks.bench import Bench, raw_client, set_payload
from benchmarks.harness import Limit, Measure, Times, Unit, entry
from tests.interop.caches import bench_cache
from tests.interop.peer import CuratorPeer
from zkrecipes.testing.raw import RawClient, create_payload

_LIMIT: Final = 60.0
_REST: Final = 0.0005  # between two writes: every thread sleeps again, as in a service where little happens
_WRITE: Final = "the write alone"
_FLOOR: Final = "raw watch and read"
_BRANCHES: Final = 100
_LEAVES: Final = 100
_NODES: Final = 1 + _BRANCHES + _BRANCHES * _LEAVES
_DATA: Final = b"x" * 100
_WARM_UP_CACHES: Final = 8


# --- from a write to the callback -------------------------------------------------------------------------------------


@final
class Writes:
    """Writes one node, and waits until a callback has told the new value."""

    def __init__(self, raw: RawClient, path: str) -> None:
        self.path = path
        self._raw = raw
        self._count = 0
        self._awaited = b""
        self._told = threading.Event()
        self._at = 0.0

    def told(self, data: bytes | None) -> None:
        """Called by the callback, first of all."""
        at = time.perf_counter()
        if data == self._awaited:
            self._at = at
            self._told.set()

    def once(self) -> float:
        """Seconds from sending a write until it was told.

        Raises:
            TimeoutError: It was not.
        """
        self._count += 1
        self._awaited = b"%d" % self._count
        self._told.clear()
        payload = set_payload(self.path, self._awaited)
        time.sleep(_REST)
        start = time.perf_counter()
        self._raw.send("setData", payload)
        if not self._told.wait(_LIMIT):
            message = f"no callback told of the write of {self.path} within {_LIMIT:.0f} s"
            raise TimeoutError(message)
        self._raw.receive()
        return self._at - start


@final
class _InTurn:
    """Measures all competitors write by write in turn: a round is so short that noise would hit one of them alone."""

    def __init__(self, once: dict[str, Callable[[], float]], seconds: float) -> None:
        self._once = once
        self._seconds = seconds
        self._chance = random.Random(1)  # noqa: S311  # no secret
        self._figures: dict[str, float] = {}

    def median(self, who: str) -> float:
        """Of one round, in milliseconds; the first who asks for a new one makes it."""
        if who not in self._figures:
            self._figures = self._round()
        return self._figures.pop(who)

    def _round(self) -> dict[str, float]:
        times: dict[str, list[float]] = {who: [] for who in self._once}
        order = list(self._once)
        end = time.perf_counter() + self._seconds * len(order)
        while not times[_WRITE] or time.perf_counter() < end:
            # Who comes just before matters: its threads may still be on their way to sleep.
            self._chance.shuffle(order)
            for who in order:
                times[who].append(self._once[who]())
        return {who: statistics.median(each) * 1000 for who, each in times.items()}


def _plain_write(raw: RawClient, path: str) -> float:
    """Seconds of a raw write that nobody watches."""
    payload = set_payload(path, b"x")
    time.sleep(_REST)
    start = time.perf_counter()
    raw.call("setData", payload)
    return time.perf_counter() - start


def _after_write(medians: dict[str, float], factor: float) -> float:
    """The floor, so many times: without the write, which every competitor's figure begins with."""
    return medians[_WRITE] + factor * (medians[_FLOOR] - medians[_WRITE])


def _teller(writes: Writes) -> Callable[[zkr.Change[bytes]], None]:
    return lambda change: writes.told(change.new)


def _raw_watch(client: KazooClient, writes: Writes) -> None:
    """The least that kazoo can do: a watch whose callback reads, and so arms the next one."""

    def fired(_event: object) -> None:
        writes.told(client.get(writes.path, watch=fired)[0])

    client.get(writes.path, watch=fired)


@entry(
    "listener-change",
    "Listener: from a write to the callback, one node",
    Unit.MILLISECONDS,
    Limit("ours", lambda medians: _after_write(medians, 1.15), "1.15 times raw watch and read, counted from the write"),
    Times("ours", 1.0, "kazoo"),
)
def listener_change(bench: Bench, stack: ExitStack) -> dict[str, Measure]:
    """Each competitor has a session and a node of its own. The write itself is part of every figure."""
    raw = raw_client(bench, stack)
    plain = bench.path("change")
    client = stack.enter_context(zkr.connect(bench.hosts))
    writes = {who: Writes(raw, bench.path("change")) for who in (_FLOOR, "ours", "ours, tree", "kazoo")}
    for each in writes.values():
        client.create(each.path, b"0", parents=True)
    _raw_watch(bench.kazoo(stack), writes[_FLOOR])
    for listener, who in (
        (zkr.NodeListener(client, writes["ours"].path), "ours"),
        (zkr.TreeListener(client, writes["ours, tree"].path), "ours, tree"),
    ):
        listener.on_changed(_teller(writes[who]))
        stack.enter_context(listener)
    DataWatch(bench.kazoo(stack), writes["kazoo"].path, lambda data, _stat: writes["kazoo"].told(data))
    client.create(plain, b"0", parents=True)
    once = {_WRITE: lambda: _plain_write(raw, plain)} | {who: each.once for who, each in writes.items()}
    turns = _InTurn(once, bench.seconds)
    return {who: functools.partial(turns.median, who) for who in once}


# --- start on a big tree ----------------------------------------------------------------------------------------------


def _plant(bench: Bench, path: str) -> None:
    """Create the tree, a hundred requests at a time."""
    with ExitStack() as stack:
        bench.kazoo(stack).ensure_path(path)
        _grow(raw_client(bench, stack), path)


def _grow(raw: RawClient, path: str) -> None:
    branches = [f"{path}/branch-{number:03}" for number in range(_BRANCHES)]
    for paths in (branches, *([f"{branch}/leaf-{n:03}" for n in range(_LEAVES)] for branch in branches)):
        for each in paths:
            raw.send("create", create_payload(each, _DATA))
        for _ in paths:
            raw.receive()


def _all_told(told: int) -> None:
    if told != _NODES:
        message = f"{told} nodes were told, not {_NODES}"
        raise RuntimeError(message)


def _our_start(client: zkr.Client, path: str) -> float:
    """Milliseconds until a new TreeListener has told every node."""
    told: list[str] = []
    complete = threading.Event()
    start = time.perf_counter()
    listener = zkr.TreeListener(client, path)
    listener.on_created(lambda change: told.append(change.path))
    listener.on_initialized(complete.set)
    with listener:
        complete.wait(_LIMIT)
        elapsed = time.perf_counter() - start
    _all_told(len(told))
    return elapsed * 1000


def _kazoo_start(bench: Bench, path: str) -> float:
    """The same for kazoo's TreeCache, each on a client of its own: it leaves its watches behind."""
    told: list[str] = []
    complete = threading.Event()

    def listen(event: Any) -> None:
        if event.event_type == TreeEvent.NODE_ADDED:
            told.append(event.event_data.path)
        elif event.event_type == TreeEvent.INITIALIZED:
            complete.set()

    with ExitStack() as stack:
        client = bench.kazoo(stack)
        start = time.perf_counter()
        cache = TreeCache(client, path)
        cache.listen(listen)
        cache.start()
        complete.wait(_LIMIT)
        elapsed = time.perf_counter() - start
        cache.close()
    _all_told(len(told))
    return elapsed * 1000


def _curator_start(peer: CuratorPeer, path: str) -> float:
    return bench_cache(peer, path, _NODES)[0] * 1000


@entry(
    "listener-start",
    f"Listener: start on a tree of {_NODES:,} nodes",
    Unit.MILLISECONDS,
    Times("ours", 1 / 5, "kazoo"),
    Times("ours", 1 / 0.7, "Curator"),
)
def listener_start(bench: Bench, stack: ExitStack) -> dict[str, Measure]:
    """Until the state is complete and a callback has been told of each node."""
    path = bench.path("tree")
    _plant(bench, path)
    client = stack.enter_context(zkr.connect(bench.hosts))
    measures: dict[str, Measure] = {
        "ours": lambda: _our_start(client, path),
        "kazoo": lambda: _kazoo_start(bench, path),
    }
    if peers := bench.curator(stack):
        bench_cache(peers[0], path, _NODES, _WARM_UP_CACHES)
        measures["Curator"] = lambda: _curator_start(peers[0], path)
    return measures
