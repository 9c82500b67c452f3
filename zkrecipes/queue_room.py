"""A bounded queue: whether there is room, and waiting for it. Driver-free.

The bound is soft: items are counted before they are put, and producers that count at the same moment all see the same
room. A part of the room that was seen is used up within a second without counting again.
"""

from __future__ import annotations

from typing import Final, final

from zkrecipes.core import Core
from zkrecipes.errors import QueueFullError
from zkrecipes.flow import Pending, first_of
from zkrecipes.port import Children
from zkrecipes.queue_admin import Admin
from zkrecipes.queue_ground import Ground
from zkrecipes.timing import Deadline

__all__ = ["Room"]

BELIEVED: Final = 1.0
"""Seconds for which a part of the room is used up without counting again."""

WATCHED: Final = 64
"""Shelves that are watched for items that go, at most: one that goes is enough."""


@final
class Room:
    """Of one recipe object.

    Args:
        core: The client's core.
        ground: Of the queue.
        admin: Counts.
        limit: Items that the queue holds, about; None is unbounded.
        wait: Whether a put waits for room until its deadline.
    """

    def __init__(self, core: Core, ground: Ground, admin: Admin, limit: int | None, *, wait: bool) -> None:
        self._core = core
        self._ground = ground
        self._admin = admin
        self._limit = limit
        self._wait = wait
        self._spare = 0
        self._spare_until = 0.0

    async def take(self, count: int, deadline: Deadline) -> None:
        """See that there is room for so many more items.

        Raises:
            QueueFullError: There is not, or was not until the deadline.
            UnavailableError: No server answered in time.
        """
        if self._limit is None:
            return
        now = self._core.runtime.now
        size = 0
        while not size or not deadline.passed(now()):
            if now() < self._spare_until and count <= self._spare:
                self._spare -= count
                return
            await self._ground.ready(deadline)
            # Armed before the count, so that what goes meanwhile wakes us.
            watches = await self._watches(deadline) if self._wait else []
            size = await self._admin.size(deadline)
            if size + count <= self._limit:
                self._spare, self._spare_until = (self._limit - size - count) // 4, now() + BELIEVED
                return
            if not self._wait or count > self._limit:
                break
            await first_of(*watches, self._core.session.changed, until=deadline.at)
        label = self._ground.label
        message = (
            f"{label} holds {size} items of {self._limit}, and {count} more were put; nothing was stored. "
            "Put again later, or raise max_size"
        )
        raise QueueFullError(message, path=label)

    async def _watches(self, deadline: Deadline) -> list[Pending[None]]:
        watches: list[Pending[None]] = []
        for path in (await self._admin.occupied(deadline))[:WATCHED]:
            call = self._core.session.call(Children(path, watch=True))
            if call.watch is not None:
                watches.append(call.watch)
        return watches
