"""Listeners behind one face, so that the same cases run for threads and asyncio, and for each kind of watches.

A `Hall` is one client on which listeners are made. Its verbs block; those of asyncio run on an event loop in another
thread. A `Gardener` changes nodes through a client of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple, final

import zkrecipes as zkr
import zkrecipes.aio as zkr_aio
from tests.contracts.subjects import LIMIT, Later, Loop

__all__ = ["SETTINGS", "Gardener", "Hall", "Iteration", "Setting"]

ENDED: Final = "ended"


class Setting(NamedTuple):
    """How listeners are driven, and by what they learn of changes."""

    driver: str
    watches: str

    def __str__(self) -> str:
        return f"{self.driver}-{self.watches}"


SETTINGS: Final = (
    Setting("threads", "persistent"),
    Setting("threads", "one-shot"),
    Setting("threads", "public"),
    Setting("asyncio", "persistent"),
    Setting("asyncio", "one-shot"),
)


@final
class Iteration:
    """One iterator over changes."""

    def __init__(self, hall: Hall, listener: Any) -> None:
        self._hall = hall
        self._changes = hall.do(lambda: iter(listener) if hall.setting.driver == "threads" else aiter(listener))

    def next(self, limit: float = LIMIT) -> Any:
        """The next change; ENDED if there is none any more."""
        return self.later().result(limit)

    def later(self) -> Later:
        """Ask for the next change in another thread."""
        return Later(self._next)

    def _next(self) -> Any:
        try:
            if self._hall.setting.driver == "threads":
                return next(self._changes)
            return self._hall.do(lambda: anext(self._changes))
        except (StopIteration, StopAsyncIteration):
            return ENDED

    def close(self) -> None:
        self._hall.do(self._changes.close)


@final
class Hall:
    """One client.

    Attributes:
        client: zkrecipes.Client or zkrecipes.aio.Client.
    """

    def __init__(self, setting: Setting, hosts: str, namespace: str, session_timeout: float = 10.0) -> None:
        self.setting = setting
        self._loop = Loop() if setting.driver == "asyncio" else None
        connect: Callable[..., Any] = zkr.connect if self._loop is None else zkr_aio.connect
        self.client: Any = self.do(lambda: connect(hosts, namespace=namespace, session_timeout=session_timeout))
        if setting.watches == "one-shot":
            self.watches.recursive = self.watches.batches = False

    @property
    def watches(self) -> Any:
        """The table of watches of the client's session."""
        return self.client.core.session.watches

    @property
    def package(self) -> Any:
        return zkr if self._loop is None else zkr_aio

    def do(self, function: Callable[[], Any]) -> Any:
        """Call a verb, and await it where that is needed."""
        return function() if self._loop is None else self._loop.do(function)

    def nodes(self, *paths: str, **options: Any) -> Any:
        """A NodeListener, not started."""
        return self.package.NodeListener(self.client, *paths, **options)

    def children(self, path: str, **options: Any) -> Any:
        """A ChildrenListener, not started."""
        return self.package.ChildrenListener(self.client, path, **options)

    def tree(self, *paths: str, **options: Any) -> Any:
        """A TreeListener, not started."""
        return self.package.TreeListener(self.client, *paths, **options)

    def start(self, listener: Any, *timeout: float) -> Any:
        return self.do(lambda: listener.start(*timeout))

    def close_listener(self, listener: Any) -> None:
        self.do(listener.close)

    def wait_for(
        self, listener: Any, predicate: Callable[[Mapping[str, Any]], bool], timeout: float = LIMIT
    ) -> Mapping[str, Any]:
        snapshot: Mapping[str, Any] = self.do(lambda: listener.wait_for(predicate, timeout))
        return snapshot

    def inside(self, listener: Any, body: Callable[[], object]) -> None:
        """Run `body` inside the listener's `with`."""
        if self._loop is None:
            with listener:
                body()
            return

        async def block() -> None:
            async with listener:
                await asyncio.to_thread(body)

        self.do(block)

    def close(self) -> None:
        self.do(self.client.close)
        if self._loop is not None:
            self._loop.close()
            self._loop = None


@final
class Gardener:
    """Changes nodes below a namespace."""

    def __init__(self, client: zkr.Client, namespace: str) -> None:
        self.client = client
        self.namespace = namespace

    def create(self, path: str, data: bytes = b"") -> None:
        self.client.create(self.namespace + path, data)

    def set(self, path: str, data: bytes) -> zkr.Stat:
        return self.client.set(self.namespace + path, data)

    def delete(self, path: str) -> None:
        self.client.delete(self.namespace + path)

    def get(self, path: str) -> zkr.Node[bytes]:
        return self.client.get(self.namespace + path)

    def plant(self, tree: Mapping[str, bytes]) -> None:
        """Create these nodes, parents first."""
        with self.client.transaction() as tx:
            for path in sorted(tree):
                tx.create(self.namespace + path, tree[path])

    def uproot(self, *paths: str) -> None:
        """Delete these nodes in one transaction, children first."""
        with self.client.transaction() as tx:
            for path in sorted(paths, reverse=True):
                tx.delete(self.namespace + path)

    def replant(self, gone: Iterable[str], tree: Mapping[str, bytes]) -> None:
        """Delete nodes and create some, in one transaction."""
        with self.client.transaction() as tx:
            for path in sorted(gone, reverse=True):
                tx.delete(self.namespace + path)
            for path in sorted(tree):
                tx.create(self.namespace + path, tree[path])

    def tree(self, root: str) -> dict[str, bytes]:
        """What there is at and below a node."""
        found = {root: self.get(root).value}
        for name in self.client.children(self.namespace + root):
            found.update(self.tree(f"{root}/{name}"))
        return found
