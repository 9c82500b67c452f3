"""Ctrl-C at any moment of acquire and release, once and twice: nothing is left, and nobody waits for nobody."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

import zkrecipes as zkr
from tests.faults.contest import ROOT
from zkrecipes.testing import ZooKeeperServer, wait_until

# Timers of the kernel send SIGINT after a random time from 0 to a few milliseconds, which is how long a cycle takes.
_INTERRUPTED = """
import gc, json, random, signal, sys, time
import zkrecipes as zkr

hosts, path, kind, rounds, second = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5] == "twice"
random.seed(int(sys.argv[6]))
counts = {"interrupted": 0, "acquired": 0}
zk = zkr.connect(hosts, session_timeout=6.0)
holder = zkr.connect(hosts, session_timeout=6.0)
locks = {
    "lock": lambda: zkr.Lock(zk, path),
    "rlock": lambda: zkr.RLock(zk, path),
    "handoff": lambda: zkr.Lock(zk, path, local_handoff=zkr.LocalHandoff()),
    "election": lambda: zkr.Election(zk, path),
}
lock = locks[kind]()
enter = lock.campaign if kind == "election" else lock.acquire
enter().release()


def ring(*_):
    if second:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(0.00005, 0.002))
        signal.signal(signal.SIGALRM, last)
    raise KeyboardInterrupt


def last(*_):
    raise KeyboardInterrupt


def one(held_by_another):
    signal.signal(signal.SIGALRM, ring)
    handle = None
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, random.uniform(0.00005, 0.02 if held_by_another else 0.006))
            handle = enter(5.0)
            counts["acquired"] += 1
        finally:
            # As a program does that wants to be sure: interrupted here, too.
            if handle is not None:
                handle.release()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


for round_ in range(rounds):
    held_by_another = round_ % 3 == 2
    theirs = zkr.Election(holder, path).campaign if kind == "election" else zkr.Lock(holder, path).acquire
    other = theirs(5.0) if held_by_another else None
    try:
        one(held_by_another)
    except KeyboardInterrupt:
        counts["interrupted"] += 1
        signal.setitimer(signal.ITIMER_REAL, 0)
    except zkr.AcquireTimeoutError:
        pass
    if other is not None:
        other.release()
gc.collect()
signal.signal(signal.SIGALRM, signal.SIG_IGN)
left, end = [], time.monotonic() + 3.0
while time.monotonic() < end and (left := holder.children(path)):
    time.sleep(0.02)
again = None
if not left:
    again = enter(5.0)
    again.release()
told = {"left": left, "holds": len(zk.core.session.holds), "again": again is not None, "state": zk.state.value}
print(json.dumps({**counts, **told}))
zk.close()
holder.close()
"""


@pytest.mark.parametrize("times", ["once", "twice"])
@pytest.mark.parametrize("kind", ["lock", "rlock", "handoff", "election"])
def test_nothing_is_left_after_an_interrupt(server: ZooKeeperServer, path: str, kind: str, times: str) -> None:
    rounds = 150
    command = [sys.executable, "-c", _INTERRUPTED, server.hosts, path, kind, str(rounds), times, "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["interrupted"] >= rounds / 10, f"the interrupts must fall into the calls: {told}"
    assert told["acquired"] >= rounds / 10, told
    assert (told["left"], told["holds"], told["again"]) == ([], 0, True), f"{told}\n{done.stderr[-3000:]}"
    assert "Traceback" not in done.stderr, done.stderr[-3000:]


_WAITING = {
    "threads": """
import sys
import zkrecipes as zkr
with zkr.connect(sys.argv[1], session_timeout=6.0) as zk:
    print("waits", flush=True)
    try:
        zkr.Lock(zk, sys.argv[2]).acquire()
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        print(len(zkr.Lock(zk, sys.argv[2]).contenders()), flush=True)
""",
    "asyncio": """
import asyncio, sys
import zkrecipes.aio as zkr
async def main():
    async with zkr.connect(sys.argv[1], session_timeout=6.0) as zk:
        print("waits", flush=True)
        try:
            await zkr.Lock(zk, sys.argv[2]).acquire()
        except asyncio.CancelledError:
            print("interrupted", flush=True)
            print(len(await zkr.Lock(zk, sys.argv[2]).contenders()), flush=True)
            raise
try:
    asyncio.run(main())
except KeyboardInterrupt:
    pass
""",
}


@pytest.mark.parametrize("driver", ["threads", "asyncio"])
def test_an_interrupt_of_the_terminal_ends_a_wait(server: ZooKeeperServer, path: str, driver: str) -> None:
    """A real SIGINT to a process that waits in its main thread."""
    with zkr.connect(server.hosts) as outsider, zkr.Lock(outsider, path).acquire() as held:
        command = [sys.executable, "-c", _WAITING[driver], server.hosts, path]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "waits\n"
            wait_until(lambda: len(zkr.Lock(outsider, path).contenders()) == 2, 5.0, "it stands in line")
            process.send_signal(signal.SIGINT)
            assert process.stdout.readline() == "interrupted\n"
            assert process.stdout.readline() == "1\n", "its place is gone when the interrupt is told"
            assert process.wait(10.0) == 0
        assert held.valid


_CLOSED = """
import gc, json, random, signal, sys, threading, time
import zkrecipes as zkr


def ring(*_):
    raise KeyboardInterrupt


random.seed(7)
signal.signal(signal.SIGALRM, ring)
counts = {"interrupted": 0, "closed": 0}
zkr.connect(sys.argv[1]).close()


def one():
    zk = None
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0001, 0.03))
        zk = zkr.connect(sys.argv[1], session_timeout=2.0)
        zkr.Lock(zk, sys.argv[2]).acquire(timeout=5.0)
        zk.close()
        counts["closed"] += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        if zk is not None:
            zk.close()


for _ in range(120):
    try:
        one()
    except KeyboardInterrupt:
        counts["interrupted"] += 1
signal.signal(signal.SIGALRM, signal.SIG_IGN)
gc.collect()
end = time.monotonic() + 5.0
while time.monotonic() < end and threading.active_count() > 1:
    time.sleep(0.02)
print(json.dumps({**counts, "threads": [thread.name for thread in threading.enumerate()]}))
"""


def test_an_interrupted_close_is_finished(server: ZooKeeperServer, path: str) -> None:
    """No thread stays, and no session: its node would keep everybody out for as long as the process lives."""
    command = [sys.executable, "-c", _CLOSED, server.hosts, path]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        output, errors = process.communicate(timeout=50)
    assert process.returncode == 0, errors[-3000:]
    told = json.loads(output.splitlines()[-1])
    assert told["interrupted"] >= 10, told
    assert told["threads"] == ["MainThread"], told
