"""Listeners: what is told of changes, and what is shown. The same for threads and asyncio, and for all watches."""

from __future__ import annotations

from typing import Any

import pytest

import zkrecipes as zkr
from tests.contracts.hall import Gardener, Hall
from tests.contracts.subjects import Later
from tests.listening import Record
from zkrecipes.testing import Server, wait_until

TREE = {"/t": b"root", "/t/a": b"1", "/t/a/x": b"2", "/t/b": b""}


def _values(snapshot: Any) -> dict[str, Any]:
    return {path: node.value for path, node in snapshot.items()}


# --- the first state --------------------------------------------------------------------------------------------------


def test_a_tree_is_complete_when_start_returns(hall: Hall, gardener: Gardener) -> None:
    """J1: "initialized" is told once, behind a CREATED for each node, the root included."""
    gardener.plant(TREE)
    tree = hall.tree("/t")
    record = Record(tree)
    assert hall.start(tree) is tree
    assert _values(tree.snapshot()) == TREE
    assert list(tree.snapshot()) == sorted(TREE)
    for path, data in TREE.items():
        node = tree.get(path)
        assert (node.path, node.value, node.stat.czxid) == (path, data, gardener.get(path).stat.czxid)
    assert tree.get("/t/none") is None
    assert tree.get("/elsewhere") is None
    assert tree.fresh
    record.wait_for("initialized")
    assert record.told[-1] == "initialized"
    assert sorted(record.told[:-1]) == [("created", path, None, TREE[path]) for path in sorted(TREE)]
    paths = [path for _, path, _, _ in record.changes]
    assert paths.index("/t") < paths.index("/t/a") < paths.index("/t/a/x")


def test_nodes_and_children_are_complete_when_start_returns(hall: Hall, gardener: Gardener) -> None:
    """J1: of the nodes alone; J15: of the children alone, without the parent and what is farther below."""
    gardener.plant(TREE)
    nodes, children = hall.start(hall.nodes("/t/a", "/none", "/t/a")), hall.start(hall.children("/t"))
    assert _values(nodes.snapshot()) == {"/t/a": b"1"}
    assert _values(children.snapshot()) == {"/t/a": b"1", "/t/b": b""}
    assert children.get("/t") is None
    assert children.get("/t/a/x") is None


def test_only_after_the_first_state(hall: Hall, gardener: Gardener) -> None:
    """J3: who asks for it is spared what was there before."""
    gardener.plant(TREE)
    tree = hall.tree("/t")
    late, all_ = Record(tree, after_initial=True), Record(tree)
    hall.start(tree)
    late.wait_for("initialized")
    gardener.create("/t/c", b"new")
    late.wait_for(("created", "/t/c", None, b"new"))
    assert late.told == ["initialized", ("created", "/t/c", None, b"new")]
    all_.wait_equal({**TREE, "/t/c": b"new"})


def test_starting_twice_and_late(hall: Hall, gardener: Gardener) -> None:
    gardener.plant(TREE)
    tree = hall.start(hall.tree("/t"))
    hall.start(tree)
    told: list[str] = []
    tree.on_initialized(lambda: told.append("initialized"))
    wait_until(lambda: told == ["initialized"], 5.0, "who comes late is told at once")
    assert _values(tree.snapshot()) == TREE


# --- changes ----------------------------------------------------------------------------------------------------------


def test_one_event_for_each_change(hall: Hall, gardener: Gardener) -> None:
    """J2: with the old value and the new one, and the metadata that belong to it."""
    gardener.plant(TREE)
    tree = hall.tree("/t")
    record = Record(tree)
    stats: list[zkr.Stat] = []
    tree.on_changed(lambda change: stats.append(change.stat))
    hall.start(tree)
    record.wait_for("initialized")
    record.clear()
    gardener.create("/t/c", b"new")
    record.wait_for(("created", "/t/c", None, b"new"))
    stat = gardener.set("/t/a", b"3")
    record.wait_for(("changed", "/t/a", b"1", b"3"))
    gardener.delete("/t/b")
    record.wait_for(("deleted", "/t/b", b"", None))
    assert len(record.told) == 3
    wait_until(lambda: stats, 5.0)
    assert [(each.czxid, each.mzxid, each.version) for each in stats] == [(stat.czxid, stat.mzxid, 1)]
    record.wait_equal({"/t": b"root", "/t/a": b"3", "/t/a/x": b"2", "/t/c": b"new"})


