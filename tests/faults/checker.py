"""Judges from the workers' files whether two of them believed at once.

Each worker writes lines of a file of its own, by one clock for the whole machine (it runs on while processes stand):

    sample <what> <token> <before> <after> <0|1>   `valid` was read, at some instant between the two times
    begin|end <what> <token> <time>                work began; work had ended
    event <name> <time> <text>                     told to people

A handle that has once been invalid stays so; so who reads True twice has believed all the time between. The interval
is taken as short as the readings allow: what is found to overlap has overlapped.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, final

__all__ = ["Belief", "Event", "Overlap", "beliefs", "events", "overlaps", "revived", "work"]


@final
@dataclass(frozen=True, order=True)
class Belief:
    """One worker believed, or worked, without a break.

    Attributes:
        start: From when on it certainly did.
        end: Until when it certainly did.
        worker: The name of its file.
        token: Of its handle.
    """

    start: float
    end: float
    worker: str
    token: int


class Overlap(NamedTuple):
    """Two at once."""

    first: Belief
    second: Belief
    seconds: float


class Event(NamedTuple):
    """Something that a worker tells."""

    time: float
    worker: str
    name: str
    text: str


def _lines(files: Iterable[Path], kind: str) -> Iterator[tuple[str, list[str]]]:
    for file in files:
        for line in file.read_text(encoding="utf-8").splitlines():
            words = line.split(" ", 3 if kind == "event" else -1)
            if words[0] == kind:
                yield file.stem, words[1:]


def beliefs(files: Iterable[Path], what: str) -> list[Belief]:
    """When each worker believed that it held `what`, in order of time."""
    first: dict[tuple[str, int], float] = {}
    last: dict[tuple[str, int], float] = {}
    for worker, (name, token, before, after, valid) in _lines(files, "sample"):
        if name == what and valid == "1":
            key = worker, int(token)
            first.setdefault(key, float(after))
            last[key] = float(before)
    return sorted(Belief(first[key], last[key], *key) for key in first if last[key] >= first[key])


def revived(files: Iterable[Path], what: str) -> list[tuple[str, int]]:
    """Handles that were valid again after they had been invalid."""
    ended: set[tuple[str, int]] = set()
    found: list[tuple[str, int]] = []
    for worker, (name, token, _, _, valid) in _lines(files, "sample"):
        key = worker, int(token)
        if name == what and valid == "0":
            ended.add(key)
        elif name == what and key in ended and key not in found:
            found.append(key)
    return found


def work(files: Iterable[Path], what: str, now: float) -> list[Belief]:
    """When each worker worked on `what`; `now` is the end of work that has none."""
    done: list[Belief] = []
    for file in files:
        begun: dict[tuple[str, int], float] = {}
        for line in file.read_text(encoding="utf-8").splitlines():
            words = line.split()
            if words[0] in {"begin", "end"} and words[1] == what:
                key = file.stem, int(words[2])
                if words[0] == "begin":
                    begun[key] = float(words[3])
                elif key in begun:
                    done.append(Belief(begun.pop(key), float(words[3]), *key))
        done.extend(Belief(start, now, *key) for key, start in begun.items())
    return sorted(done)


def overlaps(intervals: Iterable[Belief]) -> list[Overlap]:
    """Every pair that had an instant in common."""
    found: list[Overlap] = []
    for one, other in itertools.combinations(sorted(intervals), 2):
        common = min(one.end, other.end) - max(one.start, other.start)
        if common > 0:
            found.append(Overlap(one, other, common))
    return found


def events(files: Iterable[Path]) -> list[Event]:
    """What the workers told, in order of time."""
    return sorted(
        Event(float(words[1]), worker, words[0], words[2] if len(words) > 2 else "")
        for worker, words in _lines(files, "event")
    )
