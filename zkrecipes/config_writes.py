"""The writes of a configuration: which operations make a release, a canary, its end. Pure.

Each is one multi, so that document, record and canary change together or not at all, and each makes or sets a node
whose name is never made twice, by which it is recognised after a lost reply.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, final

from zkrecipes.config_document import DocumentError, compressed
from zkrecipes.config_draft import Draft
from zkrecipes.config_model import Field
from zkrecipes.config_records import encode_canary, encode_record
from zkrecipes.config_store import Head, Operation, Store
from zkrecipes.config_tree import root_data, to_nodes, tree_writes
from zkrecipes.config_types import Canary, Release, Rollout
from zkrecipes.errors import PayloadTooLargeError
from zkrecipes.port import Check, Create, Delete, Multi, Set
from zkrecipes.sizes import MAX_REQUEST, check_size

__all__ = ["Write", "Writer"]

WAYS: Final = ((True, False), (True, True), (False, True))
"""Plain document, dense record: tried in turn until they fit one request."""

MAX_NOTE: Final = 1000


@final
@dataclass(frozen=True, slots=True)
class Write:
    """One multi.

    Attributes:
        operations: All or nothing.
        evidence: Full path of the node by which it is recognised.
        release: What is told of it.
    """

    operations: tuple[Operation, ...]
    evidence: str
    release: Release


@final
class Writer:
    """Makes writes.

    Args:
        store: The configuration's nodes.
        clock: The time of day, as ISO 8601 in UTC.
        host: This machine's name.
        who: The publisher.
        fields: Of the model, for the tree layout.
    """

    def __init__(
        self, store: Store, clock: Callable[[], str], host: str, who: str, fields: dict[str, Field] | None = None
    ) -> None:
        self._tree = store.tree
        self._fields = fields
        self._who = who
        self._label = store.label
        self._places = store.places
        self._core = store.core
        self._clock = clock
        self._host = host

    def release(self, head: Head, draft: Draft, changed: tuple[str, ...]) -> Write:
        """Replace the document."""
        places = self._places
        release = self._described(head, draft, changed)
        record = places.record(release.version, draft.id)

        def operations(document: bytes, *, dense: bool) -> tuple[Operation, ...]:
            return (
                *self._document(head, draft, document),
                self._create(record, encode_record(release, draft.raw, dense=dense)),
                # Refused while a canary runs: nothing else can tell the server that a node must not exist.
                self._create(places.canary, b""),
                Delete(places.canary),
            )

        return Write(self._fitting(draft.raw, operations), record, release)

    def canary(self, head: Head, draft: Draft, changed: tuple[str, ...], selector: Canary) -> Write:
        """Begin a canary on the document that is there."""
        assert head.stat is not None
        places = self._places
        release = self._described(head, draft, changed, version=head.stat.version)
        rollout = Rollout(
            id=draft.id,
            selector=selector,
            document=draft.raw,
            base=head.stat.version,
            base_czxid=head.stat.czxid,
            who=release.who,
            host=release.host,
            when=release.when,
            reason=release.reason,
            changed=changed,
        )
        mark = places.mark(rollout.base, rollout.id)

        def operations(_document: bytes, *, dense: bool) -> tuple[Operation, ...]:
            return (
                Check(places.document, rollout.base),
                self._create(places.canary, encode_canary(rollout, dense=dense)),
                self._create(mark, b""),
            )

        return Write(self._fitting(draft.raw, operations), mark, release)

    def promotion(self, head: Head, draft: Draft, changed: tuple[str, ...], rollout: Rollout) -> Write:
        """Replace the document by the canary's, and end the canary."""
        places = self._places
        release = self._described(head, draft, changed)
        record = places.record(release.version, draft.id)

        def operations(document: bytes, *, dense: bool) -> tuple[Operation, ...]:
            return (
                *self._document(head, draft, document),
                self._create(record, encode_record(release, draft.raw, dense=dense)),
                Set(places.mark(rollout.base, rollout.id), b"promoted", 0),
                Delete(places.canary),
            )

        return Write(self._fitting(draft.raw, operations), record, release)

    def end(self, rollout: Rollout, reason: str) -> tuple[tuple[Operation, ...], str]:
        """End exactly this canary; the operations, and their evidence."""
        mark = self._places.mark(rollout.base, rollout.id)
        note = f"aborted by {self._who}: {reason}".encode("utf-8", "replace")[:MAX_NOTE]
        # The mark's version tells this canary from the next one, whose node has the same name and version.
        return (Set(mark, note, 0), Delete(self._places.canary)), mark

    def found(self, head: Head) -> tuple[str, bytes] | None:
        """A record of the document that is there, which another tool has written; None if nobody would want it back."""
        if head.stat is None or head.data is None:
            return None
        unique = f"found-{head.stat.mzxid:x}"
        release = Release(head.stat.version, "", "", "", "", "found", id=unique)
        path = self._places.record(head.stat.version, unique)
        for dense in (False, True):
            try:
                note = encode_record(release, head.data, dense=dense)
                check_size(Create(path, note))
            except PayloadTooLargeError:
                continue
            except DocumentError:
                return None
            return path, note
        return None

    def _described(self, head: Head, draft: Draft, changed: tuple[str, ...], *, version: int | None = None) -> Release:
        following = 0 if head.stat is None else head.stat.version + 1
        return Release(
            version=following if version is None else version,
            who=self._who,
            host=self._host,
            when=self._clock(),
            reason=draft.reason,
            source=draft.source,
            base=head.version,
            rolled_back_to=draft.to,
            changed=changed,
            id=draft.id,
        )

    def _document(self, head: Head, draft: Draft, raw: bytes) -> tuple[Operation, ...]:
        path = self._places.document
        nodes: dict[str, bytes] = {}
        if self._tree:
            nodes = to_nodes(draft.document, self._fields)
            raw = root_data(draft.id, nodes)
        root = self._create(path, raw) if head.stat is None else Set(path, raw, head.stat.version)
        return root, *tree_writes(path, head.branches or {}, nodes, self._core.nodes.acl)

    def _create(self, path: str, data: bytes) -> Create:
        return Create(path, data, acl=self._core.nodes.acl)

    def _fitting(self, raw: bytes, operations: Callable[..., tuple[Operation, ...]]) -> tuple[Operation, ...]:
        """The operations in the plainest way that the server takes."""
        packed, size = b"", 0
        for plain, dense in WAYS:
            if not plain:
                packed = compressed(raw)
            written = operations(raw if plain else packed, dense=dense)
            try:
                check_size(Multi(written))
            except PayloadTooLargeError as error:
                size = error.size
            else:
                return written
        message = (
            f"the document of {self._label} has {len(raw)} bytes, {len(packed)} compressed; with its release record it "
            f"takes {size} bytes of the {MAX_REQUEST} that a request may have, and nothing was published. Keep large "
            "data elsewhere, and its address here"
        )
        raise PayloadTooLargeError(message, path=self._label, size=size, limit=MAX_REQUEST)
