from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
from kazoo.client import KazooClient

from tests.testing.conftest import Connect
from zkrecipes.errors import UnavailableError
from zkrecipes.testing import RawClient, ServerStartError, ZooKeeperServer, wait_until
from zkrecipes.testing.ports import reserve_port
from zkrecipes.testing.raw import EPHEMERAL

pytestmark = pytest.mark.server

_CHILD: Final = """
import os, sys, threading
from zkrecipes.testing import ZooKeeperServer
server = ZooKeeperServer()
# Started on a thread that ends: it is the process that must not be outlived.
thread = threading.Thread(target=server.start)
thread.start()
thread.join()
if sys.argv[1] == "fork" and not os.fork():
    sys.stdin.read()  # a grandchild that lives on, and holds what its parent had open
    os._exit(0)
print(server.pid, server.log.parent, flush=True)
if sys.argv[1] != "exit":
    threading.Event().wait()
"""


def _alive(pid: int) -> bool:
    try:
        # A zombie has a process id and no command line.
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return False


def _node(path: str) -> str:
    """A path that no other test uses: the server is shared."""
    return f"/{path}-{os.urandom(6).hex()}"


def test_it_serves_when_start_returns(server: ZooKeeperServer, connect: Connect) -> None:
    assert server.hosts == f"127.0.0.1:{server.port}"
    assert server.command("ruok") == "imok"
    assert connect(server).create(_node("a")).error == 0


def test_metrics_are_numbers_where_they_can_be(server: ZooKeeperServer) -> None:
    metrics = server.metrics()
    assert metrics["zk_server_state"] == "standalone"
    assert isinstance(metrics["zk_znode_count"], int)


def test_restart_keeps_port_and_data(server: ZooKeeperServer, connect: Connect) -> None:
    port, path = server.port, _node("kept")
    connect(server).create(path)
    old = server.pid
    server.restart()
    assert server.port == port
    assert server.pid != old
    assert connect(server).exists(path)


def test_after_stop_and_kill_nobody_listens_and_start_brings_the_data_back(
    server: ZooKeeperServer, connect: Connect
) -> None:
    path = _node("kept")
    connect(server).create(path)
    for end in (server.stop, server.kill):
        end()
        assert server.pid is None
        with pytest.raises(UnavailableError):
            connect(server)
        end()
        server.start()
        assert connect(server).exists(path)


def test_a_paused_server_takes_connections_and_answers_nothing(server: ZooKeeperServer, connect: Connect) -> None:
    client = connect(server)
    server.pause()
    assert server.paused
    client.send("sync", b"\0\0\0\1/")
    with pytest.raises(UnavailableError, match="timed out"):
        server.command("ruok", timeout=0.2)
    server.resume()
    assert client.receive().error == 0


def test_a_paused_server_can_be_stopped(server: ZooKeeperServer) -> None:
    server.pause()
    server.stop()
    assert server.pid is None
    assert not server.paused


def test_pause_of_a_stopped_server_says_what_to_do(server: ZooKeeperServer) -> None:
    server.stop()
    with pytest.raises(RuntimeError, match="start it first"):
        server.pause()


def test_expire_ends_the_session_with_its_ephemeral_nodes(server: ZooKeeperServer, connect: Connect) -> None:
    mine, other, path = connect(server), connect(server), _node("mine")
    mine.create(path, flags=EPHEMERAL)
    server.expire(mine)
    assert not other.exists(path)
    assert connect(server, session=mine.client_id).session_id == 0
    with pytest.raises(UnavailableError):
        mine.exists("/")


def test_expire_reaches_a_real_client_which_is_told(server: ZooKeeperServer) -> None:
    states: list[str] = []
    kazoo = KazooClient(server.hosts, timeout=30)
    kazoo.add_listener(states.append)
    kazoo.start()
    try:
        old = kazoo.client_id
        server.expire(kazoo)
        wait_until(lambda: "LOST" in states, 20, "kazoo is told that its session expired")
        wait_until(lambda: kazoo.connected and kazoo.client_id != old, 20, "kazoo has a new session")
    finally:
        kazoo.stop()
        kazoo.close()


def test_expire_takes_a_pair_and_refuses_what_has_no_session(server: ZooKeeperServer, connect: Connect) -> None:
    client = connect(server)
    server.expire(client.client_id)
    assert connect(server, session=client.client_id).session_id == 0
    with pytest.raises(ValueError, match="no session"):
        server.expire(KazooClient(server.hosts))


