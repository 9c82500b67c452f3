"""One queue in a layout of Curator's, as one client knows it. Driver-free.

Below the queue's path there is nothing but items, since Curator warns of everything else. Our own nodes (marks, dead
letters, identifiers) are below the lock path, which Curator never lists.
"""

from __future__ import annotations

from typing import Final, final

from zkrecipes.core import Core
from zkrecipes.errors import ForeignNodeError, NodeNotFoundError
from zkrecipes.marks import Operation
from zkrecipes.paths import ancestors
from zkrecipes.port import Create, Delete, Get, Set, Stat
from zkrecipes.queue_curator_layout import CuratorKind, follower, pack_items, read_items
from zkrecipes.queue_ground import Ground
from zkrecipes.queue_layout import Record, Slot
from zkrecipes.roots import ensure
from zkrecipes.timing import Deadline

__all__ = ["OWN", "CuratorGround", "curator_ground"]

OWN: Final = "zkrecipes"
"""Below the lock path: no name of an item."""

BRANCHES: Final = ("dead", "ids", "marks")


@final
class CuratorGround(Ground):
    """One queue. Shared by all recipe objects of one client.

    Args:
        core: The client's core.
        kind: Which of Curator's queues.
        path: Full path of the queue.
        locks: Full path of the locks.
        label: What messages call the queue.

    Attributes:
        kind: Which of Curator's queues.
        locks: Full path of the locks.
    """

    def __init__(self, core: Core, kind: CuratorKind, path: str, locks: str, label: str) -> None:
        super().__init__(core, path, label, f"{locks}/{OWN}")
        self.kind = kind
        self.locks = locks
        self.delays = kind == "curator-delay"
        self.priorities = kind == "curator-priority"
        self._ready = False

    async def ready(self, deadline: Deadline) -> None:
        """Make the queue's node, the one of its locks, and our own, unless they were seen.

        Raises:
            ForeignNodeError: The path is a recipe in a layout of ours.
        """
        if self._ready:
            return
        parents = [*ancestors(self.path)[:-1], *ancestors(self.locks)[:-1]]
        mine = [self.path, self.locks, self._own, *(self.branch(name) for name in BRANCHES)]
        while True:
            await ensure(self._core, tuple(dict.fromkeys([*parents, *mine])), self.label, deadline)
            try:
                data, _ = await self._core.ask(Get(self.path), deadline, self.label)
            except NodeNotFoundError:
                continue  # somebody has deleted it at this moment
            break
        if data.startswith(b'{"zkrecipes":'):
            message = (
                f"{self.label} is a recipe in zkrecipes' own layout, not a queue of Curator's. "
                "Use another path, or the layout in which it was made"
            )
            raise ForeignNodeError(message, path=self.label)
        self._ready = True

    def forget(self) -> None:
        """Something that must be there was not: somebody has deleted it. Look anew."""
        self._ready = False

    def read(self, slot: Slot, data: bytes, stat: Stat) -> Record:
        """Take an item's node apart."""
        return read_items(data, slot.name, stat.ctime, slot.item)

    def packed(self, record: Record, slot: Slot | None = None) -> bytes:
        """The bytes of an item's node."""
        return pack_items(record, "" if slot is None else slot.name.text)

    def end(self, slot: Slot, version: int, record: Record) -> Operation:
        """What ends a claimed item: the next one of its node takes its place, if there is one."""
        if not record.rest:
            return Delete(slot.item, version)
        following = Record(follower(record.id), record.priority, record.rest[0], rest=record.rest[1:])
        return Set(slot.item, self.packed(following, slot), version)

    def nudge(self) -> tuple[Operation, ...]:
        """A child that comes and goes within the transaction: Curator's consumers watch the items, not the locks."""
        path = f"{self.path}/{OWN}-{self._core.runtime.unique()}"
        return Create(path, acl=self._core.nodes.acl), Delete(path)


def curator_ground(core: Core, kind: CuratorKind, path: str, locks: str, label: str) -> CuratorGround:
    """What this client knows of a queue of Curator's."""
    key = ("curator queue", kind, path, locks)
    ground = core.shared.get(key)
    if ground is None:
        ground = core.shared[key] = CuratorGround(core, kind, path, locks, label)
    assert isinstance(ground, CuratorGround)
    return ground
