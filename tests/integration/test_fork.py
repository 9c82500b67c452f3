"""A forked child: what it has inherited is lost, says so, and leaves the parent's session alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from zkrecipes.testing import Server

ROOT = Path(__file__).parents[2]

# In a process of its own: pytest and xdist have threads that no fork should copy.
PROGRAM = """
import asyncio, os, sys, threading, time, traceback, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of fork() in a process with threads: that is what is tested
import zkrecipes as zkr
from zkrecipes.testing import wait_until

hosts, namespace = sys.argv[1:]
zk = zkr.connect(hosts, namespace=namespace, session_timeout=2.0)
lock, election = zkr.Lock(zk, "/lock"), zkr.Election(zk, "/office")
held, led = lock.acquire(5.0), election.campaign(5.0)
waiting = threading.Thread(target=lambda: lock.acquire(20.0).release())
waiting.start()
wait_until(lambda: len(lock.contenders()) == 2, 5.0, "a thread waits in mid-acquire")


def raises(error, call):
    try:
        call()
    except error:
        return
    raise AssertionError(f"{call} did not raise {error.__name__}")


def in_the_child():
    assert not held.valid and not led.valid
    assert held.lost.is_set() and held.lost.reason is zkr.LostReason.FORKED
    assert led.should_stop.reason is zkr.StopReason.FORKED
    assert held.remaining() == 0.0 and held.state is zkr.HoldState.LOST
    raises(zkr.LockLostError, held.raise_if_lost)
    raises(zkr.LeadershipLostError, led.raise_if_lost)
    raises(zkr.LockLostError, lambda: held.guard(zk.transaction()))
    for call in (
        lambda: zk.get("/"), lambda: zk.create("/child"), zk.sync, lambda: lock.acquire(1.0), lock.try_acquire,
        lock.contenders, lock.break_, lambda: election.campaign(1.0), election.leader, lambda: led.proclaim(b"child"),
        lambda: next(election.observe()), lambda: election.run(print, terms=1), zk.transaction().commit,
        lambda: zk.on_state(print),
    ):
        raises(zkr.ForkedError, call)
    assert zk.health() == zkr.Health(False, "forked", "this client belongs to the parent process"), zk.health()
    assert not led.health().ok
    try:
        with held:
            pass
    except zkr.LockLostError as error:
        assert error.reason is zkr.LostReason.FORKED
    else:
        raise AssertionError("leaving the block of a lost hold")
    repr(zk), repr(held), repr(lock)
    began = time.monotonic()
    zk.close()
    zk.close()
    assert time.monotonic() - began < 0.5
    with zkr.connect(hosts, namespace=namespace) as own:
        assert zkr.Lock(own, "/of-the-child").acquire(5.0).valid
        assert zkr.Lock(own, "/lock").try_acquire(0.5) is None, "the parent holds it"


child = os.fork()
if child == 0:
    try:
        in_the_child()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 0, "the child failed"
session = zk.session_id
wait_until(lambda: held.remaining() > 0.5, 5.0, "the parent's lease is renewed")
assert held.valid and led.valid and not led.should_stop.is_set()
zk.create("/parent")
assert zk.session_id == session and zk.state is zkr.State.CONNECTED
assert zk.children("/lock") and zk.exists("/child") is None
held.release()
waiting.join(10.0)
assert not waiting.is_alive()
led.resign()
zk.close()
print("as it should be")
"""


def test_a_forked_child(zkr_server: Server, zkr_namespace: str) -> None:
    _run(PROGRAM, zkr_server, zkr_namespace)


FORKS_IN_MID_ACQUIRE = """
import os, sys, threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)
import zkrecipes as zkr

hosts, namespace = sys.argv[1:]
with zkr.connect(hosts, namespace=namespace) as zk:
    lock = zkr.Lock(zk, "/lock")
    stop = threading.Event()
    tokens = []

    def cycle():
        while not stop.is_set():
            with lock.acquire(20.0) as held:
                tokens.append(held.token)

    threads = [threading.Thread(target=cycle) for _ in range(3)]
    for thread in threads:
        thread.start()
    session = zk.session_id
    for _ in range(30):
        child = os.fork()
        if child == 0:
            # Some thread of the parent was in the midst of anything; its locks will never be free again here.
            try:
                lock.acquire(0.5)
            except zkr.ForkedError:
                zk.close()
                os._exit(0)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    stop.set()
    for thread in threads:
        thread.join(20.0)
        assert not thread.is_alive()
    assert zk.session_id == session
    assert tokens == sorted(set(tokens)) and len(tokens) > 10
    assert zk.children("/lock") == []
print("as it should be")
"""


def test_forks_in_the_midst_of_acquires(zkr_server: Server, zkr_namespace: str) -> None:
    _run(FORKS_IN_MID_ACQUIRE, zkr_server, zkr_namespace)


ASYNCIO = """
import asyncio, os, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)
import zkrecipes as zkr
import zkrecipes.aio as aio

async def main(hosts, namespace):
    async with aio.connect(hosts, namespace=namespace) as zk:
        held = await aio.Lock(zk, "/lock").acquire(5.0)
        child = os.fork()
        if child == 0:
            try:
                assert held.lost.reason is zkr.LostReason.FORKED and not held.valid
                await zk.get("/")
            except zkr.ForkedError:
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert held.valid
        await held.release()
        assert await zk.children("/lock") == []
    print("as it should be")

asyncio.run(main(*sys.argv[1:]))
"""


def test_a_forked_child_of_an_event_loop(zkr_server: Server, zkr_namespace: str) -> None:
    _run(ASYNCIO, zkr_server, zkr_namespace)


def _run(program: str, server: Server, namespace: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", program, server.hosts, namespace],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=45.0,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "as it should be\n"


COUNTERS = """
import os, sys, threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)
import zkrecipes as zkr

hosts, namespace = sys.argv[1:]
with zkr.connect(hosts, namespace=namespace) as zk:
    counter, ids = zkr.Counter(zk, "/counter"), zkr.IdGenerator(zk, "/ids", block=100)
    value = zkr.SharedValue(zk, "/value", initial=b"")
    value.get()
    stop, values = threading.Event(), []

    def count():
        while not stop.is_set():
            values.append(counter.add())

    threads = [threading.Thread(target=count) for _ in range(3)]
    for thread in threads:
        thread.start()
    ids.next()
    for _ in range(20):
        child = os.fork()
        if child == 0:
            # Some thread of the parent leads, or holds the step lock; most of a block of identifiers is at hand.
            refused = 0
            for verb in (ids.next, counter.add, value.get, lambda: counter.on_change(print), lambda: next(iter(ids))):
                try:
                    verb()
                except zkr.ForkedError:
                    refused += 1
            os._exit(0 if refused == 5 else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    stop.set()
    for thread in threads:
        thread.join(20.0)
        assert not thread.is_alive()
    assert sorted(values) == list(range(1, len(values) + 1)) and counter.value() == len(values)
    assert ids.next() == 2
print("as it should be")
"""


def test_a_forked_child_counts_nothing_and_draws_no_identifier(zkr_server: Server, zkr_namespace: str) -> None:
    _run(COUNTERS, zkr_server, zkr_namespace)