def test_each_kind_has_its_callbacks(hall: Hall, gardener: Gardener) -> None:
    """J4: for those that are asked for, and for no other."""
    gardener.plant(TREE)
    tree = hall.tree("/t")
    told: dict[str, list[str]] = {"created": [], "changed": [], "deleted": []}
    for kind, paths in told.items():
        getattr(tree, f"on_{kind}")(lambda change, paths=paths: paths.append(change.path))
    ended = Record(tree)
    hall.start(tree)
    ended.wait_for("initialized")
    gardener.set("/t/a/x", b"3")
    ended.wait_for(("changed", "/t/a/x", b"2", b"3"))
    gardener.delete("/t/b")
    ended.wait_for(("deleted", "/t/b", b"", None))
    told["created"].sort()
    assert told == {"created": sorted(TREE), "changed": ["/t/a/x"], "deleted": ["/t/b"]}


def test_a_registration_is_taken_off(hall: Hall, gardener: Gardener) -> None:
    gardener.plant(TREE)
    nodes = hall.nodes("/t")
    told: list[bytes] = []
    registration = nodes.on_changed(lambda change: told.append(change.new))
    stays = Record(nodes)
    hall.start(nodes)
    stays.wait_for("initialized")
    gardener.set("/t", b"1")
    stays.wait_for(("changed", "/t", b"root", b"1"))
    registration.cancel()
    registration.cancel()
    gardener.set("/t", b"2")
    stays.wait_for(("changed", "/t", b"1", b"2"))
    assert told == [b"1"]


def test_decorators(hall: Hall, gardener: Gardener) -> None:
    """Each form gives the registration, as `cancel` shows."""
    gardener.plant(TREE)
    nodes: zkr.NodeListener = hall.nodes("/t")
    told: list[str] = []

    @nodes.on_created
    def created(change: Any) -> None:
        told.append(f"created {change.path}")

    @nodes.on_changed(after_initial=True)
    def changed(change: Any) -> None:
        told.append(f"changed {change.path}")

    @nodes.on_deleted()
    def deleted(change: Any) -> None:
        told.append(f"deleted {change.path}")

    assert all(isinstance(each, zkr.Registration) for each in (created, changed, deleted))
    record = Record(nodes)
    hall.start(nodes)
    record.wait_for("initialized")
    gardener.set("/t", b"1")
    record.wait_for(("changed", "/t", b"root", b"1"))
    changed.cancel()
    gardener.set("/t", b"2")
    record.wait_for(("changed", "/t", b"1", b"2"))
    gardener.uproot(*TREE)
    record.wait_for(("deleted", "/t", b"2", None))
    assert told == ["created /t", "changed /t", "deleted /t"]


@pytest.mark.parametrize("kind", ["nodes", "tree", "children"])
def test_what_is_not_there_yet_goes_and_comes_back(hall: Hall, gardener: Gardener, kind: str) -> None:
    """J5: the root, too."""
    listener = getattr(hall, kind)("/t")
    record = Record(listener)
    hall.start(listener)
    record.wait_for("initialized")
    assert listener.snapshot() == {}
    shown = {"nodes": {"/t"}, "children": {"/t/a", "/t/b"}, "tree": set(TREE)}[kind]
    expected = {path: data for path, data in TREE.items() if path in shown}
    for _ in range(2):
        for path, data in TREE.items():
            gardener.create(path, data)
        record.wait_equal(expected)
        gardener.uproot(*TREE)
        record.wait_equal({})
    assert len(record.changes) == 4 * len(shown)
    wait_until(lambda: listener.snapshot() == {}, 5.0)


