"""What a topic does, once for threads and asyncio. Driver-free; the public face is pubsub.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar, cast, final

from zkrecipes.callbacks import Callbacks
from zkrecipes.changes import Change, EventKind
from zkrecipes.codec import BytesCodec, Codec, decoded, encoded
from zkrecipes.core import Core, DefaultTimeout
from zkrecipes.errors import DecodeError, GapError, NodeExistsError, NodeNotFoundError, ZkRecipesError
from zkrecipes.hold import Registration, checked_callback
from zkrecipes.listener import children_state
from zkrecipes.listening import ListenerState
from zkrecipes.paths import ancestors
from zkrecipes.patience import ONE_FLIGHT
from zkrecipes.port import Children, Create, Get, Set
from zkrecipes.roots import ensure
from zkrecipes.timing import Deadline, Timeout
from zkrecipes.topic_chunks import MAX_CHUNKED, Outgoing, outgoing
from zkrecipes.topic_follow import Found, Hole
from zkrecipes.topic_layout import Member, Position, Record, Stored, checked_name
from zkrecipes.topic_log import Log
from zkrecipes.topic_retention import Keep, Retention, Trimmer
from zkrecipes.topic_subscription import SubscriptionState, checked_acks

__all__ = ["Start", "Subscriber", "TopicRecipe", "gap_error", "read_record"]

T = TypeVar("T")

Start = Position | str | int
"""Where a new subscription begins: a position, "earliest", "latest", or a time in ms since 1970."""

SEGMENT_SIZE: Final = 1000
WINDOW: Final = 600.0


@final
@dataclass(frozen=True, slots=True)
class Subscriber:
    """Who reads a topic, or will go on reading it.

    Attributes:
        name: Of the subscription.
        host: "host:pid" of the reader; empty if it is away.
        position: Of a durable subscription: the first message that is not acknowledged. Otherwise: what the reader
            wanted next when it told so last.
        lag: Messages between that and the newest; 0 in `on_join` and `on_leave`, which do not count.
        durable: Whether its position is kept while it is away.
    """

    name: str
    host: str
    position: Position
    lag: int
    durable: bool

    @property
    def here(self) -> bool:
        """Whether it has a reader now."""
        return bool(self.host)


@final
class TopicRecipe(Generic[T]):
    """The algorithms, for every driver. Arguments as of zkrecipes.Topic."""

    def __init__(
        self,
        core: Core,
        path: str,
        *,
        codec: Codec[T] | None,
        retention: Retention | None,
        segment_size: int,
        max_message: int,
    ) -> None:
        if retention is not None and not isinstance(retention, Retention):
            message = f"retention must be a zkrecipes.Retention or None, not {type(retention).__name__}"
            raise TypeError(message)
        self.core = core
        self.label = path
        self.codec: Codec[T] = cast("Codec[Any]", BytesCodec()) if codec is None else codec
        _check_number("segment_size", segment_size, 2, 100_000)
        _check_number("max_message", max_message, 64, MAX_CHUNKED)
        self.log = Log(core, core.path(path), path, segment_size=segment_size, max_message=max_message, window=WINDOW)
        self.trimmer = Trimmer(self.log, Retention() if retention is None else retention)

    def moment(self, timeout: Timeout | DefaultTimeout) -> Deadline:
        """The deadline of a call that waits by nature: 0 never waits in line, for a look it has 0.2 s."""
        deadline = self.core.deadline(timeout)
        return deadline if deadline.timeout > 0 else Deadline(self.core.runtime.now() + ONE_FLIGHT, 0.0)

    # --- publish ------------------------------------------------------------------------------------------------------

    def record(
        self, value: T, key: str | None = None, headers: Mapping[str, str] | None = None, message_id: str | None = None
    ) -> Outgoing:
        """A message, cut up where it does not fit into one node. Runs the user's codec: not under the step lock.

        Raises:
            TypeError: A key, header or id is no text.
        """
        for name, text in (("key", key), ("message_id", message_id), *(headers or {}).items()):
            if text is not None and not isinstance(text, str):
                message = f"{name} must be a str, not {type(text).__name__}"
                raise TypeError(message)
        payload = encoded(self.codec, value, self.label)
        record = Record(payload, key, None if headers is None else dict(headers), message_id)
        return outgoing(record, self.core.runtime.unique())

    async def publish(
        self, records: Sequence[Outgoing], message_id: str | None, timeout: Timeout | DefaultTimeout
    ) -> list[Position]:
        """Store messages, all or none."""
        deadline = self.core.deadline(timeout)
        self.log.check(records)
        if not records:
            return []
        positions, _ = await self.log.publish(records, message_id, deadline)
        self.trimmer.look()
        return positions

    # --- the newest value only ----------------------------------------------------------------------------------------

    def payload(self, value: T) -> bytes:
        """A value's bytes, nothing before them. Runs the user's codec: not under the step lock."""
        return encoded(self.codec, value, self.label)

    def value(self, raw: bytes) -> T:
        """The value of such bytes. Runs the user's codec: not under the step lock."""
        return decoded(self.codec, raw, self.label)

    async def put_latest(self, payload: bytes, timeout: Timeout | DefaultTimeout) -> None:
        """Set the node, and make it where it is missing."""
        deadline, path = self.core.deadline(timeout), self.log.places.root
        while True:
            try:
                await self.core.ask(Set(path, payload), deadline, self.label)
            except NodeNotFoundError:
                await ensure(self.core, ancestors(path)[:-1], self.label, deadline)
            else:
                return
            try:
                await self.core.ask(Create(path, payload, acl=self.core.nodes.acl), deadline, self.label)
            except (NodeExistsError, NodeNotFoundError):
                continue
            return

    async def get_latest(self, timeout: Timeout | DefaultTimeout) -> bytes | None:
        """The node's bytes; None if there is none."""
        try:
            data, _ = await self.core.ask(Get(self.log.places.root), self.core.deadline(timeout), self.label)
        except NodeNotFoundError:
            return None
        found: bytes = data
        return found

    # --- subscribe ----------------------------------------------------------------------------------------------------

    def subscription(
        self, name: str, start: Start, *, durable: bool, ack_every: int | None, ack_interval: float | None
    ) -> SubscriptionState:
        """A subscription, not open yet."""
        checked_name(name)
        checked_acks(ack_every, ack_interval)
        if isinstance(start, str) and start not in {"earliest", "latest"}:
            message = f'start must be "earliest", "latest", a Position or a datetime, not {start!r}'
            raise ValueError(message)

        async def begin(deadline: Deadline) -> Position:
            return await self.find(start, deadline)

        return SubscriptionState(self.log, name, begin, durable=durable, ack_every=ack_every, ack_interval=ack_interval)

    async def find(self, start: Start, deadline: Deadline) -> Position:
        """The position of a start."""
        if isinstance(start, Position):
            return start
        await self.log.open(deadline)
        if start == "earliest":
            return (await self.log.low(deadline)).water.position
        if isinstance(start, int):
            return await self.trimmer.first_since(start, deadline)
        return await self.log.end(deadline)

    async def seek(self, state: SubscriptionState, start: Start, timeout: Timeout | DefaultTimeout) -> None:
        """Go on from somewhere else."""
        deadline = self.core.deadline(timeout)
        await state.seek(await self.find(start, deadline), deadline)

    async def trim(self, before: Start | None, keep: int | None, timeout: Timeout | DefaultTimeout) -> Position:
        """Remove old messages now."""
        if (before is None) == (keep is None):
            message = "trim() takes one of before= and keep="
            raise ValueError(message)
        if keep is not None:
            _check_number("keep", keep, 0, 2**62)
        deadline = self.core.deadline(timeout)
        position = None if before is None else await self.find(before, deadline)
        return await self.trimmer.trim(Keep(before=position, newest=keep), deadline)

    # --- who reads it -------------------------------------------------------------------------------------------------

    async def subscribers(self, timeout: Timeout | DefaultTimeout) -> list[Subscriber]:
        """Who is here, and which durable subscriptions there are."""
        core, places, deadline = self.core, self.log.places, self.core.deadline(timeout)
        await self.log.open(deadline)
        found: list[tuple[Member, bool]] = []
        for name in sorted(await core.ask(Children(places.members), deadline, self.label)):
            try:
                data, _ = await core.ask(Get(f"{places.members}/{name}"), deadline, self.label)
                found.append((Member.decode(data, f"{self.label}/members/{name}"), True))
            except (NodeNotFoundError, DecodeError):
                continue  # gone since, or nothing of ours
        here = {member.name: member for member, _ in found if member.durable}
        present = [member for member, _ in found if not member.durable]
        for name in sorted(await core.ask(Children(places.subs), deadline, self.label)):
            try:
                data, _ = await core.ask(Get(places.sub(name)), deadline, self.label)
                position = Stored.decode(data, f"{self.label}/subs/{name}").position
            except (NodeNotFoundError, DecodeError):
                continue
            present.append(Member(name, here[name].host if name in here else "", position, durable=True))
        ends = await self._counts(present, deadline)
        return [
            Subscriber(member.name, member.host, member.position, lag, member.durable)
            for member, lag in sorted(zip(present, ends, strict=True), key=lambda each: each[0].name)
        ]

    async def _counts(self, members: Sequence[Member], deadline: Deadline) -> list[int]:
        """How many messages are behind each position."""
        if not members:
            return []
        end = await self.log.end(deadline)
        sizes: dict[int, int] = {}
        low = (await self.log.low(deadline)).water.position
        first = max(min(member.position for member in members), low).segment
        for segment in range(first, end.segment):
            indices = await self.log.indices(segment, deadline)
            sizes[segment] = indices[-1] + 1 if indices else 0
        sizes[end.segment] = end.index
        counts = []
        for member in members:
            at = max(member.position, low)
            behind = sum(sizes.get(segment, 0) for segment in range(at.segment, end.segment + 1))
            counts.append(max(0, behind - at.index))
        return counts

    def _membership(
        self, joined: Callable[[Subscriber], object] | None, left: Callable[[Subscriber], object] | None
    ) -> ListenerState[Member]:
        """A listener that tells who comes and goes; it must be started."""
        state = children_state(self.core, f"{self.label}/members", _MemberCodec(), data=True)

        def tell(callback: Callable[[Subscriber], object], member: Member | None) -> None:
            if member is not None:
                callback(Subscriber(member.name, member.host, member.position, 0, member.durable))

        if joined is not None:
            checked_callback(joined)
            state.register(EventKind.CREATED, lambda change: tell(joined, change.new), after_initial=True)
        if left is not None:
            checked_callback(left)
            state.register(EventKind.DELETED, lambda change: tell(left, change.old), after_initial=True)
        return state

    async def watch_members(
        self,
        joined: Callable[[Subscriber], object] | None,
        left: Callable[[Subscriber], object] | None,
        timeout: Timeout | DefaultTimeout,
    ) -> Registration:
        """Tell who comes and goes from now on, until the registration is cancelled."""
        state = self._membership(joined, left)
        await self.log.open(self.core.deadline(timeout))
        await state.start(timeout)

        def cancel() -> None:
            # In the background: it may be cancelled where nothing can be waited for.
            with self.core.runtime.lock:
                if not self.core.session.closed:
                    self.core.runtime.spawn(state.close(), f"end of looking at the subscribers of {self.label}")

        return Registration(cancel)


