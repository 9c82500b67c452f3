"""The claims that a queue hands out."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, cast, final

from typing_extensions import TypeVar

from zkrecipes.codec import Codec, decoded
from zkrecipes.core import DEFAULT, DefaultTimeout
from zkrecipes.errors import ClaimLostError, UnavailableError, ZkRecipesError
from zkrecipes.handle import Handle, HandleState
from zkrecipes.queue_admin import Entry
from zkrecipes.queue_claim import Held, error_text
from zkrecipes.queue_recipe import ItemId, Outbox, QueueRecipe, checked_visibility
from zkrecipes.timing import Timeout, to_seconds

if TYPE_CHECKING:
    from zkrecipes.client import Client

__all__ = ["Claim", "ClaimBatch", "ClaimState", "QueuedItem"]

T = TypeVar("T", default=bytes)

logger = logging.getLogger("zkrecipes.queue")


@final
class QueuedItem(Generic[T]):
    """An item that was looked at, and is not claimed for that: one that waits, or a dead letter.

    Attributes:
        id: What the put returned.
        priority: Lower is served first.
        attempts: How often it was claimed.
        headers: Of the put.
        error: Why the last attempt failed; empty if none did.
        put_at: When it was put, in seconds since 1970, by the servers' time.
        dead_at: When it became a dead letter, about; None if it is none.
        payload: As it is stored.
    """

    def __init__(self, entry: Entry, codec: Codec[T], path: str) -> None:
        record = entry.record
        self.id = ItemId(record.id)
        self.priority = record.priority
        self.attempts = record.attempts
        self.headers: Mapping[str, str] = record.headers
        self.error = record.error
        self.put_at = (record.born or entry.made) / 1000
        self.dead_at = record.dead_at / 1000 if record.dead_at else None
        self.payload = record.payload
        self._codec = codec
        self._path = path

    @property
    def item(self) -> T:
        """The item, decoded.

        Raises:
            DecodeError: The codec did not take it.
        """
        return decoded(self._codec, self.payload, self._path)

    def __repr__(self) -> str:
        return f"<QueuedItem {self._path}>"


class ClaimState(HandleState, Generic[T]):
    """What threads and asyncio share of a claim."""

    _lost_error = ClaimLostError
    _what = "claim"
    _recipe: QueueRecipe
    _held: Held
    _codec: Codec[T]
    outbox: Outbox | None = None
    """Where a consumer's claims are acknowledged together."""
    _item: Any = None
    _decoded = False

    def decode(self) -> None:
        """Decode the item. User code: not under the step lock.

        Raises:
            DecodeError: The codec did not take it.
        """
        path = self._held.want.slot.item.removeprefix(self._core.namespace)
        self._item = decoded(self._codec, self._held.record.payload, path)
        self._decoded = True

    @property
    def item(self) -> T:
        """The item, decoded."""
        if not self._decoded:
            self.decode()
        return cast("T", self._item)

    @property
    def id(self) -> ItemId:
        """What the put returned."""
        return ItemId(self._held.record.id)

    @property
    def attempt(self) -> int:
        """The how manyeth claim on this item it is, from 1."""
        return self._held.record.attempts

    @property
    def priority(self) -> int:
        """Lower is served first."""
        return self._held.record.priority

    @property
    def headers(self) -> Mapping[str, str]:
        """Of the put."""
        return self._held.record.headers

    def _failure(self, delay: Timeout, error: BaseException | str | None) -> tuple[float, str]:
        seconds = self._recipe.delay_after(self.attempt) if delay is None else to_seconds(delay, "delay")
        return seconds, error_text(error)

    def _ended_before(self) -> bool:
        return self._grip.released or self._held.settling


