"""Our listeners beside Curator's caches and kazoo's watches: each side is told what the other one writes."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple

import pytest
from kazoo.client import KazooClient
from kazoo.exceptions import NodeExistsError, NoNodeError, NotEmptyError
from kazoo.recipe.cache import TreeCache
from kazoo.recipe.watchers import ChildrenWatch, DataWatch

import zkrecipes as zkr
from tests.interop import caches
from tests.interop.caches import CachedNode, CuratorCache
from tests.interop.peer import CuratorPeer, PeerError
from tests.listening import Record
from zkrecipes.testing import FaultProxy, Server, wait_until

_LIMIT: Final = 10.0
_QUIET: Final = 20.0
_CHANGES: Final = 400


class Writer(NamedTuple):
    """Writes in the name of one library."""

    create: Callable[[str, str], object]
    put: Callable[[str, str], object]
    delete: Callable[[str], object]


def _curators(peer: CuratorPeer) -> Writer:
    return Writer(
        lambda path, data: caches.create(peer, path, data),
        lambda path, data: caches.put(peer, path, data),
        lambda path: caches.delete(peer, path),
    )


def _kazoos(client: KazooClient) -> Writer:
    return Writer(
        lambda path, data: client.create(path, data.encode(), makepath=True),
        lambda path, data: client.set(path, data.encode()),
        lambda path: client.delete(path, recursive=True),
    )


def _ours(client: zkr.Client) -> Writer:
    return Writer(
        lambda path, data: client.create(path, data.encode(), parents=True),
        lambda path, data: client.set(path, data.encode()),
        client.delete,
    )


@pytest.fixture(params=["curator", "kazoo"])
def writer(request: pytest.FixtureRequest, kazoo: KazooClient) -> Writer:
    """One who writes and is not us."""
    return _kazoos(kazoo) if request.param == "kazoo" else _curators(request.getfixturevalue("curator"))


def _told(record: Record, *expected: tuple[str, str, bytes | None, bytes | None]) -> None:
    wait_until(
        lambda: record.marks() and record.changes == list(expected),
        _LIMIT,
        lambda: f"{expected} is told, not {record.told}",
    )
    assert not record.replay.faults


@pytest.mark.parametrize("kind", [zkr.NodeListener, zkr.TreeListener])
def test_writes_of_others_are_told(
    zk: zkr.Client, writer: Writer, path: str, kind: Callable[[zkr.Client, str], zkr.NodeListener | zkr.TreeListener]
) -> None:
    listener = kind(zk, path)
    record = Record(listener)
    with listener:
        expected: list[tuple[str, str, bytes | None, bytes | None]] = [("created", path, None, b"one")]
        writer.create(path, "one")
        _told(record, *expected)
        writer.put(path, "two")
        expected.append(("changed", path, b"one", b"two"))
        _told(record, *expected)
        writer.delete(path)
        expected.append(("deleted", path, b"two", None))
        _told(record, *expected)
        writer.create(path, "two")
        expected.append(("created", path, None, b"two"))
        _told(record, *expected)


def test_children_written_by_others_are_told(zk: zkr.Client, writer: Writer, path: str) -> None:
    listener = zkr.ChildrenListener(zk, path)
    record = Record(listener)
    with listener:
        writer.create(f"{path}/a", "1")
        _told(record, ("created", f"{path}/a", None, b"1"))
        writer.put(f"{path}/a", "2")
        writer.create(f"{path}/a/grandchild", "")
        wait_until(lambda: record.replay.map == {f"{path}/a": b"2"}, _LIMIT, lambda: f"a is 2: {record.told}")
        writer.delete(path)
        wait_until(lambda: not record.replay.map, _LIMIT, lambda: f"nothing is left: {record.told}")


def test_our_writes_reach_curators_cache(zk: zkr.Client, curator: CuratorPeer, path: str) -> None:
    with CuratorCache(curator, path) as cache:
        cache.wait(_LIMIT)
        zk.create(path, b"one", parents=True)
        zk.set(path, b"two")
        wait_until(lambda: {key: node.data for key, node in cache.nodes().items()} == {path: "two"}, _LIMIT)
        with zk.transaction() as transaction:
            transaction.create(f"{path}/child", b"three")
            transaction.set(path, b"four")
        expected = {path: "four", f"{path}/child": "three"}
        wait_until(lambda: {key: node.data for key, node in cache.nodes().items()} == expected, _LIMIT)
        zk.delete(f"{path}/child")
        zk.delete(path)
        wait_until(lambda: not cache.nodes(), _LIMIT)
        wait_until(lambda: cache.events()[-1] == f"NODE_DELETED {path} four", _LIMIT, lambda: str(cache.events()))


def test_our_writes_reach_kazoos_watches(zk: zkr.Client, kazoo: KazooClient, path: str) -> None:
    data: list[bytes | None] = []
    children: list[list[str]] = []
    zk.create(path, b"one", parents=True)
    DataWatch(kazoo, path, lambda value, _stat: data.append(value))
    ChildrenWatch(kazoo, path, children.append)
    tree = TreeCache(kazoo, path)
    tree.start()
    zk.set(path, b"two")
    zk.create(f"{path}/child", b"three")
    wait_until(lambda: data == [b"one", b"two"], _LIMIT, lambda: f"two is told: {data}")
    wait_until(lambda: children == [[], ["child"]], _LIMIT, lambda: f"a child is told: {children}")
    wait_until(lambda: (tree.get_data(f"{path}/child") or ("", b""))[1] == b"three", _LIMIT, "the TreeCache has it")
    zk.delete(f"{path}/child")
    wait_until(lambda: children[-1] == [], _LIMIT, lambda: f"no child is told: {children}")
    tree.close()


# --- over the same changes --------------------------------------------------------------------------------------------


def _known(nodes: Mapping[str, zkr.Node[bytes]]) -> dict[str, CachedNode]:
    return {path: CachedNode(node.value.decode(), node.stat.czxid, node.stat.mzxid) for path, node in nodes.items()}


def _tree(kazoo: KazooClient, path: str) -> Iterator[tuple[str, CachedNode]]:
    data, stat = kazoo.get(path)
    yield path, CachedNode(data.decode(), stat.czxid, stat.mzxid)
    for name in kazoo.get_children(path):
        yield from _tree(kazoo, f"{path}/{name}")


def _change(writer: Writer, chance: random.Random, paths: list[str]) -> None:
    path = chance.choice(paths)
    value = str(chance.randrange(3))
    steps: list[Callable[[], object]] = [
        lambda: writer.create(path, value),
        lambda: writer.put(path, value),
        lambda: writer.delete(path),
    ]
    # It was there, or was not: the next one may do better.
    with contextlib.suppress(PeerError, NodeExistsError, NoNodeError, NotEmptyError, zkr.ZkRecipesError):
        chance.choice(steps)()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_curators_cache_and_our_listener_end_equal(
    zk: zkr.Client, kazoo: KazooClient, curator: CuratorPeer, path: str, seed: int
) -> None:
    """Three libraries write; few names and values, so that nodes come back with equal versions and equal data."""
    chance = random.Random(seed)
    names = [f"{path}/{branch}" for branch in "ab"] + [f"{path}/{branch}/{leaf}" for branch in "ab" for leaf in "xyz"]
    writers = [_ours(zk), _kazoos(kazoo), _curators(curator)]
    kazoo.ensure_path(path)
    listener = zkr.TreeListener(zk, path)
    record = Record(listener)
    with CuratorCache(curator, path) as cache, listener:
        cache.wait(_LIMIT)
        for _ in range(_CHANGES):
            _change(chance.choice(writers), chance, names)
        truth = dict(_tree(kazoo, path))
        wait_until(lambda: _known(listener.snapshot()) == truth, _QUIET, lambda: f"ours equals {truth}")
        wait_until(lambda: cache.nodes() == truth, _QUIET, lambda: f"Curator's {cache.nodes()} equals {truth}")
        values = {key: node.data.encode() for key, node in truth.items()}
        wait_until(lambda: record.replay.map == values, _LIMIT, lambda: f"{record.replay.map} equals {values}")
        assert not record.replay.faults
        texts = {key: node.data for key, node in truth.items()}
        wait_until(lambda: _replayed(cache.events()) == texts, _LIMIT, "Curator's events make the same map")


def _replayed(events: list[str]) -> dict[str, str]:
    known: dict[str, str] = {}
    for event in events:
        kind, path, data = event.split(" ")
        if kind == "NODE_DELETED":
            known.pop(path, None)
        else:
            known[path] = data
    return known


# --- on one borrowed client -------------------------------------------------------------------------------------------


class Shared(NamedTuple):
    """A kazoo client with watches of its user and listeners of ours, on the same nodes.

    Attributes:
        proxy: Between the client and the server.
        data: What the user's DataWatch was told.
        children: What the user's ChildrenWatch was told.
        records: What our listeners were told: the node's, the children's, the tree's.
        close: Closes our listeners.
    """

    client: KazooClient
    proxy: FaultProxy
    data: list[bytes | None]
    children: list[list[str]]
    records: tuple[Record, Record, Record]
    close: Callable[[], None]

    def wait(self, path: str, value: bytes, names: set[str]) -> None:
        """Wait until both sides know the node's value and its children."""
        node, children, tree = (record.replay for record in self.records)
        below = {f"{path}/{name}": b"" for name in names}
        wait_until(lambda: self.data[-1] == value, _LIMIT, lambda: f"the DataWatch has {value!r}: {self.data}")
        wait_until(lambda: set(self.children[-1]) == names, _LIMIT, lambda: f"the ChildrenWatch: {self.children}")
        wait_until(lambda: node.map == {path: value}, _LIMIT, lambda: f"the NodeListener: {node.map}")
        wait_until(lambda: children.map == below, _LIMIT, lambda: f"the ChildrenListener: {children.map}")
        wait_until(lambda: tree.map == {path: value, **below}, _LIMIT, lambda: f"the TreeListener: {tree.map}")
        assert not any(record.replay.faults for record in self.records)


