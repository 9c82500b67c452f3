"""What a topic keeps, and how the rest is removed. Driver-free.

Promises: nothing is removed that a durable subscription has not acknowledged, unless that subscription has been silent
for `forget_after`; what is removed is told to whoever missed it, for the low-water is raised in the same multi as the
messages are deleted. One trimmer at a time, and each of its steps checks its place in the line.

Source: Kafka's retention; the fencing is ours.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final, NamedTuple, final

from zkrecipes.contention import enter
from zkrecipes.errors import (
    AcquireTimeoutError,
    DecodeError,
    NodeNotFoundError,
    OutcomeUnknownError,
    TransactionError,
    UnavailableError,
    ZkRecipesError,
)
from zkrecipes.flow import Pending
from zkrecipes.hold import Hold
from zkrecipes.layouts import CURATOR_LOCK
from zkrecipes.patience import Patience, Place
from zkrecipes.port import Check, Children, Delete, Exists, Get, Multi, Set, Stat
from zkrecipes.timing import Deadline, Timeout, to_seconds
from zkrecipes.topic_layout import LowWater, Position, Stored
from zkrecipes.topic_log import Log, Low

__all__ = ["Keep", "Retention", "Trimmer"]

logger = logging.getLogger("zkrecipes.pubsub")

TOGETHER: Final = 100
"""Messages that one multi deletes."""

EVERY: Final = 100
"""Messages of one publisher after which it looks whether something can go."""

RELEASE_LIMIT: Final = 1.0
TRIM_LIMIT: Final = 30.0
"""Seconds for trimming in the background."""

MANY: Final = 10_000


@final
@dataclass(frozen=True, slots=True)
class Retention:
    """What a topic keeps. What is beyond one of the limits may be removed; without limits, nothing is by itself.

    Attributes:
        max_age: Seconds (or a timedelta) by the servers' clock; None for any age.
        max_count: Messages; None for any number.
        keep_for_durable: Whether messages are kept, whatever the limits, until every durable subscription has
            acknowledged them.
        forget_after: Seconds (or a timedelta) after which a durable subscription that has no reader, and acknowledges
            nothing, holds up nothing any more. When it comes back it is told what it has missed.

    Raises:
        TypeError: A value is of the wrong type.
        ValueError: A value is negative.
    """

    max_age: Timeout = None
    max_count: int | None = None
    keep_for_durable: bool = True
    forget_after: Timeout = 7 * 24 * 3600.0

    def __post_init__(self) -> None:
        to_seconds(self.max_age, "max_age")
        to_seconds(self.forget_after, "forget_after")
        count = self.max_count
        if count is not None and (isinstance(count, bool) or not isinstance(count, int)):
            message = f"max_count must be an int or None (any number), not {type(count).__name__}"
            raise TypeError(message)
        if count is not None and count < 0:
            message = f"max_count must be 0 or more, not {count}"
            raise ValueError(message)

    @property
    def limited(self) -> bool:
        """Whether anything is removed by itself."""
        return self.max_age is not None or self.max_count is not None


@final
class Keep(NamedTuple):
    """What one trim keeps.

    Attributes:
        before: Everything before this position may go.
        since: Everything written before this time (ms since 1970) may go.
        newest: All but so many may go.
    """

    before: Position | None = None
    since: int | None = None
    newest: int | None = None


@final
class Trimmer:
    """Removes old messages of one topic.

    Args:
        log: The topic.
        retention: What is kept.
    """

    def __init__(self, log: Log, retention: Retention) -> None:
        self._log = log
        self._retention = retention
        self._at_work = False
        self._looked = 0
        self._warned = False

    def look(self) -> None:
        """After a publish: see, now and then, whether something can go; in the background."""
        published = self._log.published
        if published - self._looked < EVERY or self._at_work:
            return
        self._looked = published
        if self._retention.limited:
            self._at_work = True
            self._log.core.runtime.spawn(self._trim_in_background(), f"trim {self._log.label}")
        elif published >= MANY and not self._warned:
            self._warned = True
            logger.warning(
                "%s has a limit for nothing, and this client has published %d messages to it: they stay on the servers "
                "for ever. Give the topic a Retention",
                self._log.label,
                published,
            )

    async def _trim_in_background(self) -> None:
        deadline = Deadline.after(TRIM_LIMIT, self._log.core.runtime.now())
        try:
            await self.trim(await self._limits(deadline), deadline, wait=False)
        except AcquireTimeoutError:
            pass  # somebody else is at it
        except ZkRecipesError as error:
            logger.info("%s was not trimmed, the next time it is tried again: %s", self._log.label, error)
        finally:
            self._at_work = False

    async def _limits(self, deadline: Deadline) -> Keep:
        age = to_seconds(self._retention.max_age)
        since = None
        if self._retention.max_age is not None:
            time = await self._log.marks.time(deadline)
            since = time - int(1000 * age)
        return Keep(since=since, newest=self._retention.max_count)

    # --- one trim -----------------------------------------------------------------------------------------------------

    async def trim(self, keep: Keep, deadline: Deadline, *, wait: bool = True) -> Position:
        """Remove what may go, and return the low-water.

        Raises:
            AcquireTimeoutError: Somebody else was trimming until the deadline, or at all, if we do not wait.
        """
        log = self._log
        await log.open(deadline)
        place = Place(log.places.trimmer, log.label, CURATOR_LOCK, log.core.identity.encode("utf-8", "replace"))
        hold = await enter(log.core.nodes, place, Patience(deadline, wait, Pending()))
        try:
            target = await self._target(keep, deadline)
            low = await log.low(deadline)
            while low.water.position < target:
                low = await self._step(hold, low, target, deadline)
            await self._collect(low.water.position, deadline)
        finally:
            log.core.runtime.spawn(log.core.nodes.release(hold, RELEASE_LIMIT), f"end of trimming {log.label}")
        return low.water.position

    async def _collect(self, low: Position, deadline: Deadline) -> None:
        try:
            await self._log.pieces.collect(low, deadline)
        except ZkRecipesError as error:
            logger.info("Pieces of messages of %s stay until the next trim: %s", self._log.label, error)

    async def _step(self, hold: Hold, low: Low, target: Position, deadline: Deadline) -> Low:
        """Delete some messages, and raise the low-water in the same multi; the low-water that is then there."""
        log, places, at = self._log, self._log.places, low.water.position
        present = [index for index in await log.indices(at.segment, deadline) if index >= at.index]
        within = target.segment == at.segment
        going = [index for index in present if not within or index < target.index][:TOGETHER]
        last = Position(at.segment, going[-1] + 1) if going else at
        ends = not within and len(going) == len(present)
        water = LowWater(Position(at.segment + 1, 0), last) if ends else LowWater(last)
        if not going and not ends:
            return Low(LowWater(target), low.version)  # nothing is there, as after a hand has deleted it
        operations = (
            Check(hold.path),
            Set(places.low, water.encode(), low.version),
            *(Delete(places.message(Position(at.segment, index))) for index in going),
            *((Delete(places.segment(at.segment)),) if ends else ()),
        )
        try:
            answers = await log.core.ask(Multi(operations), deadline, log.label)
        except OutcomeUnknownError:
            pass  # said again it is refused by the low-water's version: what is there now tells
        except TransactionError as refused:
            if refused.index == 0 or not isinstance(refused.__cause__, NodeNotFoundError):
                message = f"{log.label} was not trimmed to the end: {refused}"
                raise UnavailableError(message, path=log.label) from refused
        else:
            return Low(water, answers[1].version)
        return await log.low(deadline)

    async def _target(self, keep: Keep, deadline: Deadline) -> Position:
        """The position before which all may go."""
        end = await self._log.end(deadline)
        low = (await self._log.low(deadline)).water.position
        limits = [low if keep.before is None else min(keep.before, end)]
        if keep.since is not None:
            limits.append(await self.first_since(keep.since, deadline))
        if keep.newest is not None:
            limits.append(await self._last_but(keep.newest, low, end, deadline))
        target = max(limits)
        if self._retention.keep_for_durable:
            slowest = await self._slowest(deadline)
            target = target if slowest is None else min(target, slowest)
        return target

    async def _last_but(self, count: int, low: Position, end: Position, deadline: Deadline) -> Position:
        """The position of the last but so many."""
        left = count
        segment = end.segment
        while segment >= low.segment:
            indices = await self._log.indices(segment, deadline)
            if len(indices) >= left:
                return Position(segment, indices[-left]) if left else end
            left -= len(indices)
            segment -= 1
        return low

    async def first_since(self, time: int, deadline: Deadline) -> Position:
        """The position of the first message that was written at this time (ms since 1970), or later."""
        log = self._log
        low, end = (await log.low(deadline)).water.position, await log.end(deadline)
        segment = low.segment
        while segment < end.segment:
            # A sealed segment: if its last message is too old, all are.
            indices = await log.indices(segment, deadline)
            if indices and await self._written(Position(segment, indices[-1]), deadline) >= time:
                break
            segment += 1
        indices = await log.indices(segment, deadline)
        first, last = 0, len(indices)
        while first < last:
            middle = (first + last) // 2
            if await self._written(Position(segment, indices[middle]), deadline) < time:
                first = middle + 1
            else:
                last = middle
        if first < len(indices):
            return Position(segment, indices[first])
        return max(low, end)

    async def _written(self, position: Position, deadline: Deadline) -> int:
        stat: Stat | None = await self._log.core.ask(
            Exists(self._log.places.message(position)), deadline, self._log.label
        )
        return -1 if stat is None else stat.ctime

    async def _slowest(self, deadline: Deadline) -> Position | None:
        """The least position of the durable subscriptions that count."""
        core, places = self._log.core, self._log.places
        positions: list[Position] = []
        time = await self._log.marks.time(deadline)
        forgotten = time - 1000 * to_seconds(self._retention.forget_after)
        names: list[str] = await core.ask(Children(places.subs), deadline, self._log.label)
        for name in sorted(names):
            try:
                data, stat = await core.ask(Get(places.sub(name)), deadline, self._log.label)
                if not data:
                    return (await self._log.low(deadline)).water.position  # it is just being made
                if stat.mtime < forgotten and not await core.ask(
                    Children(places.owner(name)), deadline, self._log.label
                ):
                    continue
                positions.append(Stored.decode(data, f"{self._log.label}/subs/{name}").position)
            except NodeNotFoundError:
                continue  # it has never had a reader, or was deleted since
            except DecodeError as error:
                logger.warning("%s; messages are not kept for it", error)
        return min(positions, default=None)
