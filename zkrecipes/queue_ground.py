"""What every layout of a queue stands on: its path, a place for nodes of our own, and how an item is written.

Driver-free. The layouts: queue_shelves.py (ours), queue_curator.py (Curator's).
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from zkrecipes.core import Core
from zkrecipes.errors import NodeNotFoundError
from zkrecipes.marks import Marks, Operation, marks_of
from zkrecipes.port import Delete, Stat
from zkrecipes.queue_layout import Record, Slot
from zkrecipes.timing import Deadline

__all__ = ["Ground"]


class Ground(ABC):
    """One queue, as one client knows it. Shared by all recipe objects of one client.

    Args:
        core: The client's core.
        path: Full path of the queue.
        label: What messages call it.
        own: Full path of the node below which our own nodes are.

    Attributes:
        path: Full path of the queue.
        label: What messages call it.
        marks: By which its writes are recognised.
    """

    delays = True
    """Whether an item can be put, or put back, for later."""
    priorities = True
    """Whether an item can have a priority."""

    def __init__(self, core: Core, path: str, label: str, own: str) -> None:
        self._core = core
        self._own = own
        self.path = path
        self.label = label
        self.marks: Marks = marks_of(core, f"{own}/marks", label)

    def branch(self, name: str) -> str:
        """Full path of one of the queue's own nodes."""
        return f"{self._own}/{name}"

    @abstractmethod
    async def ready(self, deadline: Deadline) -> None:
        """Make the queue's own nodes, unless they were seen.

        Raises:
            ForeignNodeError: The path belongs to something else.
        """

    @abstractmethod
    def forget(self) -> None:
        """Something that must be there was not: somebody has deleted it. Look anew."""

    # --- items --------------------------------------------------------------------------------------------------------

    @abstractmethod
    def read(self, slot: Slot, data: bytes, stat: Stat) -> Record:
        """Take an item's node apart.

        Raises:
            DecodeError: It is nothing of ours, damaged, or of a newer version.
        """

    @abstractmethod
    def packed(self, record: Record, slot: Slot | None = None) -> bytes:
        """The bytes of an item's node: of the one there, or of a new one."""

    def end(self, slot: Slot, version: int, record: Record) -> Operation:
        """What ends a claimed item."""
        del record
        return Delete(slot.item, version)

    def alone(self, slot: Slot) -> tuple[Operation, ...]:
        """What is refused if somebody has claimed an item, where its version does not tell that."""
        del slot
        return ()

    def nudge(self) -> tuple[Operation, ...]:
        """What wakes consumers that would not notice otherwise that an item can be claimed again."""
        return ()

    # --- time ---------------------------------------------------------------------------------------------------------

    async def server_time(self, deadline: Deadline, age: float = 1.0) -> int:
        """The servers' time now, in ms since 1970, as told by a write of ours; not older than `age` seconds."""
        clock = self._core.server_time
        while True:
            time = clock.at_least()
            if time is not None and clock.age < age:
                return time
            await self.ready(deadline)
            try:
                return await self.marks.time(deadline)
            except NodeNotFoundError:
                self.forget()
