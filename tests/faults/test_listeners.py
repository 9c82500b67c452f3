"""Listeners equal the tree: random changes by many, while connections are cut, servers killed and sessions expired."""

from __future__ import annotations

import itertools
import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final, final

import pytest

import zkrecipes as zkr
from tests.faults.contest import linger
from tests.leftovers import Leftovers
from tests.listening import Record, Replay
from zkrecipes.testing import FaultProxy, ZooKeeperEnsemble, wait_until

pytestmark = [pytest.mark.ensemble, pytest.mark.slow]

SECONDS: Final = 8.0
"""Of faults."""
WRITERS: Final = 4
QUIET: Final = 2.0
"""Seconds in which all must be equal when it is quiet."""

NAMES: Final = ("a", "b", "c")
PATHS: Final = (
    "/t",
    *(f"/t/{one}" for one in NAMES),
    *(f"/t/{one}/{other}" for one in NAMES for other in NAMES),
    *(f"/t/a/a/{one}" for one in NAMES),
)
"""Few, so that the same ones come and go again and again."""

_numbers = itertools.count(1)
Tree = dict[str, bytes]


@final
class Writer:
    """Changes the tree at random, as somebody who reads nothing before."""

    def __init__(self, hosts: str, namespace: str, number: int) -> None:
        self._chance = random.Random(number)
        self._zk = zkr.connect(hosts, namespace=namespace, session_timeout=6.0)
        self._stop = threading.Event()
        self.done = 0
        self.errors: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, name=f"writer {number}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._change()
                self.done += 1
            except (zkr.ZkRecipesError, OSError) as error:
                wrong = zkr.ForkedError, zkr.ClosedError
                if isinstance(error, wrong):
                    self.errors.append(error)
                    return
            except BaseException as error:  # noqa: BLE001 - told at the end
                self.errors.append(error)
                return

    def _change(self) -> None:
        pick, zk = self._chance.choice, self._zk
        path, data = pick(PATHS), pick((b"", b"x", b"y", b"z"))
        match self._chance.random():
            case draw if draw < 0.45:
                kind = zkr.Kind.EPHEMERAL if path.count("/") == 4 else zkr.Kind.PERSISTENT
                zk.create(path, data, kind=kind, timeout=2.0)
            case draw if draw < 0.7:
                zk.set(path, data, timeout=2.0)
            case draw if draw < 0.85:
                zk.delete(path, timeout=2.0)
            case draw if draw < 0.95:
                # Made again at once, with the same bytes and version.
                node = zk.get(path, timeout=2.0)
                with zk.transaction() as tx:
                    tx.delete(path)
                    tx.create(path, node.value)
            case _:
                below = [each for each in PATHS if each.startswith(f"{path}/") or each == path]
                there = [each for each in below if zk.exists(each, timeout=2.0)]
                with zk.transaction() as tx:
                    for each in sorted(there, reverse=True):
                        tx.delete(each)

    def stop(self) -> None:
        """End it; its session stays, with its ephemeral nodes."""
        self._stop.set()
        self._thread.join(30.0)
        assert not self._thread.is_alive()

    def close(self) -> None:
        self._zk.close()


@final
class Witness:
    """One listener with its two consumers: callbacks, and an iteration that is slow."""

    def __init__(self, listener: Any, shows: Callable[[str], bool], *, data: bool = True) -> None:
        self.listener = listener
        self._shows = shows
        self._data = data
        self.record = Record(listener)
        self.iterated = Replay()
        self._thread = threading.Thread(target=self._iterate, name="iteration", daemon=True)

    def start(self) -> None:
        self.listener.start(20.0)
        self._thread.start()

    def _iterate(self) -> None:
        never, chance = threading.Event(), random.Random(id(self))
        for change in self.listener:
            self.iterated.take(change)
            if chance.random() < 0.05:
                never.wait(0.3)  # it falls behind

    def trouble(self, tree: Tree) -> str:
        """What is not as it must be."""
        expected = {path: data if self._data else None for path, data in tree.items() if self._shows(path)}
        snapshot = {path: node.value for path, node in self.listener.snapshot().items()}
        for name, state in (
            ("its snapshot", snapshot),
            ("its callbacks", self.record.replay.map),
            ("its iteration", self.iterated.map),
        ):
            if state != expected:
                differ = {path for path in {*state, *expected} if state.get(path, ...) != expected.get(path, ...)}
                return f"{self.listener!r}: {name} differs at {sorted(differ)}"
        return "" if self.listener.fresh else f"{self.listener!r} is not fresh"

    def faults(self) -> list[str]:
        """What was told and cannot be."""
        return [f"{self.listener!r}: {each}" for each in (*self.record.replay.faults, *self.iterated.faults)]

    def close(self) -> None:
        self.listener.close()
        self._thread.join(10.0)
        assert not self._thread.is_alive(), "closing ends the iteration"


def _below(*roots: str, depth: int = 9, own: bool = True) -> Callable[[str], bool]:
    def shows(path: str) -> bool:
        levels = [path.count("/") - root.count("/") for root in roots if f"{path}/".startswith(f"{root}/")]
        return bool(levels) and (0 if own else 1) <= min(levels) <= depth

    return shows


