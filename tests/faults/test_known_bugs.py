"""What other libraries' locks got wrong, each as a case of ours (docs/migration-from-kazoo.md tells whose).

The other cases: a holder that goes on believing after its session has expired (test_two_believers, test_frozen_holder);
timeouts that an outage or other waiters stretch (test_deadlines); nodes left behind by a failed clean-up or an unclear
create (test_lost_replies, test_interrupts); numbers compared as text (test_worn_numbers); watches and listeners that
pile up (test_leaks).
"""

from __future__ import annotations

import statistics
import threading

import pytest

import zkrecipes as zkr
from tests.faults.contest import linger
from zkrecipes.runtime import monotonic
from zkrecipes.testing import FaultProxy, ZooKeeperServer, wait_until


@pytest.mark.parametrize("how", ["expired", "deleted", "unreachable"])
def test_the_same_object_can_acquire_again_after_a_loss(
    server: ZooKeeperServer, proxy: FaultProxy, path: str, how: str
) -> None:
    with zkr.connect(proxy.hosts, session_timeout=2.0) as zk, zkr.connect(server.hosts) as other:
        lock = zkr.Lock(zk, path)
        held = lock.acquire(timeout=5.0)
        match how:
            case "expired":
                server.expire(zk)
            case "deleted":
                zkr.Lock(other, path).break_()
            case _:
                proxy.blackhole()
                wait_until(lambda: not held.valid, 5.0)
                proxy.cut()
                proxy.heal()
        wait_until(held.lost.is_set, 5.0)
        with lock.acquire(timeout=10.0) as again:
            assert again.valid
            assert again.token > held.token
            held.release()
            assert again.valid, "the release of the old handle is not that of the new one"
            assert len(zkr.Lock(other, path).contenders()) == 1


def test_the_next_thread_gets_it_at_once(server: ZooKeeperServer, path: str) -> None:
    """Of the same object, after a long wait: no polling with growing pauses."""
    with zkr.connect(server.hosts) as zk:
        lock = zkr.Lock(zk, path)
        delays: list[float] = []
        for _ in range(5):
            got: list[float] = []

            def wait() -> None:
                with lock.acquire(timeout=20.0):
                    got.append(monotonic())  # noqa: B023  # the thread ends within the round

            held = lock.acquire(timeout=5.0)
            thread = threading.Thread(target=wait)
            thread.start()
            wait_until(lambda: len(lock.contenders()) == 2)
            linger(0.6)
            released = monotonic()
            held.release()
            thread.join(20.0)
            delays.append(got[0] - released)
        assert statistics.median(delays) < 0.05, delays


def test_a_release_in_an_outage_hides_no_exception(server: ZooKeeperServer, proxy: FaultProxy, path: str) -> None:
    with zkr.connect(proxy.hosts, session_timeout=4.0) as zk, zkr.connect(server.hosts) as other:
        with pytest.raises(ZeroDivisionError), zkr.Lock(zk, path).acquire(timeout=5.0):  # noqa: PT012
            proxy.refuse()
            _ = 1 / 0
        proxy.heal()
        wait_until(lambda: not zkr.Lock(other, path).contenders(), 10.0)


def test_a_server_that_is_started_again_within_the_session_costs_nothing(server: ZooKeeperServer, path: str) -> None:
    """The holder's release works, and the waiter has kept its place."""
    with (
        zkr.connect(server.hosts, session_timeout=20.0) as zk,
        zkr.connect(server.hosts, session_timeout=20.0) as other,
    ):
        held = zkr.Lock(zk, path).acquire(timeout=5.0)
        got: list[zkr.LockHandle] = []
        thread = threading.Thread(target=lambda: got.append(zkr.Lock(other, path).acquire(timeout=30.0)))
        thread.start()
        line = wait_until(lambda: (found := zkr.Lock(zk, path).contenders())[1:] and found)
        server.restart()
        wait_until(lambda: zk.health().ok and other.health().ok, 15.0)
        assert held.valid
        held.release()
        thread.join(30.0)
        assert got[0].token == line[1].token
        got[0].release()


def test_an_identity_is_stored_as_it_is(server: ZooKeeperServer, path: str) -> None:
    with zkr.connect(server.hosts) as zk, zkr.Lock(zk, path, identity="wörker 7").acquire(timeout=5.0):
        contender = zkr.Lock(zk, path).contenders()[0]
        assert contender.identity == "wörker 7"
        assert zk.get(f"{path}/{contender.node}").value == "wörker 7".encode()
