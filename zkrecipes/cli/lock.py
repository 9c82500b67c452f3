"""`zkrecipes lock run | show | break`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from zkrecipes.cli.child import Signals, run_child
from zkrecipes.cli.output import fail, out, usage_errors
from zkrecipes.cli.verbs import (
    Command,
    Grace,
    Identity,
    Json,
    Path,
    ServerTick,
    SessionTimeout,
    child_environment,
    contender_value,
    report,
    settings_of,
    verb,
)
from zkrecipes.leadership import checked_grace
from zkrecipes.lock import Lock
from zkrecipes.timing import to_seconds

__all__ = ["app"]

app = typer.Typer(help="Run a command under a lock, see who holds one, break one.", no_args_is_help=True)

LockLayout = Literal["curator", "kazoo"]
Layout = Annotated[LockLayout, typer.Option("--layout", help="Whose locks to contend with.")]


@app.command("run")
def run(
    context: typer.Context,
    path: Path,
    command: Command,
    *,
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", metavar="SECONDS", help="Longest wait for the lock; for ever by default."),
    ] = None,
    session_timeout: SessionTimeout = 10.0,
    grace: Grace = None,
    server_tick: ServerTick = None,
    identity: Identity = None,
    layout: Layout = "curator",
    as_json: Json = False,
) -> None:
    """Run COMMAND while holding the lock PATH; its exit status becomes ours.

    If the lock can be proved no longer, COMMAND gets SIGTERM in time, and SIGKILL, with all that it started, before the
    lease ends; the status is 76 then. Signals are passed on to it. It finds ZKRECIPES_TOKEN (the fencing token) and
    ZKRECIPES_PATH in its environment. What it started does not outlive it. With --json, what happens is told on the
    standard error, one JSON object a line.
    """
    signals = Signals()
    with verb(as_json=as_json), signals.caught(), settings_of(context).connect(session_timeout, server_tick) as zk:
        with usage_errors():
            lock = Lock(zk, path, identity=identity, layout=layout)
            seconds = checked_grace(zk.core, grace)
            to_seconds(timeout)
        handle = lock.acquire(timeout)
        out.note("acquired", path=path, token=handle.token)
        ended = run_child(command, handle, grace=seconds, signals=signals, environment=child_environment(path, handle))
        status = report("lock", path, handle, ended)
        handle.release()
    fail(status)


@app.command("show")
def show(context: typer.Context, path: Path, *, layout: Layout = "curator", as_json: Json = False) -> None:
    """Show who holds the lock PATH, then who waits, in order."""
    with verb(as_json=as_json), settings_of(context).connect() as zk:
        with usage_errors():
            lock = Lock(zk, path, layout=layout)
        line = lock.contenders()
    text = [
        f"{'holds' if contender.holder else 'waits'}  {contender.identity}  token {contender.token}  {contender.node}"
        for contender in line
    ]
    out.value({"path": path, "contenders": [contender_value(c) for c in line]}, text or f"nobody holds {path}")


@app.command("break")
def break_(context: typer.Context, path: Path, *, layout: Layout = "curator", as_json: Json = False) -> None:
    """Delete the node of whoever holds the lock PATH, so that the next one gets it.

    The holder learns it soon, but not before its next write: only its guarded writes are refused from now on.
    """
    with verb(as_json=as_json), settings_of(context).connect() as zk:
        with usage_errors():
            lock = Lock(zk, path, layout=layout)
        broken = lock.break_()
    text = f"nobody holds {path}"
    if broken is not None:
        text = f"{path} was taken from {broken.identity} (token {broken.token}, node {broken.node})"
    out.value({"path": path, "broken": None if broken is None else contender_value(broken)}, text)
