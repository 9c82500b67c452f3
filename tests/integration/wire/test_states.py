"""What a transport tells of connections and sessions, and what becomes of the calls under way."""

from __future__ import annotations

import time
from typing import Any

import pytest

import zkrecipes as zkr
from tests.integration.wire.link import SESSION, borrowing, linked, own, started, wait_done
from zkrecipes.calls import Call
from zkrecipes.port import Children, Create, Exists, Get, Sync
from zkrecipes.runtime import ThreadRuntime
from zkrecipes.testing import FaultProxy, Server, wait_until


def test_a_connection_is_told_with_its_session_and_negotiated_timeout(kind: str, zkr_server: Server) -> None:
    before = ThreadRuntime().now()
    with linked(kind, zkr_server.hosts) as link:
        (_, session_id, timeout, since) = link.events.told[0]
        assert (session_id, link.transport.client_id) == (
            link.transport.kazoo.client_id[0],
            link.transport.kazoo.client_id,
        )
        assert timeout == SESSION
        assert link.transport.server == zkr_server.hosts
        assert link.transport.servers == 1
        if "own" in kind:
            assert before < since < link.events.runtime.now()
        else:
            assert since is None


def test_without_our_handler_a_slow_first_connection_proves_nothing(proxy: FaultProxy) -> None:
    proxy.refuse()
    link = own(proxy.hosts, internals=False)
    before = link.events.runtime.now()
    link.transport.start()
    try:
        wait_until(lambda: link.events.runtime.now() - before > SESSION / 8, 5.0, "an eighth of the session timeout")
        proxy.heal()
        assert link.events.wait_for("connected")[3] is None
    finally:
        link.transport.close(2.0)


@pytest.mark.parametrize("kind", ["own, internals", "own, public"])
def test_the_server_has_the_last_word_on_the_timeout(kind: str, zkr_server: Server) -> None:
    with own(zkr_server.hosts, internals="internals" in kind, session_timeout=0.1) as link:
        # The shortest is two ticks.
        assert 0.1 < link.events.told[0][2] <= 4.0


def test_the_timeout_of_a_borrowed_client_is_the_negotiated_one(proxy: FaultProxy) -> None:
    with started(proxy.hosts, timeout=0.1) as kazoo, borrowing(kazoo) as link:
        proxy.cut()
        link.events.wait_for("connected", 2)
        first, second = link.events.all("connected")
        assert first[1:3] == second[1:3]
        assert 0.1 < first[2] <= 4.0


def test_calls_under_way_are_dropped_in_order_when_the_connection_ends(kind: str, proxy: FaultProxy, root: str) -> None:
    with linked(kind, proxy.hosts) as link:
        gate = proxy.hold_reply("getData")
        calls = link.send(Get(root), Exists(root), Create(f"{root}/b"), Children(root, watch=True), Get("/"))
        gate.wait_held()
        proxy.cut()
        link.events.wait_for("connected", 2)
        assert [entry[1:] for entry in link.events.all("ended")] == [(call, "dropped") for call in calls]
        first, second = link.events.all("connected")
        assert first[1] == second[1]
        assert len(link.events.all("disconnected")) == 1
        assert link.ask(Exists(root)) is not None


def test_a_lost_reply_is_a_dropped_call(kind: str, proxy: FaultProxy, root: str) -> None:
    with linked(kind, proxy.hosts) as link:
        trap = proxy.drop_reply("create2")
        assert link.ask(Create(f"{root}/done")) == "dropped"
        trap.wait()
        link.events.wait_for("connected", 2)
        assert link.ask(Exists(f"{root}/done")) is not None


def test_a_withdrawn_call_is_never_written(proxy: FaultProxy, root: str) -> None:
    with own(proxy.hosts) as link:
        proxy.reset_counts()
        (withdrawn,) = link.send(Create(f"{root}/never"), forbidden=True)
        (watch,) = link.send(Children(f"{root}/never", watch=True), forbidden=True)
        (other,) = link.send(Get(root))
        wait_done(withdrawn, watch, other)
        assert withdrawn.result() == watch.result() == "dropped"
        assert other.result()[0] == b""
        assert proxy.counts() == {"exists": 2, "getData": 1}
        assert link.ask(Exists(f"{root}/never")) is None


def test_what_was_queued_when_the_connection_ended_is_not_written_in_the_next(proxy: FaultProxy, root: str) -> None:
    with own(proxy.hosts) as link:
        transport = link.transport
        # The moment between kazoo's clearing of its queue and its telling of the listeners.
        with link.events.runtime.lock:
            proxy.cut()
            wait_until(lambda: not transport.kazoo.connected, 5.0, "kazoo sees the cut")
            calls = link.send(Create(f"{root}/late"))
            assert link.events.all("disconnected") == []
        link.events.wait_for("connected", 2)
        assert calls[0].result() == "dropped"
        assert link.events.written == []
        assert link.ask(Exists(f"{root}/late")) is None