@final
class Claim(Handle, ClaimState[T]):
    """A claim on one item: nobody else can have it while it is valid.

    Leaving its `with` block acknowledges the item; an exception gives it back, with the error.
    """

    def __init__(self, client: Client, recipe: QueueRecipe, held: Held, codec: Codec[T]) -> None:
        super().__init__(client, held.grip, recipe.label)
        self._recipe = recipe
        self._held = held
        self._codec = codec

    def ack(self, *, timeout: Timeout | DefaultTimeout = DEFAULT) -> None:
        """The item is done: delete it.

        Raises:
            ClaimLostError: The claim was lost before: somebody else does it, or has done it. Nothing was deleted.
            UnavailableError: No server answered in time; it is still claimed.
            OutcomeUnknownError: It may have been deleted; if not, it is served again.
            ClosedError: It was acknowledged or given back before.
        """
        self._client.run(self._recipe.acknowledge(self._held, timeout))

    def nack(
        self,
        delay: Timeout = None,
        error: BaseException | str | None = None,
        *,
        timeout: Timeout | DefaultTimeout = DEFAULT,
    ) -> None:
        """The attempt has failed: give the item back, or make a dead letter of it if its attempts are used up.

        It keeps its priority, headers and its place among equals.

        Args:
            delay: Seconds until it is served again; as the queue's `backoff` says where None.
            error: Why; kept with the item.
            timeout: Seconds for the whole call.

        Raises:
            ClaimLostError: The claim was lost before; nothing was changed.
            UnavailableError: No server answered in time; it is given back in the background, as it was.
            OutcomeUnknownError: It may have been given back.
            ClosedError: It was acknowledged or given back before.
        """
        seconds, text = self._failure(delay, error)
        self._client.run(self._recipe.give_up(self._held, seconds, text, timeout))

    def extend(self, seconds: Timeout, *, timeout: Timeout | DefaultTimeout = DEFAULT) -> None:
        """Keep a claim of a queue with a visibility timeout, so many seconds from now.

        Raises:
            ValueError: The queue has no visibility timeout.
            ClaimLostError: The claim was lost before.
            ClosedError: It was acknowledged or given back before.
            UnavailableError: No server answered in time.
        """
        self._client.run(self._recipe.extend(self._held, checked_visibility(seconds, "seconds"), timeout))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._ended_before():
            return
        reason = self._grip.reason
        if reason is not None:
            super().__exit__(kind, error, traceback)
        elif error is None:
            self._done()
        elif isinstance(error, Exception):
            try:
                self.nack(error=error)
            except ZkRecipesError as trouble:
                logger.warning("Item %s of %s is given back in the background: %s", self.id, self.path, trouble)
                self.release()
        else:
            self.release()

    def _done(self) -> None:
        if self.outbox is not None:
            with self._client.core.runtime.lock:
                self.outbox.add(self._held, self)
            return
        try:
            self.ack()
        except UnavailableError:
            self.release()
            raise


@final
class ClaimBatch(Generic[T]):
    """Several claims, made by one transaction. Leaving its `with` block acknowledges those that are still held.

    An exception gives them back.
    """

    def __init__(self, client: Client, recipe: QueueRecipe, claims: list[Claim[T]]) -> None:
        self._client = client
        self._recipe = recipe
        self._claims = claims

    def __iter__(self) -> Iterator[Claim[T]]:
        return iter(self._claims)

    def __len__(self) -> int:
        return len(self._claims)

    def __getitem__(self, index: int) -> Claim[T]:
        return self._claims[index]

    def ack(self, *, timeout: Timeout | DefaultTimeout = DEFAULT) -> None:
        """Acknowledge all that are still held, in one transaction.

        Raises:
            ClaimLostError: One or more were lost; the others are acknowledged.
            UnavailableError: No server answered in time; they are still claimed.
            OutcomeUnknownError: They may have been acknowledged.
        """
        open_ = [claim._held for claim in self._claims if not claim._ended_before()]  # noqa: SLF001 - our own handles
        for error in self._client.run(self._recipe.acknowledge_all(open_, timeout)):
            if error is not None:
                raise error

    def release(self) -> None:
        """Give all back that are still held, as if they had not been claimed."""
        for claim in self._claims:
            claim.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            try:
                self.ack()
            finally:
                self.release()
            return
        for claim in self._claims:
            claim.__exit__(kind, error, traceback)
