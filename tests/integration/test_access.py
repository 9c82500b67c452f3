"""ACLs, credentials and TLS, as a user of `connect` meets them."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Final

import pytest
from kazoo.client import KazooClient

import zkrecipes as zkr
import zkrecipes.aio as zkr_aio
from tests.leftovers import Leftovers
from zkrecipes.testing import FaultProxy, Server, ZooKeeperServer, wait_until

ANN: Final = zkr.DigestAuth("ann", "secret")
OWNER: Final = (zkr.Acl(31, "auth", ""),)


@pytest.fixture
def home() -> str:
    """A namespace of its own, which only Ann could clear away; it goes with the server."""
    return f"/access-{uuid.uuid4().hex}/home"


@pytest.fixture
def ann(zkr_server: Server, home: str) -> Iterator[zkr.Client]:
    """A client that keeps its nodes to itself."""
    with zkr.connect(zkr_server.hosts, namespace=home, auth=ANN, acl=OWNER) as client:
        yield client


@pytest.fixture
def stranger(zkr_server: Server, home: str) -> Iterator[zkr.Client]:
    with zkr.connect(zkr_server.hosts, namespace=home) as client:
        yield client


@pytest.fixture
def raw(zkr_server: Server) -> Iterator[KazooClient]:
    """For what our client does not tell: the ACL of a node. With Ann's credentials."""
    client = KazooClient(zkr_server.hosts)
    client.start()
    client.add_auth("digest", "ann:secret")
    yield client
    client.stop()
    client.close()


# --- ACLs -------------------------------------------------------------------------------------------------------------


def test_the_clients_acl_is_on_all_it_makes(ann: zkr.Client, raw: KazooClient, home: str) -> None:
    ann.create("/data/deep", b"x", parents=True)
    with ann.transaction() as tx:
        tx.create("/data/tx")
    election = zkr.Election(ann, "/made/for/office", data=b"proclaimed")
    with zkr.Lock(ann, "/made/for/lock").acquire(5.0), election.campaign(5.0):
        lock, office = f"{home}/made/for/lock", f"{home}/made/for/office"
        nodes = [home.rpartition("/")[0], home, f"{home}/data", f"{home}/data/deep", f"{home}/data/tx"]
        nodes += [f"{home}/made", f"{home}/made/for", lock, office, f"{office}-proclaimed"]
        nodes += [f"{path}/{name}" for path in (lock, office) for name in raw.get_children(path)]
        for node in nodes:
            (entry,), _ = raw.get_acls(node)
            assert (entry.perms, entry.id.scheme, entry.id.id.partition(":")[0]) == (31, "digest", "ann"), node
        assert len(nodes) == 12


def test_an_acl_for_one_node_goes_before_the_clients(ann: zkr.Client, stranger: zkr.Client) -> None:
    ann.create("/private", b"x", parents=True)
    ann.create("/public", b"x", acl=[zkr.Acl(1, "world", "anyone"), *OWNER])
    assert stranger.get("/public").value == b"x"
    with pytest.raises(zkr.AccessDeniedError):
        stranger.set("/public", b"y")
    with pytest.raises(zkr.AccessDeniedError):
        stranger.get("/private")


def test_a_wrong_password_is_denied_access(
    zkr_server: Server, home: str, ann: zkr.Client, stranger: zkr.Client
) -> None:
    ann.create("/a", b"x")
    zkr.Lock(ann, "/lock").acquire(5.0).release()
    impostor = zkr.DigestAuth("ann", "guess")
    with zkr.connect(zkr_server.hosts, namespace=home, auth=impostor) as wrong:
        for zk in (wrong, stranger):
            for number, call in enumerate(_calls(zk)):
                with pytest.raises(zkr.AccessDeniedError) as raised:
                    call()
                assert raised.value.path.startswith("/"), number
                assert home not in str(raised.value)
            tx = zk.transaction()
            tx.set("/a", b"y")
            with pytest.raises(zkr.TransactionError) as refused:
                tx.commit()
            assert isinstance(refused.value.__cause__, zkr.AccessDeniedError)
    assert ann.children("/") == ["a", "lock"]
    assert ann.children("/lock") == []


def _calls(zk: zkr.Client) -> list[Callable[[], object]]:
    lock, office = zkr.Lock(zk, "/lock"), zkr.Election(zk, "/office")
    return [
        *(lambda: zk.get("/a"), lambda: zk.set("/a", b""), lambda: zk.children("/a")),
        *(lambda: zk.create("/b"), lambda: zk.delete("/a"), lambda: zk.create("/b/c", parents=True)),
        *(lambda: lock.acquire(5.0), lock.try_acquire, lambda: office.campaign(5.0), lock.contenders),
    ]


def test_several_credentials(zkr_server: Server, home: str, ann: zkr.Client) -> None:
    ann.create("/a", b"x")
    both = (zkr.DigestAuth("bob", "other"), ANN)
    with zkr.connect(zkr_server.hosts, namespace=home, auth=both) as zk:
        assert zk.get("/a").value == b"x"


def test_credentials_hold_over_a_reconnect_and_a_new_session(zkr_server: Server, ann: zkr.Client) -> None:
    ann.create("/a", b"x")
    session = ann.session_id
    zkr_server.expire(ann)
    wait_until(lambda: ann.session_id not in {0, session}, 15.0, "a new session")
    assert ann.get("/a").value == b"x"
    with zkr.Lock(ann, "/lock").acquire(5.0) as held:
        assert held.valid


