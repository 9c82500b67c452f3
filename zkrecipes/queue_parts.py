"""The parts of a queue that depend on its layout, put together. Driver-free."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal, NamedTuple, get_args

from zkrecipes.core import Core
from zkrecipes.dedup import Dedup
from zkrecipes.queue_admin import Admin
from zkrecipes.queue_curator import curator_ground
from zkrecipes.queue_curator_admin import CuratorAdmin
from zkrecipes.queue_curator_layout import CURATOR_LAYOUTS
from zkrecipes.queue_curator_put import CuratorPutter
from zkrecipes.queue_curator_view import CuratorView
from zkrecipes.queue_ground import Ground
from zkrecipes.queue_put import Putter
from zkrecipes.queue_shelf_admin import ShelfAdmin
from zkrecipes.queue_shelf_put import ShelfPutter
from zkrecipes.queue_shelves import shelves_of
from zkrecipes.queue_sight import Sight
from zkrecipes.queue_view import View

__all__ = ["LAYOUTS", "Layout", "Parts", "curator_parts", "shelf_parts"]

Layout = Literal["segments", "curator", "curator-priority", "curator-delay"]
"""Ours, or that of Curator's DistributedQueue, DistributedPriorityQueue, DistributedDelayQueue."""

LAYOUTS: Final[tuple[Layout, ...]] = get_args(Layout)


class Parts(NamedTuple):
    """Of one queue.

    Attributes:
        ground: Its path, and how an item is written.
        sight: Which items are free; shared by all takers of one client.
        putter: How items come into it.
        admin: What its operators see.
    """

    ground: Ground
    sight: Sight
    putter: Putter[Any]
    admin: Admin


def shelf_parts(core: Core, path: str, report: Callable[[str], None], window: float, segment_size: int) -> Parts:
    """Of a queue in our own layout."""
    full = core.path(path)
    shelves = shelves_of(core, full, path)
    sight: View = _shared(core, ("queue view", full), lambda: View(core, shelves, report))
    dedup = Dedup(core, shelves.branch("ids"), window, shelves.marks, path)
    putter = ShelfPutter(core, shelves, dedup, segment_size)
    return Parts(shelves, sight, putter, ShelfAdmin(core, shelves, putter))


def curator_parts(  # noqa: PLR0917 - of the arguments of Queue
    core: Core, layout: str, path: str, lock_path: str | None, report: Callable[[str], None], window: float
) -> Parts:
    """Of a queue of Curator's.

    Raises:
        ValueError: There is no such layout, or the lock path is not valid.
    """
    kind = next((kind for kind in CURATOR_LAYOUTS if kind == layout), None)
    if kind is None:
        message = f"layout must be one of {', '.join(map(repr, LAYOUTS))}, not {layout!r}"
        raise ValueError(message)
    if lock_path is None:
        lock_path = f"{path}-locks"
    full, locks = core.path(path), core.path(lock_path)
    if f"{full}/".startswith(f"{locks}/") or f"{locks}/".startswith(f"{full}/"):
        message = f"lock_path must be beside the queue, neither above nor below it: {lock_path!r} and {path!r}"
        raise ValueError(message)
    ground = curator_ground(core, kind, full, locks, path)
    sight: CuratorView = _shared(core, ("queue view", kind, full, locks), lambda: CuratorView(core, ground, report))
    dedup = Dedup(core, ground.branch("ids"), window, ground.marks, path)
    putter = CuratorPutter(core, ground, dedup)
    return Parts(ground, sight, putter, CuratorAdmin(core, ground, putter))


def _shared(core: Core, key: tuple[str, ...], make: Callable[[], Any]) -> Any:
    with core.runtime.lock:
        if key not in core.shared:
            core.shared[key] = make()
        return core.shared[key]
