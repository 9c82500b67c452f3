"""One queue as the shells for threads and asyncio use it: arguments checked, algorithms put together. Driver-free."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final, NewType, final

from zkrecipes.core import DEFAULT, Core, DefaultTimeout
from zkrecipes.errors import AcquireTimeoutError, DecodeError
from zkrecipes.flow import Pending
from zkrecipes.hold import Registration, checked_callback
from zkrecipes.patience import Patience
from zkrecipes.queue_admin import Entry, QueueStats
from zkrecipes.queue_claim import Claims, Held
from zkrecipes.queue_layout import Record, checked_headers, checked_priority
from zkrecipes.queue_overdue import Overdue
from zkrecipes.queue_parts import Parts, curator_parts, shelf_parts
from zkrecipes.queue_room import Room
from zkrecipes.queue_take import Taker
from zkrecipes.timing import Timeout, to_seconds

__all__ = ["ItemId", "Outbox", "QueueRecipe", "checked_count"]

logger = logging.getLogger("zkrecipes.queue")

ItemId = NewType("ItemId", str)
"""What a put returns: it names the item for ever, wherever it is moved."""

UNDECODABLE: Final = 30.0
"""Seconds until an item that did not decode is served again, where no backoff says otherwise: those behind it go on."""

SMALLEST_SEGMENT: Final = 2
LONGEST_VISIBILITY: Final = 10**9


@final
class Trouble:
    """What could not be served, told once each: to the log, and to callbacks. One a client and queue."""

    def __init__(self, core: Core, label: str) -> None:
        self._core = core
        self._label = label
        self._told: dict[str, bool] = {}
        self._callbacks: list[Callable[[Exception], Any]] = []

    def foreign(self, path: str) -> None:
        """A node that is none of ours."""
        shown = path.removeprefix(self._core.namespace)
        message = f"{shown} is no node of the queue {self._label}: somebody else has made it. It is left alone"
        self.report(path, DecodeError(message, path=shown))

    def report(self, path: str, error: Exception) -> None:
        """Something that cannot be served."""
        if path in self._told:
            return
        self._told[path] = True
        logger.warning("%s: %s", self._label, error)
        self.tell(error)

    def tell(self, error: Exception) -> None:
        """Call the callbacks, off the step lock."""
        for callback in self._callbacks:
            self._core.runtime.dispatch(callback, partial(callback, error))

    def on_error(self, callback: Callable[[Exception], Any]) -> Registration:
        """Register a callback."""
        checked_callback(callback)
        with self._core.runtime.lock:
            self._callbacks.append(callback)
        return Registration(lambda: self._forget(callback))

    def _forget(self, callback: Callable[[Exception], Any]) -> None:
        with self._core.runtime.lock:
            if callback in self._callbacks:
                self._callbacks.remove(callback)


@final
class QueueRecipe:
    """The algorithms, for every driver. Arguments as of Queue."""

    def __init__(
        self,
        core: Core,
        path: str,
        *,
        layout: str = "segments",
        lock_path: str | None = None,
        max_size: int | None = None,
        on_full: str = "refuse",
        max_attempts: int | None = None,
        backoff: object = None,
        visibility: Timeout = None,
        dedup_window: Timeout = 600.0,
        segment_size: int = 500,
    ) -> None:
        self.core = core
        self.label = path
        self.max_size = None if max_size is None else checked_count("max_size", max_size)
        if on_full not in {"refuse", "wait"}:
            message = f"on_full must be 'refuse' or 'wait', not {on_full!r}"
            raise ValueError(message)
        self.on_full = on_full
        self.max_attempts = None if max_attempts is None else checked_count("max_attempts", max_attempts)
        if backoff is not None and not callable(backoff):
            message = f"backoff must be a tenacity wait object or a callable(attempt), not {type(backoff).__name__}"
            raise TypeError(message)
        self._backoff: Any = backoff
        self.visibility = None if visibility is None else checked_visibility(visibility)
        window = to_seconds(dedup_window, "dedup_window")
        if not 0 < window < 10**9:
            message = f"dedup_window must be more than 0 seconds, and less than 30 years, not {window}"
            raise ValueError(message)
        if checked_count("segment_size", segment_size) < SMALLEST_SEGMENT:
            message = f"segment_size must be at least {SMALLEST_SEGMENT}, not {segment_size}"
            raise ValueError(message)
        full = core.path(path)
        with core.runtime.lock:
            self.trouble: Trouble = core.shared.setdefault(("queue trouble", full), Trouble(core, path))
        parts = self._parts(path, layout, lock_path, window, segment_size)
        self._ground, self._sight, self.putter, self._admin = parts
        if backoff is not None and not self._ground.delays:
            message = f"a queue with layout={layout!r} has no delays, so it cannot have a backoff"
            raise ValueError(message)
        self.claims = Claims(core, self._ground, self.putter, self.max_attempts, self._sight.returned)
        self._room = Room(core, self._ground, self._admin, self.max_size, wait=on_full == "wait")
        overdue = Overdue(core, self._ground, self._sight, self.visibility)
        self._taker = Taker(core, self._ground, self._sight, self.claims, self.trouble.report, overdue)

    def _parts(self, path: str, layout: str, lock_path: str | None, window: float, segment_size: int) -> Parts:
        if layout != "segments":
            return curator_parts(self.core, layout, path, lock_path, self.trouble.foreign, window)
        if lock_path is not None:
            message = "lock_path belongs to Curator's layouts; layout='segments' has its claims below its path"
            raise ValueError(message)
        return shelf_parts(self.core, path, self.trouble.foreign, window, segment_size)

    # --- puts ---------------------------------------------------------------------------------------------------------

    def records(
        self, payloads: Sequence[bytes], priority: int, delay: Timeout, headers: Mapping[str, str] | None
    ) -> list[Record]:
        """New items, checked."""
        seconds = to_seconds(0.0 if delay is None else delay, "delay")
        if checked_priority(priority) and not self._ground.priorities:
            message = f"{self.label} has a layout without priorities: use 'segments' or 'curator-priority'"
            raise ValueError(message)
        self._check_delay(seconds)
        checked = checked_headers(headers)
        return [self.putter.record(payload, priority, seconds, checked) for payload in payloads]

    async def put(
        self, records: Sequence[Record], dedup_id: str | None, timeout: Timeout | DefaultTimeout
    ) -> list[ItemId]:
        """Store items, all or none."""
        if not records:
            return []
        deadline = self.core.deadline(timeout)
        await self._room.take(len(records), deadline)
        return [ItemId(id_) for id_ in await self.putter.put(records, dedup_id, deadline)]

    # --- takes --------------------------------------------------------------------------------------------------------

    async def take(self, want: int, timeout: Timeout, cancelled: Pending[None] | None = None) -> list[Held]:
        """Claim up to so many items."""
        return await self._taker.take(want, Patience.of(timeout, self.core.runtime.now(), cancelled))

    async def try_take(self, want: int, timeout: Timeout) -> list[Held]:
        """Like take, but empty if there is none."""
        try:
            return await self.take(want, timeout)
        except AcquireTimeoutError:
            return []

    def delay_after(self, attempt: int) -> float:
        """Seconds until the next attempt, as the user's backoff says. User code: not under the step lock."""
        if self._backoff is None:
            return 0.0
        from zkrecipes.settings import Retry  # noqa: PLC0415 - brings in tenacity, which few need

        if hasattr(self._backoff, "__radd__"):
            return max(0.0, float(Retry(wait=self._backoff).pause(attempt, 0.0) or 0.0))
        return max(0.0, float(self._backoff(attempt)))

    async def acknowledge(self, held: Held, timeout: Timeout | DefaultTimeout) -> None:
        """Acknowledge one claim, and wait for it."""
        [error] = await self.claims.acknowledge([held], self.core.deadline(timeout))
        if error is not None:
            raise error

    async def acknowledge_all(
        self, claims: Sequence[Held], timeout: Timeout | DefaultTimeout
    ) -> list[Exception | None]:
        """Acknowledge several, in one transaction as far as they are still ours; what became of each."""
        return await self.claims.acknowledge(claims, self.core.deadline(timeout))

    def put_off(self, held: Held, error: DecodeError) -> float:
        """An item did not decode: it is reported, and to be given back with this delay."""
        logger.warning("Item %s of %s is put off: %s", held.record.id, self.label, error)
        self.trouble.tell(error)
        delay = self.delay_after(held.record.attempts) or UNDECODABLE
        if self._ground.delays:
            return delay
        self._sight.rest(held.want.slot, delay)
        return 0.0

    def _check_delay(self, seconds: float) -> None:
        if seconds > 0 and not self._ground.delays:
            message = f"{self.label} has a layout without delays: use 'segments' or 'curator-delay'"
            raise ValueError(message)

    async def extend(self, held: Held, seconds: float, timeout: Timeout | DefaultTimeout) -> None:
        """Let a claim with a visibility timeout end later."""
        await self.claims.extend(held, seconds, self.core.deadline(timeout))

    async def give_up(self, held: Held, delay: float, error: str, timeout: Timeout | DefaultTimeout) -> None:
        """Give one back after a failure."""
        self._check_delay(delay)
        await self.claims.give_up(held, delay, error, self.core.deadline(timeout))

    # --- for operators ------------------------------------------------------------------------------------------------

    async def stats(self, timeout: Timeout | DefaultTimeout) -> QueueStats:
        """How it stands."""
        return await self._admin.stats(self.core.deadline(timeout))

    async def peek(self, count: int, timeout: Timeout | DefaultTimeout) -> list[Entry]:
        """What is served next."""
        return await self._admin.peek(checked_count("n", count), self.core.deadline(timeout))

    async def purge(self, timeout: Timeout | DefaultTimeout) -> int:
        """Delete what nobody has claimed."""
        done = await self._admin.purge(self.core.deadline(timeout))
        logger.warning("%s was purged of %d items", self.label, done)
        return done

    async def dead_letters(self, timeout: Timeout | DefaultTimeout) -> list[Entry]:
        """What nobody could do."""
        return await self._admin.dead_letters(self.core.deadline(timeout))

    async def redrive(self, ids: Iterable[str] | None, timeout: Timeout | DefaultTimeout) -> int:
        """Put dead letters back."""
        if isinstance(ids, str):
            message = "ids must be a list of ids, not one str"
            raise TypeError(message)
        return await self._admin.redrive(ids, self.core.deadline(timeout))


