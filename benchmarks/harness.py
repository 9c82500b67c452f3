"""The harness: entries, rounds, medians, verdicts. It knows nothing of ZooKeeper.

An entry is one job that several competitors do. Their rounds are interleaved (ours, kazoo's, Curator's, ours, ...),
so that whatever else the machine does hits all of them alike, and the medians are compared as ratios: a ratio says
something on another machine, a figure does not.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from benchmarks.bench import Bench

__all__ = [
    "ENTRIES",
    "FAILS_BELOW",
    "Entry",
    "Limit",
    "Measure",
    "Outcome",
    "Ratio",
    "Target",
    "Times",
    "Unit",
    "Verdict",
    "entry",
    "run",
]

FAILS_BELOW: Final = 0.8
"""Below this part of a target the benchmark fails; from here to the target it only reports."""

Measure = Callable[[], float]
"""Measures one competitor once; the figure is in the entry's unit."""


class Unit(Enum):
    """What an entry's figures mean."""

    PER_SECOND = "per second"
    MILLISECONDS = "ms"
    REQUESTS = "requests"
    FLIGHTS = "flights"
    THREADS = "threads"


@final
@dataclass(frozen=True, slots=True)
class Ratio:
    """Target: `who` reaches at least `least` times the figure of `against` (rates only)."""

    who: str
    least: float
    against: str

    def judge(self, medians: dict[str, float]) -> Verdict | None:
        """The verdict, or None if one of the two was not measured."""
        if self.who not in medians or self.against not in medians:
            return None
        reached = medians[self.who] / medians[self.against]
        words = f"{self.who} / {self.against}: {reached:.2f}, target at least {self.least:.2f}"
        return Verdict(words, reached / self.least)


@final
@dataclass(frozen=True, slots=True)
class Limit:
    """Target: the figure of `who` is at most what `most` makes of the medians (not for rates)."""

    who: str
    most: Callable[[dict[str, float]], float]
    words: str
    unit: Unit = Unit.MILLISECONDS

    def judge(self, medians: dict[str, float]) -> Verdict | None:
        """The verdict, or None if it was not measured."""
        if self.who not in medians:
            return None
        most = self.most(medians)
        unit = self.unit.value
        words = f"{self.who}: {medians[self.who]:.2f} {unit}, target at most {most:.2f} {unit} ({self.words})"
        return Verdict(words, most / medians[self.who])


@final
@dataclass(frozen=True, slots=True)
class Times:
    """Target: `who` takes at most `most` times what `against` takes (not for rates)."""

    who: str
    most: float
    against: str

    def judge(self, medians: dict[str, float]) -> Verdict | None:
        """The verdict, or None if one of the two was not measured."""
        if self.who not in medians or self.against not in medians:
            return None
        taken = medians[self.who] / medians[self.against]
        words = f"{self.who} / {self.against}: {taken:.2f}, target at most {self.most:.2f}"
        return Verdict(words, self.most / taken)


Target = Ratio | Limit | Times


@final
@dataclass(frozen=True, slots=True)
class Verdict:
    """How a target was met.

    Attributes:
        words: The figures.
        score: 1.0 or more: met; below FAILS_BELOW: failed.
    """

    words: str
    score: float

    @property
    def failed(self) -> bool:
        """Whether the whole benchmark fails."""
        return self.score < FAILS_BELOW

    @property
    def label(self) -> str:
        """One word or two for the table."""
        if self.failed:
            return "FAILED"
        return "met" if self.score >= 1 else "below target"


@final
@dataclass(frozen=True, slots=True)
class Entry:
    """One job.

    Attributes:
        name: For `--only`.
        title: For the table.
        unit: Of all figures.
        targets: What must hold between the medians.
        prepare: Makes the competitors' measures ready; what it opens goes on the stack, which is closed after the
            last round.
    """

    name: str
    title: str
    unit: Unit
    targets: tuple[Target, ...]
    prepare: Callable[[Bench, ExitStack], dict[str, Measure]]


@final
@dataclass(slots=True)
class Outcome:
    """What an entry gave: all figures by competitor, in the order of the rounds."""

    entry: Entry
    figures: dict[str, list[float]] = field(default_factory=dict)

    @property
    def medians(self) -> dict[str, float]:
        """Median over the rounds, by competitor."""
        return {who: statistics.median(figures) for who, figures in self.figures.items()}

    def spread(self, who: str, against: str) -> tuple[float, float]:
        """The lowest and the highest ratio of their figures within one round."""
        ratios = [one / other for one, other in zip(self.figures[who], self.figures[against], strict=True)]
        return min(ratios), max(ratios)

    @property
    def verdicts(self) -> list[Verdict]:
        """One for each target of which both sides were measured."""
        medians = self.medians
        return [verdict for target in self.entry.targets if (verdict := target.judge(medians)) is not None]


ENTRIES: list[Entry] = []
"""All jobs, in the order of the table. A new recipe adds its own with `@entry`."""


def entry(
    name: str, title: str, unit: Unit, *targets: Target
) -> Callable[[Callable[[Bench, ExitStack], dict[str, Measure]]], Callable[[Bench, ExitStack], dict[str, Measure]]]:
    """Register the decorated function as an entry's `prepare`."""

    def register(
        prepare: Callable[[Bench, ExitStack], dict[str, Measure]],
    ) -> Callable[[Bench, ExitStack], dict[str, Measure]]:
        ENTRIES.append(Entry(name, title, unit, targets, prepare))
        return prepare

    return register


def run(job: Entry, bench: Bench, rounds: int) -> Outcome:
    """Do all rounds of one entry.

    Raises:
        ValueError: A competitor gave a figure that is none.
    """
    outcome = Outcome(job)
    with ExitStack() as stack:
        measures = job.prepare(bench, stack)
        order = list(measures)
        for _ in range(rounds):
            for who in order:
                figure = measures[who]()
                if not math.isfinite(figure) or figure <= 0:
                    message = f"{job.name}: {who} gave {figure}"
                    raise ValueError(message)
                outcome.figures.setdefault(who, []).append(figure)
            # Everybody is first in turn: a round's first measure pays for what cooled down in between.
            order.append(order.pop(0))
    return outcome