def tell_latest(listener: Callbacks[T], callback: Callable[[T], object]) -> None:
    """Have a listener on one node call back with each newest value."""
    checked_callback(callback)

    def tell(change: Change[T]) -> None:
        callback(cast("T", change.new))

    listener.on_created(tell)
    listener.on_changed(tell)


@final
class _MemberCodec:
    def encode(self, value: Member) -> bytes:
        return value.encode()

    def decode(self, raw: bytes) -> Member:
        return Member.decode(raw, "a subscriber")


def gap_error(label: str, hole: Hole) -> GapError:
    """The error that tells of a hole."""
    message = (
        f"messages of {label} from {hole.first} on were removed before they were read; it goes on at {hole.resumed}. "
        "Give the topic a longer retention, or acknowledge sooner"
    )
    return GapError(message, path=label, first_missing=hole.first, resumed_at=hole.resumed)


def read_record(recipe: TopicRecipe[T], found: Found) -> tuple[Record, T]:
    """A message, decoded. Runs the user's codec: not under the step lock.

    Raises:
        DecodeError: Its bytes are nothing of ours, or damaged, or not of the codec.
        AccessDeniedError: It may not be read.
    """
    if isinstance(found.data, ZkRecipesError):
        raise found.data
    path = f"{recipe.label}/s{found.position.segment:010d}/m-{found.position.index:010d}"
    record = Record.decode(found.data, path)
    return record, decoded(recipe.codec, record.payload, path)


def _check_number(name: str, value: int, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        message = f"{name} must be an int, not {type(value).__name__}"
        raise TypeError(message)
    if not least <= value <= most:
        message = f"{name} must be from {least} to {most}, not {value}"
        raise ValueError(message)