@final
class Outbox:
    """Acknowledgements of one consumer, sent together: what ends while one is on its way goes with the next.

    Attributes:
        errors: Of acknowledgements that failed, to be told at the next step of the consumer.
    """

    def __init__(self, recipe: QueueRecipe) -> None:
        self._recipe = recipe
        self._waiting: list[tuple[Held, object]] = []
        self._sending: Pending[None] = Pending.of(None)
        self.errors: deque[Exception] = deque()

    def add(self, held: Held, handle: object) -> None:
        """Acknowledge it soon. Under the step lock. The handle is kept until then: if dropped, it is given back."""
        self._recipe.claims.check(held)
        self._waiting.append((held, handle))
        if self._sending.done:
            self._sending = self._recipe.core.runtime.spawn(self._send(), f"acknowledge items of {self._recipe.label}")

    async def _send(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            deadline = self._recipe.core.deadline(DEFAULT)
            results = await self._recipe.claims.acknowledge([held for held, _ in batch], deadline)
            for (held, _), error in zip(batch, results, strict=True):
                if error is not None:
                    self.errors.append(error)
                    await held.grip.release()

    async def flush(self) -> None:
        """Wait until all are settled, and raise the first error."""
        while not self._sending.done:
            await self._sending
        self.check()

    def check(self) -> None:
        """Raise what has failed, one at a time."""
        if self.errors:
            raise self.errors.popleft()


def checked_count(name: str, value: int) -> int:
    """Check a number of things.

    Raises:
        TypeError: It is no int.
        ValueError: It is less than 1.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        message = f"{name} must be an int, not {type(value).__name__}"
        raise TypeError(message)
    if value < 1:
        message = f"{name} must be at least 1, not {value}"
        raise ValueError(message)
    return value


def checked_visibility(seconds: Timeout, name: str = "visibility") -> float:
    """Check for how long a claim counts.

    Raises:
        TypeError: It is no number of seconds.
        ValueError: It is 0 or less, or longer than thirty years.
    """
    value = to_seconds(seconds, name)
    if not 0 < value < LONGEST_VISIBILITY:
        message = f"{name} must be more than 0 seconds, and less than 30 years, not {value}"
        raise ValueError(message)
    return value