@pytest.mark.parametrize("options", [{}, {"data": False}], ids=["data", "no data"])
def test_children_of_a_parent_that_comes_goes_and_is_made_again(
    hall: Hall, gardener: Gardener, options: dict[str, Any]
) -> None:
    """J5 for a parent with and without children when it comes; J6 without data."""
    children, data = hall.children("/p", **options), not options
    record = Record(children)
    hall.start(children)
    gardener.create("/p")
    gardener.create("/p/a", b"1")
    record.wait_equal({"/p/a": b"1" if data else None})
    gardener.replant(["/p", "/p/a"], {"/p": b"", "/p/b": b"2"})
    record.wait_equal({"/p/b": b"2" if data else None})
    gardener.uproot("/p", "/p/b")
    record.wait_equal({})
    gardener.plant({"/p": b"", "/p/c": b"3"})
    record.wait_equal({"/p/c": b"3" if data else None})
    gardener.create("/p/d", b"4")
    record.wait_equal({"/p/c": b"3" if data else None, "/p/d": b"4" if data else None})


def test_children_without_their_data(hall: Hall, gardener: Gardener) -> None:
    """J6: events still come; a CHANGED says only that it was set. J15: grandchildren are not told."""
    gardener.plant(TREE)
    children = hall.children("/t", data=False)
    record = Record(children)
    hall.start(children)
    assert _values(children.snapshot()) == {"/t/a": None, "/t/b": None}
    record.wait_for("initialized")
    record.clear()
    gardener.create("/t/b/deep", b"x")
    gardener.set("/t/a/x", b"x")
    gardener.set("/t/b", b"x")
    record.wait_for(("changed", "/t/b", None, None))
    gardener.delete("/t/a/x")
    gardener.delete("/t/a")
    record.wait_for(("deleted", "/t/a", None, None))
    assert len(record.told) == 2
    assert record.replay.faults == []


def test_a_node_made_again_is_another_one(hall: Hall, gardener: Gardener) -> None:
    """Deleted and made in one transaction, with the same bytes and version: DELETED, then CREATED."""
    gardener.plant({"/n": b"x"})
    nodes = hall.nodes("/n")
    record = Record(nodes)
    hall.start(nodes)
    record.wait_for("initialized")
    record.clear()
    gardener.replant(["/n"], {"/n": b"x"})
    record.wait_for(("deleted", "/n", b"x", None), ("created", "/n", None, b"x"))
    assert record.told == [("deleted", "/n", b"x", None), ("created", "/n", None, b"x")]


def test_the_same_bytes_again_are_no_news(hall: Hall, gardener: Gardener) -> None:
    gardener.plant({"/n": b"x", "/m": b"x"})
    nodes = hall.nodes("/n", "/m")
    record = Record(nodes)
    hall.start(nodes)
    record.wait_for("initialized")
    record.clear()
    stat = gardener.set("/n", b"x")
    wait_until(lambda: nodes.get("/n").stat.mzxid == stat.mzxid, 5.0, "it was read again")
    gardener.set("/m", b"y")
    record.wait_for(("changed", "/m", b"x", b"y"))
    assert record.told == [("changed", "/m", b"x", b"y")]


def test_order_of_parents_and_children(hall: Hall, gardener: Gardener) -> None:
    """Children are deleted before their parents, and created after them."""
    gardener.plant(TREE)
    tree = hall.tree("/t")
    record = Record(tree)
    hall.start(tree)
    record.wait_for("initialized")
    record.clear()
    again = dict.fromkeys(TREE, b"again")
    gardener.replant(TREE, again)
    record.wait_equal(again)
    # Those below may come and go once more, if they were read before their parents.
    assert {(kind, path) for kind, path, _, _ in record.changes} == {
        (kind, path) for kind in ("deleted", "created") for path in TREE
    }


