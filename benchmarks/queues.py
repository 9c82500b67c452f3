"""Queues: items a second by one consumer and by several, at a short and at a long backlog; how soon an item arrives."""

from __future__ import annotations

import functools
import statistics
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final, final

from kazoo.client import KazooClient
from kazoo.recipe.queue import LockingQueue

import zkrecipes as zkr
from benchmarks.bench import Bench, raw_client, repeat, round_trip
from benchmarks.harness import Limit, Measure, Ratio, Unit, entry
from benchmarks.processes import ConsumingProcesses, consume
from tests.interop.peer import CuratorPeer
from tests.interop.queues import bench_queue
from zkrecipes.testing import FaultProxy
from zkrecipes.testing.raw import RawClient, create_payload

_ITEM: Final = b"x" * 100
_BACKLOG: Final = 100
_DEEP: Final = 100_000
_TOGETHER: Final = 500
"""Items of one put while a deep queue is filled."""

_PREFETCH: Final = 20
_CONSUMERS: Final = 4
_CONSUMED: Final = 20_000
"""More than consumers take in one round."""

_REST: Final = 0.005  # between two items: the last one is acknowledged, and all threads sleep again
_LIMIT: Final = 30.0
_IDLE: Final = 3.0
_IDLE_SESSION: Final = 3.0  # a heartbeat each half second


def _fill(queue: zkr.Queue, items: int) -> None:
    """Put so many items, in big transactions."""
    for start in range(0, items, _TOGETHER):
        queue.put_many([_ITEM] * min(_TOGETHER, items - start))


def _drained(fill: Callable[[], object], drain: Callable[[], float], seconds: float) -> float:
    """Items a second: only the drains of a backlog are measured."""
    items, elapsed = 0, 0.0
    while elapsed < seconds:
        fill()
        elapsed += drain()
        items += _BACKLOG
    return items / elapsed


def _timed(cycle: Callable[[], object]) -> float:
    """Seconds for as many cycles as the backlog has items."""
    start = time.perf_counter()
    for _ in range(_BACKLOG):
        cycle()
    return time.perf_counter() - start


def _one_by_one(queue: zkr.Queue) -> Callable[[], None]:
    def cycle() -> None:
        with queue.take():
            pass

    return cycle


def _kazoo_cycle(queue: LockingQueue) -> Callable[[], None]:
    def cycle() -> None:
        queue.get()
        if not queue.consume():
            message = "kazoo's queue has not consumed its item"
            raise RuntimeError(message)

    return cycle


def _kazoo_drained(client: KazooClient, path: str, seconds: float) -> float:
    queue = LockingQueue(client, path)
    return _drained(lambda: queue.put_all([_ITEM] * _BACKLOG), lambda: _timed(_kazoo_cycle(queue)), seconds)


def _curator_drained(peer: CuratorPeer, path: str, seconds: float) -> float:
    return _drained(lambda: None, lambda: bench_queue(peer, path, _BACKLOG, len(_ITEM)), seconds)


# --- puts -------------------------------------------------------------------------------------------------------------


@entry(
    "queue-put",
    f"Queue: put of {_BACKLOG} items, each of 100 bytes",
    Unit.PER_SECOND,
    Ratio("ours", 10.0, "kazoo"),
)
def queue_put(bench: Bench, stack: ExitStack) -> dict[str, Measure]:
    """Ours is one transaction of all; kazoo's put takes one item, its put_all is one transaction, too."""
    client = stack.enter_context(zkr.connect(bench.hosts))
    other = bench.kazoo(stack)
    ours = zkr.Queue(client, bench.path("put"))
    kazoo, kazoos_all = LockingQueue(other, bench.path("put")), LockingQueue(other, bench.path("put"))
    items = [_ITEM] * _BACKLOG
    return {
        "ours": lambda: _BACKLOG * repeat(lambda: ours.put_many(items), bench.seconds),
        "ours, one by one": lambda: repeat(lambda: ours.put(_ITEM), bench.seconds),
        "kazoo": lambda: repeat(lambda: kazoo.put(_ITEM), bench.seconds),
        "kazoo, put_all": lambda: _BACKLOG * repeat(lambda: kazoos_all.put_all(items), bench.seconds),
    }


# --- one consumer -----------------------------------------------------------------------------------------------------


