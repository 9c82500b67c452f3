"""Listeners: one object that watches many nodes, stays armed, and tells typed changes.

Promises: the newest state is always reached, whatever happens to the connection or the session; a map that is replayed
from the changes equals the tree; the changes of one node come in the order in which they happened; a node that was
deleted and made again is told as DELETED and CREATED, also when that happened while nobody was connected; children are
deleted before their parents and created after them. Nothing is told for bytes that are the same as before. Callbacks
run on the client's dispatcher, those of one listener one after another: one that blocks delays no other listener and
no lock, and one that raises is reported to `on_error` and the log.

Does not promise: each value in between. ZooKeeper's watch says "look again", so values that follow one another quickly
are merged, and a consumer that is slow is told the newest value with the one that it was told before. There is no order
between different nodes other than that of parents and children. A server may lag behind its leader; `fresh` says that
the connection is up and everything is watched, not that no newer write exists.

Writes no nodes. Source: Curator's CuratorCache and NodeCache; where we differ is told in mirror.py.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, cast, final

from typing_extensions import TypeVar

from zkrecipes.callbacks import Callbacks
from zkrecipes.changes import Change, EventKind, RawChange
from zkrecipes.codec import BytesCodec, Codec
from zkrecipes.core import DEFAULT, Core, DefaultTimeout
from zkrecipes.errors import DecodeError
from zkrecipes.handle import Registration, core_of
from zkrecipes.listening import ListenerState, full_path
from zkrecipes.operations import Node
from zkrecipes.scope import Scope
from zkrecipes.timing import Timeout

if TYPE_CHECKING:
    from zkrecipes.client import Client

__all__ = [
    "Change",
    "Changes",
    "ChildrenListener",
    "EventKind",
    "NodeListener",
    "Registration",
    "TreeListener",
    "children_state",
    "node_state",
    "tree_state",
]

T = TypeVar("T", default=bytes)


class Listener(Callbacks[T]):
    """What the three kinds of listener have in common. Register callbacks before the start, or later."""

    def __init__(self, client: Client, state: ListenerState[T]) -> None:
        super().__init__(state)
        self._client = client

    def start(self, timeout: Timeout | DefaultTimeout = DEFAULT) -> Self:
        """Begin, and wait until the first state is complete. Does nothing if it has begun.

        Raises:
            UnavailableError: No server answered in time; the listener is closed.
            AccessDeniedError: One of its paths may not be read; the listener is closed.
            ClosedError: It was closed before.
        """
        self._client.run(self._state.start(timeout))
        return self

    def close(self) -> None:
        """End it, here and on the server: no callback is begun any more, iterations end. Idempotent."""
        if not self._client.core.runtime.forked():
            self._client.run(self._state.close())

    def wait_for(
        self, predicate: Callable[[Mapping[str, Node[T]]], bool], timeout: Timeout | DefaultTimeout = DEFAULT
    ) -> Mapping[str, Node[T]]:
        """Wait until `predicate(snapshot)` is true, and return that snapshot. It is called in this thread.

        Raises:
            AcquireTimeoutError: It did not become true in time.
            UnavailableError: It did not, and the state is not fresh.
            ClosedError: The listener was closed.
        """
        deadline = self._state.core.deadline(timeout)
        self._state.check_running()
        while True:
            version, snapshot = self._state.snapshot()
            if predicate(snapshot):
                return snapshot
            self._client.run(self._state.newer(version, deadline))

    def __iter__(self) -> Changes[T]:
        return Changes(self._client, self._state)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


@final
class Changes(Generic[T]):
    """Iterates over changes, what is there already first, as CREATED. Ends when it, or the listener, is closed.

    What does not decode is reported by the listener (`on_error`, or the log) and left out here.
    """

    def __init__(self, client: Client, state: ListenerState[T]) -> None:
        self._client = client
        self._state = state
        self._consumer = state.consumer()
        self._taken: deque[RawChange] = deque()
        self._closed = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Change[T]:
        while not self._closed:
            while self._taken:
                raw = self._taken.popleft()
                try:
                    return self._state.change(raw)
                except DecodeError:
                    self._state.untold(self._consumer, raw)
            self._taken.extend(self._client.run(self._state.changes(self._consumer)))
            if not self._taken:
                break
        self.close()
        raise StopIteration

    def close(self) -> None:
        """End the iteration, from any thread. Idempotent."""
        self._closed = True
        self._state.leave(self._consumer)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


@final
class NodeListener(Listener[T]):
    """Single nodes, present or not.

    Costs one request for each node at the start and after each connection, and one for each change that is seen.

    Args:
        client: The client.
        *paths: The nodes, below the client's namespace. Each may be absent, and come and go.
        codec: How their data is decoded; bytes as they are by default.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: A path is not valid.
    """

    def __init__(self, client: Client, *paths: str, codec: Codec[T] | None = None) -> None:
        super().__init__(client, node_state(core_of(client, aio=False), paths, codec))


@final
class ChildrenListener(Listener[T]):
    """The children of one node, which may be absent itself. Grandchildren are not told.

    Args:
        client: The client.
        path: The parent, below the client's namespace.
        codec: How the children's data is decoded; bytes as they are by default.
        data: Whether their data is wanted; without it each `value` is None, and a CHANGED tells only that it was set.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: The path is not valid.
    """

    def __init__(self, client: Client, path: str, *, codec: Codec[T] | None = None, data: bool = True) -> None:
        super().__init__(client, children_state(core_of(client, aio=False), path, codec, data=data))


@final
class TreeListener(Listener[T]):
    """Whole subtrees, the roots included.

    Args:
        client: The client.
        *paths: The roots, below the client's namespace; each may be absent. "/" is the namespace itself.
        codec: How the data is decoded; bytes as they are by default.
        depth: How many levels below a root are looked at; None for all.
        include: Called once with the path of each node below a root; where it returns False, the node and everything
            below it is left out. Runs on the dispatcher. If it raises, the node is taken to be wanted.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: A path or the depth is not valid.
    """

    def __init__(
        self,
        client: Client,
        *paths: str,
        codec: Codec[T] | None = None,
        depth: int | None = None,
        include: Callable[[str], bool] | None = None,
    ) -> None:
        super().__init__(client, tree_state(core_of(client, aio=False), paths, codec, depth=depth, include=include))


# --- the same for threads and asyncio ---------------------------------------------------------------------------------


def node_state(core: Core, paths: tuple[str, ...], codec: Codec[T] | None) -> ListenerState[T]:
    """The state of a NodeListener."""
    scope = Scope(_roots(core, paths), depth=0)
    # A read arms a one-shot watch by itself, so a persistent one would cost a request more for each node.
    return ListenerState(core, scope, _codec(codec), persistent=False, label=", ".join(paths))


def children_state(core: Core, path: str, codec: Codec[T] | None, *, data: bool) -> ListenerState[T]:
    """The state of a ChildrenListener."""
    if not isinstance(data, bool):
        message = f"data must be True or False, not {type(data).__name__}"
        raise TypeError(message)
    if codec is not None and not data:
        message = "codec has nothing to decode with data=False; leave one of them out"
        raise ValueError(message)
    scope = Scope(_roots(core, (path,)), depth=1, shows_roots=False)
    return ListenerState(core, scope, _codec(codec) if data else None, persistent=True, label=path)


def tree_state(
    core: Core,
    paths: tuple[str, ...],
    codec: Codec[T] | None,
    *,
    depth: int | None,
    include: Callable[[str], bool] | None,
) -> ListenerState[T]:
    """The state of a TreeListener."""
    if depth is not None and (isinstance(depth, bool) or not isinstance(depth, int)):
        message = f"depth must be an int or None (all levels), not {type(depth).__name__}"
        raise TypeError(message)
    if depth is not None and depth < 0:
        message = f"depth must be 0 (the roots alone) or more, not {depth}"
        raise ValueError(message)
    if include is not None and not callable(include):
        message = f"include must be callable with a path, not {type(include).__name__}"
        raise TypeError(message)
    scope = Scope(_roots(core, paths), depth=depth)
    return ListenerState(core, scope, _codec(codec), persistent=True, include=include, label=", ".join(paths))


def _roots(core: Core, paths: tuple[str, ...]) -> tuple[str, ...]:
    if not paths:
        message = "a listener needs at least one path"
        raise ValueError(message)
    return tuple(dict.fromkeys(full_path(core, path) for path in paths))


def _codec(codec: Codec[T] | None) -> Codec[T]:
    if codec is None:
        return cast("Codec[Any]", BytesCodec())
    if isinstance(codec, type) or not callable(getattr(codec, "decode", None)):
        hint = "; give an instance, as in codec=TextCodec()" if isinstance(codec, type) else ""
        message = f"codec must have encode and decode, such as zkrecipes.TextCodec(), not {codec!r}{hint}"
        raise TypeError(message)
    return codec
