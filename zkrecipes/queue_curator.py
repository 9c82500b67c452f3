"""One queue in a layout of Curator's, as one client knows it. Driver-free.

Below the queue's path there is nothing but items, since Curator warns of everything else. Our own nodes (marks, dead
letters, identifiers) are below the lock path, which Curator never lists.
"""

from __future__ import annotations

from typing import Final, final

from zkrecipes.core import Core
from zkrecipes.errors import NodeNotFoundError
from zkrecipes.marks import Operation
from zkrecipes.paths import ancestors
from zkrecipes.port import Create, Delete, Set, Stat
from zkrecipes.queue_curator_layout import CuratorKind, follower, pack_items, read_items
from zkrecipes.queue_ground import Ground
from zkrecipes.queue_layout import Record, Slot
from zkrecipes.roots import ensure, ensure_root, forget_root
from zkrecipes.timing import Deadline

__all__ = ["OWN", "CuratorGround", "curator_ground"]

OWN: Final = "zkrecipes"
"""Below the lock path: no name of an item."""

BRANCHES: Final = ("dead", "ids", "marks")

KIND: Final = "curator-queue"
"""What we write into a queue's node that is empty, so that no queue in our own layout is begun there."""


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
        await ensure_root(self._core, self.path, KIND, self.label, deadline, shared=True)
        mine = (*ancestors(self.locks), self._own, *(self.branch(name) for name in BRANCHES))
        while not self._ready:
            try:
                await ensure(self._core, mine, self.label, deadline)
            except NodeNotFoundError:
                # Somebody deletes them at this moment.
                if deadline.passed(self._core.runtime.now()):
                    raise self._core.session.unavailable(self.label) from None
            else:
                self._ready = True

    def forget(self) -> None:
        """Something that must be there was not: somebody has deleted it. Look anew."""
        self._ready = False
        forget_root(self._core, self.path, KIND)

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

    def alone(self, slot: Slot) -> tuple[Operation, ...]:
        """A lock of our own, within the transaction: Curator's leaves the item's version as it is."""
        return Create(slot.claim, acl=self._core.nodes.acl), Delete(slot.claim)

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
