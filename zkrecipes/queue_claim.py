"""What becomes of a claimed item: acknowledged, given back, moved, or a dead letter. Driver-free.

A claim is an ephemeral node beside the item, made in one transaction with a new version of the item, which nobody else
can have made: that version is the claim's identity. All that is done with the claim checks it, so a late
acknowledgement never touches another's item or claim. Lost replies are settled by marks (marks.py).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, final

from zkrecipes.core import Core
from zkrecipes.errors import (
    ClaimLostError,
    ClosedError,
    NodeNotFoundError,
    OutcomeUnknownError,
    TransactionError,
    ZkRecipesError,
)
from zkrecipes.hold import Grip, LostReason
from zkrecipes.marks import Committed, Operation
from zkrecipes.port import Check, Create, Delete, Set
from zkrecipes.queue_layout import Record, Slot, place_of
from zkrecipes.queue_return import Returns, Want, visible
from zkrecipes.timing import Deadline

if TYPE_CHECKING:
    from zkrecipes.queue_ground import Ground
    from zkrecipes.queue_put import Putter

__all__ = ["Claims", "Held", "error_text"]

logger = logging.getLogger("zkrecipes.queue")

RELEASE_LIMIT: Final = 1.0
"""Seconds for which a release waits for its reply; after that the background goes on with it."""

LONGEST_ERROR: Final = 1000

TOGETHER: Final = 200
"""Claims that one transaction acknowledges."""


@final
class Held:
    """One claim of ours.

    Attributes:
        want: The item.
        grip: The user's grip on it.
        settling: While its end is on its way to the server.
    """

    __slots__ = ("grip", "settling", "want")

    def __init__(self, want: Want, grip: Grip) -> None:
        self.want = want
        self.grip = grip
        self.settling = False

    @property
    def record(self) -> Record:
        """The item."""
        return self.want.record


@final
class Claims:
    """The ends of claims, for one recipe object.

    Args:
        core: The client's core.
        ground: Of the queue.
        putter: Places what is moved.
        max_attempts: After so many, a failed item is a dead letter; None for never.
        returned: Told of each item that is back in its place.
    """

    def __init__(
        self,
        core: Core,
        ground: Ground,
        putter: Putter[Any],
        max_attempts: int | None,
        returned: Callable[[Slot], None] = lambda _slot: None,
    ) -> None:
        self._core = core
        self._session = core.session
        self._ground = ground
        self._putter = putter
        self.returns = Returns(core, ground)
        self.max_attempts = max_attempts
        self._returned = returned

    # --- acknowledging ------------------------------------------------------------------------------------------------

    async def acknowledge(self, claims: Sequence[Held], deadline: Deadline) -> list[Exception | None]:
        """Delete the items, all in one transaction as far as they are still ours; what became of each.

        An UnavailableError leaves its claim as it is: it can be tried again while it is held.
        """
        results: dict[int, Exception | None] = {}
        open_ = []
        for held in claims:
            try:
                self._begin(held)
            except ZkRecipesError as error:
                results[id(held)] = error
            else:
                open_.append(held)
        try:
            for start in range(0, len(open_), TOGETHER):
                await self._acknowledge(open_[start : start + TOGETHER], results, deadline)
        finally:
            for held in open_:
                if held.settling:  # interrupted: it may have been acknowledged, or not
                    self._abandon(held)
        return [results[id(held)] for held in claims]

    async def _acknowledge(self, claims: list[Held], results: dict[int, Exception | None], deadline: Deadline) -> None:
        while claims:
            operations: list[Operation] = []
            for held in claims:
                operations += self._ends(held.want)
            ends = len(operations)
            operations += next(filter(None, (self._following(held.want) for held in claims)), ())
            try:
                await self._commit(operations, deadline)
            except TransactionError as refused:
                if not 0 <= refused.index < ends:
                    self._fail(claims, results, refused)
                    return
                # The one that is refused is not ours any more; the others may still be.
                held = claims.pop(refused.index // 2)
                results[id(held)] = self._lost(held, refused)
            except ZkRecipesError as error:
                self._fail(claims, results, error)
                return
            else:
                for held in claims:
                    self._end(held)
                    results[id(held)] = None
                return

    def _fail(self, claims: Sequence[Held], results: dict[int, Exception | None], error: ZkRecipesError) -> None:
        for held in claims:
            results[id(held)] = error
            if isinstance(error, OutcomeUnknownError):
                self._abandon(held)
            else:
                self._resume(held)

    # --- giving back --------------------------------------------------------------------------------------------------

    async def give_up(self, held: Held, delay: float, error: str, deadline: Deadline) -> None:
        """The attempt has failed: back into its place, or later, or a dead letter.

        Raises:
            ClaimLostError: The claim had been lost; nothing was changed.
            UnavailableError: No server answered in time. It is given back in the background, as it was.
            OutcomeUnknownError: It may have been given back.
        """
        self._begin(held)
        # From here on others may have it, before the answer comes: it is not ours any more, whatever that says.
        held.grip.hold.released = True
        try:
            await self._give_up(held, delay, error, deadline)
        except TransactionError as refused:
            raise self._lost(held, refused) from refused
        else:
            self._end(held)
        finally:
            if held.settling:
                self._abandon(held)

    async def _give_up(self, held: Held, delay: float, error: str, deadline: Deadline) -> None:
        want, record = held.want, held.record.with_(error=error)
        if self.max_attempts is not None and record.attempts >= self.max_attempts:
            await self._commit((*self._ends(want), *self._bury(want, record), *self._following(want)), deadline)
            return
        if delay <= 0:
            await self._commit(self._returns(want, record), deadline)
            self._returned(want.slot)
            return
        due = want.made + record.delay
        moved = record.with_(
            delay=math.ceil(delay * 1000),
            place=record.place or place_of(due, want.slot.name.sequence),
            born=record.born or want.made,
            rest=(),
        )
        while True:
            placed = [await self._putter.place(moved, deadline)]
            operations_ = self._putter.operations(placed, self._ends(want))
            try:
                committed = await self._commit(operations_, deadline)
            except TransactionError as refused:
                operation = operations_[refused.index] if 0 <= refused.index < len(operations_) else None
                if operation in self._ends(want):
                    raise
                await self._putter.refused(placed, operation, refused, deadline)
                if deadline.passed(self._core.runtime.now()):
                    raise self._session.unavailable(self._ground.label) from refused
            else:
                self._putter.stored(placed, committed, len(operations_) - 1)
                return

    def _returns(self, want: Want, record: Record) -> tuple[Operation, ...]:
        data = self._ground.packed(record, want.slot)
        return Set(want.slot.item, data, want.version), Delete(want.slot.claim), *self._ground.nudge()

    def _ends(self, want: Want) -> tuple[Operation, ...]:
        return self._ground.end(want.slot, want.version, want.record), Delete(want.slot.claim)

    def _following(self, want: Want) -> tuple[Operation, ...]:
        """What tells that the next item of the same node is free."""
        return self._ground.nudge() if want.record.rest else ()

    def _bury(self, want: Want, record: Record) -> tuple[Operation, ...]:
        dead = record.with_(
            delay=0,
            place=0,
            born=record.born or want.made,
            dead_at=self._core.server_time.at_least() or want.made,
        )
        path = f"{self._ground.branch('dead')}/{record.id}-"
        return (Create(path, dead.pack(), sequential=True, acl=self._core.nodes.acl),)

    async def bury(self, want: Want, deadline: Deadline) -> None:
        """An item whose attempts are used up, and which nobody has claimed, becomes a dead letter.

        Raises:
            TransactionError: Somebody else did something with it.
        """
        error = want.record.error or "its consumers ended without acknowledging it or giving it back"
        record = want.record.with_(error=error)
        # Refused if there is a claim: the listing may be older than the last attempt, which somebody is at. Nothing
        # else can tell a server that a node must not exist.
        alone = (Create(want.slot.claim, acl=self._core.nodes.acl), Delete(want.slot.claim))
        end = self._ground.end(want.slot, want.version, want.record)
        operations = (*alone, end, *self._bury(want, record), *self._following(want))
        await self._commit(operations, deadline)
        logger.warning("The item %s of %s is a dead letter now: %s", record.id, self._ground.label, error)

    async def let_go(self, held: Held) -> None:
        """Give it back as if it had not been claimed; what cannot be sent now is done in the background."""
        hold = held.grip.hold
        hold.released = True
        self._session.drop_hold(hold)
        if held.settling:
            return  # whoever ends it at this moment answers for it
        if hold.session_id != self._session.id or self._session.closed:
            return  # it ended with its session
        if held.grip.lost_reason is None and self._session.usable:
            deadline = Deadline.after(RELEASE_LIMIT, self._core.runtime.now())
            want = held.want
            record = want.record.with_(attempts=want.record.attempts - 1)
            try:
                await self._commit(self._returns(want, record), deadline)
                self._returned(want.slot)
            except TransactionError:
                return
            except GeneratorExit:
                raise
            except ZkRecipesError:
                self.returns.give_back([want], hold.session_id)
            except BaseException:
                self.returns.give_back([want], hold.session_id)
                raise
        else:
            self.returns.give_back([held.want], hold.session_id)

    async def extend(self, held: Held, seconds: float, deadline: Deadline) -> None:
        """Let a claim end so many seconds from now, at the earliest.

        Raises:
            ValueError: It has no visibility timeout.
            ClaimLostError: It was lost.
        """
        self.check(held)
        hold, want = held.grip.hold, held.want
        if hold.until == math.inf:
            message = f"{self._ground.label} has no visibility timeout: a claim lives as long as its session"
            raise ValueError(message)
        before = self._core.runtime.now()
        want.guid = visible(want.guid.partition(" ")[0], seconds)
        operations = (Check(want.slot.item, want.version), Set(want.slot.claim, want.guid.encode()))
        try:
            await self._commit(operations, deadline)
        except TransactionError as refused:
            raise self._lost(held, refused) from refused
        hold.until = before + seconds * (1 - self._session.drift)

    # --- states of a claim --------------------------------------------------------------------------------------------

    def check(self, held: Held) -> None:
        """Raise unless it is held.

        Raises:
            ClaimLostError: It was lost.
            ClosedError: It was acknowledged or given back before.
        """
        reason = held.grip.reason
        if reason is not None:
            raise self.lost_error(held, reason)
        if held.grip.released or held.settling:
            message = f"the claim on item {held.record.id} of {self._ground.label} was ended before; take the next one"
            raise ClosedError(message, path=self._ground.label)

    def _begin(self, held: Held) -> None:
        self.check(held)
        held.settling = True
        # The heartbeat must not find its item deleted by ourselves.
        self._session.drop_hold(held.grip.hold)

    def _resume(self, held: Held) -> None:
        """Nothing was applied: it is held as before."""
        held.settling = False
        hold = held.grip.hold
        if not hold.released and hold.reason is None and hold.session_id == self._session.id:
            self._session.holds[hold.path] = hold
        elif hold.reason is not None:
            hold.end(hold.reason)
            self.returns.give_back([held.want], hold.session_id)
        else:
            self.returns.give_back([held.want], hold.session_id)

    def _end(self, held: Held) -> None:
        held.settling = False
        held.grip.finish()
        held.grip.hold.released = True

    def _abandon(self, held: Held) -> None:
        """Nobody knows what became of it: if it is still ours, others shall have it."""
        self._end(held)
        self.returns.give_back([held.want], held.grip.hold.session_id)

    def _lost(self, held: Held, refused: TransactionError) -> ClaimLostError:
        held.settling = False
        hold = held.grip.hold
        hold.end(LostReason.NODE_DELETED)
        logger.debug("A claim of %s was lost: %s", self._ground.label, refused)
        return self.lost_error(held, hold.ended or LostReason.NODE_DELETED)

    def lost_error(self, held: Held, reason: LostReason) -> ClaimLostError:
        """The error of a claim that was lost."""
        message = (
            f"the claim on item {held.record.id} of {self._ground.label} (token {held.grip.token}) was lost: "
            f"{reason.value}. Somebody else does it, or has done it"
        )
        return ClaimLostError(message, path=self._ground.label, reason=reason)

    async def _commit(self, operations: Sequence[Operation], deadline: Deadline) -> Committed:
        while True:
            try:
                return await self._ground.marks.commit(operations, deadline)
            except NodeNotFoundError:
                # The parent of the marks: somebody has deleted it.
                self._ground.forget()
                await self._ground.ready(deadline)
                if deadline.passed(self._core.runtime.now()):
                    raise self._session.unavailable(self._ground.label) from None


def error_text(error: BaseException | str | None) -> str:
    """What is kept of an error."""
    if error is None:
        return ""
    text = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    return text if len(text) <= LONGEST_ERROR else f"{text[: LONGEST_ERROR - 1]}…"