@entry(
    "queue-take",
    f"Queue: take and acknowledge, one consumer, backlog of {_BACKLOG}",
    Unit.PER_SECOND,
    Ratio("ours", 5.0, "kazoo"),
    Ratio("ours", 5.0, "Curator"),
    Ratio("ours, one by one", 1.5, "kazoo"),
    Ratio("ours, one by one", 1.5, "Curator"),
)
def queue_take(bench: Bench, stack: ExitStack) -> dict[str, Measure]:
    """Ours with prefetch=20. Curator's has a lock path: without one, it loses what a consumer that dies has taken."""
    client = stack.enter_context(zkr.connect(bench.hosts))
    other = bench.kazoo(stack)
    ours, single = zkr.Queue(client, bench.path("take")), zkr.Queue(client, bench.path("take"))
    theirs = bench.path("take")
    measures: dict[str, Measure] = {
        "ours": lambda: _drained(lambda: _fill(ours, _BACKLOG), lambda: _consumed(ours), bench.seconds),
        "ours, one by one": lambda: _drained(
            lambda: _fill(single, _BACKLOG), lambda: _timed(_one_by_one(single)), bench.seconds
        ),
        "kazoo": lambda: _kazoo_drained(other, theirs, bench.seconds),
    }
    if peers := bench.curator(stack):
        path = bench.path("take")
        _curator_drained(peers[0], path, bench.seconds)
        measures["Curator"] = lambda: _curator_drained(peers[0], path, bench.seconds)
    return measures


def _consumed(queue: zkr.Queue) -> float:
    """Seconds for the backlog, acknowledgements and all."""
    start = time.perf_counter()
    consume(queue, _PREFETCH, items=_BACKLOG)
    return time.perf_counter() - start


@entry(
    "queue-take-deep",
    f"Queue: take and acknowledge, one consumer, backlog of {_DEEP:,}",
    Unit.PER_SECOND,
    Ratio("ours", 0.8, "ours, backlog of 100"),
    Ratio("ours, one by one", 0.8, "ours, one by one, backlog of 100"),
)
def queue_take_deep(bench: Bench, stack: ExitStack) -> dict[str, Measure]:
    """What is taken is put again, so that the backlog stays as long as it is."""
    client = stack.enter_context(zkr.connect(bench.hosts))
    measures: dict[str, Measure] = {}
    for words, items in (("", _DEEP), (", backlog of 100", _BACKLOG)):
        queue = zkr.Queue(client, bench.path("deep"))
        _fill(queue, items - _BACKLOG)
        for how, drain in (
            ("ours", functools.partial(_consumed, queue)),
            ("ours, one by one", functools.partial(_timed, _one_by_one(queue))),
        ):
            fill = functools.partial(_fill, queue, _BACKLOG)
            measures[how + words] = functools.partial(_drained, fill, drain, bench.seconds)
    return measures


# --- several consumers ------------------------------------------------------------------------------------------------


@final
class _Consumers:
    """So many processes that consume one queue, which is filled again after each round."""

    def __init__(self, bench: Bench, stack: ExitStack, client: zkr.Client, processes: int) -> None:
        path = bench.path("consumers")
        self._queue = zkr.Queue(client, path)
        self._seconds = bench.seconds
        self._missing = _CONSUMED
        self._group = stack.enter_context(ConsumingProcesses(bench.hosts, path, processes, _PREFETCH))
        self._rates: list[float] = []

    def total(self) -> float:
        """Items a second of all together."""
        _fill(self._queue, self._missing)
        self._rates = self._group.rates(self._seconds)
        self._missing = round(sum(self._rates) * self._seconds)
        return sum(self._rates)

    def shares(self) -> list[float]:
        """What each did in a round of its own."""
        self.total()
        return self._rates


@entry(
    "queue-consumers",
    f"Queue: take and acknowledge, {_CONSUMERS} consumers, a process each",
    Unit.PER_SECOND,
    Ratio("ours", 1.0, "ours, one consumer"),
    Ratio("slowest", 0.5, "mean"),
)
def queue_consumers(bench: Bench, stack: ExitStack) -> dict[str, Measure]:
    """All with prefetch=20; the slowest and the mean are of rounds of their own."""
    client = stack.enter_context(zkr.connect(bench.hosts))
    one, four = _Consumers(bench, stack, client, 1), _Consumers(bench, stack, client, _CONSUMERS)
    return {
        "ours": four.total,
        "ours, one consumer": one.total,
        "slowest": lambda: min(four.shares()),
        "mean": lambda: statistics.mean(four.shares()),
    }


# --- an idle consumer -------------------------------------------------------------------------------------------------


@final
class _Arrivals:
    """A consumer that waits in a thread of its own, and tells when an item has arrived."""

    def __init__(self, put: Callable[[], object], samples: int) -> None:
        self._put = put
        self._samples = samples
        self._arrived = threading.Event()
        self._at = 0.0

    def arrived(self, at: float | None = None) -> None:
        """Called by the consumer, first of all; or when it is ready for the next one, with the time."""
        self._at = time.perf_counter() if at is None else at
        self._arrived.set()

    def median(self) -> float:
        """Milliseconds from the call of put until the item is in the consumer's hands.

        Raises:
            TimeoutError: It did not arrive.
        """
        times = []
        for _ in range(self._samples):
            time.sleep(_REST)
            self._arrived.clear()
            start = time.perf_counter()
            self._put()
            if not self._arrived.wait(_LIMIT):
                message = f"an item did not arrive within {_LIMIT:.0f} s"
                raise TimeoutError(message)
            times.append(self._at - start)
        return statistics.median(times) * 1000


