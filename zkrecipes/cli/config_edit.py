"""`zkrecipes config set | edit | rollback | promote | abort`: what writes."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import typer

from zkrecipes.cli.config_options import (
    CanaryOption,
    DocumentPath,
    Expected,
    FileOption,
    FormatName,
    LayoutName,
    Model,
    Reason,
)
from zkrecipes.cli.documents import (
    Documents,
    assigned,
    canary_of,
    difference_text,
    read_input,
    readable,
    release_value,
    selector_text,
)
from zkrecipes.cli.output import UsageProblem, fail, out, usage_errors
from zkrecipes.cli.verbs import Json, settings_of, verb
from zkrecipes.config import Canary, ConfigReleases, Release
from zkrecipes.errors import ConfigRejectedError, ConflictError, NodeNotFoundError

__all__ = ["abort", "edit", "promote", "rollback", "set_"]

REFUSED: Final = 1
ABSENT: Final = -1
"""As a version: there is no document yet."""
ATTEMPTS: Final = 10
"""For FIELD=VALUE without --expected: somebody else may publish between our reading and our writing."""


class _Wish(NamedTuple):
    """How it is to be published; as of ConfigReleases.publish."""

    reason: str
    expected: int | None
    canary: Canary | None


def set_(
    context: typer.Context,
    path: DocumentPath,
    assignments: Annotated[
        list[str] | None,
        typer.Argument(metavar="FIELD=VALUE", help="A VALUE that is JSON is taken as such, all else as text."),
    ] = None,
    *,
    file: FileOption = None,
    reason: Reason = "",
    expected: Expected = None,
    canary: CanaryOption = None,
    model: Model = None,
    format_: FormatName = None,
    layout: LayoutName = "document",
    as_json: Json = False,
) -> None:
    """Publish the document at PATH: single fields of it (FIELD=VALUE …), or all of it from a FILE.

    With --model it is validated first. A document that does not exist yet is made.
    """
    with verb(as_json=as_json):
        if (not assignments) == (file is None):
            message = "give FIELD=VALUE, or --file FILE for the whole document"
            raise UsageProblem(message)
        selector = canary_of(canary)
        documents = Documents.of(path, model, format_, file, layout).writable()
        given = None if file is None else read_input(file)
        with settings_of(context).connect() as zk:
            releases = documents.releases(zk)
            for attempt in range(1, ATTEMPTS + 1):
                version, before = _read(documents, releases)
                text = given
                if text is None:
                    document = {} if version == ABSENT else documents.parse(before)
                    changed = assigned(document, assignments or ())
                    text = before if changed == document else documents.render(changed)
                # What was typed was meant for any document; what was computed from one is only for that.
                based_on = expected if expected is not None or given is not None else version
                try:
                    _publish(documents, releases, (version, before), text, _Wish(reason, based_on, selector))
                except ConflictError as conflict:
                    if expected is not None or given is not None or conflict.actual is None or attempt == ATTEMPTS:
                        raise
                else:
                    return


def edit(
    context: typer.Context,
    path: DocumentPath,
    *,
    reason: Reason = "",
    expected: Expected = None,
    canary: CanaryOption = None,
    model: Model = None,
    format_: FormatName = None,
    layout: LayoutName = "document",
    as_json: Json = False,
) -> None:
    """Open the document at PATH in $VISUAL or $EDITOR, and publish it if it was changed and is valid.

    Only if nobody else has published meanwhile. What cannot be published is kept in a file. Secrets are in clear.
    """
    with verb(as_json=as_json):
        selector = canary_of(canary)
        documents = Documents.of(path, model, format_, layout=layout).writable()
        with settings_of(context).connect() as zk:
            releases = documents.releases(zk)
            version, before = _read(documents, releases)
            if expected is not None and expected != version:
                found = "does not exist" if version == ABSENT else f"is in version {version}"
                message = f"{path} {found}, not in version {expected} as expected"
                raise ConflictError(message, path=path, expected=expected, actual=version)
            file = _temporary(documents, before)
            with _kept(file):
                text = _edited(documents, file, before)
                if text is not None:
                    _publish(documents, releases, (version, before), text, _Wish(reason, version, selector))
                else:
                    out.value({"path": path, "version": version, "published": False}, "not changed: nothing to publish")


def rollback(
    context: typer.Context,
    path: DocumentPath,
    version: Annotated[int, typer.Argument(metavar="VERSION", help="The release to go back to, as in `history`.")],
    *,
    reason: Reason = "",
    model: Model = None,
    format_: FormatName = None,
    layout: LayoutName = "document",
    as_json: Json = False,
) -> None:
    """Publish the document of an earlier VERSION again, as a new release."""
    with verb(as_json=as_json):
        documents = Documents.of(path, model, format_, layout=layout).writable()
        with settings_of(context).connect() as zk:
            releases = documents.releases(zk)
            _read(documents, releases)
            release = releases.rollback(version, reason=reason)
    text = f"{path} is in version {release.version}, with the document of version {version}"
    out.value({"path": path, "published": True, "release": release_value(release)}, text)


def promote(
    context: typer.Context,
    path: DocumentPath,
    *,
    model: Model = None,
    format_: FormatName = None,
    layout: LayoutName = "document",
    as_json: Json = False,
) -> None:
    """Make the canary's document everybody's."""
    with verb(as_json=as_json):
        documents = Documents.of(path, model, format_, layout=layout).writable()
        with settings_of(context).connect() as zk:
            releases = documents.releases(zk)
            _read(documents, releases)
            release = releases.promote()
    text = f"{path} is in version {release.version}: the canary's document is everybody's"
    out.value({"path": path, "published": True, "release": release_value(release)}, text)


def abort(context: typer.Context, path: DocumentPath, *, reason: Reason = "", as_json: Json = False) -> None:
    """End the canary; the instances that run it go back to the document."""
    with verb(as_json=as_json):
        documents = Documents.of(path, None, None)
        with settings_of(context).connect() as zk:
            documents.releases(zk).abort(reason=reason)
    out.value({"path": path, "aborted": True}, f"the canary of {path} has ended")


def _read(documents: Documents, releases: ConfigReleases[Any]) -> tuple[int, str]:
    """Version and text; ABSENT and nothing if there is none yet."""
    try:
        return readable(documents, releases)
    except NodeNotFoundError:
        return ABSENT, ""


def _publish(
    documents: Documents,
    releases: ConfigReleases[Any],
    base: tuple[int, str],
    text: str,
    wish: _Wish,
) -> None:
    """Check and publish a text, and tell what has changed."""
    version, before = base
    documents.check(text)
    if version != ABSENT and text == before and wish.expected in {None, version}:
        value = {"path": documents.path, "version": version, "published": False}
        out.value(value, f"nothing differs from version {version} of {documents.path}: nothing to publish")
        return
    release = releases.publish(text, reason=wish.reason, expected=wish.expected, canary=wish.canary)
    differences = documents.differences(before, text)
    value = {"path": documents.path, "version": release.version, "published": True, "release": release_value(release)}
    out.value(
        value,
        [_published(documents.path, release, wish.canary), *(f"  {difference_text(each)}" for each in differences)],
    )


def _published(path: str, release: Release, canary: Canary | None) -> str:
    if canary is None:
        return f"{path} is in version {release.version}"
    which = selector_text(canary)
    return f"a canary of {path} runs for {which}; then: zkrecipes config promote {path}, or abort"


# --- the editor -------------------------------------------------------------------------------------------------------


def _temporary(documents: Documents, text: str) -> Path:
    if not text:
        text = documents.render({}) if documents.format == "json" else ""
    # For its owner only: there may be secrets in it.
    descriptor, name = tempfile.mkstemp(prefix="zkrecipes-", suffix=f".{documents.format}")
    with open(descriptor, "w", encoding="utf-8", newline="") as file:  # noqa: PTH123 - a descriptor
        file.write(text)
    return Path(name)


@contextlib.contextmanager
def _kept(file: Path) -> Iterator[None]:
    """Delete the file when all went well; else say where the person's work is."""
    before = file.read_bytes()
    try:
        yield
    except BaseException:
        if file.exists() and file.read_bytes() != before:
            out.note("kept", f"what you wrote is kept in {file}; delete it when you are done", file=str(file))
        else:
            file.unlink(missing_ok=True)
        raise
    file.unlink(missing_ok=True)


