"""Writes that are recognised after a lost reply, where nothing in them can be: marks. Driver-free.

A mark is an ephemeral node of ours, `<parent>/_mark_<guid>`. Each write sets it, in the same multi, to a number that
only this write has. When the reply is lost, the mark tells whether the write was applied; all that was written with it
has the same zxid.

Promises: a write is applied once, or an error says that it was not; it is repeated only when it is proven that it was
not applied and never will be; what the session's end has made unprovable is an OutcomeUnknownError. One write at a time
uses a mark, so one that was refused is never taken for the next one; there are as many as there are writes at once.
A mark that nobody can account for (its write was interrupted) is not used again, and removed in the background.

Nodes: `<parent>/_mark_<guid>`, ephemeral, the number of its newest write in decimal digits as data.

Source: ours. Curator has no such thing: its counters and queues count twice when a reply is lost.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, final

from zkrecipes.calls import Unsettled
from zkrecipes.core import Core
from zkrecipes.errors import NodeNotFoundError, OutcomeUnknownError, TransactionError, UnavailableError, ZkRecipesError
from zkrecipes.flow import first_of
from zkrecipes.nodes import Attempt
from zkrecipes.port import Check, Create, Delete, Get, Kind, Multi, Set, Stat
from zkrecipes.timing import Deadline

__all__ = ["MARK", "Committed", "Marks", "Operation", "is_mark", "marks_of"]

Operation = Create | Set | Delete | Check

MARK: Final = "_mark_"

PAUSE: Final = 0.05
"""Seconds between two looks, at most, while connections end."""


def is_mark(name: str) -> bool:
    """Whether a child of a recipe's node is a mark, and nothing of the recipe's own."""
    return name.startswith(MARK)


@final
@dataclass(frozen=True, slots=True)
class Committed:
    """A write that was applied.

    Attributes:
        answers: Of its operations, in order; None where the reply was lost, and the mark told that it was applied.
        zxid: Of the transaction: the czxid of all that it created, the mzxid of all that it set.
        time: The server's time of the transaction, in ms since 1970.
        session_id: In which it was applied: the owner of what it has made ephemeral.
    """

    answers: tuple[Any, ...] | None
    zxid: int
    time: int
    session_id: int = field(default=0, compare=False)


@final
class _Mark:
    """One mark. Its attempt is not settled while it is in use: once nobody refers to it, the sweep removes its node."""

    __slots__ = ("attempt", "made", "path", "serial")

    def __init__(self, attempt: Attempt, path: str) -> None:
        self.attempt = attempt
        self.path = path
        self.serial = 0
        self.made = False


@final
class Marks:
    """The marks of one client below one parent, which must be persistent and exist.

    Args:
        core: The client's core.
        parent: Full path on the server.
        label: What messages call the recipe's path.
    """

    def __init__(self, core: Core, parent: str, label: str) -> None:
        self._core = core
        self._session = core.session
        self._parent = parent
        self._label = label
        self._free: list[_Mark] = []

    @property
    def idle(self) -> list[str]:
        """The paths of the marks that no write uses at the moment."""
        return [mark.path for mark in self._free]

    async def commit(
        self, operations: Sequence[Operation], deadline: Deadline, also: Callable[[], None] | None = None
    ) -> Committed:
        """Apply operations, all or nothing, once.

        Args:
            operations: What is written.
            deadline: Until when.
            also: Called when they have been handed over: what it asks travels in the same flight.

        Raises:
            TransactionError: One of the operations was refused, so nothing was applied; its cause tells why.
            NodeNotFoundError: The parent of the marks does not exist; nothing was applied.
            PayloadTooLargeError: The server would not take it; nothing was sent.
            UnavailableError: No server answered in time; nothing was applied, and nothing will be.
            OutcomeUnknownError: It was sent, and the session ended, or the deadline came, before it could be settled.
        """
        began, attempts = self._core.runtime.now(), 0
        while True:
            committed = await self.once(operations, deadline, also)
            if committed is not None:
                return committed
            also = None
            attempts += 1
            await self._core.again(attempts, began, deadline, self._label)

    async def time(self, deadline: Deadline) -> int:
        """The servers' time, in ms since 1970, by a write that changes nothing but a mark.

        Raises:
            NodeNotFoundError: The parent of the marks does not exist.
            UnavailableError: No server answered in time.
        """
        while True:
            try:
                return (await self.commit((), deadline)).time
            except OutcomeUnknownError as unknown:
                # Whether it was applied does not matter to anybody.
                if deadline.passed(self._core.runtime.now()):
                    raise self._session.unavailable(self._label) from unknown

    async def once(
        self, operations: Sequence[Operation], deadline: Deadline, also: Callable[[], None] | None = None
    ) -> Committed | None:
        """Like commit, but None where they were not applied, and never will be, without anybody's refusal.

        Args:
            operations: What is written.
            deadline: Until when.
            also: Called when they have been handed over: what it asks travels in the same flight.
        """
        await self._session.ready(deadline.at, self._label)
        mark = self._take()
        try:
            return await self._try(mark, operations, deadline, also)
        except GeneratorExit:
            raise  # collected, in whatever thread: the sweep removes the mark
        except BaseException:
            if mark not in self._free:
                self._core.nodes.remove(mark.attempt)  # nobody knows its state
            raise

    def _take(self) -> _Mark:
        while self._free:
            mark = self._free.pop()
            if mark.attempt.session_id == self._session.id:
                return mark
        path = f"{self._parent}/{MARK}{self._core.runtime.unique()}"
        return _Mark(self._core.nodes.attempt(self._parent, "", path), path)

    async def _try(
        self, mark: _Mark, operations: Sequence[Operation], deadline: Deadline, also: Callable[[], None] | None
    ) -> Committed | None:
        """Send them once; None if they were not applied, and never will be."""
        mark.serial += 1
        value = b"%d" % mark.serial
        # The answer of a set tells the zxid and the time on every way to the server; that of a create does not.
        own: tuple[Operation, ...] = (Set(mark.path, value),)
        if not mark.made:
            own = (Create(mark.path, b"", Kind.EPHEMERAL, acl=self._core.nodes.acl), *own)
        try:
            answers = await self._answers(Multi((*operations, *own)), mark, deadline, also)
        except Unsettled as lost:
            if not lost.written:
                self._free.append(mark)
                return None
            return await self._settle(mark, value, deadline, lost)
        except TransactionError as refused:
            self._check_refused(mark, len(operations), refused)
            return None
        except ZkRecipesError:
            self._free.append(mark)
            raise
        mark.made = True
        self._free.append(mark)
        stat: Stat = answers[-1]
        self._core.server_time.saw(stat.mtime)
        return Committed(answers[: len(operations)], stat.mzxid, stat.mtime, mark.attempt.session_id)

    async def _answers(
        self, multi: Multi, mark: _Mark, deadline: Deadline, also: Callable[[], None] | None
    ) -> tuple[Any, ...]:
        call = self._session.call(multi, mark.attempt.session_id)
        try:
            if also is not None:
                also()
            answers: tuple[Any, ...] = await self._session.result(call, deadline.at)
        except GeneratorExit:
            raise
        except BaseException:
            # Interrupted: what was not written yet never will be.
            self._session.withdraw(call)
            raise
        return answers

    def _check_refused(self, mark: _Mark, others: int, refused: TransactionError) -> None:
        """Raise what the caller is to know; return if only our mark is to blame."""
        if refused.index < others:
            self._free.append(mark)
            raise refused
        if isinstance(refused.__cause__, NodeNotFoundError) and mark.made:
            return  # somebody has deleted our mark: with another one
        if isinstance(refused.__cause__, ZkRecipesError):
            raise refused.__cause__
        raise refused

    async def _settle(self, mark: _Mark, value: bytes, deadline: Deadline, lost: Unsettled) -> Committed | None:
        """The reply was lost: find out what became of the write; None if it was not applied, and never will be."""
        session = self._session
        while True:
            try:
                await session.ready(deadline.at, self._label)
            except UnavailableError:
                raise self._unknown() from lost
            if session.id != mark.attempt.session_id or deadline.passed(self._core.runtime.now()):
                raise self._unknown() from lost  # the mark went with its session; or there is no time to look
            # On one connection, in this order: a server that lags, or a deposed leader, may not show the mark. It shows
            # all once it has answered a write of ours, and then our write that is still under way on an old connection
            # is refused by the leader.
            proof = session.call(Multi((Check("/"),)), mark.attempt.session_id)
            look = session.call(Get(mark.path), mark.attempt.session_id)
            try:
                with contextlib.suppress(ZkRecipesError):  # refused, which settles as well
                    await session.result(proof, deadline.at)
                data, stat = await session.result(look, deadline.at)
            except NodeNotFoundError:
                if mark.made:
                    raise self._unknown() from lost  # somebody has deleted it
                self._free.append(mark)
                return None
            except Unsettled:
                if deadline.passed(self._core.runtime.now() + PAUSE):
                    raise self._unknown() from lost
                await first_of(session.changed, until=self._core.runtime.now() + PAUSE)
                continue
            self._free.append(mark)
            if data != value:
                return None
            mark.made = True
            return Committed(None, stat.mzxid, stat.mtime, mark.attempt.session_id)

    def _unknown(self) -> OutcomeUnknownError:
        message = (
            f"the reply to a write at {self._label} was lost, and the session ended, or the time was over, before it "
            "could be settled: it may have been applied. Read what is there before you write again"
        )
        return OutcomeUnknownError(message, path=self._label)


def marks_of(core: Core, parent: str, label: str) -> Marks:
    """The marks of this client below this parent."""
    key = ("marks", parent)
    marks = core.shared.get(key)
    if marks is None:
        marks = core.shared[key] = Marks(core, parent, label)
    assert isinstance(marks, Marks)
    return marks
