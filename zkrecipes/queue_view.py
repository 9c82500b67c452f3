"""What one client sees of a queue in our own layout: lanes, shelves, and what is due. Driver-free."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Final, final

from zkrecipes.core import Core
from zkrecipes.queue_layout import (
    BUCKET_MS,
    Name,
    Slot,
    lane_nodes,
    parse_bucket,
    parse_lane,
    parse_name,
    shelf_numbers,
)
from zkrecipes.queue_listing import Lane, Listing, Shelf
from zkrecipes.queue_shelves import Shelves
from zkrecipes.queue_sight import Reservation, Sight
from zkrecipes.roots import ensure
from zkrecipes.timing import Deadline

__all__ = ["View"]

BUCKET_REST: Final = 60_000
"""Milliseconds after its end from which on an empty bucket is deleted."""


@final
class View(Sight):
    """What the takers of one client share of one queue in our own layout.

    Args:
        core: The client's core.
        ground: Of the queue.
        report: Told of each foreign node, by its path.
    """

    def __init__(self, core: Core, ground: Shelves, report: Callable[[str], None]) -> None:
        super().__init__(core, ground, report)
        self._queue = ground
        self._lanes = Listing(ground.branch("lanes"))
        self._delayed = Listing(ground.branch("delayed"))
        self._seen: dict[str, Lane] = {}

    # --- looking ------------------------------------------------------------------------------------------------------

    async def _look(self, reservation: Reservation, want: int, deadline: Deadline) -> None:
        await self._list_branches(deadline)
        due = await self._due(deadline)
        await self._collect(reservation, want, due, deadline)

    async def _list_branches(self, deadline: Deadline) -> None:
        while True:
            self._lanes.ask(self._core)
            self._delayed.ask(self._core)
            lanes = await self._lanes.take(self._core, deadline.at)
            delayed = await self._delayed.take(self._core, deadline.at)
            if lanes and delayed:
                return
            self._queue.forget()
            await self._queue.ready(deadline)

    async def _collect(self, reservation: Reservation, want: int, due: list[Slot], deadline: Deadline) -> None:
        for name in sorted(self._lanes.names):
            priority = parse_lane(name)
            if priority is None:
                self._report(f"{self._lanes.path}/{name}")
                continue
            self._reserve_due(reservation, want, due, priority)
            if len(reservation.slots) >= want:
                return
            await self._reserve_free(reservation, want, self._lane(f"{self._lanes.path}/{name}", priority), deadline)
        self._reserve_due(reservation, want, due, math.inf)

    def _reserve_due(self, reservation: Reservation, want: int, due: list[Slot], priority: float) -> None:
        while due and len(reservation.slots) < want and due[0].name.priority <= priority:
            slot = due.pop(0)
            if not self._taken(slot):  # another taker may have come first, while we listed
                self._reserve(reservation, slot)

    async def _reserve_free(self, reservation: Reservation, want: int, lane: Lane, deadline: Deadline) -> None:
        for number, last in await self._numbers(lane, deadline):
            shelf = await self._shelf(lane, number, deadline)
            if not last and self._is_empty(shelf):
                self._queue.retire(lane.listing.path, number)
            missing = want - len(reservation.slots)
            for name in self._choice(shelf, shelf.free, missing):
                self._reserve(reservation, shelf.slot(name))
            if len(reservation.slots) >= want:
                return

    async def _numbers(self, lane: Lane, deadline: Deadline) -> list[tuple[int, bool]]:
        """The lane's shelves, each with whether it takes puts."""
        if lane.listing.stale:
            lane.listing.ask(self._core)
            await lane.listing.take(self._core, deadline.at)
            self._know(lane, shelf_numbers(lane.listing.names))
        numbers = sorted(lane.shelves)
        return [(number, number == numbers[-1]) for number in numbers]

    def _know(self, lane: Lane, numbers: list[int]) -> None:
        """The lane has these shelves, and no others."""
        known, lane.shelves = lane.shelves, {}
        for shelf in known.values():
            del self._shelves[shelf.items.path]
        for number in numbers:
            shelf = known.get(number) or Shelf(*lane_nodes(lane.listing.path, number), lane.priority)
            lane.shelves[number] = self._shelves[shelf.items.path] = shelf

    async def _shelf(self, lane: Lane, number: int, deadline: Deadline) -> Shelf:
        shelf = lane.shelves.get(number) or Shelf(*lane_nodes(lane.listing.path, number), lane.priority)
        changed = shelf.items.stale or shelf.claims.stale
        if changed and not shelf.usable(self._core.runtime.now()):
            await self._list(shelf, deadline)
        return shelf

    async def _list(self, shelf: Shelf, deadline: Deadline) -> None:
        shelf.claims.ask(self._core)
        shelf.items.ask(self._core)
        claims = await shelf.claims.take(self._core, deadline.at)
        items = await shelf.items.take(self._core, deadline.at)
        if items and not claims:
            # Somebody has deleted it: nothing on this shelf could be claimed.
            await ensure(self._core, [shelf.claims.path], self._queue.label, deadline)
        shelf.free = self._in_order(self._free(shelf))
        shelf.listed_at = self._core.runtime.now()
        shelf.used = 0

    def _name(self, shelf: Shelf, text: str) -> Name | None:
        return parse_name(text, shelf.priority)

    def _in_order(self, names: list[Name]) -> list[Name]:
        """In a lane by sequence; in a bucket by the time when due, with which the text begins."""
        bucket = bool(names) and names[0].due > 0
        return sorted(names, key=lambda name: name.text if bucket else f"{name.sequence:010d}")

    @staticmethod
    def _is_empty(shelf: Shelf) -> bool:
        listed = not shelf.items.stale and not shelf.claims.stale
        return listed and not shelf.items.names and not shelf.claims.names

    def _lane(self, path: str, priority: int | None) -> Lane:
        lane = self._seen.get(path)
        if lane is None:
            lane = self._seen[path] = Lane(path, priority)
        return lane

    # --- delayed ------------------------------------------------------------------------------------------------------

    async def _due(self, deadline: Deadline) -> list[Slot]:
        """All delayed items that seem to be due, in order; notes when the next one will be."""
        buckets = []
        for name in sorted(self._delayed.names):
            bucket = parse_bucket(name)
            if bucket is None:
                self._report(f"{self._delayed.path}/{name}")
            else:
                buckets.append((bucket, f"{self._delayed.path}/{name}"))
        if not buckets:
            return []
        clock = self._core.server_time
        time = clock.at_least()
        if time is None:
            time = await self._queue.server_time(deadline)
        while True:
            # The estimate falls behind with its age; what could be due by a faster clock is worth a question.
            fastest = time + int(min(clock.age, 1e9) * 20)
            due, next_due = await self._due_by(buckets, time, fastest, deadline)
            if not time < next_due <= fastest:
                break
            newer = await self._queue.server_time(deadline)
            if newer <= time:
                break
            time = newer
        if next_due < math.inf:
            self.wake_at = self._core.runtime.now() + max(1.0, next_due - time) / 1000
        return sorted(due, key=lambda slot: (slot.name.priority, slot.name.place, slot.name.due, slot.name.sequence))

    async def _due_by(
        self, buckets: list[tuple[int, str]], time: int, fastest: int, deadline: Deadline
    ) -> tuple[list[Slot], float]:
        due: list[Slot] = []
        next_due = math.inf
        for bucket, path in buckets:
            if bucket * BUCKET_MS > fastest:
                next_due = min(next_due, bucket * BUCKET_MS)
                self._forget(path)
                break
            lane = self._lane(path, None)
            for number, last in await self._numbers(lane, deadline):
                shelf = await self._shelf(lane, number, deadline)
                found, soonest = self._due_of(shelf, time)
                if not found and (shelf.items.stale or shelf.claims.stale):
                    await self._list(shelf, deadline)
                    found, soonest = self._due_of(shelf, time)
                due += found
                next_due = min(next_due, soonest)
                over = last and len(lane.shelves) == 1 and (bucket + 1) * BUCKET_MS + BUCKET_REST < time
                if self._is_empty(shelf) and (over or not last):
                    self._queue.retire(path, number, whole_lane=last)
        return due, next_due

    def _due_of(self, shelf: Shelf, time: int) -> tuple[list[Slot], float]:
        found: list[Slot] = []
        soonest = math.inf
        for name in shelf.free:
            if name.due > time:
                return found, min(soonest, name.due)
            slot = shelf.slot(name)
            real = self._later.get(slot.item, 0)
            if real > time:
                soonest = min(soonest, real)
            else:
                found.append(slot)
        return found, soonest

    # --- waiting ------------------------------------------------------------------------------------------------------

    def _forget(self, path: str) -> None:
        """A lane, or a bucket, that is not there, or not to be looked at now."""
        lane = self._seen.pop(path, None)
        if lane is not None:
            self._know(lane, [])

    def _in_turn(self) -> Iterator[Shelf]:
        for path in sorted(self._seen):
            lane = self._seen[path]
            if lane.priority is not None:
                for number in sorted(lane.shelves):
                    yield lane.shelves[number]

    def _listings(self) -> Iterator[Listing]:
        lanes = dict.fromkeys((f"{self._lanes.path}/{name}" for name in self._lanes.names), True)
        buckets = dict.fromkeys((f"{self._delayed.path}/{name}" for name in self._delayed.names), True)
        for path in [path for path in self._seen if path not in lanes and path not in buckets]:
            self._forget(path)
        yield self._lanes
        yield self._delayed
        for lane in self._seen.values():
            yield lane.listing
            for shelf in lane.shelves.values():
                yield shelf.items
                yield shelf.claims
