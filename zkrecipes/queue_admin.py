"""A queue as its operators see it: numbers, what is next, dead letters, what is put back or thrown away. Driver-free.

Nothing here keeps a consumer or a producer waiting, and nothing of it is one picture of a moment: it reads node after
node, while others put and take. What it changes goes by transactions that check versions, so that nothing is touched
that somebody has claimed meanwhile.
"""

from __future__ import annotations

import contextlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, final

from zkrecipes.calls import Unsettled
from zkrecipes.core import Core
from zkrecipes.errors import (
    ConflictError,
    DecodeError,
    NodeExistsError,
    NodeNotFoundError,
    TransactionError,
    ZkRecipesError,
)
from zkrecipes.port import Children, Create, Delete, Get, Request, Stat
from zkrecipes.queue_ground import Ground
from zkrecipes.queue_layout import Name, Record, Slot, read_record
from zkrecipes.queue_put import Putter
from zkrecipes.timing import Deadline

__all__ = ["Admin", "Entry", "Place", "QueueStats"]

IN_FLIGHT: Final = 100
"""Reads on their way at a time."""

TOGETHER: Final = 50
"""Items that one transaction moves or deletes."""


@final
@dataclass(frozen=True, slots=True)
class QueueStats:
    """How a queue stands.

    Attributes:
        waiting: Items that nobody has claimed.
        delayed: Items put or given back with a delay that nobody has claimed, those among them that are due by now.
        claimed: Items that consumers have.
        dead: Dead letters.
        oldest_age: Seconds since the oldest of those that are waiting was put; None if none is.
    """

    waiting: int
    delayed: int
    claimed: int
    dead: int
    oldest_age: float | None


class Entry(NamedTuple):
    """An item as it was read.

    Attributes:
        path: Full path of its node.
        version: Of its node.
        made: When the node was made, in ms since 1970.
        record: What it holds.
    """

    path: str
    version: int
    made: int
    record: Record


class Place(NamedTuple):
    """A node that items are below.

    Attributes:
        items: Its full path.
        claims: Full path of the node that claims on them are below.
        lane: What it is a part of.
        priority: Of the items; None where their names tell it.
    """

    items: str
    claims: str
    lane: str
    priority: int | None = None

    def slot(self, name: Name) -> Slot:
        """An item there."""
        return Slot(self.items, self.claims, name)


