from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.testing.conftest import SOON, Connect, comes_not, is_cut
from zkrecipes.errors import UnavailableError
from zkrecipes.testing import FaultProxy, RawClient, ZooKeeperServer, wait_until
from zkrecipes.testing.ports import LOOPBACK, reserve_port
from zkrecipes.testing.raw import create_payload, text

pytestmark = pytest.mark.server


def test_everything_passes_and_big_frames_too(
    proxy: FaultProxy, witness: RawClient, connect: Connect, path: str
) -> None:
    client = connect(proxy)
    data = os.urandom(900_000)
    assert client.create(path, data).error == 0
    for reader in (client, witness):
        reply = reader.call("getData", text(path) + b"\0")
        assert data in reply.body
    assert proxy.connections == 1


def test_requests_sent_together_are_answered_in_order(proxy: FaultProxy, connect: Connect) -> None:
    client = connect(proxy)
    xids = [client.send("exists", text("/") + b"\0") for _ in range(5_000)]
    assert [client.receive().xid for _ in xids] == xids


def test_four_letter_words_pass(server: ZooKeeperServer, proxy: FaultProxy) -> None:
    with socket.create_connection((proxy.host, proxy.port), 20) as connection:
        connection.sendall(b"ruok")
        assert connection.recv(10) == b"imok"
    assert proxy.counts() == {}


def test_cut_resets_both_ends_and_a_client_may_come_again(
    server: ZooKeeperServer, proxy: FaultProxy, connect: Connect
) -> None:
    before = server.metrics()["zk_num_alive_connections"]
    client = connect(proxy)
    proxy.cut()
    assert proxy.connections == 0
    is_cut(client)
    again = connect(proxy, session=client.client_id)
    assert again.session_id == client.session_id
    assert again.exists("/")
    again.close()
    wait_until(lambda: server.metrics()["zk_num_alive_connections"] == before, 10, "the server has noticed")


def test_cut_of_the_client_lets_the_server_have_what_was_sent(
    proxy: FaultProxy, witness: RawClient, connect: Connect, path: str
) -> None:
    client = connect(proxy)
    gate = proxy.hold_request("create")
    client.send("create", create_payload(path))
    gate.wait_held()
    proxy.cut("client")
    is_cut(client)
    assert not witness.exists(path)
    gate.release()
    wait_until(lambda: witness.exists(path), 10, "the late request is applied")
    wait_until(lambda: proxy.connections == 0, 10, "the connection is gone")


def test_refuse_cuts_and_refuses_until_heal(proxy: FaultProxy, connect: Connect) -> None:
    client = connect(proxy)
    proxy.refuse()
    proxy.refuse()
    is_cut(client)
    for _ in range(3):
        with pytest.raises(UnavailableError, match="refused"):
            connect(proxy)
    proxy.heal()
    assert connect(proxy).exists("/")


def test_delay_holds_each_way_and_ends(proxy: FaultProxy, connect: Connect) -> None:
    client = connect(proxy)
    proxy.delay(0.15)
    started = time.monotonic()
    client.exists("/")
    assert 0.3 <= time.monotonic() - started < 3.0
    proxy.delay(0.15, "to_client")
    started = time.monotonic()
    xids = [client.send("exists", text("/") + b"\0") for _ in range(100)]
    assert [client.receive().xid for _ in xids] == xids
    assert 0.15 <= time.monotonic() - started < 0.3 + 2.0
    proxy.heal()
    started = time.monotonic()
    client.exists("/")
    assert time.monotonic() - started < 0.15


def test_a_black_hole_passes_nothing_and_heal_delivers(
    proxy: FaultProxy, witness: RawClient, connect: Connect, path: str
) -> None:
    client = connect(proxy)
    proxy.blackhole()
    client.send("create", create_payload(path))
    comes_not(client)
    assert not witness.exists(path)
    assert proxy.counts()["create"] == 0  # it has not come by yet
    proxy.heal()
    assert client.receive().error == 0
    assert witness.exists(path)