def test_each_node_in_order_to_the_newest_state(hall: Hall, gardener: Gardener) -> None:
    """Steps between may be merged: the old value is always the one that was told before."""
    gardener.plant({"/n": b"0", "/m": b"0"})
    nodes = hall.nodes("/n", "/m")
    record = Record(nodes)
    hall.start(nodes)
    for number in range(1, 101):
        gardener.set("/n" if number % 3 else "/m", b"%d" % number)
    record.wait_equal({"/n": b"100", "/m": b"99"})
    for path in ("/n", "/m"):
        news = [int(new) for _, each, _, new in record.changes if each == path]
        assert news == sorted(set(news))


# --- which part of the tree -------------------------------------------------------------------------------------------

DEEP = {"/d": b"0", "/d/a": b"1", "/d/a/b": b"2", "/d/a/b/c": b"3", "/d/e": b"4"}


@pytest.mark.parametrize("depth", [0, 1, 2, None])
def test_depth(hall: Hall, gardener: Gardener, depth: int | None) -> None:
    """J14: so many levels below the root are looked at, and changes farther down are not told."""
    gardener.plant(DEEP)
    tree = hall.tree("/d", depth=depth)
    record = Record(tree)
    hall.start(tree)
    levels = 9 if depth is None else depth
    expected = {path: data for path, data in DEEP.items() if path.count("/") - 1 <= levels}
    assert _values(tree.snapshot()) == expected
    new = {"/d/f": b"5", "/d/f/g": b"6", "/d/f/g/h": b"7"}
    gardener.plant(new)
    gardener.set("/d/a/b/c", b"8")
    gardener.set("/d", b"9")
    now = {**DEEP, **new, "/d/a/b/c": b"8", "/d": b"9"}
    record.wait_equal({path: data for path, data in now.items() if path.count("/") - 1 <= levels})


def test_include(hall: Hall, gardener: Gardener) -> None:
    """J14: what is left out is left out with all that is below it, now and later; each path is asked for once."""
    gardener.plant(DEEP)
    asked: list[str] = []

    def include(path: str) -> bool:
        asked.append(path)
        return not path.endswith("/b")

    tree = hall.tree("/d", include=include)
    record = Record(tree)
    hall.start(tree)
    assert _values(tree.snapshot()) == {"/d": b"0", "/d/a": b"1", "/d/e": b"4"}
    gardener.set("/d/a/b/c", b"9")
    gardener.plant({"/d/b": b"", "/d/b/x": b"", "/d/g": b"5"})
    record.wait_equal({"/d": b"0", "/d/a": b"1", "/d/e": b"4", "/d/g": b"5"})
    assert tree.get("/d/a/b") is None
    assert tree.get("/d/a/b/c") is None
    assert len(asked) == len(set(asked))
    assert "/d" not in asked


def test_an_include_that_raises(hall: Hall, gardener: Gardener) -> None:
    """Rather a node too many than one that is missed."""
    gardener.plant(DEEP)

    def include(path: str) -> bool:
        if path == "/d/a":
            raise RuntimeError(path)
        return path != "/d/e"

    tree = hall.tree("/d", include=include)
    record = Record(tree)
    hall.start(tree)
    record.wait_equal({path: data for path, data in DEEP.items() if path != "/d/e"})
    wait_until(lambda: [str(error) for error in record.errors] == ["/d/a"], 5.0, lambda: str(record.errors))


