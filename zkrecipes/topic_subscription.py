"""One subscriber's place: who owns a durable subscription, what was handed out, what was acknowledged. Driver-free.

Promises: at least once, in the topic's order: a message comes again only if it was not acknowledged, and the
subscription was lost in between; the stored position never goes backwards, but by `seek`. One reader at a time owns a
durable subscription; its acknowledgements check that in the same multi, so a reader that has lost it cannot move the
position under the next one.

Source: Kafka's committed offsets; the owner's line is ZooKeeper's lock recipe.
"""

from __future__ import annotations

import contextlib
import logging
import weakref
from collections import deque
from collections.abc import Callable, Coroutine
from typing import NamedTuple, final

from zkrecipes.errors import ClaimLostError, ClosedError, OutcomeUnknownError, UnavailableError, ZkRecipesError
from zkrecipes.flow import Pending, Wait, first_of
from zkrecipes.timing import Deadline
from zkrecipes.topic_follow import Follower, Found, Hole
from zkrecipes.topic_layout import Member, Position
from zkrecipes.topic_log import Log
from zkrecipes.topic_owner import Owner
from zkrecipes.topic_presence import Presence

__all__ = ["Given", "SubscriptionState", "checked_acks"]

logger = logging.getLogger("zkrecipes.pubsub")


@final
class Given(NamedTuple):
    """What is handed out next.

    Attributes:
        found: The message.
        gap: What was removed before it, if that was not told yet.
        term: Of the ownership in which it is handed out.
    """

    found: Found | None
    gap: Hole | None
    term: int


