"""The nodes that are known: never backwards, and what stood below a node goes with it."""

from __future__ import annotations

import itertools

import pytest

from zkrecipes.known import Known, parent_of
from zkrecipes.port import Stat


class Garden:
    """Known nodes, and what was told of them."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.known = Known(self.told.append)

    def keep(self, path: str, czxid: int, mzxid: int = 0, data: bytes = b"") -> None:
        self.known.keep(path, data, stat(czxid, mzxid or czxid))

    def take(self) -> list[str]:
        told, self.told[:] = list(self.told), []
        return told

    @property
    def state(self) -> dict[str, tuple[int, int, bytes]]:
        return {path: (s.stat.czxid, s.stat.mzxid, s.data) for path, s in self.known.nodes.items()}


def stat(czxid: int, mzxid: int) -> Stat:
    return Stat(czxid, mzxid, 0, 0, 0, 0, 0, 0, 0, 0, 0)


@pytest.fixture
def garden() -> Garden:
    return Garden()


def test_each_change_is_told_once(garden: Garden) -> None:
    garden.keep("/a", 1)
    garden.keep("/a", 1)
    garden.keep("/a", 1, 2, b"x")
    assert garden.take() == ["/a", "/a"]
    assert garden.state == {"/a": (1, 2, b"x")}
    garden.known.drop(["/a"])
    garden.known.drop(["/a"])
    assert garden.take() == ["/a"]
    assert garden.state == {}


@pytest.mark.parametrize(("czxid", "mzxid"), [(5, 9), (5, 8), (4, 4), (4, 99)])
def test_what_is_known_never_goes_backwards(garden: Garden, czxid: int, mzxid: int) -> None:
    """A server that lags shows an older state of the node, or an older node of that name."""
    garden.keep("/a", 5, 9, b"new")
    garden.take()
    garden.keep("/a", czxid, mzxid, b"old")
    assert garden.take() == []
    assert garden.state == {"/a": (5, 9, b"new")}


def test_a_node_made_again_takes_the_place_of_the_other(garden: Garden) -> None:
    """Even if its bytes are the same, and its version lower."""
    garden.keep("/a", 5, 9, b"x")
    garden.keep("/a", 10, 10, b"x")
    assert garden.state == {"/a": (10, 10, b"x")}
    assert garden.take() == ["/a", "/a"]


def test_what_stood_below_goes_when_a_node_is_made_again(garden: Garden) -> None:
    """But not what is newer than that: it stands below the new one, and was read first."""
    for number, path in enumerate(["/a", "/a/old", "/a/old/x", "/a/both", "/b", "/ab"], start=1):
        garden.keep(path, number)
    garden.keep("/a/both", 21)
    garden.keep("/a/both/y", 22)
    garden.take()
    garden.keep("/a", 20)
    assert garden.take() == ["/a/old/x", "/a/old", "/a"]
    assert set(garden.state) == {"/a", "/a/both", "/a/both/y", "/b", "/ab"}
    assert garden.known.descendants("/a") == ["/a/both", "/a/both/y"]


def test_children_and_descendants(garden: Garden) -> None:
    for number, path in enumerate(["/", "/a", "/a/b", "/a/b/c", "/a/d", "/e"], start=1):
        garden.keep(path, number)
    known = garden.known
    assert known.children("/") == ["/a", "/e"]
    assert known.children("/a") == ["/a/b", "/a/d"]
    assert known.children("/none") == []
    assert sorted(known.descendants("/")) == ["/a", "/a/b", "/a/b/c", "/a/d", "/e"]
    assert known.descendants("/a/b/c") == []
    for path in known.descendants("/"):
        before = known.descendants("/")[: known.descendants("/").index(path)]
        assert parent_of(path) in ["/", *before], "parents come first"


def test_what_is_dropped_is_told_children_first(garden: Garden) -> None:
    for number, path in enumerate(["/", "/a", "/a/b", "/a/b/c", "/a/d", "/e"], start=1):
        garden.keep(path, number)
    garden.take()
    garden.known.drop(["/a", *garden.known.descendants("/a")])
    told = garden.take()
    assert sorted(told) == ["/a", "/a/b", "/a/b/c", "/a/d"]
    assert told.index("/a/b/c") < told.index("/a/b") < told.index("/a")
    assert set(garden.state) == {"/", "/e"}
    assert garden.known.children("/") == ["/e"]


def test_the_root_is_nobodys_child(garden: Garden) -> None:
    garden.keep("/", 0, 5)
    assert garden.known.children("/") == []
    garden.known.drop(["/"])
    assert garden.state == {}
    assert parent_of("/") == "/"
    assert parent_of("/a") == "/"
    assert parent_of("/a/b") == "/a"


def test_nothing_is_kept_of_what_has_gone(garden: Garden) -> None:
    """In any order of coming: a child may be read before its parent."""
    paths = ["/a", "/a/b", "/a/b/c"]
    for order in itertools.permutations(paths):
        for number, path in enumerate(order, start=1):
            garden.keep(path, 10 * number)
        for path in ("/a/b/c", "/a/b", "/a"):
            garden.known.drop([path])
        assert garden.state == {}
        assert not {path: names for path, names in garden.known._below.items() if names}
