"""A queue of Curator's as its operators see it. Driver-free."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, final

from zkrecipes.core import Core
from zkrecipes.port import Children
from zkrecipes.queue_admin import Admin, Entry, Place, QueueStats
from zkrecipes.queue_curator import CuratorGround
from zkrecipes.queue_curator_layout import parse_item, service_order
from zkrecipes.queue_layout import Name
from zkrecipes.queue_put import Putter
from zkrecipes.timing import Deadline

__all__ = ["CuratorAdmin"]


@final
class CuratorAdmin(Admin):
    """Looks at one queue, with a listing of all of it."""

    def __init__(self, core: Core, ground: CuratorGround, putter: Putter[Any]) -> None:
        super().__init__(core, ground, putter)
        self._queue = ground
        self._place = Place(ground.path, ground.locks, ground.path)

    async def places(self, deadline: Deadline) -> tuple[list[Place], list[Place]]:
        """There is one."""
        del deadline
        return [self._place], []

    def in_order(self, place: Place, names: Sequence[str]) -> list[Name]:
        """These names, taken apart, without those that are none of ours; in order."""
        del place
        parsed = [parse_item(self._queue.kind, text) for text in names]
        return sorted([name for name in parsed if name is not None], key=service_order)

    async def _due(self, names: Sequence[Name], deadline: Deadline) -> float:
        """What of these is due by then, is served now."""
        return await self._queue.server_time(deadline) if any(name.due for name in names) else math.inf

    async def stats(self, deadline: Deadline) -> QueueStats:
        """Count nodes, by listing them; one of Curator's may hold several items.

        Raises:
            UnavailableError: No server answered in time.
        """
        items, locks = await self._ask([Children(self._queue.path), Children(self._queue.locks)], deadline)
        locked = dict.fromkeys(locks or [], True)
        names = self.in_order(self._place, items or [])
        free = [name for name in names if name.text not in locked]
        due = await self._due(free, deadline)
        waiting = sum(name.due <= due for name in free)
        first = await self._first([self._place], 1, deadline, due)
        births = [entry.record.born or entry.made for entry in first]
        return QueueStats(
            waiting,
            len(free) - waiting,
            len(names) - len(free),
            await self._dead(deadline),
            await self._age(births, deadline),
        )

    async def peek(self, count: int, deadline: Deadline) -> list[Entry]:
        """The first items that nobody has claimed, in the order in which they are served; of each node the first.

        Raises:
            UnavailableError: No server answered in time.
        """
        due = await self._due(await self._free(self._place, deadline), deadline) if self._queue.delays else math.inf
        return await self._first([self._place], count, deadline, due)
