"""`zkrecipes doctor`: looks at the servers, the session, the clocks, and a path."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Final

import typer

from zkrecipes.cli.findings import LEVELS, Finding, Level, clock_findings, lease_findings, server_findings
from zkrecipes.cli.lines import path_findings
from zkrecipes.cli.output import REFUSED, fail, out, usage_errors
from zkrecipes.cli.settings import Settings
from zkrecipes.cli.verbs import Json, SessionTimeout, settings_of, verb

__all__ = ["doctor"]

COLOURS: Final[dict[Level, str]] = {
    "ok": typer.colors.GREEN,
    "info": typer.colors.CYAN,
    "unknown": typer.colors.YELLOW,
    "warning": typer.colors.YELLOW,
    "bad": typer.colors.RED,
}


def doctor(
    context: typer.Context,
    path: Annotated[str | None, typer.Argument(metavar="[PATH]", help="A lock's, an election's, or one above.")] = None,
    *,
    session_timeout: SessionTimeout = 10.0,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Look at so many nodes under PATH at most.")] = 2000,
    as_json: Json = False,
) -> None:
    """Look at the servers, the session, the clocks and the nodes under PATH, and say what to do.

    The status is 1 if something is bad. Writes one ephemeral node for a moment, to read the servers' clock.
    """
    with verb(as_json=as_json):
        findings = []
        for finding in _examine(settings_of(context), path, session_timeout, limit):
            findings.append(finding)
            if not out.json:
                level = typer.style(f"{finding.level:>8}", fg=COLOURS[finding.level])
                typer.echo(f"{level}  {finding.text}")
        worst = max((finding.level for finding in findings), key=LEVELS.index)
        if out.json:
            listed = [{"level": f.level, "topic": f.topic, "text": f.text, **f.values} for f in findings]
            out.value({"worst": worst, "findings": listed}, "")
    if worst == "bad":
        fail(REFUSED)


def _examine(settings: Settings, path: str | None, session_timeout: float, limit: int) -> Iterator[Finding]:
    servers = server_findings(settings.hosts, tls=settings.tls is not None)
    yield from servers.findings
    with settings.connect(session_timeout) as zk:
        if path not in {None, "/"}:
            with usage_errors():
                zk.core.path(str(path))
        yield from lease_findings(zk, session_timeout, servers.tick)
        yield from clock_findings(zk)
        if path is not None:
            yield from path_findings(zk, path, limit)
