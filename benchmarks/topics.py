"""Topics: how soon a message is received by many, what it costs in requests, and how many can be published."""

from __future__ import annotations

import functools
import statistics
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final, final

from kazoo.client import KazooClient

import zkrecipes as zkr
from benchmarks.bench import Bench, raw_client, repeat, round_trip
from benchmarks.harness import Limit, Measure, Unit, entry
from zkrecipes.testing.raw import RawClient, create_payload

_SUBSCRIBERS: Final = 10
_LIMIT: Final = 60.0
_REST: Final = 0.002  # between two messages: everybody waits again
_MESSAGES: Final = 30
_SPARE: Final = 2.0


@final
class _Arrivals:
    """When a message that was sent at a known time has reached each of those that wait for it."""

    def __init__(self, waiting: int) -> None:
        self._waiting = waiting
        self._lock = threading.Lock()
        self._times: list[float] = []
        self._all = threading.Event()

    def arrived(self, at: float) -> None:
        """One has had it since then, and is ready for the next one."""
        with self._lock:
            self._times.append(at)
            if len(self._times) == self._waiting:
                self._all.set()

    def median(self, send: Callable[[], object]) -> float:
        """Milliseconds from sending until it was there, of the median receiver.

        Raises:
            TimeoutError: It was not there in time.
        """
        with self._lock:
            self._times = []
            self._all.clear()
        time.sleep(_REST)
        start = time.perf_counter()
        send()
        if not self._all.wait(_LIMIT):
            message = f"a message did not reach all of {self._waiting} within {_LIMIT:.0f} s"
            raise TimeoutError(message)
        with self._lock:
            return (statistics.median(self._times) - start) * 1000


def _some(once: Callable[[], float]) -> float:
    return statistics.median(once() for _ in range(_MESSAGES))


def _raw_watches(bench: Bench, stack: ExitStack, path: str, arrivals: _Arrivals) -> None:
    """Ten kazoo clients with a watch on a node's children: the least by which anybody can hear of a new one."""

    def arm(client: KazooClient) -> None:
        def fired(_event: object) -> None:
            at = time.perf_counter()
            client.get_children_async(path, watch=fired).rawlink(lambda _: arrivals.arrived(at))

        client.get_children(path, watch=fired)

    for _ in range(_SUBSCRIBERS):
        arm(bench.kazoo(stack))


def _create(raw: RawClient, path: str) -> None:
    raw.call("create", create_payload(f"{path}/m-", b"x" * 100, flags=2))


@final
class _Requests:
    """Counts the requests of a client."""

    def __init__(self) -> None:
        self.count = 0

    def on_request(self, operation: str, path: str, seconds: float, outcome: str) -> None:
        """One has ended."""
        del path, seconds, outcome
        self.count += operation in {"get", "exists", "children", "readmany"}

    def on_state(self, state: zkr.State) -> None:
        """Not counted."""

    def on_hold(self, path: str, token: int, lost: zkr.LostReason | None) -> None:
        """Not counted."""


def _subscribe(bench: Bench, stack: ExitStack, path: str, arrivals: _Arrivals, observer: _Requests | None) -> None:
    """Ten subscribers, each with a client of its own, until the stack is closed."""
    for number in range(_SUBSCRIBERS):
        client = stack.enter_context(zkr.connect(bench.hosts, session_timeout=60.0, observer=observer))
        subscription = stack.enter_context(zkr.Topic(client, path).subscribe(f"s{number}"))

        def read(subscription: zkr.Subscription[bytes] = subscription) -> None:
            for _ in subscription:
                arrivals.arrived(time.perf_counter())

        threading.Thread(target=read, daemon=True).start()


@entry(
    "topic-delay",
    f"Topic: from publish to receipt, {_SUBSCRIBERS} subscribers",
    Unit.MILLISECONDS,
    Limit(
        "ours",
        lambda medians: medians["raw watch"] + 2 * medians["round trip"] + _SPARE,
        f"raw watch + 2 round trips + {_SPARE:g} ms",
    ),
)
def topic_delay(bench: Bench, stack: ExitStack) -> dict[str, Measure]:
    """The median subscriber. The raw watch tells that there is something, and not yet what."""
    raw, plain, path = raw_client(bench, stack), bench.path("raw"), bench.path("topic")
    publisher = stack.enter_context(zkr.connect(bench.hosts))
    publisher.create(plain, parents=True)
    topic = zkr.Topic(publisher, path)
    topic.publish(b"first")
    theirs, ours = _Arrivals(_SUBSCRIBERS), _Arrivals(_SUBSCRIBERS)
    _raw_watches(bench, stack, plain, theirs)
    _subscribe(bench, stack, path, ours, None)
    return {
        "round trip": functools.partial(round_trip, raw),
        "raw watch": lambda: _some(lambda: theirs.median(lambda: _create(raw, plain))),
        "ours": lambda: _some(lambda: ours.median(lambda: topic.publish(b"x" * 100))),
    }


@entry(
    "topic-requests",
    f"Topic: requests for one message and subscriber, {_SUBSCRIBERS} subscribers",
    Unit.REQUESTS,
    Limit(
        "ours",
        lambda _medians: 2.0,
        "the message; without persistent watches also a look at the next one",
        Unit.REQUESTS,
    ),
)
def topic_requests(bench: Bench, stack: ExitStack) -> dict[str, Measure]:
    """Acknowledgements apart."""
    path = bench.path("topic")
    topic = zkr.Topic(stack.enter_context(zkr.connect(bench.hosts)), path)
    topic.publish(b"first")
    arrivals, requests = _Arrivals(_SUBSCRIBERS), _Requests()
    _subscribe(bench, stack, path, arrivals, requests)
    arrivals.median(lambda: topic.publish(b"x"))

    def some() -> float:
        time.sleep(0.2)  # what the last message has cost is counted with it
        before = requests.count
        for _ in range(_MESSAGES):
            arrivals.median(lambda: topic.publish(b"x" * 100))
        time.sleep(0.2)
        return (requests.count - before) / _MESSAGES / _SUBSCRIBERS

    return {"ours": some}


@entry("topic-publish", "Topic: publishes of one thread", Unit.PER_SECOND)
def topic_publish(bench: Bench, stack: ExitStack) -> dict[str, Measure]:
    """Beside a raw create of kazoo, which says nothing after a lost reply."""
    topic = zkr.Topic(stack.enter_context(zkr.connect(bench.hosts)), bench.path("topic"))
    client, plain = bench.kazoo(stack), bench.path("kazoo")
    client.ensure_path(plain)
    data = b"x" * 100
    return {
        "ours": lambda: repeat(lambda: topic.publish(data), bench.seconds),
        "kazoo, a plain create": lambda: repeat(
            lambda: client.create(f"{plain}/m-", data, sequence=True), bench.seconds
        ),
    }
