"""The waiting line: who is first holds; the others wait for the one before them. Driver-free.

Nodes: one ephemeral sequential child a contender under the line's path, named as the layout says, with the contender's
identity as data; the path and its parents are containers.

Promises: first come, first served by sequence number; one waiter is woken by one release; a hold is handed out only
when the lease proves it; a contender that goes away leaves nothing.

Source: ZooKeeper's lock recipe, Curator's LockInternals. We differ: create and list travel in one flight; numbers past
2147483647 are ordered by czxid; a listing decides only in the session that made the node; who waited longer than the
lease lasts confirms with a write before it holds.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any, TypeVar

from zkrecipes.calls import Call, Unsettled
from zkrecipes.errors import (
    AcquireTimeoutError,
    ForeignNodeError,
    NodeExistsError,
    NodeNotFoundError,
    TransactionError,
    UnavailableError,
    ZkRecipesError,
)
from zkrecipes.flow import first_of
from zkrecipes.hold import Hold
from zkrecipes.line import Acquired, Decision, Gone, NeedCzxids, WaitOn, WornOut, decide
from zkrecipes.nodes import Nodes
from zkrecipes.paths import LAST_NUMBER
from zkrecipes.patience import Patience, Place, check_cancelled, timed_out
from zkrecipes.port import Check, Children, Exists, Get, Multi

__all__ = ["enter"]

T = TypeVar("T")

logger = logging.getLogger("zkrecipes.contention")

NEARLY_LAST = LAST_NUMBER // 10 * 9
"""Sequence numbers from which on we warn that they will run out."""

# How long the removal of our place is waited for: after a deadline, which the call must not outlive by much, and after
# a cancellation, where there is time.
TIDY_AFTER_DEADLINE = 0.12
TIDY_AFTER_CANCEL = 1.0


async def enter(nodes: Nodes, place: Place, patience: Patience) -> Hold:  # noqa: C901 - each failure has its clean-up
    """Wait in line until we hold it.

    Raises:
        AcquireTimeoutError: Somebody else held it until the deadline.
        UnavailableError: No server answered before the deadline.
        CancelledError: The wait was cancelled.
        ForeignNodeError: The path holds nodes of another recipe or layout.
        AccessDeniedError: The ACL forbids it.
    """
    session = nodes.session
    while True:
        if patience.in_line:
            await _ready(nodes, place, patience)
        else:
            session.check_open(place.label)
            if not session.usable:
                raise session.unavailable(place.label)
        visit = _Visit(nodes, place, patience)
        try:
            hold = await visit.stand()
        except GeneratorExit:
            # Collected half way, in any thread and under any lock: the attempt's finaliser tells the reaper.
            raise
        except Unsettled:
            # Our own deadline, or the connection: what it made is removed in any case, and a new attempt has a new
            # name.
            left_behind = not await visit.leave(TIDY_AFTER_DEADLINE if visit.late else 0.0)
            if visit.late:
                raise _too_late(visit, left_behind=left_behind) from None
        except AcquireTimeoutError as error:
            error.left_behind = not await visit.leave(TIDY_AFTER_DEADLINE)
            raise
        except UnavailableError as error:
            error.left_behind = not await visit.leave(0.0)
            raise
        except BaseException:
            await visit.leave(TIDY_AFTER_CANCEL)
            raise
        else:
            if hold is not None:
                return hold


def _too_late(visit: _Visit, *, left_behind: bool) -> AcquireTimeoutError | UnavailableError:
    session = visit.nodes.session
    if session.usable and visit.blocked_by is not None:
        return timed_out(visit.place, visit.patience, left_behind=left_behind)
    error = session.unavailable(visit.place.label)
    error.left_behind = left_behind
    return error


async def _ready(nodes: Nodes, place: Place, patience: Patience) -> None:
    session = nodes.session
    while not session.usable:
        session.check_open(place.label)
        check_cancelled(place, patience)
        if patience.deadline.passed(nodes.runtime.now()):
            raise session.unavailable(place.label)
        await first_of(session.changed, patience.cancelled, until=patience.deadline.at)
    session.check_open(place.label)
    check_cancelled(place, patience)


class _Visit:
    """One node of ours in the line, from its create until it holds or is gone."""

    def __init__(self, nodes: Nodes, place: Place, patience: Patience) -> None:
        self.nodes = nodes
        self.session = nodes.session
        self.place = place
        self.patience = patience
        self.blocked_by: str | None = None
        self.token = 0
        self.attempt = nodes.attempt(place.path, place.layout.prefix(nodes.runtime.unique()))

    @property
    def late(self) -> bool:
        return self.patience.deadline.passed(self.nodes.runtime.now())

    async def leave(self, seconds: float) -> bool:
        """Remove our node; whether it is gone when this returns. The removal goes on in the background if not."""
        return await self.nodes.remove_within(self.attempt, seconds)

    async def stand(self) -> Hold | None:
        """The hold; None if our node or its session ended, so that the caller joins the line anew."""
        names = await self._join()
        while True:
            try:
                decision = await self._decide(names)
                if self.session.id != self.attempt.session_id or isinstance(decision, Gone):
                    # What was listed in another session decides nothing. Nor does a node that is not there.
                    self.attempt.settle()
                    return None
                if isinstance(decision, Acquired) and self._provable():
                    return self._take()
                names = await self._next_names(decision)
            except Unsettled:
                # The connection ended, but our place in the line is kept while the session lives.
                if self.late:
                    raise
                names = await self._list()

    def _take(self) -> Hold:
        member = self.place.layout.member(self.attempt.name)
        if member is not None and member.number > NEARLY_LAST and self.nodes.warn_once(self.place.path):
            logger.warning(
                "%.0f %% of the sequence numbers under %s are used up; delete the path while nobody uses it",
                100 * member.number / LAST_NUMBER,
                self.place.label,
            )
        hold = self.session.hold(self.attempt.path or "", self.token)
        self.attempt.settle()
        return hold

    async def _next_names(self, decision: Decision) -> list[str]:
        match decision:
            case WaitOn(name):
                self.blocked_by = name
                if not self.patience.in_line:
                    raise timed_out(self.place, self.patience)
                return await self._wait_for(name)
            case WornOut():
                raise self._worn_out()
            case _:
                return await self._confirm()

    # --- joining
    # --------------------------------------------------------------------------------------------------------

    async def _join(self) -> list[str]:
        """Make our node, and list the line in the same flight."""
        created, listed = self._create(), self.session.call(Children(self.place.path))
        # Answers come in order: waiting for the last one of the flight first costs one wake-up, not two.
        await self._settled(listed)
        if not await self._missing_parents(created):
            return await self._joined(created, listed)
        while True:
            # The parents are missing, or were containers that vanished: make them, and ours, in one flight.
            parents = self.nodes.create_parents(self.place.path)
            created = self._create()
            if not await self._missing_parents(created):
                if not created.failed:
                    self.nodes.saw_parents(self.place.path)
                return await self._joined(created, None)
            for parent in parents:
                # One that is not there was left out as seen before, and will not be left out again.
                expected = isinstance(parent.error, NodeExistsError | NodeNotFoundError | Unsettled)
                if parent.error is not None and not expected:
                    self.attempt.settle()
                    raise parent.error

    async def _missing_parents(self, created: Call[Any]) -> bool:
        try:
            await self._answer(created)
        except NodeNotFoundError:
            return True
        except Unsettled:
            return False
        except ZkRecipesError:
            if created.failed and not isinstance(created.error, Unsettled):
                self.attempt.settle()  # refused, not cancelled: it made nothing
            raise
        return False

    def _create(self) -> Call[Any]:
        return self.nodes.create(self.attempt, self.place.data)

    async def _joined(self, created: Call[Any], listed: Call[list[str]] | None) -> list[str]:
        try:
            made = created.result()
        except Unsettled as lost:
            if not lost.written:
                self.attempt.settle()
                raise
            return await self._look_up()
        self.attempt.path = made.path
        self.token = made.stat.czxid
        if listed is not None:
            try:
                return await self._answer(listed)
            except Unsettled:
                return await self._list()
        member = self.place.layout.member(self.attempt.name)
        if member is not None and member.number == 0:
            return [self.attempt.name]  # the first number of this parent: nobody can stand before us
        return await self._list()

    async def _look_up(self) -> list[str]:
        """The reply of the create was lost: find out what became of it, in the same session."""
        while True:
            await self._reconnected()
            if self.session.id != self.attempt.session_id:
                return []
            try:
                name = await self.nodes.find(self.attempt, self.patience.deadline.at, self.patience.cancelled)
                if name is None:
                    return []
                stat = await self._answer(self.session.call(Exists(f"{self.place.path}/{name}")))
                break
            except Unsettled:
                check_cancelled(self.place, self.patience)
                if self.late:
                    raise
        if stat is None or stat.ephemeral_owner != self.attempt.session_id:
            return []  # it is not ours, or not any more
        self.token = stat.czxid
        return await self._list()

    # --- deciding
    # -------------------------------------------------------------------------------------------------------

    async def _decide(self, names: list[str]) -> Decision:
        layout, path = self.place.layout, self.place.path
        decision = decide(self.attempt.name, layout.members(self.place.label, names))
        if not isinstance(decision, NeedCzxids):
            return decision
        calls = [(name, self.session.call(Exists(f"{path}/{name}"))) for name in names]
        czxids: dict[str, int] = {}
        for name, call in calls:
            stat = await self._answer(call)
            if stat is not None:
                czxids[name] = stat.czxid
        return decide(self.attempt.name, layout.members(self.place.label, list(czxids), czxids))

    def _provable(self) -> bool:
        # The next beat is answered within T/6 and a little; a lease that would end before would be lost in health.
        return self.session.lease.until - self.nodes.runtime.now() > self.session.timeout / 4

    async def _confirm(self) -> list[str]:
        """Have the lease proven anew by a write that also checks our node, with a listing in the same flight."""
        names = await self._confirm_and_list()
        if not self._provable():
            # There is no answer yet that is old enough (a session just taken over): a beat later there will be.
            if self.late:
                raise self.session.unavailable(self.place.label)
            beat = self.nodes.runtime.now() + self.session.timeout / 24
            await first_of(self.patience.cancelled, until=min(beat, self.patience.deadline.at))
            check_cancelled(self.place, self.patience)
        return names

    async def _confirm_and_list(self) -> list[str]:
        check = self.session.call(Multi((Check(self.attempt.path or ""),)))
        listed = self.session.call(Children(self.place.path))
        await self._settled(listed)
        try:
            await self._answer(check)
        except TransactionError:
            return []
        return await self._answer(listed)

    # --- waiting
    # --------------------------------------------------------------------------------------------------------

    async def _wait_for(self, name: str) -> list[str]:
        """Wait until the node before us may be gone, then list the line again."""
        before = self.session.call(Get(f"{self.place.path}/{name}", watch=True))
        watch = before.watch or before
        # The watch also tells that the node is gone already, so the answer itself needs no wake-up.
        await first_of(watch, self.session.changed, self.patience.cancelled, until=self.patience.deadline.at)
        check_cancelled(self.place, self.patience)
        if isinstance(before.error, ZkRecipesError) and not isinstance(before.error, NodeNotFoundError):
            raise before.error
        if not watch.done and self.late:
            self.session.withdraw(before)
            if not self.session.usable:
                raise self.session.unavailable(self.place.label)
            raise timed_out(self.place, self.patience)
        return await self._list()

    async def _list(self) -> list[str]:
        """List the line; where the wait has used the lease up, with the proof in the same flight."""
        while True:
            await self._reconnected()
            if self.session.id != self.attempt.session_id:
                return []
            try:
                if not self._provable():
                    return await self._confirm_and_list()
                return await self._answer(self.session.call(Children(self.place.path)))
            except NodeNotFoundError:
                return []
            except Unsettled:
                if self.late:
                    raise

    async def _reconnected(self) -> None:
        await _ready(self.nodes, self.place, self.patience)

    async def _answer(self, call: Call[T]) -> T:
        """The answer, unless the deadline or a cancellation comes first."""
        await self._settled(call)
        return call.result()

    async def _settled(self, call: Call[Any]) -> None:
        """Wait until a call is done; withdraw it at the deadline."""
        if not call.done:
            with suppress(Unsettled, ZkRecipesError):
                await self.session.result(call, self.patience.deadline.at, self.patience.cancelled)
            check_cancelled(self.place, self.patience)

    def _worn_out(self) -> ForeignNodeError:
        message = (
            f"the sequence numbers under {self.place.label} have reached {LAST_NUMBER}, and a contender of another "
            "library stands in the line, which cannot order what comes after. Delete the path while nobody uses it"
        )
        return ForeignNodeError(message, path=self.place.label)
