"""Curator's queues, driven from Python: DistributedQueue, DistributedPriorityQueue, DistributedDelayQueue."""

from __future__ import annotations

import base64
import itertools
import time
from collections.abc import Iterable
from typing import Any, Final, Literal, NamedTuple, Self, final

from kazoo.client import KazooClient

import zkrecipes as zkr
from tests.interop.peer import CuratorPeer
from zkrecipes.queue_curator import OWN
from zkrecipes.testing import wait_until

__all__ = [
    "LAYOUTS",
    "LIMIT",
    "CuratorConsumer",
    "Given",
    "Layout",
    "bench_queue",
    "locks_at",
    "now",
    "ours",
    "put",
    "served",
]

Layout = Literal["curator", "curator-priority", "curator-delay"]
"""Which of Curator's queues, by the name of the layout that is the same."""

LAYOUTS: Final[tuple[Layout, ...]] = ("curator", "curator-priority", "curator-delay")
LIMIT: Final = 20.0
"""Seconds for what is no matter of measurement."""

_NAMES: Final = itertools.count(1)
_BENCH_LIMIT: Final = 120.0


def locks_at(kazoo: KazooClient, locks: str) -> list[str]:
    """The claims of both sides; without the node below which we have what Curator does not know."""
    return [name for name in kazoo.get_children(locks) if name != OWN]


class Given(NamedTuple):
    """An item that Curator's consumer was given, and when, in milliseconds since 1970."""

    item: bytes
    at: int


@final
class CuratorConsumer:
    """A started queue with a consumer, which records what it is given. Use it in a `with` block.

    Args:
        peer: Whose connection it uses.
        path: The queue's.
        layout: Which queue.
        locks: Its lock path; `<path>-locks` where None.
        failures: So many deliveries end with an exception, the first ones; the queue puts their items back.
        hold: Whether it keeps each item until `proceed`, after it has recorded it.
        batch: A priority queue handles so many items before it looks for more urgent ones.
    """

    def __init__(
        self,
        peer: CuratorPeer,
        path: str,
        layout: Layout = "curator",
        *,
        locks: str | None = None,
        failures: int = 0,
        hold: bool = False,
        batch: int = 1,
    ) -> None:
        self._peer = peer
        self._name = f"queue-{next(_NAMES)}"
        peer.call(
            "queue.start",
            name=self._name,
            path=path,
            layout=layout,
            locks=locks or f"{path}-locks",
            failures=failures,
            hold=hold,
            batch=batch,
        )

    def deliveries(self) -> list[Given]:
        """Each delivery until now, in order, those that failed included."""
        answer = self._peer.call("queue.given", name=self._name)
        return [Given(base64.b64decode(item), at) for item, at in zip(answer.events, answer.values, strict=True)]

    def given(self) -> list[bytes]:
        """The items of all deliveries until now, in order."""
        return [one.item for one in self.deliveries()]

    def wait(self, count: int, limit: float = LIMIT) -> list[bytes]:
        """Wait until it was given so many items; what it was given."""
        wait_until(lambda: len(self.given()) >= count, limit, lambda: f"{count} deliveries, not {self.given()}")
        return self.given()

    def wait_idle(self, limit: float = LIMIT) -> None:
        """Wait until it has tried every item that is there now, and waits for a change."""
        wait_until(lambda: self._peer.call("queue.idle", name=self._name).done, limit, "Curator's consumer is idle")

    def proceed(self, times: int = 1) -> None:
        """Let it go on after so many of the items that it holds, or will hold."""
        self._peer.call("queue.proceed", name=self._name, times=times)

    def close(self) -> None:
        """Close the queue; a consumer that holds an item is interrupted."""
        self._peer.call("queue.close", name=self._name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def put(
    peer: CuratorPeer,
    path: str,
    items: Iterable[bytes],
    layout: Layout = "curator",
    *,
    priority: int = 0,
    due: int = 1,
    together: bool = False,
    locks: str | None = None,
) -> None:
    """Put items, in order, and wait until they are stored.

    Args:
        peer: Whose connection it uses.
        path: The queue's.
        items: What to put.
        layout: Which queue.
        priority: Of all items, in a priority queue.
        due: When all are due, in a delay queue: milliseconds since 1970, more than 0.
        together: putMulti: all in one node.
        locks: The queue's lock path; `<path>-locks` where None.
    """
    coded = [base64.b64encode(item).decode() for item in items]
    peer.call(
        "queue.put",
        path=path,
        items=coded,
        layout=layout,
        priority=priority,
        due=due,
        together=together,
        locks=locks or f"{path}-locks",
    )


def now() -> int:
    """Milliseconds since 1970, rounded down as Java does."""
    return time.time_ns() // 10**6


def ours(zk: zkr.Client, path: str, layout: Layout = "curator", **options: Any) -> zkr.Queue[bytes]:
    """Our queue in one of Curator's layouts."""
    options["layout"] = layout
    return zkr.Queue(zk, path, **options)


def served(queue: zkr.Queue[bytes], count: int) -> list[bytes]:
    """Take and acknowledge so many items of ours; there must be no more."""
    items = []
    for _ in range(count):
        with queue.take(LIMIT) as claim:
            items.append(claim.item)
    assert queue.try_take() is None
    return items


def bench_queue(peer: CuratorPeer, path: str, items: int, size: int) -> float:
    """Put so many items of so many bytes; the seconds for which one consumer, with a lock path, needs for them."""
    seconds = peer.call("queue.bench", path=path, items=items, size=size, limit=_BENCH_LIMIT).seconds
    assert isinstance(seconds, float)
    return seconds
