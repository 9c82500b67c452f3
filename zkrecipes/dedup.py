"""Identifiers that are remembered for a while, so that what carries one is written once. Driver-free.

Each identifier is a node in a bucket of its time, made in the same multi as what it stands for. A bucket is as long as
the window; the multi also asserts that the identifier is in neither of the neighbouring buckets, so one is remembered
for one window at least, and for three at most, whichever host asks: the time is the servers'.

Nodes: `<root>/<bucket>/<digest>`, persistent; the bucket is the number of windows since 1970 in hexadecimal digits, the
digest the first 32 of SHA-256 of the identifier, the data whatever the recipe wants to know again.

Source: ours; SQS and Pulsar have such a window.
"""

from __future__ import annotations

import hashlib
import logging
from typing import Final, final

from zkrecipes.core import Core
from zkrecipes.errors import NodeNotFoundError, NotEmptyError, OutcomeUnknownError, TransactionError, ZkRecipesError
from zkrecipes.marks import Marks, Operation
from zkrecipes.port import Children, Create, Delete, Get, Multi, Stat
from zkrecipes.roots import ensure
from zkrecipes.timing import Deadline

__all__ = ["Dedup"]

logger = logging.getLogger("zkrecipes.dedup")

FRESH: Final = 60.0
"""Seconds after which the servers' time is asked for again."""

TOGETHER: Final = 200
"""Nodes that one request deletes."""

SWEEP_LIMIT: Final = 30.0
"""Seconds for which old buckets are deleted; the next window goes on with the rest."""


@final
class Dedup:
    """The identifiers of one recipe, as one client sees them.

    Args:
        core: The client's core.
        root: Full path of their parent, which the recipe makes.
        window: Seconds for which an identifier is remembered, at least.
        marks: Of the recipe, for a write that tells the servers' time.
        label: What messages call the recipe's path.
    """

    def __init__(self, core: Core, root: str, window: float, marks: Marks, label: str) -> None:
        self._core = core
        self._root = root
        self._window = max(1, int(window * 1000))
        self._marks = marks
        self._label = label
        self._made: dict[int, None] = {}

    async def operations(self, key: str, data: bytes, deadline: Deadline) -> tuple[Operation, ...]:
        """For the recipe's multi: refused with NodeExistsError if the identifier was used within the window.

        Where one is refused with NodeNotFoundError, call `forget` and begin again.
        """
        bucket = await self._bucket(deadline)
        name = _digest(key)
        acl = self._core.nodes.acl
        absent: list[Operation] = []
        for other in (bucket - 1, bucket + 1):
            # Refused if it exists: nothing else can tell a server that a node must not exist.
            path = f"{self._path(other)}/{name}"
            absent += (Create(path, acl=acl), Delete(path))
        return (*absent, Create(f"{self._path(bucket)}/{name}", data, acl=acl))

    async def first(self, key: str, deadline: Deadline) -> bytes | None:
        """What was stored with the first use of an identifier; None if it is not known (any more)."""
        found = await self.first_stat(key, deadline)
        return None if found is None else found[0]

    async def first_stat(self, key: str, deadline: Deadline) -> tuple[bytes, Stat] | None:
        """The same, with the stat of its node: its czxid is that of what was written with it."""
        bucket = await self._bucket(deadline)
        for each in (bucket, bucket - 1, bucket + 1):
            try:
                found: tuple[bytes, Stat] = await self._core.ask(
                    Get(f"{self._path(each)}/{_digest(key)}"), deadline, self._label
                )
            except NodeNotFoundError:
                continue
            return found
        return None

    def forget(self) -> None:
        """A bucket that should be there was not: somebody has deleted it. Make them anew the next time."""
        self._made.clear()

    async def _bucket(self, deadline: Deadline) -> int:
        """The present bucket, which exists, and so do its neighbours."""
        time = self._core.server_time.at_least()
        while time is None or self._core.server_time.age > FRESH:
            time = await self._marks.time(deadline)
        bucket = time // self._window
        missing = [each for each in (bucket - 1, bucket, bucket + 1) if each not in self._made]
        if missing:
            await ensure(self._core, [self._path(each) for each in missing], self._label, deadline)
            self._made = dict.fromkeys((bucket - 1, bucket, bucket + 1))
            self._core.runtime.spawn(self._sweep(bucket - 2), f"delete old identifiers of {self._label}")
        return bucket

    def _path(self, bucket: int) -> str:
        return f"{self._root}/{bucket:012x}"

    async def _sweep(self, oldest: int) -> None:
        """Delete what is older than this bucket. Best effort: the next window goes on with the rest."""
        deadline = Deadline.after(SWEEP_LIMIT, self._core.runtime.now())
        try:
            names: list[str] = await self._core.ask(Children(self._root), deadline, self._label)
            for name in sorted(names):
                number = _number(name)
                if number is not None and number < oldest:
                    await self._delete(f"{self._root}/{name}", deadline)
        except ZkRecipesError as error:
            logger.info("Old identifiers of %s stay until the next window: %s", self._label, error)

    async def _delete(self, path: str, deadline: Deadline) -> None:
        try:
            names: list[str] = await self._core.ask(Children(path), deadline, self._label)
            for start in range(0, len(names), TOGETHER):
                deletes = tuple(Delete(f"{path}/{name}") for name in names[start : start + TOGETHER])
                await self._core.ask(Multi(deletes), deadline, self._label)
            await self._core.ask(Delete(path), deadline, self._label)
        except (NodeNotFoundError, NotEmptyError, TransactionError, OutcomeUnknownError):
            return  # somebody else deletes it at this moment, or it is looked at again with the next window


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _number(name: str) -> int | None:
    try:
        return int(name, 16) if len(name) == 12 else None  # noqa: PLR2004 - as _path writes it
    except ValueError:
        return None
