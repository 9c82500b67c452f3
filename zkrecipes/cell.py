"""One node whose data is replaced, each time exactly once. Driver-free.

Counters and shared values stand on it. Each write goes with a mark (marks.py), so that a lost reply can be settled. One
that names the version it replaces is settled even after the session's end, where nobody has written since: behind a
committed write of the new session, the node is seen in the same version, so the old write was never applied, and never
will be.

Nodes: `<path>`, persistent, as are its parents; below it the marks of those who write.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import final

from zkrecipes.calls import Unsettled
from zkrecipes.core import Core, DefaultTimeout
from zkrecipes.counter_layouts import BEFORE_ANY
from zkrecipes.errors import (
    ConflictError,
    NodeExistsError,
    NodeNotFoundError,
    OutcomeUnknownError,
    TransactionError,
    UnavailableError,
    ZkRecipesError,
)
from zkrecipes.flow import first_of
from zkrecipes.marks import PAUSE, marks_of
from zkrecipes.paths import ancestors
from zkrecipes.patience import ONE_FLIGHT
from zkrecipes.port import Check, Create, Get, Multi, Set, Sync
from zkrecipes.roots import ensure
from zkrecipes.timing import Deadline, Timeout

__all__ = ["Cell", "Outcome", "Reading", "begin", "same"]


@final
@dataclass(frozen=True, slots=True)
class Reading:
    """What was in the node, and which one it was: a node that was deleted and made again has another czxid."""

    data: bytes
    version: int
    czxid: int


def same(one: Reading, other: Reading | None) -> bool:
    """Whether they are of one node in one version."""
    return other is not None and (one.version, one.czxid) == (other.version, other.czxid)


def begin(core: Core, timeout: Timeout | DefaultTimeout, label: str) -> Deadline:
    """The deadline of a call. A timeout of 0 is one flight, bounded by 0.2 s.

    Raises:
        UnavailableError: The timeout is 0, and there is no connection.
    """
    deadline = core.deadline(timeout)
    if deadline.timeout > 0:
        return deadline
    core.session.check_open(label)
    if not core.session.usable:
        raise core.session.unavailable(label)
    return Deadline(core.runtime.now() + ONE_FLIGHT, 0.0)


@final
class Outcome(Enum):
    """What became of a write; whatever is none of these is an error."""

    DONE = "applied"
    STALE = "not applied: the node is in another version, or gone"
    AGAIN = "not applied, and never will be; read and try again"


@final
class Cell:
    """One node.

    Args:
        core: The client's.
        path: Full path on the server.
        label: What messages call it.
        initial: Its data when we make it.
    """

    def __init__(self, core: Core, path: str, label: str, initial: bytes) -> None:
        self._core = core
        self._session = core.session
        self.path = path
        self.label = label
        self._initial = initial
        self._marks = marks_of(core, path, label)

    async def read(self, deadline: Deadline, *, newest: bool = False) -> Reading | None:
        """What is there; None if there is no node.

        Args:
            deadline: Until when.
            newest: Whether the server must ask its leader first: it may lag behind.
        """
        if newest:
            await self._core.ask(Sync(self.path), deadline, self.label)
        try:
            data, stat = await self._core.ask(Get(self.path), deadline, self.label)
        except NodeNotFoundError:
            return None
        return Reading(data, stat.version, stat.czxid)

    async def obtain(self, deadline: Deadline) -> Reading:
        """What is there; it is made where it is missing."""
        while True:
            reading = await self.read(deadline)
            if reading is not None:
                return reading
            await self._make(deadline)

    async def _make(self, deadline: Deadline) -> None:
        with contextlib.suppress(NodeExistsError, NodeNotFoundError, OutcomeUnknownError):  # who asks looks again
            await ensure(self._core, ancestors(self.path)[:-1], self.label, deadline)
            await self._core.ask(Create(self.path, self._initial, acl=self._core.nodes.acl), deadline, self.label)

    async def swap(
        self, reading: Reading, data: bytes, deadline: Deadline, also: Callable[[], None] | None = None
    ) -> Outcome:
        """Replace what was read, once, if it is still there.

        Raises:
            UnavailableError: Nothing was applied, and nothing will be.
            OutcomeUnknownError: It was sent, and could not be settled.
        """
        operations = [Set(self.path, data, reading.version)]
        if reading.version == BEFORE_ANY:
            operations.append(Set(self.path, data, -1))  # see next_version
        try:
            committed = await self._marks.once(operations, deadline, also)
        except TransactionError as refused:
            return self._stale(refused)
        except NodeNotFoundError:
            return Outcome.STALE
        except OutcomeUnknownError:
            if await self._untouched(reading, deadline):
                return Outcome.AGAIN
            raise
        return Outcome.AGAIN if committed is None else Outcome.DONE

    async def replace(self, reading: Reading, data: bytes, deadline: Deadline) -> bool:
        """Like swap, again while it was not applied without anybody's doing; whether it was."""
        began, attempts = self._core.runtime.now(), 0
        while True:
            outcome = await self.swap(reading, data, deadline)
            if outcome is not Outcome.AGAIN:
                return outcome is Outcome.DONE
            attempts += 1
            await self._core.again(attempts, began, deadline, self.label)
            if not same(reading, await self.read(deadline)):
                return False

    async def put(self, data: bytes, deadline: Deadline) -> None:
        """Replace whatever is there, once.

        Raises:
            UnavailableError: Nothing was applied, and nothing will be.
            OutcomeUnknownError: It was sent, and could not be settled.
        """
        while True:
            try:
                await self._marks.commit((Set(self.path, data),), deadline)
            except TransactionError as refused:
                self._stale(refused)
            except NodeNotFoundError:
                pass
            else:
                return
            await self._make(deadline)

    def _stale(self, refused: TransactionError) -> Outcome:
        if isinstance(refused.__cause__, ConflictError | NodeNotFoundError):
            return Outcome.STALE
        if isinstance(refused.__cause__, ZkRecipesError):
            raise refused.__cause__
        raise refused

    async def _untouched(self, reading: Reading, deadline: Deadline) -> bool:
        """Whether it is proven that nobody has written since, the write of unknown outcome included."""
        session, now = self._session, self._core.runtime.now
        while not deadline.passed(now()):
            try:
                await session.ready(deadline.at, self.label)
            except UnavailableError:
                return False
            # In this order on one connection: a server that lags would show the old version for a while.
            proof = session.call(Multi((Check("/"),)))
            look = session.call(Get(self.path))
            try:
                await session.result(proof, deadline.at)
                data, stat = await session.result(look, deadline.at)
            except Unsettled:
                await first_of(session.changed, until=min(deadline.at, now() + PAUSE))
            except ZkRecipesError:
                return False
            else:
                return same(reading, Reading(data, stat.version, stat.czxid))
        return False
