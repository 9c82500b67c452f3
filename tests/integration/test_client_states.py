"""CONNECTED, SUSPENDED and LOST: told once each, in order, by our own clock where no server answers."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

import zkrecipes as zkr
import zkrecipes.aio as zkr_aio
from zkrecipes.testing import FaultProxy, Server, wait_until

CONNECTED, SUSPENDED, LOST = zkr.State.CONNECTED, zkr.State.SUSPENDED, zkr.State.LOST


def _told(zk: zkr.Client) -> list[zkr.State]:
    states: list[zkr.State] = []
    zk.on_state(states.append)
    return states


def test_a_new_client_is_connected(zkr_client: zkr.Client) -> None:
    assert zkr_client.state is CONNECTED
    assert zkr_client.health() == zkr.Health(ok=True, state="connected")
    assert zkr_client.session_id != 0
    assert zkr_client.session_timeout == 10.0


def test_a_short_outage(zkr_server: Server) -> None:
    """The server is killed and started again: the session lives on, and so does what is held."""
    # Long enough for an attempt that hangs: what stands before a stopped container may accept it, and say nothing.
    with zkr.connect(zkr_server.hosts, session_timeout=40.0, namespace="/states") as zk:
        states = _told(zk)
        session = zk.session_id
        held = zkr.Lock(zk, "/lock").acquire(5.0)
        zkr_server.kill()
        wait_until(lambda: states == [SUSPENDED], 5.0, lambda: f"suspended: {states}")
        assert not zk.health().ok
        assert zk.health().state == "suspended"
        assert held.state is zkr.HoldState.UNCERTAIN
        assert held.valid
        zkr_server.start()
        wait_until(lambda: states == [SUSPENDED, CONNECTED], 25.0, lambda: f"connected again: {states}")
        assert zk.session_id == session
        assert held.valid
        assert zk.health().ok
        held.release()
    wait_until(lambda: states == [SUSPENDED, CONNECTED, LOST], 5.0, lambda: f"closed: {states}")


def test_a_long_outage_is_told_without_a_server(zkr_proxy: FaultProxy, zkr_namespace: str) -> None:
    with zkr.connect(zkr_proxy.hosts, session_timeout=2.0, namespace=zkr_namespace) as zk:
        states = _told(zk)
        session = zk.session_id
        held = zkr.Lock(zk, "/lock").acquire(5.0)
        zkr_proxy.refuse()
        began = time.monotonic()
        wait_until(lambda: states == [SUSPENDED, LOST], 5.0, lambda: f"lost: {states}")
        assert time.monotonic() - began < 2.5, "by our own clock"
        assert zk.state is LOST
        assert not zk.health().ok
        assert held.lost.reason is zkr.LostReason.UNREACHABLE
        zkr_proxy.heal()
        wait_until(lambda: states == [SUSPENDED, LOST, CONNECTED], 10.0, lambda: f"connected again: {states}")
        wait_until(lambda: zk.health().ok, 1.0, "healthy")
        if zk.session_id == session:  # it may just have lived on at the server
            assert not held.valid
        assert zkr.Lock(zk, "/lock").acquire(10.0).token > held.token


def test_an_expired_session(zkr_server: Server, zkr_client: zkr.Client) -> None:
    states = _told(zkr_client)
    session = zkr_client.session_id
    zkr_server.expire(zkr_client)
    wait_until(lambda: states[-1:] == [CONNECTED], 15.0, lambda: f"connected: {states}")
    assert states[-2:] == [LOST, CONNECTED]
    assert states in (
        [SUSPENDED, LOST, CONNECTED],
        [LOST, CONNECTED],
        [SUSPENDED, CONNECTED, SUSPENDED, LOST, CONNECTED],
    )
    assert zkr_client.session_id != session


def test_many_cuts_are_told_in_order(zkr_proxy: FaultProxy, zkr_client: zkr.Client) -> None:
    states = _told(zkr_client)
    for number in range(1, 11):
        zkr_proxy.cut()
        wait_until(lambda number=number: len(states) >= 2 * number, 10.0, lambda: f"told: {states}")  # type: ignore[misc]
    assert states == [SUSPENDED, CONNECTED] * 10


def test_listeners_do_not_hinder_one_another(zkr_proxy: FaultProxy, zkr_client: zkr.Client) -> None:
    """One blocks, one raises, one uses the client, one is cancelled: the others hear it all."""
    gate = threading.Event()
    blocked: list[zkr.State] = []
    asked: list[object] = []
    cancelled: list[zkr.State] = []

    def block(state: zkr.State) -> None:
        gate.wait(20.0)
        blocked.append(state)

    def fail(state: zkr.State) -> None:
        raise KeyError(state)

    def ask(state: zkr.State) -> None:
        if state is CONNECTED:
            asked.append(zkr_client.children("/"))

    zkr_client.on_state(block)
    zkr_client.on_state(fail)
    zkr_client.on_state(ask)
    registration = zkr_client.on_state(cancelled.append)
    states = _told(zkr_client)
    registration.cancel()
    registration.cancel()
    zkr_proxy.cut()
    wait_until(lambda: states == [SUSPENDED, CONNECTED], 5.0, lambda: f"told: {states}")
    wait_until(lambda: asked, 5.0, "blocking verbs are allowed in listeners")
    assert blocked == []
    gate.set()
    wait_until(lambda: blocked == [SUSPENDED, CONNECTED], 5.0, "nothing is dropped")
    assert cancelled == []


def test_a_silent_server_is_left_and_found_again(zkr_proxy: FaultProxy, zkr_namespace: str) -> None:
    with zkr.connect(zkr_proxy.hosts, session_timeout=3.0, namespace=zkr_namespace) as zk:
        states = _told(zk)
        zkr_proxy.blackhole("to_client")
        wait_until(lambda: states == [SUSPENDED], 3.0, "silence is noticed without an error of the network")
        zkr_proxy.cut()
        zkr_proxy.heal()
        wait_until(lambda: states[-1] is CONNECTED, 10.0, lambda: f"connected again: {states}")
        assert zk.get("/", timeout=5.0).path == "/"


def test_asyncio_listeners_run_on_the_loop(zkr_proxy: FaultProxy, zkr_namespace: str) -> None:
    async def main() -> None:
        async with zkr_aio.connect(zkr_proxy.hosts, namespace=zkr_namespace) as zk:
            states: asyncio.Queue[tuple[zkr.State, int]] = asyncio.Queue()
            zk.on_state(lambda state: states.put_nowait((state, threading.get_ident())))
            await asyncio.to_thread(zkr_proxy.cut)
            told = [await asyncio.wait_for(states.get(), 5.0) for _ in range(2)]
            assert told == [(SUSPENDED, threading.get_ident()), (CONNECTED, threading.get_ident())]
            assert zk.state is CONNECTED
            assert zk.health().ok

    asyncio.run(main())


def test_a_closed_client_takes_no_listener(zkr_server: Server) -> None:
    zk = zkr.connect(zkr_server.hosts)
    zk.close()
    assert zk.state is LOST
    assert zk.health() == zkr.Health(ok=False, state="closed", reason="the client is closed")
    with pytest.raises(zkr.ClosedError):
        zk.on_state(lambda _: None)
