"""What one client sees of a queue: which items are free, in order, and what can bring one. Driver-free.

Every listing arms a watch, and is believed until the watch has told something: an idle consumer sends nothing, and a
busy one lists a shelf once for many items. What is seen only suggests: a claim is decided by the server, in one
transaction (queue_take.py). The takers of one process share the view, and reserve what they are about to claim, so that
they do not race each other. Where others were faster lately, it begins behind the head, at random.
"""

from __future__ import annotations

import logging
import math
import weakref
from collections.abc import Callable
from typing import Any, Final, final

from zkrecipes.core import Core
from zkrecipes.flow import Pending
from zkrecipes.queue_layout import BUCKET_MS, Name, Slot, parse_bucket, parse_lane, parse_name, shelf_numbers
from zkrecipes.queue_listing import Lane, Listing, Shelf, in_order
from zkrecipes.queue_shelves import Shelves
from zkrecipes.roots import ensure
from zkrecipes.timing import Deadline

__all__ = ["View"]

logger = logging.getLogger("zkrecipes.queue")

BUCKET_REST: Final = 60_000
"""Milliseconds after its end from which on an empty bucket is deleted."""

MAX_SKIPPED: Final = 10_000

WIDEST: Final = 64
"""Free items among which a taker chooses, at most, when others are faster."""


@final
class Reservation:
    """What one taker is about to claim. Collected with it: what it had reserved is free then."""

    __slots__ = ("__weakref__", "slots")

    def __init__(self) -> None:
        self.slots: list[Slot] = []


