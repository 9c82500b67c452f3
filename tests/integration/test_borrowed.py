"""A client on somebody else's KazooClient, and the transport on kazoo's public API alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from kazoo.client import KazooClient

import zkrecipes as zkr
from tests.contracts.subjects import Later
from tests.leftovers import Leftovers
from zkrecipes.port import Exists
from zkrecipes.testing import FaultProxy, Server, wait_until
from zkrecipes.wire_public import PublicTransport


@pytest.fixture
def kazoo(zkr_proxy: FaultProxy, zkr_namespace: str) -> Iterator[KazooClient]:
    client = KazooClient(f"{zkr_proxy.hosts}{zkr_namespace}", timeout=4.0)
    client.start()
    yield client
    client.stop()
    client.close()


@pytest.fixture(params=["internals", "public"])
def wire(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both transports."""
    if request.param == "public":
        monkeypatch.setenv("ZKRECIPES_WIRE", "public")
    return str(request.param)


# --- borrowed ---------------------------------------------------------------------------------------------------------


def test_a_borrowed_client_locks_below_its_chroot(
    wire: str, kazoo: KazooClient, zkr_server: Server, zkr_namespace: str
) -> None:
    with zkr.Client(kazoo, namespace="/app") as zk, zkr.connect(zkr_server.hosts, namespace=zkr_namespace) as other:
        held = zkr.Lock(zk, "/lock").acquire(5.0)
        assert held.valid
        assert zkr.Lock(other, "/app/lock").try_acquire() is None
        assert kazoo.exists("/app/lock") is not None
        zk.create("/data", b"x")
        with zk.transaction() as tx:
            held.guard(tx)
            tx.set("/data", b"guarded")
        assert kazoo.get("/app/data")[0] == b"guarded"
        with pytest.raises(zkr.NodeNotFoundError) as raised:
            zk.get("/no")
        assert raised.value.path == "/no"
        held.release()
        assert zkr.Lock(other, "/app/lock").try_acquire(5.0) is not None


def test_it_is_never_stopped(wire: str, kazoo: KazooClient) -> None:
    left = Leftovers()
    zk = zkr.Client(kazoo)
    held = zkr.Lock(zk, "/lock").acquire(5.0)
    states: list[zkr.State] = []
    zk.on_state(states.append)
    zk.close()
    zk.close()
    assert held.lost.reason is zkr.LostReason.CLOSED
    assert kazoo.connected
    assert kazoo.client_id is not None
    wait_until(lambda: states == [zkr.State.LOST], 5.0, "the listener heard of it")
    with pytest.raises(zkr.ClosedError):
        zk.get("/")
    wait_until(lambda: kazoo.get_children("/lock") == [], 5.0, "the session lives on, but the lock is free")
    left.none(files=False)
    again = zkr.Client(kazoo)
    assert zkr.Lock(again, "/lock").acquire(5.0).token > held.token
    again.close()


def test_the_loss_of_a_borrowed_session(wire: str, kazoo: KazooClient, zkr_server: Server) -> None:
    with zkr.Client(kazoo) as zk:
        held = zkr.Lock(zk, "/lock").acquire(5.0)
        zkr_server.expire(kazoo)
        wait_until(held.lost.is_set, 15.0, "the hold is lost")
        assert held.lost.reason is zkr.LostReason.EXPIRED
        assert zkr.Lock(zk, "/lock").acquire(10.0).token > held.token


def test_stopped_by_its_owner(kazoo: KazooClient) -> None:
    with zkr.Client(kazoo) as zk:
        held = zkr.Lock(zk, "/lock").acquire(5.0)
        kazoo.stop()
        wait_until(lambda: not held.valid, 5.0, "the hold has ended")
        with pytest.raises((zkr.UnavailableError, zkr.ClosedError)):
            zk.get("/", timeout=0.3)


def test_two_of_our_clients_on_one_of_kazoos(kazoo: KazooClient) -> None:
    with zkr.Client(kazoo) as one, zkr.Client(kazoo) as two:
        held = zkr.Lock(one, "/lock").acquire(5.0)
        assert zkr.Lock(two, "/lock").try_acquire() is None
        later = Later(lambda: zkr.Lock(two, "/lock").acquire(10.0))
        wait_until(lambda: len(zkr.Lock(one, "/lock").contenders()) == 2, 5.0, "the second waits")
        held.release()
        assert later.result().token > held.token


