"""The reading side of a topic: follow its messages from a position on, in order, without a listing. Driver-free.

Promises: every message from the position on, in order, each once; what retention has removed is a `Hole`, never passed
over in silence. A message costs one request, itself; where the servers have no persistent watches (before 3.6), and on
borrowed clients, also a look at the next one, which sets the watch.

How: numbers in a segment have no gap, so the next message's name is known. A persistent watch on the segment that is
written to tells it (`topic_tail`); otherwise a one-shot watch on it is enough. That a message is absent means one of
three things: it is not written yet, it has been removed, or its segment ended before it. Head and low-water tell which,
if they were read on the same connection and have not changed since: both are watched, and the server tells changes
before it answers what was asked behind them.

Source: ours.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple, final

from zkrecipes.calls import Call, Unsettled
from zkrecipes.errors import NodeNotFoundError, ZkRecipesError
from zkrecipes.flow import Pending, first_of
from zkrecipes.port import Exists, Get, ReadMany, Refused, Stat
from zkrecipes.refusals import UnsupportedError, refusal_error
from zkrecipes.timing import Deadline
from zkrecipes.topic_layout import LowWater, Position, parse_head, parse_low
from zkrecipes.topic_log import Log
from zkrecipes.topic_tail import Tail
from zkrecipes.watching import forget

__all__ = ["Follower", "Found", "Hole"]

FIRST_READ: Final = 10
AHEAD: Final = 100
BYTES: Final = 1 << 18
SINGLES: Final = 20
"""Messages that are read in one go while catching up: at first, and at the most; bytes that this may come to, about;
and how many where the server reads only one in a request."""


@final
class Found(NamedTuple):
    """A message as it was read.

    Attributes:
        position: Where it stands.
        data: Its bytes, or the error by which the server refused to give them.
        stat: Its metadata; None with an error.
    """

    position: Position
    data: bytes | ZkRecipesError
    stat: Stat | None


@final
class Hole(NamedTuple):
    """Messages that have been removed before they were read.

    Attributes:
        first: The first that is missing.
        resumed: Where it goes on.
    """

    first: Position
    resumed: Position


@final
class _Ahead(NamedTuple):
    """The look at a message that has not been written yet."""

    position: Position
    call: Call[Stat | None]


@final
class _Sight(NamedTuple):
    """What head and low-water tell.

    Attributes:
        head: The number of the segment that is written to.
        low: Up to where the topic has been trimmed.
        made: The zxid that made the topic.
    """

    head: int
    low: LowWater
    made: int


@final
class Follower:
    """One reader's place in a topic. One call at a time; its end may come in the midst of one.

    Args:
        log: The topic.
        position: Of the message that is wanted first.
    """

    def __init__(self, log: Log, position: Position) -> None:
        self._log = log
        self._session = log.core.session
        self._ended: Pending[None] = Pending()
        self._many = FIRST_READ
        self.position = position
        self._head: Call[Any] | None = None
        self._low: Call[Any] | None = None
        self._seen: _Sight | None = None
        self._ahead: _Ahead | None = None
        self._tail: Tail | None = None
        self._made: int | None = None

    def moved(self, position: Position) -> Follower:
        """The one that goes on from another position. This one has ended: what it was reading comes to nothing."""
        follower = Follower(self._log, position)
        follower._head, follower._low = self._head, self._low
        follower._seen, follower._made, follower._tail = self._seen, self._made, self._tail
        self._head = self._low = self._tail = None
        self.close()
        return follower

    def close(self) -> None:
        """Take the watches off, and end the call that is under way."""
        self._ended.resolve(None)
        self._drop_ahead()
        self._drop_tail()
        for call in (self._head, self._low):
            if call is not None:
                self._let_go(call)
        self._head = self._low = None

    def _go(self, position: Position) -> None:
        self.position = position
        self._drop_ahead()

    def _drop_ahead(self) -> None:
        if self._ahead is not None:
            self._let_go(self._ahead.call)
            self._ahead = None

    def _drop_tail(self) -> None:
        if self._tail is not None:
            self._tail.close()
            self._tail = None

    def _let_go(self, call: Call[Any]) -> None:
        # One without an answer is given up: its watch goes when the answer comes.
        self._session.withdraw(call)
        forget(self._session, call)

    async def more(self) -> list[Found] | Hole:
        """The next messages, one at least; empty if it was closed.

        Raises:
            ClosedError: The client was closed.
            DecodeError: Head or low-water hold what is not ours.
        """
        session, runtime = self._session, self._log.core.runtime
        while not self._ended.done:
            session.check_open(self._log.label)
            if not session.usable:
                await first_of(session.changed, self._ended)
                continue
            try:
                found = await self._step()
            except Unsettled:
                if session.usable:
                    # Not while a connection is being lost.
                    await first_of(session.changed, self._ended, until=runtime.now() + session.timeout / 24)
                continue
            if found:
                return found
        return []

    # --- one look -----------------------------------------------------------------------------------------------------

    async def _step(self) -> list[Found] | Hole:
        """Look once; empty: look again."""
        head, low, made = await self._sight()
        at = self.position
        if made != self._made:
            before, self._made = self._made, made
            if before is not None:
                # Somebody has deleted the topic, and it was made again: its positions are others.
                self._go(low.position)
                return Hole(at, low.position)
        if at < low.position:
            self._go(low.position)
            return Hole(at, low.position) if low.misses(at) else []
        if at.segment < head:
            # Sealed, as this server knows: nothing is written to it any more, and all that was can be seen here.
            found = await self._read(at)
            if found is not None and not found and self._in_sight():
                self._go(Position(at.segment + 1, 0))
            return found or []
        if self._session.watches.recursive:
            self._drop_ahead()
            return await self._follow_told(at)
        self._drop_tail()
        if self._ahead is None or self._ahead.position != at or self._ahead.call.failed:
            self._drop_ahead()
            self._look_ahead(at)
        return await self._follow()

    async def _sight(self) -> _Sight:
        """Head and low-water; both are watched."""
        log, places = self._log, self._log.places
        while self._seen is None or not self._in_sight():
            self._seen = None
            if self._head is None or _is_over(self._head):
                self._head = self._session.call(Get(places.head, watch=True))
            if self._low is None or _is_over(self._low):
                self._low = self._session.call(Get(places.low, watch=True))
            head_call, low_call = self._head, self._low
            try:
                data, stat = await self._answer(head_call)
                low, _ = await self._answer(low_call)
            except NodeNotFoundError:
                # Somebody has deleted the topic: it begins anew.
                self._head = self._low = None
                log.forget()
                await log.open(Deadline.after(None, log.core.runtime.now()))
                if self._ended.done:
                    raise Unsettled(written=False) from None
                continue
            if self._in_sight():
                head = parse_head(data, f"{log.label}/head")
                self._seen = _Sight(head, parse_low(low, f"{log.label}/low"), stat.czxid)
        return self._seen

    def _in_sight(self) -> bool:
        """Whether head and low-water are still as they were read, on this connection."""
        head, low = self._head, self._low
        return head is not None and low is not None and not _is_over(head) and not _is_over(low)

    async def _follow_told(self, at: Position) -> list[Found]:
        """Wait for the next message in the segment that is written to, where one watch tells all of them."""
        tail, head, low = self._tail, self._head, self._low
        assert head is not None
        assert head.watch is not None
        assert low is not None
        assert low.watch is not None
        path = self._log.places.segment(at.segment)
        if tail is None or tail.path != path or tail.over:
            self._drop_tail()
            tail = self._tail = Tail(self._session, path)
        try:
            await self._answer(tail.armed)
        except UnsupportedError:
            return []  # one by one, then
        if not tail.looked(at.index):
            if await self._answer(self._session.call(Exists(self._log.places.message(at)))) is not None:
                return await self._read(at) or []  # it was there already: we are behind
            if not self._in_sight():
                return []  # absent because it was removed, perhaps: those behind it may be there
            tail.clear = at.index
        if tail.newest < at.index:
            await first_of(tail.news, head.watch, low.watch, tail.broken, self._ended)
        told = tail.newest - at.index + 1
        if self._ended.done or told < 1 or not self._session.usable:
            return []
        if told == 1:
            found = await self._take(at, self._session.call(Get(self._log.places.message(at))))
        else:
            found = await self._read(at, told) or []
        if not found:
            # It was removed, by a trim or by somebody else: what has been told counts for nothing.
            self._drop_tail()
        return found

    def _look_ahead(self, position: Position) -> None:
        call = self._session.call(Exists(self._log.places.message(position), watch=True))
        self._ahead = _Ahead(position, call)

    async def _follow(self) -> list[Found] | Hole:
        """Wait for the message that is written next, in the segment that is written to."""
        ahead, head, low = self._ahead, self._head, self._low
        assert ahead is not None
        assert head is not None
        assert low is not None
        # The watch also tells that there is nothing to wait for, as when the answer is lost.
        if await self._answer(ahead.call) is not None:
            # It was there already: we are behind. Without watches, which would stay on every message.
            self._drop_ahead()
            return await self._read(ahead.position) or []
        watch = ahead.call.watch
        assert watch is not None
        assert head.watch is not None
        assert low.watch is not None
        await first_of(watch, head.watch, low.watch, self._ended)
        if self._ended.done or not watch.done or not self._session.usable:
            return []
        self._ahead = None
        wanted = self._session.call(Get(self._log.places.message(ahead.position)))
        self._look_ahead(ahead.position.following)
        return await self._take(ahead.position, wanted)

    async def _take(self, position: Position, wanted: Call[Any]) -> list[Found]:
        try:
            data, stat = await self._answer(wanted)
        except NodeNotFoundError:
            return []  # the watch told that it was removed, or that the connection has ended
        except ZkRecipesError as error:
            self.position = position.following
            return [Found(position, error, None)]
        self.position = position.following
        return [Found(position, data, stat)]

    async def _read(self, at: Position, most: int = AHEAD) -> list[Found] | None:
        """Those from `at` on that are there, without a gap. None: it is not known, look again."""
        session = self._session
        together = session.watches.batches and self._many > 1
        count = min(most, self._many if together else min(self._many, SINGLES))
        positions = [Position(at.segment, at.index + number) for number in range(count)]
        gets = tuple(Get(self._log.places.message(each)) for each in positions)
        calls = [session.call(ReadMany(gets))] if together else [session.call(each) for each in gets]
        found: list[Found] = []
        try:
            answers = [await self._outcome(call) for call in calls]
            if together and isinstance(answers[0], UnsupportedError):
                return None  # one by one, then
            if together and isinstance(answers[0], ZkRecipesError):
                raise answers[0]
        finally:
            for call in calls:
                session.withdraw(call)
        for position, get, answer in zip(positions, gets, answers[0] if together else answers, strict=True):
            if isinstance(answer, Refused):
                answer = refusal_error(get, answer.code, namespace=session.namespace)  # noqa: PLW2901 - the same thing
            if isinstance(answer, NodeNotFoundError):
                break
            found.append(
                Found(position, answer, None) if isinstance(answer, ZkRecipesError) else Found(position, *answer)
            )
        self._learn(found)
        if found:
            self.position = found[-1].position.following
        return found

    def _learn(self, found: list[Found]) -> None:
        """As many at a time as a slow network brings before the session takes its server for silent."""
        size = sum(len(each.data) for each in found if isinstance(each.data, bytes))
        self._many = max(1, min(2 * self._many, AHEAD, BYTES * max(1, len(found)) // max(1, size)))

    async def _outcome(self, call: Call[Any]) -> Any:
        try:
            return await self._answer(call)
        except ZkRecipesError as error:
            return error

    async def _answer(self, call: Call[Any]) -> Any:
        """The answer of a read; Unsettled if it was closed. So nothing is done behind it that a closed one must not."""
        await first_of(call, self._ended)
        if self._ended.done or not call.done:
            raise Unsettled(written=False)
        return call.result()


def _is_over(call: Call[Any]) -> bool:
    """Whether what was read may have changed, or could not be read."""
    return call.failed or (call.watch is not None and call.watch.done)
