from __future__ import annotations

import pytest

from tests.testing.conftest import Connect, comes_not, is_cut
from zkrecipes.errors import UnavailableError
from zkrecipes.testing import FaultProxy, RawClient, wait_until
from zkrecipes.testing.raw import create_payload, text

pytestmark = pytest.mark.server


@pytest.mark.parametrize("operation", ["create", "any write", ["delete", "create"]])
def test_drop_reply_applies_the_nth_and_cuts(
    proxy: FaultProxy, witness: RawClient, connect: Connect, path: str, operation: str | list[str]
) -> None:
    client, bystander = connect(proxy), connect(proxy)
    trap = proxy.drop_reply(operation, nth=2)
    assert client.create(path).error == 0
    assert not trap.fired
    with pytest.raises(UnavailableError, match=r"reset|closed"):
        client.create(path + "-lost")
    trap.wait()
    assert trap.fired
    assert witness.exists(path + "-lost")
    assert bystander.exists("/")  # another connection is not touched
    assert bystander.create(path + "-after").error == 0  # and the trap acts once


def test_drop_reply_gives_the_client_all_earlier_replies(
    proxy: FaultProxy, witness: RawClient, connect: Connect, path: str
) -> None:
    client = connect(proxy)
    trap = proxy.drop_reply("create")
    first = client.send("exists", text("/") + b"\0")
    client.send("create", create_payload(path))
    client.send("create", create_payload(path + "-behind"))
    assert client.receive().xid == first
    trap.wait()
    with pytest.raises(UnavailableError):
        client.receive()
    assert witness.exists(path)


def test_a_trap_that_does_not_fire_fails_its_wait(proxy: FaultProxy) -> None:
    trap = proxy.drop_reply("delete")
    with pytest.raises(AssertionError, match="drop the reply of 'delete' number 1: waiting"):
        trap.wait(0.01)


def test_hold_reply_holds_it_and_what_follows_until_release(
    proxy: FaultProxy, witness: RawClient, connect: Connect, path: str
) -> None:
    client = connect(proxy)
    gate = proxy.hold_reply("create")
    xids = [client.send("create", create_payload(path)), client.send("exists", text("/") + b"\0")]
    gate.wait_held()
    assert witness.exists(path)
    comes_not(client)
    assert gate.held
    gate.release()
    gate.release()
    assert [client.receive().xid for _ in xids] == xids
    assert not gate.held


def test_hold_reply_and_drop_cuts_the_connection(
    proxy: FaultProxy, witness: RawClient, connect: Connect, path: str
) -> None:
    client = connect(proxy)
    gate = proxy.hold_reply("create")
    with pytest.raises(RuntimeError, match="wait_held"):
        gate.drop()
    client.send("create", create_payload(path))
    gate.wait_held()
    gate.drop()
    is_cut(client)
    assert witness.exists(path)


def test_hold_request_keeps_it_from_the_server(
    proxy: FaultProxy, witness: RawClient, connect: Connect, path: str
) -> None:
    client = connect(proxy)
    gate = proxy.hold_request("create", nth=2)
    assert client.create(path).error == 0
    client.send("create", create_payload(path + "-held"))
    gate.wait_held()
    assert not witness.exists(path + "-held")
    gate.release()
    assert client.receive().error == 0
    assert witness.exists(path + "-held")


def test_a_held_request_that_is_dropped_never_reaches_the_server(
    proxy: FaultProxy, witness: RawClient, connect: Connect, path: str
) -> None:
    client = connect(proxy)
    gate = proxy.hold_request("create")
    client.send("create", create_payload(path))
    gate.wait_held()
    gate.drop()
    is_cut(client)
    again = connect(proxy, session=client.client_id)
    assert not again.exists(path)


def test_a_gate_released_before_its_request_holds_nothing(proxy: FaultProxy, connect: Connect, path: str) -> None:
    gate = proxy.hold_request("create")
    gate.release()
    assert connect(proxy).create(path).error == 0


def test_a_cut_frees_a_gate(proxy: FaultProxy, connect: Connect, path: str) -> None:
    client = connect(proxy)
    gate = proxy.hold_request("create")
    client.send("create", create_payload(path))
    gate.wait_held()
    proxy.cut()
    assert not gate.held


def test_requests_and_flights_are_counted(proxy: FaultProxy, connect: Connect, path: str) -> None:
    client = connect(proxy)
    assert proxy.counts() == {"connect": 1}
    assert proxy.flights() == 0
    client.send("create", create_payload(path))
    client.send("getChildren", text("/") + b"\0")
    client.receive()
    client.receive()
    client.call("ping")
    client.call("delete", text(path) + b"\xff\xff\xff\xff")
    assert proxy.counts() == {"connect": 1, "create": 1, "getChildren": 1, "ping": 1, "delete": 1}
    assert proxy.bursts() == [["create", "getChildren"], ["delete"]]
    assert proxy.flights() == 2
    proxy.reset_counts()
    assert (proxy.counts(), proxy.flights(), proxy.bursts()) == ({}, 0, [])


def test_a_flight_begins_with_a_request_after_a_reply_to_the_flight_before(proxy: FaultProxy, connect: Connect) -> None:
    client = connect(proxy)
    opening, first, second = proxy.hold_reply("exists"), proxy.hold_reply("sync"), proxy.hold_reply("getData")
    client.send("exists", text("/") + b"\0")
    client.send("sync", text("/"))
    wait_until(lambda: proxy.counts()["sync"] == 1, 10, "the second request has come by")
    opening.release()
    client.receive()
    first.wait_held()
    client.send("getData", text("/") + b"\0")  # one of two replies has come: this may follow from it
    wait_until(lambda: proxy.counts()["getData"] == 1, 10, "the third request has come by")
    first.release()
    client.receive()
    second.wait_held()
    client.send("exists", text("/") + b"\0")  # an answer to an older flight does not end this one
    wait_until(lambda: proxy.counts()["exists"] == 2, 10, "the fourth request has come by")
    second.release()
    assert proxy.bursts() == [["exists", "sync"], ["getData", "exists"]]


def test_watch_notifications_are_counted_apart(
    proxy: FaultProxy, witness: RawClient, connect: Connect, path: str
) -> None:
    client = connect(proxy)
    client.exists(path, watch=True)
    proxy.reset_counts()
    witness.create(path)
    wait_until(lambda: proxy.events() == 1, 10, "the watch has fired")
    client.exists("/")
    assert client.events == 1
    assert proxy.counts() == {"exists": 1}
