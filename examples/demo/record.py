"""What a worker writes down, each 10 ms: whether it believes that it leads, and that it holds the lock.

One line a sample: when it began and ended (seconds of one clock for all processes), then for leadership and lock each
the fencing token (0 for none), whether the handle is valid, and its remaining lease in seconds.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal, NamedTuple, Protocol

What = Literal["leader", "lock"]

INTERVAL: Final = 0.01
WHATS: Final[tuple[What, What]] = ("leader", "lock")

_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def clock() -> float:
    """Seconds since the machine was started, the same for all processes."""
    return time.clock_gettime(_CLOCK)


class Held(Protocol):
    """What is asked of a handle."""

    @property
    def token(self) -> int:
        """Its fencing token."""

    @property
    def valid(self) -> bool:
        """Whether it can be proved."""

    def remaining(self) -> float:
        """For how many seconds."""


class View(NamedTuple):
    """What one handle said."""

    token: int
    valid: bool
    remaining: float


class Sample(NamedTuple):
    """What a worker believed between two readings of the clock."""

    begun: float
    ended: float
    leader: View
    lock: View


NOTHING: Final = View(0, valid=False, remaining=0.0)


class Recorder:
    """Writes samples to a file: each 10 ms from a thread of its own, and whenever it is told to.

    Args:
        path: The file; each sample is in it as soon as it was taken, so that a killed worker's are not lost.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)
        self._held: dict[What, Held] = {}
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        threading.Thread(target=self._run, name="recorder", daemon=True).start()

    def hold(self, what: What, held: Held) -> None:
        """Watch this handle from now on, also after it is lost or released."""
        with self._lock:
            self._held[what] = held
        self.sample()

    def sample(self) -> None:
        """Take one sample now."""
        with self._lock:
            if self._stopped.is_set():
                return
            begun = clock()
            views = [self._view(what) for what in WHATS]
            line = f"{begun:.6f} {clock():.6f} " + " ".join(f"{v.token} {v.valid:d} {v.remaining:.3f}" for v in views)
            self._file.write(line.encode() + b"\n")

    def _view(self, what: What) -> View:
        held = self._held.get(what)
        if held is None:
            return NOTHING
        remaining = held.remaining()
        return View(held.token, held.valid, remaining)

    def stop(self) -> None:
        """Take no more samples, and close the file."""
        with self._lock:
            self._stopped.set()
            self._file.close()

    def _run(self) -> None:
        while not self._stopped.wait(INTERVAL):
            self.sample()


def read_samples(path: Path) -> Iterator[Sample]:
    """The samples of a file. A last line that a killed worker did not finish is left out."""
    for line in path.read_text(encoding="ascii").split(os.linesep)[:-1]:
        begun, ended, *rest = line.split(" ")
        views = [View(int(rest[at]), rest[at + 1] == "1", float(rest[at + 2])) for at in (0, 3)]
        yield Sample(float(begun), float(ended), *views)
