"""A server's tree for a `World`: it answers the requests that lie there, sets their watches, and tells changes.

A request is done when it is answered, so what is changed before that comes before it, events included, as on a server.
"""

from __future__ import annotations

from typing import Any, final

from tests.unit.kit import World
from zkrecipes.core import Core
from zkrecipes.nodes import Nodes
from zkrecipes.port import (
    AddWatch,
    Children,
    Code,
    Exists,
    Get,
    NodeEvent,
    ReadMany,
    Refused,
    RemoveWatches,
    Stat,
    WatchKind,
)

__all__ = ["Grove", "parent_of"]


def parent_of(path: str) -> str:
    return path.rpartition("/")[0] or "/"


class _Node:
    def __init__(self, data: bytes, zxid: int) -> None:
        self.data = data
        self.czxid = self.mzxid = zxid
        self.version = 0
        self.cversion = 0
        self.children: dict[str, None] = {}

    def stat(self) -> Stat:
        size, count = len(self.data), len(self.children)
        return Stat(self.czxid, self.mzxid, 0, 0, self.version, self.cversion, 0, 0, size, count, self.czxid)


@final
class Grove:
    """The tree, and the watches of the connection.

    Args:
        world: Whose requests it answers.
        persistent: Whether it knows AddWatch.
        batches: Whether it knows ReadMany.

    Attributes:
        secret: Nodes that may not be read.
    """

    def __init__(self, world: World, *, persistent: bool = True, batches: bool = True) -> None:
        self.world = world
        self.core = Core(Nodes(world.session))
        self.nodes: dict[str, _Node] = {"/": _Node(b"", 0)}
        self.secret: set[str] = set()
        self._persistent = persistent
        self._batches = batches
        self._roots: set[str] = set()
        self._one_shot: set[tuple[str, WatchKind]] = set()

    # --- changes ------------------------------------------------------------------------------------------------------

    def create(self, path: str, data: bytes = b"") -> None:
        self.world.zxid += 1
        self.nodes[path] = _Node(data, self.world.zxid)
        self._link(path)
        self._tell(path, NodeEvent.CREATED)

    def write(self, path: str, data: bytes) -> None:
        self.world.zxid += 1
        node = self.nodes[path]
        node.data, node.mzxid, node.version = data, self.world.zxid, node.version + 1
        self._tell(path, NodeEvent.CHANGED)

    def delete(self, path: str) -> None:
        """With all that is below it."""
        for child in sorted(self.nodes[path].children):
            self.delete(child)
        self.world.zxid += 1
        del self.nodes[path]
        parent = self.nodes[parent_of(path)]
        del parent.children[path]
        parent.cversion += 1
        self._tell(path, NodeEvent.DELETED)

    def _link(self, path: str) -> None:
        parent = self.nodes[parent_of(path)]
        parent.children[path] = None
        parent.cversion += 1

    def _tell(self, path: str, event: NodeEvent) -> None:
        told = any(path == root or path.startswith(f"{root.rstrip('/')}/") for root in self._roots)
        if (path, WatchKind.DATA) in self._one_shot:
            self._one_shot.discard((path, WatchKind.DATA))
            told = True
        if event is NodeEvent.DELETED and (path, WatchKind.CHILDREN) in self._one_shot:
            self._one_shot.discard((path, WatchKind.CHILDREN))
            told = True
        if told:
            self.world.session.notified(path, event)
        key = (parent_of(path), WatchKind.CHILDREN)
        if event is not NodeEvent.CHANGED and key in self._one_shot:
            self._one_shot.discard(key)
            self.world.session.notified(key[0], NodeEvent.CHILDREN)
        self.world.runtime.step()

    @property
    def watches(self) -> set[str]:
        """The nodes on which the server keeps watches."""
        return self._roots | {path for path, _ in self._one_shot}

    # --- the connection -------------------------------------------------------------------------------------------

    def cut(self) -> None:
        self._roots.clear()
        self._one_shot.clear()
        self.world.transport.drop()
        self.world.runtime.step()

    def serve(self, count: int = 100_000) -> int:
        """Answer the oldest requests, so many at most; how many there were."""
        done = 0
        while self.world.requests and done < count:
            self._answer(self.world.requests[0])
            done += 1
        return done

    def _answer(self, request: Any) -> None:
        if isinstance(request, ReadMany):
            if not self._batches:
                self.world.refuse(Code.UNIMPLEMENTED)
                return
            parts = [self._read(read) for read in request.reads]
            self.world.answer(tuple(Refused(part) if isinstance(part, Code) else part for part in parts))
        elif isinstance(request, AddWatch):
            if not self._persistent:
                self.world.refuse(Code.UNIMPLEMENTED)
                return
            # As servers from 3.6 to 3.8 do, one kind takes the place of the other.
            self._one_shot -= {(request.path, WatchKind.DATA), (request.path, WatchKind.CHILDREN)}
            self._roots.add(request.path)
            self.world.answer()
        elif isinstance(request, RemoveWatches):
            self._remove(request)
        elif isinstance(request, Get | Exists | Children):
            answer = self._read(request)
            if isinstance(answer, Code):
                self.world.refuse(answer)
                return
            if request.watch:
                self._roots.discard(request.path)
                kind = WatchKind.CHILDREN if isinstance(request, Children) else WatchKind.DATA
                self._one_shot.add((request.path, kind))
            self.world.answer(answer)
        else:
            self.world.answer((None,))

    def _remove(self, request: RemoveWatches) -> None:
        kinds = (WatchKind.DATA, WatchKind.CHILDREN) if request.kind is WatchKind.ANY else (request.kind,)
        gone = {(request.path, kind) for kind in kinds} & self._one_shot
        self._one_shot -= gone
        if request.kind is WatchKind.ANY and request.path in self._roots:
            self._roots.discard(request.path)
        elif not gone:
            self.world.refuse(Code.NO_WATCHER)
            return
        self.world.answer()

    def _read(self, request: Get | Exists | Children) -> Any:
        node = self.nodes.get(request.path)
        if isinstance(request, Exists):
            return None if node is None else node.stat()
        if node is None:
            return Code.NO_NODE
        if request.path in self.secret:
            return Code.NO_AUTH
        if isinstance(request, Children):
            return [path.rpartition("/")[2] for path in node.children]
        return node.data, node.stat()