class Admin(ABC):
    """Looks at one queue.

    Args:
        core: The client's core.
        ground: Of the queue.
        putter: Places what is put back.
    """

    def __init__(self, core: Core, ground: Ground, putter: Putter[Any]) -> None:
        self._core = core
        self._ground = ground
        self._putter = putter

    # --- reading ------------------------------------------------------------------------------------------------------

    @abstractmethod
    async def places(self, deadline: Deadline) -> tuple[list[Place], list[Place]]:
        """Where items stand: those that are due when they are put, and those that are not; in the order of service."""

    @abstractmethod
    def in_order(self, place: Place, names: Sequence[str]) -> list[Name]:
        """These names, taken apart, without those that are none of ours; in order."""

    @abstractmethod
    async def stats(self, deadline: Deadline) -> QueueStats:
        """Count.

        Raises:
            UnavailableError: No server answered in time.
        """

    @abstractmethod
    async def peek(self, count: int, deadline: Deadline) -> list[Entry]:
        """The first items that nobody has claimed, in the order in which they are served.

        Raises:
            UnavailableError: No server answered in time.
        """

    async def size(self, deadline: Deadline) -> int:
        """All items: waiting, delayed and claimed."""
        return sum(count for _, count in await self._occupancy(deadline))

    async def occupied(self, deadline: Deadline) -> list[str]:
        """The nodes where items stand, those that are served first in front."""
        return [path for path, count in await self._occupancy(deadline) if count]

    async def _occupancy(self, deadline: Deadline) -> list[tuple[str, int]]:
        """The nodes of items, each with how many stand there."""
        waiting, delayed = await self.places(deadline)
        paths = [place.items for place in (*waiting, *delayed)]
        nodes = await self._ask([Get(path) for path in paths], deadline)
        return [(path, 0 if node is None else node[1].children_count) for path, node in zip(paths, nodes, strict=True)]

    async def _dead(self, deadline: Deadline) -> int:
        [dead] = await self._ask([Get(self._ground.branch("dead"))], deadline)
        return 0 if dead is None else dead[1].children_count

    async def _age(self, births: Sequence[int], deadline: Deadline) -> float | None:
        """Seconds since the first of these times (ms since 1970)."""
        return max(0.0, (await self._ground.server_time(deadline) - min(births)) / 1000) if births else None

    async def _free(self, place: Place, deadline: Deadline) -> list[Name]:
        """What nobody has claimed, in order."""
        items, claims = await self._ask([Children(place.items), Children(place.claims)], deadline)
        claimed = dict.fromkeys(claims or [], True)
        return self.in_order(place, [text for text in items or [] if text not in claimed])

    async def _first(
        self, places: Sequence[Place], count: int, deadline: Deadline, due: float = math.inf
    ) -> list[Entry]:
        """The first so many that nobody has claimed, and that are due by this time."""
        found: list[Entry] = []
        for place in places:
            names = [name for name in await self._free(place, deadline) if name.due <= due]
            while names and len(found) < count:
                some, names = names[: count - len(found)], names[count - len(found) :]
                found += [entry for _, entry in await self._entries(place, some, deadline)]
            if len(found) >= count:
                break
        return found

    async def _entries(self, place: Place, names: Sequence[Name], deadline: Deadline) -> list[tuple[Name, Entry]]:
        """Those that are there; without those that are none of ours (consumers report them)."""
        found: list[tuple[Name, Entry]] = []
        slots = [place.slot(name) for name in names]
        for slot, node in zip(slots, await self._ask([Get(slot.item) for slot in slots], deadline), strict=True):
            if node is None:
                continue
            data, stat = node
            with contextlib.suppress(DecodeError):
                record = self._ground.read(slot, data, stat)
                found.append((slot.name, Entry(slot.item, stat.version, stat.ctime, record)))
        return found

    async def dead_letters(self, deadline: Deadline) -> list[Entry]:
        """All of them, the oldest first.

        Raises:
            UnavailableError: No server answered in time.
        """
        parent = self._ground.branch("dead")
        [names] = await self._ask([Children(parent)], deadline)
        paths = [f"{parent}/{name}" for name in sorted(names or [], key=lambda name: name[-10:])]
        found: list[Entry] = []
        for path, node in zip(paths, await self._ask([Get(path) for path in paths], deadline), strict=True):
            if node is not None:
                data, stat = node
                with contextlib.suppress(DecodeError):
                    found.append(Entry(path, stat.version, stat.ctime, read_record(data, path)))
        return found

    async def _ask(self, requests: Sequence[Request], deadline: Deadline) -> list[Any]:
        """The answers; None where there is no such node."""
        session, label = self._core.session, self._ground.label
        answers: list[Any] = []
        began, attempts = self._core.runtime.now(), 0
        while len(answers) < len(requests):
            await session.ready(deadline.at, label)
            calls = [session.call(request) for request in requests[len(answers) : len(answers) + IN_FLIGHT]]
            try:
                for call in calls:
                    try:
                        answers.append(await session.result(call, deadline.at))
                    except NodeNotFoundError:
                        answers.append(None)
            except Unsettled:
                attempts += 1
                await self._core.again(attempts, began, deadline, label)
        return answers

    # --- changing -----------------------------------------------------------------------------------------------------

    async def purge(self, deadline: Deadline) -> int:
        """Delete what waits and what is delayed, as far as nobody has claimed it; how many it were.

        Raises:
            UnavailableError: No server answered in time; some may have been deleted.
            OutcomeUnknownError: Some may have been deleted. It is safe to do it again.
        """
        done = 0
        waiting, delayed = await self.places(deadline)
        for place in (*waiting, *delayed):
            names = await self._free(place, deadline)
            for start in range(0, len(names), TOGETHER):
                slots = [place.slot(name) for name in names[start : start + TOGETHER]]
                # The claims behind the versions: what is claimed then is seen, what is claimed later has another one.
                reads: list[Request] = [*(Get(slot.item) for slot in slots), Children(place.claims)]
                *nodes, claims = await self._ask(reads, deadline)
                claimed = dict.fromkeys(claims or [], True)
                found = [
                    (slot, node[1])
                    for slot, node in zip(slots, nodes, strict=True)
                    if node is not None and slot.name.text not in claimed
                ]
                done += await self._delete(found, deadline)
        return done

    async def _delete(self, found: list[tuple[Slot, Stat]], deadline: Deadline) -> int:
        while found:
            each = [(*self._ground.alone(slot), Delete(slot.item, stat.version)) for slot, stat in found]
            operations = [operation for together in each for operation in together]
            try:
                await self._ground.marks.commit(operations, deadline)
            except NodeNotFoundError:
                await self._mend(deadline)
            except TransactionError as refused:
                if not 0 <= refused.index < len(operations):
                    raise
                if isinstance(operations[refused.index], Create) and isinstance(refused.__cause__, NodeNotFoundError):
                    await self._mend(deadline)  # nobody has claimed anything there yet
                    continue
                _check_race(refused)
                found.pop(refused.index // len(each[0]))  # claimed, or gone
            else:
                break
        return len(found)

    async def redrive(self, ids: Iterable[str] | None, deadline: Deadline) -> int:
        """Put dead letters back at the end of their lanes, with no attempt made; how many it were.

        Raises:
            UnavailableError: No server answered in time; some may have been put back.
            OutcomeUnknownError: Some may have been put back. It is safe to do it again.
        """
        wanted = None if ids is None else dict.fromkeys(ids, True)
        letters = [entry for entry in await self.dead_letters(deadline) if wanted is None or entry.record.id in wanted]
        done = 0
        for start in range(0, len(letters), TOGETHER):
            done += await self._put_back(letters[start : start + TOGETHER], deadline)
        return done

    async def _put_back(self, letters: list[Entry], deadline: Deadline) -> int:
        while letters:
            records = [each.record.with_(attempts=0, delay=0, dead_at=0) for each in letters]
            placed = [await self._putter.place(record, deadline) for record in records]
            deletes = tuple(Delete(each.path, each.version) for each in letters)
            operations = self._putter.operations(placed, deletes)
            try:
                committed = await self._ground.marks.commit(operations, deadline)
            except NodeNotFoundError:
                await self._mend(deadline)
            except TransactionError as refused:
                operation = operations[refused.index] if 0 <= refused.index < len(operations) else None
                if isinstance(operation, Delete):
                    _check_race(refused)
                    letters.pop(deletes.index(operation))  # somebody else has put it back
                else:
                    await self._putter.refused(placed, operation, refused, deadline)
                    self._check_time(deadline)
            else:
                self._putter.stored(placed, committed, len(operations) - len(placed))
                break
        return len(letters)

    async def _mend(self, deadline: Deadline) -> None:
        """The queue's own nodes are not there (any more)."""
        self._ground.forget()
        await self._ground.ready(deadline)
        self._check_time(deadline)

    def _check_time(self, deadline: Deadline) -> None:
        if deadline.passed(self._core.runtime.now()):
            raise self._core.session.unavailable(self._ground.label)


def _check_race(refused: TransactionError) -> None:
    """Raise a refusal that is no race."""
    cause = refused.__cause__
    if isinstance(cause, ConflictError | NodeNotFoundError | NodeExistsError):
        return
    raise cause if isinstance(cause, ZkRecipesError) else refused from refused
