"""How items come onto the shelves of our own layout. Driver-free.

A put checks that the lane's head is still the same: so nothing is put behind it, onto a shelf that was sealed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

from zkrecipes.core import Core
from zkrecipes.dedup import Dedup
from zkrecipes.errors import ConflictError, NodeNotFoundError, TransactionError, ZkRecipesError
from zkrecipes.marks import Committed, Operation
from zkrecipes.port import Check, Create, Created
from zkrecipes.queue_layout import (
    Record,
    bucket_name,
    bucket_of,
    delayed_prefix,
    lane_name,
    lane_nodes,
    place_of,
    shelf_prefix,
)
from zkrecipes.queue_put import Placed, Putter
from zkrecipes.queue_shelves import Head, Shelves
from zkrecipes.timing import Deadline

__all__ = ["ShelfPutter"]


@final
@dataclass(frozen=True, slots=True)
class ShelfPlaced(Placed):
    """An item on its way onto a shelf.

    Attributes:
        lane: Full path of the lane or bucket.
        head: Its head, as known.
    """

    lane: str
    head: Head

    @property
    def check(self) -> Check:
        """That the shelf still takes puts."""
        return self.head.check


@final
class ShelfPutter(Putter[ShelfPlaced]):
    """Puts of one recipe object.

    Args:
        core: The client's core.
        shelves: Of the queue.
        dedup: Remembers identifiers.
        segment_size: Items of a shelf, about.
    """

    def __init__(self, core: Core, shelves: Shelves, dedup: Dedup, segment_size: int) -> None:
        super().__init__(core, shelves, dedup)
        self._shelves = shelves
        self._segment_size = segment_size

    async def place(self, record: Record, deadline: Deadline) -> ShelfPlaced:
        """Where an item goes: its lane, or, if it is not due yet, the bucket of its time."""
        if record.delay:
            # Not later than the real time when it is due, which is told by the time that its node will have.
            due = await self._shelves.server_time(deadline) + record.delay
            lane = f"{self._shelves.branch('delayed')}/{bucket_name(bucket_of(due))}"
            name = delayed_prefix(due, record.priority, record.place or place_of(due, 0), record.id)
        else:
            lane = f"{self._shelves.branch('lanes')}/{lane_name(record.priority)}"
            name = shelf_prefix(record.id)
        head = await self._shelves.head(lane, deadline)
        items, _ = lane_nodes(lane, head.number)
        create = Create(f"{items}/{name}", record.pack(), sequential=True, acl=self._core.nodes.acl)
        return ShelfPlaced(create, lane, head)

    async def refused(
        self, placed: Sequence[ShelfPlaced], operation: Operation | None, refused: TransactionError, deadline: Deadline
    ) -> None:
        """Look anew at what a refusal of a check or create of ours tells; raise what the user is to know."""
        cause = refused.__cause__
        for each in placed:
            if operation == each.check and isinstance(cause, ConflictError | NodeNotFoundError):
                self._shelves.forget_head(each.lane)
                return
            if operation == each.create and isinstance(cause, NodeNotFoundError):
                await self._shelves.mend(each.lane, each.head, deadline)
                return
        if isinstance(cause, ZkRecipesError):
            raise cause from refused
        raise refused

    def stored(self, placed: Sequence[ShelfPlaced], committed: Committed, first: int) -> None:
        """Begin the next shelf where one is full.

        Args:
            placed: What was stored.
            committed: The answer; without the places if the reply was lost. The next put rolls then.
            first: Where the creates begin.
        """
        if committed.answers is None:
            return
        for each, answer in zip(placed, committed.answers[first:], strict=True):
            made: Created | Any = answer
            if int(made.path[-10:]) >= self._segment_size - 1:
                self._shelves.roll(each.lane, each.head)
