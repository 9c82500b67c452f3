"""Which items of a queue seem free, what the takers of one process have reserved, and when to look again. Driver-free.

Every listing arms a watch, and is believed until the watch has told something: an idle consumer sends nothing, and a
busy one lists once for many items. What is seen only suggests: a claim is decided by the server, in one transaction
(queue_take.py). The takers of one process share what is seen, and reserve what they are about to claim, so that they do
not race each other. Where others were faster lately, a taker begins behind the head, at random.

The layouts: queue_view.py (ours), queue_curator_view.py (Curator's).
"""

from __future__ import annotations

import math
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, Final, final

from zkrecipes.core import Core
from zkrecipes.flow import Pending
from zkrecipes.queue_ground import Ground
from zkrecipes.queue_layout import Name, Slot
from zkrecipes.queue_listing import Listing, Shelf
from zkrecipes.timing import Deadline

__all__ = ["Reservation", "Sight"]

MAX_SKIPPED: Final = 10_000

WIDEST: Final = 64
"""Free items among which a taker chooses, at most, when others are faster."""


@final
class Reservation:
    """What one taker is about to claim. Collected with it: what it had reserved is free then."""

    __slots__ = ("__weakref__", "slots")

    def __init__(self) -> None:
        self.slots: list[Slot] = []


class Sight(ABC):
    """What the takers of one client share of one queue.

    Args:
        core: The client's core.
        ground: Of the queue.
        report: Told of each foreign node, by its path.

    Attributes:
        changed: Done when something has changed that no watch tells.
        wake_at: When the next delayed item may be due, by our clock.
        turn: Done when the taker that looks, and waits, for all of them has ended; None if there was none.
        looked: Whether the last look has seen everything that it wanted to see.
    """

    def __init__(self, core: Core, ground: Ground, report: Callable[[str], None]) -> None:
        self._core = core
        self._ground = ground
        self._report = report
        self._shelves: dict[str, Shelf] = {}
        self._reserved: dict[str, weakref.ref[Reservation]] = {}
        self._skipped: dict[str, bool] = {}
        self._later: dict[str, int] = {}
        self._resting: dict[str, float] = {}
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
            await self._ground.ready(deadline)
            await self._look(reservation, want, deadline)
        except GeneratorExit:
            raise
        except BaseException:
            self.release(reservation)
            raise
        self.looked = True
        return reservation

    @abstractmethod
    async def _look(self, reservation: Reservation, want: int, deadline: Deadline) -> None:
        """Reserve free items."""

    @abstractmethod
    def _in_order(self, names: list[Name]) -> list[Name]:
        """As they are served."""

    @abstractmethod
    def _name(self, shelf: Shelf, text: str) -> Name | None:
        """Take an item's name apart; None if it is none of ours."""

    @abstractmethod
    def _in_turn(self) -> Iterator[Shelf]:
        """The shelves of items that have no delay, in the order in which they are served."""

    @abstractmethod
    def _listings(self) -> Iterator[Listing]:
        """All that is believed."""

    def _free(self, shelf: Shelf) -> list[Name]:
        """What of a shelf that was just listed may be claimed."""
        claimed = dict.fromkeys(shelf.claims.names, True)
        free: list[Name] = []
        for text in shelf.items.names:
            name = self._name(shelf, text)
            path = f"{shelf.items.path}/{text}"
            if name is None:
                self._report(path)
            elif text not in claimed and path not in self._skipped and not self._is_reserved(path):
                free.append(name)
        return free

    def _choice(self, shelf: Shelf, free: list[Name], missing: int) -> list[Name]:
        """The next so many; where others were faster lately, not from the head: they would be again."""
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
        return self._shelves.get(slot.items)

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
            shelf.free = self._in_order([*shelf.free, slot.name])

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

    def rest(self, slot: Slot, seconds: float) -> None:
        """Leave it to others for a while, where the layout cannot put it off for all. It is claimed by us now."""
        if len(self._resting) > MAX_SKIPPED:
            self._resting.clear()
        self._resting[slot.item] = self._core.runtime.now() + seconds

    def tell(self) -> None:
        """Wake who waits: something has changed that no watch tells."""
        changed, self.changed = self.changed, Pending()
        changed.resolve(None)

    def following(self, count: int) -> list[Slot]:
        """What is probably claimed next; none where others may be faster."""
        if self._contention:
            return []
        return next(([shelf.slot(name) for name in shelf.free[:count]] for shelf in self._in_turn() if shelf.free), [])

    # --- waiting ------------------------------------------------------------------------------------------------------

    def watches(self) -> list[Pending[Any]]:
        """What tells that it is worth looking again: each of them."""
        return [
            self.changed,
            *(
                listing.call.watch if listing.call is not None and listing.call.watch is not None else Pending.of(None)
                for listing in self._listings()
            ),
        ]

    def claimed(self) -> list[Slot]:
        """What was claimed when it was listed, wherever we looked."""
        return [
            shelf.slot(name)
            for shelf in self._shelves.values()
            for name in (self._name(shelf, text) for text in sorted(shelf.claims.names))
            if name is not None
        ]

    @property
    def contended(self) -> bool:
        """Whether takers of this process have reserved something that they may give back."""
        return any(holder() is not None for holder in self._reserved.values())
