"""`zkrecipes elect run | watch`."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import typer

from zkrecipes.cli.child import SIGNALLED, Signals, run_child
from zkrecipes.cli.output import HOLD_LOST, fail, out, usage_errors
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
from zkrecipes.election import Election
from zkrecipes.survey import Contender
from zkrecipes.timing import to_seconds

__all__ = ["app"]

app = typer.Typer(help="Run a command while leading, see who leads.", no_args_is_help=True)

Layout = Annotated[Literal["latch", "selector", "kazoo"], typer.Option("--layout", help="Whose elections to stand in.")]


@app.command("run")
def run(
    context: typer.Context,
    path: Path,
    command: Command,
    *,
    timeout: Annotated[
        float | None, typer.Option("--timeout", metavar="SECONDS", help="Longest wait for a term; for ever by default.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="End with status 76 when the leadership is lost.")] = False,
    on_suspended: Annotated[
        Literal["stop", "keep_until_deadline"],
        typer.Option("--on-suspended", help="Whether the term ends with the connection, or with the lease."),
    ] = "stop",
    session_timeout: SessionTimeout = 10.0,
    grace: Grace = None,
    server_tick: ServerTick = None,
    identity: Identity = None,
    layout: Layout = "latch",
    as_json: Json = False,
) -> None:
    """Run COMMAND each time we lead at PATH, until it ends by itself; its exit status becomes ours.

    If the leadership is lost, COMMAND is stopped as by `lock run`, and we stand for election again. Else as `lock run`.
    """
    signals = Signals()
    with verb(as_json=as_json), signals.caught(), settings_of(context).connect(session_timeout, server_tick) as zk:
        with usage_errors():
            election = Election(zk, path, identity=identity, layout=layout, on_suspended=on_suspended, stop_grace=grace)
            to_seconds(timeout)
        while True:
            leadership = election.campaign(timeout)
            out.note("leads", path=path, token=leadership.token)
            ended = run_child(
                command,
                leadership,
                grace=leadership.term.grace,
                signals=signals,
                environment=child_environment(path, leadership),
                should_stop=leadership.should_stop.is_set,
            )
            status = report("leadership", path, leadership, ended)
            leadership.resign()
            if status != HOLD_LOST or once or ended.why == "itself":
                break
            if signals.ending:
                status = SIGNALLED + signals.ending
                break
    fail(status)


@app.command("watch")
def watch(
    context: typer.Context,
    path: Path,
    *,
    once: Annotated[bool, typer.Option("--once", help="Show who leads now, and end.")] = False,
    layout: Layout = "latch",
    as_json: Json = False,
) -> None:
    """Show who leads at PATH, each time that it changes, until Ctrl-C."""
    with verb(as_json=as_json), settings_of(context).connect() as zk:
        with usage_errors():
            election = Election(zk, path, layout=layout)
        if once:
            _show(path, election.leader())
            return
        for leader in election.observe():
            _show(path, leader)


def _show(path: str, leader: Contender | None) -> None:
    now = datetime.now().astimezone()
    text = f"{now:%H:%M:%S}  nobody leads"
    if leader is not None:
        proclaimed = f"  {leader.data.decode('utf-8', 'replace')}" if leader.data else ""
        text = f"{now:%H:%M:%S}  {leader.identity} leads (token {leader.token}){proclaimed}"
    value = {"path": path, "at": now.isoformat(), "leader": None if leader is None else contender_value(leader)}
    out.value(value, text)
