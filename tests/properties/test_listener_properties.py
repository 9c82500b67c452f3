"""Random histories of a tree and of its readers: what is known equals the tree, and so does what was told."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.grove import Grove
from tests.unit.kit import World
from zkrecipes.changes import Consumer, EventKind, RawChange
from zkrecipes.known import Known, Seen, parent_of
from zkrecipes.mirror import Mirror
from zkrecipes.port import Stat
from zkrecipes.scope import Scope
from zkrecipes.timing import Deadline

PATHS: Final = ("/t", "/t/a", "/t/b", "/t/a/a", "/t/a/b", "/t/b/a", "/t/a/a/a", "/t-a")
CONTENTS: Final = (b"", b"x", b"y")
Content = dict[str, tuple[int, bytes]]


class Reader:
    """A consumer that replays what it is told, and complains of what cannot be."""

    def __init__(self, mirror: Mirror, *, data: bool) -> None:
        self.consumer = Consumer(mirror, data=data)
        self.map: dict[str, Seen] = {}
        self._data = data
        self._newest: dict[str, tuple[int, int]] = {}

    def take(self) -> None:
        for change in self.consumer.take():
            self._replay(change)

    def _replay(self, change: RawChange) -> None:
        kind, path, old, new = change
        known = self.map.get(path)
        assert (known is None) is (kind is EventKind.CREATED)
        assert (old and (old.stat.czxid, old.data)) == (known and (known.stat.czxid, known.data))
        if kind is not EventKind.CHANGED:
            assert not [each for each in self.map if each.startswith(f"{path}/")], "children go first, and come last"
        if new is None:
            assert kind is EventKind.DELETED
            del self.map[path]
            return
        newest = (new.stat.czxid, new.stat.mzxid)
        assert newest >= self._newest.get(path, newest)
        self._newest[path] = newest
        if kind is EventKind.CHANGED:
            assert known is not None
            assert known.stat.czxid == new.stat.czxid
            assert not self._data or known.data != new.data
        self.map[path] = new

    def content(self) -> Content:
        return {path: (seen.stat.czxid, seen.data) for path, seen in self.map.items()}


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of listener."""

    scope: Scope
    data: bool = True
    persistent: bool = True
    batches: bool = True


KINDS: Final = {
    "tree": Kind(Scope(("/t",))),
    "tree, one-shot": Kind(Scope(("/t",)), persistent=False),
    "tree, single reads": Kind(Scope(("/t",)), batches=False),
    "tree to depth 1": Kind(Scope(("/t", "/t/a/a"), depth=1)),
    "tree to depth 1, one-shot": Kind(Scope(("/t", "/t/a/a"), depth=1), persistent=False),
    "all": Kind(Scope(("/",))),
    "children": Kind(Scope(("/t",), depth=1, shows_roots=False)),
    "children, one-shot": Kind(Scope(("/t",), depth=1, shows_roots=False), persistent=False),
    "names": Kind(Scope(("/t/a",), depth=1, shows_roots=False), data=False),
    "names, one-shot": Kind(Scope(("/t/a",), depth=1, shows_roots=False), data=False, persistent=False),
    "nodes": Kind(Scope(PATHS, depth=0), persistent=False),
    "nodes without data": Kind(Scope(PATHS, depth=0), data=False, persistent=False),
}

actions = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.sampled_from(PATHS), st.sampled_from(CONTENTS)),
        st.tuples(st.just("write"), st.sampled_from(PATHS), st.sampled_from(CONTENTS)),
        st.tuples(st.just("delete"), st.sampled_from(PATHS), st.just(b"")),
        st.tuples(st.just("again"), st.sampled_from(PATHS), st.just(b"")),
        st.tuples(st.just("serve"), st.integers(1, 4), st.just(b"")),
        st.tuples(st.just("serve"), st.integers(1, 4), st.just(b"")),
        st.tuples(st.just("quiet"), st.just(0), st.just(b"")),
        st.tuples(st.just("take"), st.just(0), st.just(b"")),
        st.tuples(st.just("cut"), st.just(0), st.just(b"")),
    ),
    max_size=40,
)


def _act(grove: Grove, action: str, what: Any, data: bytes) -> None:
    nodes = grove.nodes
    if action == "serve":
        grove.serve(what)
    elif action == "quiet":
        while grove.serve():
            pass
    elif action == "cut":
        grove.cut()
        grove.world.connect()
    elif what in nodes:
        if action == "write":
            grove.write(what, data)
        elif action == "delete":
            grove.delete(what)
        elif action == "again":
            data = nodes[what].data
            grove.delete(what)
            grove.create(what, data)
    elif action == "write" and parent_of(what) in nodes:
        grove.create(what, data)


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=50)
@given(history=actions, planted=st.booleans())
def test_what_is_known_and_told_equals_the_tree(
    name: str,
    history: list[tuple[str, Any, bytes]],
    planted: bool,  # noqa: FBT001
) -> None:
    kind = KINDS[name]
    world = World()
    grove = Grove(world, persistent=kind.persistent, batches=kind.batches)
    for path in sorted(PATHS) if planted else ():
        grove.create(path)
    mirror = Mirror(grove.core, kind.scope, data=kind.data, persistent=kind.persistent, label="it")
    readers = [Reader(mirror, data=kind.data), Reader(mirror, data=kind.data)]
    started = world.run(mirror.start(Deadline.after(math.inf, 0.0)))
    for action, what, data in history:
        if action == "take":
            readers[0].take()
        else:
            _act(grove, action, what, data)
    while grove.serve():
        pass
    assert started.done
    assert mirror.fresh
    expected = {
        path: (node.czxid, node.data if kind.data else b"")
        for path, node in grove.nodes.items()
        if kind.scope.covers(path)
    }
    assert {path: (seen.stat.czxid, seen.data) for path, seen in mirror.nodes.items()} == expected
    shown = {path: state for path, state in expected.items() if kind.scope.shows(path)}
    late = Reader(mirror, data=kind.data)
    for reader in (*readers, late):
        reader.take()
        assert reader.content() == shown
        assert reader.consumer.take() == []
    # Nobody waits in vain, and nothing stays when it is closed.
    closing = world.run(mirror.close(5.0))
    while grove.serve():
        pass
    assert closing.done
    assert grove.watches == set()
    assert not world.session.watches._waiting
    world.end()


@settings(max_examples=200)
@given(
    reads=st.lists(
        st.tuples(st.sampled_from(PATHS), st.integers(1, 6), st.integers(0, 3), st.sampled_from(CONTENTS)), max_size=40
    )
)
def test_what_is_known_of_a_node_never_goes_backwards(reads: list[tuple[str, int, int, bytes]]) -> None:
    """Whatever the order of reads: the newest of each node stays, until it goes with the node above it."""
    told: list[str] = []
    known = Known(told.append)
    newest: dict[str, tuple[int, int]] = {}
    for path, czxid, later, data in reads:
        known.keep(path, data, Stat(czxid, czxid + later, 0, 0, 0, 0, 0, 0, 0, 0, 0))
        seen = known.nodes.get(path)
        assert seen is not None
        now = (seen.stat.czxid, seen.stat.mzxid)
        assert now >= newest.get(path, now)
        newest = {each: state for each, state in newest.items() if each in known.nodes} | {path: now}
        for each in known.descendants("/"):
            assert each in known.nodes
        assert sorted(known.descendants("/")) == sorted(set(known.descendants("/")))