def test_silence_ends_the_hold_of_a_borrowed_client(wire: str, kazoo: KazooClient, zkr_proxy: FaultProxy) -> None:
    with zkr.Client(kazoo) as zk:
        held = zkr.Lock(zk, "/lock").acquire(5.0)
        zkr_proxy.blackhole()
        wait_until(lambda: not held.valid, 4.2, "the hold has ended by our own clock")
        assert held.lost.reason in {zkr.LostReason.UNREACHABLE, zkr.LostReason.EXPIRED}
        zkr_proxy.cut()
        zkr_proxy.heal()
        assert zkr.Lock(zk, "/lock").acquire(15.0).token > held.token


# --- the fallback -----------------------------------------------------------------------------------------------------


@pytest.fixture
def public(monkeypatch: pytest.MonkeyPatch, zkr_proxy: FaultProxy, zkr_namespace: str) -> Iterator[zkr.Client]:
    monkeypatch.setenv("ZKRECIPES_WIRE", "public")
    with zkr.connect(zkr_proxy.hosts, namespace=zkr_namespace, session_timeout=4.0) as client:
        assert isinstance(client._connection.transport, PublicTransport)
        yield client


def test_locks_and_operations_on_the_public_api(public: zkr.Client) -> None:
    lock = zkr.Lock(public, "/lock")
    tokens = []
    for _ in range(3):
        with lock as held:
            tokens.append(held.token)
            with public.transaction() as tx:
                held.guard(tx)
                tx.create("/n-", sequential=True)
    assert tokens == sorted(set(tokens))
    assert len(public.children("/")) == 4
    with pytest.raises(zkr.PayloadTooLargeError):
        public.create("/big", b"x" * 2_000_000)
    with pytest.raises(zkr.NodeNotFoundError):
        public.get("/no")
    held = lock.acquire(5.0)
    later = Later(lambda: lock.acquire(10.0))
    wait_until(lambda: len(lock.contenders()) == 2, 5.0, "it waits")
    held.release()
    assert later.result().token > held.token


def test_elections_on_the_public_api(public: zkr.Client, zkr_proxy: FaultProxy) -> None:
    tokens: list[int] = []
    stopped = threading.Event()

    def work(leadership: zkr.Leadership) -> None:
        tokens.append(leadership.token)
        if len(tokens) == 1:
            zkr_proxy.cut()
            assert leadership.should_stop.wait(5.0)
            stopped.set()

    zkr.Election(public, "/office").run(work, terms=2)
    assert stopped.is_set()
    assert tokens[1] > tokens[0]


def test_expiry_on_the_public_api(public: zkr.Client, zkr_server: Server) -> None:
    held = zkr.Lock(public, "/lock").acquire(5.0)
    zkr_server.expire(public)
    wait_until(held.lost.is_set, 15.0, "it is lost")
    assert held.lost.reason is zkr.LostReason.EXPIRED
    assert zkr.Lock(public, "/lock").acquire(10.0).token > held.token


def test_no_wake_up_is_lost_on_the_public_api(public: zkr.Client, zkr_server: Server, zkr_namespace: str) -> None:
    """There answers and events come on two threads: an event that overtakes the answer that set its watch counts."""
    kazoo, session = public._connection.transport.kazoo, public.core.session
    path = f"{zkr_namespace}/awaited"
    answers_may_come, happened, told = threading.Event(), threading.Event(), threading.Event()
    kazoo.exists(path, watch=lambda _: happened.set())
    kazoo.handler.completion_queue.put(answers_may_come.wait)
    try:
        with public.core.runtime.lock:
            call = session.call(Exists(path, watch=True))
        wait_until(lambda: call.stamp is not None, 5.0, "it is written")
        with zkr.connect(zkr_server.hosts) as other:
            other.sync()
            wait_until(lambda: len(kazoo._data_watchers[path]) == 2, 5.0, "kazoo has the answer, with its watch")
            other.create(path)
        assert happened.wait(5.0)
        kazoo.handler.callback_queue.put(told.set)  # behind the event that our transport gets
        assert told.wait(5.0)
        assert not call.done
    finally:
        answers_may_come.set()
    wait_until(lambda: call.done, 5.0, "the answer")
    assert call.watch is not None
    wait_until(lambda: call.watch is not None and call.watch.done, 2.0, "the event is not lost")
