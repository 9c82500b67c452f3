"""What was released: every document, record and canary that was ever committed, and whether that is what was promised.

Each call of a publisher has a reason of its own, which is written into what it makes: that tells whose it is.
"""

from __future__ import annotations

import json
from typing import Final, NamedTuple, final

from zkrecipes.config_records import decode_canary, decode_record
from zkrecipes.config_types import Places, Release, Rollout
from zkrecipes.testing.simulation.server import Txn
from zkrecipes.testing.simulation.tree import Change
from zkrecipes.testing.simulation.world import Violation, World

__all__ = ["PLACES", "Ledger", "Version", "number_of"]

PLACES: Final = Places("/app")


class Version(NamedTuple):
    """The document node in one state."""

    czxid: int
    mzxid: int
    version: int
    data: bytes


@final
class Ledger:
    """Everything that was committed.

    Attributes:
        now: The document; None if there is none.
        canary: The canary that runs.
        documents: All that the document node has ever held, by mzxid.
        canaries: Every canary, by id.
        released: By reason: the releases that were recorded.
    """

    def __init__(self, world: World, first: bytes) -> None:
        self._world = world
        self.now: Version | None = Version(0, 0, 0, first)
        self.documents: dict[int, Version] = {0: Version(0, 0, 0, first)}
        self.canary: Rollout | None = None
        self.canaries: dict[str, Rollout] = {}
        self.released: dict[str, Release] = {}
        self.begun: dict[str, Rollout] = {}
        self._expected: dict[str, int] = {}
        self._over: dict[str, None] = {}

    def expect(self, reason: str, version: int) -> None:
        """This call replaces exactly this version, or nothing."""
        self._expected[reason] = version

    def finish(self, reason: str) -> None:
        """This call has said that it has written nothing, and will not."""
        self._over[reason] = None
        if reason in self.released or reason in self.begun:
            self._complain(f"{reason} was released, though its call has failed")

    def committed(self, txn: Txn) -> None:
        """A transaction has been committed."""
        before, canary = self.now, self.canary
        records: list[tuple[Release, bytes]] = []
        for change in txn.changes:
            if change.path == PLACES.document:
                self._document(change, txn.zxid)
            elif change.path == PLACES.canary:
                self._canary(change)
            elif change.kind == "create" and change.path.startswith(f"{PLACES.releases}/0"):
                records.append(decode_record(change.data, change.path))
        for release, document in records:
            if release.source != "found":
                self._record(release, document, before, canary)

    def _document(self, change: Change, zxid: int) -> None:
        if change.kind == "delete":
            self.now = None
        elif change.kind == "create":
            self.now = Version(zxid, zxid, 0, change.data)
        elif change.kind == "set" and self.now is not None:
            self.now = Version(self.now.czxid, zxid, change.number, change.data)
        if self.now is not None:
            self.documents[self.now.mzxid] = self.now

    def _canary(self, change: Change) -> None:
        if change.kind == "delete" or not change.data:
            self.canary = None
            return
        self.canary = rollout = decode_canary(change.data, change.path)
        self.canaries[rollout.id] = rollout
        if rollout.reason in self._over:
            self._complain(f"{rollout.reason} was begun after its call had said that it would not be")
        if rollout.reason in self.begun:
            self._complain(f"{rollout.reason} was begun twice")
        self.begun[rollout.reason] = rollout
        self._check_expected(rollout.reason, None if self.now is None else self.now.version)

    def _record(self, release: Release, document: bytes, before: Version | None, canary: Rollout | None) -> None:
        reason, now = release.reason, self.now
        if now is None or (now.version, now.data) != (release.version, document):
            self._complain(f"the record of version {release.version} ({reason}) came without its document")
        if release.base != (None if before is None else before.version):
            self._complain(f"{reason} says that it replaces version {release.base}, but that was {before}")
        if release.source == "promote":
            if canary is None or canary.document != document or self.canary is not None:
                self._complain(f"the promotion of {reason} is not what the canary was, or did not end it")
            return
        if canary is not None:
            self._complain(f"{reason} was released while the canary {canary.reason} ran")
        if reason in self._over:
            self._complain(f"{reason} was released after its call had said that it would not be")
        if reason in self.released:
            self._complain(f"{reason} was released twice")
        self._check_expected(reason, release.base)
        self.released[reason] = release

    def _check_expected(self, reason: str, replaced: int | None) -> None:
        expected = self._expected.get(reason)
        if expected is not None and expected != replaced:
            self._complain(f"{reason} has replaced version {replaced}, though {expected} was expected")

    def _complain(self, what: str) -> None:
        raise Violation(what, self._world.seed)


def number_of(document: bytes) -> int | None:
    """What a document says; None if it is none."""
    try:
        number = json.loads(document)["number"]
    except (ValueError, KeyError, TypeError):
        return None
    return number if isinstance(number, int) else None
