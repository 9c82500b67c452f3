"""`zkrecipes queue put | take | stats | peek | dead | redrive`."""

from __future__ import annotations

import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path as FilePath
from typing import Annotated, Any

import typer

from zkrecipes.cli.child import Signals, run_child
from zkrecipes.cli.output import HOLD_LOST, UsageProblem, fail, out, usage_errors
from zkrecipes.cli.verbs import (
    Grace,
    Json,
    Path,
    ServerTick,
    SessionTimeout,
    child_environment,
    report,
    settings_of,
    verb,
)
from zkrecipes.cli.watch import shown, text_of
from zkrecipes.leadership import checked_grace
from zkrecipes.queue import Claim, Queue, QueuedItem
from zkrecipes.queue_parts import Layout
from zkrecipes.timing import to_seconds

__all__ = ["app"]

LayoutName = Annotated[
    Layout,
    typer.Option(
        "--layout",
        help="curator… share a queue with Curator's DistributedQueue, DistributedPriorityQueue, DistributedDelayQueue.",
    ),
]
LockPath = Annotated[
    str | None,
    typer.Option(
        "--lock-path",
        metavar="PATH",
        help="What Curator's consumers were given as lockPath, in its layouts; PATH-locks by default.",
    ),
]

app = typer.Typer(help="Put items into a queue, work them off, look at it.", no_args_is_help=True)


@app.command("put")
def put(
    context: typer.Context,
    path: Path,
    items: Annotated[list[str], typer.Argument(metavar="ITEM…", help="Texts; - reads the standard input, one a line.")],
    *,
    priority: Annotated[int, typer.Option("--priority", metavar="N", help="Lower is served first.")] = 0,
    delay: Annotated[float, typer.Option("--delay", metavar="SECONDS", help="Not served before.")] = 0.0,
    dedup_id: Annotated[
        str | None, typer.Option("--dedup-id", metavar="ID", help="Stored once for each ID; for one ITEM only.")
    ] = None,
    headers: Annotated[
        list[str] | None, typer.Option("--header", metavar="KEY=TEXT", help="For the consumer; may be repeated.")
    ] = None,
    layout: LayoutName = "segments",
    lock_path: LockPath = None,
    as_json: Json = False,
) -> None:
    """Store items, all in one transaction, and print their identifiers."""
    with verb(as_json=as_json), settings_of(context).connect() as zk:
        payloads = [item.encode() for item in (sys.stdin.read().splitlines() if items == ["-"] else items)]
        if dedup_id is not None and len(payloads) != 1:
            message = f"--dedup-id names one item, and there are {len(payloads)}"
            raise UsageProblem(message)
        with usage_errors():
            queue = Queue(zk, path, layout=layout, lock_path=lock_path)
            pairs = dict(_pair(header) for header in headers or ())
            if dedup_id is not None:
                ids = [queue.put(payloads[0], priority=priority, delay=delay, dedup_id=dedup_id, headers=pairs)]
            else:
                ids = queue.put_many(payloads, priority=priority, delay=delay, headers=pairs)
    out.value({"path": path, "ids": ids}, list(ids))


def _pair(header: str) -> tuple[str, str]:
    key, equals, text = header.partition("=")
    if not equals or not key:
        message = f"--header must be KEY=TEXT, not {header!r}"
        raise UsageProblem(message)
    return key, text


@app.command("take")
def take(
    context: typer.Context,
    path: Path,
    command: Annotated[
        list[str] | None, typer.Argument(metavar="[-- COMMAND…]", help="What does the work, after `--`.")
    ] = None,
    *,
    timeout: Annotated[
        float | None, typer.Option("--timeout", metavar="SECONDS", help="Longest wait; for ever by default.")
    ] = None,
    retry_after: Annotated[
        float, typer.Option("--retry-after", metavar="SECONDS", help="When a failed item is served again.")
    ] = 0.0,
    max_attempts: Annotated[
        int | None, typer.Option("--max-attempts", metavar="N", help="After so many an item is a dead letter.")
    ] = None,
    session_timeout: SessionTimeout = 10.0,
    grace: Grace = None,
    server_tick: ServerTick = None,
    layout: LayoutName = "segments",
    lock_path: LockPath = None,
    as_json: Json = False,
) -> None:
    """Wait for an item, and print it; it is acknowledged once it is printed.

    With COMMAND: run it while the item is ours; its exit status becomes ours. With 0 the item is acknowledged, else it
    is given back. It finds the item in the file ZKRECIPES_ITEM_FILE, and ZKRECIPES_ITEM_ID, ZKRECIPES_ATTEMPT,
    ZKRECIPES_TOKEN and ZKRECIPES_PATH in its environment. If the claim can be proved no longer, it gets SIGTERM in time
    and SIGKILL before anybody else can have the item; the status is 76 then.
    """
    signals = Signals()
    with verb(as_json=as_json), signals.caught(), settings_of(context).connect(session_timeout, server_tick) as zk:
        with usage_errors():
            queue = Queue(zk, path, layout=layout, lock_path=lock_path, max_attempts=max_attempts)
            seconds = checked_grace(zk.core, grace)
            to_seconds(timeout)
            if to_seconds(retry_after, "retry_after") and layout in {"curator", "curator-priority"}:
                message = f"--retry-after needs delays, which --layout {layout} has not: a failed item is served again"
                raise UsageProblem(message)
        claim = queue.take(timeout)
        if command:
            fail(_work(claim, command, seconds, signals, retry_after))
        with claim:
            text, encoding = text_of(claim.item)
            value: dict[str, Any] = {
                "path": path,
                "id": claim.id,
                "item": text,
                "encoding": encoding,
                "attempt": claim.attempt,
            }
            value |= {"priority": claim.priority, "headers": dict(claim.headers)}
            out.value(value, shown(claim.item) if encoding != "utf-8" else str(text))


