"""How callbacks are registered with a listener, and its state is read: the same for threads and asyncio."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Generic, TypeVar, overload

from zkrecipes.changes import Change, EventKind
from zkrecipes.hold import Registration
from zkrecipes.listening import ListenerState
from zkrecipes.operations import Node

__all__ = ["Callbacks"]

T = TypeVar("T")
F = Callable[..., object]


class Callbacks(Generic[T]):
    """The registrations of a listener; the part of it that is the same for threads and asyncio."""

    def __init__(self, state: ListenerState[T]) -> None:
        self._state = state

    @overload
    def on_created(self, callback: Callable[[Change[T]], object], *, after_initial: bool = False) -> Registration: ...
    @overload
    def on_created(self, *, after_initial: bool = False) -> Callable[[Callable[[Change[T]], object]], Registration]: ...
    def on_created(self, callback: F | None = None, *, after_initial: bool = False) -> Any:
        """Call `callback(change)` for each node that has come into being; `after_initial`: not for those there before.

        Also a decorator. Callbacks of one listener run one after another, on the dispatcher.
        """
        return self._register(EventKind.CREATED, callback, after_initial=after_initial)

    @overload
    def on_changed(self, callback: Callable[[Change[T]], object], *, after_initial: bool = False) -> Registration: ...
    @overload
    def on_changed(self, *, after_initial: bool = False) -> Callable[[Callable[[Change[T]], object]], Registration]: ...
    def on_changed(self, callback: F | None = None, *, after_initial: bool = False) -> Any:
        """Call `callback(change)` for each node whose bytes have changed."""
        return self._register(EventKind.CHANGED, callback, after_initial=after_initial)

    @overload
    def on_deleted(self, callback: Callable[[Change[T]], object], *, after_initial: bool = False) -> Registration: ...
    @overload
    def on_deleted(self, *, after_initial: bool = False) -> Callable[[Callable[[Change[T]], object]], Registration]: ...
    def on_deleted(self, callback: F | None = None, *, after_initial: bool = False) -> Any:
        """Call `callback(change)` for each node that is gone, or has been made anew."""
        return self._register(EventKind.DELETED, callback, after_initial=after_initial)

    def on_initialized(self, callback: Callable[[], object]) -> Registration:
        """Call `callback()` once, when the first state is complete and told; at once, if it is."""
        return self._state.register("initialized", callback)

    def on_stale(self, callback: Callable[[], object]) -> Registration:
        """Call `callback()` when the connection is suspended: what is known may be old from now on."""
        return self._state.register("stale", callback)

    def on_fresh(self, callback: Callable[[], object]) -> Registration:
        """Call `callback()` when everything has been read again after that."""
        return self._state.register("fresh", callback)

    def on_error(self, callback: Callable[[Exception], object]) -> Registration:
        """Call `callback(error)` for what a callback has raised, what does not decode, and what may not be read."""
        return self._state.register("error", callback)

    def _register(self, kind: EventKind, callback: F | None, *, after_initial: bool) -> Any:
        if callback is None:
            return partial(self._state.register, kind, after_initial=after_initial)
        return self._state.register(kind, callback, after_initial=after_initial)

    @property
    def fresh(self) -> bool:
        """Whether the state is complete, watched, and the connection up. A server may still lag behind its leader."""
        return self._state.fresh

    @property
    def closed(self) -> bool:
        """Whether it has been closed."""
        return self._state.mirror.closed.done

    def snapshot(self) -> Mapping[str, Node[T]]:
        """The nodes as last read, by path, in order. Read-only; another one after each change.

        Nodes whose data does not decode are left out; `get` raises for them.
        """
        return self._state.snapshot()[1]

    def get(self, path: str) -> Node[T] | None:
        """One node as last read; None if it is not there. Sends nothing.

        Raises:
            DecodeError: Its data does not decode.
            AccessDeniedError: It may not be read, and never could be.
        """
        return self._state.get(path)

    def __repr__(self) -> str:
        state = self._state
        kind = "closed" if self.closed else "fresh" if self.fresh else "stale"
        return f"<{type(self).__name__} {state.mirror.label} {len(state.mirror.nodes)} nodes {kind}>"
