"""The outcome as a table on the screen and as docs/benchmarks.md. It names no machine: cores, versions and ratios."""

from __future__ import annotations

import os
import platform
import tomllib
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks.harness import Outcome, Unit

__all__ = ["screen", "write"]

_HEAD = """\
# Benchmarks

Written by `make bench`; do not edit. The same job done by our recipe, by kazoo's and by Curator's (the real one, in
Java), in interleaved rounds of one run against one server on the same machine, without a sync of each write to the
disk. The figures are medians over the rounds; between machines only the ratios say something. A ratio above 1 means
that ours does more a second, or takes less (time, requests, threads), than the competitor of that row; beside it
stand the lowest and the highest ratio within one round. "Raw requests" is the floor: the
same requests on a bare socket, without any client library.

"""


def _our_version() -> str:
    """Of this checkout, which need not be installed."""
    project = Path(__file__).parent.parent / "pyproject.toml"
    return str(tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"])


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def _rows(outcome: Outcome) -> Iterable[tuple[str, str, str, str]]:
    """Competitor, median, how many times better ours is (above 1: ours is better), and that in the single rounds."""
    medians = outcome.medians
    ours = medians.get("ours")
    for who, median in medians.items():
        ratio = spread = ""
        if ours is not None and who != "ours":
            rate = outcome.entry.unit is Unit.PER_SECOND
            ratio = f"{ours / median if rate else median / ours:.2f}"
            low, high = outcome.spread("ours", who) if rate else outcome.spread(who, "ours")
            spread = f"{low:.2f} to {high:.2f}"
        yield who, _figure(median), ratio, spread


def screen(outcome: Outcome) -> str:
    """One entry as lines of text."""
    lines = [f"{outcome.entry.title} [{outcome.entry.unit.value}] ({outcome.entry.name})"]
    for who, figure, ratio, spread in _rows(outcome):
        lines.append(f"    {who:<22}{figure:>12}" + (f"    ours is better by {ratio} ({spread})" if ratio else ""))
    lines += [f"    {verdict.label}: {verdict.words}" for verdict in outcome.verdicts]
    return "\n".join(lines)


def write(
    target: Path, outcomes: list[Outcome], *, rounds: int, server: str, load: float, left_out: Iterable[str]
) -> None:
    """Write docs/benchmarks.md."""
    text = [_HEAD]
    text.append(
        f"{datetime.now(UTC):%Y-%m-%d}, {rounds} rounds, {os.cpu_count()} cores ({platform.machine()}, "
        f"load {load:.1f} at the start), "
        f"Python {platform.python_version()}, zkrecipes {_our_version()}, kazoo {version('kazoo')}, "
        f"ZooKeeper {server}.\n"
    )
    text += [f"Left out: {reason}.\n" for reason in left_out]
    for outcome in outcomes:
        text.append(
            f"\n## {outcome.entry.title}\n\n| | median, {outcome.entry.unit.value} | ours is better by | by round |\n"
        )
        text.append("|---|---|---|---|\n")
        text += [f"| {' | '.join(row)} |\n" for row in _rows(outcome)]
        if outcome.verdicts:
            text.append("\n")
        text += [f"- {verdict.words}: {verdict.label}\n" for verdict in outcome.verdicts]
    target.write_text("".join(text), encoding="utf-8")