@final
class View:
    """What the takers of one client share of one queue.

    Args:
        core: The client's core.
        shelves: Of the queue.
        report: Told of each foreign node, by its path.

    Attributes:
        changed: Done when something has changed that no watch tells.
        wake_at: When the next delayed item may be due, by our clock.
        turn: Done when the taker that looks, and waits, for all of them has ended; None if there was none.
        looked: Whether the last look has seen everything that it wanted to see.
    """

    def __init__(self, core: Core, shelves: Shelves, report: Callable[[str], None]) -> None:
        self._core = core
        self._shelves = shelves
        self._report = report
        self._lanes = Listing(shelves.branch("lanes"))
        self._delayed = Listing(shelves.branch("delayed"))
        self._seen: dict[str, Lane] = {}
        self._reserved: dict[str, weakref.ref[Reservation]] = {}
        self._skipped: dict[str, bool] = {}
        self._later: dict[str, int] = {}
        self._contention = 0
        self.changed: Pending[None] = Pending()
        self.wake_at = math.inf
        self.turn: Pending[None] | None = None
        self.looked = False

    # --- looking ------------------------------------------------------------------------------------------------------

    async def look(self, want: int, deadline: Deadline) -> Reservation:
        """Up to so many free items, reserved for the caller; in order. None: `watches` tell when to look again.

        Raises:
            Unsettled: The connection ended.
        """
        self.wake_at = math.inf
        self.looked = False
        reservation = Reservation()
        try:
            await self._shelves.ready(deadline)
            await self._list_branches(deadline)
            due = await self._due(deadline)
            await self._collect(reservation, want, due, deadline)
        except GeneratorExit:
            raise
        except BaseException:
            self.release(reservation)
            raise
        self.looked = True
        return reservation

    async def _list_branches(self, deadline: Deadline) -> None:
        while True:
            self._lanes.ask(self._core)
            self._delayed.ask(self._core)
            lanes = await self._lanes.take(self._core, deadline.at)
            delayed = await self._delayed.take(self._core, deadline.at)
            if lanes and delayed:
                return
            self._shelves.forget()
            await self._shelves.ready(deadline)

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
                self._shelves.retire(lane.listing.path, number)
            missing = want - len(reservation.slots)
            for name in self._choice(shelf, missing):
                self._reserve(reservation, Slot(lane.listing.path, number, name))
            if len(reservation.slots) >= want:
                return

    def _choice(self, shelf: Shelf, missing: int) -> list[Name]:
        """The next so many; where others were faster lately, not from the head: they would be again."""
        free = shelf.free
        if not self._contention or len(free) <= missing:
            shelf.next = math.inf
            return free[:missing]
        # From somewhere on, and from there one after another, so that those who walk so rarely meet.
        start = next((index for index, name in enumerate(free) if name.sequence >= shelf.next), -1)
        if start < 0:
            blocks = min(self._contention, (len(free) - 1) // missing) + 1
            start = missing * int(self._core.runtime.random() * blocks)
        chosen = free[start : start + missing]
        shelf.next = chosen[-1].sequence + 1
        return chosen

    async def _numbers(self, lane: Lane, deadline: Deadline) -> list[tuple[int, bool]]:
        """The lane's shelves, each with whether it takes puts."""
        if lane.listing.stale:
            lane.listing.ask(self._core)
            await lane.listing.take(self._core, deadline.at)
            numbers = shelf_numbers(lane.listing.names)
            lane.shelves = {number: lane.shelves.get(number) or Shelf(lane.listing.path, number) for number in numbers}
        numbers = sorted(lane.shelves)
        return [(number, number == numbers[-1]) for number in numbers]

    async def _shelf(self, lane: Lane, number: int, deadline: Deadline) -> Shelf:
        shelf = lane.shelves.get(number) or Shelf(lane.listing.path, number)
        changed = shelf.items.stale or shelf.claims.stale
        if changed and not shelf.usable(self._core.runtime.now()):
            await self._list(lane, shelf, deadline)
        return shelf

    async def _list(self, lane: Lane, shelf: Shelf, deadline: Deadline) -> None:
        shelf.claims.ask(self._core)
        shelf.items.ask(self._core)
        claims = await shelf.claims.take(self._core, deadline.at)
        items = await shelf.items.take(self._core, deadline.at)
        if items and not claims:
            # Somebody has deleted it: nothing on this shelf could be claimed.
            await ensure(self._core, [shelf.claims.path], self._shelves.label, deadline)
        claimed = dict.fromkeys(shelf.claims.names, True)
        free: list[Name] = []
        for text in shelf.items.names:
            name = parse_name(text, lane.priority)
            path = f"{shelf.items.path}/{text}"
            if name is None:
                self._report(path)
            elif text not in claimed and path not in self._skipped and not self._is_reserved(path):
                free.append(name)
        shelf.free = in_order(free, bucket=lane.priority is None)
        shelf.listed_at = self._core.runtime.now()
        shelf.used = 0

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
            time = await self._shelves.server_time(deadline)
        while True:
            # The estimate falls behind with its age; what could be due by a faster clock is worth a question.
            fastest = time + int(min(clock.age, 1e9) * 20)
            due, next_due = await self._due_by(buckets, time, fastest, deadline)
            if not time < next_due <= fastest:
                break
            newer = await self._shelves.server_time(deadline)
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
                self._seen.pop(path, None)
                break
            lane = self._lane(path, None)
            for number, last in await self._numbers(lane, deadline):
                shelf = await self._shelf(lane, number, deadline)
                found, soonest = self._due_of(path, number, shelf, time)
                if not found and (shelf.items.stale or shelf.claims.stale):
                    await self._list(lane, shelf, deadline)
                    found, soonest = self._due_of(path, number, shelf, time)
                due += found
                next_due = min(next_due, soonest)
                over = last and len(lane.shelves) == 1 and (bucket + 1) * BUCKET_MS + BUCKET_REST < time
                if self._is_empty(shelf) and (over or not last):
                    self._shelves.retire(path, number, whole_lane=last)
        return due, next_due

    def _due_of(self, lane: str, number: int, shelf: Shelf, time: int) -> tuple[list[Slot], float]:
        found: list[Slot] = []
        soonest = math.inf
        for name in shelf.free:
            if name.due > time:
                return found, min(soonest, name.due)
            slot = Slot(lane, number, name)
            real = self._later.get(slot.item, 0)
            if real > time:
                soonest = min(soonest, real)
            else:
                found.append(slot)
        return found, soonest

    # --- reserving ----------------------------------------------------------------------------------------------------

    def _is_reserved(self, path: str) -> bool:
        holder = self._reserved.get(path)
        return holder is not None and holder() is not None

    def _taken(self, slot: Slot) -> bool:
        shelf = self._shelf_of(slot)
        return shelf is None or slot.name not in shelf.free

    def _reserve(self, reservation: Reservation, slot: Slot) -> None:
        shelf = self._shelf_of(slot)
        if shelf is not None:
            shelf.free.remove(slot.name)
            shelf.used += 1
        self._reserved[slot.item] = weakref.ref(reservation)
        reservation.slots.append(slot)

    def _shelf_of(self, slot: Slot) -> Shelf | None:
        lane = self._seen.get(slot.lane)
        return None if lane is None else lane.shelves.get(slot.number)

    def release(self, reservation: Reservation) -> None:
        """They were not claimed: others may."""
        for slot in tuple(reservation.slots):
            self.drop(reservation, slot)
            shelf = self._shelf_of(slot)
            if shelf is not None:
                shelf.expire()
        self.tell()

    def drop(self, reservation: Reservation, slot: Slot) -> None:
        """It was claimed, or is gone: the next listing shows it."""
        if slot in reservation.slots:
            reservation.slots.remove(slot)
            self._reserved.pop(slot.item, None)

    def put_back(self, reservation: Reservation, slot: Slot) -> None:
        """Nobody has tried to claim it."""
        self.drop(reservation, slot)
        self.returned(slot)

    def returned(self, slot: Slot) -> None:
        """A claim of ours was given back: it is served before those behind it, without a listing."""
        shelf = self._shelf_of(slot)
        if shelf is not None and slot.name not in shelf.free:
            shelf.free = in_order([*shelf.free, slot.name], bucket=slot.name.due > 0)

    def lost(self, reservation: Reservation, slot: Slot) -> None:
        """Somebody else was faster."""
        self.drop(reservation, slot)
        shelf = self._shelf_of(slot)
        if shelf is not None:
            shelf.next = math.inf
            shelf.expire()
        self._contention = min(2 * self._contention + 2, WIDEST)

    def won(self) -> None:
        """A claim succeeded at once."""
        self._contention -= self._contention // 8 + (self._contention > 0)

    def skip(self, reservation: Reservation, slot: Slot) -> None:
        """It cannot be served, now or later, by this version: leave it alone, and serve those behind it."""
        if len(self._skipped) > MAX_SKIPPED:
            self._skipped.clear()
        self._skipped[slot.item] = True
        self.drop(reservation, slot)

    def not_due(self, reservation: Reservation, slot: Slot, due: int) -> None:
        """Its node tells a later time than its name."""
        if len(self._later) > MAX_SKIPPED:
            self._later.clear()
        self._later[slot.item] = due
        self.put_back(reservation, slot)

    def tell(self) -> None:
        """Wake who waits: something has changed that no watch tells."""
        changed, self.changed = self.changed, Pending()
        changed.resolve(None)

    # --- waiting ------------------------------------------------------------------------------------------------------

    def watches(self) -> list[Pending[Any]]:
        """What tells that it is worth looking again: each of them."""
        listings = [self._lanes, self._delayed]
        lanes = dict.fromkeys((f"{self._lanes.path}/{name}" for name in self._lanes.names), True)
        buckets = dict.fromkeys((f"{self._delayed.path}/{name}" for name in self._delayed.names), True)
        for path in [path for path in self._seen if path not in lanes and path not in buckets]:
            del self._seen[path]
        for lane in self._seen.values():
            listings.append(lane.listing)
            for shelf in lane.shelves.values():
                listings += (shelf.items, shelf.claims)
        return [
            self.changed,
            *(
                listing.call.watch if listing.call is not None and listing.call.watch is not None else Pending.of(None)
                for listing in listings
            ),
        ]

    def claimed(self) -> list[Slot]:
        """What was claimed when it was listed, wherever we looked."""
        return [
            Slot(path, number, name)
            for path, lane in self._seen.items()
            for number, shelf in lane.shelves.items()
            for name in (parse_name(text, lane.priority) for text in sorted(shelf.claims.names))
            if name is not None
        ]

    @property
    def contended(self) -> bool:
        """Whether takers of this process have reserved something that they may give back."""
        return any(holder() is not None for holder in self._reserved.values())
