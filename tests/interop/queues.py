"""Curator's DistributedQueue, driven from Python."""

from __future__ import annotations

from typing import Final

from tests.interop.peer import CuratorPeer

__all__ = ["bench_queue"]

_BENCH_LIMIT: Final = 120.0


def bench_queue(peer: CuratorPeer, path: str, items: int, size: int) -> float:
    """Put so many items of so many bytes; the seconds for which one consumer, with a lock path, needs for them."""
    seconds = peer.call("queue.bench", path=path, items=items, size=size, limit=_BENCH_LIMIT).seconds
    assert isinstance(seconds, float)
    return seconds
