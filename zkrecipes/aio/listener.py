"""Listeners, for asyncio. The algorithms, and what is promised, are in zkrecipes.listener.

Callbacks run on the event loop; `async for change in listener` is often easier.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Self, final

from typing_extensions import TypeVar

from zkrecipes.callbacks import Callbacks
from zkrecipes.changes import Change, RawChange
from zkrecipes.codec import Codec
from zkrecipes.core import DEFAULT, DefaultTimeout
from zkrecipes.errors import DecodeError
from zkrecipes.handle import core_of
from zkrecipes.listener import children_state, node_state, tree_state
from zkrecipes.listening import ListenerState
from zkrecipes.operations import Node
from zkrecipes.timing import Timeout

if TYPE_CHECKING:
    from zkrecipes.aio.client import Client

__all__ = ["Changes", "ChildrenListener", "NodeListener", "TreeListener"]

T = TypeVar("T", default=bytes)


class Listener(Callbacks[T]):
    """What the three kinds of listener have in common. Register callbacks before the start, or later."""

    def __init__(self, client: Client, state: ListenerState[T]) -> None:
        super().__init__(state)
        self._client = client

    async def start(self, timeout: Timeout | DefaultTimeout = DEFAULT) -> Self:
        """Begin, and wait until the first state is complete. Errors as of the listeners for threads."""
        await self._client.run(self._state.start(timeout))
        return self

    async def close(self) -> None:
        """End it, here and on the server. Idempotent."""
        if not self._client.core.runtime.forked():
            await self._client.run(self._state.close())

    async def wait_for(
        self, predicate: Callable[[Mapping[str, Node[T]]], bool], timeout: Timeout | DefaultTimeout = DEFAULT
    ) -> Mapping[str, Node[T]]:
        """Wait until `predicate(snapshot)` is true. Errors as of the listeners for threads."""
        deadline = self._state.core.deadline(timeout)
        self._state.check_running()
        while True:
            version, snapshot = self._state.snapshot()
            if predicate(snapshot):
                return snapshot
            await self._client.run(self._state.newer(version, deadline))

    def __aiter__(self) -> Changes[T]:
        return Changes(self._client, self._state)

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()


@final
class Changes(Generic[T]):
    """Iterates over changes with `async for`, what is there already first. Otherwise as zkrecipes.Changes."""

    def __init__(self, client: Client, state: ListenerState[T]) -> None:
        self._client = client
        self._state = state
        self._consumer = state.consumer()
        self._taken: deque[RawChange] = deque()
        self._closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Change[T]:
        while not self._closed:
            while self._taken:
                raw = self._taken.popleft()
                try:
                    return self._state.change(raw)
                except DecodeError:
                    self._state.untold(self._consumer, raw)
            self._taken.extend(await self._client.run(self._state.changes(self._consumer)))
            if not self._taken:
                break
        self.close()
        raise StopAsyncIteration

    def close(self) -> None:
        """End the iteration. Idempotent."""
        self._closed = True
        self._state.leave(self._consumer)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


@final
class NodeListener(Listener[T]):
    """Single nodes, present or not. Arguments as of zkrecipes.NodeListener."""

    def __init__(self, client: Client, *paths: str, codec: Codec[T] | None = None) -> None:
        super().__init__(client, node_state(core_of(client, aio=True), paths, codec))


@final
class ChildrenListener(Listener[T]):
    """The children of one node. Arguments as of zkrecipes.ChildrenListener."""

    def __init__(self, client: Client, path: str, *, codec: Codec[T] | None = None, data: bool = True) -> None:
        super().__init__(client, children_state(core_of(client, aio=True), path, codec, data=data))


@final
class TreeListener(Listener[T]):
    """Whole subtrees. Arguments as of zkrecipes.TreeListener."""

    def __init__(
        self,
        client: Client,
        *paths: str,
        codec: Codec[T] | None = None,
        depth: int | None = None,
        include: Callable[[str], bool] | None = None,
    ) -> None:
        super().__init__(client, tree_state(core_of(client, aio=True), paths, codec, depth=depth, include=include))
