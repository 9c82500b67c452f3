"""The reply of each request lost in turn: the result tells the truth, nothing is left, nothing appears later."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

import zkrecipes as zkr
from tests.faults.contest import linger
from zkrecipes.runtime import monotonic
from zkrecipes.testing import FaultProxy, ZooKeeperServer, wait_until

SESSION = 4.0


@pytest.fixture
def other(server: ZooKeeperServer) -> Iterator[zkr.Client]:
    """A client that no fault of the proxy touches."""
    with zkr.connect(server.hosts, session_timeout=10.0) as client:
        yield client


@pytest.fixture
def zk(proxy: FaultProxy) -> Iterator[zkr.Client]:
    with zkr.connect(proxy.hosts, session_timeout=SESSION) as client:
        yield client


def _nodes(other: zkr.Client, path: str) -> list[str]:
    try:
        return other.children(path)
    except zkr.NodeNotFoundError:
        return []


def _nothing_left(other: zkr.Client, path: str, *, since: float | None = None) -> None:
    """Gone within a second, and nothing comes afterwards."""
    began = monotonic() if since is None else since
    wait_until(lambda: not _nodes(other, path), 5.0, lambda: f"left: {_nodes(other, path)}")
    assert monotonic() - began <= 1.0
    end = monotonic() + 0.5
    while monotonic() < end:
        assert _nodes(other, path) == []


@pytest.mark.parametrize(
    "lost", list(itertools.product(["create2", "getChildren", "createContainer"], [1, 2])), ids=str
)
def test_acquire_on_a_new_path(
    proxy: FaultProxy, zk: zkr.Client, other: zkr.Client, path: str, lost: tuple[str, int]
) -> None:
    trap = proxy.drop_reply(*lost)
    held = zkr.Lock(zk, path).acquire(timeout=5.0)
    assert len(_nodes(other, path)) == 1
    assert held.valid
    assert held.token == zkr.Lock(other, path).contenders()[0].token
    trap.disarm()
    held.release()
    _nothing_left(other, path)


@pytest.mark.parametrize("operation", ["create2", "getChildren", "delete"])
def test_acquire_and_release_on_a_known_path(
    proxy: FaultProxy, zk: zkr.Client, other: zkr.Client, path: str, operation: str
) -> None:
    lock = zkr.Lock(zk, path)
    lock.acquire(timeout=5.0).release()
    trap = proxy.drop_reply(operation)
    held = lock.acquire(timeout=5.0)
    assert len(_nodes(other, path)) == 1
    held.release()
    trap.wait()
    assert not held.lost.is_set()
    _nothing_left(other, path)
    with lock.acquire(timeout=5.0) as again:
        assert again.token > held.token


@pytest.mark.parametrize("operation", ["create2", "getChildren", "getData"])
def test_a_waiter_keeps_or_renews_its_place(
    proxy: FaultProxy, zk: zkr.Client, other: zkr.Client, path: str, operation: str
) -> None:
    first = zkr.Lock(other, path).acquire(timeout=5.0)
    trap = proxy.drop_reply(operation)
    with pytest.raises(zkr.AcquireTimeoutError) as caught:
        zkr.Lock(zk, path).acquire(timeout=1.0)
    trap.wait()
    assert not caught.value.left_behind
    assert len(_nodes(other, path)) == 1
    first.release()
    _nothing_left(other, path)


@pytest.mark.parametrize("lost", list(itertools.product(["create2", "getChildren"], [0, 0.4])), ids=str)
def test_a_call_that_has_failed_leaves_nothing_when_the_server_is_back(
    proxy: FaultProxy, zk: zkr.Client, other: zkr.Client, path: str, lost: tuple[str, float]
) -> None:
    """The reply is lost, and nobody answers until the call has ended."""
    operation, timeout = lost
    lock = zkr.Lock(zk, path)
    lock.acquire(timeout=5.0).release()
    gate = proxy.hold_reply(operation)
    with pytest.raises(zkr.UnavailableError) as caught:
        lock.acquire(timeout=timeout)
    assert caught.value.left_behind
    if operation == "create2":
        assert len(_nodes(other, path)) == 1, "it cannot know, and says so"
    proxy.refuse()
    linger(0.3)
    proxy.heal()
    wait_until(lambda: zk.health().ok, 5.0)
    _nothing_left(other, path)
    gate.release()


def test_a_create_that_arrives_late_makes_nothing_that_stays(
    proxy: FaultProxy, zk: zkr.Client, other: zkr.Client, path: str
) -> None:
    """The request is still on its way when the call ends, and reaches the server long after."""
    lock = zkr.Lock(zk, path)
    lock.acquire(timeout=5.0).release()
    gate = proxy.hold_request("create2")
    with pytest.raises(zkr.UnavailableError) as caught:
        lock.acquire(timeout=0.5)
    assert caught.value.left_behind
    gate.release()
    wait_until(lambda: zk.health().ok, 5.0)
    linger(0.5)  # until it has reached the server; before that there is nothing yet to be removed
    _nothing_left(other, path)


def test_a_create_that_arrives_on_the_old_connection_makes_nothing_that_stays(
    proxy: FaultProxy, zk: zkr.Client, other: zkr.Client, path: str
) -> None:
    """The client has reconnected and looked for its node before the old request reaches the server."""
    lock = zkr.Lock(zk, path)
    lock.acquire(timeout=5.0).release()
    gate = proxy.hold_request("create2")
    with pytest.raises(zkr.UnavailableError):
        lock.acquire(timeout=0.4)
    proxy.cut("client")
    wait_until(lambda: zk.health().ok, 5.0)
    linger(0.2)
    gate.release()
    linger(0.5)
    assert _nodes(other, path) == []
    assert zkr.Lock(other, path).try_acquire(timeout=1.0) is not None


def test_a_second_attempt_while_the_first_create_is_under_way(
    proxy: FaultProxy, zk: zkr.Client, other: zkr.Client, path: str
) -> None:
    lock = zkr.Lock(zk, path)
    lock.acquire(timeout=5.0).release()
    gate = proxy.hold_request("create2")
    with pytest.raises(zkr.UnavailableError):
        lock.acquire(timeout=0.3)
    proxy.cut("client")
    held = lock.acquire(timeout=5.0)
    gate.release()
    linger(0.5)
    assert len(_nodes(other, path)) == 1
    assert held.valid
    held.release()
    _nothing_left(other, path)


@pytest.mark.parametrize("nth", [1, 2])
def test_a_lost_heartbeat_costs_nothing(
    proxy: FaultProxy, zk: zkr.Client, other: zkr.Client, path: str, nth: int
) -> None:
    with zkr.Lock(zk, path).acquire(timeout=5.0) as held:
        trap = proxy.drop_reply("multi", nth)
        trap.wait(5.0)
        linger(SESSION / 2)
        assert held.valid
    _nothing_left(other, path)


def test_a_lost_delete_is_told_to_nobody(proxy: FaultProxy, zk: zkr.Client, other: zkr.Client, path: str) -> None:
    """And the server is away until long after the release has returned."""
    held = zkr.Lock(zk, path).acquire(timeout=5.0)
    gate = proxy.hold_request("delete")
    held.release()
    assert not held.valid
    gate.wait_held()
    proxy.refuse()
    linger(0.3)
    proxy.heal()
    wait_until(lambda: zk.health().ok, 5.0)
    _nothing_left(other, path)


@pytest.mark.parametrize("operation", ["create", "setData", "delete", "multi"])
def test_a_write_of_the_user_is_never_repeated(
    proxy: FaultProxy, zk: zkr.Client, other: zkr.Client, path: str, operation: str
) -> None:
    """Its outcome is told as unknown, and it has been applied once."""
    other.create(path, parents=True)
    other.create(f"{path}/old")
    trap = proxy.drop_reply("create2" if operation == "create" else operation)

    def write() -> None:
        match operation:
            case "create":
                zk.create(f"{path}/new-", sequential=True)
            case "setData":
                zk.set(path, b"new")
            case "delete":
                zk.delete(f"{path}/old")
            case _:
                with zk.transaction() as tx:
                    tx.set(path, b"new")

    with pytest.raises(zkr.OutcomeUnknownError) as caught:
        write()
    trap.wait()
    assert caught.value.__cause__ is not None
    linger(0.3)
    assert len([name for name in other.children(path) if name.startswith("new-")]) == (operation == "create")
    stat = other.exists(path)
    assert stat is not None
    assert stat.version == (1 if operation in {"setData", "multi"} else 0)
    assert ("old" in other.children(path)) == (operation != "delete")


@pytest.mark.parametrize("operation", ["getData", "getChildren", "exists"])
def test_a_read_of_the_user_is_repeated(proxy: FaultProxy, zk: zkr.Client, path: str, operation: str) -> None:
    zk.create(path, b"data", parents=True)
    trap = proxy.drop_reply(operation)
    answers = {
        "getData": lambda: zk.get(path, timeout=5.0).value == b"data",
        "getChildren": lambda: zk.children(path, timeout=5.0) == [],
        "exists": lambda: zk.exists(path, timeout=5.0) is not None,
    }
    assert answers[operation]()
    trap.wait()


def test_break_survives_a_lost_reply(proxy: FaultProxy, zk: zkr.Client, other: zkr.Client, path: str) -> None:
    held = zkr.Lock(other, path).acquire(timeout=5.0)
    proxy.drop_reply("delete")
    broken = zkr.Lock(zk, path).break_(timeout=5.0)
    assert broken is not None
    assert broken.token == held.token
    assert _nodes(other, path) == []


@pytest.mark.parametrize("operation", ["create2", "getChildren", "multi"])
def test_an_election_survives_a_lost_reply(
    proxy: FaultProxy, zk: zkr.Client, other: zkr.Client, path: str, operation: str
) -> None:
    election = zkr.Election(zk, path, data=b"here")
    election.campaign(timeout=5.0).resign()
    trap = proxy.drop_reply(operation)
    try:
        leadership = election.campaign(timeout=5.0)
    except zkr.OutcomeUnknownError:
        assert operation == "multi", "only what was proclaimed can be unknown"
    else:
        seen = zkr.Election(other, path).leader()
        assert seen is not None
        assert seen.token == leadership.token
        leadership.resign()
    trap.wait()
    _nothing_left(other, path)