@pytest.fixture(params=["ours first", "user first"])
def shared(request: pytest.FixtureRequest, zkr_server: Server, kazoo: KazooClient, path: str) -> Iterator[Shared]:
    kazoo.create(path, b"0", makepath=True)
    data: list[bytes | None] = []
    children: list[list[str]] = []
    with FaultProxy(zkr_server) as proxy:
        client = KazooClient(proxy.hosts)
        client.start()

        def watch() -> None:
            DataWatch(client, path, lambda value, _stat: data.append(value))
            ChildrenWatch(client, path, children.append)

        try:
            if request.param == "user first":
                watch()
            with zkr.Client(client) as borrowed:
                listeners = (
                    zkr.NodeListener(borrowed, path),
                    zkr.ChildrenListener(borrowed, path),
                    zkr.TreeListener(borrowed, path),
                )
                records = (Record(listeners[0]), Record(listeners[1]), Record(listeners[2]))
                for listener in listeners:
                    listener.start()
                if request.param == "ours first":
                    watch()

                def close() -> None:
                    for listener in listeners:
                        listener.close()

                yield Shared(client, proxy, data, children, records, close)
        finally:
            client.stop()
            client.close()


def test_watches_of_a_borrowed_clients_user_and_ours_are_all_told(
    shared: Shared, kazoo: KazooClient, path: str
) -> None:
    for number in range(1, 6):
        kazoo.set(path, b"%d" % number)
        kazoo.create(f"{path}/child-{number}", b"")
        shared.wait(path, b"%d" % number, {f"child-{each}" for each in range(1, number + 1)})


