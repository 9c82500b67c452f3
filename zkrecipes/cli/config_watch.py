"""`zkrecipes config watch`: each release as it comes, with what it changes."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, final

import typer

from zkrecipes.cli.config_options import DocumentPath, FormatName, LayoutName, Model
from zkrecipes.cli.documents import Documents, difference_text, model_errors, release_value, selector_text
from zkrecipes.cli.output import out, usage_errors
from zkrecipes.cli.verbs import Json, settings_of, verb
from zkrecipes.cli.watch import until_interrupted
from zkrecipes.client import Client
from zkrecipes.config import ConfigReleases, Release
from zkrecipes.config_records import decode_canary
from zkrecipes.errors import DecodeError, NodeNotFoundError, ZkRecipesError
from zkrecipes.listener import Change, NodeListener, TreeListener

__all__ = ["watch"]

RECORD_LIMIT = 5.0
"""Seconds to look for the record of a release; what cannot be had in time is left out."""


def watch(
    context: typer.Context,
    path: DocumentPath,
    *,
    initial: Annotated[bool, typer.Option(help="Whether to show what is there already.")] = True,
    model: Model = None,
    format_: FormatName = None,
    layout: LayoutName = "document",
    as_json: Json = False,
) -> None:
    """Show each release of the document at PATH as it comes, with what it changes, and canaries, until Ctrl-C.

    With --model it says, too, whether the document fits. Releases that follow one another quickly are merged.
    """
    with verb(as_json=as_json):
        documents = Documents.of(path, model, format_, layout=layout)
        with settings_of(context).connect() as zk:
            shown = _Shown(documents, documents.releases(zk), initial=initial)
            with usage_errors():
                paths = (path, f"{path}-canary")
                listener = TreeListener(zk, *paths) if layout == "tree" else NodeListener(zk, *paths)
            _follow(zk, listener, shown, initial=initial)


def _follow(zk: Client, listener: NodeListener[bytes] | TreeListener[bytes], shown: _Shown, *, initial: bool) -> None:
    listener.on_created(shown.change, after_initial=not initial)
    listener.on_changed(shown.change)
    listener.on_deleted(shown.change)
    listener.on_stale(lambda: shown.mark("stale", "the connection is suspended; what is shown may be old"))
    listener.on_fresh(lambda: shown.mark("fresh", "everything has been read again"))
    listener.on_initialized(lambda: shown.mark("watching", "waits for releases"))
    try:
        listener.start()
        until_interrupted(zk, shown.broken)
    finally:
        listener.close()


@final
class _Shown:
    """Prints releases, on the listener's callback thread.

    Attributes:
        broken: Set when nobody reads the output any more.
    """

    def __init__(self, documents: Documents, releases: ConfigReleases[Any], *, initial: bool) -> None:
        self.broken = threading.Event()
        self._documents = documents
        self._releases = releases
        self._runs: str | None = None
        self._tree = documents.layout == "tree"
        self._last: bytes | None = None
        if self._tree and not initial:
            with contextlib.suppress(NodeNotFoundError):
                self._last = releases.read()[1].encode()

    def change(self, change: Change[bytes]) -> None:
        """The document, or the canary, has changed."""
        if change.path == f"{self._documents.path}-canary":
            self._canary(change)
        elif self._tree:
            self._look_again()
        elif change.new is None:
            self._gone()
        else:
            self._document(change.stat.version, change.old, change.new)

    def mark(self, event: str, text: str) -> None:
        """Something else has happened."""
        self._say({"event": event}, [text])

    def _look_again(self) -> None:
        """One of many nodes has changed: put the document together, which is of one release."""
        try:
            version, text = self._releases.read(timeout=RECORD_LIMIT)
        except NodeNotFoundError:
            if self._last is not None:
                self._last = None
                self._gone()
            return
        new, old = text.encode(), self._last
        if new != old:
            self._last = new
            self._document(version, old, new)

    def _gone(self) -> None:
        self._say({"event": "deleted"}, ["the document was deleted; services keep what they have"])

    def _document(self, version: int, old: bytes | None, new: bytes) -> None:
        release = self._record(version)
        differences = self._documents.drafts.diff(old, new)
        errors = model_errors(self._documents, new)
        value = {
            "event": "release",
            "version": version,
            "release": None if release is None else release_value(release),
            "differences": [{**asdict(each), "old": _text(each.old), "new": _text(each.new)} for each in differences],
            "errors": [{"path": each.path, "message": each.message} for each in errors],
        }
        lines = [f"version {version}  {_by(release)}"]
        # Of the first one all fields would be new.
        lines += [f"  {difference_text(each)}" for each in differences] if old is not None else []
        lines += [f"  REFUSED: {each}" for each in errors]
        self._say(value, lines)

    def _canary(self, change: Change[bytes]) -> None:
        if not change.new:
            self._canary_ended()
            return
        try:
            rollout = decode_canary(change.new, change.path)
        except DecodeError as error:
            self._say({"event": "canary", "errors": [{"path": "", "message": str(error)}]}, [str(error)])
            return
        self._runs = rollout.id
        errors = model_errors(self._documents, rollout.document)
        why = f"  {rollout.reason!r}" if rollout.reason else ""
        value = {
            "event": "canary",
            "id": rollout.id,
            "base": rollout.base,
            "who": rollout.who,
            "reason": rollout.reason,
            "changed": list(rollout.changed),
            "errors": [{"path": each.path, "message": each.message} for each in errors],
        }
        which = selector_text(rollout.selector)
        line = f"canary {rollout.id} for {which}  {rollout.who}{why}  changed: {', '.join(rollout.changed)}"
        self._say(value, [line, *(f"  REFUSED: {each}" for each in errors)])

    def _canary_ended(self) -> None:
        how = ""
        if self._runs is not None:
            with contextlib.suppress(ZkRecipesError):
                last = self._releases.status(timeout=RECORD_LIMIT).last
                how = last.how if last is not None and last.id == self._runs else ""
        value = {"event": "canary_ended", "id": self._runs, "how": how}
        self._say(value, [f"the canary has ended: {how}" if how else "the canary has ended"])
        self._runs = None

    def _record(self, version: int) -> Release | None:
        try:
            history = self._releases.history(timeout=RECORD_LIMIT)
        except ZkRecipesError:
            return None
        return next((each for each in history if each.version == version), None)

    def _say(self, value: dict[str, Any], lines: list[str]) -> None:
        now = datetime.now().astimezone()
        first, *others = lines
        with self._writing():
            out.value(
                {**value, "at": now.isoformat(), "path": self._documents.path}, [f"{now:%H:%M:%S}  {first}", *others]
            )

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            self.broken.set()


def _by(release: Release | None) -> str:
    if release is None:
        return "written by another tool, or its record is gone"
    to = "" if release.rolled_back_to is None else f" to {release.rolled_back_to}"
    reason = f"  {release.reason!r}" if release.reason else ""
    return f"{release.source}{to} by {release.who or 'another tool'}{reason}"


def _text(value: Any) -> Any:
    return value if value is None or isinstance(value, str | int | float | bool | list | dict) else str(value)
