"""A queue that loses nothing: at least once, one claimant at a time, first in, first out within a priority.

Promises: an item that was stored is there, once, until it is acknowledged or a dead letter; no two claims on one item
can be proven at once; what a consumer that ended has claimed comes back with the end of its session, without any clock
of a client; a late acknowledgement fails loudly and touches nothing of others; a delayed item is never served early,
by the servers' time; what an operation lists is bounded, whatever the backlog.

Does not promise: exactly once. A consumer that dies between its work and the acknowledgement leaves an item that is
served again. Nor strict order over several consumers. Nor is it a message broker: each item is a node in the memory of
every server; up to ten thousand waiting items of a few kilobytes are what ZooKeeper is for.

Nodes: see queue_layout.py, and queue_curator_layout.py.

Source: ZooKeeper's queue recipe, kazoo's LockingQueue, Curator's queues. We differ: segments; claims that the server
checks; one transaction for many items; nothing is decided by a client's clock.
"""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, final

from typing_extensions import TypeVar

from zkrecipes.codec import BytesCodec, Codec, encoded
from zkrecipes.core import DEFAULT, DefaultTimeout
from zkrecipes.errors import CancelledError, ClosedError, DecodeError, ZkRecipesError
from zkrecipes.flow import Pending
from zkrecipes.handle import core_of
from zkrecipes.hold import Registration
from zkrecipes.queue_admin import Entry, QueueStats
from zkrecipes.queue_claim import Held
from zkrecipes.queue_handles import Claim, ClaimBatch, QueuedItem
from zkrecipes.queue_parts import Layout
from zkrecipes.queue_recipe import ItemId, Outbox, QueueRecipe, checked_count
from zkrecipes.timing import Timeout

if TYPE_CHECKING:
    from zkrecipes.client import Client

__all__ = ["Claim", "ClaimBatch", "Consumer", "ItemId", "Queue", "QueueStats", "QueuedItem"]

T = TypeVar("T", default=bytes)

logger = logging.getLogger("zkrecipes.queue")

OnFull = Literal["refuse", "wait"]


def queue_codec(codec: Codec[Any] | None) -> Codec[Any]:
    """Check a queue's codec; None is bytes."""
    if codec is None:
        return BytesCodec()
    usable = callable(getattr(codec, "decode", None)) and callable(getattr(codec, "encode", None))
    if isinstance(codec, type) or not usable:
        hint = "; give an instance, as in codec=TextCodec()" if isinstance(codec, type) else ""
        message = f"codec must have encode and decode, such as zkrecipes.TextCodec(), not {codec!r}{hint}"
        raise TypeError(message)
    return codec


@final
class Consumer(Generic[T]):
    """Iterates over claims, waiting for items; ends when it is closed.

    Leaving `with claim` inside the loop acknowledges soon, together with others: what fails is raised by the next step,
    or by `close`. An explicit `claim.ack()` waits.
    """

    def __init__(self, client: Client, queue: Queue[T], recipe: QueueRecipe, prefetch: int) -> None:
        self._client = client
        self._queue = queue
        self._prefetch = prefetch
        self._outbox = Outbox(recipe)
        self._closed: Pending[None] = Pending()
        self._claimed: deque[Claim[T]] = deque()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Claim[T]:
        while True:
            if self._closed.done:
                self._give_back()  # what was claimed while another thread closed it
                raise StopIteration
            self._outbox.check()
            while self._claimed:
                claimed = self._claimed.popleft()
                if not claimed.valid:
                    claimed.release()  # lost before it was handed out: somebody else does it
                    continue
                claim = self._queue._decoded(claimed)  # noqa: SLF001 - our own shell
                if claim is not None:
                    return claim
            try:
                self._client.run(self._claim_more())
            except CancelledError:
                raise StopIteration from None
            except ClosedError:
                self._closed.resolve(None)
                raise

    async def _claim_more(self) -> None:
        claims = await self._queue._claims(self._prefetch, None, self._closed)  # noqa: SLF001 - our own shell
        for claim in claims:
            claim.outbox = self._outbox
        # Within the last step: no interrupt can part them from what was claimed.
        self._claimed.extend(claims)

    def close(self) -> None:
        """End the iteration, from any thread: wait for acknowledgements, give back what was not handed out.

        Raises:
            ClaimLostError: A claim was lost before it was acknowledged.
            OutcomeUnknownError: An acknowledgement could not be settled.
        """
        with self._client.core.runtime.lock:
            self._closed.resolve(None)
        self._give_back()
        self._client.run(self._outbox.flush())

    def _give_back(self) -> None:
        with contextlib.suppress(IndexError):  # another thread may take the last one
            while True:
                self._claimed.pop().release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.close()
        except ZkRecipesError:
            if error is None:
                raise


