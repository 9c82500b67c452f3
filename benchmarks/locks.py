"""Lock cycles and hand-offs. A cycle is acquire and release; in a contended line each cycle is one hand-off."""

from __future__ import annotations

import asyncio
import functools
from contextlib import ExitStack
from typing import Final

import zkrecipes as zkr
from benchmarks.bench import Bench, contend, kazoo_cycle, our_cycle, raw_client, raw_cycle, repeat
from benchmarks.harness import Measure, Ratio, Unit, entry
from benchmarks.processes import ContendingProcesses
from tests.interop.peer import CuratorPeer
from zkrecipes import aio

_THREADS: Final = 8
_PROCESSES: Final = 2


def _curators(peers: list[CuratorPeer], path: str, threads: int, seconds: float, *, clients: bool = False) -> float:
    """Cycles per second of all peers together."""
    runs = [peer.bench_handoffs(path, threads, seconds, clients=clients) for peer in peers]
    return sum(run.result().handoffs for run in runs) / seconds


@entry(
    "lock-cycles",
    "Lock: acquire and release, uncontended",
    Unit.PER_SECOND,
    Ratio("ours", 1.2, "kazoo"),
    Ratio("ours", 0.8, "Curator"),
)
def lock_cycles(bench: Bench, stack: ExitStack) -> dict[str, Measure]:
    """One thread, one lock, nobody else. The floor is the same three requests in two flights on a bare socket."""
    raw = raw_client(bench, stack)
    parent = bench.path("raw")
    other = bench.kazoo(stack)
    other.ensure_path(parent)
    client = stack.enter_context(zkr.connect(bench.hosts))
    ours = our_cycle(zkr.Lock(client, bench.path("ours")))
    kazoo = kazoo_cycle(other, bench.path("kazoo"))
    measures: dict[str, Measure] = {
        "raw requests": lambda: repeat(lambda: raw_cycle(raw, parent), bench.seconds),
        "ours": lambda: repeat(ours, bench.seconds),
        "kazoo": lambda: repeat(kazoo, bench.seconds),
    }
    if peers := bench.curator(stack):
        measures["Curator"] = functools.partial(_curators, peers, bench.path("curator"), 1, bench.seconds)
    return measures


@entry(
    "hand-offs-threads",
    f"Lock: hand-offs, {_THREADS} threads of one client",
    Unit.PER_SECOND,
    Ratio("ours, local hand-off", 10.0, "kazoo"),
    Ratio("ours", 1.0, "kazoo"),
)
def hand_offs_threads(bench: Bench, stack: ExitStack) -> dict[str, Measure]:
    """Threads that share a client; with local hand-off most hand-offs need no request."""
    client = stack.enter_context(zkr.connect(bench.hosts))
    other = bench.kazoo(stack)
    local = zkr.Lock(client, bench.path("local"), local_handoff=zkr.LocalHandoff())
    plain = zkr.Lock(client, bench.path("ours"))
    theirs = bench.path("kazoo")
    kazoo = [kazoo_cycle(other, theirs) for _ in range(_THREADS)]
    measures: dict[str, Measure] = {
        "ours, local hand-off": lambda: contend([our_cycle(local)] * _THREADS, bench.seconds),
        "ours": lambda: contend([our_cycle(plain)] * _THREADS, bench.seconds),
        "kazoo": lambda: contend(kazoo, bench.seconds),
    }
    if peers := bench.curator(stack):
        measures["Curator"] = functools.partial(_curators, peers, bench.path("curator"), _THREADS, bench.seconds)
    return measures


@entry(
    "hand-offs-clients",
    f"Lock: hand-offs, {_THREADS} clients in one process",
    Unit.PER_SECOND,
    Ratio("ours", 1.0, "kazoo"),
)
def hand_offs_clients(bench: Bench, stack: ExitStack) -> dict[str, Measure]:
    """A session for each contender."""
    path, theirs = bench.path("ours"), bench.path("kazoo")
    ours = [our_cycle(zkr.Lock(stack.enter_context(zkr.connect(bench.hosts)), path)) for _ in range(_THREADS)]
    kazoo = [kazoo_cycle(bench.kazoo(stack), theirs) for _ in range(_THREADS)]
    measures: dict[str, Measure] = {
        "ours": lambda: contend(ours, bench.seconds),
        "kazoo": lambda: contend(kazoo, bench.seconds),
    }
    if peers := bench.curator(stack):
        measures["Curator"] = functools.partial(
            _curators, peers, bench.path("curator"), _THREADS, bench.seconds, clients=True
        )
    return measures


@entry(
    "hand-offs-processes",
    f"Lock: hand-offs, {_PROCESSES} processes of {_THREADS // _PROCESSES} threads",
    Unit.PER_SECOND,
    Ratio("ours", 1.0, "kazoo"),
)
def hand_offs_processes(bench: Bench, stack: ExitStack) -> dict[str, Measure]:
    """Processes that contend, with a client each."""
    each = _THREADS // _PROCESSES
    measures: dict[str, Measure] = {}
    for who in ("ours", "ours, local hand-off", "kazoo"):
        group = stack.enter_context(ContendingProcesses(who, bench.hosts, bench.path("group"), _PROCESSES, each))
        measures[who] = functools.partial(group.rate, bench.seconds)
    if peers := bench.curator(stack, _PROCESSES):
        measures["Curator"] = functools.partial(_curators, peers, bench.path("curator"), each, bench.seconds)
    return measures


@entry("aio-lock-cycles", "Lock under asyncio: acquire and release, uncontended", Unit.PER_SECOND)
def aio_lock_cycles(bench: Bench, stack: ExitStack) -> dict[str, Measure]:
    """One task, one lock; beside the same in threads, for information."""
    client = stack.enter_context(zkr.connect(bench.hosts))
    threads = our_cycle(zkr.Lock(client, bench.path("threads")))
    runner = stack.enter_context(asyncio.Runner())

    async def connect() -> aio.Client:
        return await aio.connect(bench.hosts)

    connected = runner.run(connect())
    stack.callback(lambda: runner.run(connected.close()))
    lock = aio.Lock(connected, bench.path("aio"))

    async def cycles() -> float:
        loop = asyncio.get_running_loop()
        start = loop.time()
        done = 0
        while (now := loop.time()) - start < bench.seconds:
            async with lock.acquire():
                pass
            done += 1
        return done / (now - start)

    return {
        "ours, asyncio": lambda: runner.run(cycles()),
        "ours, threads": lambda: repeat(threads, bench.seconds),
    }