def _witnesses(clients: list[zkr.Client]) -> list[Witness]:
    """Ten listeners of all kinds."""
    one, two, three = clients

    def include(path: str) -> bool:
        return not path.endswith("/b")

    def without_b(path: str) -> bool:
        return path.startswith("/t") and "/b" not in path

    return [
        Witness(zkr.TreeListener(one, "/t"), _below("/t")),
        Witness(zkr.TreeListener(two, "/t"), _below("/t")),
        Witness(zkr.TreeListener(three, "/t", depth=1), _below("/t", depth=1)),
        Witness(zkr.TreeListener(one, "/t/a", "/t/b", "/t/a/a"), _below("/t/a", "/t/b")),
        Witness(zkr.TreeListener(two, "/t", include=include), without_b),
        Witness(zkr.ChildrenListener(three, "/t"), _below("/t", depth=1, own=False)),
        Witness(zkr.ChildrenListener(one, "/t/a", data=False), _below("/t/a", depth=1, own=False), data=False),
        Witness(zkr.ChildrenListener(two, "/t/a/a"), _below("/t/a/a", depth=1, own=False)),
        Witness(zkr.NodeListener(three, *PATHS), PATHS.__contains__),
        Witness(zkr.NodeListener(one, "/t/c", "/t/b/b"), ("/t/c", "/t/b/b").__contains__),
    ]


@final
class Faults:
    """What goes wrong, one after the other, in an order by chance."""

    def __init__(self, ensemble: ZooKeeperEnsemble, proxies: list[FaultProxy], clients: list[zkr.Client]) -> None:
        self._ensemble = ensemble
        self._proxies = proxies
        self._clients = clients
        self._chance = random.Random(7)
        self.happened: list[str] = []

    def run(self, seconds: float) -> None:
        """Faults for so many seconds; afterwards all is whole again."""
        end = threading.Event()
        timer = threading.Timer(seconds, end.set)
        timer.start()
        kinds = ("cut", "expire", "cut", "silence", "kill", "refuse")
        for kind in itertools.cycle(kinds):
            if end.is_set() and len(self.happened) >= len(kinds):
                break
            getattr(self, f"_{kind}")()
            self.happened.append(kind)
            linger(self._chance.choice((0.05, 0.2, 0.4)))
        timer.join()
        for proxy in self._proxies:
            proxy.heal()
        self._ensemble.start()

    def _cut(self) -> None:
        self._chance.choice(self._proxies).cut()

    def _expire(self) -> None:
        client = self._chance.choice(self._clients).client_id
        if client is not None and client[0]:
            self._ensemble.expire(client)

    def _kill(self) -> None:
        server = self._chance.choice(self._ensemble.servers)
        self._ensemble.kill(server)
        linger(0.3)
        self._ensemble.start()

    def _refuse(self) -> None:
        for proxy in self._proxies:
            proxy.refuse()
        linger(0.5)
        for proxy in self._proxies:
            proxy.heal()

    def _silence(self) -> None:
        proxy = self._chance.choice(self._proxies)
        proxy.blackhole(self._chance.choice(("both", "to_client", "to_server")))
        linger(0.6)
        proxy.cut()
        proxy.heal()


def _read(zk: zkr.Client, path: str = "/t") -> Tree:
    try:
        tree = {path: zk.get(path).value}
        for name in zk.children(path):
            tree.update(_read(zk, f"{path}/{name}"))
    except zkr.NodeNotFoundError:
        return {}
    return tree


@contextmanager
def _connected(proxies: list[FaultProxy], namespace: str, watches: str) -> Iterator[list[zkr.Client]]:
    """Three clients, each by another order of servers."""
    with ExitStack() as stack:
        clients = []
        for turn in range(3):
            hosts = ",".join(proxy.hosts for proxy in (*proxies[turn:], *proxies[:turn]))
            client = stack.enter_context(zkr.connect(hosts, namespace=namespace, session_timeout=4.0))
            if watches == "one-shot":
                client.core.session.watches.recursive = client.core.session.watches.batches = False
            clients.append(client)
        yield clients


@pytest.mark.timeout(120)
@pytest.mark.parametrize("watches", ["persistent", "one-shot"])
def test_equality_under_faults(zkr_ensemble: ZooKeeperEnsemble, watches: str) -> None:
    """J8, the whole promise: within two seconds of quiet every listener equals the tree, and so does what it told."""
    namespace = f"/equality-{os.getpid()}-{next(_numbers)}"
    left = Leftovers()
    with ExitStack() as stack:
        proxies = [stack.enter_context(FaultProxy(server)) for server in zkr_ensemble.servers]
        clients = stack.enter_context(_connected(proxies, namespace, watches))
        witnesses = _witnesses(clients)
        for witness in witnesses:
            witness.start()
        writers = [Writer(zkr_ensemble.hosts, namespace, number) for number in range(WRITERS)]
        try:
            faults = Faults(zkr_ensemble, proxies, clients)
            faults.run(SECONDS)
            wait_until(lambda: all(zk.state is zkr.State.CONNECTED for zk in clients), 30.0, "all are connected")
            linger(0.3)  # of changes without faults
        finally:
            for writer in writers:
                writer.stop()
        reader = stack.enter_context(zkr.connect(zkr_ensemble.hosts, namespace=namespace))
        reader.sync()
        tree = _read(reader)

        def troubles() -> list[str]:
            return [trouble for witness in witnesses if (trouble := witness.trouble(tree))]

        wait_until(lambda: not troubles(), QUIET, lambda: f"{troubles()} after {faults.happened}")
        assert _read(reader) == tree, "it was quiet"
        assert [fault for witness in witnesses for fault in witness.faults()] == []
        assert not [error for writer in writers for error in writer.errors]
        assert min(writer.done for writer in writers) > 50
        assert len(witnesses[0].record.changes) > 50
        for witness in witnesses:
            witness.close()
        assert not any(client.core.session.watches._feeds for client in clients)
        for writer in writers:
            writer.close()
    left.none(files=False)
