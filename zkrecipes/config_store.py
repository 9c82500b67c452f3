"""The nodes of a configuration: reads, and writes that tell the truth after a lost reply. Driver-free.

Promises: document, record and whatever else a release writes are applied together or not at all; each write can be
recognised afterwards by a node whose name is never made twice (the record of a release, the mark of a canary), so a
lost reply is settled while a server answers before the deadline; nothing is applied twice.

"It was never applied" is believed only behind a committed write: a server that lags, or a deposed leader, can hide it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Final, final

from zkrecipes.calls import Unsettled
from zkrecipes.config_tree import Branches
from zkrecipes.config_types import Places, version_of
from zkrecipes.core import Core
from zkrecipes.errors import (
    ConflictError,
    NodeExistsError,
    NodeNotFoundError,
    OutcomeUnknownError,
    TransactionError,
    UnavailableError,
    ZkRecipesError,
)
from zkrecipes.flow import first_of
from zkrecipes.paths import ancestors
from zkrecipes.port import Check, Children, Create, Delete, Exists, Get, Multi, Request, Set, Stat, Sync
from zkrecipes.timing import Deadline

__all__ = ["Head", "Outcome", "Store", "never_made"]

Operation = Create | Set | Delete | Check

PAUSE: Final = 0.05
"""Seconds between two looks while a connection is being lost."""


class Outcome(Enum):
    """What became of a write."""

    APPLIED = "applied"
    MOVED = "the document, or the canary, is not what it was"
    CANARY = "a canary runs"
    NO_PARENT = "a parent is missing"


@final
@dataclass(frozen=True, slots=True)
class Head:
    """What stands there now.

    Attributes:
        data: Of the document; None if there is none.
        stat: Of the document; None if there is none.
        names: Of the records and marks.
        canary: The canary's data and stat, if one runs.
        branches: In the tree layout: the nodes below the document's.
    """

    data: bytes | None
    stat: Stat | None
    names: tuple[str, ...]
    canary: tuple[bytes, Stat] | None
    branches: Branches | None = None

    @property
    def version(self) -> int | None:
        """Of the document; None if there is none."""
        return None if self.stat is None else self.stat.version


@final
class Store:
    """The nodes of one configuration.

    Args:
        core: The client's.
        label: The document's path as the user wrote it.
        tree: Whether each field has a node of its own.
    """

    def __init__(self, core: Core, label: str, *, tree: bool = False) -> None:
        self.core = core
        self.tree = tree
        self.label = label
        self.places = Places(core.path(label))

    # --- reads --------------------------------------------------------------------------------------------------------

    async def read(self, requests: Sequence[Request], deadline: Deadline) -> list[Any]:
        """The answers of several reads in one flight, behind a sync; None for what does not exist.

        Raises:
            AccessDeniedError: One may not be read.
            UnavailableError: No server answered in time.
        """
        session = self.core.session
        while True:
            await session.ready(deadline.at, self.label)
            calls = [session.call(request) for request in (Sync(self.places.document), *requests)]
            answers: list[Any] = []
            try:
                for call in calls:
                    try:
                        answers.append(await session.result(call, deadline.at))
                    except NodeNotFoundError:
                        answers.append(None)
            except Unsettled:
                await self._pause(deadline)
            else:
                return answers[1:]

    async def head(self, deadline: Deadline) -> Head:
        """What stands there now.

        In the tree layout all nodes as one release has left them, but for what other tools have done since.
        """
        head = await self._head(deadline)
        while self.tree and head.stat is not None:
            branches = await self._branches(deadline)
            again = await self._head(deadline)
            # Read behind the branches: if no release has come in between, they are of one release.
            if again.stat is not None and again.stat.mzxid == head.stat.mzxid:
                return replace(again, branches=branches)
            head = again
        return head

    async def _branches(self, deadline: Deadline) -> Branches:
        root = self.places.document
        found: dict[str, tuple[bytes, Stat]] = {}
        parents = [root]
        while parents:
            listed = await self.read([Children(path) for path in parents], deadline)
            paths = [f"{path}/{name}" for path, names in zip(parents, listed, strict=True) for name in names or ()]
            nodes = await self.read([Get(path) for path in paths], deadline)
            seen = {path: node for path, node in zip(paths, nodes, strict=True) if node is not None}
            found.update((path.removeprefix(f"{root}/"), node) for path, node in seen.items())
            parents = [path for path, (_, stat) in seen.items() if stat.children_count]
        return found

    async def _head(self, deadline: Deadline) -> Head:
        places = self.places
        document, names, canary = await self.read(
            (Get(places.document), Children(places.releases), Get(places.canary)), deadline
        )
        data, stat = document or (None, None)
        return Head(data, stat, tuple(sorted(names or ())), canary)

    async def records(self, names: Sequence[str], deadline: Deadline) -> list[tuple[str, bytes, Stat]]:
        """Full path, data and stat of the records of these names, oldest first; those that are gone are left out."""
        paths = [f"{self.places.releases}/{name}" for name in names]
        answers = await self.read([Get(path) for path in paths], deadline)
        found = [(path, *answer) for path, answer in zip(paths, answers, strict=True) if answer is not None]
        # By czxid, not by version: versions begin again when somebody deletes the document and makes it again.
        return sorted(found, key=lambda each: each[2].czxid)

    async def instances(self, deadline: Deadline) -> tuple[list[tuple[str, bytes]], Head]:
        """Path and data of what instances report, and what stands there now."""
        head = await self.head(deadline)
        (names,) = await self.read((Children(self.places.instances),), deadline)
        paths = [f"{self.places.instances}/{name}" for name in sorted(names or ())]
        answers = await self.read([Get(path) for path in paths], deadline)
        return [(path, answer[0]) for path, answer in zip(paths, answers, strict=True) if answer is not None], head

    # --- writes -------------------------------------------------------------------------------------------------------

    async def apply(self, write: tuple[Operation, ...], evidence: str, head: Head, deadline: Deadline) -> Outcome:
        """Apply a write, once.

        Args:
            write: All or nothing.
            evidence: Full path of a node that only this write makes, or sets.
            head: What the write is based on.
            deadline: Of the whole call.

        Raises:
            OutcomeUnknownError: The reply was lost, and no server told before the deadline what became of it.
        """
        try:
            await self.core.ask(Multi(write), deadline, self.label)
        except OutcomeUnknownError as lost:
            return Outcome.APPLIED if await self._applied(write, evidence, head, deadline, lost) else Outcome.MOVED
        except TransactionError as refused:
            return self._refused(write, evidence, refused)
        return Outcome.APPLIED

    def _refused(self, write: tuple[Operation, ...], evidence: str, refused: TransactionError) -> Outcome:
        cause = refused.__cause__
        if not 0 <= refused.index < len(write) or not isinstance(cause, ZkRecipesError):
            raise refused
        operation = write[refused.index]
        if isinstance(operation, Create):
            if isinstance(cause, NodeNotFoundError):
                return Outcome.NO_PARENT
            if isinstance(cause, NodeExistsError):
                if operation.path == evidence:
                    return Outcome.APPLIED  # by an attempt of ours before, whose reply was lost
                return Outcome.CANARY if operation.path == self.places.canary else Outcome.MOVED
        elif isinstance(cause, NodeNotFoundError | ConflictError):
            return Outcome.MOVED
        raise cause

    async def _applied(
        self, write: tuple[Operation, ...], evidence: str, head: Head, deadline: Deadline, lost: OutcomeUnknownError
    ) -> bool:
        """Whether a write whose reply was lost has been applied; if not, it never will be."""
        session, places = self.core.session, self.places
        made = any(isinstance(operation, Create) and operation.path == evidence for operation in write)
        while True:
            try:
                await session.ready(deadline.at, self.label)
            except UnavailableError:
                raise lost from None
            # On one connection, and in this order: what is read behind a committed write of ours shows all that came
            # before it, and a write of ours that is still on its way on an old connection is refused by the leader.
            proof = session.call(Multi((Check("/"),)))
            looks = [
                session.call(request)
                for request in (Exists(evidence), Children(places.releases), Exists(places.document))
            ]
            answers: list[Any] = []
            try:
                with contextlib.suppress(ZkRecipesError):  # refused, which settles as well
                    await session.result(proof, deadline.at)
                for look in looks:
                    try:
                        answers.append(await session.result(look, deadline.at))
                    except NodeNotFoundError:
                        answers.append(None)
            except Unsettled:
                if deadline.passed(self.core.runtime.now() + PAUSE):
                    raise lost from None
                await first_of(session.changed, until=self.core.runtime.now() + PAUSE)
                continue
            stat, names, document = answers
            if stat is not None:
                return made or stat.version > 0
            if made and not never_made(names or (), head, document):
                raise lost
            return not made  # a mark that is gone was of a canary that has ended

    async def ensure(self, parent: str, deadline: Deadline) -> None:
        """Make a parent, and its parents, where they are missing."""
        for path in ancestors(parent):
            while await self.core.ask(Exists(path), deadline, self.label) is None:
                try:
                    await self.core.ask(Create(path, acl=self.core.nodes.acl), deadline, self.label)
                except (NodeExistsError, OutcomeUnknownError):
                    continue

    async def note(self, path: str, data: bytes, deadline: Deadline) -> None:
        """Create a node whose name says what is in it; it does not matter who makes it."""
        while True:
            try:
                await self.core.ask(Create(path, data, acl=self.core.nodes.acl), deadline, self.label)
            except NodeExistsError:
                return
            except NodeNotFoundError:
                await self.ensure(self.places.releases, deadline)
            except OutcomeUnknownError:
                continue
            else:
                return

    async def trim(self, head: Head, keep: int, deadline: Deadline) -> None:
        """Delete the oldest records and marks beyond so many of each. Best effort: the next release tries again."""
        newest = -1 if head.stat is None else head.stat.version

        def age(name: str) -> tuple[bool, int]:
            version = _version(name)
            # A higher version than the newest is of a document that was deleted since.
            return version <= newest + 1, version

        records = sorted((name for name in head.names if _version(name) >= 0), key=age)
        # Not those on the newest version: one of them may belong to a canary that runs.
        marks = [
            name for name in head.names if name.startswith("canary-") and not name.startswith(f"canary-{newest:010d}")
        ]
        for name in (*records[: max(0, len(records) - keep)], *marks[: max(0, len(marks) - keep)]):
            try:
                await self.core.ask(Delete(f"{self.places.releases}/{name}"), deadline, self.label)
            except NodeNotFoundError:
                continue
            except ZkRecipesError:
                return

    async def _pause(self, deadline: Deadline) -> None:
        now = self.core.runtime.now()
        if deadline.passed(now + PAUSE):
            raise self.core.session.unavailable(self.label)
        await first_of(self.core.session.changed, until=now + PAUSE)


def _version(name: str) -> int:
    version = version_of(name)
    return -1 if version is None else version


def never_made(names: Sequence[str], head: Head, document: Stat | None) -> bool:
    """Whether a missing record proves that its release was never made: it could have been trimmed since."""
    if head.stat is None:
        return document is None or any(version_of(name) == 0 for name in names)
    if document is None or document.czxid != head.stat.czxid:
        return False
    # The oldest are deleted first: where a record as old as ours would be is there, ours would be, too.
    ours = head.stat.version + 1
    return document.version < ours or any(0 <= _version(name) <= ours for name in names)