@final
class SubscriptionState:
    """One subscription, for every driver.

    Args:
        log: The topic.
        name: Of the subscription.
        start: Finds the position at which a new subscription begins.
        durable: Whether its position is kept on the server.
        ack_every: Messages after which those before are acknowledged by themselves; None for never.
        ack_interval: The same, in seconds.
    """

    def __init__(
        self,
        log: Log,
        name: str,
        start: Callable[[Deadline], Coroutine[Wait, None, Position]],
        *,
        durable: bool,
        ack_every: int | None,
        ack_interval: float | None,
    ) -> None:
        self.log = log
        self.name = name
        self.durable = durable
        self.closed: Pending[None] = Pending()
        self.term = 0
        self.reader: weakref.ref[object] | None = None
        """Who reads; when nobody has it any more, the subscription is closed."""
        self._start = start
        self._ack_every = ack_every
        self._ack_interval = ack_interval
        self._acked_at = 0.0
        self._follower = Follower(log, Position(0, 0))
        self._reading: Pending[ZkRecipesError | None] | None = None
        self._ready: deque[Found] = deque()
        self._gap: Hole | None = None
        self._owner = Owner(log, name, start, self.closed)
        self._given = Position(0, 0)
        self._unacked = 0
        self._turn: Pending[None] | None = None
        self._owning: Pending[None] | None = None
        self._acking: Pending[None] | None = None
        self._resumed: Pending[None] | None = None
        self._kicked: Pending[None] = Pending()

    @property
    def position(self) -> Position:
        """Of the message that is handed out next."""
        return self._given

    @property
    def stored(self) -> Position:
        """What is acknowledged: of the message that comes first if the subscription is opened again."""
        return self._owner.stored if self.durable else self._given

    @property
    def owned(self) -> bool:
        """Whether this reader can prove that it owns the subscription."""
        return self._owner.valid

    # --- open and close -----------------------------------------------------------------------------------------------

    async def open(self, deadline: Deadline) -> None:
        """Own it, and find where to begin.

        Raises:
            SubscriptionBusyError: Another reader had it until the deadline.
        """
        await self.log.open(deadline)
        if self.durable:
            self._begin(await self._owner.own(deadline))
        else:
            self._begin(await self._start(deadline))
        runtime = self.log.core.runtime
        self._acked_at = runtime.now()
        runtime.spawn(self._show(), f"show {self.name} of {self.log.label}")

    async def _show(self) -> None:
        await Presence(self.log, self._member, self.closed, self._dropped).keep()
        if self._dropped() and not self.closed.done:
            logger.warning(
                "The subscription %r of %s was dropped without close(), and is closed now; use `with`",
                self.name,
                self.log.label,
            )
            await self.close()

    def _dropped(self) -> bool:
        return self.reader is not None and self.reader() is None

    def _member(self) -> Member:
        return Member(self.name, self.log.core.identity, self.stored, self.durable)

    def _begin(self, position: Position) -> None:
        self.term += 1
        self._follower = self._follower.moved(position)
        self._reading = None
        self._ready.clear()
        self._gap = None
        self._given = position
        self._unacked = 0

    async def close(self) -> None:
        """End it: whoever waits is woken, the ownership is given up. Idempotent."""
        if self.closed.done:
            return
        self.closed.resolve(None)
        self._follower.close()
        await self._owner.release()

    def check_open(self) -> None:
        """Raise if it is closed."""
        if self.closed.done:
            message = f"the subscription {self.name!r} of {self.log.label} is closed; subscribe again"
            raise ClosedError(message, path=self.log.label)

    # --- receive ------------------------------------------------------------------------------------------------------

    async def peek(self, deadline: Deadline) -> Given:
        """What comes next; `taken` takes it. An empty Given: the deadline came first, or it is closed.

        Raises:
            UnavailableError: No server answered before the deadline.
            SubscriptionBusyError: It was lost, and another reader had it until the deadline.
        """
        core = self.log.core
        while self._turn is not None and not deadline.passed(core.runtime.now()):
            await first_of(self._turn, self.closed, until=deadline.at)
            if self.closed.done:
                break
        if self._turn is not None:
            return Given(None, None, self.term)
        turn = self._turn = Pending()
        try:
            return await self._peek(deadline)
        finally:
            self._turn = None
            turn.resolve(None)

    async def _peek(self, deadline: Deadline) -> Given:
        now = self.log.core.runtime.now
        while not self.closed.done:
            self.log.core.session.check_open(self.log.label)
            if self.durable and not self.owned:
                await self._own_again(deadline)
                continue
            await self._acknowledge_by_itself(deadline)
            if self._resumed is not None:
                await first_of(self._resumed, self.closed, until=deadline.at)
            elif self._ready:
                await self._complete(self._ready[0], deadline)
                if not self._ready:
                    continue  # somebody has called seek() meanwhile
                return Given(self._ready[0], self._gap, self.term)
            elif self._gap is not None:
                return Given(None, self._gap, self.term)
            else:
                await self._fill(deadline)
            if self._kicked.done:
                self._kicked = Pending()
            if deadline.passed(now()) and (self._resumed is not None or (not self._ready and self._gap is None)):
                break
        if not self.closed.done and not self.log.core.session.usable:
            raise self.log.core.session.unavailable(self.log.label)
        return Given(None, None, self.term)

    async def _complete(self, found: Found, deadline: Deadline) -> None:
        """Read the pieces of a message that has its value in some."""
        if isinstance(found.data, bytes):
            at = found.position
            path = f"{self.log.label}/s{at.segment:010d}/m-{at.index:010d}"
            data = await self.log.pieces.whole(found.data, path, deadline)
            if data is not None and self._ready and self._ready[0] is found:
                self._ready[0] = found._replace(data=data)

    async def _own_again(self, deadline: Deadline) -> None:
        """Take it up again, one at a time: two of us in the line would wait for one another."""
        if self._owning is not None:
            await first_of(self._owning, self.closed, until=deadline.at)
            if self._owning is not None and deadline.passed(self.log.core.runtime.now()):
                raise self._owner.busy(deadline)
            return
        owning = self._owning = Pending()
        try:
            self._owner.tell_lost()
            with contextlib.suppress(OutcomeUnknownError, ClaimLostError):  # lost meanwhile: looked at again
                self._begin(await self._owner.own(deadline))
        finally:
            self._owning = None
            owning.resolve(None)

    async def _fill(self, deadline: Deadline) -> None:
        """Read on, until there is something, or something else is to be done."""
        core, until = self.log.core, deadline.at
        if self._ack_interval is not None and self._unacked:
            until = min(until, self._acked_at + self._ack_interval)
        reading = self._reading
        if reading is None or reading.done:
            name = f"read {self.name} of {self.log.label}"
            reading = self._reading = core.runtime.begin(self._read_on(), name)
        over = self._owner.over
        # Should nothing be stepped any more, since the client is being closed, the session tells it.
        ends = (reading, self._kicked, self.closed, core.session.changed)
        await first_of(*ends, until=until) if over is None else await first_of(*ends, over, until=until)
        error = reading.result() if reading.done else None
        if error is not None:
            raise error

    async def _read_on(self) -> ZkRecipesError | None:
        """Read the next messages, once somebody waits for them, and end; the error, if that is what came.

        A task of its own: it is stepped by the thread that brings the answers, so who waits wakes once, when the
        message is there. It outlasts who has begun it: who waits next finds it under way, or what it has read.
        """
        try:
            found = await self._follower.more()
        except ZkRecipesError as error:
            return error
        # Nothing, if seek() has been called meanwhile: that ends the follower.
        if isinstance(found, Hole):
            self._gap = Hole(found.first if self._gap is None else self._gap.first, found.resumed)
        else:
            self._ready.extend(found)
        return None

    def taken(self, given: Given, *, gap: bool) -> None:
        """It was handed out: the gap alone, or the message with it."""
        if given.term != self.term:
            return
        if gap and self._gap == given.gap:
            if self._gap is not None:
                self._given = max(self._given, self._gap.resumed)
            self._gap = None
        if not gap and self._ready and self._ready[0] is given.found:
            found = self._ready.popleft()
            self._gap = None
            self._given = found.position.following
            self._unacked += 1

    # --- acknowledge --------------------------------------------------------------------------------------------------

    async def ack(self, position: Position, term: int, deadline: Deadline) -> None:
        """Acknowledge the message at a position, and all before it.

        Raises:
            ClaimLostError: The subscription was lost since the message was handed out: it comes again.
            OutcomeUnknownError: It was sent, and it could not be found out whether it was stored.
            UnavailableError: No server answered in time; it is not acknowledged.
        """
        self.check_open()
        if term != self.term:
            raise self._owner.lost()
        if not self.durable:
            return
        await self._wait_for_acks(deadline)
        if term != self.term:
            raise self._owner.lost()
        if position.following <= self._owner.stored:
            return
        await self._store(position.following, deadline)
        self._acked_at = self.log.core.runtime.now()
        if term == self.term and position.following >= self._given:
            self._unacked = 0

    async def _wait_for_acks(self, deadline: Deadline) -> None:
        """In turn: of two on their way at once, the older one could be written last, if its reply is lost."""
        while self._acking is not None:
            if deadline.passed(self.log.core.runtime.now()):
                raise self.log.core.session.unavailable(self.log.label)
            await first_of(self._acking, self.closed, until=deadline.at)
            self.check_open()

    async def _store(self, position: Position, deadline: Deadline) -> None:
        acking = self._acking = Pending()
        try:
            await self._owner.store(position, deadline)
        finally:
            self._acking = None
            acking.resolve(None)

    async def _acknowledge_by_itself(self, deadline: Deadline) -> None:
        """Who asks for the next message has done with those before."""
        now = self.log.core.runtime.now()
        due = self._ack_every is not None and self._unacked >= self._ack_every
        due = due or (self._ack_interval is not None and now >= self._acked_at + self._ack_interval)
        if not due or not self._unacked or self._given.index == 0:
            return
        last = Position(self._given.segment, self._given.index - 1)
        try:
            await self.ack(last, self.term, deadline)
        except (ClaimLostError, OutcomeUnknownError) as error:
            logger.warning("%s", error)  # what was not acknowledged comes again, as promised
        except UnavailableError:
            self._acked_at = now  # with the next one

    # --- place --------------------------------------------------------------------------------------------------------

    async def seek(self, position: Position, deadline: Deadline) -> None:
        """Go on from another position, which is stored, too. Messages that were handed out before come to nothing."""
        self.check_open()
        if self.durable:
            while not self._owner.valid:
                await self._own_again(deadline)
                self.check_open()
            await self._wait_for_acks(deadline)
            await self._store(position, deadline)
        self._begin(position)
        self._kicked.resolve(None)

    def pause(self) -> None:
        """Hand out nothing until `resume`."""
        if self._resumed is None:
            self._resumed = Pending()
            self._kicked.resolve(None)

    def resume(self) -> None:
        """Go on."""
        if self._resumed is not None:
            self._resumed.resolve(None)
            self._resumed = None


def checked_acks(ack_every: int | None, ack_interval: float | None) -> None:
    """Check the arguments for automatic acknowledgement.

    Raises:
        TypeError: One is of the wrong type.
        ValueError: One is not positive.
    """
    if ack_every is not None and (isinstance(ack_every, bool) or not isinstance(ack_every, int)):
        message = f"ack_every must be an int or None (never by itself), not {type(ack_every).__name__}"
        raise TypeError(message)
    if ack_interval is not None and (isinstance(ack_interval, bool) or not isinstance(ack_interval, int | float)):
        message = f"ack_interval must be seconds or None (never by itself), not {type(ack_interval).__name__}"
        raise TypeError(message)
    for name, value in (("ack_every", ack_every), ("ack_interval", ack_interval)):
        if value is not None and not value > 0:
            message = f"{name} must be more than 0, not {value!r}"
            raise ValueError(message)
