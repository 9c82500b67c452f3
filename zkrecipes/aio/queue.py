"""A queue, for asyncio. The algorithms, and what is promised, are in zkrecipes.queue."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Self, final

from typing_extensions import TypeVar

from zkrecipes.aio.handle import Handle, Opening
from zkrecipes.codec import Codec, encoded
from zkrecipes.core import DEFAULT, DefaultTimeout
from zkrecipes.errors import CancelledError, ClosedError, DecodeError, UnavailableError, ZkRecipesError
from zkrecipes.flow import Pending
from zkrecipes.handle import core_of
from zkrecipes.hold import Registration
from zkrecipes.queue import OnFull, queue_codec
from zkrecipes.queue_admin import Entry, QueueStats
from zkrecipes.queue_claim import Held
from zkrecipes.queue_handles import ClaimState, QueuedItem
from zkrecipes.queue_parts import Layout
from zkrecipes.queue_recipe import ItemId, Outbox, QueueRecipe, checked_count, checked_visibility
from zkrecipes.timing import Timeout

if TYPE_CHECKING:
    from zkrecipes.aio.client import Client

__all__ = ["Claim", "ClaimBatch", "Consumer", "Queue"]

T = TypeVar("T", default=bytes)

logger = logging.getLogger("zkrecipes.queue")


@final
class Claim(Handle, ClaimState[T]):
    """A claim on one item. Leaving its `async with` block acknowledges the item; an exception gives it back."""

    def __init__(self, client: Client, recipe: QueueRecipe, held: Held, codec: Codec[T]) -> None:
        super().__init__(client, held.grip, recipe.label)
        self._recipe = recipe
        self._held = held
        self._codec = codec

    async def ack(self, *, timeout: Timeout | DefaultTimeout = DEFAULT) -> None:
        """The item is done: delete it. Errors as of zkrecipes.Claim.ack."""
        await self._client.run(self._recipe.acknowledge(self._held, timeout))

    async def nack(
        self,
        delay: Timeout = None,
        error: BaseException | str | None = None,
        *,
        timeout: Timeout | DefaultTimeout = DEFAULT,
    ) -> None:
        """The attempt has failed: give the item back. Arguments and errors as of zkrecipes.Claim.nack."""
        seconds, text = self._failure(delay, error)
        await self._client.run(self._recipe.give_up(self._held, seconds, text, timeout))

    async def extend(self, seconds: Timeout, *, timeout: Timeout | DefaultTimeout = DEFAULT) -> None:
        """Keep a claim of a queue with a visibility timeout, so many seconds from now.

        Raises:
            ValueError: The queue has no visibility timeout.
            ClaimLostError: The claim was lost before.
            ClosedError: It was acknowledged or given back before.
            UnavailableError: No server answered in time.
        """
        await self._client.run(self._recipe.extend(self._held, checked_visibility(seconds, "seconds"), timeout))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._ended_before():
            return
        if self._grip.reason is not None:
            await super().__aexit__(kind, error, traceback)
        elif error is None:
            await self._done()
        elif isinstance(error, Exception):
            try:
                await self.nack(error=error)
            except ZkRecipesError as trouble:
                logger.warning("Item %s of %s is given back in the background: %s", self.id, self.path, trouble)
                await self.release()
        else:
            await self.release()

    async def _done(self) -> None:
        if self.outbox is not None:
            with self._client.core.runtime.lock:
                self.outbox.add(self._held, self)
            return
        try:
            await self.ack()
        except UnavailableError:
            await self.release()
            raise


@final
class ClaimBatch(Generic[T]):
    """Several claims, made by one transaction. As zkrecipes.ClaimBatch, with `async with`."""

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

    async def ack(self, *, timeout: Timeout | DefaultTimeout = DEFAULT) -> None:
        """Acknowledge all that are still held, in one transaction. Errors as of zkrecipes.ClaimBatch.ack."""
        open_ = [claim._held for claim in self._claims if not claim._ended_before()]  # noqa: SLF001 - our own handles
        for error in await self._client.run(self._recipe.acknowledge_all(open_, timeout)):
            if error is not None:
                raise error

    async def release(self) -> None:
        """Give all back that are still held, as if they had not been claimed."""
        for claim in self._claims:
            await claim.release()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            try:
                await self.ack()
            finally:
                await self.release()
            return
        for claim in self._claims:
            await claim.__aexit__(kind, error, traceback)


@final
class Consumer(Generic[T]):
    """Iterates over claims with `async for`; ends when it is closed. As zkrecipes.Consumer."""

    def __init__(self, client: Client, queue: Queue[T], recipe: QueueRecipe, prefetch: int) -> None:
        self._client = client
        self._queue = queue
        self._prefetch = prefetch
        self._outbox = Outbox(recipe)
        self._closed: Pending[None] = Pending()
        self._claimed: deque[Claim[T]] = deque()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Claim[T]:
        while True:
            if self._closed.done:
                await self._give_back()  # what was claimed while another task closed it
                raise StopAsyncIteration
            self._outbox.check()
            while self._claimed:
                claimed = self._claimed.popleft()
                if not claimed.valid:
                    await claimed.release()  # lost before it was handed out: somebody else does it
                    continue
                claim = await self._queue._decoded(claimed)  # noqa: SLF001 - our own shell
                if claim is not None:
                    return claim
            try:
                await self._client.run(self._claim_more())
            except CancelledError:
                raise StopAsyncIteration from None
            except ClosedError:
                self._closed.resolve(None)
                raise

    async def _claim_more(self) -> None:
        claims = await self._queue._claims(self._prefetch, None, self._closed)  # noqa: SLF001 - our own shell
        for claim in claims:
            claim.outbox = self._outbox
        # Within the last step: no cancellation can part them from what was claimed.
        self._claimed.extend(claims)

    async def close(self) -> None:
        """End the iteration: wait for acknowledgements, give back what was not handed out. Errors as of Consumer."""
        with self._client.core.runtime.lock:
            self._closed.resolve(None)
        await self._give_back()
        await self._client.run(self._outbox.flush())

    async def _give_back(self) -> None:
        while self._claimed:
            await self._claimed.pop().release()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self.close()
        except ZkRecipesError:
            if error is None:
                raise


@final
class Queue(Generic[T]):
    """A queue over all tasks and processes. Arguments as of zkrecipes.Queue."""

    def __init__(
        self,
        client: Client,
        path: str,
        *,
        codec: Codec[T] | None = None,
        layout: Layout = "segments",
        lock_path: str | None = None,
        max_size: int | None = None,
        on_full: OnFull = "refuse",
        max_attempts: int | None = None,
        backoff: object = None,
        visibility: Timeout = None,
        dedup_window: Timeout = 600.0,
        segment_size: int = 500,
    ) -> None:
        self._client = client
        self._codec: Codec[T] = queue_codec(codec)
        self._recipe = QueueRecipe(
            core_of(client, aio=True),
            path,
            layout=layout,
            lock_path=lock_path,
            max_size=max_size,
            on_full=on_full,
            max_attempts=max_attempts,
            backoff=backoff,
            visibility=visibility,
            dedup_window=dedup_window,
            segment_size=segment_size,
        )

    @property
    def path(self) -> str:
        """The queue's path, below the client's namespace."""
        return self._recipe.label

    async def put(
        self,
        item: T,
        *,
        priority: int = 0,
        delay: Timeout = 0.0,
        dedup_id: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: Timeout | DefaultTimeout = DEFAULT,
    ) -> ItemId:
        """Store an item. Arguments and errors as of zkrecipes.Queue.put."""
        records = self._recipe.records([encoded(self._codec, item, self.path)], priority, delay, headers)
        [id_] = await self._client.run(self._recipe.put(records, dedup_id, timeout))
        return id_

    async def put_many(
        self,
        items: Iterable[T],
        *,
        priority: int = 0,
        delay: Timeout = 0.0,
        headers: Mapping[str, str] | None = None,
        timeout: Timeout | DefaultTimeout = DEFAULT,
    ) -> list[ItemId]:
        """Store items in one transaction: all, in this order, or none. Errors as of `put`."""
        payloads = [encoded(self._codec, item, self.path) for item in items]
        records = self._recipe.records(payloads, priority, delay, headers)
        return await self._client.run(self._recipe.put(records, None, timeout))

    def take(self, timeout: Timeout = None) -> Opening[Claim[T]]:
        """Wait for an item, and claim it: `claim = await queue.take()`, or `async with queue.take() as claim`.

        Cancelling the task ends the wait and leaves nothing claimed. Errors as of zkrecipes.Queue.take.
        """

        async def begin() -> Claim[T]:
            while True:
                [claim] = await self._client.run(self._claims(1, timeout))
                served = await self._decoded(claim)
                if served is not None:
                    return served

        return Opening(begin)

    async def try_take(self, timeout: Timeout = 0) -> Claim[T] | None:
        """Like take, but return None when there is none. An outage raises UnavailableError."""
        while True:
            claims = await self._client.run(self._try_claims(1, timeout))
            if not claims:
                return None
            served = await self._decoded(claims[0])
            if served is not None:
                return served

    def take_many(self, k: int, timeout: Timeout = None) -> Opening[ClaimBatch[T]]:
        """Wait for an item, and claim it and those behind it, up to `k`: awaited, or with `async with`."""
        checked_count("k", k)

        async def begin() -> ClaimBatch[T]:
            while True:
                claims = await self._client.run(self._claims(k, timeout))
                served = [claim for claim in [await self._decoded(claim) for claim in claims] if claim is not None]
                if served:
                    return ClaimBatch(self._client, self._recipe, served)

        return Opening(begin)

    def consume(self, prefetch: int = 1) -> Consumer[T]:
        """Iterate over claims with `async for`, for ever. As zkrecipes.Queue.consume."""
        return Consumer(self._client, self, self._recipe, checked_count("prefetch", prefetch))

    async def stats(self, *, timeout: Timeout | DefaultTimeout = DEFAULT) -> QueueStats:
        """How it stands. Others put and take meanwhile: it is no picture of one moment."""
        return await self._client.run(self._recipe.stats(timeout))

    async def peek(self, n: int = 1, *, timeout: Timeout | DefaultTimeout = DEFAULT) -> list[QueuedItem[T]]:
        """Look at the first `n` items that nobody has claimed, in the order in which they are served."""
        return self._queued(await self._client.run(self._recipe.peek(n, timeout)))

    async def purge(self, *, timeout: Timeout | DefaultTimeout = DEFAULT) -> int:
        """Delete what waits and what is delayed, but nothing that is claimed, and no dead letter; how many it were."""
        return await self._client.run(self._recipe.purge(timeout))

    async def dead_letters(self, *, timeout: Timeout | DefaultTimeout = DEFAULT) -> list[QueuedItem[T]]:
        """What nobody could do, the oldest first."""
        return self._queued(await self._client.run(self._recipe.dead_letters(timeout)))

    async def redrive(self, ids: Iterable[str] | None = None, *, timeout: Timeout | DefaultTimeout = DEFAULT) -> int:
        """Put dead letters back at the end of the line, as if never attempted: these, or all; how many it were.

        Raises:
            UnavailableError: No server answered in time; some may have been put back. It is safe to repeat.
            OutcomeUnknownError: Some may have been put back. It is safe to repeat.
        """
        return await self._client.run(self._recipe.redrive(ids, timeout))

    def _queued(self, entries: list[Entry]) -> list[QueuedItem[T]]:
        namespace = self._recipe.core.namespace
        return [QueuedItem(entry, self._codec, entry.path.removeprefix(namespace)) for entry in entries]

    def on_error(self, callback: Callable[[Exception], object]) -> Registration:
        """Call `callback(error)`, on the event loop, for what cannot be served."""
        return self._recipe.trouble.on_error(callback)

    # The handles are made within the last step, so that no cancellation can part them from what was claimed.
    async def _claims(self, want: int, timeout: Timeout, closed: Pending[None] | None = None) -> list[Claim[T]]:
        return self._handles(await self._recipe.take(want, timeout, closed))

    async def _try_claims(self, want: int, timeout: Timeout) -> list[Claim[T]]:
        return self._handles(await self._recipe.try_take(want, timeout))

    def _handles(self, helds: list[Held]) -> list[Claim[T]]:
        return [Claim(self._client, self._recipe, held, self._codec) for held in helds]

    async def _decoded(self, claim: Claim[T]) -> Claim[T] | None:
        """The claim, its item decoded; None if that is not possible: it is given back for later, and reported."""
        try:
            claim.decode()
        except DecodeError as error:
            delay = self._recipe.put_off(claim._held, error)  # noqa: SLF001 - our own handle
            try:
                await claim.nack(delay, error)
            except ZkRecipesError as trouble:
                logger.warning("Item %s of %s is given back in the background: %s", claim.id, self.path, trouble)
                await claim.release()
            return None
        return claim

    def __repr__(self) -> str:
        return f"<aio.Queue {self.path}>"
