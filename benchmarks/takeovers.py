"""How long nobody holds it: from the call that gives it up, or the kill, until the next one has it."""

from __future__ import annotations

import functools
import statistics
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final, NamedTuple

from kazoo.client import KazooClient

import zkrecipes as zkr
from benchmarks.bench import TICK, Bench, raw_client, round_trip
from benchmarks.harness import Limit, Measure, Unit, entry
from benchmarks.processes import KilledLeader

_SESSION: Final = 4.0
_SETTLE: Final = 0.01  # from the appearance of the waiter's node until its watch is set
_LIMIT: Final = 20.0


class Taken(NamedTuple):
    """Something that is held.

    Attributes:
        since: When it was taken, in seconds of time.monotonic().
        give_up: Gives it up.
    """

    since: float
    give_up: Callable[[], object]


Take = Callable[[], Taken]
"""Waits in line, and returns when it is held."""


def _our_lock(client: zkr.Client, path: str) -> Take:
    lock = zkr.Lock(client, path)

    def take() -> Taken:
        held = lock.acquire()
        return Taken(time.monotonic(), held.release)

    return take


def _our_election(client: zkr.Client, path: str) -> Take:
    election = zkr.Election(client, path)

    def take() -> Taken:
        leadership = election.campaign()
        return Taken(time.monotonic(), leadership.resign)

    return take


def _kazoo_lock(client: KazooClient, path: str) -> Take:
    lock = client.Lock(path)

    def take() -> Taken:
        lock.acquire()
        return Taken(time.monotonic(), lock.release)

    return take


def _kazoo_election(client: KazooClient, path: str) -> Take:
    election = client.Election(path)

    def take() -> Taken:
        led: list[float] = []
        leads, end = threading.Event(), threading.Event()

        def work() -> None:
            led.append(time.monotonic())
            leads.set()
            end.wait()

        threading.Thread(target=election.run, args=(work,), daemon=True).start()
        leads.wait()
        return Taken(led[0], end.set)

    return take


class _Waiter:
    """Takes in a thread of its own."""

    def __init__(self, take: Take) -> None:
        self._taken: list[Taken] = []
        self._thread = threading.Thread(target=lambda: self._taken.append(take()), name="waiter", daemon=True)
        self._thread.start()

    def taken(self) -> Taken:
        self._thread.join(_LIMIT)
        if not self._taken:
            message = f"nobody took over within {_LIMIT:.0f} s"
            raise TimeoutError(message)
        return self._taken[0]


def _wait_for_line(observer: KazooClient, path: str, length: int) -> None:
    end = time.monotonic() + _LIMIT
    while len(observer.get_children(path)) != length:
        if time.monotonic() > end:
            message = f"no line of {length} at {path} within {_LIMIT:.0f} s"
            raise TimeoutError(message)
    time.sleep(_SETTLE)


def _take_over(observer: KazooClient, path: str, takers: tuple[Take, Take], samples: int) -> float:
    """Median of the take-overs from one to the other and back, in milliseconds."""
    times: list[float] = []
    held = takers[0]()
    for sample in range(samples):
        waiter = _Waiter(takers[(sample + 1) % 2])
        _wait_for_line(observer, path, 2)
        start = time.monotonic()
        held.give_up()
        held = waiter.taken()
        times.append(held.since - start)
    held.give_up()
    _wait_for_line(observer, path, 0)
    return statistics.median(times) * 1000


_TWO_ROUND_TRIPS: Final = Limit(
    "ours", lambda medians: 2 * medians["raw round trip"] + 2.0, "two raw round trips + 2 ms"
)


@entry("take-over-resign", "Election: take-over after resign", Unit.MILLISECONDS, _TWO_ROUND_TRIPS)
def take_over_resign(bench: Bench, stack: ExitStack) -> dict[str, Measure]:
    """The leader resigns while another one waits; each has its own session."""
    raw = raw_client(bench, stack)
    observer = bench.kazoo(stack)
    path, theirs = bench.path("ours"), bench.path("kazoo")
    ours = tuple(_our_election(stack.enter_context(zkr.connect(bench.hosts)), path) for _ in range(2))
    kazoo = tuple(_kazoo_election(bench.kazoo(stack), theirs) for _ in range(2))
    measures: dict[str, Measure] = {
        "raw round trip": lambda: round_trip(raw),
        "ours": lambda: _take_over(observer, path, (ours[0], ours[1]), bench.samples),
        "kazoo": lambda: _take_over(observer, theirs, (kazoo[0], kazoo[1]), bench.samples),
    }
    if peers := bench.curator(stack):
        latches = bench.path("curator")
        measures["Curator"] = lambda: statistics.median(peers[0].bench_failover(latches, bench.samples)) * 1000
    return measures


@entry("take-over-release", "Lock: take-over after release", Unit.MILLISECONDS, _TWO_ROUND_TRIPS)
def take_over_release(bench: Bench, stack: ExitStack) -> dict[str, Measure]:
    """The holder releases while another one waits; each has its own session."""
    raw = raw_client(bench, stack)
    observer = bench.kazoo(stack)
    path, theirs = bench.path("ours"), bench.path("kazoo")
    ours = tuple(_our_lock(stack.enter_context(zkr.connect(bench.hosts)), path) for _ in range(2))
    kazoo = tuple(_kazoo_lock(bench.kazoo(stack), theirs) for _ in range(2))
    return {
        "raw round trip": lambda: round_trip(raw),
        "ours": lambda: _take_over(observer, path, (ours[0], ours[1]), bench.samples),
        "kazoo": lambda: _take_over(observer, theirs, (kazoo[0], kazoo[1]), bench.samples),
    }


def _after_kill(bench: Bench, observer: KazooClient, who: str, taker: Callable[[str], Take]) -> float:
    """Milliseconds from the SIGKILL of a leading process until another one leads."""
    path = bench.path("killed")
    with KilledLeader(who, bench.hosts, path, _SESSION) as leader:
        waiter = _Waiter(taker(path))
        _wait_for_line(observer, path, 2)
        start = time.monotonic()
        leader.kill()
        taken = waiter.taken()
    taken.give_up()
    _wait_for_line(observer, path, 0)
    return (taken.since - start) * 1000


@entry(
    "take-over-kill",
    f"Election: take-over after SIGKILL of the leader, {_SESSION:.0f} s session",
    Unit.MILLISECONDS,
    Limit("ours", lambda _: (_SESSION + 2 * TICK) * 1000, "session timeout + 2 ticks"),
)
def take_over_kill(bench: Bench, stack: ExitStack) -> dict[str, Measure]:
    """The leader's process is killed; the server gives the place away when the session has expired."""
    observer = bench.kazoo(stack)
    client = stack.enter_context(zkr.connect(bench.hosts))
    other = bench.kazoo(stack)
    return {
        "ours": lambda: _after_kill(bench, observer, "ours", functools.partial(_our_election, client)),
        "kazoo": lambda: _after_kill(bench, observer, "kazoo", functools.partial(_kazoo_election, other)),
    }
