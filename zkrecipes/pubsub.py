"""Publish and subscribe: Topic, which keeps messages until they were read, and LatestTopic, which keeps the newest.

Promises: a message is stored once, even if its reply was lost; messages have one order, the same for all; a durable
subscription goes on where it was acknowledged, on any host, and sees every message at least once; what retention has
removed is told as a gap, never passed over in silence.

Does not promise: exactly once, for what a subscriber does with a message (acknowledge behind it, and make it
repeatable); or a message broker: every message is a node in the memory of every server, and every subscriber costs it
an event and a request, or two. A few hundred messages a second, some tens of subscribers.

Nodes: see topic_layout.py.

Source: ours. Curator has no such recipe; the shape is Kafka's, on ZooKeeper's sequence nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, final

from typing_extensions import TypeVar

from zkrecipes.codec import Codec
from zkrecipes.core import DEFAULT, DefaultTimeout
from zkrecipes.errors import ClosedError
from zkrecipes.handle import Registration, core_of
from zkrecipes.listener import NodeListener
from zkrecipes.timing import Timeout
from zkrecipes.topic import SEGMENT_SIZE, Subscriber, TopicRecipe, tell_latest
from zkrecipes.topic_follow import Hole
from zkrecipes.topic_layout import Position
from zkrecipes.topic_retention import Retention
from zkrecipes.topic_subscription import Given, SubscriptionState
from zkrecipes.topic_view import MAX_MESSAGE, MessageView, OnGap, SubscriptionView, checked_gap, no_message, start_of

if TYPE_CHECKING:
    from zkrecipes.client import Client

__all__ = ["LatestTopic", "Message", "Position", "Retention", "Subscriber", "Subscription", "Topic"]

T = TypeVar("T", default=bytes)


@final
class Message(MessageView[T]):
    """One message, as a subscriber got it."""

    __slots__ = ("_subscription",)

    def __init__(self, subscription: Subscription[T], given: Given, gap: Hole | None) -> None:
        super().__init__(subscription.recipe, given, gap)
        self._subscription = subscription

    def ack(self, *, timeout: Timeout | DefaultTimeout = DEFAULT) -> None:
        """Acknowledge it, and all before it. See `Subscription.ack`."""
        self._subscription.ack(self, timeout=timeout)


@final
class Subscription(SubscriptionView, Generic[T]):
    """A place in a topic, for threads. Iterate over it, or call `receive`; close it, or use it with `with`.

    A durable one that is lost (its session has ended, say) takes itself up again at its stored position when the next
    message is asked for. What was handed out before and is not acknowledged comes again.
    """

    def __init__(self, client: Client, recipe: TopicRecipe[T], state: SubscriptionState, *, raises: bool) -> None:
        super().__init__(state)
        self._client = client
        self.recipe = recipe
        self._raises = raises

    def receive(self, timeout: Timeout = None) -> Message[T]:
        """The next message.

        Args:
            timeout: Longest wait in seconds, an outage included; None waits for ever. 0 looks once, for 0.2 s at most.

        Raises:
            AcquireTimeoutError: None came in time.
            UnavailableError: No server answered in time.
            SubscriptionBusyError: It was lost, and another reader had it until the timeout.
            GapError: Messages were removed before they were read; told once, call again to go on.
            DecodeError: The next message does not decode. It counts as handed out: call again to go on behind it.
            ClosedError: It was closed.
        """
        deadline = self.recipe.moment(timeout)
        while True:
            self._state.check_open()
            given = self._client.run(self._state.peek(deadline))
            gap = self._next(given, raises=self._raises)
            if given.found is not None:
                gap = gap or self._pending_gap
                # Taken only when it is decoded: an interrupt in between loses nothing.
                try:
                    message = Message(self, given, gap)
                except Exception:
                    self._taken(given)
                    raise
                self._taken(given)
                return message
            self._state.check_open()
            if gap is None and deadline.passed(self._client.core.runtime.now()):
                raise no_message(self._state, deadline)

    def ack(self, message: Message[T], *, timeout: Timeout | DefaultTimeout = DEFAULT) -> None:
        """Acknowledge a message and all before it: of a durable subscription, they do not come again.

        Raises:
            ClaimLostError: The subscription was lost since the message was handed out: it comes again.
            OutcomeUnknownError: It was sent, and it could not be found out whether it counts: it may come again.
            UnavailableError: No server answered in time; it does not count.
            ClosedError: The subscription was closed.
        """
        deadline = self._client.core.deadline(timeout)
        self._client.run(self._state.ack(message.position, message.term, deadline))

    def seek(
        self,
        start: Position | Literal["earliest", "latest"] | datetime,
        *,
        timeout: Timeout | DefaultTimeout = DEFAULT,
    ) -> None:
        """Go on from somewhere else, forwards or backwards; of a durable one, this is stored.

        Messages handed out before cannot be acknowledged any more.
        """
        self._client.run(self.recipe.seek(self._state, start_of(start), timeout))

    def close(self) -> None:
        """End it: its place is given up, iterations end. What is not acknowledged comes again. Idempotent."""
        if not self._client.core.runtime.forked():
            self._client.run(self._state.close())

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Message[T]:
        try:
            return self.receive()
        except ClosedError:
            if self.closed:
                raise StopIteration from None
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


@final
class Topic(Generic[T]):
    """Messages in one order, kept until they were read.

    An immutable description: it sends nothing until it is used, and threads may share it.

    Args:
        client: From `connect`.
        path: The topic's path; nothing else may be below it.
        codec: How values are stored; bytes as they are by default.
        retention: What is kept; everything by default, so give it a limit.
        segment_size: Messages of one segment, about. Old ones are removed by segments, and listings are as long.
        max_message: Bytes of an encoded message that are taken, up to 16,000,000; larger ones are refused before
            anything is sent. What is over 900,000 is stored in pieces, with a checksum, a request each. Servers keep
            all of it in memory, and their newest 500 writes twice.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: The path, or a number, is not valid.
    """

    def __init__(
        self,
        client: Client,
        path: str,
        *,
        codec: Codec[T] | None = None,
        retention: Retention | None = None,
        segment_size: int = SEGMENT_SIZE,
        max_message: int = MAX_MESSAGE,
    ) -> None:
        self._client = client
        self._recipe: TopicRecipe[T] = TopicRecipe(
            core_of(client, aio=False),
            path,
            codec=codec,
            retention=retention,
            segment_size=segment_size,
            max_message=max_message,
        )

    @property
    def path(self) -> str:
        """The topic's path, below the client's namespace."""
        return self._recipe.label

    def publish(
        self,
        value: T,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        message_id: str | None = None,
        timeout: Timeout | DefaultTimeout = DEFAULT,
    ) -> Position:
        """Store a message, and return where it stands.

        Args:
            value: What the codec takes.
            key: For subscribers; it means nothing to the topic.
            headers: The same.
            message_id: If a message with this id was published within the last ten minutes, by whomever, nothing is
                stored, and the position of that one is returned.
            timeout: For the whole call, in seconds.

        Raises:
            UnavailableError: No server answered in time; it is not stored, and will not be.
            OutcomeUnknownError: It was sent, and it could not be found out whether it is stored.
            PayloadTooLargeError: It is too large; nothing was sent.
            ForeignNodeError: The path is no topic.
        """
        record = self._recipe.record(value, key, headers, message_id)
        return self._client.run(self._recipe.publish((record,), message_id, timeout))[0]

    def publish_many(self, values: Sequence[T], *, timeout: Timeout | DefaultTimeout = DEFAULT) -> list[Position]:
        """Store several messages in one request, all or none; their positions follow one another.

        Raises:
            PayloadTooLargeError: Together they are too large for one request; nothing was sent.
            ValueError: They are more than a segment takes.
        """
        records = [self._recipe.record(value) for value in values]
        return self._client.run(self._recipe.publish(records, None, timeout))

    def subscribe(
        self,
        name: str,
        *,
        start: Position | Literal["earliest", "latest"] | datetime = "latest",
        durable: bool = True,
        ack_every: int | None = None,
        ack_interval: float | None = None,
        on_gap: OnGap = "raise",
        timeout: Timeout | DefaultTimeout = DEFAULT,
    ) -> Subscription[T]:
        """Take a place in the topic.

        Args:
            name: Of the subscription. Of a durable one there is one reader at a time; others stand by.
            start: Where a new subscription begins; a durable one that exists goes on where it was acknowledged.
            durable: Whether its position is kept on the servers. If not, messages need no acknowledgement.
            ack_every: Acknowledge by itself after so many messages, when the next one is asked for.
            ack_interval: The same, after so many seconds.
            on_gap: "raise" a GapError where retention has removed what was not read, or "mark" the next message.
            timeout: For the whole call, in seconds.

        Raises:
            SubscriptionBusyError: Another reader had it until the timeout.
            UnavailableError: No server answered in time.
        """
        state = self._recipe.subscription(
            name, start_of(start), durable=durable, ack_every=ack_every, ack_interval=ack_interval
        )
        raises = checked_gap(on_gap)
        deadline = self._recipe.moment(timeout)

        async def begin() -> Subscription[T]:
            await state.open(deadline)
            return Subscription(self._client, self._recipe, state, raises=raises)

        return self._client.run(begin())

    def subscribers(self, *, timeout: Timeout | DefaultTimeout = DEFAULT) -> list[Subscriber]:
        """Who reads it, and which durable subscriptions are away, by name."""
        return self._client.run(self._recipe.subscribers(timeout))

    def on_join(
        self, callback: Callable[[Subscriber], object], *, timeout: Timeout | DefaultTimeout = DEFAULT
    ) -> Registration:
        """Call `callback(subscriber)` for each that comes from now on, on the dispatcher."""
        return self._watch(callback, None, timeout)

    def on_leave(
        self, callback: Callable[[Subscriber], object], *, timeout: Timeout | DefaultTimeout = DEFAULT
    ) -> Registration:
        """Call `callback(subscriber)` for each that goes from now on; of one that crashed, when its session ends."""
        return self._watch(None, callback, timeout)

    def _watch(self, joined: Any, left: Any, timeout: Timeout | DefaultTimeout) -> Registration:
        return self._client.run(self._recipe.watch_members(joined, left, timeout))

    def trim(
        self,
        *,
        before: Position | datetime | Literal["latest"] | None = None,
        keep: int | None = None,
        timeout: Timeout | DefaultTimeout = DEFAULT,
    ) -> Position:
        """Remove old messages now: those before a position or time, or all but the newest so many.

        What a durable subscription has not acknowledged stays, unless the topic's retention says otherwise.

        Returns:
            The low-water: everything before it has been removed.

        Raises:
            ValueError: Not exactly one of `before` and `keep` is given.
        """
        start = None if before is None else start_of(before)
        return self._client.run(self._recipe.trim(start, keep, timeout))

    def __repr__(self) -> str:
        return f"<Topic {self.path}>"


@final
class LatestTopic(Generic[T]):
    """The newest value of something, told to whoever listens: plain notification, kept in one node.

    Values that follow one another quickly are merged: each listener sees the newest, not each one. Where every message
    counts, use Topic.

    Args:
        client: From `connect`.
        path: The node; it is made when something is published first.
        codec: How values are stored; bytes as they are by default.
    """

    def __init__(self, client: Client, path: str, *, codec: Codec[T] | None = None) -> None:
        self._client = client
        self._codec = codec
        self._recipe: TopicRecipe[T] = TopicRecipe(
            core_of(client, aio=False), path, codec=codec, retention=None, segment_size=2, max_message=MAX_MESSAGE
        )

    @property
    def path(self) -> str:
        """The node's path, below the client's namespace."""
        return self._recipe.label

    def publish(self, value: T, *, timeout: Timeout | DefaultTimeout = DEFAULT) -> None:
        """Make a value the newest.

        Raises:
            UnavailableError: No server answered in time; it was not published, and will not be.
            OutcomeUnknownError: It was sent, and the reply was lost. Publishing it again does no harm.
        """
        self._client.run(self._recipe.put_latest(self._recipe.payload(value), timeout))

    def latest(self, *, timeout: Timeout | DefaultTimeout = DEFAULT) -> T | None:
        """The newest value; None if nothing was published yet."""
        raw = self._client.run(self._recipe.get_latest(timeout))
        return None if raw is None else self._recipe.value(raw)

    def subscribe(
        self, callback: Callable[[T], object], *, timeout: Timeout | DefaultTimeout = DEFAULT
    ) -> Registration:
        """Call `callback(value)` on the dispatcher with the newest value, if there is one, and each that follows.

        Take it off with `cancel()`.
        """
        listener: NodeListener[T] = NodeListener(self._client, self.path, codec=self._codec)
        tell_latest(listener, callback)
        listener.start(timeout)
        return Registration(listener.close)

    def __repr__(self) -> str:
        return f"<LatestTopic {self.path}>"