def test_a_black_hole_stops_what_was_delayed_or_held_before(
    proxy: FaultProxy, witness: RawClient, connect: Connect, path: str
) -> None:
    client, other = connect(proxy), connect(proxy)
    gate = proxy.hold_request("create")
    client.send("create", create_payload(path))
    gate.wait_held()
    proxy.delay(SOON / 2)
    other.send("create", create_payload(path + "-delayed"))
    wait_until(lambda: proxy.counts()["create"] == 2, 10, "the delayed request has come by")
    proxy.blackhole()
    gate.release()
    comes_not(client)
    assert not witness.exists(path)
    assert not witness.exists(path + "-delayed")
    proxy.heal()
    assert client.receive().error == 0
    assert other.receive().error == 0


def test_a_black_hole_to_the_server_holds_requests_only(
    proxy: FaultProxy, witness: RawClient, connect: Connect, path: str
) -> None:
    client = connect(proxy)
    gate = proxy.hold_reply("exists")
    client.send("exists", text("/") + b"\0")
    gate.wait_held()
    proxy.blackhole("to_server")
    gate.release()
    assert client.receive().error == 0  # what comes from the server still arrives
    client.send("create", create_payload(path))
    comes_not(client)
    assert not witness.exists(path)


def test_a_black_hole_to_the_client_lets_requests_be_applied(
    proxy: FaultProxy, witness: RawClient, connect: Connect, path: str
) -> None:
    client = connect(proxy)
    proxy.blackhole("to_client")
    client.send("create", create_payload(path))
    wait_until(lambda: witness.exists(path), 10, "the request is applied")
    comes_not(client)
    proxy.heal()
    assert client.receive().error == 0


def test_a_black_hole_swallows_the_end_of_a_connection(
    server: ZooKeeperServer, proxy: FaultProxy, witness: RawClient, connect: Connect, path: str
) -> None:
    client = connect(proxy)
    proxy.blackhole()
    client.send("create", create_payload(path))
    client.close()
    threading.Event().wait(SOON)
    assert proxy.connections == 1
    assert f"sid={client.session_id:#x}," in server.command("cons")
    proxy.heal()
    wait_until(lambda: witness.exists(path), 10, "what was sent before the end arrives")
    wait_until(lambda: proxy.connections == 0, 10, "and the end with it")


def test_a_server_that_dies_behind_a_black_hole_is_not_noticed(
    server: ZooKeeperServer, proxy: FaultProxy, connect: Connect
) -> None:
    client = connect(proxy)
    proxy.blackhole()
    server.kill()
    comes_not(client)
    proxy.heal()
    is_cut(client)


def test_connections_made_in_a_black_hole_get_nothing_and_are_reset_by_heal(
    server: ZooKeeperServer, proxy: FaultProxy, connect: Connect
) -> None:
    proxy.blackhole()
    before = server.metrics()["zk_num_alive_connections"]
    with socket.create_connection((proxy.host, proxy.port), 20) as connection:
        connection.settimeout(SOON)
        connection.sendall(b"ruok")
        with pytest.raises(TimeoutError):
            connection.recv(10)
        assert server.metrics()["zk_num_alive_connections"] == before
        proxy.heal()
        connection.settimeout(20)
        with pytest.raises(ConnectionResetError):
            connection.recv(10)
    assert connect(proxy).exists("/")


def test_half_close_ends_one_direction_only(proxy: FaultProxy, witness: RawClient, connect: Connect, path: str) -> None:
    client = connect(proxy)
    proxy.half_close()
    with pytest.raises(UnavailableError, match="closed"):
        client.receive()
    client.send("create", create_payload(path))
    wait_until(lambda: witness.exists(path), 10, "what the client sends still arrives")
    client.close()
    wait_until(lambda: proxy.connections == 0, 10, "the connection is gone")


@pytest.fixture
def other_server(installed: None) -> Iterator[ZooKeeperServer]:
    with ZooKeeperServer() as server:
        yield server


