"""Counters: how often a second something is counted, by one and by many. Identifiers: how many a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Final

from kazoo.client import KazooClient

import zkrecipes as zkr
from benchmarks.bench import Bench, contend, repeat
from benchmarks.harness import Measure, Ratio, Unit, entry

_CLIENTS: Final = 4
_THREADS: Final = 4
_CROWD: Final = 16
_IDENTIFIERS: Final = 100_000
"""Identifiers a second that are promised."""


def _kazoo_add(client: KazooClient, path: str) -> Callable[[], None]:
    """One add of kazoo's counter: an object that is used by one thread only."""
    counter = client.Counter(path)

    def add() -> None:
        counter.__add__(1)

    return add


def _our_add(counter: zkr.Counter) -> Callable[[], None]:
    """One add of ours."""

    def add() -> None:
        counter.add()

    return add


def _slowest(cycles: Sequence[Callable[[], None]], threads: int, seconds: float) -> float:
    """What all together would do a second, if each did as little as the slowest of the clients."""
    done = [0] * len(cycles)
    lock = threading.Lock()

    def counted(index: int) -> Callable[[], None]:
        def cycle() -> None:
            cycles[index]()
            with lock:
                done[index] += 1

        return cycle

    start = time.monotonic()
    contend([counted(index) for index in range(len(cycles)) for _ in range(threads)], seconds)
    return min(done) * len(cycles) / (time.monotonic() - start)


def _many(bench: Bench, stack: ExitStack, threads: int) -> dict[str, Measure]:
    """Some clients, each with so many threads."""
    path, theirs = bench.path("ours"), bench.path("kazoo")
    ours = [_our_add(zkr.Counter(stack.enter_context(zkr.connect(bench.hosts)), path)) for _ in range(_CLIENTS)]
    clients = [bench.kazoo(stack) for _ in range(_CLIENTS)]
    kazoo = [_kazoo_add(client, theirs) for client in clients for _ in range(threads)]
    return {
        "ours": lambda: contend([add for add in ours for _ in range(threads)], bench.seconds),
        "ours, 4 times the slowest": lambda: _slowest(ours, threads, bench.seconds),
        "kazoo": lambda: contend(kazoo, bench.seconds),
    }


@entry("counter-one", "Counter: adds of one thread", Unit.PER_SECOND)
def counter_one(bench: Bench, stack: ExitStack) -> dict[str, Measure]:
    """Nobody else counts."""
    ours = _our_add(zkr.Counter(stack.enter_context(zkr.connect(bench.hosts)), bench.path("ours")))
    kazoo = _kazoo_add(bench.kazoo(stack), bench.path("kazoo"))
    return {
        "ours": lambda: repeat(ours, bench.seconds),
        "kazoo": lambda: repeat(kazoo, bench.seconds),
    }


@entry(
    "counter-clients",
    f"Counter: adds of {_CLIENTS} clients with one thread each",
    Unit.PER_SECOND,
    Ratio("ours", 1.2, "kazoo"),
    Ratio("ours, 4 times the slowest", 0.5, "ours"),
)
def counter_clients(bench: Bench, stack: ExitStack) -> dict[str, Measure]:
    """Nothing can be combined: each add is a write of its own, and all but one at a time come too late."""
    return _many(bench, stack, 1)


@entry(
    "counter-clients-threads",
    f"Counter: adds of {_CLIENTS} clients with {_THREADS} threads each",
    Unit.PER_SECOND,
    Ratio("ours", 3.0, "kazoo"),
    Ratio("ours, 4 times the slowest", 0.5, "ours"),
)
def counter_clients_threads(bench: Bench, stack: ExitStack) -> dict[str, Measure]:
    """The adds of a client's threads travel together."""
    return _many(bench, stack, _THREADS)


@entry(
    "counter-threads",
    f"Counter: adds of {_CROWD} threads of one client",
    Unit.PER_SECOND,
    Ratio("ours", 10.0, "kazoo"),
)
def counter_threads(bench: Bench, stack: ExitStack) -> dict[str, Measure]:
    """One process, as a service with a pool of workers is."""
    ours = _our_add(zkr.Counter(stack.enter_context(zkr.connect(bench.hosts)), bench.path("ours")))
    client, theirs = bench.kazoo(stack), bench.path("kazoo")
    kazoo = [_kazoo_add(client, theirs) for _ in range(_CROWD)]
    return {
        "ours": lambda: contend([ours] * _CROWD, bench.seconds),
        "kazoo": lambda: contend(kazoo, bench.seconds),
    }


@entry(
    "identifiers",
    "IdGenerator: identifiers of one thread",
    Unit.PER_SECOND,
    Ratio("ours", 1.0, "promised"),
)
def identifiers(bench: Bench, stack: ExitStack) -> dict[str, Measure]:
    """Blocks of 1000, as by default."""
    ids = zkr.IdGenerator(stack.enter_context(zkr.connect(bench.hosts)), bench.path("ids"))

    def draw() -> None:
        ids.next()

    return {
        "ours": lambda: repeat(draw, bench.seconds),
        "promised": lambda: float(_IDENTIFIERS),
    }
