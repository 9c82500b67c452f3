"""What one client sees of a queue of Curator's: one listing of all items, believed for many takes. Driver-free."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Final, final

from zkrecipes.core import Core
from zkrecipes.queue_curator import OWN, CuratorGround
from zkrecipes.queue_curator_layout import parse_item, service_order
from zkrecipes.queue_layout import Name, Slot
from zkrecipes.queue_listing import Listing, Shelf
from zkrecipes.queue_sight import Reservation, Sight
from zkrecipes.timing import Deadline

__all__ = ["CuratorView"]

SEQUENCE: Final = 10
"""Digits that the server adds to a name."""

SKIPPED: Final = 300.0
"""Seconds until what cannot be read is looked at again."""


@final
class CuratorView(Sight):
    """What the takers of one client share of one queue in a layout of Curator's.

    Args:
        core: The client's core.
        ground: Of the queue.
        report: Told of each foreign node, by its path.
    """

    def __init__(self, core: Core, ground: CuratorGround, report: Callable[[str], None]) -> None:
        super().__init__(core, ground, report)
        self._queue = ground
        self._shelf = Shelf(ground.path, ground.locks)
        self._shelves[ground.path] = self._shelf

    async def _look(self, reservation: Reservation, want: int, deadline: Deadline) -> None:
        shelf, now = self._shelf, self._core.runtime.now
        self._end_rests()
        changed = shelf.items.stale or shelf.claims.stale
        # Where something more urgent may have come, nothing is served from what has changed.
        if changed and not (self._queue.kind == "curator" and shelf.usable(now())):
            await self._list(deadline)
        free = await self._due(deadline) if self._queue.delays else shelf.free
        for name in self._next(free, want):
            self._reserve(reservation, shelf.slot(name))
        self.wake_at = min((self.wake_at, *self._resting.values()))

    def _next(self, free: list[Name], want: int) -> list[Name]:
        """The next so many; where others were faster lately, from among those that are as urgent as the first."""
        if self._queue.kind != "curator-priority":
            return self._choice(self._shelf, free, want)
        found: list[Name] = []
        for _, equals in itertools.groupby(free, lambda name: name.text[:-SEQUENCE]):
            found += self._choice(self._shelf, list(equals), want - len(found))
            if len(found) == want:
                break
        return found

    async def _due(self, deadline: Deadline) -> list[Name]:
        """What the servers' time has come to; notes when the next one will be due."""
        free = self._shelf.free
        if not free:
            return []
        clock = self._core.server_time
        time = await self._queue.server_time(deadline, math.inf)
        while True:
            count = bisect.bisect_right(free, time, key=lambda name: name.due)
            if count == len(free):
                return free
            # The estimate falls behind with its age; what could be due by a faster clock is worth a question.
            if free[count].due > time + int(min(clock.age, 1e9) * 20):
                break
            newer = await self._queue.server_time(deadline)
            if newer <= time:
                break
            time = newer
        self.wake_at = self._core.runtime.now() + max(1.0, free[count].due - time) / 1000
        return free[:count]

    def _end_rests(self) -> None:
        now = self._core.runtime.now()
        over = [item for item, until in self._resting.items() if until <= now]
        for item in over:
            del self._resting[item]
        if over:
            self._shelf.expire()

    def skip(self, reservation: Reservation, slot: Slot) -> None:
        """It cannot be served. Not for ever: its name is made again, if the queue's node is."""
        self.drop(reservation, slot)
        self.rest(slot, SKIPPED)

    def returned(self, slot: Slot) -> None:
        """A claim of ours was given back."""
        if slot.item not in self._resting:
            super().returned(slot)

    async def _list(self, deadline: Deadline) -> None:
        shelf = self._shelf
        while True:
            shelf.claims.ask(self._core)
            shelf.items.ask(self._core)
            claims = await shelf.claims.take(self._core, deadline.at)
            items = await shelf.items.take(self._core, deadline.at)
            if claims and items:
                break
            self._queue.forget()
            await self._queue.ready(deadline)
        shelf.claims.names = [text for text in shelf.claims.names if text != OWN]
        free = [name for name in self._free(shelf) if f"{shelf.items.path}/{name.text}" not in self._resting]
        shelf.free = self._in_order(free)
        shelf.listed_at = self._core.runtime.now()
        shelf.used = 0

    def _name(self, shelf: Shelf, text: str) -> Name | None:
        del shelf
        return parse_item(self._queue.kind, text)

    def _in_order(self, names: list[Name]) -> list[Name]:
        return sorted(names, key=service_order)

    def _in_turn(self) -> Iterator[Shelf]:
        if not self._queue.delays:
            yield self._shelf

    def _listings(self) -> Iterator[Listing]:
        yield self._shelf.items
        yield self._shelf.claims
