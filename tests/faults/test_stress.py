"""Many threads with a switch between almost any two bytecodes: what is atomic stays atomic."""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

import zkrecipes as zkr
from tests.faults.contest import linger
from zkrecipes.testing import FaultProxy, ZooKeeperServer, wait_until

THREADS = 8


@pytest.fixture
def switching() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


class Section:
    """Entered by one at a time, or it tells."""

    def __init__(self) -> None:
        self.inside = 0
        self.entered = 0
        self.faults: list[str] = []

    def enter(self, held: zkr.LockHandle) -> None:
        self.inside += 1
        if self.inside != 1:
            self.faults.append(f"{self.inside} inside")
        if not held.valid:
            self.faults.append(f"{held!r} is not valid inside")
        self.entered += 1
        self.inside -= 1


def _run(threads: int, work: Callable[[int], None]) -> None:
    errors: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            work(number)
        except BaseException as error:  # noqa: BLE001 - told below
            errors.append(error)

    running = [threading.Thread(target=guarded, args=(number,), daemon=True) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(40.0)
    assert not any(thread.is_alive() for thread in running), "nobody waits for ever"
    assert not errors, errors


@pytest.mark.parametrize("kind", ["lock", "handoff", "rlock"])
def test_threads_exclude_each_other(server: ZooKeeperServer, path: str, switching: None, kind: str) -> None:
    section = Section()
    rounds = 15
    with zkr.connect(server.hosts, session_timeout=10.0) as zk:
        handoff = zkr.LocalHandoff(max_turns=5, max_time=60.0) if kind == "handoff" else None
        lock = zkr.RLock(zk, path) if kind == "rlock" else zkr.Lock(zk, path, local_handoff=handoff)

        def work(_: int) -> None:
            for _ in range(rounds):
                with lock.acquire(timeout=30.0) as held:
                    section.enter(held)
                    if kind == "rlock":
                        with lock.acquire(timeout=1.0) as again:
                            section.enter(again)
                            assert again.token == held.token

        _run(THREADS, work)
        assert section.faults == []
        assert section.entered == THREADS * rounds * (2 if kind == "rlock" else 1)
        wait_until(lambda: zk.children(path) == [])


@pytest.mark.parametrize("kind", ["lock", "handoff"])
def test_threads_that_give_up_at_random(server: ZooKeeperServer, path: str, switching: None, kind: str) -> None:
    section = Section()
    with zkr.connect(server.hosts, session_timeout=10.0) as zk:
        handoff = zkr.LocalHandoff(max_turns=3, max_time=60.0) if kind == "handoff" else None
        lock = zkr.Lock(zk, path, local_handoff=handoff)

        def work(number: int) -> None:
            chance = random.Random(number)
            for _ in range(12):
                cancel = zkr.Cancel()
                timer = threading.Timer(chance.choice([0.01, 0.03, 0.3, 5.0]), cancel.cancel)
                timer.start()
                try:
                    with lock.acquire(timeout=chance.choice([0.02, 0.1, 30.0]), cancel=cancel) as held:
                        section.enter(held)
                except (zkr.AcquireTimeoutError, zkr.CancelledError, zkr.UnavailableError):
                    pass
                finally:
                    timer.cancel()

        _run(THREADS, work)
        assert section.faults == []
        assert section.entered > 0
        wait_until(lambda: zk.children(path) == [], 5.0, lambda: str(zk.children(path)))
        lock.acquire(timeout=5.0).release()


def test_a_connection_that_breaks_again_and_again(
    server: ZooKeeperServer, proxy: FaultProxy, path: str, switching: None
) -> None:
    section = Section()
    done = threading.Event()
    with zkr.connect(proxy.hosts, session_timeout=20.0) as zk:
        lock = zkr.Lock(zk, path)

        def work(number: int) -> None:
            if number == 0:
                for _ in range(6):
                    linger(0.25)
                    proxy.cut()
                done.set()
                return
            while not done.is_set():
                with lock.acquire(timeout=30.0) as held:
                    section.enter(held)

        _run(5, work)
        assert section.faults == []
        assert section.entered > 10
        wait_until(lambda: zk.children(path) == [], 5.0, lambda: str(zk.children(path)))


def test_many_operations_at_once(server: ZooKeeperServer, path: str, switching: None) -> None:
    """More than may be unanswered at a time, from many threads: each gets its own answer."""
    with zkr.connect(server.hosts, session_timeout=10.0) as zk:
        zk.create(path, parents=True)

        def work(number: int) -> None:
            for turn in range(25):
                node = zk.create(f"{path}/{number}-{turn}", f"{number} {turn}".encode())
                assert zk.get(node).value == f"{number} {turn}".encode()
                assert zk.exists(f"{node}-none") is None
                zk.delete(node)

        _run(THREADS, work)
        assert zk.children(path) == []


def test_handles_are_released_from_any_thread_at_once(server: ZooKeeperServer, path: str, switching: None) -> None:
    with zkr.connect(server.hosts, session_timeout=10.0) as zk:
        lock = zkr.Lock(zk, path)
        for _ in range(10):
            held = lock.acquire(timeout=5.0)
            _run(6, lambda _: held.release())  # noqa: B023  # run at once
            assert not held.valid
            assert not held.lost.is_set()
            assert zk.children(path) == []


def test_threads_that_count_and_draw_identifiers(server: ZooKeeperServer, path: str, switching: None) -> None:
    """Each add has a value of its own; no identifier comes twice, or after a greater one that was there before."""
    rounds = 60
    with zkr.connect(server.hosts, session_timeout=10.0) as zk:
        counter, ids = zkr.Counter(zk, path), zkr.IdGenerator(zk, f"{path}-ids", block=3)
        values: list[int] = []
        drawn: list[list[int]] = [[] for _ in range(THREADS)]
        greatest = [0]

        def work(number: int) -> None:
            for _ in range(rounds):
                values.append(counter.add())
                before = greatest[0]
                identifier = ids.next()
                assert identifier > before
                drawn[number].append(identifier)
                greatest[0] = max(identifier, before)

        _run(THREADS, work)
        assert sorted(values) == list(range(1, THREADS * rounds + 1))
        assert all(mine == sorted(mine) for mine in drawn)
        flat = [identifier for mine in drawn for identifier in mine]
        assert len(set(flat)) == len(flat) == THREADS * rounds