def _edited(documents: Documents, file: Path, before: str) -> str | None:
    """What the person makes of it, once it is valid; None if it is what it was."""
    start = file.read_text(encoding="utf-8")
    while True:
        _run_editor(_editor(), file)
        text = read_input(str(file))
        if text in {start, before}:
            return None
        try:
            documents.check(text)
        except ConfigRejectedError as rejected:
            if not sys.stdin.isatty():
                raise
            out.error(rejected, REFUSED)
            if not typer.confirm("Edit again?", default=True, err=True):
                raise typer.Exit(REFUSED) from rejected
        else:
            return text


def _editor() -> Sequence[str]:
    with usage_errors():
        return shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi")


def _run_editor(editor: Sequence[str], file: Path) -> None:
    # Ctrl-C is for the editor. A function, not SIG_IGN, which the editor would inherit.
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        ended = subprocess.run([*editor, str(file)], check=False)  # noqa: S603 - the person's own editor
    except OSError as error:
        message = f"the editor {editor[0]} cannot be run ({error.strerror}); name another one in EDITOR"
        raise UsageProblem(message) from error
    finally:
        signal.signal(signal.SIGINT, before)
    if ended.returncode != 0:
        out.note("editor", f"the editor ended with status {ended.returncode}: nothing was published")
        fail(REFUSED)