@final
class Queue(Generic[T]):
    """A queue over all processes.

    An immutable description: it does nothing until it is used, and threads may share it.

    Args:
        client: From `connect`.
        path: The queue's path; nothing else may be below it.
        codec: How items are stored; bytes by default.
        layout: "segments" is ours. "curator", "curator-priority" and "curator-delay" share a queue with Curator's
            DistributedQueue, DistributedPriorityQueue and DistributedDelayQueue: every operation lists all of it.
        lock_path: Where claims are, in Curator's layouts: what its consumers were given as `lockPath`, which they must
            have been. `<path>-locks` where None.
        max_size: Items that it holds, about; None is unbounded.
        on_full: "refuse" raises QueueFullError, "wait" waits for room until the timeout.
        max_attempts: After so many claims without an acknowledgement an item is a dead letter; None for never.
        backoff: Seconds until the next attempt: a tenacity wait object, or a callable that is given the number of
            attempts made; at once where None.
        visibility: Seconds after which a claim ends although its session lives, unless extended; None for never.
        dedup_window: Seconds for which a `dedup_id` is remembered, at least.
        segment_size: Items of a shelf, about: what a listing reads.

    Raises:
        ValueError: An argument is not valid.
    """

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
            core_of(client, aio=False),
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

    def put(
        self,
        item: T,
        *,
        priority: int = 0,
        delay: Timeout = 0.0,
        dedup_id: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: Timeout | DefaultTimeout = DEFAULT,
    ) -> ItemId:
        """Store an item.

        Args:
            item: What the codec takes.
            priority: From -2^31 to 2^31 - 1; lower is served first.
            delay: Seconds before which it is not served.
            dedup_id: If an item was put with the same one within the window, nothing is stored, and its id returned.
            headers: Text for the consumer, kept over all attempts.
            timeout: Seconds for the whole call.

        Raises:
            PayloadTooLargeError: It is over the server's limit; nothing was sent.
            QueueFullError: It holds `max_size` items; nothing was stored.
            UnavailableError: No server answered in time; it was not stored, and will not be.
            OutcomeUnknownError: It may have been stored; it is never taken back.
        """
        payload = encoded(self._codec, item, self.path)
        records = self._recipe.records([payload], priority, delay, headers)
        [id_] = self._client.run(self._recipe.put(records, dedup_id, timeout))
        return id_

    def put_many(
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
        return self._client.run(self._recipe.put(records, None, timeout))

    def take(self, timeout: Timeout = None) -> Claim[T]:
        """Wait for an item, and claim it.

        Raises:
            AcquireTimeoutError: None was free until the timeout.
            UnavailableError: No server answered before the timeout.
        """
        while True:
            [claim] = self._client.run(self._claims(1, timeout))
            served = self._decoded(claim)
            if served is not None:
                return served

    def try_take(self, timeout: Timeout = 0) -> Claim[T] | None:
        """Like take, but return None when there is none. An outage raises UnavailableError."""
        while True:
            claims = self._client.run(self._try_claims(1, timeout))
            if not claims:
                return None
            served = self._decoded(claims[0])
            if served is not None:
                return served

    def take_many(self, k: int, timeout: Timeout = None) -> ClaimBatch[T]:
        """Wait for an item, and claim it and those behind it, up to `k`, in one transaction.

        Raises:
            AcquireTimeoutError: None was free until the timeout.
            UnavailableError: No server answered before the timeout.
        """
        checked_count("k", k)
        while True:
            claims = self._client.run(self._claims(k, timeout))
            served = [claim for claim in map(self._decoded, claims) if claim is not None]
            if served:
                return ClaimBatch(self._client, self._recipe, served)

    def consume(self, prefetch: int = 1) -> Consumer[T]:
        """Iterate over claims, for ever: `for claim in queue.consume(): with claim: work(claim.item)`.

        Args:
            prefetch: Items that are claimed in one go; those not handed out yet are claimed by us meanwhile.
        """
        return Consumer(self._client, self, self._recipe, checked_count("prefetch", prefetch))

    def stats(self, *, timeout: Timeout | DefaultTimeout = DEFAULT) -> QueueStats:
        """How it stands. Others put and take meanwhile: it is no picture of one moment."""
        return self._client.run(self._recipe.stats(timeout))

    def peek(self, n: int = 1, *, timeout: Timeout | DefaultTimeout = DEFAULT) -> list[QueuedItem[T]]:
        """Look at the first `n` items that nobody has claimed, in the order in which they are served."""
        return self._queued(self._client.run(self._recipe.peek(n, timeout)))

    def purge(self, *, timeout: Timeout | DefaultTimeout = DEFAULT) -> int:
        """Delete what waits and what is delayed, but nothing that is claimed, and no dead letter; how many it were."""
        return self._client.run(self._recipe.purge(timeout))

    def dead_letters(self, *, timeout: Timeout | DefaultTimeout = DEFAULT) -> list[QueuedItem[T]]:
        """What nobody could do, the oldest first."""
        return self._queued(self._client.run(self._recipe.dead_letters(timeout)))

    def redrive(self, ids: Iterable[str] | None = None, *, timeout: Timeout | DefaultTimeout = DEFAULT) -> int:
        """Put dead letters back at the end of the line, as if never attempted: these, or all; how many it were.

        Raises:
            UnavailableError: No server answered in time; some may have been put back. It is safe to repeat.
            OutcomeUnknownError: Some may have been put back. It is safe to repeat.
        """
        return self._client.run(self._recipe.redrive(ids, timeout))

    def _queued(self, entries: list[Entry]) -> list[QueuedItem[T]]:
        namespace = self._recipe.core.namespace
        return [QueuedItem(entry, self._codec, entry.path.removeprefix(namespace)) for entry in entries]

    def on_error(self, callback: Callable[[Exception], object]) -> Registration:
        """Call `callback(error)` for what cannot be served: foreign nodes, damaged ones, what does not decode."""
        return self._recipe.trouble.on_error(callback)

    # The handles are made within the last step, so that no interrupt can part them from what was claimed.
    async def _claims(self, want: int, timeout: Timeout, closed: Pending[None] | None = None) -> list[Claim[T]]:
        return self._handles(await self._recipe.take(want, timeout, closed))

    async def _try_claims(self, want: int, timeout: Timeout) -> list[Claim[T]]:
        return self._handles(await self._recipe.try_take(want, timeout))

    def _handles(self, helds: list[Held]) -> list[Claim[T]]:
        return [Claim(self._client, self._recipe, held, self._codec) for held in helds]

    def _decoded(self, claim: Claim[T]) -> Claim[T] | None:
        """The claim, its item decoded; None if that is not possible: it is given back for later, and reported."""
        try:
            claim.decode()
        except DecodeError as error:
            delay = self._recipe.put_off(claim._held, error)  # noqa: SLF001 - our own handle
            try:
                claim.nack(delay, error)
            except ZkRecipesError as trouble:
                logger.warning("Item %s of %s is given back in the background: %s", claim.id, self.path, trouble)
                claim.release()
            return None
        return claim

    def __repr__(self) -> str:
        return f"<Queue {self.path}>"