def test_roots_that_overlap(hall: Hall, gardener: Gardener) -> None:
    """Each node is there once, and told once; the farthest depth counts."""
    gardener.plant(DEEP)
    tree = hall.tree("/d", "/d/a/b", "/d/a", "/none", depth=1)
    record = Record(tree)
    hall.start(tree)
    assert _values(tree.snapshot()) == DEEP
    gardener.set("/d/a", b"9")
    gardener.delete("/d/a/b/c")
    gardener.create("/none", b"there")
    gardener.create("/none/x", b"there")
    gardener.create("/none/x/deeper", b"")
    now = {**DEEP, "/d/a": b"9", "/none": b"there", "/none/x": b"there"}
    del now["/d/a/b/c"]
    record.wait_equal(now)
    gardener.uproot("/d/a/b", "/d/a")
    record.wait_for(("deleted", "/d/a", b"9", None))
    gardener.plant({"/d/a": b"again", "/d/a/b": b"again", "/d/a/b/z": b"z"})
    record.wait_equal({**now, "/d/a": b"again", "/d/a/b": b"again", "/d/a/b/z": b"z"})


def test_the_root_of_the_namespace(hall: Hall, gardener: Gardener) -> None:
    """ "/" is the namespace itself, and paths are told below it."""
    gardener.plant(TREE)
    tree, children, nodes = hall.tree("/"), hall.children("/"), hall.nodes("/")
    for listener, expected in (
        (tree, {"/": b"", **TREE}),
        (children, {"/t": b"root"}),
        (nodes, {"/": b""}),
    ):
        record = Record(listener)
        hall.start(listener)
        assert _values(listener.snapshot()) == expected
        record.wait_equal(expected)
    assert tree.get("/").path == "/"
    record = Record(nodes)
    gardener.set("", b"9")
    record.wait_for(("changed", "/", b"", b"9"))


# --- several listeners ------------------------------------------------------------------------------------------------


def test_listeners_of_one_client_are_independent(hall: Hall, gardener: Gardener, zkr_server: Server) -> None:
    """J18: closing one takes nothing from another on the same nodes."""
    gardener.plant(TREE)
    listeners = [hall.tree("/t"), hall.tree("/t"), hall.nodes("/t", "/t/a"), hall.children("/t")]
    records = [Record(listener) for listener in listeners]
    for listener, record in zip(listeners, records, strict=True):
        hall.start(listener)
        record.wait_for("initialized")
    values = [b"1st", b"2nd", b"3rd", b"4th"]
    old = b"1"
    for number, value in enumerate(values):
        gardener.set("/t/a", value)
        for record in records[number:]:
            record.wait_for(("changed", "/t/a", old, value))
        old = value
        hall.close_listener(listeners[number])
    for number, record in enumerate(records):
        assert [new for kind, _, _, new in record.changes if kind == "changed"] == values[: number + 1]
        assert record.replay.faults == []


def test_listeners_beside_a_lock_and_an_election_on_their_roots(hall: Hall, gardener: Gardener) -> None:
    """ZOOKEEPER-4466: a one-shot watch on exactly the root of a persistent one would take its place."""
    lock, election = hall.package.Lock(hall.client, "/r/lock"), hall.package.Election(hall.client, "/r/office")
    gardener.plant({"/r": b"", "/r/lock": b"", "/r/office": b""})
    listeners = [hall.tree("/r/lock"), hall.tree("/r/office"), hall.children("/r/lock"), hall.tree("/r")]
    records = [Record(listener) for listener in listeners]
    for listener in listeners:
        hall.start(listener)

    def compete() -> Later:
        """Both are held, let go and taken by who waits in line, with all that this watches."""
        held, led = hall.do(lambda: lock.acquire(5.0)), hall.do(lambda: election.campaign(5.0))
        # Those with a time wait: they watch, and give their watches up again.
        assert hall.do(lambda: lock.try_acquire(0.1)) is None
        assert hall.do(lambda: election.try_campaign(0.1)) is None
        next_held = Later(lambda: hall.do(lambda: lock.acquire(10.0)))
        next_led = Later(lambda: hall.do(lambda: election.campaign(10.0)))
        wait_until(lambda: len(hall.do(lock.contenders)) == 2, 5.0, "it stands in line")
        wait_until(lambda: len(hall.do(election.participants)) == 2, 5.0, "it stands in line")
        hall.do(held.release)
        hall.do(led.resign)
        hall.do(next_led.result().resign)
        return next_held

    for _ in range(2):
        held = compete().result()
        there = gardener.tree("/r")
        for listener, record in zip(listeners, records, strict=True):
            root = {0: "/r/lock", 1: "/r/office", 2: "/r/lock/", 3: "/r"}[records.index(record)]
            if not listener.closed:
                record.wait_equal({path: data for path, data in there.items() if path.startswith(root)})
        hall.do(held.release)
        hall.close_listener(listeners[0])
        hall.close_listener(listeners[1])
    for listener in listeners:
        hall.close_listener(listener)
    hall.do(compete().result().release)


