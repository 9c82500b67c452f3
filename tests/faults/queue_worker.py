"""A process that puts items into a queue, or takes them, and writes down what it is told.

    python -m tests.faults.queue_worker <file> <json>

Settings: role ("producer" or "consumer"), name, hosts, timeout (of the session, seconds), path, segment_size.
A line is a verb, the time, the attempt, and a value:

    try        a put begins                             got     an item was handed out, as its how manyeth attempt
    stored     it is stored                             ack     its acknowledgement begins
    failed     it is not stored, and will not be        acked   it is acknowledged
    unknown    nobody knows                             kept    it was not acknowledged: unavailable, still claimed
    begin      the process has begun                    lost    its claim was lost before it was acknowledged
    unsure     nobody knows whether it is acknowledged  back    it was given back
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
from pathlib import Path
from typing import Any, Final, final

import zkrecipes as zkr
from zkrecipes.runtime import monotonic

PACE: Final = 0.02
PATIENCE: Final = 2.0
"""Seconds for each call."""


@final
class Worker:
    """One process."""

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        # Lines that survive a SIGKILL: one system call each.
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._settings = settings
        self._name = settings["name"]
        self._chance = random.Random(f"{self._name} {os.getpid()}")
        self.stopped = threading.Event()

    def _line(self, verb: str, value: str = "-", attempt: int = 0) -> None:
        os.write(self._file, f"{verb} {monotonic()} {attempt} {value}\n".encode())

    def main(self) -> None:
        settings = self._settings
        with zkr.connect(settings["hosts"], session_timeout=settings["timeout"], connect_timeout=60.0) as zk:
            queue = zkr.Queue(zk, settings["path"], codec=zkr.TextCodec(), segment_size=settings["segment_size"])
            self._line("begin")
            if settings["role"] == "producer":
                self._produce(queue)
            else:
                self._consume(queue)

    def _produce(self, queue: zkr.Queue[str]) -> None:
        number = 0
        while not self.stopped.wait(PACE * self._chance.random()):
            number += 1
            value = f"{self._name}-{os.getpid()}-{number}"
            self._line("try", value)
            try:
                queue.put(value, priority=int(self._chance.random() * 2), timeout=PATIENCE)
            except zkr.UnavailableError:
                self._line("failed", value)
            except zkr.OutcomeUnknownError:
                self._line("unknown", value)
            else:
                self._line("stored", value)

    def _consume(self, queue: zkr.Queue[str]) -> None:
        while not self.stopped.is_set():
            try:
                batch = queue.take_many(1 + int(4 * self._chance.random()), 0.5)
            except (zkr.AcquireTimeoutError, zkr.UnavailableError):
                continue
            for claim in batch:
                self._line("got", claim.item, claim.attempt)
            for claim in batch:
                self._finish(claim)

    def _finish(self, claim: zkr.Claim[str]) -> None:
        value, attempt = claim.item, claim.attempt
        try:
            if self._chance.random() < 0.1:
                claim.nack(error="not now", timeout=PATIENCE)
                return self._line("back", value, attempt)
            self._line("ack", value, attempt)
            claim.ack(timeout=PATIENCE)
        except zkr.ClaimLostError:
            return self._line("lost", value, attempt)
        except zkr.UnavailableError:
            claim.release()
            return self._line("kept", value, attempt)
        except zkr.OutcomeUnknownError:
            return self._line("unsure", value, attempt)
        return self._line("acked", value, attempt)


def main() -> None:
    """Run until SIGTERM."""
    worker = Worker(Path(sys.argv[1]), json.loads(sys.argv[2]))
    signal.signal(signal.SIGTERM, lambda *_: worker.stopped.set())
    worker.main()


if __name__ == "__main__":
    main()
