"""`zkrecipes topic publish | tail | subscribers | offsets | trim`."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import Annotated, Any

import typer

from zkrecipes.cli.output import UsageProblem, out, usage_errors
from zkrecipes.cli.verbs import Json, Path, settings_of, verb
from zkrecipes.cli.watch import shown, text_of
from zkrecipes.errors import DecodeError, GapError
from zkrecipes.pubsub import Message, Position, Retention, Subscriber, Topic

__all__ = ["app"]

app = typer.Typer(help="Publish messages to a topic, read it, look at who reads it.", no_args_is_help=True)


@app.command("publish")
def publish(
    context: typer.Context,
    path: Path,
    values: Annotated[
        list[str], typer.Argument(metavar="TEXT…", help="Messages; - reads the standard input, one a line.")
    ],
    *,
    key: Annotated[str | None, typer.Option("--key", help="For subscribers.")] = None,
    headers: Annotated[
        list[str] | None, typer.Option("--header", metavar="KEY=TEXT", help="For subscribers; may be repeated.")
    ] = None,
    message_id: Annotated[
        str | None, typer.Option("--message-id", metavar="ID", help="Stored once for each ID; for one TEXT only.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Store messages, and print where they stand."""
    with verb(as_json=as_json), settings_of(context).connect() as zk:
        payloads = [each.encode() for each in (sys.stdin.read().splitlines() if values == ["-"] else values)]
        if message_id is not None and len(payloads) != 1:
            message = f"--message-id names one message, and there are {len(payloads)}"
            raise UsageProblem(message)
        pairs = dict(_pair(header) for header in headers or ())
        with usage_errors():
            topic = Topic(zk, path)
        positions = [
            str(topic.publish(each, key=key, headers=pairs or None, message_id=message_id)) for each in payloads
        ]
    out.value({"path": path, "positions": positions}, positions)


def _pair(header: str) -> tuple[str, str]:
    key, equals, text = header.partition("=")
    if not equals or not key:
        message = f"--header must be KEY=TEXT, not {header!r}"
        raise UsageProblem(message)
    return key, text


@app.command("tail")
def tail(
    context: typer.Context,
    path: Path,
    *,
    start: Annotated[
        str, typer.Option("--from", metavar="START", help='"latest", "earliest", a position, or a time with its zone.')
    ] = "latest",
    name: Annotated[
        str | None,
        typer.Option("--name", help="Of a durable subscription: each message is acknowledged once it is printed."),
    ] = None,
    count: Annotated[int | None, typer.Option("--count", "-n", metavar="N", help="End after so many.")] = None,
    timeout: Annotated[
        float | None, typer.Option("--timeout", metavar="SECONDS", help="Longest wait for a message; then status 75.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Print messages as they come, with their positions. Removed ones, and what is no message, go to standard error."""
    if count is not None and count < 1:
        message = f"--count must be 1 or more, not {count}"
        raise UsageProblem(message)
    with verb(as_json=as_json), settings_of(context).connect() as zk:
        with usage_errors():
            topic = Topic(zk, path)
            begin = _start(start)
        subscription = topic.subscribe(name or "tail", start=begin, durable=name is not None)
        with subscription:
            printed = 0
            while count is None or printed < count:
                try:
                    message_ = subscription.receive(timeout)
                except (DecodeError, GapError) as error:
                    out.note("not printed", str(error), path=path, error=type(error).__name__)
                    continue
                _print(path, message_)
                printed += 1
                if name is not None:
                    message_.ack()


def _start(text: str) -> Any:
    if text in {"latest", "earliest"}:
        return text
    try:
        return Position.parse(text)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        message = (
            f'--from must be "latest", "earliest", a position such as 0-17, or a time such as '
            f"2026-01-31T12:00:00+00:00, not {text!r}"
        )
        raise UsageProblem(message) from None


def _print(path: str, message: Message[bytes]) -> None:
    text, encoding = text_of(message.value)
    value = {
        "path": path,
        "position": str(message.position),
        "value": text,
        "encoding": encoding,
        "key": message.key,
        "headers": dict(message.headers),
        "message_id": message.message_id,
        "published_at": message.published_at.isoformat(),
    }
    out.value(value, f"{message.position}\t{shown(message.value) if encoding != 'utf-8' else text}")


@app.command("subscribers")
def subscribers(context: typer.Context, path: Path, *, as_json: Json = False) -> None:
    """Show who reads the topic now."""
    _show(context, path, as_json=as_json, here=True)


@app.command("offsets")
def offsets(context: typer.Context, path: Path, *, as_json: Json = False) -> None:
    """Show the durable subscriptions: their positions, how far they are behind, and who reads them."""
    _show(context, path, as_json=as_json, here=False)


def _show(context: typer.Context, path: str, *, as_json: bool, here: bool) -> None:
    with verb(as_json=as_json), settings_of(context).connect() as zk:
        with usage_errors():
            topic = Topic(zk, path)
        found = [each for each in topic.subscribers() if (each.here if here else each.durable)]
    lines = [_line(each) for each in found]
    nothing = "nobody reads" if here else "no durable subscription of"
    out.value(
        {"path": path, "subscribers" if here else "offsets": [_value(each) for each in found]},
        lines or f"{nothing} {path}",
    )


def _line(each: Subscriber) -> str:
    return f"{each.name}\t{each.position}\t{each.lag} behind\t{each.host or 'away'}"


def _value(each: Subscriber) -> dict[str, Any]:
    return {
        "name": each.name,
        "position": str(each.position),
        "lag": each.lag,
        "host": each.host,
        "durable": each.durable,
    }


@app.command("trim")
def trim(
    context: typer.Context,
    path: Path,
    *,
    before: Annotated[
        str | None, typer.Option("--before", metavar="START", help="A position, a time with its zone, or latest.")
    ] = None,
    keep: Annotated[int | None, typer.Option("--keep", metavar="N", help="All but the newest N.")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also what durable subscriptions have not acknowledged.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Remove old messages, and print the low-water: everything before it is gone."""
    with verb(as_json=as_json), settings_of(context).connect() as zk, usage_errors():
        topic = Topic(zk, path, retention=Retention(keep_for_durable=not force))
        low = topic.trim(before=None if before is None else _start(before), keep=keep)
    out.value({"path": path, "low": str(low)}, str(low))
