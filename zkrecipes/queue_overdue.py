"""Claims that count for a limited time, by the servers' clock, although their session lives. Driver-free.

A claim's node says for how many milliseconds it counts from its last change. Who finds nothing else to do looks at the
claims, and ends those whose time is over: the item gets a new version, so the late holder's acknowledgement is refused.
The holder itself stops to believe in its claim before that, by its own clock, from the moment before it was sent.
"""

from __future__ import annotations

import logging
import math
from typing import final

from zkrecipes.core import Core
from zkrecipes.errors import NodeNotFoundError, OutcomeUnknownError, TransactionError, ZkRecipesError
from zkrecipes.flow import first_of
from zkrecipes.hold import Hold, LostReason
from zkrecipes.port import Delete, Get, Set, Stat
from zkrecipes.queue_ground import Ground
from zkrecipes.queue_layout import Slot
from zkrecipes.queue_return import visible_for
from zkrecipes.queue_sight import Sight
from zkrecipes.timing import Deadline

__all__ = ["Overdue"]

logger = logging.getLogger("zkrecipes.queue")


@final
class Overdue:
    """Ends claims whose time is over, for one recipe object.

    Args:
        core: The client's core.
        ground: Of the queue.
        view: Which claims there are.
        visibility: Seconds for which our claims count; None for as long as the session lives.
    """

    def __init__(self, core: Core, ground: Ground, view: Sight, visibility: float | None) -> None:
        self._core = core
        self._session = core.session
        self._ground = ground
        self._view = view
        self.visibility = visibility

    def limit(self, hold: Hold, began: float) -> None:
        """Let our own claim, which was not sent before `began`, end in time."""
        if self.visibility is not None:
            hold.until = began + self.visibility * (1 - self._session.drift)
            self._core.runtime.spawn(self._end_in_time(hold), f"end a claim of {self._ground.label}")

    async def _end_in_time(self, hold: Hold) -> None:
        """Tell its holder when the visibility is over."""
        while not hold.released and not hold.over.done and not self._session.closed:
            if self._core.runtime.now() >= hold.until:
                self._session.give_up(hold, LostReason.TIMED_OUT)
                return
            await first_of(hold.over, until=hold.until)

    async def break_(self, deadline: Deadline) -> float:
        """End claims whose visibility is over; minus infinity if there were any, or when the next one may be."""
        slots = self._view.claimed()
        calls = [(slot, self._session.call(Get(slot.claim))) for slot in slots]
        soonest = math.inf
        broken = False
        time = await self._ground.server_time(deadline) if slots else 0
        for slot, call in calls:
            try:
                data, stat = await self._session.result(call, deadline.at)
            except ZkRecipesError:
                continue
            left = _left(data, stat, time)
            if left > 0:
                soonest = min(soonest, self._core.runtime.now() + left / 1000)
                continue
            broken = await self._break(slot, time, deadline) or broken
        return -math.inf if broken else soonest

    async def _break(self, slot: Slot, time: int, deadline: Deadline) -> bool:
        # The item first: a claim that is read behind it, and that the item's version then still belongs to, is the one
        # that is ended. Somebody else may have ended the one that we saw, and taken the item: its node looks the same.
        item, claim = self._session.call(Get(slot.item)), self._session.call(Get(slot.claim))
        try:
            data, stat = await self._session.result(item, deadline.at)
            claimed, claim_stat = await self._session.result(claim, deadline.at)
            if _left(claimed, claim_stat, time) > 0:
                return False
            # The item's new version takes the claim from its holder; the claim's says that it was not extended.
            ends = (Set(slot.item, data, stat.version), Delete(slot.claim, claim_stat.version))
            await self._ground.marks.commit((*ends, *self._ground.nudge()), deadline)
        except (TransactionError, NodeNotFoundError, OutcomeUnknownError) as error:
            logger.debug("The claim %s is over, or was extended: %s", slot.claim, error)
            return False
        return True


def _left(data: bytes, stat: Stat, time: int) -> float:
    """For how many milliseconds a claim still counts; infinite if as long as its session lives."""
    limit = visible_for(data)
    return math.inf if limit is None else stat.mtime + limit - time
