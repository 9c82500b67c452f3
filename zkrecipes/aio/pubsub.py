"""Publish and subscribe, for asyncio. The algorithm, and what is promised, are in zkrecipes.pubsub."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, final

from typing_extensions import TypeVar

from zkrecipes.aio.handle import Opening
from zkrecipes.aio.listener import NodeListener
from zkrecipes.codec import Codec
from zkrecipes.core import DEFAULT, DefaultTimeout
from zkrecipes.errors import ClosedError
from zkrecipes.handle import Registration, core_of
from zkrecipes.timing import Timeout
from zkrecipes.topic import SEGMENT_SIZE, Subscriber, TopicRecipe, tell_latest
from zkrecipes.topic_follow import Hole
from zkrecipes.topic_layout import Position
from zkrecipes.topic_retention import Retention
from zkrecipes.topic_subscription import Given, SubscriptionState
from zkrecipes.topic_view import MAX_MESSAGE, MessageView, OnGap, SubscriptionView, checked_gap, no_message, start_of

if TYPE_CHECKING:
    from zkrecipes.aio.client import Client

__all__ = ["LatestTopic", "Message", "Subscription", "Topic"]

T = TypeVar("T", default=bytes)


@final
class Message(MessageView[T]):
    """One message, as a subscriber got it."""

    __slots__ = ("_subscription",)

    def __init__(self, subscription: Subscription[T], given: Given, gap: Hole | None) -> None:
        super().__init__(subscription.recipe, given, gap)
        self._subscription = subscription

    async def ack(self, *, timeout: Timeout | DefaultTimeout = DEFAULT) -> None:
        """Acknowledge it, and all before it. See `Subscription.ack`."""
        await self._subscription.ack(self, timeout=timeout)


@final
class Subscription(SubscriptionView, Generic[T]):
    """A place in a topic: `async for message in subscription`, or `receive`. Otherwise as zkrecipes.Subscription."""

    def __init__(self, client: Client, recipe: TopicRecipe[T], state: SubscriptionState, *, raises: bool) -> None:
        super().__init__(state)
        self._client = client
        self.recipe = recipe
        self._raises = raises

    async def receive(self, timeout: Timeout = None) -> Message[T]:
        """The next message. Errors as of zkrecipes.Subscription.receive; cancelling it loses nothing."""
        deadline = self.recipe.moment(timeout)
        while True:
            self._state.check_open()
            given = await self._client.run(self._state.peek(deadline))
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

    async def ack(self, message: Message[T], *, timeout: Timeout | DefaultTimeout = DEFAULT) -> None:
        """Acknowledge a message and all before it. Errors as of zkrecipes.Subscription.ack."""
        deadline = self._client.core.deadline(timeout)
        await self._client.run(self._state.ack(message.position, message.term, deadline))

    async def seek(
        self,
        start: Position | Literal["earliest", "latest"] | datetime,
        *,
        timeout: Timeout | DefaultTimeout = DEFAULT,
    ) -> None:
        """Go on from somewhere else, forwards or backwards; of a durable one, this is stored."""
        await self._client.run(self.recipe.seek(self._state, start_of(start), timeout))

    async def close(self) -> None:
        """End it: its place is given up, iterations end. Idempotent."""
        if not self._client.core.runtime.forked():
            await self._client.run(self._state.close())

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message[T]:
        try:
            return await self.receive()
        except ClosedError:
            if self.closed:
                raise StopAsyncIteration from None
            raise

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()


@final
class Topic(Generic[T]):
    """Messages in one order, kept until they were read. Arguments as of zkrecipes.Topic."""

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
            core_of(client, aio=True),
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

    async def publish(
        self,
        value: T,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        message_id: str | None = None,
        timeout: Timeout | DefaultTimeout = DEFAULT,
    ) -> Position:
        """Store a message, and return where it stands. Arguments and errors as of zkrecipes.Topic.publish.

        Cancelling it leaves open whether the message is stored.
        """
        record = self._recipe.record(value, key, headers, message_id)
        return (await self._client.run(self._recipe.publish((record,), message_id, timeout)))[0]

    async def publish_many(self, values: Sequence[T], *, timeout: Timeout | DefaultTimeout = DEFAULT) -> list[Position]:
        """Store several messages in one request, all or none."""
        records = [self._recipe.record(value) for value in values]
        return await self._client.run(self._recipe.publish(records, None, timeout))

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
    ) -> Opening[Subscription[T]]:
        """Take a place in the topic: `await` it, or `async with topic.subscribe(…) as subscription`.

        Arguments and errors as of zkrecipes.Topic.subscribe.
        """
        state = self._recipe.subscription(
            name, start_of(start), durable=durable, ack_every=ack_every, ack_interval=ack_interval
        )
        raises = checked_gap(on_gap)

        async def opened() -> Subscription[T]:
            await state.open(self._recipe.moment(timeout))
            return Subscription(self._client, self._recipe, state, raises=raises)

        async def begin() -> Subscription[T]:
            return await self._client.run(opened())

        return Opening(begin)

    async def subscribers(self, *, timeout: Timeout | DefaultTimeout = DEFAULT) -> list[Subscriber]:
        """Who reads it, and which durable subscriptions are away, by name."""
        return await self._client.run(self._recipe.subscribers(timeout))

    async def on_join(
        self, callback: Callable[[Subscriber], object], *, timeout: Timeout | DefaultTimeout = DEFAULT
    ) -> Registration:
        """Call `callback(subscriber)`, a plain function, on the event loop for each that comes from now on."""
        return await self._watch(callback, None, timeout)

    async def on_leave(
        self, callback: Callable[[Subscriber], object], *, timeout: Timeout | DefaultTimeout = DEFAULT
    ) -> Registration:
        """Call `callback(subscriber)`, a plain function, on the event loop for each that goes from now on."""
        return await self._watch(None, callback, timeout)

    async def _watch(self, joined: Any, left: Any, timeout: Timeout | DefaultTimeout) -> Registration:
        return await self._client.run(self._recipe.watch_members(joined, left, timeout))

    async def trim(
        self,
        *,
        before: Position | datetime | Literal["latest"] | None = None,
        keep: int | None = None,
        timeout: Timeout | DefaultTimeout = DEFAULT,
    ) -> Position:
        """Remove old messages now. Arguments and errors as of zkrecipes.Topic.trim."""
        start = None if before is None else start_of(before)
        return await self._client.run(self._recipe.trim(start, keep, timeout))

    def __repr__(self) -> str:
        return f"<aio.Topic {self.path}>"


@final
class LatestTopic(Generic[T]):
    """The newest value of something, told to whoever listens. Arguments as of zkrecipes.LatestTopic."""

    def __init__(self, client: Client, path: str, *, codec: Codec[T] | None = None) -> None:
        self._client = client
        self._codec = codec
        self._recipe: TopicRecipe[T] = TopicRecipe(
            core_of(client, aio=True), path, codec=codec, retention=None, segment_size=2, max_message=MAX_MESSAGE
        )

    @property
    def path(self) -> str:
        """The node's path, below the client's namespace."""
        return self._recipe.label

    async def publish(self, value: T, *, timeout: Timeout | DefaultTimeout = DEFAULT) -> None:
        """Make a value the newest. Errors as of zkrecipes.LatestTopic.publish."""
        await self._client.run(self._recipe.put_latest(self._recipe.payload(value), timeout))

    async def latest(self, *, timeout: Timeout | DefaultTimeout = DEFAULT) -> T | None:
        """The newest value; None if nothing was published yet."""
        raw = await self._client.run(self._recipe.get_latest(timeout))
        return None if raw is None else self._recipe.value(raw)

    async def subscribe(
        self, callback: Callable[[T], object], *, timeout: Timeout | DefaultTimeout = DEFAULT
    ) -> NodeListener[T]:
        """Call `callback(value)`, a plain function, on the event loop: with the newest value, and each that follows.

        End it with `await listener.close()`.
        """
        listener: NodeListener[T] = NodeListener(self._client, self.path, codec=self._codec)
        tell_latest(listener, callback)
        return await listener.start(timeout)

    def __repr__(self) -> str:
        return f"<aio.LatestTopic {self.path}>"
