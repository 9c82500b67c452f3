"""TLS, credentials, hosts that cannot be reached, and a kazoo that is new to us."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kazoo.client import KazooClient
from kazoo.protocol.connection import ConnectionHandler

from tests.integration.wire.link import Link, close_in_time, own, wait_done
from zkrecipes.errors import AuthenticationError, UnavailableError
from zkrecipes.port import Acl, Code, Create, Exists, Get
from zkrecipes.testing import Server, ZooKeeperServer, wait_until
from zkrecipes.wire_check import supported_internals
from zkrecipes.wire_public import PublicTransport


@pytest.fixture(scope="module")
def secure_server() -> Iterator[ZooKeeperServer]:
    with ZooKeeperServer(tls=True) as server:
        yield server


def tls(server: ZooKeeperServer, **changes: Any) -> dict[str, Any]:
    assert server.tls is not None
    files = {"ca": str(server.tls.ca), "certfile": str(server.tls.cert), "keyfile": str(server.tls.key)}
    return {"use_ssl": True, "check_hostname": True, **files, **changes}


@pytest.mark.parametrize("internals", [True, False])
def test_tls(*, internals: bool, secure_server: ZooKeeperServer) -> None:
    with own(secure_server.secure_hosts, tls=tls(secure_server), internals=internals) as link:
        data = os.urandom(200_000)
        path = f"/tls-{internals}"
        link.ask(Create(path, data))
        calls = link.send(*[Get(path)] * 20)
        wait_done(*calls)
        assert all(call.result()[0] == data for call in calls)
        link.transport.reconnect()
        link.events.wait_for("connected", 2)
        assert link.ask(Exists(path)) is not None


def fails(link: Link, text: str) -> None:
    link.transport.start()
    try:
        wait_until(lambda: text in link.transport.last_error, 5.0, lambda: f"{text!r} in {link.transport.last_error!r}")
        assert link.events.told == []
    finally:
        close_in_time(link)


def test_a_wrong_ca_is_told(secure_server: ZooKeeperServer) -> None:
    assert secure_server.tls is not None
    wrong = tls(secure_server, ca=str(secure_server.tls.other_ca))
    link = own(secure_server.secure_hosts, tls=wrong)
    fails(link, "certificate of 127.0.0.1")
    assert link.transport.authentication_failed


def test_a_missing_client_certificate_is_told(secure_server: ZooKeeperServer) -> None:
    link = own(secure_server.secure_hosts, tls=tls(secure_server, certfile=None, keyfile=None))
    fails(link, "refused our certificate")
    assert link.transport.authentication_failed


def test_a_plain_client_on_a_tls_port_is_told(secure_server: ZooKeeperServer) -> None:
    fails(own(secure_server.secure_hosts), "expect TLS")


def test_tls_on_a_plain_port_is_told(secure_server: ZooKeeperServer) -> None:
    fails(own(secure_server.hosts, tls=tls(secure_server)), "is it the port for TLS?")


def test_an_unknown_host_is_told() -> None:
    fails(own("no-such-host.invalid:2181"), "host name")


def test_unusable_tls_files_are_refused_at_once(secure_server: ZooKeeperServer, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="tls cannot be used"):
        own(secure_server.secure_hosts, tls=tls(secure_server, ca=str(tmp_path / "none.pem")))
    assert secure_server.tls is not None
    with pytest.raises(ValueError, match="tls cannot be used"):
        own(secure_server.secure_hosts, tls=tls(secure_server, certfile=str(secure_server.tls.ca)))


@pytest.mark.parametrize("hosts", ["", "a:b", "a:2181,,b:2181"])
def test_unreadable_hosts_are_refused_at_once(hosts: str) -> None:
    with pytest.raises(ValueError, match="hosts must be like"):
        own(hosts)


def test_digest_credentials_are_used(zkr_server: Server, root: str) -> None:
    with own(zkr_server.hosts, auth=(("digest", "ann:secret"),)) as link, own(zkr_server.hosts) as stranger:
        link.ask(Create(f"{root}/private", b"x", acl=(Acl(31, "auth", ""),)))
        assert link.ask(Get(f"{root}/private"))[0] == b"x"
        assert stranger.ask(Get(f"{root}/private")) == (Code.NO_AUTH, -1)
        link.transport.reconnect()
        link.events.wait_for("connected", 2)
        assert link.ask(Get(f"{root}/private"))[0] == b"x"


def test_credentials_of_an_unknown_scheme_fail_for_good(zkr_server: Server) -> None:
    link = own(zkr_server.hosts, auth=(("nonsense", "x"),))
    link.transport.start()
    (_, error) = link.events.wait_for("failed")
    assert isinstance(error, AuthenticationError)
    close_in_time(link)


def test_sasl_that_cannot_be_done_fails_for_good(zkr_server: Server) -> None:
    # Without the package pure-sasl, or with a mechanism that it does not know.
    link = own(zkr_server.hosts, sasl={"mechanism": "NONSENSE", "username": "u", "password": "p"})
    link.transport.start()
    (_, error) = link.events.wait_for("failed")
    assert isinstance(error, AuthenticationError | UnavailableError)
    assert error.__cause__ is not None
    close_in_time(link)


@pytest.fixture(scope="module")
def sasl_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZooKeeperServer]:
    pytest.importorskip("puresasl", reason="pure-sasl is not installed (extra sasl)")
    jaas = tmp_path_factory.mktemp("sasl") / "jaas.conf"
    jaas.write_text(
        'Server {\n  org.apache.zookeeper.server.auth.DigestLoginModule required\n  user_ann="secret";\n};\n'
    )
    provider = {"authProvider.1": "org.apache.zookeeper.server.auth.SASLAuthenticationProvider"}
    options = [f"-Djava.security.auth.login.config={jaas}"]
    with ZooKeeperServer(properties=provider, java_options=options) as server:
        yield server


def sasl(password: str) -> dict[str, str]:
    return {"mechanism": "DIGEST-MD5", "username": "ann", "password": password, "principal": "zk-sasl-md5"}


@pytest.mark.parametrize("internals", [True, False])
def test_sasl(*, internals: bool, sasl_server: ZooKeeperServer) -> None:
    with own(sasl_server.hosts, sasl=sasl("secret"), internals=internals) as link:
        path = f"/sasl-{internals}"
        link.ask(Create(path, b"x", acl=(Acl(31, "sasl", "ann"),)))
        assert link.ask(Get(path))[0] == b"x"
        link.transport.reconnect()
        link.events.wait_for("connected", 2)
        assert link.ask(Get(path))[0] == b"x"


def test_a_wrong_sasl_password_fails_for_good(sasl_server: ZooKeeperServer) -> None:
    link = own(sasl_server.hosts, sasl=sasl("wrong"))
    link.transport.start()
    try:
        (_, error) = link.events.wait_for("failed")
        assert isinstance(error, AuthenticationError)
    finally:
        close_in_time(link)


def test_this_kazoo_is_known() -> None:
    assert supported_internals(KazooClient())


def test_an_unknown_kazoo_is_used_by_its_public_api(zkr_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    class Changed(ConnectionHandler):  # type: ignore[misc]
        def _submit(self, request: Any, timeout: float, xid: int | None = None) -> None:
            """Writes nothing."""

    monkeypatch.setattr("kazoo.client.ConnectionHandler", Changed)
    assert not supported_internals(KazooClient())
    link = own(zkr_server.hosts)
    assert isinstance(link.transport, PublicTransport)


def test_a_kazoo_whose_events_take_another_way_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    read = ConnectionHandler._read_watch_event

    class Changed(ConnectionHandler):  # type: ignore[misc]
        def _read_socket(self, read_timeout: float) -> Any:
            header, buffer, offset = self._read_header(read_timeout)
            if header.xid == -1:
                return read(self, buffer, offset)
            return self._read_response(header, buffer, offset)

    monkeypatch.setattr("kazoo.client.ConnectionHandler", Changed)
    assert not supported_internals(KazooClient())


def test_a_missing_attribute_is_noticed() -> None:
    kazoo = KazooClient()
    del kazoo._connection._connection_routine
    assert not supported_internals(kazoo)


def test_the_setting_chooses_the_public_api(zkr_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZKRECIPES_WIRE", "public")
    with own(zkr_server.hosts) as link:
        assert isinstance(link.transport, PublicTransport)
        assert link.ask(Exists("/")) is not None
