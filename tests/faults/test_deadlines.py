"""A call ends by its timeout, and 0.2 s later at most, whatever the server does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import zkrecipes as zkr
from tests.leftovers import Leftovers
from zkrecipes.runtime import monotonic
from zkrecipes.testing import FaultProxy, ZooKeeperServer, wait_until

LIMIT = 0.2
TRIES = 3


@pytest.fixture(params=[2.0, 10.0], ids=["short session", "long session"])
def zk(request: pytest.FixtureRequest, proxy: FaultProxy) -> Iterator[zkr.Client]:
    with zkr.connect(proxy.hosts, session_timeout=request.param) as client:
        yield client


@pytest.fixture
def other(server: ZooKeeperServer) -> Iterator[zkr.Client]:
    """A client that no fault of the proxy touches."""
    with zkr.connect(server.hosts, session_timeout=10.0) as client:
        yield client


class _Outages:
    """Ways for a server not to answer."""

    def __init__(self, server: ZooKeeperServer, proxy: FaultProxy) -> None:
        self._server = server
        self._proxy = proxy

    @contextmanager
    def away(self) -> Iterator[None]:
        self._proxy.refuse()
        try:
            yield
        finally:
            self._proxy.heal()

    @contextmanager
    def hung(self) -> Iterator[None]:
        self._server.pause()
        try:
            yield
        finally:
            self._server.resume()

    @contextmanager
    def silent(self) -> Iterator[None]:
        self._proxy.blackhole()
        try:
            yield
        finally:
            self._proxy.heal()

    @contextmanager
    def deaf(self) -> Iterator[None]:
        self._proxy.blackhole("to_client")
        try:
            yield
        finally:
            self._proxy.heal()


@pytest.fixture(params=["away", "hung", "silent", "deaf"])
def outage(request: pytest.FixtureRequest, server: ZooKeeperServer, proxy: FaultProxy) -> Any:
    return getattr(_Outages(server, proxy), request.param)


def _seconds(act: Callable[[], object], *errors: type[Exception]) -> float:
    began = monotonic()
    with pytest.raises(errors):
        act()
    return monotonic() - began


def _best(measure: Callable[[], float], limit: float) -> float:
    """The best of a few tries: a loaded machine can be late, but a missing deadline is missing each time."""
    times: list[float] = []
    while len(times) < TRIES and (not times or min(times) > limit):
        times.append(measure())
    return min(times)


def _nobody_stands_at(other: zkr.Client, path: str) -> None:
    wait_until(
        lambda: not zkr.Lock(other, path).contenders(), 5.0, lambda: f"left: {zkr.Lock(other, path).contenders()}"
    )


def test_acquire_in_an_outage(zk: zkr.Client, other: zkr.Client, outage: Any, path: str) -> None:
    lock = zkr.Lock(zk, path)
    lock.acquire().release()

    def try_it() -> float:
        wait_until(lambda: zk.health().ok, 10.0)
        with outage():
            return _seconds(lambda: lock.acquire(timeout=1.0), zkr.UnavailableError)

    assert _best(try_it, 1.0 + LIMIT) <= 1.0 + LIMIT
    _nobody_stands_at(other, path)


def test_acquire_overtaken_by_an_outage(zk: zkr.Client, other: zkr.Client, outage: Any, path: str) -> None:
    """It stands in line when the server goes away."""
    lock = zkr.Lock(zk, path)

    def try_it() -> float:
        wait_until(lambda: zk.health().ok, 10.0)
        with zkr.Lock(other, path).acquire(timeout=5.0):
            seconds: list[float] = []
            errors = zkr.UnavailableError, zkr.AcquireTimeoutError
            thread = threading.Thread(
                target=lambda: seconds.append(_seconds(lambda: lock.acquire(timeout=1.0), *errors))
            )
            thread.start()
            wait_until(lambda: len(zkr.Lock(other, path).contenders()) == 2, 5.0, "it stands in line")
            with outage():
                thread.join(10.0)
                return seconds[0]

    # A server that is hung serves the other client no more than us: it may lose the lock, which is no matter here.
    try:
        best = _best(try_it, 1.0 + LIMIT)
    except zkr.LockLostError:
        best = _best(try_it, 1.0 + LIMIT)
    assert best <= 1.0 + LIMIT
    _nobody_stands_at(other, path)


VERBS = ["get", "create", "set", "delete", "children", "exists", "sync", "commit", "contenders", "break_"]


@pytest.mark.parametrize("verb", VERBS)
def test_operations_in_an_outage(server: ZooKeeperServer, proxy: FaultProxy, verb: str, path: str) -> None:
    with zkr.connect(proxy.hosts, session_timeout=2.0) as zk:
        lock = zkr.Lock(zk, path)
        verbs: dict[str, Callable[[], object]] = {
            "get": lambda: zk.get("/", timeout=0.5),
            "create": lambda: zk.create(f"{path}-new", timeout=0.5),
            "set": lambda: zk.set("/zookeeper", b"", timeout=0.5),
            "delete": lambda: zk.delete(f"{path}-none", timeout=0.5),
            "children": lambda: zk.children("/", timeout=0.5),
            "exists": lambda: zk.exists("/", timeout=0.5),
            "sync": lambda: zk.sync(timeout=0.5),
            "commit": lambda: _commit(zk, path),
            "contenders": lambda: lock.contenders(timeout=0.5),
            "break_": lambda: lock.break_(timeout=0.5),
        }

        def try_it() -> float:
            wait_until(lambda: zk.health().ok, 10.0)
            proxy.blackhole()
            try:
                return _seconds(verbs[verb], zkr.UnavailableError, zkr.OutcomeUnknownError)
            finally:
                # Connections that were silent are ended: what was sent on them arrives nowhere.
                proxy.cut()
                proxy.heal()

        assert _best(try_it, 0.5 + LIMIT) <= 0.5 + LIMIT


def _commit(zk: zkr.Client, path: str) -> None:
    tx = zk.transaction()
    tx.create(f"{path}-tx")
    tx.commit(timeout=0.5)


def test_no_timeout_restarts_when_others_give_up(server: ZooKeeperServer, proxy: FaultProxy, path: str) -> None:
    """Behind three waiters that give up one after another, one second stays one second."""
    with (
        zkr.connect(proxy.hosts, session_timeout=4.0) as zk,
        zkr.connect(server.hosts) as holder,
        zkr.Lock(holder, path).acquire(),
    ):
        waiters = [
            threading.Thread(target=lambda wait=wait: zkr.Lock(holder, path).try_acquire(timeout=wait))
            for wait in (0.3, 0.5, 0.7)
        ]
        for count, thread in enumerate(waiters):
            thread.start()
            wait_until(lambda: len(zkr.Lock(holder, path).contenders()) == count + 2)  # noqa: B023  # asked at once
        seconds = _best(
            lambda: _seconds(lambda: zkr.Lock(zk, path).acquire(timeout=1.0), zkr.AcquireTimeoutError), 1.0 + LIMIT
        )
        assert 1.0 <= seconds <= 1.0 + LIMIT
        for thread in waiters:
            thread.join()


def test_a_timeout_of_zero_never_waits(server: ZooKeeperServer, proxy: FaultProxy, path: str) -> None:
    with zkr.connect(proxy.hosts, session_timeout=4.0) as zk, zkr.connect(server.hosts) as holder:
        lock = zkr.Lock(zk, path)
        with zkr.Lock(holder, path).acquire():
            assert _best(lambda: _seconds(lambda: lock.acquire(timeout=0), zkr.AcquireTimeoutError), LIMIT) <= LIMIT
            assert lock.try_acquire() is None
            assert len(lock.contenders()) == 1
        proxy.refuse()
        wait_until(lambda: zk.state is not zkr.State.CONNECTED)
        assert _best(lambda: _seconds(lambda: lock.acquire(timeout=0), zkr.UnavailableError), 0.05) <= 0.05
        with pytest.raises(zkr.UnavailableError):
            lock.try_acquire()


def test_release_in_an_outage_does_not_wait(zk: zkr.Client, other: zkr.Client, outage: Any, path: str) -> None:
    """The node goes when the server is back, without another call."""
    held = zkr.Lock(zk, path).acquire(timeout=5.0)
    with outage():
        began = monotonic()
        held.release()
        assert monotonic() - began <= 1.0 + LIMIT
        assert not held.valid
        assert not held.lost.is_set()
    _nobody_stands_at(other, path)


def test_close_in_an_outage_is_bounded(server: ZooKeeperServer, proxy: FaultProxy, outage: Any, path: str) -> None:
    leftovers = Leftovers()
    zk = zkr.connect(proxy.hosts, session_timeout=2.0)
    held = zkr.Lock(zk, path).acquire()
    with outage():
        began = monotonic()
        zk.close()
        assert monotonic() - began <= 2.5
        assert held.lost.reason is zkr.LostReason.CLOSED
        leftovers.none(files=False)


def test_connect_to_nobody(server: ZooKeeperServer, proxy: FaultProxy, outage: Any) -> None:
    leftovers = Leftovers()
    with outage():
        seconds = _best(
            lambda: _seconds(
                lambda: zkr.connect(proxy.hosts, connect_timeout=0.5, session_timeout=2.0), zkr.UnavailableError
            ),
            0.5 + LIMIT,
        )
        # Closing what was begun takes its time, too.
        assert seconds <= 0.5 + 2.0 + LIMIT
        leftovers.none(files=False)
