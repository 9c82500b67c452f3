"""How items come into a queue of Curator's. Driver-free.

The name that the server gives is what Curator knows an item by, so it is the identifier, unless a record of ours behind
the item tells another one. After a lost reply it is found by the transaction's number, which the mark tells.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from zkrecipes.core import Core
from zkrecipes.dedup import Dedup
from zkrecipes.errors import NodeNotFoundError, TransactionError, ZkRecipesError
from zkrecipes.marks import Committed, Operation
from zkrecipes.port import Children, Create, Exists, Stat
from zkrecipes.queue_curator import CuratorGround
from zkrecipes.queue_curator_layout import item_prefix, parse_item
from zkrecipes.queue_layout import Record
from zkrecipes.queue_put import Placed, Putter
from zkrecipes.timing import Deadline

__all__ = ["CuratorPutter"]


@final
class CuratorPutter(Putter[Placed]):
    """Puts of one recipe object.

    Args:
        core: The client's core.
        ground: Of the queue.
        dedup: Remembers identifiers.
    """

    def __init__(self, core: Core, ground: CuratorGround, dedup: Dedup) -> None:
        super().__init__(core, ground, dedup)
        self._queue = ground

    async def put(self, records: Sequence[Record], dedup_id: str | None, deadline: Deadline) -> list[str]:
        """Store all of them, in one transaction; their identifiers. A duplicate has the first one's."""
        if dedup_id is None:
            # What Curator would have written is written, where there is nothing that it does not know.
            records = [record if record.headers else record.with_(id="") for record in records]
        return await super().put(records, dedup_id, deadline)

    async def place(self, record: Record, deadline: Deadline) -> Placed:
        """Where an item goes."""
        due = 0
        if self._queue.kind == "curator-delay":
            # The name alone tells when it is due: a time that is behind would let it be served early.
            age = 0.0 if record.delay else 60.0
            due = await self._queue.server_time(deadline, age) + record.delay
        path = f"{self._queue.path}/{item_prefix(self._queue.kind, record.priority, due)}"
        return Placed(Create(path, self._queue.packed(record), sequential=True, acl=self._core.nodes.acl))

    async def refused(
        self, placed: Sequence[Placed], operation: Operation | None, refused: TransactionError, deadline: Deadline
    ) -> None:
        """Look anew at what a refusal of a create of ours tells; raise what the user is to know."""
        cause = refused.__cause__
        if isinstance(cause, NodeNotFoundError) and any(operation == each.create for each in placed):
            self._queue.forget()
            await self._queue.ready(deadline)
            return
        if isinstance(cause, ZkRecipesError):
            raise cause from refused
        raise refused

    async def names(self, records: Sequence[Record], committed: Committed, first: int, deadline: Deadline) -> list[str]:
        """The identifiers of what was stored: their own, or the names of their nodes."""
        if all(record.id for record in records):
            return [record.id for record in records]
        if committed.answers is not None:
            names = [made.path.rpartition("/")[2] for made in committed.answers[first:]]
        else:
            names = await self._find(len(records), committed.zxid, deadline)
        return [record.id or name for record, name in zip(records, names, strict=True)]

    async def _find(self, count: int, zxid: int, deadline: Deadline) -> list[str]:
        """The names of what a transaction made; where it is gone already, what tells the transaction."""
        found: list[str] = []
        try:
            names: list[str] = await self._core.ask(Children(self._queue.path), deadline, self._queue.label)
            for name in self._newest_first(names):
                stat: Stat | None = await self._core.ask(
                    Exists(f"{self._queue.path}/{name}"), deadline, self._queue.label
                )
                if stat is not None and stat.czxid == zxid:
                    found.insert(0, name)
                if stat is not None and (stat.czxid < zxid or len(found) == count):
                    break
        except ZkRecipesError:
            found = []  # it is stored: that is what counts
        if len(found) == count:
            return found
        return [f"zxid-{zxid:x}-{number}" for number in range(count)]

    def _newest_first(self, names: Sequence[str]) -> list[str]:
        parsed = [parse_item(self._queue.kind, text) for text in names]
        known = [name for name in parsed if name is not None]
        return [name.text for name in sorted(known, key=lambda name: name.sequence, reverse=True)]