def test_retarget_leads_a_reconnect_to_another_server(
    server: ZooKeeperServer, other_server: ZooKeeperServer, proxy: FaultProxy, connect: Connect, path: str
) -> None:
    client = connect(proxy)
    connect(other_server).create(path)
    proxy.retarget(other_server)
    assert not client.exists(path)  # old connections stay where they are
    proxy.retarget(other_server, cut=True)
    is_cut(client)
    assert connect(proxy).exists(path)


def test_a_server_that_refuses_is_told_by_a_reset(server: ZooKeeperServer, proxy: FaultProxy, connect: Connect) -> None:
    server.kill()
    with pytest.raises(UnavailableError, match="reset"):
        connect(proxy)


def test_with_patience_a_server_that_does_not_listen_yet_is_waited_for() -> None:
    reserved = reserve_port()
    with (
        FaultProxy((LOOPBACK, reserved.number), patience=30.0) as patient,
        socket.create_connection((patient.host, patient.port), 20) as client,
    ):
        client.sendall(b"\0\0\0\3abc")
        client.settimeout(SOON)
        with pytest.raises(TimeoutError):
            client.recv(1)
        with socket.create_server((LOOPBACK, reserved.number)) as listener:
            accepted = listener.accept()[0]
            with accepted:
                assert accepted.recv(100) == b"\0\0\0\3abc"
    reserved.release()


def test_two_proxies_have_faults_of_their_own(server: ZooKeeperServer, proxy: FaultProxy, connect: Connect) -> None:
    with FaultProxy(proxy) as second:  # one behind the other
        near, far = connect(proxy), connect(second)
        second.cut()
        is_cut(far)
        assert near.exists("/")


def test_an_opaque_proxy_reads_nothing_and_still_cuts(server: ZooKeeperServer, connect: Connect) -> None:
    with FaultProxy(server, opaque=True) as proxy:
        client = connect(proxy)
        assert client.exists("/")
        assert proxy.counts() == {}
        proxy.cut()
        is_cut(client)


def test_a_fault_may_be_set_from_any_thread_while_requests_fly(proxy: FaultProxy, connect: Connect) -> None:
    errors: list[BaseException] = []

    def send() -> None:
        try:
            for _ in range(10):
                try:
                    client = connect(proxy)
                    for _ in range(50):
                        client.exists("/")
                except UnavailableError:
                    continue
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        proxy.cut()
        proxy.refuse()
        proxy.heal()
        proxy.delay(0.001)
        proxy.blackhole()
        proxy.heal()
    assert errors == []


def test_close_cuts_gives_the_port_back_and_is_final(server: ZooKeeperServer, connect: Connect) -> None:
    proxy = FaultProxy(server)
    client = connect(proxy)
    threads = threading.active_count()
    proxy.close()
    proxy.close()
    is_cut(client)
    assert threading.active_count() == threads - 1
    with pytest.raises(RuntimeError, match="closed"):
        proxy.cut()
    with FaultProxy(server, listen_port=proxy.port) as again:
        assert connect(again).exists("/")


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (lambda proxy: proxy.blackhole("up"), "direction"),
        (lambda proxy: proxy.delay(-1), "seconds"),
        (lambda proxy: proxy.delay(float("nan")), "seconds"),
        (lambda proxy: proxy.half_close("both"), "direction"),
        (lambda proxy: proxy.cut("server"), "side"),
        (lambda proxy: proxy.drop_reply("creat"), "creat"),
        (lambda proxy: proxy.hold_reply("create", nth=0), "nth"),
        (lambda proxy: proxy.rewrite(b"a", b"bc"), "same length"),
        (lambda proxy: proxy.retarget("a:1,b:2"), "one server"),
    ],
)
def test_bad_arguments_are_named(proxy: FaultProxy, call: object, names: str) -> None:
    assert callable(call)
    with pytest.raises(ValueError, match=names):
        call(proxy)
