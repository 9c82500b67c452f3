"""The watches of one session: who waits for which node, and what is to be told of whole trees. Driver-free.

Two kinds. A *one-shot* watch travels with a read and wakes its waiter once. A *persistent* one is armed by AddWatch and
feeds each event at or below its root to whoever follows it, until the connection ends.

Servers from 3.6 to 3.8 keep one mode for each node and connection: a one-shot watch on exactly the root of a persistent
one takes its place (ZOOKEEPER-4466), and the follower would hear nothing more. So where a persistent watch is armed no
one-shot watch is sent; its waiters are woken from the persistent one's events.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar, final

from zkrecipes.calls import Call
from zkrecipes.flow import Pending
from zkrecipes.port import AddWatch, Children, Exists, Get, NodeEvent, RemoveWatches, Request, WatchKind

__all__ = ["Feed", "Watches"]

R = TypeVar("R")

Feed = Callable[[str, NodeEvent], None]
"""Called under the step lock with each event, in order; it only takes note."""


@final
class Watches:
    """One a session.

    Attributes:
        recursive: Whether there are persistent recursive watches, as far as is known.
        removable: Whether watches can be removed, as far as is known.
        batches: Whether many nodes can be read by one request, as far as is known.
    """

    def __init__(self) -> None:
        self.recursive = True
        self.removable = True
        self.batches = True
        self._waiting: dict[tuple[str, bool], list[Pending[None]]] = {}
        self._asked: dict[tuple[str, bool], dict[Call[Any], None]] = {}
        self._spoilt: dict[Call[Any], None] = {}
        self._feeds: dict[str, list[Feed]] = {}
        self._armed: dict[str, None] = {}

    # --- requests on their way ----------------------------------------------------------------------------------------

    def asked(self, call: Call[Any]) -> None:
        """A call is about to be handed over; its request may be exchanged for one without a watch."""
        request = call.request
        if isinstance(request, AddWatch):
            self._armed[request.path] = None
        elif isinstance(request, RemoveWatches):
            if request.kind is WatchKind.ANY:
                self._disarm(request.path)
        elif call.watch is not None:
            key = _key(call)
            if key[0] in self._armed:
                call.request = _unwatched(request)
            self._asked.setdefault(key, {})[call] = None
            call.add_waiter(lambda: self._done(key, call))

    def _done(self, key: tuple[str, bool], call: Call[Any]) -> None:
        self._spoilt.pop(call, None)
        asked = self._asked[key]
        del asked[call]
        if not asked:
            del self._asked[key]

    def answered(self, call: Call[Any], *, found: bool) -> RemoveWatches | None:
        """A call was answered; if it has set a watch, its waiter waits from now on.

        Returns:
            If it was given up before the answer came, and nobody else waits for it: the request that ends the watch.
        """
        watch = call.watch
        if watch is None or not (found or isinstance(call.request, Exists)):
            return None
        key = _key(call)
        if call.done:
            return self._unneeded(key)
        if call in self._spoilt:
            watch.resolve(None)
        else:
            self._waiting.setdefault(key, []).append(watch)
        return None

    def refused(self, request: Request) -> None:
        """A request was refused."""
        if isinstance(request, AddWatch):
            self._disarm(request.path)

    def unsupported(self, request: Request) -> None:
        """The server, or the way to it, does not know this kind of request."""
        if isinstance(request, AddWatch):
            self.recursive = False
        elif isinstance(request, RemoveWatches):
            self.removable = False
        else:
            self.batches = False

    def _disarm(self, path: str) -> None:
        if self._armed.pop(path, self) is None:
            for key in ((path, False), (path, True)):
                # One-shot watches on this very node have been replaced by the persistent one, and end with it; those
                # that are being asked for, with a watch before it or without one behind it, as well.
                self._wake(key)
                self._spoilt.update(self._asked.get(key, {}))

    # --- interest -------------------------------------------------------------------------------------------------

    def follow(self, root: str, feed: Feed) -> None:
        """Feed it the events at and below a root, as soon as that is armed."""
        feeds = self._feeds.setdefault(root, [])
        if feed not in feeds:
            feeds.append(feed)

    def unfollow(self, root: str, feed: Feed) -> RemoveWatches | None:
        """Feed it no more; if nobody else follows this root, the request that ends its watch."""
        feeds = self._feeds.get(root, [])
        if feed in feeds:
            feeds.remove(feed)
            if not feeds:
                del self._feeds[root]
                if root in self._armed:
                    return RemoveWatches(root, WatchKind.ANY)
        return None

    def forget(self, call: Call[Any]) -> RemoveWatches | None:
        """Nobody waits for this call's watch any more; if for no other on the same node, the request that ends it."""
        key = _key(call)
        waiting = self._waiting.get(key)
        if call.watch is None or waiting is None or call.watch not in waiting:
            return None
        waiting.remove(call.watch)
        if not waiting:
            del self._waiting[key]
        return self._unneeded(key)

    def _unneeded(self, key: tuple[str, bool]) -> RemoveWatches | None:
        if key in self._waiting or key in self._asked or key[0] in self._armed:
            return None
        return RemoveWatches(key[0], WatchKind.CHILDREN if key[1] else WatchKind.DATA)

    # --- from the server ----------------------------------------------------------------------------------------------

    def notified(self, path: str, event: NodeEvent) -> None:
        """A watch has told something: whoever waits looks again."""
        if event is NodeEvent.CHILDREN:
            self._wake((path, True))
            return
        self._wake((path, False))
        if event is NodeEvent.DELETED:
            self._wake((path, True))
        parent = path.rpartition("/")[0] or "/"
        if event is not NodeEvent.CHANGED and parent in self._armed:
            # A persistent watch does not tell changed lists of children.
            self._wake((parent, True))
        if self._feeds:
            self._feed(path, event)

    def _feed(self, path: str, event: NodeEvent) -> None:
        root = path
        while True:
            for feed in tuple(self._feeds.get(root, ())):
                feed(path, event)
            if root == "/":
                return
            root = root.rpartition("/")[0] or "/"

    def ended(self) -> None:
        """The connection has ended, and the server's watches with it."""
        self._armed.clear()
        waiting, self._waiting = self._waiting, {}
        for pendings in waiting.values():
            for pending in pendings:
                pending.resolve(None)

    def _wake(self, key: tuple[str, bool]) -> None:
        for pending in self._waiting.pop(key, ()):
            pending.resolve(None)


def _key(call: Call[Any]) -> tuple[str, bool]:
    request = call.request
    return request.path, isinstance(request, Children)  # type: ignore[union-attr]  # only reads of one node watch


def _unwatched(request: Request) -> Request:
    return replace(request, watch=False) if isinstance(request, Get | Exists | Children) else request
