"""Ctrl-C at any moment of an add: the adds of other threads lose nothing, and the line goes on."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import zkrecipes as zkr
from tests.faults.contest import ROOT
from zkrecipes.testing import ZooKeeperServer, wait_until

# The kernel's timer sends a signal after a random time from 0 to a few milliseconds, which is how long an add takes.
_INTERRUPTED = """
import json, random, signal, sys, threading
import zkrecipes as zkr

hosts, path, threads, seed = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
random.seed(seed)
zk = zkr.connect(hosts, session_timeout=6.0)
counter = zkr.Counter(zk, path)
counter.add()
stopped, others = threading.Event(), []


def count():
    while not stopped.is_set():
        others.append(counter.add(timeout=20.0))


def ring(*_):
    raise KeyboardInterrupt


running = [threading.Thread(target=count, daemon=True) for _ in range(threads)]
for thread in running:
    thread.start()
signal.signal(signal.SIGALRM, ring)
mine, interrupted = [1], 0
for _ in range(300):
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, random.uniform(0.00005, 0.004))
            value = counter.add(timeout=20.0)
            mine.append(value)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        interrupted += 1
signal.setitimer(signal.ITIMER_REAL, 0)
stopped.set()
for thread in running:
    thread.join(20.0)
last = counter.add(timeout=20.0)
stuck = sum(thread.is_alive() for thread in running)
print(json.dumps({"mine": mine + [last], "others": others, "interrupted": interrupted, "stuck": stuck}), flush=True)
sys.stdin.readline()
zk.close()
"""


@pytest.mark.parametrize("threads", [0, 3])
def test_interrupted_adds_stop_nobody(server: ZooKeeperServer, path: str, threads: int) -> None:
    command = [sys.executable, "-c", _INTERRUPTED, server.hosts, path, str(threads), "7"]
    with (
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process,
        zkr.connect(server.hosts) as other,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            told = json.loads(process.stdout.readline())
            values = told["mine"] + told["others"]
            assert told["stuck"] == 0
            assert told["interrupted"] > 20, "the signals have hit"
            assert len(values) == len(set(values)), "two adds were told the same value"
            final = zkr.Counter(other, path).value()
            assert final == max(values)
            assert len(values) <= final <= len(values) + told["interrupted"]
            # What was interrupted leaves marks to the reaper.
            wait_until(lambda: len(other.children(path)) <= 1, 5.0, lambda: f"left: {other.children(path)}")
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.wait(20.0) == 0
        finally:
            process.kill()
