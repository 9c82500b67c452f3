"""Many schedules: on all cores, with a progress bar, and going on where the last run stopped.

What was reached is kept in a file of the user's cache directory, under a digest of the package's sources: after a
change of the code the count begins anew.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import hashlib
import itertools
import json
import logging
import multiprocessing
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self, final

import zkrecipes
from zkrecipes.testing.simulation.configuring import Configuring
from zkrecipes.testing.simulation.contest import Contest
from zkrecipes.testing.simulation.counting import Counting
from zkrecipes.testing.simulation.listening import Listening
from zkrecipes.testing.simulation.publishing import Publishing
from zkrecipes.testing.simulation.queueing import Queueing
from zkrecipes.testing.simulation.rollouts import Rollouts
from zkrecipes.testing.simulation.world import Violation, World

__all__ = ["KINDS", "Chunk", "Found", "Schedule", "Tally", "kind_of", "play", "run_chunk", "run_many"]

CHUNK: Final = 10
"""Schedules that a worker plays before it reports."""

COLLECT_EVERY: Final = 20


class Schedule(Protocol):
    """What is played."""

    @property
    def kind(self) -> str:
        """The recipe."""
        ...

    @property
    def world(self) -> World:
        """Its time, its chance, its trace."""
        ...

    @property
    def turns(self) -> int:
        """How often something happened on which its promises could have broken."""
        ...

    def play(self) -> None:
        """Play it; Violation if a promise was broken."""
        ...


KINDS: Final[dict[str, Callable[[int], Schedule]]] = {
    "lock": functools.partial(Contest, kind="lock"),
    "election": functools.partial(Contest, kind="election"),
    "listener": Listening,
    "config": Rollouts,
    "service": Configuring,
    "topic": Publishing,
    "queue": Queueing,
    "counter": Counting,
}
"""What makes a schedule of each recipe from its seed."""


@final
@dataclass(frozen=True)
class Found:
    """A broken promise: the seed replays it."""

    seed: int
    kind: str
    what: str


@final
@dataclass
class Chunk:
    """What a number of schedules have come to."""

    first: int
    count: int
    events: int = 0
    turns: int = 0
    found: list[Found] = field(default_factory=list)


@final
@dataclass
class Tally:
    """What all of them have come to."""

    done: int = 0
    seconds: float = 0.0
    events: int = 0
    turns: int = 0
    found: list[Found] = field(default_factory=list)

    def add(self, chunk: Chunk) -> None:
        """Count a chunk."""
        self.done += chunk.count
        self.events += chunk.events
        self.turns += chunk.turns
        self.found += chunk.found


def kind_of(seed: int) -> str:
    """The recipes by turns."""
    return list(KINDS)[seed % len(KINDS)]


def play(seed: int, kind: str | None = None) -> tuple[Schedule, Found | None]:
    """Play one schedule, without the automatic garbage collection, which would not come at the same moment again."""
    schedule = KINDS[kind or kind_of(seed)](seed)
    collecting = gc.isenabled()
    gc.disable()
    try:
        schedule.play()
    except Violation as violation:
        return schedule, Found(seed, schedule.kind, violation.what)
    except Exception as error:  # noqa: BLE001 - whatever else breaks is a finding, too
        return schedule, Found(seed, schedule.kind, f"failed with {error!r}")
    finally:
        if collecting:
            gc.enable()
    return schedule, None


def run_chunk(span: tuple[int, int], kind: str | None = None) -> Chunk:
    """Play `span[1]` schedules from seed `span[0]` on."""
    first, count = span
    chunk = Chunk(first, count)
    with quiet():
        for seed in range(first, first + count):
            schedule, found = play(seed, kind)
            chunk.events += schedule.world.events
            chunk.turns += schedule.turns
            if found is not None:
                chunk.found.append(found)
            del schedule
            if seed % COLLECT_EVERY == 0:
                gc.collect()
    return chunk


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The library's log would tell thousands of losses that are meant to happen; and nothing old is collected."""
    logger = logging.getLogger("zkrecipes")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        logger.setLevel(level)


