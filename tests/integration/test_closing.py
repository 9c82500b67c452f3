"""Closing: idempotent, bounded in every state of the server, with nothing left behind."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

import zkrecipes as zkr
import zkrecipes.aio as zkr_aio
from tests.contracts.subjects import Later
from tests.leftovers import Leftovers
from zkrecipes.testing import FaultProxy, Server, wait_until

BOUND = 2.5


def _closed_in_time(zk: zkr.Client) -> float:
    began = time.monotonic()
    zk.close()
    seconds = time.monotonic() - began
    assert seconds <= BOUND
    return seconds


@pytest.fixture
def left(zkr_server: Server, zkr_namespace: str) -> Iterator[Leftovers]:
    """After the test, too, nothing may be left."""
    left = Leftovers()
    yield left
    left.none(files=False)


# --- bounded ----------------------------------------------------------------------------------------------------------


def test_connected(zkr_server: Server, zkr_namespace: str, left: Leftovers) -> None:
    zk = zkr.connect(zkr_server.hosts, namespace=zkr_namespace)
    zk.create("/ephemeral", kind=zkr.Kind.EPHEMERAL)
    held, led = zkr.Lock(zk, "/lock").acquire(5.0), zkr.Election(zk, "/office").campaign(5.0)
    session = zk.session_id
    assert _closed_in_time(zk) < 1.0
    for handle in (held, led):
        assert handle.lost.reason is zkr.LostReason.CLOSED
    assert led.should_stop.reason is zkr.StopReason.CLOSED
    left.none()
    assert f"{session:#x}" not in zkr_server.command("dump"), "the server was told"
    with zkr.connect(zkr_server.hosts, namespace=zkr_namespace) as other:
        assert other.children("/") == ["lock", "office"]
        assert other.children("/lock") == other.children("/office") == []
    assert zk.close() is None  # type: ignore[func-returns-value]  # once more
    with pytest.raises(zkr.ClosedError, match=r"zkrecipes\.connect"):
        zk.get("/")
    assert "lost" in repr(zk)


def test_from_many_threads_at_once(zkr_server: Server, left: Leftovers) -> None:
    zk = zkr.connect(zkr_server.hosts)
    for later in [Later(zk.close) for _ in range(8)]:
        later.result()
    left.none()


@pytest.mark.parametrize("how", ["paused", "gone", "black hole", "suspended"])
def test_without_a_server(
    how: str, zkr_server: Server, zkr_proxy: FaultProxy, zkr_namespace: str, left: Leftovers
) -> None:
    faults: dict[str, Callable[[], None]] = {
        "paused": zkr_server.pause,
        "gone": zkr_server.kill,
        "black hole": zkr_proxy.blackhole,
        "suspended": zkr_proxy.refuse,
    }
    zk = zkr.connect(zkr_proxy.hosts, namespace=zkr_namespace, session_timeout=4.0)
    held = zkr.Lock(zk, "/lock").acquire(5.0)
    waiter = Later(lambda: zkr.Lock(zk, "/lock").acquire())
    wait_until(lambda: len(zkr.Lock(zk, "/lock").contenders()) == 2, 5.0, "it waits")
    faults[how]()
    if how in {"gone", "suspended"}:
        wait_until(lambda: zk.state is zkr.State.SUSPENDED, 5.0, "suspended")
    try:
        _closed_in_time(zk)
        assert held.lost.reason is zkr.LostReason.CLOSED
        with pytest.raises(zkr.ClosedError):
            waiter.result(2.0)
        left.none(files=False)
    finally:
        zkr_proxy.cut()
        if zkr_server.paused:
            zkr_server.resume()


def test_while_connecting(left: Leftovers) -> None:
    """Nobody accepts: the handshake has no answer, and connect() ends by its own deadline with nothing left."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        hosts = f"127.0.0.1:{listener.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(zkr.UnavailableError):
            zkr.connect(hosts, connect_timeout=0.5)
        assert time.monotonic() - began < 0.5 + BOUND
    left.none()


def test_from_a_callback(zkr_server: Server, left: Leftovers) -> None:
    """close() in a listener must not wait for itself."""
    zk = zkr.connect(zkr_server.hosts)
    took: list[float] = []
    held = zkr.Lock(zk, "/closing/lock").acquire(5.0)
    held.lost.on_set(lambda _: took.append(_closed_in_time(zk)))
    zkr_server.expire(zk)
    wait_until(lambda: took, 10.0, "the callback has closed it")
    left.none()


def test_asyncio(zkr_server: Server, zkr_namespace: str, left: Leftovers) -> None:
    async def main() -> None:
        zk = await zkr_aio.connect(zkr_server.hosts, namespace=zkr_namespace)
        held = await zkr_aio.Lock(zk, "/lock").acquire()
        waiter = asyncio.ensure_future(_take(zkr_aio.Lock(zk, "/lock")))
        while len(await zk.children("/lock")) < 2:
            await zk.sync()
        await asyncio.gather(*[zk.close() for _ in range(4)])
        await zk.close()
        assert held.lost.reason is zkr.LostReason.CLOSED
        with pytest.raises(zkr.ClosedError):
            await waiter
        with pytest.raises(zkr.ClosedError):
            await zk.get("/")

    asyncio.run(main())
    left.none()


async def _take(lock: zkr_aio.Lock) -> zkr_aio.LockHandle:
    return await lock.acquire()


def test_asyncio_close_survives_its_own_cancellation(zkr_server: Server, left: Leftovers) -> None:
    async def main() -> None:
        zk = await zkr_aio.connect(zkr_server.hosts)
        closing = asyncio.ensure_future(zk.close())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing

    asyncio.run(main())
    left.none()


def test_a_cancelled_connect_leaves_nothing(left: Leftovers) -> None:
    async def main(hosts: str) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(_connect(hosts), 0.3)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        asyncio.run(main(f"127.0.0.1:{listener.getsockname()[1]}"))
    left.none()


async def _connect(hosts: str) -> zkr_aio.Client:
    return await zkr_aio.connect(hosts)


# --- leaks ------------------------------------------------------------------------------------------------------------


def _watches(server: Server) -> float:
    return float(server.metrics()["zk_watch_count"])


def test_a_hundred_clients_leak_nothing(zkr_server: Server, zkr_namespace: str, left: Leftovers) -> None:
    watches, sessions = _watches(zkr_server), zkr_server.command("dump").count("0x")
    for _ in range(100):
        with zkr.connect(zkr_server.hosts, namespace=zkr_namespace) as zk:
            zkr.Lock(zk, "/lock").acquire(5.0).release()
    left.none()
    wait_until(lambda: zkr_server.command("dump").count("0x") <= sessions, 5.0, "all sessions are closed")
    assert _watches(zkr_server) == watches


def test_a_hundred_contests_leak_no_watch_and_no_node(zkr_server: Server, zkr_namespace: str) -> None:
    with (
        zkr.connect(zkr_server.hosts, namespace=zkr_namespace) as one,
        zkr.connect(zkr_server.hosts, namespace=zkr_namespace) as two,
    ):
        held = zkr.Lock(one, "/lock").acquire(5.0)
        other = zkr.Lock(two, "/lock")
        before = _watches(zkr_server)
        for timeout in [0, 0.01] * 30:
            # So short a time may not be enough for an answer.
            with pytest.raises((zkr.AcquireTimeoutError, zkr.UnavailableError)):
                other.acquire(timeout)
        wait_until(lambda: one.children("/lock") == [other.contenders()[0].node], 5.0, "no node of the waiter is left")
        # At most the watches on the node that still stands: the server keeps one a path and session.
        assert _watches(zkr_server) <= before + 2
        held.release()
        threads = threading.active_count()
        for _ in range(50):
            other.acquire(5.0).release()
        assert threading.active_count() <= threads
        assert _watches(zkr_server) <= before + 2
