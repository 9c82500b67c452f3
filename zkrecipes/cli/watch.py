"""`zkrecipes watch`: shows the changes of nodes, children or trees."""

from __future__ import annotations

import base64
import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Annotated, Any, Final, final

import typer

from zkrecipes.cli.output import UsageProblem, out, printable, usage_errors
from zkrecipes.cli.verbs import Json, settings_of, verb
from zkrecipes.client import Client
from zkrecipes.listener import Change, ChildrenListener, NodeListener, TreeListener
from zkrecipes.port import Stat

__all__ = ["shown", "stat_value", "text_of", "until_interrupted", "watch"]

LONGEST: Final = 200
"""Characters of a value on a person's screen."""

POLL: Final = 0.5

AnyListener = NodeListener | ChildrenListener | TreeListener


def watch(
    context: typer.Context,
    paths: Annotated[list[str], typer.Argument(metavar="PATH", help="Below the namespace. Need not exist yet.")],
    *,
    tree: Annotated[bool, typer.Option("--tree", help="The nodes and all below them.")] = False,
    children: Annotated[bool, typer.Option("--children", help="The children of the nodes.")] = False,
    depth: Annotated[
        int | None, typer.Option("--depth", metavar="LEVELS", help="With --tree: levels below PATH; all by default.")
    ] = None,
    initial: Annotated[bool, typer.Option(help="Whether to show what is there already.")] = True,
    once: Annotated[bool, typer.Option("--once", help="Show what is there, and end.")] = False,
    as_json: Json = False,
) -> None:
    """Show the changes of nodes, of their children or of whole trees, each time that they change, until Ctrl-C.

    Shows the newest value; values that follow one another quickly are merged. "stale" means that the connection is
    suspended, "fresh" that everything has been read again. With --json, one JSON object a line.
    """
    with verb(as_json=as_json), settings_of(context).connect() as zk:
        with usage_errors():
            listeners = _listeners(zk, paths, tree=tree, children=children, depth=depth)
        if once and not initial:
            message = "--once shows what is there already, and --no-initial leaves it out: use one of them"
            raise UsageProblem(message)
        screen = _Shown()
        for watched, listener in listeners:
            if once:
                screen.state(listener.start())
                listener.close()
            else:
                screen.follow(watched, listener, initial=initial)
        if not once:
            try:
                until_interrupted(zk, screen.broken)
            finally:
                # Before the client: its end would be shown as a suspended connection.
                for _, listener in listeners:
                    listener.close()


def _listeners(
    zk: Client, paths: Sequence[str], *, tree: bool, children: bool, depth: int | None
) -> list[tuple[Sequence[str], AnyListener]]:
    if tree and children:
        message = "--tree and --children: use one of them; --tree --depth 1 shows a node with its children"
        raise UsageProblem(message)
    if depth is not None and not tree:
        message = "--depth says how deep a tree is shown: use it with --tree"
        raise UsageProblem(message)
    if children:
        return [([path], ChildrenListener(zk, path)) for path in paths]
    return [(paths, TreeListener(zk, *paths, depth=depth) if tree else NodeListener(zk, *paths))]


def until_interrupted(zk: Client, broken: threading.Event) -> None:
    """Wait for Ctrl-C, for the end of whoever reads our output, or for what makes waiting senseless.

    Raises:
        BrokenPipeError: Nobody reads our output any more.
        AuthenticationError: The servers refuse our credentials; the client never connects again.
    """
    while not broken.wait(POLL):
        if zk.health().state == "failed":
            zk.exists("/")  # tells why
    raise BrokenPipeError


@final
class _Shown:
    """Prints changes and marks, on the listeners' callback threads: while that takes long, changes are merged.

    Attributes:
        broken: Set when nobody reads the output any more.
    """

    def __init__(self) -> None:
        self.broken = threading.Event()
        self._lock = threading.Lock()

    def follow(self, paths: Sequence[str], listener: AnyListener, *, initial: bool) -> None:
        """Show what a listener tells from now on."""
        listener.on_created(self.change, after_initial=not initial)
        listener.on_changed(self.change)
        listener.on_deleted(self.change)
        listener.on_error(self.error)

        def mark(event: str, text: Callable[[], str]) -> Callable[[], None]:
            return lambda: self._mark(event, paths, text())

        listener.on_initialized(mark("watching", lambda: _count(listener)))
        listener.on_stale(mark("stale", lambda: "the connection is suspended; what is shown may be old"))
        listener.on_fresh(mark("fresh", lambda: "everything has been read again"))
        listener.start()

    def state(self, listener: AnyListener) -> None:
        """Show what is there."""
        for node in listener.snapshot().values():
            value, encoding = text_of(node.value)
            entry = {"event": "present", "path": node.path, "value": value, "encoding": encoding}
            out.value({**entry, "stat": stat_value(node.stat)}, f"{node.path}  {shown(node.value)}")

    def change(self, change: Change[bytes]) -> None:
        """Show one."""
        now = datetime.now().astimezone()
        old, old_encoding = text_of(change.old)
        new, new_encoding = text_of(change.new)
        kind = change.kind.value
        value = {
            "event": kind,
            "at": now.isoformat(),
            "path": change.path,
            "old": old,
            "old_encoding": old_encoding,
            "new": new,
            "new_encoding": new_encoding,
            "stat": stat_value(change.stat),
        }
        values = shown(change.new)
        if kind == "changed":
            values = f"{shown(change.old)} -> {shown(change.new)}"
        elif kind == "deleted":
            values = f"was {shown(change.old)}"
        with self._writing():
            out.value(value, f"{now:%H:%M:%S}  {kind:<8} {change.path}  {values}")

    def error(self, error: Exception) -> None:
        """What cannot be shown."""
        with self._writing():
            out.note("error", str(error), error=type(error).__name__, path=getattr(error, "path", ""))

    def _mark(self, event: str, paths: Sequence[str], text: str) -> None:
        now = datetime.now().astimezone()
        value = {"event": event, "at": now.isoformat(), "paths": list(paths)}
        with self._writing():
            out.value(value, f"{now:%H:%M:%S}  {event:<8} {' '.join(paths)}  {text}")

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        # Several listeners, each with a callback thread of its own, share one standard output.
        with self._lock:
            try:
                yield
            except BrokenPipeError:
                self.broken.set()


def stat_value(stat: Stat) -> dict[str, Any]:
    """What a program wants to know of a node."""
    return {
        "version": stat.version,
        "czxid": stat.czxid,
        "mzxid": stat.mzxid,
        "mtime": stat.mtime,
        "ephemeral_owner": stat.ephemeral_owner,
        "children": stat.children_count,
    }


def _count(listener: AnyListener) -> str:
    count = len(listener.snapshot())
    return f"{count} node{'' if count == 1 else 's'}"


def text_of(data: bytes | None) -> tuple[str | None, str | None]:
    """As JSON can hold it: the text, and how it was made of the bytes."""
    if data is None:
        return None, None
    try:
        return data.decode(), "utf-8"
    except UnicodeDecodeError:
        return base64.b64encode(data).decode("ascii"), "base64"


def shown(data: bytes | None) -> str:
    """As a person's screen can show it, in one line."""
    if data is None:
        return ""
    if not data:
        return "(no data)"
    text, encoding = text_of(data)
    if text is None or encoding != "utf-8":
        return f"({len(data)} bytes)"
    cut = printable(text[:LONGEST], keep="")
    return cut if len(text) <= LONGEST else f"{cut}… ({len(data)} bytes)"