# --- codecs -----------------------------------------------------------------------------------------------------------


def test_typed_values(hall: Hall, gardener: Gardener) -> None:
    gardener.plant({"/c": b"1", "/c/a": b"2"})
    tree = hall.tree("/c", codec=zkr.IntCodec())
    record = Record(tree)
    hall.start(tree)
    gardener.set("/c/a", b"7")
    record.wait_equal({"/c": 1, "/c/a": 7})
    assert tree.get("/c/a").value == 7
    assert _values(tree.snapshot()) == {"/c": 1, "/c/a": 7}


def test_what_does_not_decode(hall: Hall, gardener: Gardener) -> None:
    """It is reported once, shown by `get` alone; what was told before still stands until the next good value."""
    gardener.plant({"/c": b"1", "/bad": b"bad"})
    nodes = hall.nodes("/c", "/bad", codec=zkr.IntCodec())
    record = Record(nodes)
    hall.start(nodes)
    record.wait_for("initialized")
    assert [(error.path, error.raw) for error in record.errors if isinstance(error, zkr.DecodeError)] == [
        ("/bad", b"bad")
    ]
    with pytest.raises(zkr.DecodeError, match="/bad"):
        nodes.get("/bad")
    assert _values(nodes.snapshot()) == {"/c": 1}
    gardener.set("/c", b"worse")
    wait_until(lambda: len(record.errors) == 2, 5.0, lambda: str(record.told))
    assert record.replay.map == {"/c": 1}
    gardener.set("/c", b"2")
    record.wait_for(("changed", "/c", 1, 2))
    gardener.set("/bad", b"3")
    record.wait_for(("created", "/bad", None, 3))
    gardener.set("/bad", b"bad")
    wait_until(lambda: len(record.errors) == 3, 5.0, lambda: str(record.told))
    gardener.delete("/bad")
    record.wait_for(("deleted", "/bad", 3, None))
    record.wait_equal({"/c": 2})
    assert len(record.errors) == 3


# --- snapshots --------------------------------------------------------------------------------------------------------


def test_snapshots_stay_as_they_are(hall: Hall, gardener: Gardener) -> None:
    gardener.plant(TREE)
    tree = hall.start(hall.tree("/t"))
    before = tree.snapshot()
    assert tree.snapshot() is before, "nothing has changed"
    gardener.set("/t/a", b"9")
    gardener.delete("/t/b")
    gardener.create("/t/c")
    after = hall.wait_for(tree, lambda nodes: "/t/c" in nodes)
    assert _values(before) == TREE
    assert _values(after) == {"/t": b"root", "/t/a": b"9", "/t/a/x": b"2", "/t/c": b""}
    with pytest.raises(TypeError):
        before["/t/d"] = None


def test_repr_tells_paths_size_and_state(hall: Hall, gardener: Gardener) -> None:
    gardener.plant(TREE)
    tree = hall.tree("/t")
    assert "stale" in repr(tree)
    hall.start(tree)
    assert repr(tree) == "<TreeListener /t 4 nodes fresh>"
    hall.close_listener(tree)
    assert "closed" in repr(tree)
