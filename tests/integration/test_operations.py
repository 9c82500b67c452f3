"""The client's operations: what they do, how they are refused, and what errors tell."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

import zkrecipes as zkr
from zkrecipes.testing import FaultProxy, Server, wait_until


@pytest.fixture
def bare(zkr_server: Server) -> Iterator[zkr.Client]:
    """A client without a namespace."""
    with zkr.connect(zkr_server.hosts) as client:
        yield client


# --- nodes ------------------------------------------------------------------------------------------------------------


def test_create_get_set_delete(zkr_client: zkr.Client) -> None:
    assert zkr_client.create("/a", b"one") == "/a"
    node = zkr_client.get("/a")
    assert (node.path, node.value, node.stat.version, node.stat.data_length) == ("/a", b"one", 0, 3)
    stat = zkr_client.set("/a", b"three")
    assert (stat.version, stat.data_length, stat.czxid) == (1, 5, node.stat.czxid)
    assert zkr_client.exists("/a") == stat
    zkr_client.delete("/a")
    assert zkr_client.exists("/a") is None


def test_data_of_any_kind_of_bytes(zkr_client: zkr.Client) -> None:
    for data in (b"", bytes(range(256)), bytearray(b"array"), memoryview(b"view")):
        zkr_client.create("/data", data)  # type: ignore[arg-type]  # what Python takes for bytes elsewhere
        assert zkr_client.get("/data").value == bytes(data)
        zkr_client.delete("/data")


def test_kinds_of_nodes(zkr_server: Server, zkr_namespace: str, zkr_client: zkr.Client) -> None:
    with zkr.connect(zkr_server.hosts, namespace=zkr_namespace) as other:
        other.create("/ephemeral", kind=zkr.Kind.EPHEMERAL)
        other.create("/persistent", kind=zkr.Kind.PERSISTENT)
        other.create("/container", kind=zkr.Kind.CONTAINER)
        assert zkr_client.get("/ephemeral").stat.ephemeral_owner == other.session_id
        assert zkr_client.children("/") == ["container", "ephemeral", "persistent"]
    wait_until(lambda: "ephemeral" not in zkr_client.children("/"), 5.0, "it went with its session")
    zkr_client.create("/e", kind=zkr.Kind.EPHEMERAL)
    with pytest.raises(zkr.ZkRecipesError, match="ephemeral"):
        zkr_client.create("/e/child")


def test_sequential_nodes(zkr_client: zkr.Client) -> None:
    zkr_client.create("/line")
    made = [zkr_client.create("/line/n-", sequential=True) for _ in range(3)]
    assert made == [f"/line/n-{number:010}" for number in range(3)]
    assert zkr_client.create("/line/e-", sequential=True, kind=zkr.Kind.EPHEMERAL) == "/line/e-0000000003"
    assert zkr_client.children("/line") == ["e-0000000003", "n-0000000000", "n-0000000001", "n-0000000002"]


def test_parents(zkr_client: zkr.Client) -> None:
    with pytest.raises(zkr.NodeNotFoundError, match="/a/b/c") as raised:
        zkr_client.create("/a/b/c", b"deep")
    assert raised.value.path == "/a/b/c"
    assert zkr_client.create("/a/b/c", b"deep", parents=True) == "/a/b/c"
    assert zkr_client.create("/a/b/d", parents=True) == "/a/b/d"
    assert zkr_client.get("/a/b").value == b""
    assert zkr_client.create("/x/y/n-", parents=True, sequential=True) == "/x/y/n-0000000000"


def test_sync_makes_reads_the_newest(zkr_client: zkr.Client) -> None:
    zkr_client.sync()
    zkr_client.sync("/nothing/there")
    zkr_client.create("/a")
    zkr_client.sync("/a", timeout=5.0)


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_what_is_not_there(zkr_client: zkr.Client) -> None:
    calls: list[Callable[[], object]] = [
        lambda: zkr_client.get("/no"),
        lambda: zkr_client.children("/no"),
        lambda: zkr_client.set("/no", b""),
        lambda: zkr_client.delete("/no"),
    ]
    for call in calls:
        with pytest.raises(zkr.NodeNotFoundError, match="/no") as raised:
            call()
        assert raised.value.path == "/no"
        assert isinstance(raised.value, zkr.ZkRecipesError)
    assert zkr_client.exists("/no") is None


def test_what_is_there_already(zkr_client: zkr.Client) -> None:
    zkr_client.create("/a", b"first")
    for parents in (False, True):
        with pytest.raises(zkr.NodeExistsError) as raised:
            zkr_client.create("/a", b"second", parents=parents)
        assert raised.value.path == "/a"
    assert zkr_client.get("/a").value == b"first"


def test_versions(zkr_client: zkr.Client) -> None:
    zkr_client.create("/a")
    stat = zkr_client.set("/a", b"one", version=0)
    with pytest.raises(zkr.ConflictError) as raised:
        zkr_client.set("/a", b"stale", version=0)
    assert (raised.value.path, raised.value.expected) == ("/a", 0)
    with pytest.raises(zkr.ConflictError) as raised:
        zkr_client.delete("/a", version=0)
    assert raised.value.expected == 0
    assert zkr_client.get("/a").value == b"one"
    zkr_client.delete("/a", version=stat.version)


def test_a_node_with_children_is_not_deleted(zkr_client: zkr.Client) -> None:
    zkr_client.create("/a/b", parents=True)
    with pytest.raises(zkr.NotEmptyError) as raised:
        zkr_client.delete("/a")
    assert raised.value.path == "/a"
    zkr_client.delete("/a/b")
    zkr_client.delete("/a")


# --- sizes ------------------------------------------------------------------------------------------------------------


def test_what_is_too_large_never_leaves(zkr_proxy: FaultProxy, zkr_client: zkr.Client) -> None:
    zkr_client.create("/a", b"small")
    held = zkr.Lock(zkr_client, "/lock").acquire(5.0)
    states: list[zkr.State] = []
    zkr_client.on_state(states.append)
    session = zkr_client.session_id
    zkr_proxy.reset_counts()
    big = b"x" * 2_000_000
    tx = zkr_client.transaction()
    for _ in range(4):
        tx.set("/a", b"x" * 300_000)
    for call in (lambda: zkr_client.set("/a", big), lambda: zkr_client.create("/b", big), tx.commit):
        with pytest.raises(zkr.PayloadTooLargeError, match="nothing was sent") as raised:
            call()
        assert raised.value.size > raised.value.limit
    counts = zkr_proxy.counts()
    assert counts["setData"] + counts["create"] + counts["create2"] == 0
    assert zkr_client.get("/a").value == b"small"
    assert zkr_client.session_id == session
    assert held.valid
    assert states == []


def test_the_largest_that_is_taken_is_taken(zkr_client: zkr.Client) -> None:
    """The guard refuses nothing that is far from the limit, and what it lets through the server takes."""
    sizes = [1_000_000]
    with pytest.raises(zkr.PayloadTooLargeError) as raised:
        zkr_client.create("/a", b"x" * 2_000_000)
    sizes.append(raised.value.limit - 2 * (raised.value.size - 2_000_000))
    for size in sizes:
        zkr_client.create("/a", b"x" * size)
        assert zkr_client.get("/a").stat.data_length == size
        zkr_client.delete("/a")


# --- namespaces -------------------------------------------------------------------------------------------------------


def test_paths_are_told_as_the_caller_wrote_them(
    zkr_server: Server, zkr_namespace: str, bare: zkr.Client, zkr_client: zkr.Client
) -> None:
    assert zkr_client.create("/a/n-", sequential=True, parents=True) == "/a/n-0000000000"
    assert bare.children(zkr_namespace) == ["a"]
    assert bare.children(f"{zkr_namespace}/a") == ["n-0000000000"]
    assert zkr_client.children("/") == ["a"]
    assert zkr_client.get("/a").path == "/a"
    errors: list[zkr.ZkRecipesError] = []
    for call in (
        lambda: zkr_client.get("/no"),
        lambda: zkr_client.create("/a"),
        lambda: zkr_client.delete("/a"),
        lambda: zkr_client.set("/a", b"", version=7),
    ):
        with pytest.raises(zkr.ZkRecipesError) as raised:
            call()
        errors.append(raised.value)
    tx = zkr_client.transaction()
    tx.create("/a")
    with pytest.raises(zkr.TransactionError) as refused:
        tx.commit()
    errors.append(refused.value)
    lock = zkr.Lock(zkr_client, "/lock")
    with lock.acquire(5.0), pytest.raises(zkr.AcquireTimeoutError) as late:
        lock.acquire(0.1)
    errors.append(late.value)
    for error in errors:
        assert zkr_namespace not in str(error), error
        assert zkr_namespace not in error.path
        assert error.path.startswith("/")


def test_a_namespace_is_made_when_it_is_needed(zkr_server: Server, zkr_namespace: str, bare: zkr.Client) -> None:
    deep = f"{zkr_namespace}/deep/down"
    with zkr.connect(zkr_server.hosts, namespace=deep) as zk:
        assert bare.children(zkr_namespace) == []
        with pytest.raises(zkr.NodeNotFoundError):
            zk.children("/")
        zk.create("/a")
        assert bare.children(deep) == ["a"]
        with pytest.raises(zkr.NodeNotFoundError):
            zk.create("/b/c")
    with zkr.connect(zkr_server.hosts, namespace=f"{zkr_namespace}/locks") as zk:
        zkr.Lock(zk, "/l").acquire(5.0).release()
        assert zk.children("/") == ["l"]


def test_two_namespaces_do_not_meet(zkr_server: Server, zkr_namespace: str) -> None:
    with (
        zkr.connect(zkr_server.hosts, namespace=f"{zkr_namespace}/one") as one,
        zkr.connect(zkr_server.hosts, namespace=f"{zkr_namespace}/two") as two,
    ):
        held = zkr.Lock(one, "/lock").acquire(5.0)
        assert zkr.Lock(two, "/lock").try_acquire() is not None
        assert held.valid


# --- outages ----------------------------------------------------------------------------------------------------------


def test_reads_wait_for_the_server_and_end_by_their_deadline(zkr_proxy: FaultProxy, zkr_client: zkr.Client) -> None:
    zkr_client.create("/a")
    zkr_proxy.refuse()
    wait_until(lambda: zkr_client.state is not zkr.State.CONNECTED, 5.0, "suspended")
    for call in (lambda: zkr_client.get("/a", timeout=0.3), lambda: zkr_client.set("/a", b"no", timeout=0.3)):
        began = time.monotonic()
        with pytest.raises(zkr.UnavailableError, match="nothing was written"):
            call()
        assert 0.25 < time.monotonic() - began < 0.6
    zkr_proxy.heal()
    assert zkr_client.get("/a").stat.version == 0, "what was told to have failed never appears"


def test_a_lost_reply_of_a_write_is_told_as_unknown(zkr_proxy: FaultProxy, zkr_client: zkr.Client) -> None:
    zkr_client.create("/a")
    trap = zkr_proxy.drop_reply("setData")
    with pytest.raises(zkr.OutcomeUnknownError) as raised:
        zkr_client.set("/a", b"perhaps", timeout=5.0)
    assert raised.value.path == "/a"
    assert not isinstance(raised.value, zkr.UnavailableError)
    trap.wait(5.0)
    node = zkr_client.get("/a")
    assert (node.value, node.stat.version) == (b"perhaps", 1), "applied once, not repeated"


def test_a_lost_reply_of_a_read_is_asked_again(zkr_proxy: FaultProxy, zkr_client: zkr.Client) -> None:
    zkr_client.create("/a", b"x")
    zkr_proxy.drop_reply("getData")
    assert zkr_client.get("/a", timeout=5.0).value == b"x"


def test_a_silent_server_does_not_outlive_a_deadline(zkr_server: Server, zkr_client: zkr.Client) -> None:
    zkr_client.create("/a")
    zkr_server.pause()
    try:
        began = time.monotonic()
        with pytest.raises(zkr.OutcomeUnknownError):
            zkr_client.set("/a", b"sent", timeout=0.5)
        with pytest.raises(zkr.UnavailableError):
            zkr_client.get("/a", timeout=0.5)
        assert time.monotonic() - began < 1.5
    finally:
        zkr_server.resume()
