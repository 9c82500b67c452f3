"""The lanes and shelves of one queue, as one client knows them: made, rolled, retired. Driver-free.

A shelf takes about `segment_size` items, then the next one is begun: so no listing grows with the backlog, and no
sequence number comes near its end. A put checks the version of its lane's head, which only a roll changes: what is
behind the head is sealed for good. A sealed shelf that is empty is deleted by whoever finds it; its number is not used
again as long as the lane exists.
"""

from __future__ import annotations

import logging
from typing import Final, NamedTuple, final

from zkrecipes.core import Core
from zkrecipes.errors import NodeExistsError, NodeNotFoundError, OutcomeUnknownError, TransactionError, ZkRecipesError
from zkrecipes.port import Check, Children, Create, Delete, Get, Multi, Set, Stat
from zkrecipes.queue_ground import Ground
from zkrecipes.queue_layout import BRANCHES, Record, Slot, lane_nodes, read_record, shelf_numbers
from zkrecipes.roots import ensure, ensure_root, forget_root
from zkrecipes.timing import Deadline

__all__ = ["Head", "Shelves", "shelves_of"]

logger = logging.getLogger("zkrecipes.queue")

KIND: Final = "queue"

IN_BACKGROUND: Final = 30.0
"""Seconds for which a roll or a retirement is tried; the next put or listing does it otherwise."""


@final
class Head(NamedTuple):
    """The shelf of a lane that takes puts.

    Attributes:
        number: The shelf's.
        version: Of the head's node.
        check: What a put checks: that the shelf still takes puts.
    """

    number: int
    version: int
    check: Check


