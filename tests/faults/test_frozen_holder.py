"""A process that wakes after a long stop: `valid` is False in the first statement that it runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.contest import ROOT, linger
from zkrecipes.testing import ZooKeeperServer, wait_until

TIMEOUT = 2.0

# A stop is seen as a jump of time: between two rounds, or within one, just before the reading. (A reading from before
# the stop is True, and goes on to the next round.)
_HOLDER = """
import sys, time, json
import zkrecipes as zkr
from zkrecipes.runtime import monotonic

with zkr.connect(sys.argv[1], session_timeout=float(sys.argv[2])) as zk:
    held = zkr.Lock(zk, sys.argv[3]).acquire(timeout=10.0)
    leadership = zkr.Election(zk, sys.argv[3] + "-election", on_suspended="keep_until_deadline").campaign(timeout=10.0)
    print("held", flush=True)
    last = monotonic()
    while True:
        now = monotonic()
        read = [held.valid, held.lost.is_set(), held.remaining(), leadership.valid, leadership.should_stop.is_set()]
        if now - last > 0.5 or not read[0]:
            print(json.dumps([monotonic() - last, *read]), flush=True)
            break
        last = now
        if "busy" not in sys.argv:
            time.sleep(0.001)
    try:
        with zk.transaction() as tx:
            held.guard(tx)
            tx.create(sys.argv[3] + "-stale")
    except zkr.LockLostError:
        print("refused", flush=True)
    held.release()
"""


@pytest.mark.parametrize("how", ["idle", "busy"])
@pytest.mark.parametrize("_", range(2))
def test_valid_is_false_in_the_first_statement(server: ZooKeeperServer, path: str, how: str, _: int) -> None:
    command = [sys.executable, "-c", _HOLDER, server.hosts, str(TIMEOUT), path, how]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "held\n"
            linger(TIMEOUT / 4)
            os.kill(process.pid, signal.SIGSTOP)
            wait_until(lambda: " T " in Path(f"/proc/{process.pid}/stat").read_text(), 2.0, "it stands still")
            linger(2 * TIMEOUT)
            os.kill(process.pid, signal.SIGCONT)
            jump, valid, lost, remaining, leads, should_stop = json.loads(process.stdout.readline())
            assert jump >= 2 * TIMEOUT, "it was read right after the stop"
            assert (valid, lost, remaining, leads, should_stop) == (False, True, 0.0, False, True)
            assert process.stdout.readline() == "refused\n"
            assert process.wait(10.0) == 0
        finally:
            if process.poll() is None:
                process.kill()
