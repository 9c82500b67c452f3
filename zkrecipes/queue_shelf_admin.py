"""Our own layout of a queue as its operators see it. Driver-free."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from zkrecipes.port import Children, Get
from zkrecipes.queue_admin import Admin, Entry, Place, QueueStats
from zkrecipes.queue_layout import Name, lane_nodes, parse_bucket, parse_lane, parse_name, shelf_numbers
from zkrecipes.timing import Deadline

__all__ = ["ShelfAdmin"]


@final
class ShelfAdmin(Admin):
    """Looks at one queue, shelf after shelf."""

    async def stats(self, deadline: Deadline) -> QueueStats:
        """Count, by the numbers of children that the servers keep: no item is listed but those of a lane's first shelf.

        Raises:
            UnavailableError: No server answered in time.
        """
        lanes, buckets = await self.places(deadline)
        counts: list[int] = []
        for places in (lanes, buckets):
            reads = [Get(path) for place in places for path in (place.items, place.claims)]
            nodes = [0 if node is None else node[1].children_count for node in await self._ask(reads, deadline)]
            counts += (sum(nodes[::2]), sum(nodes[1::2]))
        items, claims, delayed, delayed_claims = counts
        return QueueStats(
            max(0, items - claims),
            max(0, delayed - delayed_claims),
            claims + delayed_claims,
            await self._dead(deadline),
            await self._oldest(lanes, deadline),
        )

    async def _oldest(self, lanes: list[Place], deadline: Deadline) -> float | None:
        births: list[int] = []
        for lane in dict.fromkeys(place.lane for place in lanes):
            found = await self._first([place for place in lanes if place.lane == lane], 1, deadline)
            births += [entry.record.born or entry.made for entry in found]
        return await self._age(births, deadline)

    async def peek(self, count: int, deadline: Deadline) -> list[Entry]:
        """The first items that nobody has claimed, in the order in which they are served.

        Raises:
            UnavailableError: No server answered in time.
        """
        lanes, buckets = await self.places(deadline)
        due = await self._due(buckets, deadline)
        priorities = [place.priority for place in lanes if place.priority is not None]
        found: list[Entry] = []
        for priority in sorted(dict.fromkeys([entry.record.priority for entry in due] + priorities)):
            found += [entry for entry in due if entry.record.priority == priority]
            if len(found) < count:
                places = [place for place in lanes if place.priority == priority]
                found += await self._first(places, count - len(found), deadline)
        return found[:count]

    async def _due(self, buckets: list[Place], deadline: Deadline) -> list[Entry]:
        if not buckets:
            return []
        time = await self._ground.server_time(deadline)
        found: list[tuple[tuple[int, int, int], Entry]] = []
        for place in buckets:
            names = [name for name in await self._free(place, deadline) if name.due <= time]
            for name, entry in await self._entries(place, names, deadline):
                if entry.made + entry.record.delay <= time:
                    found.append(((name.place, name.due, name.sequence), entry))
        return [entry for _, entry in sorted(found, key=lambda each: each[0])]

    async def places(self, deadline: Deadline) -> tuple[list[Place], list[Place]]:
        """The shelves of the lanes and those of the delayed, in order."""
        branches = [self._ground.branch(name) for name in ("lanes", "delayed")]
        found: list[list[Place]] = []
        for branch, names in zip(
            branches, await self._ask([Children(path) for path in branches], deadline), strict=True
        ):
            parse = parse_lane if branch == branches[0] else parse_bucket
            known = [name for name in sorted(names or []) if parse(name) is not None]
            listings = await self._ask([Children(f"{branch}/{name}") for name in known], deadline)
            found.append(
                [
                    Place(
                        *lane_nodes(f"{branch}/{name}", number),
                        f"{branch}/{name}",
                        parse_lane(name) if branch == branches[0] else None,
                    )
                    for name, listing in zip(known, listings, strict=True)
                    for number in shelf_numbers(listing or [])
                ]
            )
        return found[0], found[1]

    def in_order(self, place: Place, names: Sequence[str]) -> list[Name]:
        """These names, taken apart, without those that are none of ours; in order."""
        parsed = [parse_name(text, place.priority) for text in names]
        return sorted(
            [name for name in parsed if name is not None],
            key=lambda name: name.sequence if place.priority is not None else name.due,
        )
