"""What threads and asyncio share of messages and subscriptions: everything that sends nothing."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Generic, Literal

from typing_extensions import TypeVar

from zkrecipes.errors import AcquireTimeoutError
from zkrecipes.timing import Deadline
from zkrecipes.topic import Start, TopicRecipe, gap_error, read_record
from zkrecipes.topic_follow import Hole
from zkrecipes.topic_layout import Position
from zkrecipes.topic_subscription import Given, SubscriptionState

__all__ = ["MAX_MESSAGE", "MessageView", "OnGap", "SubscriptionView", "checked_gap", "no_message", "start_of"]

T = TypeVar("T", default=bytes)

MAX_MESSAGE = 4_000_000
"""Bytes of a message, its header included, that are taken unless the user says otherwise."""

OnGap = Literal["raise", "mark"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class MessageView(Generic[T]):
    """What threads and asyncio share of a message.

    Attributes:
        value: What was published.
        position: Where it stands in the topic.
        key: What the publisher gave, or None.
        headers: The same; empty if none were given.
        message_id: The same, or None.
        published_at: When, by the servers' clock, in UTC.
        gap: What was removed before it, with `on_gap="mark"`: the first missing position, and this one. Or None.
    """

    __slots__ = ("_term", "gap", "headers", "key", "message_id", "position", "published_at", "value")

    def __init__(self, recipe: TopicRecipe[T], given: Given, gap: Hole | None) -> None:
        found = given.found
        assert found is not None
        record, value = read_record(recipe, found)
        self.value = value
        self.position = found.position
        self.key = record.key
        self.headers: Mapping[str, str] = record.headers or {}
        self.message_id = record.message_id
        milliseconds = 0 if found.stat is None else found.stat.ctime
        self.published_at = datetime.fromtimestamp(milliseconds / 1000, UTC)
        self.gap = None if gap is None else (gap.first, gap.resumed)
        self._term = given.term

    @property
    def term(self) -> int:
        """Of the subscription's ownership in which it was handed out."""
        return self._term

    def __repr__(self) -> str:
        key = "" if self.key is None else f" key={self.key!r}"
        return f"<Message {self.position}{key}>"


def start_of(start: Position | str | datetime) -> Start:
    """A start, as the algorithms take it.

    Raises:
        ValueError: A datetime has no time zone.
    """
    if isinstance(start, datetime):
        if start.tzinfo is None:
            message = f"start must be a datetime with a time zone, such as datetime.now(UTC), not {start!r}"
            raise ValueError(message)
        # Rounded up, and not by way of a float: what was written in the millisecond before is not asked for.
        return -((_EPOCH - start) // timedelta(milliseconds=1))
    if not isinstance(start, Position | str):
        message = f'start must be "earliest", "latest", a Position or a datetime, not {type(start).__name__}'
        raise TypeError(message)
    return start


def checked_gap(on_gap: str) -> bool:
    """Whether gaps are raised.

    Raises:
        ValueError: It is neither "raise" nor "mark".
    """
    if on_gap not in {"raise", "mark"}:
        message = f'on_gap must be "raise" or "mark", not {on_gap!r}'
        raise ValueError(message)
    return on_gap == "raise"


def next_given(state: SubscriptionState, given: Given, *, raises: bool) -> Hole | None:
    """Look at what comes next: raise its gap, or return it to be marked on the message."""
    if given.gap is not None and (raises or given.found is None):
        state.taken(given, gap=True)
        if raises:
            raise gap_error(state.log.label, given.gap)
    return given.gap


class SubscriptionView:
    """What threads and asyncio share of a subscription: everything that sends nothing."""

    def __init__(self, state: SubscriptionState) -> None:
        self._state = state
        self._pending_gap: Hole | None = None
        state.reader = weakref.ref(self)

    @property
    def name(self) -> str:
        """Its name."""
        return self._state.name

    @property
    def position(self) -> Position:
        """Of the message that is handed out next."""
        return self._state.position

    @property
    def acknowledged(self) -> Position:
        """Of a durable one: the first message that comes again if it is opened anew. As `position` otherwise."""
        return self._state.stored

    @property
    def owned(self) -> bool:
        """Of a durable one: whether we can prove that we are its reader. It is taken up again by itself."""
        return self._state.owned

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._state.closed.done

    def pause(self) -> None:
        """Hand out nothing until `resume()`: `receive` and iteration wait."""
        with self._state.log.core.runtime.lock:
            self._state.pause()

    def resume(self) -> None:
        """Go on."""
        with self._state.log.core.runtime.lock:
            self._state.resume()

    def _next(self, given: Given, *, raises: bool) -> Hole | None:
        """The gap before a message, if it is not raised: of one with a message, or kept for the next."""
        with self._state.log.core.runtime.lock:
            gap = next_given(self._state, given, raises=raises)
            if gap is not None and given.found is None:
                self._pending_gap = gap
        return gap

    def _taken(self, given: Given) -> Hole | None:
        with self._state.log.core.runtime.lock:
            self._state.taken(given, gap=False)
            gap, self._pending_gap = self._pending_gap, None
        return gap

    def __repr__(self) -> str:
        state = self._state
        kind = "closed" if self.closed else "durable" if state.durable else "from now on"
        return f"<{type(self).__name__} {state.name!r} of {state.log.label} at {state.position}, {kind}>"


def no_message(state: SubscriptionState, deadline: Deadline) -> AcquireTimeoutError:
    """The error for a deadline that came before a message."""
    message = f"no message came for {state.name!r} of {state.log.label} within {deadline.timeout:g} s"
    return AcquireTimeoutError(message, path=state.log.label, timeout=deadline.timeout)