def _our_arrivals(bench: Bench, stack: ExitStack) -> _Arrivals:
    path = bench.path("arrivals")
    putter, taker = (stack.enter_context(zkr.connect(bench.hosts)) for _ in range(2))
    queue = zkr.Queue(putter, path)
    arrivals = _Arrivals(lambda: queue.put(_ITEM), bench.samples)
    claims = zkr.Queue(taker, path).consume()

    def work() -> None:
        for claim in claims:
            with claim:
                arrivals.arrived()

    thread = threading.Thread(target=work, name="consumer")
    thread.start()
    stack.callback(thread.join)
    stack.callback(claims.close)
    return arrivals


def _kazoo_arrivals(bench: Bench, stack: ExitStack) -> _Arrivals:
    path = bench.path("arrivals")
    producer, queue = LockingQueue(bench.kazoo(stack), path), LockingQueue(bench.kazoo(stack), path)
    arrivals = _Arrivals(lambda: producer.put(_ITEM), bench.samples)
    end = threading.Event()

    def work() -> None:
        while not end.is_set():
            if queue.get(timeout=0.2) is not None:
                arrivals.arrived()
                queue.consume()

    thread = threading.Thread(target=work, name="kazoo-consumer")
    thread.start()
    stack.callback(thread.join)
    stack.callback(end.set)
    return arrivals


def _raw_watch(bench: Bench, stack: ExitStack, raw: RawClient) -> _Arrivals:
    """A bare write, and a watch that tells of it."""
    path = bench.path("arrivals")
    other = bench.kazoo(stack)
    other.ensure_path(path)
    counted = iter(range(10**9))
    arrivals = _Arrivals(lambda: raw.send("create", create_payload(f"{path}/{next(counted)}")), bench.samples)

    def fired(_event: object) -> None:
        at = time.perf_counter()
        other.get_children(path, watch=fired)
        arrivals.arrived(at)

    other.get_children(path, watch=fired)
    return arrivals


@entry(
    "queue-arrival",
    "Queue: from a put to the hands of a consumer that waits",
    Unit.MILLISECONDS,
    Limit(
        "ours",
        lambda medians: medians["raw watch"] + 2 * medians["raw round trip"] + 2.0,
        "raw watch latency + two raw round trips + 2 ms",
    ),
)
def queue_arrival(bench: Bench, stack: ExitStack) -> dict[str, Measure]:
    """Producer and consumer have a session each."""
    raw = raw_client(bench, stack)
    return {
        "raw round trip": lambda: round_trip(raw),
        "raw watch": _raw_watch(bench, stack, raw_client(bench, stack)).median,
        "ours": _our_arrivals(bench, stack).median,
        "kazoo": _kazoo_arrivals(bench, stack).median,
    }


def _idle(proxy: FaultProxy) -> float:
    """Requests in a while, heartbeats and all."""
    proxy.reset_counts()
    time.sleep(_IDLE)
    return float(proxy.counts().total())


@entry(
    "queue-idle",
    f"Queue: requests of a consumer that waits, in {_IDLE:.0f} s, heartbeats and all",
    Unit.REQUESTS,
    Limit(
        "ours",
        lambda medians: medians["a client that does nothing"] + 1,
        "heartbeats, and one for their phase",
        Unit.REQUESTS,
    ),
)
def queue_idle(bench: Bench, stack: ExitStack) -> dict[str, Measure]:
    """Beside a client that does nothing."""
    proxies = [stack.enter_context(FaultProxy(bench.hosts)) for _ in range(2)]
    clients = [stack.enter_context(zkr.connect(proxy.hosts, session_timeout=_IDLE_SESSION)) for proxy in proxies]
    queue = zkr.Queue(clients[0], bench.path("idle"))
    queue.put(_ITEM)
    first = threading.Event()
    claims = queue.consume()

    def work() -> None:
        for claim in claims:
            with claim:
                first.set()

    thread = threading.Thread(target=work, name="consumer")
    thread.start()
    stack.callback(thread.join)
    stack.callback(claims.close)
    if not first.wait(_LIMIT):
        message = f"an item did not arrive within {_LIMIT:.0f} s"
        raise TimeoutError(message)
    time.sleep(_REST * 100)  # it is acknowledged, and what follows from that has been looked at
    return {"ours": lambda: _idle(proxies[0]), "a client that does nothing": lambda: _idle(proxies[1])}
