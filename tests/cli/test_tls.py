"""The command line over TLS."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest

from tests.cli.conftest import Cli
from zkrecipes.testing import ZooKeeperServer

PATH: Final = "/locks/job"

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def server() -> Iterator[ZooKeeperServer]:
    with ZooKeeperServer(tls=True) as server:
        yield server


def test_a_lock_over_tls(server: ZooKeeperServer) -> None:
    assert server.tls is not None
    files = {"--tls-ca": server.tls.ca, "--tls-cert": server.tls.cert, "--tls-key": server.tls.key}
    options = [str(part) for pair in files.items() for part in pair]
    cli = Cli(server.secure_hosts, "")
    ended = cli.run(*options, "lock", "run", PATH, "--", "sh", "-c", "exit 4")
    assert ended.returncode == 4, ended.stderr
    examined = cli.run(*options, "doctor", PATH)
    assert examined.returncode == 0
    assert "not used here (TLS)" in examined.stdout


def test_a_ca_that_did_not_sign_is_refused(server: ZooKeeperServer) -> None:
    assert server.tls is not None
    ended = Cli(server.secure_hosts, "").run("--tls-ca", str(server.tls.other_ca), "lock", "show", PATH)
    assert ended.returncode == 77, ended


def test_plain_on_the_tls_port_says_no_more_than_it_knows(server: ZooKeeperServer) -> None:
    ended = Cli(server.secure_hosts, "").run("--connect-timeout", "2", "lock", "show", PATH)
    assert ended.returncode in {69, 77}, ended
    assert "Traceback" not in ended.stderr
