"""How items are claimed: look, read, and one transaction for all that are wanted. Driver-free.

The transaction raises each item's attempts and makes an ephemeral node beside it. It is refused as a whole if one of
them is not free any more; that one is left out, and the others are tried again. A claim whose fate is unknown is given
back in the background, or ends with its session.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, NamedTuple, final

from zkrecipes.calls import Unsettled
from zkrecipes.core import Core
from zkrecipes.errors import (
    AcquireTimeoutError,
    CancelledError,
    ConflictError,
    DecodeError,
    NodeExistsError,
    NodeNotFoundError,
    OutcomeUnknownError,
    TransactionError,
    UnavailableError,
    ZkRecipesError,
)
from zkrecipes.flow import Pending, first_of
from zkrecipes.hold import Grip, Hold
from zkrecipes.marks import Committed, Operation
from zkrecipes.patience import Patience
from zkrecipes.port import Children, Create, Kind, Set, Stat
from zkrecipes.queue_claim import Claims, Held
from zkrecipes.queue_ground import Ground
from zkrecipes.queue_layout import Slot
from zkrecipes.queue_overdue import Overdue
from zkrecipes.queue_reads import Reads
from zkrecipes.queue_return import Want, visible
from zkrecipes.queue_sight import Reservation, Sight
from zkrecipes.sizes import MAX_REQUEST

__all__ = ["Taker"]

logger = logging.getLogger("zkrecipes.queue")

MAX_TOGETHER: Final = 500
"""Items that one transaction claims, at most."""

LOCAL_LOOK: Final = 1.0
"""Seconds between two looks, without a request, while another taker of this process has reserved something."""

ONE_BEAT: Final = 24

FAST_FAILURES: Final = 3
LONGEST_PAUSE: Final = 0.2
"""Claims in a row that may fail without a pause; and seconds of the pauses from then on, at most."""

FRESH: Final = 1.0
"""Seconds for which an item that was read ahead is probably as it was."""


@final
class _Unsure:
    """Claims that are on their way. If it is collected unsettled, they are given back."""

    __slots__ = ("__weakref__",)


class _Ahead(NamedTuple):
    """Items that were read before anybody asked for them."""

    slots: list[Slot]
    reads: Reads
    asked_at: float


@final
class Taker:
    """Takes of one recipe object.

    Args:
        core: The client's core.
        ground: Of the queue.
        view: Of the queue; shared by the takers of this client.
        claims: How claims end.
        report: Told of what cannot be served: its path, and why.
        overdue: Ends claims whose visibility is over.
    """

    def __init__(  # noqa: PLR0917 - the parts of a queue
        self,
        core: Core,
        ground: Ground,
        view: Sight,
        claims: Claims,
        report: Callable[[str, Exception], None],
        overdue: Overdue,
    ) -> None:
        self._core = core
        self._session = core.session
        self._ground = ground
        self._view = view
        self._claims = claims
        self._report = report
        self._overdue = overdue
        self._ahead: _Ahead | None = None

    async def take(self, want: int, patience: Patience) -> list[Held]:
        """Claim up to so many items; one at least.

        Raises:
            AcquireTimeoutError: None was free until the deadline.
            UnavailableError: No server answered before the deadline.
            CancelledError: The wait was cancelled.
        """
        want = min(want, MAX_TOGETHER)
        failures = 0
        while True:
            await self._ready(patience)
            try:
                reservation = await self._reserve(want, patience)
                failures = failures + 1 if reservation is not None and reservation.slots else 0
                held = await self._claim(reservation, patience) if reservation is not None else []
            except Unsettled:
                if self._late(patience):
                    raise self._too_late(patience) from None
                await first_of(self._session.changed, until=self._core.runtime.now() + 0.05)
                continue
            if held:
                return held
            if self._late(patience) or (not patience.in_line and reservation is None):
                raise self._too_late(patience)
            if failures > FAST_FAILURES:
                # Others are faster; or this server is behind the leader, and shows what is gone.
                pause = min(0.001 * 2 ** (failures - FAST_FAILURES), LONGEST_PAUSE) * self._core.runtime.random()
                until = min(patience.deadline.at, self._core.runtime.now() + pause)
                await first_of(patience.cancelled, until=until)

    # --- waiting ------------------------------------------------------------------------------------------------------

    def _late(self, patience: Patience) -> bool:
        return patience.deadline.passed(self._core.runtime.now())

    def _too_late(self, patience: Patience) -> AcquireTimeoutError | UnavailableError:
        label = self._ground.label
        if not self._view.looked or not self._session.usable:
            return self._session.unavailable(label)
        timeout = patience.deadline.timeout
        return AcquireTimeoutError(f"no item of {label} was free after {timeout:g} s", path=label, timeout=timeout)

    async def _ready(self, patience: Patience) -> None:
        self._session.check_open(self._ground.label)
        self._check_cancelled(patience)
        while not self._session.usable:
            if not patience.in_line or self._late(patience):
                raise self._session.unavailable(self._ground.label)
            await first_of(self._session.changed, patience.cancelled, until=patience.deadline.at)
            self._session.check_open(self._ground.label)
            self._check_cancelled(patience)

    def _check_cancelled(self, patience: Patience) -> None:
        if patience.cancelled.done:
            message = f"the wait for an item of {self._ground.label} was cancelled"
            raise CancelledError(message, path=self._ground.label)

    async def _reserve(self, want: int, patience: Patience) -> Reservation | None:
        """Reserve free items; None after a wait, or if the caller does not wait."""
        turn = self._view.turn
        if turn is not None and not turn.done:
            # One taker of a process looks at a time; the others find what it has seen.
            await first_of(turn, patience.cancelled, until=patience.deadline.at)
            return Reservation() if not self._late(patience) else None
        mine: Pending[None] = Pending()
        self._view.turn = mine
        try:
            reservation = await self._view.look(want, patience.deadline)
            overdue = math.inf
            if not reservation.slots and self._overdue.visibility is not None:
                overdue = await self._overdue.break_(patience.deadline)
                if overdue == -math.inf:
                    return Reservation()
            if reservation.slots or not patience.in_line:
                return reservation if reservation.slots else None
            until = min(patience.deadline.at, self._view.wake_at, overdue)
            if self._view.contended:
                until = min(until, self._core.runtime.now() + LOCAL_LOOK)
            await first_of(*self._view.watches(), patience.cancelled, until=until)
        finally:
            mine.resolve(None)
        return Reservation()

    # --- claiming -----------------------------------------------------------------------------------------------------

    async def _claim(self, reservation: Reservation, patience: Patience) -> list[Held]:
        if not reservation.slots:
            return []
        try:
            wants = await self._read(reservation, patience)
            return await self._commit(reservation, wants, patience)
        except GeneratorExit:
            raise
        except BaseException:
            self._view.release(reservation)
            raise

    async def _read(self, reservation: Reservation, patience: Patience) -> list[Want]:
        slots = tuple(reservation.slots)
        guid = visible(self._core.runtime.unique(), self._overdue.visibility)
        wants: list[Want] = []
        size = 0
        for slot, answer in zip(slots, await self._nodes(slots, patience), strict=True):
            if isinstance(answer, NodeNotFoundError):
                self._view.drop(reservation, slot)  # acknowledged since
                continue
            if isinstance(answer, ZkRecipesError):
                raise answer
            size += len(answer[0]) + 1000
            if wants and size > MAX_REQUEST:
                self._view.put_back(reservation, slot)
                continue
            want = await self._checked(reservation, slot, answer, guid, patience)
            if want is not None:
                wants.append(want)
        return wants

    async def _nodes(self, slots: Sequence[Slot], patience: Patience) -> list[Any]:
        """Data and Stat of each, or the error of its refusal."""
        until, now = patience.deadline.at, self._core.runtime.now()
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead.slots[: len(slots)] == [*slots] and now - ahead.asked_at < FRESH:
            # Read with the claim before: what has changed since has another version, and the claim is refused.
            with contextlib.suppress(Unsettled):
                return (await ahead.reads.results(until))[: len(slots)]
        return await Reads(self._session, slots).results(until)

    def _read_ahead(self, count: int) -> None:
        """Ask for what is claimed next, in the flight of this claim."""
        slots = self._view.following(count)
        self._ahead = _Ahead(slots, Reads(self._session, slots), self._core.runtime.now()) if slots else None

    async def _checked(
        self, reservation: Reservation, slot: Slot, node: tuple[bytes, Stat], guid: str, patience: Patience
    ) -> Want | None:
        data, stat = node
        try:
            record = self._ground.read(slot, data, stat)
        except DecodeError as error:
            self._report(slot.item, error)
            self._view.skip(reservation, slot)
            return None
        if slot.name.due:
            # The node's own time decides: a name says what the host that put it took for the time.
            due = stat.ctime + record.delay
            time = self._core.server_time.at_least()
            if time is None or time < due:
                self._view.not_due(reservation, slot, due)
                return None
        want = Want(slot, record, stat.version, stat.ctime, guid)
        if self._claims.max_attempts is not None and record.attempts >= self._claims.max_attempts:
            self._view.drop(reservation, slot)
            try:
                await self._claims.bury(want, patience.deadline)
            except (TransactionError, OutcomeUnknownError) as error:
                # Somebody else buries, or claims it; or it may be buried: the next look tells.
                logger.debug("%s was not buried, or may be: %s", slot.item, error)
            return None
        return want

    async def _commit(self, reservation: Reservation, wants: list[Want], patience: Patience) -> list[Held]:
        first_try = True
        while wants:
            began = self._core.runtime.now()
            operations: list[Operation] = []
            claimed = []
            for want in wants:
                record = want.record.with_(attempts=want.record.attempts + 1)
                claimed.append(Want(want.slot, record, want.version + 1, want.made, want.guid))
                operations += (
                    Set(want.slot.item, self._ground.packed(record, want.slot), want.version),
                    Create(want.slot.claim, want.guid.encode(), Kind.EPHEMERAL, acl=self._core.nodes.acl),
                )
            try:
                committed = await self._commit_once(operations, claimed, patience)
            except TransactionError as refused:
                if not 0 <= refused.index < len(operations):
                    raise
                await self._leave_out(reservation, wants, refused, patience)
                first_try = False
                continue
            if committed is None:
                self._view.release(reservation)
                return []
            for want in wants:
                self._view.drop(reservation, want.slot)
            if first_try:
                self._view.won()
            self._view.release(reservation)
            return [self._held(want, committed, began) for want in claimed]
        self._view.release(reservation)
        return []

    async def _commit_once(
        self, operations: list[Operation], claimed: list[Want], patience: Patience
    ) -> Committed | None:
        """Claim them; None if they are not ours, after all."""
        unsure = _Unsure()
        # Whatever happens to the caller from here on: what was claimed and has no handle is given back.
        grip = self._grip_on(claimed, unsure)
        try:
            committed = await self._ground.marks.commit(
                operations, patience.deadline, partial(self._read_ahead, len(claimed))
            )
            while not self._provable() and self._session.id == committed.session_id:
                # A session that was just taken over: a beat later the lease can be proven, or never.
                beat = self._core.runtime.now() + self._session.timeout / ONE_BEAT
                await first_of(patience.cancelled, until=min(beat, patience.deadline.at))
                self._check_cancelled(patience)
                await self._ground.marks.time(patience.deadline)
        except (TransactionError, NodeNotFoundError) as refused:
            grip.finish()
            if isinstance(refused, TransactionError):
                raise
            self._ground.forget()
            return None
        except OutcomeUnknownError:
            grip.finish()
            self._claims.returns.give_back(claimed, self._session.id)
            return None
        except GeneratorExit:
            raise
        except BaseException:
            grip.finish()
            self._claims.returns.give_back(claimed, self._session.id)
            raise
        grip.finish()
        if self._session.id != committed.session_id:
            return None  # they ended with their session
        return committed

    def _grip_on(self, claimed: list[Want], unsure: _Unsure) -> Grip:
        hold = Hold(self._core.runtime, self._session.lease, self._session.id, self._ground.path, 0)

        async def let_go(_grip: Grip) -> None:
            self._claims.returns.give_back(claimed, self._session.id)

        grip = Grip(self._core.runtime, hold, let_go)
        self._core.nodes.look_after(unsure, grip)
        return grip

    def _provable(self) -> bool:
        return self._session.lease.until - self._core.runtime.now() > self._session.timeout / 4

    async def _leave_out(
        self, reservation: Reservation, wants: list[Want], refused: TransactionError, patience: Patience
    ) -> None:
        """One of them is not free any more. With it leave out what else others have claimed by now."""
        if isinstance(refused.__cause__, ZkRecipesError) and not _is_race(refused):
            raise refused.__cause__
        self._view.lost(reservation, wants.pop(refused.index // 2).slot)
        if not wants:
            return
        parents = dict.fromkeys(want.slot.claim.rpartition("/")[0] for want in wants)
        calls = [(parent, self._session.call(Children(parent))) for parent in parents]
        claimed: dict[str, bool] = {}
        for parent, call in calls:
            try:
                names = await self._session.result(call, patience.deadline.at)
            except NodeNotFoundError:
                continue
            claimed.update((f"{parent}/{name}", True) for name in names)
        for want in tuple(wants):
            if want.slot.claim in claimed:
                wants.remove(want)
                self._view.lost(reservation, want.slot)

    def _held(self, want: Want, committed: Committed, began: float) -> Held:
        hold = self._session.hold(want.slot.item, committed.zxid, want.version)
        if self._overdue.visibility is not None:
            self._overdue.limit(hold, began)
        hold.undo = lambda: self._claims.returns.give_back([want], hold.session_id)
        held: Held

        async def let_go(_grip: Grip) -> None:
            await self._claims.let_go(held)

        held = Held(want, Grip(self._core.runtime, hold, let_go))
        return held


def _is_race(refused: TransactionError) -> bool:
    return isinstance(refused.__cause__, ConflictError | NodeExistsError | NodeNotFoundError)