@final
class Shelves(Ground):
    """One queue's lanes. Shared by all recipe objects of one client."""

    def __init__(self, core: Core, path: str, label: str) -> None:
        super().__init__(core, path, label, path)
        self._heads: dict[str, Head] = {}
        self._ready = False
        self._busy: dict[str, bool] = {}

    def read(self, slot: Slot, data: bytes, stat: Stat) -> Record:
        """Take an item's node apart."""
        del stat
        return read_record(data, slot.item)

    def packed(self, record: Record, slot: Slot | None = None) -> bytes:
        """The bytes of an item's node."""
        del slot
        return record.pack()

    async def ready(self, deadline: Deadline) -> None:
        """Make the queue's own nodes, unless they were seen.

        Raises:
            ForeignNodeError: The path belongs to something else.
        """
        await ensure_root(self._core, self.path, KIND, self.label, deadline)
        while not self._ready:
            try:
                await ensure(self._core, [self.branch(name) for name in BRANCHES], self.label, deadline)
                self._ready = True
            except NodeNotFoundError:
                forget_root(self._core, self.path, KIND)
                await ensure_root(self._core, self.path, KIND, self.label, deadline)

    def forget(self) -> None:
        """Something that must be there was not: somebody has deleted it. Look anew."""
        self._ready = False
        self._heads.clear()
        forget_root(self._core, self.path, KIND)

    # --- heads --------------------------------------------------------------------------------------------------------

    async def head(self, lane: str, deadline: Deadline) -> Head:
        """The shelf that takes puts; the lane is made where it is missing."""
        while True:
            known = self._heads.get(lane)
            if known is not None:
                return known
            try:
                data, stat = await self._core.ask(Get(f"{lane}/head"), deadline, self.label)
            except NodeNotFoundError:
                await self._make(lane, deadline)
                continue
            self._heads[lane] = self._read(lane, data, stat)

    def _read(self, lane: str, data: bytes, stat: Stat) -> Head:
        if not data.isdigit():
            message = f"{lane}/head holds no number, but {data[:20]!r}: somebody else has written it"
            raise ZkRecipesError(message, path=self.label)
        return _head(lane, int(data), stat.version)

    async def _make(self, lane: str, deadline: Deadline) -> None:
        acl = self._core.nodes.acl
        items, claims = lane_nodes(lane, 0)
        paths = ((lane, b""), (f"{lane}/head", b"0"), (items, b""), (claims, b""))
        try:
            await self._core.ask(
                Multi(tuple(Create(path, data, acl=acl) for path, data in paths)), deadline, self.label
            )
        except OutcomeUnknownError:
            return  # the head is read next
        except TransactionError as refused:
            if isinstance(refused.__cause__, NodeExistsError):
                if refused.index == 0:
                    # Somebody else has made it; or it is there without its head, which is no lane of ours.
                    await self._repair(lane, deadline)
                return
            if isinstance(refused.__cause__, NodeNotFoundError):
                self.forget()
                await self.ready(deadline)
                return
            raise refused.__cause__ or refused from refused

    async def _repair(self, lane: str, deadline: Deadline) -> None:
        """A lane without a head: somebody has deleted it, or made the lane by hand."""
        try:
            await self._core.ask(Get(f"{lane}/head"), deadline, self.label)
        except NodeNotFoundError:
            logger.warning("%s has no head; it is made anew behind all its shelves", lane)
            number = 1 + max(await self._numbers(lane, deadline), default=-1)
            await ensure(self._core, lane_nodes(lane, number), self.label, deadline)
            acl = self._core.nodes.acl
            try:
                await self._core.ask(Create(f"{lane}/head", b"%d" % number, acl=acl), deadline, self.label)
            except (NodeExistsError, OutcomeUnknownError):
                return

    async def _numbers(self, lane: str, deadline: Deadline) -> list[int]:
        return shelf_numbers(await self._core.ask(Children(lane), deadline, self.label))

    def forget_head(self, lane: str) -> None:
        """It has moved, or the lane is gone."""
        self._heads.pop(lane, None)

    async def mend(self, lane: str, head: Head, deadline: Deadline) -> None:
        """Make the nodes of the head's shelf again, which somebody has deleted."""
        await ensure(self._core, lane_nodes(lane, head.number), self.label, deadline)

    # --- rolling and retiring, in the background ---------------------------------------------------------------------

    def roll(self, lane: str, head: Head) -> None:
        """The head's shelf is full: begin the next one."""
        if lane not in self._busy and self._heads.get(lane) == head:
            self._busy[lane] = True
            self._core.runtime.spawn(self._roll(lane, head), f"begin a shelf of {self.label}")

    async def _roll(self, lane: str, head: Head) -> None:
        deadline = Deadline.after(IN_BACKGROUND, self._core.runtime.now())
        acl = self._core.nodes.acl
        items, claims = lane_nodes(lane, head.number + 1)
        multi = (
            Create(items, acl=acl),
            Create(claims, acl=acl),
            Set(f"{lane}/head", b"%d" % (head.number + 1), head.version),
        )
        try:
            answers = await self._core.ask(Multi(multi), deadline, self.label)
            stat: Stat = answers[-1]
            self._heads[lane] = _head(lane, head.number + 1, stat.version)
        except (TransactionError, OutcomeUnknownError):
            self.forget_head(lane)  # somebody else has, or it is looked at by the next put
        except ZkRecipesError as error:
            logger.info("%s goes on with a full shelf: %s", self.label, error)
        finally:
            del self._busy[lane]

    def retire(self, lane: str, number: int, *, whole_lane: bool = False) -> None:
        """A sealed shelf was found empty; or the only shelf of a bucket whose time is over."""
        key = f"{lane} {number}"
        if key not in self._busy:
            self._busy[key] = True
            self._core.runtime.spawn(self._retire(lane, number, key, whole_lane), f"retire a shelf of {self.label}")

    async def _retire(self, lane: str, number: int, key: str, whole_lane: bool) -> None:  # noqa: FBT001 - private
        deadline = Deadline.after(IN_BACKGROUND, self._core.runtime.now())
        items, claims = lane_nodes(lane, number)
        # Refused as not empty if anything stands there. It cannot come into being afterwards: puts check the head.
        deletes: tuple[Delete, ...] = (Delete(claims), Delete(items))
        if whole_lane:
            deletes = (*deletes, Delete(f"{lane}/head"), Delete(lane))
        try:
            await self._core.ask(Multi(deletes), deadline, self.label)
        except (TransactionError, OutcomeUnknownError) as error:
            logger.debug("A shelf of %s stays, or somebody else retires it: %s", self.label, error)
        except ZkRecipesError as error:
            logger.info("An empty shelf of %s stays until the next look: %s", self.label, error)
        finally:
            del self._busy[key]


def _head(lane: str, number: int, version: int) -> Head:
    return Head(number, version, Check(f"{lane}/head", version))


def shelves_of(core: Core, path: str, label: str) -> Shelves:
    """What this client knows of a queue's lanes."""
    key = ("queue shelves", path)
    shelves = core.shared.get(key)
    if shelves is None:
        shelves = core.shared[key] = Shelves(core, path, label)
    assert isinstance(shelves, Shelves)
    return shelves
