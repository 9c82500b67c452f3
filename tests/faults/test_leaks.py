"""A hundred clients come and go: no threads, files, sessions or watches stay."""

from __future__ import annotations

import asyncio
import gc
import threading

import zkrecipes as zkr
import zkrecipes.aio
from tests.faults.contest import linger
from tests.leftovers import Leftovers
from zkrecipes.nodes import SWEEP
from zkrecipes.testing import FaultProxy, ZooKeeperServer, wait_until

CYCLES = 100


def _at_the_server(server: ZooKeeperServer) -> tuple[int, int]:
    """Watches and ephemeral nodes; what the test's own questions add is gone when they are answered."""
    metrics = server.metrics()
    return int(metrics["zk_watch_count"]), int(metrics["zk_ephemerals_count"])


def _no_sessions(server: ZooKeeperServer) -> bool:
    return "Sessions with Ephemerals (0)" in server.command("dump")


def test_connect_and_close(server: ZooKeeperServer, path: str) -> None:
    before = _at_the_server(server)
    leftovers = Leftovers()
    for _ in range(CYCLES):
        with zkr.connect(server.hosts, session_timeout=4.0) as zk:
            held = zkr.Lock(zk, path).acquire(timeout=5.0)
            assert zkr.Lock(zk, path).try_acquire() is None
            zk.on_state(lambda _state: None)
            assert held.valid
    gc.collect()
    leftovers.none()
    wait_until(lambda: _at_the_server(server) <= before, 5.0, lambda: f"{before} -> {_at_the_server(server)}")
    wait_until(lambda: _no_sessions(server), 5.0, lambda: server.command("dump"))


def test_connect_and_close_with_asyncio(server: ZooKeeperServer, path: str) -> None:
    before = _at_the_server(server)
    leftovers = Leftovers()

    async def main() -> None:
        for _ in range(CYCLES // 2):
            async with (
                zkrecipes.aio.connect(server.hosts, session_timeout=4.0) as zk,
                zkrecipes.aio.Lock(zk, path).acquire(timeout=5.0) as held,
            ):
                assert held.valid

    asyncio.run(main())
    gc.collect()
    leftovers.none()
    wait_until(lambda: _at_the_server(server) <= before, 5.0)


def test_clients_that_are_cut_off_again_and_again(proxy: FaultProxy, server: ZooKeeperServer, path: str) -> None:
    """Each reconnect has sockets of its own, and the server keeps the watches of the last one only."""
    before = _at_the_server(server)
    with zkr.connect(proxy.hosts, session_timeout=20.0) as zk, zkr.Lock(zk, path).acquire(timeout=5.0) as held:
        waiter = threading.Thread(target=lambda: zkr.Lock(zk, path).try_acquire(timeout=30.0), daemon=True)
        waiter.start()
        wait_until(lambda: len(zkr.Lock(zk, path).contenders()) == 2)
        leftovers = Leftovers()
        for _ in range(12):
            proxy.cut()
            zk.exists("/", timeout=10.0)
        assert held.valid
        leftovers.none()
        wait_until(lambda: _at_the_server(server)[0] <= before[0] + 3, 5.0, lambda: str(_at_the_server(server)))
        held.release()
        waiter.join(10.0)


def test_waits_that_end_leave_no_watch(server: ZooKeeperServer, path: str) -> None:
    """Waiters watch the one before them; thirty that gave up have left at most one watch on it."""
    with zkr.connect(server.hosts) as zk, zkr.connect(server.hosts) as holder:
        before = _at_the_server(server)[0]
        with zkr.Lock(holder, path).acquire(timeout=5.0):
            for _ in range(30):
                assert zkr.Lock(zk, path).try_acquire(timeout=0.1) is None
            wait_until(lambda: _at_the_server(server)[0] <= before + 2, 5.0)
        wait_until(lambda: _at_the_server(server)[0] <= before, 5.0, lambda: str(_at_the_server(server)))


def test_handles_are_collected(server: ZooKeeperServer, path: str) -> None:
    """A client that lives for long gathers nothing from locks that were taken and released."""
    with zkr.connect(server.hosts) as zk:
        lock = zkr.Lock(zk, path)
        for _ in range(50):
            lock.acquire(timeout=5.0).release()
        gc.collect()
        swept = 3 * SWEEP
        counts: list[int] = []
        for _ in range(3):
            for _ in range(100):
                with lock.acquire(timeout=5.0) as held:
                    held.lost.on_set(lambda _reason: None)
            linger(swept)
            gc.collect()
            counts.append(len(gc.get_objects()))
        assert counts[2] - counts[1] < 100, counts
