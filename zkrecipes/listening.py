"""What a listener does, once for threads and asyncio: decode, tell, show. Driver-free.

The mirror below keeps raw nodes; here they become typed values and calls of the user's callbacks. Both run on the
dispatcher (or, for snapshots and iteration, in the caller's thread), never under the step lock: a callback that blocks
delays its own listener alone.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, Generic, TypeVar, cast, final

from zkrecipes.changes import Change, Consumer, RawChange
from zkrecipes.codec import Codec, decoded
from zkrecipes.core import Core, DefaultTimeout
from zkrecipes.errors import AcquireTimeoutError, ClosedError, DecodeError, ZkRecipesError
from zkrecipes.flow import Pending, first_of
from zkrecipes.handle import Registration
from zkrecipes.hold import checked_callback
from zkrecipes.known import Seen
from zkrecipes.mirror import Mirror
from zkrecipes.operations import Node
from zkrecipes.scope import Scope
from zkrecipes.timing import Deadline, Timeout

__all__ = ["ListenerState", "full_path"]

T = TypeVar("T")
F = Callable[..., object]

logger = logging.getLogger("zkrecipes.listener")

CLOSE_LIMIT: Final = 1.0
"""Seconds that close() waits for the server to take the watches off."""


@final
class _Callback:
    __slots__ = ("after_initial", "function")

    def __init__(self, function: F, *, after_initial: bool) -> None:
        self.function = function
        self.after_initial = after_initial


@final
class ListenerState(Generic[T]):
    """One listener.

    Args:
        core: The client's.
        scope: Which nodes it looks at.
        codec: How their data is decoded; None for data that is not wanted.
        persistent: Whether persistent recursive watches suit it.
        include: Says, for a path below the namespace, whether that node and what is below it is wanted.
        label: Its paths, for messages.
    """

    def __init__(
        self,
        core: Core,
        scope: Scope,
        codec: Codec[T] | None,
        *,
        persistent: bool,
        include: Callable[[str], bool] | None = None,
        label: str,
    ) -> None:
        self.core = core
        self._codec = codec
        self._include = include
        self._judging = object()
        self.mirror = Mirror(
            core,
            scope,
            data=codec is not None,
            persistent=persistent,
            judge=None if include is None else self._judge,
            label=label,
        )
        self._callbacks: dict[object, list[_Callback]] = {}
        self._consumer = self.consumer()
        self.mirror.observers.append(self._touched)
        self._begun = False
        self._scheduled = False
        self._told_initialized = False
        self._told_fresh = True
        self._told_refused: dict[str, ZkRecipesError] = {}
        self._shown: tuple[int, Mapping[str, Node[T]]] = (-1, MappingProxyType({}))

    # --- its life -------------------------------------------------------------------------------------------------

    async def start(self, timeout: Timeout | DefaultTimeout) -> None:
        """Begin, and wait for the first state. If it fails, nothing is left."""
        self.check_open()
        self._begun = True
        try:
            await self.mirror.start(self.core.deadline(timeout))
            for root in self.mirror.scope.roots:
                if root in self.mirror.refused:
                    raise self.mirror.refused[root]
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        """Tell nothing more."""
        self.mirror.closed.resolve(None)
        self._consumer.close()
        self._callbacks.clear()

    async def close(self) -> None:
        """End it, here and on the server."""
        self.end()
        await self.mirror.close(CLOSE_LIMIT)

    def check_open(self) -> None:
        """Raise if it has been closed, or its client."""
        self.core.session.check_open(self.mirror.label)
        if self.mirror.closed.done:
            message = f"the listener of {self.mirror.label} is closed; make a new one"
            raise ClosedError(message, path=self.mirror.label)

    def check_process(self) -> None:
        """Raise in a fork, where the step lock may be held for ever by a thread that is not there."""
        if self.core.runtime.forked():
            self.core.session.check_open(self.mirror.label)

    def check_running(self) -> None:
        """Raise if it has not been started, or was closed."""
        self.check_open()
        if not self._begun:
            message = f"the listener of {self.mirror.label} has not been started; use `with listener:`, or start()"
            raise ClosedError(message, path=self.mirror.label)

    # --- callbacks ------------------------------------------------------------------------------------------------

    def register(self, kind: object, callback: F, *, after_initial: bool = False) -> Registration:
        """Add a callback."""
        checked_callback(callback)
        if inspect.iscoroutinefunction(callback):
            message = "callback must be a plain function; for coroutines, iterate with `async for change in listener`"
            raise TypeError(message)
        entry = _Callback(callback, after_initial=after_initial)
        self.check_process()
        with self.core.runtime.lock:
            self.check_open()
            if kind == "initialized" and self._told_initialized:
                self.core.runtime.dispatch(self, lambda: self._call(callback))
            else:
                self._callbacks.setdefault(kind, []).append(entry)
        return Registration(lambda: self._forget(kind, entry))

    def _forget(self, kind: object, entry: _Callback) -> None:
        if self.core.runtime.forked():
            return
        with self.core.runtime.lock:
            entries = self._callbacks.get(kind, [])
            if entry in entries:
                entries.remove(entry)

    def _touched(self, _path: str | None) -> None:
        # Not when the client is being closed: "stale" would be the last word of a state that nobody wants any more.
        if not (self._scheduled or self.mirror.closed.done or self.core.session.closed):
            self._scheduled = True
            self.core.runtime.dispatch(self, self._tell_all)

    def _tell_all(self) -> None:
        """On the dispatcher: tell what has changed since the last time."""
        mirror = self.mirror
        with self.core.runtime.lock:
            self._scheduled = False
            changes = self._consumer.take()
            marks = self._marks()
            refused = [error for path, error in mirror.refused.items() if path not in self._told_refused]
            self._told_refused = dict(mirror.refused)
        for change in changes:
            self._tell(change)
        for error in refused:
            self._report(error)
        for mark in marks:
            if mark == "initialized":
                self._told_initialized = True
            for entry in self._entries(mark):
                self._call(entry.function)

    def _marks(self) -> list[str]:
        mirror, marks = self.mirror, []
        if not mirror.initialized:
            return []
        if not self._told_initialized:
            marks.append("initialized")
        if mirror.fresh is not self._told_fresh:
            self._told_fresh = mirror.fresh
            marks.append("fresh" if mirror.fresh else "stale")
        return marks

    def _tell(self, raw: RawChange) -> None:
        try:
            change = self.change(raw)
        except DecodeError as error:
            self.untold(self._consumer, raw)
            self._report(error)
            return
        for entry in self._entries(change.kind):
            if self._told_initialized or not entry.after_initial:
                self._call(entry.function, change)

    def _entries(self, kind: object) -> list[_Callback]:
        with self.core.runtime.lock:
            return [] if self.mirror.closed.done else list(self._callbacks.get(kind, ()))

    def _call(self, function: F, *args: object) -> None:
        if self.mirror.closed.done:
            return  # since the last one, perhaps by it
        try:
            function(*args)
        except Exception as error:
            logger.exception("A callback of the listener of %s failed; the others go on", self.mirror.label)
            self._report(error, logged=True)

    def _report(self, error: Exception, *, logged: bool = False) -> None:
        entries = self._entries("error")
        if not entries and not logged:
            logger.warning("The listener of %s: %s", self.mirror.label, error)
        for entry in entries:
            try:
                entry.function(error)
            except Exception:
                logger.exception("An on_error callback of the listener of %s failed", self.mirror.label)

    def _judge(self, paths: list[str]) -> Pending[dict[str, bool]]:
        judged: Pending[dict[str, bool]] = Pending()

        def ask() -> None:
            verdicts = {path: self._is_included(path) for path in paths}
            with self.core.runtime.lock:
                judged.resolve(verdicts)

        # Not behind this listener's own callbacks: one of them may be blocked.
        self.core.runtime.dispatch(self._judging, ask)
        return judged

    def _is_included(self, path: str) -> bool:
        if self._include is None:
            return True
        try:
            return bool(self._include(self.short(path)))
        except Exception as error:
            # Rather a node too many than one that is missed.
            logger.exception("include failed for %s, which is taken to be wanted", self.short(path))
            self._report(error, logged=True)
            return True

    # --- values -------------------------------------------------------------------------------------------------------

    def short(self, path: str) -> str:
        """The path below the namespace."""
        return path[len(self.core.namespace) :] or "/"

    def node(self, path: str, seen: Seen) -> Node[T]:
        """A node with its data decoded, once.

        Raises:
            DecodeError: It does not decode.
        """
        outcome = seen.decoded
        if outcome is None:
            short = self.short(path)
            try:
                value = cast("T", None) if self._codec is None else decoded(self._codec, seen.data, short)
                outcome = Node(short, value, seen.stat)
            except DecodeError as error:
                outcome = error
            seen.decoded = outcome
        if isinstance(outcome, DecodeError):
            raise outcome.with_traceback(None)
        return cast("Node[T]", outcome)

    def change(self, raw: RawChange) -> Change[T]:
        """A change with its values decoded.

        Raises:
            DecodeError: The new one does not decode.
        """
        old = None if raw.old is None else self.node(raw.path, raw.old)
        new = None if raw.new is None else self.node(raw.path, raw.new)
        node = cast("Node[T]", new or old)
        return Change(raw.kind, node.path, old and old.value, new and new.value, node.stat)

    def snapshot(self) -> tuple[int, Mapping[str, Node[T]]]:
        """The number of the state, and its nodes."""
        mirror = self.mirror
        self.check_process()
        with self.core.runtime.lock:
            version = mirror.version
            if self._shown[0] == version:
                return self._shown
            seen = [(path, node) for path, node in mirror.nodes.items() if mirror.scope.shows(path)]
        nodes: dict[str, Node[T]] = {}
        for path, each in sorted(seen, key=lambda item: item[0]):
            try:
                node = self.node(path, each)
            except DecodeError:
                continue
            nodes[node.path] = node
        shown = (version, MappingProxyType(nodes))
        with self.core.runtime.lock:
            if version > self._shown[0]:
                self._shown = shown
        return shown

    def get(self, path: str) -> Node[T] | None:
        """One node."""
        full = full_path(self.core, path)
        self.check_process()
        with self.core.runtime.lock:
            seen = self.mirror.nodes.get(full)
            refused = self.mirror.refused.get(full)
        if seen is None:
            if refused is not None:
                raise refused
            return None
        return self.node(full, seen) if self.mirror.scope.shows(full) else None

    @property
    def fresh(self) -> bool:
        """Whether the state is complete, watched, and the connection up."""
        session = self.core.session
        return self.mirror.fresh and session.usable and not self.core.runtime.forked()

    # --- waiting --------------------------------------------------------------------------------------------------

    async def newer(self, version: int, deadline: Deadline) -> None:
        """Wait until the state is another than this."""
        mirror, runtime = self.mirror, self.core.runtime
        while mirror.version == version:
            self.check_running()
            if deadline.passed(runtime.now()):
                if not self.fresh:
                    raise self.core.session.unavailable(mirror.label)
                message = f"the state that was waited for at {mirror.label} did not come in time"
                raise AcquireTimeoutError(message, path=mirror.label, timeout=deadline.timeout)
            await first_of(mirror.changed, mirror.closed, self.core.session.changed, until=deadline.at)

    def consumer(self) -> Consumer:
        """A new consumer of the raw changes."""
        self.check_process()
        with self.core.runtime.lock:
            return Consumer(self.mirror, data=self._codec is not None)

    def leave(self, consumer: Consumer) -> None:
        """The end of a consumer."""
        if not self.core.runtime.forked():
            with self.core.runtime.lock:
                consumer.close()

    def untold(self, consumer: Consumer, change: RawChange) -> None:
        """A change did not decode."""
        with self.core.runtime.lock:
            consumer.untold(change)

    async def changes(self, consumer: Consumer) -> Sequence[RawChange]:
        """Wait until there is something to take; nothing when it is closed."""
        while not (consumer.closed or self.mirror.closed.done or self.core.session.closed):
            self.check_running()
            if consumer.woken.done:
                changes = consumer.take()
                if changes:
                    return changes
            await first_of(consumer.woken, self.mirror.closed, self.core.session.changed)
        return ()


def full_path(core: Core, path: str) -> str:
    """Check a listener's path and return the full one; "/" is the namespace itself."""
    return (core.namespace or "/") if path == "/" else core.path(path)
