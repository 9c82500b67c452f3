"""Who reads a durable subscription, and the position that is stored for it. Driver-free.

One reader at a time: they stand in a line of lock nodes. The position is written in a multi that checks the owner's
node, so a reader that has lost the subscription cannot move the position under the next one.

Nodes: `<topic>/subs/<name>`, persistent, the position as data; `<topic>/subs/<name>/owner`, the line.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from typing import Final, final

from zkrecipes.calls import Unsettled
from zkrecipes.contention import enter
from zkrecipes.errors import (
    AcquireTimeoutError,
    CancelledError,
    ClaimLostError,
    ClosedError,
    NodeNotFoundError,
    OutcomeUnknownError,
    SubscriptionBusyError,
    TransactionError,
    UnavailableError,
)
from zkrecipes.flow import Pending, Wait
from zkrecipes.hold import Hold, LostReason
from zkrecipes.layouts import CURATOR_LOCK
from zkrecipes.patience import Patience, Place
from zkrecipes.port import Check, Create, Get, Multi, Set
from zkrecipes.roots import ensure
from zkrecipes.timing import Deadline
from zkrecipes.topic_layout import FIRST, Position, Stored, encode_stored
from zkrecipes.topic_log import Log

__all__ = ["Owner"]

logger = logging.getLogger("zkrecipes.pubsub")

RELEASE_LIMIT: Final = 1.0
"""Seconds for which a release waits for its reply; after that the background goes on with it."""


@final
class Owner:
    """One reader's claim to a durable subscription.

    Args:
        log: The topic.
        name: Of the subscription.
        start: Finds the position at which a new subscription begins.
        closed: Done when nobody reads any more.
    """

    def __init__(
        self,
        log: Log,
        name: str,
        start: Callable[[Deadline], Coroutine[Wait, None, Position]],
        closed: Pending[None],
    ) -> None:
        self.stored = FIRST
        self._log = log
        self._name = name
        self._start = start
        self._closed = closed
        self._hold: Hold | None = None

    @property
    def valid(self) -> bool:
        """Whether we can prove that we own it."""
        return self._hold is not None and self._hold.valid

    @property
    def over(self) -> Pending[LostReason] | None:
        """Done when it is lost."""
        return None if self._hold is None else self._hold.over

    def tell_lost(self) -> None:
        """Put it into the log that it was lost, and forget it."""
        hold, self._hold = self._hold, None
        if hold is not None:
            logger.warning(
                "The subscription %r of %s was lost (%s); it is taken up again at its stored position",
                self._name,
                self._log.label,
                "given up" if hold.reason is None else hold.reason.value,
            )

    async def release(self) -> None:
        """Give it up."""
        hold, self._hold = self._hold, None
        if hold is not None:
            await self._log.core.nodes.release(hold, RELEASE_LIMIT)

    async def own(self, deadline: Deadline) -> Position:
        """Stand in line for the subscription; its position.

        Raises:
            SubscriptionBusyError: Another reader had it until the deadline.
            UnavailableError: No server answered in time.
        """
        core, places = self._log.core, self._log.places
        await self._log.open(deadline)
        # Before the line, which would make its parent as a container, and that goes with the last reader.
        await ensure(core, (places.sub(self._name),), self._log.label, deadline)
        identity = core.identity.encode("utf-8", "replace")
        place = Place(places.owner(self._name), self._log.label, CURATOR_LOCK, identity)
        try:
            hold = await enter(core.nodes, place, Patience(deadline, deadline.timeout > 0, self._closed))
        except AcquireTimeoutError as error:
            raise self.busy(deadline, left_behind=error.left_behind) from error
        except CancelledError:
            raise self._closed_error() from None
        try:
            position = await self._position(hold, deadline)
            if self._closed.done:
                raise self._closed_error()
        except GeneratorExit:
            raise
        except BaseException:
            core.runtime.spawn(core.nodes.release(hold, RELEASE_LIMIT), f"release {self._name}")
            raise
        self._hold, self.stored = hold, position
        return position

    def busy(self, deadline: Deadline, *, left_behind: bool = False) -> SubscriptionBusyError:
        """The error for a deadline that came before we owned it."""
        message = (
            f"the subscription {self._name!r} of {self._log.label} was read by another until the timeout of "
            f"{deadline.timeout:g} s. A durable subscription has one reader at a time: give this one another name, "
            "or more time to stand by"
        )
        return SubscriptionBusyError(message, path=self._log.label, timeout=deadline.timeout, left_behind=left_behind)

    def _closed_error(self) -> ClosedError:
        message = f"the subscription {self._name!r} of {self._log.label} is closed; subscribe again"
        return ClosedError(message, path=self._log.label)

    async def _position(self, hold: Hold, deadline: Deadline) -> Position:
        core, session = self._log.core, self._log.core.session
        while True:
            await session.ready(deadline.at, self._log.label)
            # In one flight, on one connection: a server that lags shows what the last owner has stored once it has
            # answered a write of ours.
            proof = session.call(Multi((Check(hold.path),)), hold.session_id)
            look = session.call(Get(self._log.places.sub(self._name)), hold.session_id)
            try:
                await session.result(proof, deadline.at)
                data, _ = await session.result(look, deadline.at)
                break
            except TransactionError:
                raise self.lost() from None
            except Unsettled:
                if not hold.valid:
                    raise self.lost() from None
                if deadline.passed(core.runtime.now()):
                    raise session.unavailable(self._log.label) from None
        if data:
            return Stored.decode(data, f"{self._log.label}/subs/{self._name}").position
        # It is new. Where it begins is stored, so that it is the same after a crash.
        position = await self._start(deadline)
        await self._write(hold, position, deadline)
        return position

    async def store(self, position: Position, deadline: Deadline) -> None:
        """Store a position, as the owner.

        Raises:
            ClaimLostError: We do not own it any more; nothing was stored.
            OutcomeUnknownError: It was sent, and the ownership, or the time, ended before the answer came.
            UnavailableError: No server answered in time; nothing was stored.
        """
        hold = self._hold
        if hold is None:
            raise self.lost()
        await self._write(hold, position, deadline)
        if self._hold is hold:
            self.stored = position

    async def _write(self, hold: Hold, position: Position, deadline: Deadline) -> None:
        """Said again it does no harm, as long as we own it: nobody else writes it."""
        core, session = self._log.core, self._log.core.session
        node, data = self._log.places.sub(self._name), encode_stored(position, core.identity)
        write: Set | Create = Set(node, data)
        sent = False
        while True:
            if not hold.valid:
                raise self._unknown() if sent else self.lost()
            try:
                await session.ready(deadline.at, self._log.label)
                await session.result(session.call(Multi((Check(hold.path), write)), hold.session_id), deadline.at)
            except TransactionError as refused:
                if not isinstance(refused.__cause__, NodeNotFoundError):
                    raise refused.__cause__ or refused from None
                if refused.index == 0:
                    session.give_up(hold, LostReason.NODE_DELETED)  # at once, not with the next heartbeat
                    raise (self._unknown() if sent else self.lost()) from refused
                write = Create(node, data, acl=core.nodes.acl)  # somebody has deleted it under us
            except UnavailableError:
                raise (self._unknown() if sent else session.unavailable(self._log.label)) from None
            except Unsettled as lost:
                sent = sent or lost.written
                if deadline.passed(core.runtime.now()):
                    raise (self._unknown() if sent else session.unavailable(self._log.label)) from None
            else:
                return

    def lost(self) -> ClaimLostError:
        """The error for whoever acknowledges what is not his any more."""
        message = (
            f"the subscription {self._name!r} of {self._log.label} was lost since the message was handed out: it is "
            "not acknowledged, and comes again"
        )
        return ClaimLostError(message, path=self._log.label, reason=None if self._hold is None else self._hold.reason)

    def _unknown(self) -> OutcomeUnknownError:
        message = (
            f"the reply to an acknowledgement at {self._log.label} was lost: the message may be acknowledged, or come "
            f"again to whoever reads {self._name!r} next"
        )
        return OutcomeUnknownError(message, path=self._log.label)
