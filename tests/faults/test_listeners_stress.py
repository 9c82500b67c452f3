"""Listeners under many threads, with a switch between almost any two bytecodes: what is shown never goes backwards."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator

import pytest

import zkrecipes as zkr
from tests.listening import Record
from zkrecipes.testing import ZooKeeperServer, wait_until

ROUNDS = 40


@pytest.fixture
def switching() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def _run(*works: Callable[[], None]) -> None:
    """All of them at once, each in a thread."""
    errors: list[BaseException] = []

    def guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - told below
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(work,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(40.0)
    assert not any(thread.is_alive() for thread in threads), "nobody waits for ever"
    assert not errors, errors


def test_readers_closers_and_writers_at_once(  # noqa: C901 - five short jobs
    server: ZooKeeperServer, path: str, switching: None
) -> None:
    """One client, one tree: listeners come and go, are read, waited for and iterated, by eight threads."""
    with zkr.connect(server.hosts, session_timeout=10.0) as zk, zkr.connect(server.hosts) as other:
        zk.create(path, b"0", parents=True)
        zk.create(f"{path}/a", b"0")
        done = threading.Event()
        tree = zkr.TreeListener(zk, path)
        record = Record(tree)
        tree.start()

        def write() -> None:
            for number in range(1, ROUNDS + 1):
                with other.transaction() as tx:
                    tx.set(path, b"%d" % number)
                    tx.set(f"{path}/a", b"%d" % number)
            done.set()

        def read() -> None:
            newest = 0
            while not done.is_set():
                snapshot = tree.snapshot()
                assert list(snapshot) == [path, f"{path}/a"]
                number = int(snapshot[path].value)
                assert number >= newest
                newest = number
                assert tree.get(path) is not None

        def come_and_go() -> None:
            while not done.is_set():
                with zkr.TreeListener(zk, path) as mine, zkr.NodeListener(zk, path) as node:
                    assert mine.wait_for(bool, 10.0)
                    assert next(iter(node)).path == path

        def iterate() -> None:
            last = b""
            for change in tree:
                if change.path == path:
                    assert change.kind is zkr.EventKind.CREATED or change.old == last
                    last = change.new or b""
                    if last == b"%d" % ROUNDS:
                        return

        def register() -> None:
            while not done.is_set():
                tree.on_changed(lambda _change: None).cancel()

        _run(write, read, read, come_and_go, come_and_go, iterate, iterate, register)
        record.wait_equal({path: b"%d" % ROUNDS, f"{path}/a": b"%d" % ROUNDS})
        other.set(path, b"last")
        record.wait_for(("changed", path, b"%d" % ROUNDS, b"last"))
        tree.close()
        table = zk.core.session.watches
        wait_until(lambda: not any((table._feeds, table._waiting, table._armed, table._asked)), 5.0, "nothing is left")


def test_closing_from_many_threads(server: ZooKeeperServer, path: str, switching: None) -> None:
    with zkr.connect(server.hosts, session_timeout=10.0) as zk:
        zk.create(path, parents=True)
        for _ in range(10):
            tree = zkr.TreeListener(zk, path)

            def start(tree: zkr.TreeListener = tree) -> None:
                try:
                    tree.start(10.0)
                except zkr.ClosedError:
                    return  # closed before it was there

            def iterate(tree: zkr.TreeListener = tree) -> None:
                try:
                    for _ in tree:
                        continue
                except zkr.ClosedError:
                    return  # closed before it had begun

            _run(start, start, iterate, tree.close, tree.close)
            assert tree.closed
        table = zk.core.session.watches
        wait_until(lambda: not any((table._feeds, table._waiting, table._armed, table._asked)), 5.0, "nothing is left")
