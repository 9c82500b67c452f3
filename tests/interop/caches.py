"""Curator's CuratorCache, and plain writes through Curator, driven from Python."""

from __future__ import annotations

import itertools
from typing import Final, NamedTuple, Self, final

from tests.interop.peer import CuratorPeer, PeerError

__all__ = ["CachedNode", "CuratorCache", "bench_cache", "create", "delete", "put"]

_NAMES: Final = itertools.count(1)
_BENCH_LIMIT: Final = 120.0


class CachedNode(NamedTuple):
    """A node as CuratorCache holds it."""

    data: str
    czxid: int
    mzxid: int


@final
class CuratorCache:
    """A started CuratorCache, which keeps what it has told. Use it in a `with` block."""

    def __init__(self, peer: CuratorPeer, path: str) -> None:
        self._peer = peer
        self._name = f"cache-{next(_NAMES)}"
        peer.call("cache.start", name=self._name, path=path)

    def wait(self, timeout: float) -> None:
        """Wait until it is initialized.

        Raises:
            PeerError: It was not in time.
        """
        milliseconds = round(timeout * 1000)
        if not self._peer.call("cache.await", name=self._name, timeout_ms=milliseconds, limit=timeout + 10).done:
            message = f"the CuratorCache was not complete within {timeout:.0f} s"
            raise PeerError(message)

    def nodes(self) -> dict[str, CachedNode]:
        """What it holds, by path."""
        nodes = self._peer.call("cache.nodes", name=self._name).nodes
        return {one.node: CachedNode(one.data, one.czxid, one.mzxid) for one in nodes}

    def events(self) -> list[str]:
        """What it has told: "NODE_CREATED path data", in order."""
        return self._peer.call("cache.events", name=self._name).events

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._peer.call("cache.close", name=self._name)


def create(peer: CuratorPeer, path: str, data: str = "") -> None:
    """Create a node, and its parents, through Curator."""
    peer.call("node.create", path=path, data=data)


def put(peer: CuratorPeer, path: str, data: str) -> None:
    """Set a node's data through Curator."""
    peer.call("node.set", path=path, data=data)


def delete(peer: CuratorPeer, path: str) -> None:
    """Delete a node, with all below it, through Curator."""
    peer.call("node.delete", path=path)


def bench_cache(peer: CuratorPeer, path: str, nodes: int, count: int = 1) -> list[float]:
    """Seconds from making a CuratorCache of a tree of so many nodes until it has told all of them, `count` times."""
    seconds = peer.call("cache.bench", path=path, nodes=nodes, count=count, limit=_BENCH_LIMIT).seconds
    return seconds if isinstance(seconds, list) else [seconds]
