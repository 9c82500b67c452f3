"""Publishing, history, roll-back and roll-out, step by step, for every driver. Driver-free.

Each verb is a *script*: a generator that yields algorithms and is sent their results. The algorithms run under the step
lock; what stands between them (parsing, validating by the user's model, comparing, compressing) does not. A script may
yield a plain function, too: one that waits for the disk, and so must not run on an event loop.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from typing import Any, Final, Generic, TypeVar, final

from pydantic import BaseModel

from zkrecipes.config_document import parse
from zkrecipes.config_draft import NONE, Draft, Drafts
from zkrecipes.config_model import Difference
from zkrecipes.config_records import decode_canary, decode_record, decode_status
from zkrecipes.config_store import Head, Outcome, Store
from zkrecipes.config_types import (
    Canary,
    CanaryStatus,
    EndedCanary,
    Release,
    Rollout,
    RolloutStatus,
    marked,
    version_of,
)
from zkrecipes.config_writes import Write, Writer
from zkrecipes.core import Core, DefaultTimeout
from zkrecipes.errors import ConflictError, DecodeError, NodeNotFoundError, PayloadTooLargeError
from zkrecipes.flow import Algorithm
from zkrecipes.port import Delete, Exists, Stat
from zkrecipes.timing import Deadline, Timeout

__all__ = ["Publisher", "Script", "missing"]

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")

logger = logging.getLogger("zkrecipes.config")

TRIM: Final = 2.0
"""Seconds for deleting old records; what is left then, the next release deletes."""

Script = Generator[Algorithm[Any] | Callable[[], Any], Any, T]
Seconds = Timeout | DefaultTimeout


@final
class Publisher(Generic[M]):
    """The verbs.

    Args:
        core: The client's.
        drafts: The path, the model and the format.
        keep: How many release records are kept.
        clock: The time of day, as ISO 8601 in UTC.
        host: This machine's name.
        tree: Whether each field has a node of its own; documents are JSON then.
        who: The publisher; the client's identity where None.

    Raises:
        ValueError: An argument is not valid.
    """

    def __init__(
        self,
        core: Core,
        drafts: Drafts[M],
        *,
        keep: int,
        clock: Callable[[], str],
        host: str,
        tree: bool = False,
        who: str | None = None,
    ) -> None:
        if isinstance(keep, bool) or not isinstance(keep, int) or keep < 1:
            message = f"keep must be a number of releases, 1 or more, not {keep!r}"
            raise ValueError(message)
        if who is not None and not isinstance(who, str):
            message = f"who must be a str, not {type(who).__name__}"
            raise TypeError(message)
        self.drafts = drafts
        self.label = drafts.label
        self.store = Store(core, drafts.label, tree=tree)
        self._writer = Writer(self.store, clock, host, core.identity if who is None else who, drafts.model.fields)
        self._core = core
        self._keep = keep

    # --- publishing ---------------------------------------------------------------------------------------------------

    def publish(
        self,
        value: object,
        *,
        reason: str = "",
        expected: int | None = None,
        czxid: int | None = None,
        canary: Canary | None = None,
        timeout: Seconds,
    ) -> Script[Release]:
        """Publish an instance of the model."""
        raw = self.drafts.written(value)
        draft = replace(self._draft(raw), reason=_text(reason), expected=_version(expected), czxid=czxid)
        return (yield from self._publish(draft, canary, self._core.deadline(timeout)))

    def publish_text(
        self,
        text: str,
        *,
        reason: str = "",
        expected: int | None = None,
        canary: Canary | None = None,
        timeout: Seconds,
    ) -> Script[Release]:
        """Publish a document as it is written, its comments included."""
        raw = text.encode()
        self.drafts.checked(raw)
        draft = replace(self._draft(raw), reason=_text(reason), expected=_version(expected))
        return (yield from self._publish(draft, canary, self._core.deadline(timeout)))

    def rollback(self, to: int, *, reason: str = "", timeout: Seconds) -> Script[Release]:
        """Publish the document of an earlier release again."""
        deadline = self._core.deadline(timeout)
        head = yield from self._head(deadline)
        self._check_no_canary(head)
        raw = yield from self._document_of(to, head, deadline)
        self.drafts.checked(raw, to)
        draft = replace(self._draft(raw), source="rollback", reason=_text(reason), to=to)
        return (yield from self._publish(draft, None, deadline))

    def _publish(self, draft: Draft, canary: Canary | None, deadline: Deadline) -> Script[Release]:
        if canary is not None and not isinstance(canary, Canary):
            message = f"canary must be a Canary(percent=...) or Canary(labels=...), not {canary!r}"
            raise TypeError(message)
        if self.store.tree and self.drafts.model.model is None:
            message = "publishing a tree takes a model: it tells what is a node of its own; give ConfigReleases one"
            raise ValueError(message)
        while True:
            head = yield from self._head(deadline)
            self._check_no_canary(head)
            self.drafts.check_expected(head, draft)
            changed = self._changed(head, draft)
            if canary is None:
                yield from self._note_found(head, deadline)
                write = self._writer.release(head, draft, changed)
            elif head.stat is None:
                message = f"{self.label} does not exist: publish a first release to all before one to some"
                raise NodeNotFoundError(message, path=self.label)
            else:
                write = self._writer.canary(head, replace(draft, source="canary"), changed, canary)
            if (yield from self._applied(write, head, deadline)):
                return write.release

    def _applied(self, write: Write, head: Head, deadline: Deadline) -> Script[bool]:
        outcome = yield self.store.apply(write.operations, write.evidence, head, deadline)
        if outcome is Outcome.APPLIED:
            name = write.evidence.rpartition("/")[2]
            now = self._core.runtime.now()
            limit = Deadline.after(min(TRIM, deadline.remaining(now)), now)  # what is published is published
            yield self.store.trim(replace(head, names=(*head.names, name)), self._keep, limit)
            return True
        if outcome is Outcome.NO_PARENT:
            yield self.store.ensure(self.store.places.releases, deadline)
        if deadline.passed(self._core.runtime.now()):
            raise self._core.session.unavailable(self.label)
        return False

    def _head(self, deadline: Deadline) -> Script[Head]:
        head: Head = yield self.store.head(deadline)
        if head.branches is None:
            self.drafts.check_layout(head.data, {})
            return head
        nodes = {path: data for path, (data, _) in head.branches.items()}
        self.drafts.check_layout(head.data, nodes)
        return replace(head, data=self.drafts.assembled(b"", nodes))

    def _changed(self, head: Head, draft: Draft) -> tuple[str, ...]:
        return self.drafts.model.changed(self.drafts.known(head.data), draft.document)

    def _draft(self, raw: bytes) -> Draft:
        return Draft(raw, parse(raw, self.drafts.format), self._core.runtime.unique())

    def _note_found(self, head: Head, deadline: Deadline) -> Script[None]:
        """Before a document that another tool has written is replaced, record it, so that it can be rolled back to."""
        if any(version_of(name) == head.version for name in head.names):
            return
        found = self._writer.found(head)
        if found is not None:
            try:
                yield self.store.note(*found, deadline)
            except PayloadTooLargeError:
                return

    # --- canary -------------------------------------------------------------------------------------------------------

    def promote(self, *, timeout: Seconds) -> Script[Release]:
        """Make the canary's document everybody's."""
        deadline = self._core.deadline(timeout)
        unique = self._core.runtime.unique()
        while True:
            head = yield from self._head(deadline)
            rollout = self._rollout(head)
            if head.stat is None or (head.stat.version, head.stat.czxid) != (rollout.base, rollout.base_czxid):
                message = (
                    f"{self.label} is not in version {rollout.base} any more, on which the canary {rollout.id} was "
                    "based: abort it, and publish again"
                )
                raise ConflictError(message, path=self.label, expected=rollout.base, actual=head.version)
            document = parse(rollout.document, self.drafts.format)
            draft = Draft(rollout.document, document, unique, source="promote", reason=rollout.reason)
            yield from self._note_found(head, deadline)
            write = self._writer.promotion(head, draft, self._changed(head, draft), rollout)
            if (yield from self._applied(write, head, deadline)):
                return write.release

    def abort(self, *, reason: str = "", timeout: Seconds) -> Script[None]:
        """End the canary; who runs it goes back to the document."""
        deadline = self._core.deadline(timeout)
        head = yield from self._head(deadline)
        try:
            rollout = self._rollout(head)
        except DecodeError:
            # Nobody can run it, and nothing could be published while it stands there.
            yield self._delete_canary(deadline)
        else:
            yield self.end_canary(rollout, reason, deadline)

    async def _delete_canary(self, deadline: Deadline) -> None:
        with contextlib.suppress(NodeNotFoundError):
            await self._core.ask(Delete(self.store.places.canary), deadline, f"{self.label}-canary")

    async def end_canary(self, rollout: Rollout, reason: str, deadline: Deadline) -> bool:
        """End exactly this canary; False if it has ended already."""
        operations, mark = self._writer.end(rollout, reason)
        nothing = Head(None, None, (), None)
        while await self.store.apply(operations, mark, nothing, deadline) is not Outcome.APPLIED:
            # Refused, since it has ended; or the reply was lost, and it was never applied.
            stat, canary = await self.store.read((Exists(mark), Exists(self.store.places.canary)), deadline)
            if stat is None or stat.version > 0 or canary is None:
                return False
            if deadline.passed(self._core.runtime.now()):
                raise self._core.session.unavailable(self.label)
        return True

    def _rollout(self, head: Head) -> Rollout:
        if head.canary is None:
            message = f"no canary of {self.label} runs: it has ended, or was never begun"
            raise NodeNotFoundError(message, path=self.label)
        return decode_canary(head.canary[0], f"{self.label}-canary")

    def _check_no_canary(self, head: Head) -> None:
        if head.canary is None:
            return
        try:
            rollout = self._rollout(head)
            what = f"the canary {rollout.id} (by {rollout.who}, {rollout.when})"
        except DecodeError as error:
            what = f"a canary that cannot be read ({error})"
        message = f"{what} of {self.label} runs: promote() or abort() it first"
        raise ConflictError(message, path=self.label)

    # --- reading ------------------------------------------------------------------------------------------------------

    def read(self, *, timeout: Seconds) -> Script[tuple[int, bytes]]:
        """Version and bytes of the document."""
        head = yield from self._head(self._core.deadline(timeout))
        if head.stat is None or head.data is None:
            raise self._missing()
        return head.stat.version, head.data

    def history(self, *, timeout: Seconds) -> Script[list[Release]]:
        """All releases that are kept, newest first."""
        deadline = self._core.deadline(timeout)
        head = yield from self._head(deadline)
        names = [name for name in head.names if version_of(name) is not None]
        records = yield self.store.records(names, deadline)
        return [release for release, _ in self._readable(records, decode_record)]

    def diff(self, old: int, new: int | None, *, timeout: Seconds) -> Script[list[Difference]]:
        """What differs between two versions; None is the newest."""
        deadline = self._core.deadline(timeout)
        head = yield from self._head(deadline)
        if new is None and head.version is None:
            raise self._missing()
        before = yield from self._document_of(old, head, deadline)
        after = yield from self._document_of(head.version if new is None else new, head, deadline)
        return self.drafts.diff(before, after)

    def text_of_version(self, version: int, *, timeout: Seconds) -> Script[bytes]:
        """The document of a release."""
        deadline = self._core.deadline(timeout)
        head = yield from self._head(deadline)
        return (yield from self._document_of(version, head, deadline))

    def status(self, *, timeout: Seconds) -> Script[RolloutStatus]:
        """Who runs what."""
        deadline = self._core.deadline(timeout)
        reports, head = yield self.store.instances(deadline)
        marks = yield self.store.records([name for name in head.names if marked(name) is not None], deadline)
        running = [] if head.canary is None else [(self.store.places.canary, *head.canary)]
        canary = None
        for runs in self._readable(running, decode_canary):
            canary = CanaryStatus(
                runs.id, runs.selector, runs.base, runs.who, runs.host, runs.when, runs.reason, runs.changed
            )
        instances = self._readable(reports, decode_status)
        last = _last(marks)
        return RolloutStatus(head.version, canary, sorted(instances, key=lambda each: each.id), last)

    def _document_of(self, version: int | None, head: Head, deadline: Deadline) -> Script[bytes]:
        if isinstance(version, bool) or not isinstance(version, int):
            message = f"a version must be an int, as in history(), not {version!r}"
            raise TypeError(message)
        if version == head.version and head.data is not None:
            return head.data
        records = yield self.store.records([name for name in head.names if version_of(name) == version], deadline)
        if not records:
            known = sorted({number for name in head.names if (number := version_of(name)) is not None})
            kept = f"{known[0]} to {known[-1]}" if known else "none"
            message = f"there is no record of version {version} of {self.label}; kept are: {kept}"
            raise NodeNotFoundError(message, path=self.label)
        readable = self._readable(records, decode_record)
        if not readable:
            path, data, _ = records[-1]
            decode_record(data, path)
        return readable[0][1]

    def _readable(self, nodes: Sequence[tuple[Any, ...]], decode: Callable[[bytes, str], T]) -> list[T]:
        """What is readable, the last first; a node that is not ours, or of a newer version, hides no other."""
        found = []
        for path, data, *_ in reversed(nodes):
            try:
                found.append(decode(data, path))
            except DecodeError as error:
                logger.warning("%s: left out: %s", self.label, error)
        return found

    def _missing(self) -> NodeNotFoundError:
        return NodeNotFoundError(missing(self.label), path=self.label)


def _last(marks: Sequence[tuple[str, bytes, Stat]]) -> EndedCanary | None:
    """The canary that ended last: a mark is set once, at the end."""
    ended = [mark for mark in marks if mark[2].version > 0]
    if not ended:
        return None
    path, data, _ = max(ended, key=lambda mark: mark[2].mzxid)
    base, identity = marked(path.rpartition("/")[2]) or (-1, "")
    return EndedCanary(identity, base, data.decode(errors="replace"))


def missing(label: str) -> str:
    """What to say where there is no document."""
    return f"{label} does not exist: publish a first release (Config.publish, or `zkrecipes config set`)"


def _version(expected: int | None) -> int | None:
    if expected is not None and (isinstance(expected, bool) or not isinstance(expected, int) or expected < NONE):
        message = f"expected must be a version, -1 (no document yet) or None (any), not {expected!r}"
        raise ValueError(message)
    return expected


def _text(reason: str) -> str:
    if not isinstance(reason, str):
        message = f"reason must be a str, not {type(reason).__name__}"
        raise TypeError(message)
    return reason
