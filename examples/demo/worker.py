"""One worker: stands for election, takes turns under the lock, and writes down what it believes.

It is told what to do on its standard input ("resign", one a line) and ends when that is closed, so it never outlives
the demo. What it does, it tells on its standard output, one JSON object a line.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Final

import zkrecipes as zkr
from examples.demo.record import Recorder, clock

ELECTION: Final = "/demo/leader"
LOCK: Final = "/demo/lock"
END: Final = "end"
JOB_LIMIT: Final = 1.0  # seconds for a job to end in order
PATIENCE: Final = 4.0  # seconds until a worker that was told to end does so in any case


class Worker:
    """One worker on its own session.

    Args:
        zk: The client.
        name: What the others see.
        recorder: Takes the samples.
    """

    def __init__(self, zk: zkr.Client, name: str, recorder: Recorder) -> None:
        self._election = zkr.Election(zk, ELECTION, identity=name, on_suspended="keep_until_deadline")
        self._lock = zkr.Lock(zk, LOCK, identity=name)
        self._recorder = recorder
        self._cancel = zkr.Cancel()
        self._leadership: zkr.Leadership | None = None

    def work(self, orders: SimpleQueue[str]) -> None:
        """Do both jobs, and follow orders, until the order to end."""
        jobs = [
            threading.Thread(target=_told, args=(job,), name=job.__name__, daemon=True)
            for job in (self._stand_for_election, self._take_turns)
        ]
        for job in jobs:
            job.start()
        for order in iter(orders.get, END):
            leadership = self._leadership
            if order == "resign" and leadership is not None:
                leadership.resign()
        self._cancel.cancel()
        for job in jobs:
            job.join(JOB_LIMIT)

    def _stand_for_election(self) -> None:
        self._election.run(self._lead, cancel=self._cancel)

    def _lead(self, leadership: zkr.Leadership) -> None:
        self._leadership = leadership
        self._recorder.hold("leader", leadership)
        tell("leads", token=leadership.token)
        leadership.should_stop.wait()
        reason = leadership.should_stop.reason
        tell("told to stop", token=leadership.token, why=reason and reason.name, left=leadership.remaining())
        if reason is zkr.StopReason.SUSPENDED:
            # Work that is as bad as can be: it goes on until the lease has ended.
            leadership.lost.wait()
            tell("lease ended", token=leadership.token)
        self._recorder.sample()

    def _take_turns(self) -> None:
        while not self._cancel.cancelled:
            try:
                with self._lock.acquire(cancel=self._cancel) as held:
                    self._recorder.hold("lock", held)
                    tell("turn", token=held.token)
                    held.lost.wait(random.uniform(0.05, 0.15))
                    self._recorder.sample()
            except zkr.LockLostError as error:
                tell("lock lost", why=error.reason and error.reason.name)
            except zkr.CancelledError:
                return


def _told(job: Callable[[], None]) -> None:
    """Run a job; what ends it otherwise than by plan is told."""
    try:
        job()
    except Exception as error:  # noqa: BLE001 - whatever it is, the demo shows it and fails
        tell("trouble", why=repr(error))


def listen(orders: SimpleQueue[str]) -> None:
    """Pass on what is said on the standard input. When it ends, so do we, whatever we are doing."""
    for line in sys.stdin:
        orders.put(line.strip())
    orders.put(END)
    # As when the demo was killed while we still try to connect.
    time.sleep(PATIENCE)
    os._exit(1)


def tell(event: str, **details: object) -> None:
    """Tell the demo what happened."""
    # In one write: threads of the worker tell things at once, and print() writes the line and its end apart.
    os.write(sys.stdout.fileno(), f"{json.dumps({'event': event, 'at': clock(), **details})}\n".encode())


def main() -> None:
    """Run one worker."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("hosts")
    parser.add_argument("file", type=Path)
    parser.add_argument("--session-timeout", type=float, required=True)
    options = parser.parse_args()
    orders: SimpleQueue[str] = SimpleQueue()
    threading.Thread(target=listen, args=(orders,), name="orders", daemon=True).start()
    recorder = Recorder(options.file)
    with zkr.connect(options.hosts, session_timeout=options.session_timeout) as zk:
        tell("connected", session=zk.session_id)
        Worker(zk, options.name, recorder).work(orders)
        recorder.sample()
        recorder.stop()


if __name__ == "__main__":
    main()
