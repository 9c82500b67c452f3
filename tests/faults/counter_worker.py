"""A process whose threads add to one counter, each with digits of its own, and write down what became of each add.

    python -m tests.faults.counter_worker <file> <json>

Settings: hosts, timeout (of the session, seconds), path, places (of the threads' digits).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any, Final

import zkrecipes as zkr

WIDTH: Final = 6
"""Decimal digits of each thread."""


def amount(place: int) -> int:
    """What the thread of a place adds."""
    return int("1" + "0" * WIDTH * place)


def _count(counter: zkr.Counter, place: int, file: int, stopped: threading.Event) -> None:
    number = 0
    while not stopped.is_set():
        number += 1
        # One system call a line: they survive a SIGKILL.
        os.write(file, b"begin %d %d\n" % (place, number))
        try:
            value = counter.add(amount(place), timeout=3.0)
        except zkr.OutcomeUnknownError:
            os.write(file, b"unknown %d %d\n" % (place, number))
        except zkr.UnavailableError:
            os.write(file, b"failed %d %d\n" % (place, number))
        except BaseException as error:
            os.write(file, f"error {place} {number} {error!r}\n".encode())
            raise
        else:
            os.write(file, b"done %d %d %d\n" % (place, number, value))


def main() -> None:
    """Count until SIGTERM."""
    settings: dict[str, Any] = json.loads(sys.argv[2])
    file = os.open(Path(sys.argv[1]), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    with zkr.connect(settings["hosts"], session_timeout=settings["timeout"], connect_timeout=30.0) as zk:
        counter = zkr.Counter(zk, settings["path"], layout="text")
        threads = [
            threading.Thread(target=_count, args=(counter, place, file, stopped)) for place in settings["places"]
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():  # so that the signal is taken
                thread.join(0.1)


if __name__ == "__main__":
    main()
