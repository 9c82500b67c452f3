"""The writing side of a topic: publish, and begin new segments. Driver-free.

Promises: a message is stored once, even if its reply was lost; messages have one total order, the order in which the
leader committed them, and their numbers have no gap; one that was reported as failed never appears.

A publish is one multi: a check of the head, which no publisher passes that has not seen the newest segment; the
message, whose number the server gives; a mark, by which it is recognised. A segment that has become long enough is
sealed by the write that moves the head: no check of the old head passes from then on.

Source: ours. ZooKeeper's sequence nodes give the numbers; Kafka's segments, and BookKeeper's sealing, the shape.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, final

from zkrecipes.core import Core
from zkrecipes.dedup import Dedup
from zkrecipes.errors import (
    ConflictError,
    NodeExistsError,
    NodeNotFoundError,
    OutcomeUnknownError,
    PayloadTooLargeError,
    TransactionError,
    UnavailableError,
    ZkRecipesError,
)
from zkrecipes.marks import Committed, Operation, marks_of
from zkrecipes.port import Check, Children, Create, Created, Exists, Get, Multi, Set, Stat
from zkrecipes.roots import ensure, ensure_root, forget_root
from zkrecipes.sizes import check_size
from zkrecipes.timing import Deadline
from zkrecipes.topic_chunks import Outgoing, Pieces
from zkrecipes.topic_layout import FIRST, KIND, LowWater, Position, TopicPlaces, message_index, parse_head, parse_low

__all__ = ["Head", "Log", "Low"]

logger = logging.getLogger("zkrecipes.pubsub")

OTHERS: Final = 4096
"""Bytes of a publish's request beside its messages, at most."""

ROLL_LIMIT: Final = 10.0
"""Seconds for beginning a new segment; if it fails the next publish tries again."""


@final
class Head(NamedTuple):
    """The segment that is written to.

    Attributes:
        segment: Its number.
        version: Of the head's node.
    """

    segment: int
    version: int


@final
class Low(NamedTuple):
    """The low-water, as it was read.

    Attributes:
        water: What it says.
        version: Of its node.
    """

    water: LowWater
    version: int


