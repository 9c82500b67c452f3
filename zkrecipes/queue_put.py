"""How items come into a queue. Driver-free.

A put is one transaction: the identifier is new, the item, and whatever the layout checks. Several go in one, all or
nothing. A lost reply is settled by the mark that is set with it (marks.py).

The layouts: queue_shelf_put.py (ours), queue_curator_put.py (Curator's).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from zkrecipes.core import Core
from zkrecipes.dedup import Dedup
from zkrecipes.errors import NodeExistsError, NodeNotFoundError, TransactionError
from zkrecipes.marks import Committed, Operation
from zkrecipes.port import Check, Create
from zkrecipes.queue_ground import Ground
from zkrecipes.queue_layout import Record
from zkrecipes.timing import Deadline

__all__ = ["Placed", "Putter"]

LONGEST_DELAY: Final = 100 * 365 * 86_400_000
"""Milliseconds: a hundred years."""


@dataclass(frozen=True, slots=True)
class Placed:
    """An item on its way into a queue.

    Attributes:
        create: The operation.
    """

    create: Create

    @property
    def check(self) -> Check | None:
        """What must be as it was for that; None if nothing."""
        return None


P = TypeVar("P", bound=Placed)


class Putter(ABC, Generic[P]):
    """Puts of one recipe object.

    Args:
        core: The client's core.
        ground: Of the queue.
        dedup: Remembers identifiers.
    """

    def __init__(self, core: Core, ground: Ground, dedup: Dedup) -> None:
        self._core = core
        self._ground = ground
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
            await self._ground.ready(deadline)
            placed = [await self.place(record, deadline) for record in records]
            remembered: tuple[Operation, ...] = ()
            if dedup_id is not None:
                remembered = await self._dedup.operations(dedup_id, records[0].id.encode(), deadline)
            operations = self.operations(placed, remembered)
            try:
                committed = await self._ground.marks.commit(operations, deadline)
            except NodeNotFoundError:
                self._ground.forget()
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
                first_create = len(operations) - len(placed)
                self.stored(placed, committed, first_create)
                return await self.names(records, committed, first_create, deadline)

    @abstractmethod
    async def place(self, record: Record, deadline: Deadline) -> P:
        """Where an item goes."""

    @abstractmethod
    async def refused(
        self, placed: Sequence[P], operation: Operation | None, refused: TransactionError, deadline: Deadline
    ) -> None:
        """Look anew at what a refusal of a check or create of ours tells; raise what the user is to know."""

    def stored(self, placed: Sequence[P], committed: Committed, first: int) -> None:
        """They are stored.

        Args:
            placed: What was stored.
            committed: The answer; without the places if the reply was lost.
            first: Where the creates begin.
        """

    async def names(self, records: Sequence[Record], committed: Committed, first: int, deadline: Deadline) -> list[str]:
        """The identifiers of what was stored."""
        del committed, first, deadline
        return [record.id for record in records]

    def operations(self, placed: Sequence[P], others: Sequence[Operation]) -> tuple[Operation, ...]:
        """The checks, the others, and the creates at the end."""
        checks: list[Check] = []
        for each in placed:
            check = each.check
            if check is not None and check not in checks:  # as many as there are lanes in it
                checks.append(check)
        return (*checks, *others, *(each.create for each in placed))

    async def _first(self, dedup_id: str, cause: Exception, deadline: Deadline) -> str | None:
        if isinstance(cause, NodeNotFoundError):
            self._dedup.forget()
            return None
        first = await self._dedup.first(dedup_id, deadline)
        return None if first is None else first.decode()

    def _check_time(self, deadline: Deadline) -> None:
        if deadline.passed(self._core.runtime.now()):
            raise self._core.session.unavailable(self._ground.label)
