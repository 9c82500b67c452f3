"""A reply lost, and the client comes back to another server, which lags behind: the truth all the same."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Literal

import pytest

import zkrecipes as zkr
from tests.faults.contest import linger
from zkrecipes.runtime import monotonic
from zkrecipes.testing import FaultProxy, ZooKeeperEnsemble, ZooKeeperServer, wait_until

pytestmark = pytest.mark.ensemble

SESSION = 8.0
LAG = 0.3

Lost = Literal["create2", "getChildren", "delete", "getData", "multi"]


@pytest.fixture(scope="module")
def shared_ensemble() -> Iterator[ZooKeeperEnsemble]:
    with ZooKeeperEnsemble(proxied_quorum=True) as ensemble:
        yield ensemble


class Scene:
    """A client on a follower; the other follower lags behind the leader; a witness on the leader.

    Attributes:
        proxy: Before the first follower; new connections go to the one that lags.
        zk: The client.
        witness: Sees everything at once.
    """

    def __init__(self, ensemble: ZooKeeperEnsemble) -> None:
        self.ensemble = ensemble
        self.leader: ZooKeeperServer = ensemble.leader()
        first, self.lagging = ensemble.followers()
        self.proxy = FaultProxy(first)
        self.zk = zkr.connect(self.proxy.hosts, session_timeout=SESSION)
        self.witness = zkr.connect(self.leader.hosts, session_timeout=SESSION)

    def close(self) -> None:
        self.ensemble.heal()
        self.zk.close()
        self.witness.close()
        self.proxy.close()

    def lose(self, operation: Lost) -> None:
        """The next such reply is lost, and the way leads to the server that lags."""
        pair = self.ensemble.servers.index(self.lagging), self.ensemble.servers.index(self.leader)
        self.ensemble._proxies[pair][0].delay(LAG)
        self.trap = self.proxy.drop_reply(operation)
        self.proxy.retarget(self.lagging)

    def moved(self) -> None:
        self.trap.wait()
        wait_until(lambda: self.ensemble.member_of(self.zk) is self.lagging, 10.0, "it came back to the other one")

    def nodes(self, path: str) -> list[str]:
        try:
            return self.witness.children(path)
        except zkr.NodeNotFoundError:
            return []

    def nothing_left(self, path: str) -> None:
        """Within a second, and for the second after it."""
        began = monotonic()
        wait_until(lambda: not self.nodes(path), 5.0, lambda: f"left: {self.nodes(path)}")
        assert monotonic() - began <= 1.0 + 4 * LAG
        end = monotonic() + 1.0
        while monotonic() < end:
            assert self.nodes(path) == []


@pytest.fixture
def scene(shared_ensemble: ZooKeeperEnsemble) -> Iterator[Scene]:
    shared_ensemble.heal()
    shared_ensemble.start()
    scene = Scene(shared_ensemble)
    yield scene
    scene.close()


@pytest.mark.parametrize("operation", ["create2", "getChildren"])
def test_acquire(scene: Scene, path: str, operation: Lost) -> None:
    lock = zkr.Lock(scene.zk, path)
    lock.acquire(timeout=5.0).release()
    scene.lose(operation)
    held = lock.acquire(timeout=15.0)
    scene.moved()
    assert held.valid
    assert [contender.token for contender in zkr.Lock(scene.witness, path).contenders()] == [held.token]
    held.release()
    scene.nothing_left(path)


@pytest.mark.parametrize("operation", ["create2", "getChildren", "getData"])
def test_a_waiter(scene: Scene, path: str, operation: Lost) -> None:
    zkr.Lock(scene.zk, path).acquire(timeout=5.0).release()
    first = zkr.Lock(scene.witness, path).acquire(timeout=5.0)
    scene.lose(operation)
    with pytest.raises(zkr.AcquireTimeoutError) as caught:
        zkr.Lock(scene.zk, path).acquire(timeout=7.0)  # some of them to come back
    scene.moved()
    if not caught.value.left_behind:
        assert len(scene.nodes(path)) == 1
    first.release()
    scene.nothing_left(path)


def test_release(scene: Scene, path: str) -> None:
    held = zkr.Lock(scene.zk, path).acquire(timeout=5.0)
    scene.lose("delete")
    held.release()
    assert not held.valid
    scene.moved()
    scene.nothing_left(path)
    with zkr.Lock(scene.zk, path).acquire(timeout=10.0) as again:
        assert again.token > held.token


def test_heartbeat(scene: Scene, path: str) -> None:
    with zkr.Lock(scene.zk, path).acquire(timeout=5.0) as held:
        scene.lose("multi")
        scene.moved()
        linger(SESSION / 3)
        assert held.valid
        assert [contender.token for contender in zkr.Lock(scene.witness, path).contenders()] == [held.token]
    scene.nothing_left(path)


def test_a_call_that_gives_up_while_it_comes_back(scene: Scene, path: str) -> None:
    """Its create was applied, and the server that it comes back to does not show it yet."""
    lock = zkr.Lock(scene.zk, path)
    lock.acquire(timeout=5.0).release()
    scene.lose("create2")
    with pytest.raises(zkr.UnavailableError) as caught:
        lock.acquire(timeout=LAG)
    assert caught.value.left_behind
    scene.moved()
    scene.nothing_left(path)


def test_the_server_is_killed_with_the_create_under_way(scene: Scene, path: str) -> None:
    """Nobody can say whether the leader has it: the client finds out, and there is one node, or none."""
    lock = zkr.Lock(scene.zk, path)
    lock.acquire(timeout=5.0).release()
    gate = scene.proxy.hold_reply("create2")
    scene.proxy.retarget(scene.lagging)
    first = next(server for server in scene.ensemble.servers if server not in {scene.leader, scene.lagging})
    held: list[zkr.LockHandle] = []

    thread = threading.Thread(target=lambda: held.append(lock.acquire(timeout=15.0)))
    thread.start()
    gate.wait_held()
    scene.ensemble.kill(first)
    scene.proxy.cut()
    thread.join(20.0)
    assert len(scene.nodes(path)) == 1
    held[0].release()
    scene.nothing_left(path)