@final
class Log:
    """A topic, as one client writes to it.

    Args:
        core: The client's core.
        path: Of the topic, in full.
        label: The same, as the user wrote it.
        segment_size: Messages after which a new segment is begun.
        max_message: Bytes of a message, header included, that are taken.
        window: Seconds for which identifiers of messages are remembered.
    """

    def __init__(
        self, core: Core, path: str, label: str, *, segment_size: int, max_message: int, window: float
    ) -> None:
        self.core = core
        self.label = label
        self.places = TopicPlaces(path)
        self.marks = marks_of(core, self.places.marks, label)
        self.pieces = Pieces(core, self.places, label)
        self._segment_size = segment_size
        self._max_message = max_message
        self._dedup = Dedup(core, self.places.ids, window, self.marks, label)
        self._head: Head | None = None
        self._rolling = False
        self.published = 0
        """Messages of this client, for whoever looks at retention now and then."""

    # --- what there is ------------------------------------------------------------------------------------------------

    async def open(self, deadline: Deadline) -> None:
        """Make the topic where it is missing.

        Raises:
            ForeignNodeError: The node is something else's, or of another version.
            UnavailableError: No server answered in time.
        """
        core, places = self.core, self.places
        key = ("topic", places.root)
        while key not in core.shared:
            await ensure_root(core, places.root, KIND, self.label, deadline)
            try:
                if await core.ask(Exists(places.head), deadline, self.label) is None:
                    await ensure(core, (places.marks, places.ids, places.subs, places.members), self.label, deadline)
                    # In one: where there is a head, its segment has been made, once.
                    acl = core.nodes.acl
                    create = Multi(
                        (
                            Create(places.segment(0), acl=acl),
                            Create(places.low, LowWater(FIRST).encode(), acl=acl),
                            Create(places.head, b"0", acl=acl),
                        )
                    )
                    await core.ask(create, deadline, self.label)
            except NodeNotFoundError:
                forget_root(core, places.root, KIND)
                continue
            except (TransactionError, OutcomeUnknownError):
                continue  # somebody else has made it, or we have
            core.shared[key] = True

    def forget(self) -> None:
        """Something that should be there was not: somebody has deleted the topic. Make it anew the next time."""
        self.core.shared.pop(("topic", self.places.root), None)
        forget_root(self.core, self.places.root, KIND)
        self._head = None

    async def head(self, deadline: Deadline, *, fresh: bool = True) -> Head:
        """The segment that is written to; as this client knows it, unless it must be fresh."""
        if self._head is None or fresh:
            while True:
                await self.open(deadline)
                try:
                    data, stat = await self.core.ask(Get(self.places.head), deadline, self.label)
                    break
                except NodeNotFoundError:
                    self.forget()
            self._head = Head(parse_head(data, f"{self.label}/head"), stat.version)
        return self._head

    async def low(self, deadline: Deadline) -> Low:
        """The low-water."""
        while True:
            await self.open(deadline)
            try:
                data, stat = await self.core.ask(Get(self.places.low), deadline, self.label)
            except NodeNotFoundError:
                self.forget()
                continue
            return Low(parse_low(data, f"{self.label}/low"), stat.version)

    async def indices(self, segment: int, deadline: Deadline) -> list[int]:
        """The numbers of the messages that are in a segment, in order; empty if there is no such segment."""
        try:
            names: list[str] = await self.core.ask(Children(self.places.segment(segment)), deadline, self.label)
        except NodeNotFoundError:
            return []
        return sorted(index for index in map(message_index, names) if index is not None)

    async def end(self, deadline: Deadline) -> Position:
        """The position that the next message will have, at least."""
        head = await self.head(deadline)
        indices = await self.indices(head.segment, deadline)
        if indices:
            return Position(head.segment, indices[-1] + 1)
        low = (await self.low(deadline)).water.position
        return max(Position(head.segment, 0), low)

    # --- publish ------------------------------------------------------------------------------------------------------

    def check(self, records: Sequence[Outgoing]) -> None:
        """Refuse what is too large, before anything is sent.

        Raises:
            PayloadTooLargeError: A message is over the limit, or they are too large for one request.
            ValueError: There are more than a segment takes.
        """
        for record in records:
            if record.size > self._max_message:
                message = (
                    f"a message for {self.label} has {record.size} bytes, its header included; {self._max_message} are "
                    "taken, and nothing was sent. Keep large data elsewhere, and its address here"
                )
                raise PayloadTooLargeError(message, path=self.label, size=record.size, limit=self._max_message)
        if len(records) > self._segment_size:
            message = f"{len(records)} messages are more than a segment of {self.label} takes ({self._segment_size})"
            raise ValueError(message)
        # With room for what else is in the request.
        spare = Set(self.places.head, bytes(OTHERS), 0)
        check_size(Multi((spare, *self._creates(records, 0), *self.pieces.links(records, 0))))

    def _creates(self, records: Sequence[Outgoing], segment: int) -> tuple[Create, ...]:
        new = self.places.new_message(segment)
        return tuple(Create(new, each.raw, sequential=True, acl=self.core.nodes.acl) for each in records)

    async def publish(
        self, records: Sequence[Outgoing], message_id: str | None, deadline: Deadline
    ) -> tuple[list[Position], bool]:
        """Store messages, all or none; their positions, and whether they are new (and not known by `message_id`).

        Raises:
            OutcomeUnknownError: They were sent, and it could not be found out whether they are stored.
            UnavailableError: No server answered in time: they are not stored, and will not be.
        """
        await self.open(deadline)
        new = False
        try:
            await self.pieces.write(records, deadline)
            positions, new = await self._publish(records, message_id, deadline)
        except OutcomeUnknownError:
            raise
        except Exception:
            self.pieces.discard(records)
            raise
        if not new:
            self.pieces.discard(records)
        return positions, new

    async def _publish(
        self, records: Sequence[Outgoing], message_id: str | None, deadline: Deadline
    ) -> tuple[list[Position], bool]:
        while True:
            head = await self.head(deadline, fresh=False)
            known: tuple[Operation, ...] = ()
            if message_id is not None:
                known = await self._dedup.operations(message_id, b"%d" % head.segment, deadline)
            links = self.pieces.links(records, head.segment)
            operations = (
                Check(self.places.head, head.version),
                *known,
                *links,
                *self._creates(records, head.segment),
            )
            try:
                committed = await self.marks.commit(operations, deadline)
            except TransactionError as refused:
                if len(known) < refused.index <= len(known) + len(links):
                    message = f"pieces of a message for {self.label} were deleted before it was stored; it is not"
                    raise UnavailableError(message, path=self.label) from refused
                first = await self._refused(refused, len(known), message_id, deadline)
                if first is not None:
                    return [first], False
                continue
            except NodeNotFoundError:
                self.forget()
                self._check_time(deadline)
                continue
            positions = await self._positions(committed, head.segment, len(records), deadline)
            self.published += len(records)
            if positions[-1].index + 1 >= self._segment_size:
                self._begin_segment(head)
            return positions, True

    async def _refused(
        self, refused: TransactionError, known: int, message_id: str | None, deadline: Deadline
    ) -> Position | None:
        """What a refused publish means: the position of the first message with this id, or None to begin again."""
        cause = refused.__cause__
        if 0 < refused.index <= known:
            if isinstance(cause, NodeExistsError) and message_id is not None:
                first = await self._first(message_id, deadline)
                if first is not None:
                    return first
            else:
                self._dedup.forget()
        elif refused.index == 0 and isinstance(cause, ConflictError):
            self._head = None  # another segment has begun
        elif isinstance(cause, NodeNotFoundError):
            self.forget()
        elif isinstance(cause, ZkRecipesError):
            raise cause
        else:
            raise refused
        self._check_time(deadline)
        return None

    def _check_time(self, deadline: Deadline) -> None:
        if deadline.passed(self.core.runtime.now()):
            raise self.core.session.unavailable(self.label)

    async def _first(self, message_id: str, deadline: Deadline) -> Position | None:
        """Where the first message with this id stands; None if the id is not known any more."""
        found = await self._dedup.first_stat(message_id, deadline)
        if found is None:
            return None
        data, stat = found
        return (await self._find(stat.czxid, int(data), 1, deadline))[0]

    async def _positions(self, committed: Committed, segment: int, count: int, deadline: Deadline) -> list[Position]:
        if committed.answers is None:
            return await self._find(committed.zxid, segment, count, deadline)
        made = [answer for answer in committed.answers if isinstance(answer, Created)][-count:]
        indices = [message_index(each.path.rpartition("/")[2]) for each in made]
        return [Position(segment, -1 if index is None else index) for index in indices]

    async def _find(self, zxid: int, segment: int, count: int, deadline: Deadline) -> list[Position]:
        """The positions of what a transaction has stored in a segment: in it, numbers and zxids rise together.

        Raises:
            OutcomeUnknownError: It was stored, and it has been removed meanwhile.
        """
        try:
            indices = await self.indices(segment, deadline)
            low, high = 0, len(indices)
            while low < high:
                middle = (low + high) // 2
                czxid = await self._czxid(Position(segment, indices[middle]), deadline)
                if czxid is None or czxid <= zxid:
                    low = middle + 1  # None: removed since, and old ones are removed first
                else:
                    high = middle
            # From the last of them: the first ones may be removed already.
            last = indices[low - 1] if low else -1
            if last < count - 1 or await self._czxid(Position(segment, last), deadline) != zxid:
                last = -1
        except ZkRecipesError as error:
            message = f"a message was stored in {self.label}, but its position could not be read: {error}"
            raise OutcomeUnknownError(message, path=self.label) from error
        if last < 0:
            message = f"a message was stored in {self.label}, and has been removed before its position could be read"
            raise OutcomeUnknownError(message, path=self.label)
        return [Position(segment, index) for index in range(last - count + 1, last + 1)]

    async def _czxid(self, position: Position, deadline: Deadline) -> int | None:
        stat: Stat | None = await self.core.ask(Exists(self.places.message(position)), deadline, self.label)
        return None if stat is None else stat.czxid

    # --- segments -----------------------------------------------------------------------------------------------------

    def _begin_segment(self, head: Head) -> None:
        if not self._rolling:
            self._rolling = True
            self.core.runtime.spawn(self._roll(head), f"begin a segment of {self.label}")

    async def _roll(self, head: Head) -> None:
        """Seal a segment by moving the head on. Whoever comes second is refused by the head's version."""
        places = self.places
        number = head.segment + 1
        roll = Multi(
            (
                Create(places.segment(number), acl=self.core.nodes.acl),
                Set(places.head, b"%d" % number, head.version),
            )
        )
        try:
            answers: tuple[Any, ...] = await self.core.ask(
                roll, Deadline.after(ROLL_LIMIT, self.core.runtime.now()), self.label
            )
            if self._head == head:
                self._head = Head(number, answers[1].version)
        except (TransactionError, OutcomeUnknownError):
            self._head = None if self._head == head else self._head
        except ZkRecipesError as error:
            logger.info("No new segment of %s was begun, the next publish tries again: %s", self.label, error)
        finally:
            self._rolling = False