def _work(claim: Claim[bytes], command: list[str], grace: float, signals: Signals, retry_after: float) -> int:
    """Run the command, and settle the item as it ended."""
    out.note("claimed", path=claim.path, id=claim.id, attempt=claim.attempt, token=claim.token)
    with tempfile.TemporaryDirectory(prefix="zkrecipes-item-") as directory:
        file = FilePath(directory) / "item"
        file.write_bytes(claim.item)
        environment = child_environment(claim.path, claim)
        environment |= {
            "ZKRECIPES_ITEM_FILE": str(file),
            "ZKRECIPES_ITEM_ID": claim.id,
            "ZKRECIPES_ATTEMPT": str(claim.attempt),
        }
        ended = run_child(command, claim, grace=grace, signals=signals, environment=environment)
    status = report("item of", claim.path, claim, ended)
    if status == 0:
        claim.ack()
    elif status == HOLD_LOST and not claim.valid:
        claim.release()
    else:
        claim.nack(retry_after, f"the command ended with status {status}")
    return status


@app.command("stats")
def stats(
    context: typer.Context,
    path: Path,
    *,
    layout: LayoutName = "segments",
    lock_path: LockPath = None,
    as_json: Json = False,
) -> None:
    """Show how many items wait, are delayed, claimed, dead, and the age of the oldest that waits."""
    with verb(as_json=as_json), settings_of(context).connect() as zk:
        with usage_errors():
            queue = Queue(zk, path, layout=layout, lock_path=lock_path)
        now = queue.stats()
    value = {"path": path, "waiting": now.waiting, "delayed": now.delayed, "claimed": now.claimed, "dead": now.dead}
    text = f"{now.waiting} waiting, {now.delayed} delayed, {now.claimed} claimed, {now.dead} dead"
    if now.oldest_age is not None:
        text += f"; the oldest waits for {now.oldest_age:.1f} s"
    out.value({**value, "oldest_age": now.oldest_age}, text)


@app.command("peek")
def peek(
    context: typer.Context,
    path: Path,
    *,
    count: Annotated[int, typer.Option("--count", "-n", metavar="N", help="How many.")] = 10,
    layout: LayoutName = "segments",
    lock_path: LockPath = None,
    as_json: Json = False,
) -> None:
    """Show what is served next; nothing is claimed."""
    with verb(as_json=as_json), settings_of(context).connect() as zk, usage_errors():
        items = Queue(zk, path, layout=layout, lock_path=lock_path).peek(count)
    _show(path, "items", items, f"nothing waits in {path}")


@app.command("dead")
def dead(
    context: typer.Context,
    path: Path,
    *,
    layout: LayoutName = "segments",
    lock_path: LockPath = None,
    as_json: Json = False,
) -> None:
    """Show the dead letters, with their errors, the oldest first."""
    with verb(as_json=as_json), settings_of(context).connect() as zk:
        with usage_errors():
            queue = Queue(zk, path, layout=layout, lock_path=lock_path)
        letters = queue.dead_letters()
    _show(path, "dead", letters, f"no dead letter in {path}")


@app.command("redrive")
def redrive(
    context: typer.Context,
    path: Path,
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID…", help="Of dead letters.")] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    layout: LayoutName = "segments",
    lock_path: LockPath = None,
    as_json: Json = False,
) -> None:
    """Put dead letters back at the end of the line, as if never attempted. Status 1 if one of the IDs is none."""
    if bool(ids) == everything:
        message = "give the identifiers of dead letters, as `zkrecipes queue dead` shows them, or --all"
        raise UsageProblem(message)
    with verb(as_json=as_json), settings_of(context).connect() as zk:
        with usage_errors():
            queue = Queue(zk, path, layout=layout, lock_path=lock_path)
        done = queue.redrive(None if everything else ids)
    out.value({"path": path, "redriven": done}, f"{done} put back")
    if not everything and done != len(dict.fromkeys(ids or ())):
        fail(1)


def _show(path: str, key: str, items: list[QueuedItem[bytes]], none: str) -> None:
    lines = [
        f"{each.id}  {_time(each.put_at):%Y-%m-%d %H:%M:%S}  priority {each.priority}  attempts {each.attempts}  "
        f"{shown(each.payload)}" + (f"  {each.error}" if each.error else "")
        for each in items
    ]
    out.value({"path": path, key: [_value(each) for each in items]}, lines or none)


def _value(item: QueuedItem[bytes]) -> dict[str, Any]:
    text, encoding = text_of(item.payload)
    return {
        "id": item.id,
        "item": text,
        "encoding": encoding,
        "priority": item.priority,
        "attempts": item.attempts,
        "headers": dict(item.headers),
        "error": item.error,
        "put_at": _time(item.put_at).isoformat(),
        "dead_at": None if item.dead_at is None else _time(item.dead_at).isoformat(),
    }


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC).astimezone()
