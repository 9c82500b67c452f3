"""Claims whose fate is unknown, or that nobody holds any more: given back in the background. Driver-free.

A claim's node has the same name whoever makes it, so it must never be deleted for its name alone: only if it holds our
own GUID and belongs to our session, and only together with a check of the version that our claim has made.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Sequence
from typing import final

from zkrecipes.calls import Unsettled
from zkrecipes.core import Core
from zkrecipes.errors import NodeNotFoundError, TransactionError, ZkRecipesError
from zkrecipes.flow import first_of
from zkrecipes.port import Check, Delete, Get, Multi
from zkrecipes.queue_ground import Ground
from zkrecipes.queue_layout import Record, Slot

__all__ = ["Returns", "Want", "visible", "visible_for"]

logger = logging.getLogger("zkrecipes.queue")


@final
class Want:
    """An item that is to be claimed, or has been.

    Attributes:
        slot: Where it stands.
        record: What its node holds, once it is claimed.
        version: Of its node, once it is claimed.
        made: When its node was made, in ms since 1970.
        guid: What the claim's node holds.
    """

    __slots__ = ("guid", "made", "record", "slot", "version")

    def __init__(self, slot: Slot, record: Record, version: int, made: int, guid: str) -> None:
        self.slot = slot
        self.record = record
        self.version = version
        self.made = made
        self.guid = guid


@final
class Returns:
    """What one client gives back of one queue.

    Args:
        core: The client's core.
        ground: Of the queue.
    """

    def __init__(self, core: Core, ground: Ground) -> None:
        self._core = core
        self._session = core.session
        self._ground = ground
        self._label = ground.label

    def give_back(self, wants: Sequence[Want], session_id: int) -> None:
        """Give back what may be claimed, in the background and to the end, or that of the session."""
        if session_id == self._session.id and not self._session.closed:
            what = f"give back an item of {self._label}"
            for want in wants:
                self._core.runtime.spawn(self._give_back(want, session_id), what)

    async def _give_back(self, want: Want, session_id: int) -> None:  # noqa: C901 - each refusal means something else
        session = self._session
        while True:
            try:
                await session.ready(math.inf)
            except ZkRecipesError:
                return  # closed: the session takes the claim with it
            if session.id != session_id:
                return
            # Behind a committed write, so that a claim that is still under way is seen, or refused by the leader.
            proof = session.call(Multi((Check("/"),)), session_id)
            look = session.call(Get(want.slot.claim), session_id)
            try:
                with contextlib.suppress(ZkRecipesError):
                    await session.result(proof, math.inf)
                data, stat = await session.result(look, math.inf)
                if data.split(b" ")[0] != want.guid.split(" ")[0].encode() or stat.ephemeral_owner != session_id:
                    return  # another's
                # With the version, since another's claim of the same name may come between.
                operations = (Check(want.slot.item, want.version), Delete(want.slot.claim), *self._ground.nudge())
                await session.result(session.call(Multi(operations), session_id), math.inf)
            except TransactionError as refused:
                if refused.index == 0 and isinstance(refused.__cause__, NodeNotFoundError):
                    # The item is gone, for ever: its name is never made twice. So nobody else can claim it, either.
                    session.call(Delete(want.slot.claim), session_id)
                return
            except Unsettled:
                await first_of(session.changed, until=self._core.runtime.now() + 0.05)
            except NodeNotFoundError:
                return
            except ZkRecipesError as error:
                logger.debug("A claim of %s is not ours any more: %s", self._label, error)
                return
            else:
                return


def visible(guid: str, seconds: float | None) -> str:
    """What a claim's node holds: whose it is, and for how many milliseconds it counts, if that is limited."""
    return guid if seconds is None else f"{guid} {int(seconds * 1000)}"


def visible_for(data: bytes) -> int | None:
    """For how many milliseconds a claim counts; None if as long as its session lives."""
    _, _, limit = data.partition(b" ")
    return int(limit) if limit.isdigit() else None
