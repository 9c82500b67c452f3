"""Listings of a queue's nodes that are believed until a watch tells otherwise. Driver-free."""

from __future__ import annotations

import math
from typing import Final, final

from zkrecipes.calls import Call
from zkrecipes.core import Core
from zkrecipes.errors import NodeNotFoundError
from zkrecipes.port import Children
from zkrecipes.queue_layout import Name, Slot

__all__ = ["Lane", "Listing", "Shelf"]

AT_ONE_LISTING: Final = 100
"""Items that are taken from one listing, at most, if something has changed since: others may have come back."""

LISTING_AGE: Final = 1.0
"""Seconds after which a listing that has changed is not used up any further."""


@final
class Listing:
    """The children of one node, as listed with a watch; believed until that has told something."""

    __slots__ = ("call", "names", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self.call: Call[list[str]] | None = None
        self.names: list[str] = []

    @property
    def stale(self) -> bool:
        """Whether it must be listed (again)."""
        return self.call is None or self.call.watch is None or self.call.watch.done

    def ask(self, core: Core) -> None:
        """Start to list it, if it must be."""
        if self.stale:
            self.call = core.session.call(Children(self.path, watch=True))

    async def take(self, core: Core, until: float) -> bool:
        """Take the answer; whether the node is there.

        Raises:
            Unsettled: The connection ended, or the time came.
        """
        if self.call is None:
            return False
        call = self.call
        try:
            self.names = await core.session.result(call, until)
        except NodeNotFoundError:
            self.names = []
            return False
        except BaseException:
            if self.call is call:
                self.call = None  # not asked, as far as we know
            raise
        return True


@final
class Shelf:
    """One shelf: what was free when it was listed, less what was taken since; from where on a busy taker goes on."""

    __slots__ = ("claims", "free", "items", "listed_at", "next", "priority", "used")

    def __init__(self, items: str, claims: str, priority: int | None = None) -> None:
        self.items = Listing(items)
        self.claims = Listing(claims)
        self.priority = priority
        self.free: list[Name] = []
        self.listed_at = -math.inf
        self.used = 0
        self.next = math.inf

    def slot(self, name: Name) -> Slot:
        """An item on it."""
        return Slot(self.items.path, self.claims.path, name)

    def usable(self, now: float) -> bool:
        """Whether something can be taken without listing it again."""
        if not self.free:
            return False
        changed = self.items.stale or self.claims.stale
        return not changed or (self.used < AT_ONE_LISTING and now - self.listed_at < LISTING_AGE)

    def expire(self) -> None:
        """What was listed does not hold any more."""
        self.free = []
        self.items.call = None
        self.claims.call = None


@final
class Lane:
    """One lane, or one bucket: its shelves by number."""

    __slots__ = ("listing", "priority", "shelves")

    def __init__(self, path: str, priority: int | None) -> None:
        self.listing = Listing(path)
        self.priority = priority
        self.shelves: dict[int, Shelf] = {}