def test_plain_watches_of_a_borrowed_clients_user_fire_once_each(shared: Shared, kazoo: KazooClient, path: str) -> None:
    for number in range(1, 6):
        fired: list[tuple[str, str]] = []
        shared.client.get(path, watch=lambda event: fired.append(("get", event.type)))  # noqa: B023
        shared.client.exists(path, watch=lambda event: fired.append(("exists", event.type)))  # noqa: B023
        shared.client.get_children(path, watch=lambda event: fired.append(("children", event.type)))  # noqa: B023
        kazoo.set(path, b"%d" % number)
        kazoo.create(f"{path}/child-{number}", b"")
        shared.wait(path, b"%d" % number, {f"child-{each}" for each in range(1, number + 1)})
        wait_until(lambda: len(fired) >= 3, _LIMIT, lambda: f"three have fired: {fired}")  # noqa: B023
        assert sorted(fired) == [("children", "CHILD"), ("exists", "CHANGED"), ("get", "CHANGED")]


def test_both_sides_of_a_borrowed_client_are_told_after_a_reconnect(
    shared: Shared, kazoo: KazooClient, path: str
) -> None:
    for number in range(1, 4):
        shared.proxy.refuse()
        kazoo.set(path, b"%d" % number)
        kazoo.create(f"{path}/child-{number}", b"")
        shared.proxy.heal()
        names = {f"child-{each}" for each in range(1, number + 1)}
        shared.wait(path, b"%d" % number, names)
        kazoo.set(path, b"again %d" % number)
        shared.wait(path, b"again %d" % number, names)


def test_closing_our_listeners_leaves_the_users_watches(shared: Shared, kazoo: KazooClient, path: str) -> None:
    shared.wait(path, b"0", set())
    shared.close()
    for number in range(1, 4):
        kazoo.set(path, b"%d" % number)
        kazoo.create(f"{path}/child-{number}", b"")
        wait_until(lambda: shared.data[-1] == b"%d" % number, _LIMIT, "the DataWatch is told")  # noqa: B023
        wait_until(lambda: len(shared.children[-1]) == number, _LIMIT, "the ChildrenWatch is told")  # noqa: B023
