"""What the verbs have in common: options, the child's report, interrupts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Annotated, Final

import typer

from zkrecipes.cli.child import SIGNALLED, Ended, InterruptedBySignal
from zkrecipes.cli.output import HOLD_LOST, fail, out
from zkrecipes.cli.settings import Settings
from zkrecipes.handle import Handle
from zkrecipes.survey import Contender

__all__ = ["Command", "Json", "Path", "child_environment", "contender_value", "report", "settings_of", "verb"]

SIGINT: Final = 2

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Path = Annotated[str, typer.Argument(metavar="PATH", help="Below the namespace.")]
Command = Annotated[list[str], typer.Argument(metavar="-- COMMAND…", help="What to run, after `--`.")]
SessionTimeout = Annotated[
    float,
    typer.Option("--session-timeout", metavar="SECONDS", help="Seconds of silence after which the servers end it."),
]
ServerTick = Annotated[
    float | None,
    typer.Option("--server-tick", metavar="SECONDS", help="The servers' tickTime: leases last longer if it is known."),
]
Grace = Annotated[
    float | None,
    typer.Option(
        "--grace",
        metavar="SECONDS",
        help="How long before the lease's end the command gets SIGTERM; an eighth of the session timeout by default. "
        "After three quarters of it, or half a second before the end, comes SIGKILL.",
    ),
]
Identity = Annotated[
    str | None, typer.Option("--identity", metavar="TEXT", help="What others see; host:pid by default.")
]


@contextlib.contextmanager
def verb(*, as_json: bool) -> Iterator[None]:
    """Around each verb: how it prints, and how an interrupt ends it."""
    out.json = out.json or as_json
    try:
        yield
    except InterruptedBySignal as interrupt:
        fail(SIGNALLED + interrupt.number)
    except KeyboardInterrupt:
        fail(SIGNALLED + SIGINT)


def settings_of(context: typer.Context) -> Settings:
    """What the root command was told."""
    assert isinstance(context.obj, Settings)
    return context.obj


def contender_value(contender: Contender) -> dict[str, object]:
    """A contender as JSON."""
    return {
        "identity": contender.identity,
        "token": contender.token,
        "holder": contender.holder,
        "node": contender.node,
        "data": contender.data.decode("utf-8", "replace"),
    }


def child_environment(path: str, handle: Handle) -> dict[str, str]:
    """What the command learns of its hold."""
    return {"ZKRECIPES_TOKEN": str(handle.token), "ZKRECIPES_PATH": path}


def report(what: str, path: str, handle: Handle, ended: Ended) -> int:
    """Say how a command ended, as far as it was not its own doing; the exit status."""
    lost = handle.lost.reason
    status = ended.status
    text = ""
    if ended.why == "failed":
        text = f"the command did not start: {ended.message}"
    elif ended.why in {"stopped", "killed"} or lost is not None:
        status = HOLD_LOST
        why = "its lease was about to end, or the connection was suspended" if lost is None else lost.value
        done = {"stopped": "was stopped", "killed": "was killed"}.get(ended.why, "had ended by then")
        text = f"lost the {what} {path} (token {handle.token}): {why}; the command {done}"
    elif ended.why == "guardian":
        text = "the process that watched the command was killed, and so the command was, too"
    out.note(
        "ended",
        text,
        path=path,
        token=handle.token,
        status=status,
        command_status=ended.status,
        why=ended.why,
        lost=None if lost is None else lost.name,
        lease_left=round(ended.left, 3),
        message=text,
    )
    return status
