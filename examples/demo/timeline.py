"""Shows a demo to a person: events as they come, then who led and who held the lock, as bars over time.

Lines are lists of (text, style) pairs. They are printed by rich where it is installed and the output is a terminal,
and as plain text everywhere else.
"""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from examples.demo.judge import Belief, Verdict, beliefs_of
from examples.demo.record import WHATS, Sample, What
from examples.demo.stage import SESSION_TIMEOUT, SLOW, TICK, Event, Stage

Line = list[tuple[str, str]]

MARGIN: Final = 8  # columns before the bars
WIDEST: Final = 110
TITLES: Final[Mapping[What, str]] = {"leader": "leads", "lock": "holds the lock"}
TEXTS: Final[Mapping[str, str]] = {
    "server": f"a ZooKeeper server runs on {{address}} (tick {TICK:g} s)",
    "connected": f"{{worker}} is connected (session {{session:#x}}, {SESSION_TIMEOUT:g} s)",
    "leads": "{worker} leads (token {token})",
    "told to stop": "{worker} is told to stop leading, {left:.2f} s before its lease ends",
    "lease ended": "{worker} knows by its own clock that it leads no more",
    "lock lost": "{worker} has lost the lock ({why})",
    "trouble": "{worker} fails: {why}",
    "kill": "SIGKILL for {worker}, the leader",
    "cut": "{worker}, the leader, is cut off: its packets go nowhere, both ways",
    "resign": "{worker} is asked to resign",
    "heal": "{worker} gets its network back",
}
"""What is shown of an event; turns are too many."""
STYLES: Final = {"w1": "cyan", "w2": "magenta", "w3": "yellow", "w4": "blue", "w5": "green"}
BAD: Final = "bold red"
GOOD: Final = "bold green"
DIM: Final = "dim"


class Signs(NamedTuple):
    """One character each."""

    held: str
    idle: str
    cut: str
    dead: str


FINE: Final = Signs(held="\N{FULL BLOCK}", idle="\N{MIDDLE DOT}", cut="~", dead="x")
ASCII: Final = Signs(held="#", idle=".", cut="~", dead="x")


def printer() -> Callable[[Line], None]:
    """How lines are printed here."""
    if sys.stdout.isatty():
        try:
            from rich.console import Console  # noqa: PLC0415 - an extra that the demo does without
            from rich.text import Text  # noqa: PLC0415
        except ImportError:
            return _print_plain
        console = Console(highlight=False)
        return lambda line: console.print(Text.assemble(*line), soft_wrap=True)
    return _print_plain


def _print_plain(line: Line) -> None:
    print("".join(text for text, _ in line), flush=True)


def signs() -> Signs:
    """The characters that the output can show."""
    try:
        "".join(FINE).encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return ASCII
    return FINE


def event_line(event: Event, began: float) -> Line | None:
    """One event for a person; None for what would be too much."""
    text = _event_text(event)
    if text is None:
        return None
    style = BAD if event.event in {"kill", "cut", "trouble"} else STYLES.get(event.worker, "")
    return [(f"{event.at - began:6.2f} s  ", DIM), (text, style)]


def _event_text(event: Event) -> str | None:
    if event.event == "told to stop" and event.details["why"] != "SUSPENDED":
        return None
    template = TEXTS.get(event.event)
    return None if template is None else template.format(worker=event.worker, **event.details)


def report(stage: Stage, recorded: Mapping[str, Sequence[Sample]], verdict: Verdict) -> list[Line]:
    """The bars, the take-overs, and what is wrong, if anything is."""
    lines: list[Line] = [[]]
    for what in WHATS:
        lines += bars(what, stage, recorded)
    lines += [_takeover_line(verdict, index) for index in range(len(verdict.takeovers))]
    shares = ", ".join(f"{worker} {count}" for worker, count in verdict.turns.items())
    lines.append([(f"lock turns: {sum(verdict.turns.values())} ({shares})", "")])
    gap = f"longest time between two of one worker: {verdict.longest_gap * 1000:.0f} ms"
    lines.append([(f"samples of `valid`: {verdict.samples:,}; {gap}", "")])
    lines += [[(complaint, BAD)] for complaint in verdict.complaints]
    return lines


def _takeover_line(verdict: Verdict, index: int) -> Line:
    fault, leader, seconds, margin = verdict.takeovers[index]
    if fault.kind == "resign":
        after = f"{margin * 1000:.0f} ms after {fault.worker} had given it up"
    else:
        after = f"{margin:.2f} s after the lease of {fault.worker} had ended; {SLOW:g} s are allowed"
    style = GOOD if margin > 0 else BAD
    text = f"{fault.kind:>6} of {fault.worker}: {leader.worker} leads {seconds:.2f} s later, "
    return [(text, ""), (after, style)]


def bars(what: What, stage: Stage, recorded: Mapping[str, Sequence[Sample]]) -> list[Line]:
    """One line a worker, one column a slice of time."""
    began = stage.began
    end = max((samples[-1].ended for samples in recorded.values() if samples), default=began + 1.0)
    columns = max(20, min(WIDEST, shutil.get_terminal_size((100, 24)).columns) - MARGIN - 2)
    scale = _Scale(began, (end - began) / columns, columns)
    title: Line = [(f"{TITLES[what]}: one column is {scale.slice:.2f} s", "bold")]
    lines = [title, scale.ruler()]
    for worker, samples in recorded.items():
        beliefs = [belief for belief in beliefs_of(worker, samples) if belief.what == what]
        killed = [fault.at for fault in stage.faults if fault.kind == "kill" and fault.worker == worker]
        fate = _Fate(min(killed, default=math.inf), *stage.cut_off.get(worker, ()))
        row = "".join(_cell(*scale.span(column), samples, beliefs, fate) for column in range(columns))
        lines.append([(f"{worker:>6}  ", STYLES.get(worker, "")), (row, STYLES.get(worker, ""))])
    return [*lines, []]


def _cell(start: float, end: float, samples: Sequence[Sample], beliefs: Sequence[Belief], fate: _Fate) -> str:
    shown = signs()
    if any(belief.start < end and belief.end >= start for belief in beliefs):
        return shown.held
    if end > fate.killed:
        # The first free column after the death.
        return (
            shown.dead if start <= max(fate.killed, *(belief.end for belief in beliefs), 0.0) + (end - start) else " "
        )
    if not samples or end < samples[0].begun:
        return " "
    return shown.cut if fate.cut <= start < fate.healed else shown.idle


class _Fate(NamedTuple):
    """What was done to a worker, and when; infinity for what was not."""

    killed: float = math.inf
    cut: float = math.inf
    healed: float = math.inf


class _Scale(NamedTuple):
    began: float
    slice: float
    columns: int

    def span(self, column: int) -> tuple[float, float]:
        start = self.began + column * self.slice
        return start, start + self.slice

    def ruler(self) -> Line:
        text = " " * (MARGIN + self.columns + 8)
        seconds = 0
        while (column := MARGIN + round(seconds / self.slice)) < MARGIN + self.columns:
            label = f"{seconds} s" if seconds == 0 else str(seconds)
            text = text[:column] + label + text[column + len(label) :]
            seconds += 5
        return [(text.rstrip(), DIM)]
