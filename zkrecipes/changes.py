"""What one consumer has been told of a mirror, and what it is to be told next. Driver-free.

A consumer is behind by a set of paths, not by a queue of events: what changes twice before it looks is told once, with
the value that it was told before as the old one. So a slow consumer costs no memory, and a map that is replayed from
what it is told equals the mirror whenever it has caught up.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from enum import Enum
from typing import Generic, NamedTuple, TypeVar, final

from zkrecipes.flow import Pending
from zkrecipes.known import Seen, parent_of
from zkrecipes.mirror import Mirror
from zkrecipes.port import Stat

__all__ = ["Change", "Consumer", "EventKind", "RawChange"]

T = TypeVar("T")


@final
class EventKind(Enum):
    """What happened to a node."""

    CREATED = "created"
    CHANGED = "changed"
    DELETED = "deleted"


@final
@dataclass(frozen=True, slots=True)
class Change(Generic[T]):
    """One change of one node, as a listener tells it.

    Attributes:
        kind: CREATED, CHANGED or DELETED. A node that was deleted and made again is DELETED, then CREATED.
        path: Below the client's namespace.
        old: The value that was told before; None with CREATED.
        new: The value now; None with DELETED.
        stat: The metadata that belongs to `new`; with DELETED, the last that was known.
    """

    kind: EventKind
    path: str
    old: T | None
    new: T | None
    stat: Stat


@final
class RawChange(NamedTuple):
    """A change before its data is decoded; full path."""

    kind: EventKind
    path: str
    old: Seen | None
    new: Seen | None


@final
class _Observer:
    """What a mirror knows of a consumer: nothing that keeps it alive, if an iteration is left without a word."""

    __slots__ = ("_consumer", "_mirror")

    def __init__(self, consumer: Consumer, mirror: Mirror) -> None:
        self._consumer = weakref.ref(consumer)
        self._mirror = mirror

    def __call__(self, path: str | None) -> None:
        consumer = self._consumer()
        if consumer is None:
            self._mirror.observers.remove(self)
        else:
            consumer.touched(path)


@final
class Consumer:
    """One consumer of a mirror's changes. All under the step lock; `take` by one taker at a time.

    Attributes:
        woken: Done when there is something to take, or it is closed; another one after each `take`.
        closed: Whether it takes no more.
    """

    def __init__(self, mirror: Mirror, *, data: bool = True) -> None:
        self.woken: Pending[None] = Pending()
        self.closed = False
        self._mirror = mirror
        self._data = data
        self._told: dict[str, Seen] = {}
        # What is there already is news to a consumer that comes late.
        self._behind: dict[str, None] = dict.fromkeys(path for path in mirror.nodes if mirror.scope.shows(path))
        if self._behind:
            self.woken.resolve(None)
        self._observer = _Observer(self, mirror)
        mirror.observers.append(self._observer)

    def touched(self, path: str | None) -> None:
        """The mirror has changed."""
        if path is None or self._mirror.scope.shows(path):
            if path is not None:
                self._behind[path] = None
            self.woken.resolve(None)

    def close(self) -> None:
        """Take no more."""
        self.closed = True
        if self._observer in self._mirror.observers:
            self._mirror.observers.remove(self._observer)
        self.woken.resolve(None)

    def take(self) -> list[RawChange]:
        """What it is to be told now: children are deleted before their parents, and created after them."""
        self.woken = Pending()
        if not self._behind:
            return []
        behind, self._behind = self._behind, {}
        nodes, told = self._mirror.nodes, self._told
        gone = self._gone(behind)
        behind.update(gone)
        changes = [RawChange(EventKind.DELETED, path, told.pop(path), None) for path in sorted(gone, reverse=True)]
        for path in sorted(behind) if len(behind) > 1 else behind:
            old, new = told.get(path), nodes.get(path)
            if new is None:
                continue
            # Or the parent is held back itself: it stands before its children in this order.
            if parent_of(path) in self._behind or self._mirror.awaits_parent(path):
                self._behind[path] = None
                continue
            told[path] = new
            if old is None:
                changes.append(RawChange(EventKind.CREATED, path, None, new))
            elif old.data != new.data or (not self._data and old.stat.mzxid != new.stat.mzxid):
                changes.append(RawChange(EventKind.CHANGED, path, old, new))
        return changes

    def _gone(self, behind: dict[str, None]) -> dict[str, None]:
        """What was told, and is to be told as deleted."""
        nodes, told = self._mirror.nodes, self._told
        gone: dict[str, None] = {}
        for path in behind:
            old, new = told.get(path), nodes.get(path)
            if old is not None and (new is None or new.stat.czxid != old.stat.czxid):
                gone[path] = None
        for path in tuple(gone):
            # What is already new below a node that goes, since it was read first: to tell that node's end alone would
            # be wrong for whoever drops what is below it. So it goes, too, and comes again.
            gone.update(dict.fromkeys(each for each in self._mirror.descendants(path) if each in told))
        return gone

    def untold(self, change: RawChange) -> None:
        """It could not be told this change after all: what was told before still stands."""
        if self._told.get(change.path) is change.new:
            if change.old is None:
                del self._told[change.path]
            else:
                self._told[change.path] = change.old