def test_properties_reach_the_server_and_java(installed: None, connect: Connect) -> None:
    properties = {"extendedTypesEnabled": "true", "minSessionTimeout": 3000, "znode.container.checkIntervalMs": 100}
    with ZooKeeperServer(properties=properties, tick_time=0.2) as server:
        configuration = server.command("conf")
        assert "tickTime=200" in configuration
        assert "minSessionTimeout=3000" in configuration
        # The server answers before it has said all that it says while it starts.
        wait_until(lambda: "Using checkIntervalMs=100" in server.log.read_text(), 5.0, "the interval is in the log")
        assert connect(server, timeout=0.5).session_timeout == 3.0


def test_a_port_and_a_directory_of_the_caller_are_used_and_kept(installed: None, tmp_path: Path) -> None:
    reserved = reserve_port()
    data = tmp_path / "data"
    with ZooKeeperServer(port=reserved.number, data=data) as server:
        assert server.port == reserved.number
        assert server.data == data
    assert list(data.iterdir())
    reserved.release()


def test_a_port_that_is_taken_is_told_with_the_log(installed: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = ZooKeeperServer(port=taken.getsockname()[1])
        try:
            with pytest.raises(ServerStartError, match="Address already in use"):
                server.start()
            assert server.pid is None
        finally:
            server.close()


def test_a_port_that_is_taken_while_we_start_is_replaced(installed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        first = [number]

        def reserve() -> object:
            reserved = reserve_port()
            if first:
                reserved.number = first.pop()
            return reserved

        monkeypatch.setattr("zkrecipes.testing.process.reserve_port", reserve)
        with ZooKeeperServer() as server:
            assert server.port != number
            assert server.serves()


def test_a_bad_property_fails_the_start_with_the_log(installed: None) -> None:
    server = ZooKeeperServer(properties={"tickTime": "soon"})
    with pytest.raises(ServerStartError, match="NumberFormatException"):
        server.start()
    server.close()


def test_close_leaves_nothing_and_is_final(installed: None) -> None:
    server = ZooKeeperServer().start()
    pid, home = server.pid, server.log.parent
    assert pid is not None
    server.close()
    server.close()
    assert not _alive(pid)
    assert not home.exists()
    with pytest.raises(RuntimeError, match="is closed"):
        server.start()


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # the child does nothing but what is shown
def test_a_forked_child_does_not_close_what_is_its_parents(server: ZooKeeperServer) -> None:
    child = os.fork()
    if not child:
        try:
            server.close()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert server.log.exists()
    assert server.serves()


def test_methods_may_be_called_from_many_threads(installed: None) -> None:
    with ZooKeeperServer() as server:
        verbs: list[Callable[[], object]] = [server.restart, server.stop, server.kill, server.start]
        threads = [threading.Thread(target=verb) for verb in verbs * 2]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)
        server.start()
        assert server.command("ruok") == "imok"


@pytest.mark.parametrize("end", ["kill", "fork", "exit"])
def test_server_and_directory_die_with_the_process_that_started_it(installed: None, end: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _CHILD, end], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        try:
            pid, home = child.stdout.readline().split()
            assert end == "exit" or _alive(int(pid))
        finally:
            if end != "exit":
                child.send_signal(signal.SIGKILL)
        wait_until(lambda: not _alive(int(pid)), 10, "Java is dead")
        wait_until(lambda: not Path(home).exists(), 10, "its directory is gone")


def test_tls_serves_clients_that_trust_the_ca_and_no_others(installed: None) -> None:
    with ZooKeeperServer(tls=True) as server:
        files = server.tls
        assert files is not None
        assert server.command("ruok") == "imok"  # the plain port serves beside it
        kazoo = KazooClient(
            server.secure_hosts, use_ssl=True, ca=str(files.ca), certfile=str(files.cert), keyfile=str(files.key)
        )
        kazoo.start()
        try:
            server.expire(kazoo)
            wait_until(lambda: kazoo.connected, 20, "kazoo comes back over TLS")
        finally:
            kazoo.stop()
            kazoo.close()

        host, port = server.secure_hosts.split(":")
        wrong = ssl.create_default_context(cafile=files.other_ca)
        with socket.create_connection((host, int(port))) as raw, pytest.raises(ssl.SSLCertVerificationError):
            wrong.wrap_socket(raw, server_hostname="127.0.0.1")
        with pytest.raises(UnavailableError):
            RawClient((host, int(port)))  # a plain client
