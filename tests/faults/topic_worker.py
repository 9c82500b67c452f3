"""A process that publishes to a topic, or reads a durable subscription, and writes down what it is told.

    python -m tests.faults.topic_worker <file> <json>

Settings: role ("publisher" or "subscriber"), name, hosts, timeout (of the session, seconds), path, segment_size.
A line is a verb, the time, a position or "-", and a value:

    try        a publish begins                         got     a message was handed out
    stored     it is stored at this position            acked   it, and all before it, was acknowledged
    failed     it is not stored, and will not be        begin   this process has begun
    unknown    nobody knows                             other   an error that says that somebody else reads
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

    def _line(self, verb: str, position: object = "-", value: object = "-") -> None:
        os.write(self._file, f"{verb} {monotonic()} {position} {value}\n".encode())

    def main(self) -> None:
        settings = self._settings
        with zkr.connect(settings["hosts"], session_timeout=settings["timeout"], connect_timeout=60.0) as zk:
            topic = zkr.Topic(zk, settings["path"], codec=zkr.TextCodec(), segment_size=settings["segment_size"])
            self._line("begin", "-", os.getpid())
            if settings["role"] == "publisher":
                self._publish(topic)
            else:
                self._subscribe(topic)

    def _publish(self, topic: zkr.Topic[str]) -> None:
        number = 0
        while not self.stopped.wait(PACE * self._chance.random()):
            number += 1
            value = f"{self._name}-{os.getpid()}-{number}"
            self._line("try", "-", value)
            try:
                self._line("stored", topic.publish(value, timeout=PATIENCE), value)
            except zkr.UnavailableError:
                self._line("failed", "-", value)
            except zkr.OutcomeUnknownError:
                self._line("unknown", "-", value)

    def _subscribe(self, topic: zkr.Topic[str]) -> None:
        while not self.stopped.is_set():
            try:
                with topic.subscribe(self._name, start="earliest", timeout=PATIENCE) as subscription:
                    while not self.stopped.is_set():
                        self._read(subscription)
            except (zkr.UnavailableError, zkr.SubscriptionBusyError, zkr.OutcomeUnknownError) as error:
                self._line("other", "-", type(error).__name__)
            except zkr.ClosedError:
                return

    def _read(self, subscription: zkr.Subscription[str]) -> None:
        try:
            message = subscription.receive(0.5)
        except zkr.SubscriptionBusyError:
            return self._line("other", "-", "busy")
        except (zkr.AcquireTimeoutError, zkr.UnavailableError):
            return None
        self._line("got", message.position, message.value)
        if self._chance.random() < 0.3:
            try:
                message.ack(timeout=PATIENCE)
            except (zkr.LostError, zkr.UnavailableError, zkr.OutcomeUnknownError):
                return None
            self._line("acked", message.position, message.value)
        return None


def main() -> None:
    worker = Worker(Path(sys.argv[1]), json.loads(sys.argv[2]))
    signal.signal(signal.SIGTERM, lambda *_: worker.stopped.set())
    worker.main()


if __name__ == "__main__":
    main()
