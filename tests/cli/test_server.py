"""`zkrecipes server`."""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path

import pytest

import zkrecipes as zkr
from tests.cli.conftest import Cli, alive
from zkrecipes.testing import wait_until


def listens(hosts: str) -> bool:
    host, _, port = hosts.rpartition(":")
    try:
        socket.create_connection((host, int(port)), 1.0).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_interrupted(cli: Cli, number: signal.Signals) -> None:
    process = cli.start("server", "--port", "0", "--json")
    assert process.stdout is not None
    told = json.loads(process.stdout.readline())
    with zkr.connect(told["hosts"]) as zk, zkr.Lock(zk, "/x"):
        pass
    process.send_signal(number)
    assert process.wait(15) == 0
    assert not listens(told["hosts"])
    assert not alive(told["pid"])


def test_killed_it_takes_the_server_along(cli: Cli) -> None:
    process = cli.start("server", "--port", "0", "--json")
    assert process.stdout is not None
    told = json.loads(process.stdout.readline())
    process.kill()
    wait_until(lambda: not alive(told["pid"]), 10.0, "the server ends")


def test_data_that_is_kept(cli: Cli, tmp_path: Path) -> None:
    for kept in (None, b"kept"):
        process = cli.start("server", "--port", "0", "--data", str(tmp_path / "data"))
        assert process.stdout is not None
        first, second = process.stdout.readline(), process.stdout.readline()
        assert str(tmp_path) in first
        with zkr.connect(second.rpartition("=")[2].strip()) as zk:
            assert (zk.get("/x").value if zk.exists("/x") else None) == kept
            if kept is None:
                zk.create("/x", b"kept")
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0


def test_a_server_that_dies_is_told(cli: Cli) -> None:
    process = cli.start("server", "--port", "0", "--json")
    assert process.stdout is not None
    signal_server = json.loads(process.stdout.readline())["pid"]
    os.kill(signal_server, signal.SIGKILL)
    assert process.wait(15) == 69


def test_a_port_that_is_taken(cli: Cli) -> None:
    ended = cli.run("server", "--port", cli.hosts.rpartition(":")[2])
    assert ended.returncode == 69
    assert "--port" in ended.stderr