# --- many -------------------------------------------------------------------------------------------------------------


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return Path(base) / "zkrecipes"


def _digest() -> str:
    package = Path(zkrecipes.__file__).parent
    digest = hashlib.sha256()
    for source in sorted(package.rglob("*.py")):
        digest.update(str(source.relative_to(package)).encode())
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


@final
class _State:
    """The file that lets a run go on."""

    def __init__(self, name: str) -> None:
        self._path = _cache() / f"simulation-{name}-{_digest()}.json"

    def load(self) -> Tally:
        try:
            data = json.loads(self._path.read_text())
        except (OSError, ValueError):
            return Tally()
        found = [Found(**each) for each in data.pop("found")]
        return Tally(**data, found=found)

    def save(self, tally: Tally) -> None:
        data = {**vars(tally), "found": [vars(found) for found in tally.found]}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_suffix(".new")
        temporary.write_text(json.dumps(data))
        temporary.replace(self._path)

    def forget(self) -> None:
        self._path.unlink(missing_ok=True)


def run_many(schedules: int, *, kind: str | None, jobs: int, fresh: bool, seconds: float | None = None) -> Tally:
    """Play schedules with the seeds 0 … schedules - 1, except those that an earlier run has played.

    Ctrl-C stops it, and so does the end of `seconds`; what was reached is kept.
    """
    state = _State(kind or "all")
    if fresh:
        state.forget()
    tally = state.load()
    reached = tally.done
    spans = [(first, min(CHUNK, schedules - first)) for first in range(reached, schedules, CHUNK)]
    started, before = time.monotonic(), tally.seconds
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    chunk_of = functools.partial(run_chunk, kind=kind)
    # An executor, not a pool: it tells when a worker has died, where a pool would wait for its chunk for ever.
    pool = ProcessPoolExecutor(jobs, context, _ignore_interrupt)
    ahead: deque[Future[Chunk]] = deque()
    remaining = iter(spans)
    with _Progress(schedules) as progress:
        try:
            ahead.extend(pool.submit(chunk_of, span) for span in itertools.islice(remaining, 2 * jobs))
            while ahead and (seconds is None or time.monotonic() - started < seconds):
                # In order, so that one number says what has been played.
                tally.add(ahead.popleft().result())
                ahead.extend(pool.submit(chunk_of, span) for span in itertools.islice(remaining, 1))
                tally.seconds = before + time.monotonic() - started
                state.save(tally)
                progress.show(tally)
        except KeyboardInterrupt:
            progress.message = "interrupted; the same command goes on from here"
        except BrokenProcessPool:
            progress.message = "a worker process has died; the same command goes on from here"
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    return tally


def _ignore_interrupt() -> None:
    import signal  # noqa: PLC0415 - in the worker

    signal.signal(signal.SIGINT, signal.SIG_IGN)


@final
class _Progress:
    """One line: a bar, the count, the rate, what was found, the time left."""

    WIDTH: Final = 30

    def __init__(self, total: int) -> None:
        self._total = total
        self._shown = 0.0
        self._began: tuple[int, float] | None = None
        self._live = sys.stderr.isatty()
        self.message = ""

    def __enter__(self) -> Self:
        return self

    def show(self, tally: Tally) -> None:
        """Show how far it has come; without a terminal, once in ten seconds."""
        now = time.monotonic()
        if self._began is None:
            self._began = (tally.done, now)
        if now - self._shown < (0.2 if self._live else 10.0) and tally.done < self._total:
            return
        self._shown = now
        done, since = self._began
        rate = (tally.done - done) / (now - since) if now > since else 0.0
        left = f"{(self._total - tally.done) / rate / 60:.0f} min left" if rate else ""
        filled = self.WIDTH * tally.done // self._total
        bar = "#" * filled + "." * (self.WIDTH - filled)
        line = f"[{bar}] {tally.done} of {self._total}, {rate:.0f}/s, {len(tally.found)} violations  {left}"
        sys.stderr.write(f"\r{line:<100}" if self._live else f"{line}\n")
        sys.stderr.flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live or self.message:
            sys.stderr.write(f"\n{self.message}\n" if self.message else "\n")
