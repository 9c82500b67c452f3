"""How items come into a queue. Driver-free.

A put is one transaction: the lane's head is still the same, the identifier is new, the item. Several go in one, all or
nothing. A lost reply is settled by the mark that is set with it (marks.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

from zkrecipes.core import Core
from zkrecipes.dedup import Dedup
from zkrecipes.errors import ConflictError, NodeExistsError, NodeNotFoundError, TransactionError, ZkRecipesError
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
from zkrecipes.queue_shelves import Head, Shelves
from zkrecipes.timing import Deadline

__all__ = ["Placed", "Putter"]

LONGEST_DELAY: Final = 100 * 365 * 86_400_000
"""Milliseconds: a hundred years."""


@final
@dataclass(frozen=True, slots=True)
class Placed:
    """An item on its way into a shelf.

    Attributes:
        lane: Full path of the lane or bucket.
        head: Its head, as known.
        create: The operation.
    """

    lane: str
    head: Head
    create: Create

    @property
    def check(self) -> Check:
        """That the shelf still takes puts."""
        return Check(f"{self.lane}/head", self.head.version)


@final
class Putter:
    """Puts of one recipe object.

    Args:
        core: The client's core.
        shelves: Of the queue.
        segment_size: Items of a shelf, about.
        dedup: Remembers identifiers.
    """

    def __init__(self, core: Core, shelves: Shelves, segment_size: int, dedup: Dedup) -> None:
        self._core = core
        self._shelves = shelves
        self._segment_size = segment_size
        self._dedup = dedup

    def record(
        self, payload: bytes, priority: int, delay: float, headers: Mapping[str, str], id_: str | None = None
    ) -> Record:
        """A new item."""
        return Record(
            self._core.runtime.unique() if id_ is None else id_,
            priority,
            payload,
            delay=min(math.ceil(delay * 1000), LONGEST_DELAY),
            headers=headers,
        )

    async def put(self, records: Sequence[Record], dedup_id: str | None, deadline: Deadline) -> list[str]:
        """Store all of them, in one transaction; their identifiers. A duplicate has the first one's.

        Raises:
            PayloadTooLargeError: Together they are over the server's limit; nothing was stored.
            UnavailableError: No server answered in time; nothing was stored.
            OutcomeUnknownError: They may have been stored.
        """
        while True:
            await self._shelves.ready(deadline)
            placed = [await self.place(record, deadline) for record in records]
            remembered: tuple[Operation, ...] = ()
            if dedup_id is not None:
                remembered = await self._dedup.operations(dedup_id, records[0].id.encode(), deadline)
            operations = self.operations(placed, remembered)
            try:
                committed = await self._shelves.marks.commit(operations, deadline)
            except NodeNotFoundError:
                self._shelves.forget()
                self._check_time(deadline)
            except TransactionError as refused:
                operation = operations[refused.index] if 0 <= refused.index < len(operations) else None
                if operation in remembered and isinstance(refused.__cause__, NodeExistsError | NodeNotFoundError):
                    first = await self._first(dedup_id or "", refused.__cause__, deadline)
                    if first is not None:
                        return [first]
                else:
                    await self.refused(placed, operation, refused, deadline)
                self._check_time(deadline)
            else:
                self.stored(placed, committed, len(operations) - len(placed))
                return [record.id for record in records]

    async def place(self, record: Record, deadline: Deadline) -> Placed:
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
        return Placed(lane, head, create)

    @staticmethod
    def operations(placed: Sequence[Placed], others: Sequence[Operation]) -> tuple[Operation, ...]:
        """Checks of the heads, the others, and the creates at the end."""
        checks = dict.fromkeys(each.check for each in placed)
        return (*checks, *others, *(each.create for each in placed))

    async def refused(
        self, placed: Sequence[Placed], operation: Operation | None, refused: TransactionError, deadline: Deadline
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

    def stored(self, placed: Sequence[Placed], committed: Committed, first: int) -> None:
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

    async def _first(self, dedup_id: str, cause: Exception, deadline: Deadline) -> str | None:
        if isinstance(cause, NodeNotFoundError):
            self._dedup.forget()
            return None
        first = await self._dedup.first(dedup_id, deadline)
        return None if first is None else first.decode()

    def _check_time(self, deadline: Deadline) -> None:
        if deadline.passed(self._core.runtime.now()):
            raise self._core.session.unavailable(self._shelves.label)
