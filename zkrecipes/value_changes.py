"""The callbacks of a counter or a shared value: what it was, what it is. Driver-free.

A NodeListener's state stands below, begun with the first callback and closed with the last.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar, final

from zkrecipes.changes import Change, EventKind
from zkrecipes.codec import Codec
from zkrecipes.core import Core
from zkrecipes.errors import ZkRecipesError
from zkrecipes.hold import Registration, checked_callback
from zkrecipes.listener import node_state
from zkrecipes.listening import ListenerState

__all__ = ["ValueChange", "ValueChanges"]

T = TypeVar("T")

logger = logging.getLogger("zkrecipes.counter")


@final
@dataclass(frozen=True, slots=True)
class ValueChange(Generic[T]):
    """A value has changed.

    Attributes:
        old: What was told before. None, or 0 of a counter, if there was no node.
        new: What it is. None, or 0 of a counter, if there is no node any more.
        version: The node's version with the new value; -1 if there is no node any more.
    """

    old: T
    new: T
    version: int


@final
class ValueChanges(Generic[T]):
    """The callbacks of one object.

    Args:
        core: The client's.
        path: Below the namespace.
        codec: How the data is decoded.
        absent: What is told where there is no node.
    """

    def __init__(self, core: Core, path: str, codec: Codec[T], absent: T) -> None:
        self._core = core
        self._path = path
        self._codec = codec
        self._absent = absent
        self._state: ListenerState[T] | None = None
        self._callbacks = 0

    def register(self, callback: Callable[[ValueChange[T]], object]) -> Registration:
        """Call `callback(change)` for each change from now on. The first state is not told.

        Raises:
            TypeError: It cannot be called, or is a coroutine function.
        """
        checked_callback(callback)
        if inspect.iscoroutinefunction(callback):
            message = "callback must be a plain function; one for asyncio may start a task"
            raise TypeError(message)
        core = self._core
        core.session.check_open(self._path)

        def tell(change: Change[T]) -> None:
            old = self._absent if change.old is None else change.old
            new = self._absent if change.new is None else change.new
            if old != new:
                gone = change.kind is EventKind.DELETED
                callback(ValueChange(old, new, -1 if gone else change.stat.version))

        with core.runtime.lock:
            state = self._state
            if state is None:
                state = self._state = node_state(core, (self._path,), self._codec)
                core.runtime.spawn(self._begin(state), f"watch {self._path}")
            self._callbacks += 1
            registrations = [state.register(kind, tell, after_initial=True) for kind in EventKind]
        return Registration(lambda: self._leave(state, registrations))

    async def _begin(self, state: ListenerState[T]) -> None:
        try:
            await state.start(None)
        except ZkRecipesError as error:
            if self._state is state:
                self._state, self._callbacks = None, 0
                if not self._core.session.closed:
                    logger.warning("Changes of %s cannot be told: %s", self._path, error)

    def _leave(self, state: ListenerState[T], registrations: list[Registration]) -> None:
        if self._core.runtime.forked():
            return
        with self._core.runtime.lock:
            for registration in registrations:
                registration.cancel()
            if self._state is not state:
                return
            self._callbacks -= 1
            if not self._callbacks:
                self._state = None
                state.end()
                self._core.runtime.spawn(_close(state), f"no longer watch {self._path}")


async def _close(state: ListenerState[T]) -> None:
    try:
        await state.close()
    except ZkRecipesError as error:
        logger.debug("The client has ended: %s", error)
