"""Queues in Curator's layouts, for the tests beside this file."""

from __future__ import annotations

from typing import Any, Final

import pytest

import zkrecipes as zkr
from zkrecipes.queue_parts import Layout

__all__ = ["LAYOUTS", "LIMIT", "LOCKS", "PATH", "Layout", "drain", "of_each_layout", "text_queue"]

PATH: Final = "/queue"
LOCKS: Final = f"{PATH}-locks"
LIMIT: Final = 20.0
"""Seconds for what is no matter of measurement."""

LAYOUTS: Final[tuple[Layout, ...]] = ("curator", "curator-priority", "curator-delay")

of_each_layout = pytest.mark.parametrize("layout", LAYOUTS)


def text_queue(zk: zkr.Client, layout: Layout, **options: Any) -> zkr.Queue[str]:
    return zkr.Queue(zk, PATH, codec=zkr.TextCodec(), layout=layout, **options)


def drain(queue: zkr.Queue[str]) -> list[str]:
    """Take and acknowledge what is there."""
    items = []
    while (claim := queue.try_take(0.5)) is not None:  # longer than 0: on a busy machine as well
        items.append(claim.item)
        claim.ack()
    return items