def test_a_lock_under_an_owners_acl_excludes(zkr_server: Server, home: str, ann: zkr.Client) -> None:
    with zkr.connect(zkr_server.hosts, namespace=home, auth=ANN, acl=OWNER) as again:
        held = zkr.Lock(ann, "/lock").acquire(5.0)
        assert zkr.Lock(again, "/lock").try_acquire() is None
        held.release()
        assert zkr.Lock(again, "/lock").acquire(5.0).token > held.token


# --- SASL -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sasl_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZooKeeperServer]:
    pytest.importorskip("puresasl", reason="pure-sasl is not installed (extra sasl)")
    jaas = tmp_path_factory.mktemp("sasl") / "jaas.conf"
    jaas.write_text(
        'Server {\n  org.apache.zookeeper.server.auth.DigestLoginModule required\n  user_ann="secret";\n};\n'
    )
    provider = {"authProvider.1": "org.apache.zookeeper.server.auth.SASLAuthenticationProvider"}
    with ZooKeeperServer(properties=provider, java_options=[f"-Djava.security.auth.login.config={jaas}"]) as server:
        yield server


def test_sasl_digest(sasl_server: ZooKeeperServer) -> None:
    acl = [zkr.Acl(31, "sasl", "ann")]
    with zkr.connect(sasl_server.hosts, auth=zkr.SaslDigest("ann", "secret"), acl=acl) as zk:
        zk.create("/a", b"x")
        session = zk.session_id
        with zkr.Lock(zk, "/lock").acquire(5.0) as held:
            assert held.valid
        sasl_server.expire(zk)
        wait_until(lambda: zk.session_id not in {0, session}, 15.0, "a new session")
        assert zk.get("/a").value == b"x"
        with zkr.connect(sasl_server.hosts) as stranger, pytest.raises(zkr.AccessDeniedError):
            stranger.get("/a")


@pytest.mark.parametrize("auth", [zkr.SaslDigest("ann", "guess"), zkr.SaslDigest("bob", "guess")], ids=["pw", "user"])
def test_refused_sasl_credentials_are_told_soon(sasl_server: ZooKeeperServer, auth: zkr.SaslDigest) -> None:
    left = Leftovers()
    began = time.monotonic()
    with pytest.raises(zkr.AuthenticationError) as raised:
        zkr.connect(sasl_server.hosts, auth=auth).close()
    assert time.monotonic() - began < 2.0
    assert auth.password not in str(raised.value)
    assert "()" not in str(raised.value)
    left.none()


def test_a_connection_that_ends_in_the_midst_of_sasl_is_no_refusal(sasl_server: ZooKeeperServer) -> None:
    """These credentials were good before: the client comes back, as after any other cut."""
    with (
        FaultProxy(sasl_server) as proxy,
        zkr.connect(proxy.hosts, auth=zkr.SaslDigest("ann", "secret"), session_timeout=20.0) as zk,
    ):
        session = zk.session_id
        trap = proxy.drop_reply("sasl")
        proxy.cut()
        trap.wait(10.0)
        wait_until(lambda: zk.health().ok, 10.0, lambda: f"connected again: {zk.health()}")
        assert zk.session_id == session
        assert zk.exists("/", timeout=5.0) is not None


# --- TLS --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def secure_server() -> Iterator[ZooKeeperServer]:
    with ZooKeeperServer(tls=True) as server:
        yield server


def _tls(server: ZooKeeperServer, *, other_ca: bool = False, cert: bool = True) -> zkr.Tls:
    files = server.tls
    assert files is not None
    ca = files.other_ca if other_ca else files.ca
    return zkr.Tls(ca=ca, cert=files.cert, key=files.key) if cert else zkr.Tls(ca=ca)


def test_tls(secure_server: ZooKeeperServer) -> None:
    tls = _tls(secure_server)
    with zkr.connect(secure_server.secure_hosts, tls=tls, namespace="/tls") as zk:
        with zkr.Lock(zk, "/lock").acquire(5.0) as held:
            assert held.valid
        zk.create("/a", b"x" * 200_000)
        assert zk.get("/a").value == b"x" * 200_000

    async def main() -> None:
        async with zkr_aio.connect(secure_server.secure_hosts, tls=tls, namespace="/tls") as zk:
            assert (await zk.get("/a")).stat.data_length == 200_000

    asyncio.run(main())


@pytest.mark.parametrize("wrong", ["ca", "certificate"])
def test_refused_certificates_are_told_soon(secure_server: ZooKeeperServer, wrong: str) -> None:
    tls = _tls(secure_server, other_ca=wrong == "ca", cert=wrong != "certificate")
    left = Leftovers()
    began = time.monotonic()
    with pytest.raises(zkr.AuthenticationError, match="certificate"):
        zkr.connect(secure_server.secure_hosts, tls=tls, connect_timeout=10.0).close()
    assert time.monotonic() - began < 2.0
    left.none()


def test_a_plain_client_on_the_tls_port(secure_server: ZooKeeperServer) -> None:
    left = Leftovers()
    with pytest.raises(zkr.UnavailableError, match="TLS"):
        zkr.connect(secure_server.secure_hosts, connect_timeout=1.0)
    left.none()


def test_tls_on_the_plain_port(secure_server: ZooKeeperServer) -> None:
    left = Leftovers()
    with pytest.raises(zkr.UnavailableError, match="TLS"):
        zkr.connect(secure_server.hosts, tls=_tls(secure_server), connect_timeout=1.0)
    left.none()
