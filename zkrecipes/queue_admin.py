"""A queue as its operators see it: numbers, what is next, dead letters, what is put back or thrown away. Driver-free.

Nothing here keeps a consumer or a producer waiting, and nothing of it is one picture of a moment: it reads shelf after
shelf, while others put and take. What it changes goes by transactions that check versions, so that nothing is touched
that somebody has claimed meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, final

from zkrecipes.calls import Unsettled
from zkrecipes.core import Core
from zkrecipes.errors import ConflictError, DecodeError, NodeNotFoundError, TransactionError, ZkRecipesError
from zkrecipes.port import Children, Delete, Get, Request, Stat
from zkrecipes.queue_layout import Name, Record, Slot, lane_nodes, parse_bucket, parse_lane, parse_name, read_record
from zkrecipes.queue_layout import shelf_numbers as numbers_of
from zkrecipes.queue_put import Putter
from zkrecipes.queue_shelves import Shelves
from zkrecipes.timing import Deadline

__all__ = ["Admin", "Entry", "QueueStats"]

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


class _Shelf(NamedTuple):
    lane: str
    number: int
    priority: int | None

    @property
    def nodes(self) -> tuple[str, str]:
        return lane_nodes(self.lane, self.number)


@final
class Admin:
    """Looks at one queue.

    Args:
        core: The client's core.
        shelves: Of the queue.
        putter: Places what is put back.
    """

    def __init__(self, core: Core, shelves: Shelves, putter: Putter) -> None:
        self._core = core
        self._shelves = shelves
        self._putter = putter

    # --- reading ------------------------------------------------------------------------------------------------------

    async def stats(self, deadline: Deadline) -> QueueStats:
        """Count, by the numbers of children that the servers keep: no item is listed but those of a lane's first shelf.

        Raises:
            UnavailableError: No server answered in time.
        """
        lanes, buckets = await self._all_shelves(deadline)
        counts: list[int] = []
        for shelves in (lanes, buckets):
            reads = [Get(path) for shelf in shelves for path in shelf.nodes]
            nodes = [0 if node is None else node[1].children_count for node in await self._ask(reads, deadline)]
            counts += (sum(nodes[::2]), sum(nodes[1::2]))
        items, claims, delayed, delayed_claims = counts
        [dead] = await self._ask([Get(self._shelves.branch("dead"))], deadline)
        return QueueStats(
            max(0, items - claims),
            max(0, delayed - delayed_claims),
            claims + delayed_claims,
            0 if dead is None else dead[1].children_count,
            await self._oldest(lanes, deadline),
        )

    async def _occupancy(self, deadline: Deadline) -> list[tuple[str, int]]:
        """The nodes of items, each with how many stand there."""
        lanes, buckets = await self._all_shelves(deadline)
        paths = [shelf.nodes[0] for shelf in (*lanes, *buckets)]
        nodes = await self._ask([Get(path) for path in paths], deadline)
        return [(path, 0 if node is None else node[1].children_count) for path, node in zip(paths, nodes, strict=True)]

    async def size(self, deadline: Deadline) -> int:
        """All items: waiting, delayed and claimed."""
        return sum(count for _, count in await self._occupancy(deadline))

    async def occupied(self, deadline: Deadline) -> list[str]:
        """The nodes where items stand, those that are served first in front."""
        return [path for path, count in await self._occupancy(deadline) if count]

    async def _oldest(self, lanes: list[_Shelf], deadline: Deadline) -> float | None:
        births: list[int] = []
        for lane in dict.fromkeys(shelf.lane for shelf in lanes):
            found = await self._first([shelf for shelf in lanes if shelf.lane == lane], 1, deadline)
            births += [entry.record.born or entry.made for entry in found]
        if not births:
            return None
        return max(0.0, (await self._shelves.server_time(deadline) - min(births)) / 1000)

    async def peek(self, count: int, deadline: Deadline) -> list[Entry]:
        """The first items that nobody has claimed, in the order in which they are served.

        Raises:
            UnavailableError: No server answered in time.
        """
        lanes, buckets = await self._all_shelves(deadline)
        due = await self._due(buckets, deadline)
        found: list[Entry] = []
        for priority in sorted(dict.fromkeys([entry.record.priority for entry in due] + _priorities(lanes))):
            found += [entry for entry in due if entry.record.priority == priority]
            if len(found) < count:
                shelves = [shelf for shelf in lanes if shelf.priority == priority]
                found += await self._first(shelves, count - len(found), deadline)
        return found[:count]

    async def _due(self, buckets: list[_Shelf], deadline: Deadline) -> list[Entry]:
        if not buckets:
            return []
        time = await self._shelves.server_time(deadline)
        found: list[tuple[tuple[int, int, int], Entry]] = []
        for shelf in buckets:
            names = [name for name in await self._free(shelf, deadline) if name.due <= time]
            for name, entry in await self._entries(shelf, names, deadline):
                if entry.made + entry.record.delay <= time:
                    found.append(((name.place, name.due, name.sequence), entry))
        return [entry for _, entry in sorted(found, key=lambda each: each[0])]

    async def _first(self, shelves: Sequence[_Shelf], count: int, deadline: Deadline) -> list[Entry]:
        found: list[Entry] = []
        for shelf in shelves:
            names = await self._free(shelf, deadline)
            while names and len(found) < count:
                some, names = names[: count - len(found)], names[count - len(found) :]
                found += [entry for _, entry in await self._entries(shelf, some, deadline)]
            if len(found) >= count:
                break
        return found

    async def dead_letters(self, deadline: Deadline) -> list[Entry]:
        """All of them, the oldest first.

        Raises:
            UnavailableError: No server answered in time.
        """
        parent = self._shelves.branch("dead")
        [names] = await self._ask([Children(parent)], deadline)
        paths = [f"{parent}/{name}" for name in sorted(names or [], key=lambda name: name[-10:])]
        return [entry for entry in await self._read(paths, deadline) if entry is not None]

    async def _all_shelves(self, deadline: Deadline) -> tuple[list[_Shelf], list[_Shelf]]:
        """Those of the lanes and those of the delayed, in order."""
        branches = [self._shelves.branch(name) for name in ("lanes", "delayed")]
        found: list[list[_Shelf]] = []
        for branch, names in zip(
            branches, await self._ask([Children(path) for path in branches], deadline), strict=True
        ):
            parse = parse_lane if branch == branches[0] else parse_bucket
            known = [name for name in sorted(names or []) if parse(name) is not None]
            listings = await self._ask([Children(f"{branch}/{name}") for name in known], deadline)
            found.append(
                [
                    _Shelf(f"{branch}/{name}", number, parse_lane(name) if branch == branches[0] else None)
                    for name, listing in zip(known, listings, strict=True)
                    for number in numbers_of(listing or [])
                ]
            )
        return found[0], found[1]

    async def _free(self, shelf: _Shelf, deadline: Deadline) -> list[Name]:
        """What nobody has claimed, in order."""
        items, claims = await self._ask([Children(path) for path in shelf.nodes], deadline)
        claimed = dict.fromkeys(claims or [], True)
        names = [parse_name(text, shelf.priority) for text in items or [] if text not in claimed]
        return sorted(
            [name for name in names if name is not None],
            key=lambda name: name.sequence if shelf.priority is not None else name.due,
        )

    async def _entries(self, shelf: _Shelf, names: Sequence[Name], deadline: Deadline) -> list[tuple[Name, Entry]]:
        paths = [Slot(shelf.lane, shelf.number, name).item for name in names]
        entries = await self._read(paths, deadline)
        return [(name, entry) for name, entry in zip(names, entries, strict=True) if entry is not None]

    async def _read(self, paths: Sequence[str], deadline: Deadline) -> list[Entry | None]:
        """The items there; None for what is gone, and for what is none of ours (consumers report that)."""
        found: list[Entry | None] = []
        for path, node in zip(paths, await self._ask([Get(path) for path in paths], deadline), strict=True):
            entry = None
            if node is not None:
                data, stat = node
                try:
                    entry = Entry(path, stat.version, stat.ctime, read_record(data, path))
                except DecodeError:
                    entry = None
            found.append(entry)
        return found

    async def _ask(self, requests: Sequence[Request], deadline: Deadline) -> list[Any]:
        """The answers; None where there is no such node."""
        session, label = self._core.session, self._shelves.label
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
        lanes, buckets = await self._all_shelves(deadline)
        for shelf in (*lanes, *buckets):
            names = await self._free(shelf, deadline)
            for start in range(0, len(names), TOGETHER):
                slots = [Slot(shelf.lane, shelf.number, name) for name in names[start : start + TOGETHER]]
                # The claims behind the versions: what is claimed then is seen, what is claimed later has another one.
                reads: list[Request] = [*(Get(slot.item) for slot in slots), Children(shelf.nodes[1])]
                *nodes, claims = await self._ask(reads, deadline)
                claimed = dict.fromkeys(claims or [], True)
                found = [
                    (slot.item, node[1])
                    for slot, node in zip(slots, nodes, strict=True)
                    if node is not None and slot.name.text not in claimed
                ]
                done += await self._delete(found, deadline)
        return done

    async def _delete(self, found: list[tuple[str, Stat]], deadline: Deadline) -> int:
        while found:
            try:
                await self._shelves.marks.commit([Delete(path, stat.version) for path, stat in found], deadline)
            except NodeNotFoundError:
                await self._mend(deadline)
            except TransactionError as refused:
                if not 0 <= refused.index < len(found):
                    raise
                _check_race(refused)
                found.pop(refused.index)  # claimed, or gone
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
                committed = await self._shelves.marks.commit(operations, deadline)
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
        self._shelves.forget()
        await self._shelves.ready(deadline)
        self._check_time(deadline)

    def _check_time(self, deadline: Deadline) -> None:
        if deadline.passed(self._core.runtime.now()):
            raise self._core.session.unavailable(self._shelves.label)


def _priorities(lanes: list[_Shelf]) -> list[int]:
    return [shelf.priority for shelf in lanes if shelf.priority is not None]


def _check_race(refused: TransactionError) -> None:
    """Raise a refusal that is no race."""
    cause = refused.__cause__
    if isinstance(cause, ConflictError | NodeNotFoundError):
        return
    raise cause if isinstance(cause, ZkRecipesError) else refused from refused