def test_an_expired_session_is_told_before_the_new_one(kind: str, zkr_server: Server, proxy: FaultProxy) -> None:
    with linked(kind, proxy.hosts) as link:
        link.ask(Sync("/"))
        proxy.refuse()
        link.events.wait_for("disconnected")
        identity = link.transport.kazoo._session_id, link.transport.kazoo._session_passwd
        zkr_server.expire(identity)
        proxy.heal()
        link.events.wait_for("connected", 2)
        first, second = link.events.all("connected")
        assert first[1] != second[1]
        order = [entry[0] for entry in link.events.told if entry[0] != "ended"]
        assert order == ["connected", "disconnected", "expired", "connected"]
        assert link.ask(Sync("/")) is None


def test_the_end_of_a_borrowed_client_is_the_end_of_its_session(zkr_server: Server) -> None:
    with started(zkr_server.hosts) as kazoo, borrowing(kazoo) as link:
        kazoo.stop()
        link.events.wait_for("expired")
        kazoo.start()
        link.events.wait_for("connected", 2)
        assert link.ask(Exists("/")) is not None


def test_closing_leaves_a_borrowed_client_alone(zkr_server: Server) -> None:
    with started(zkr_server.hosts) as kazoo:
        with borrowing(kazoo) as link:
            pass
        assert kazoo.exists("/")
        assert not kazoo.state_listeners
        assert link.events.all("disconnected") == [("disconnected",)]


def test_reconnecting_leaves_a_silent_server_for_another(zkr_server: Server) -> None:
    with FaultProxy(zkr_server) as one, FaultProxy(zkr_server) as two, own(f"{one.hosts},{two.hosts}") as link:
        for count in range(1, 4):
            silent = one if link.transport.server == one.hosts else two
            silent.blackhole()
            (call,) = link.send(Get("/"))
            link.wait_written(count)
            before = time.monotonic()
            link.transport.reconnect()
            link.events.wait_for("connected", count + 1, limit=1.0)
            assert time.monotonic() - before < 0.5
            assert call.result() == "dropped"
            assert link.transport.server != silent.hosts
            silent.heal()
        assert len({entry[1] for entry in link.events.all("connected")}) == 1
        assert link.transport.servers == 2


def test_a_lone_server_that_was_silent_is_tried_again(proxy: FaultProxy) -> None:
    with own(proxy.hosts) as link:
        link.transport.reconnect()
        link.events.wait_for("connected", 2, limit=1.0)


def test_what_a_silent_server_has_not_got_it_never_gets(zkr_server: Server, root: str) -> None:
    with FaultProxy(zkr_server) as one, FaultProxy(zkr_server) as two, own(f"{one.hosts},{two.hosts}") as link:
        silent = one if link.transport.server == one.hosts else two
        silent.blackhole()
        handler = link.transport._handler
        assert handler is not None
        calls: list[Call[Any]] = []
        while not handler.current or not handler.current._out:  # the kernel's buffers take some
            calls += link.send(Create(f"{root}/n-", bytes(900_000), sequential=True))
            link.wait_written(len(calls))
        calls += link.send(Create(f"{root}/last"))
        link.wait_written(len(calls))
        link.transport.reconnect()
        link.events.wait_for("connected", 2)
        assert {call.result() for call in calls} == {"dropped"}
        silent.heal()
        link.ask(Sync("/"))
        assert link.ask(Exists(f"{root}/last")) is None


def test_a_silent_handshake_is_given_up_for_the_next_server(zkr_server: Server) -> None:
    with FaultProxy(zkr_server) as silent:
        silent.blackhole()
        hosts = f"{silent.hosts},{zkr_server.hosts}"
        link = own(hosts, session_timeout=3.0)
        link.transport.kazoo.randomize_hosts = False
        before = time.monotonic()
        with link:
            # (3 s / 3) / 2 for each server.
            assert 0.4 < time.monotonic() - before < 1.2
            assert link.transport.server == zkr_server.hosts


@pytest.mark.parametrize("wire", ["", "public"])
def test_a_fresh_client_can_prove_at_once_what_it_holds(
    wire: str, zkr_server: Server, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZKRECIPES_WIRE", wire)
    timeout = 40.0  # so that a quarter of it is long
    with zkr.connect(zkr_server.hosts, session_timeout=timeout) as client:
        before = time.monotonic()
        held = zkr.Lock(client, f"{root}/lock").acquire(timeout / 2)
        assert held.valid
        assert time.monotonic() - before < timeout / 8
