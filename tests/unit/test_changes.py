"""What a consumer is told of a mirror: merged by node, with the value that was told before."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.kit import World
from zkrecipes.changes import Consumer, EventKind, RawChange
from zkrecipes.core import Core
from zkrecipes.mirror import Mirror
from zkrecipes.nodes import Nodes
from zkrecipes.port import Stat
from zkrecipes.scope import Scope

CREATED, CHANGED, DELETED = EventKind


class Garden:
    """A mirror that nobody keeps, and what its consumer is told."""

    def __init__(self, scope: Scope, *, data: bool = True) -> None:
        self.mirror = Mirror(Core(Nodes(World().session)), scope, data=data)
        self.consumer = Consumer(self.mirror, data=data)
        self.zxid = 0

    def write(self, path: str, data: bytes = b"") -> None:
        self.zxid += 1
        seen = self.mirror.nodes.get(path)
        self.read(path, seen.stat.czxid if seen else self.zxid, data)

    def again(self, path: str, data: bytes = b"") -> None:
        """Deleted and made anew, before anybody has looked."""
        self.zxid += 1
        self.read(path, self.zxid, data)

    def read(self, path: str, czxid: int, data: bytes) -> None:
        self.mirror._known.keep(path, data, Stat(czxid, self.zxid, 0, 0, 0, 0, 0, 0, 0, 0, 0))

    def delete(self, path: str) -> None:
        self.mirror._known.drop([path, *self.mirror.descendants(path)])

    def told(self) -> list[tuple[Any, ...]]:
        return [tell(change) for change in self.consumer.take()]


def tell(change: RawChange) -> tuple[Any, ...]:
    old, new = change.old and change.old.data, change.new and change.new.data
    return change.kind, change.path, old, new


@pytest.fixture
def garden() -> Garden:
    return Garden(Scope(("/t",)))


def test_each_change_is_told_with_the_old_value_and_the_new(garden: Garden) -> None:
    garden.write("/t", b"1")
    assert garden.told() == [(CREATED, "/t", None, b"1")]
    garden.write("/t", b"2")
    assert garden.told() == [(CHANGED, "/t", b"1", b"2")]
    garden.delete("/t")
    assert garden.told() == [(DELETED, "/t", b"2", None)]
    assert garden.told() == []


def test_what_changes_twice_is_told_once(garden: Garden) -> None:
    garden.write("/t", b"0")
    garden.told()
    for number in range(1, 6):
        garden.write("/t", b"%d" % number)
    assert garden.told() == [(CHANGED, "/t", b"0", b"5")]


@pytest.mark.parametrize(
    ("acts", "told"),
    [
        ("write delete", []),
        ("write delete write", [(CREATED, "/t/a", None, b"2")]),
        ("write again", [(CREATED, "/t/a", None, b"1")]),
    ],
)
def test_what_came_and_went_unseen(garden: Garden, acts: str, told: list[Any]) -> None:
    for number, act in enumerate(acts.split()):
        arguments = (b"%d" % number,) if act != "delete" else ()
        getattr(garden, act)("/t/a", *arguments)
    garden.write("/t")
    assert [change for change in garden.told() if change[1] == "/t/a"] == told


def test_the_same_bytes_are_no_change(garden: Garden) -> None:
    garden.write("/t", b"x")
    garden.told()
    garden.write("/t", b"y")
    garden.write("/t", b"x")
    assert garden.consumer.woken.done
    assert garden.told() == []
    garden.write("/t", b"y")
    assert garden.told() == [(CHANGED, "/t", b"x", b"y")]


def test_without_data_each_set_is_a_change() -> None:
    garden = Garden(Scope(("/t",)), data=False)
    garden.write("/t")
    assert garden.told() == [(CREATED, "/t", None, b"")]
    garden.write("/t")
    assert garden.told() == [(CHANGED, "/t", b"", b"")]
    garden.again("/t")
    assert garden.told() == [(DELETED, "/t", b"", None), (CREATED, "/t", None, b"")]


def test_a_node_made_again_is_deleted_and_created(garden: Garden) -> None:
    garden.write("/t", b"x")
    garden.told()
    garden.again("/t", b"x")
    assert garden.told() == [(DELETED, "/t", b"x", None), (CREATED, "/t", None, b"x")]
    garden.again("/t", b"y")
    garden.delete("/t")
    assert garden.told() == [(DELETED, "/t", b"x", None)]


def test_children_go_before_their_parents_and_come_after_them(garden: Garden) -> None:
    for path in ("/t/a/x", "/t/a", "/t/b", "/t"):
        garden.write(path)
    assert [change[:2] for change in garden.told()] == [(CREATED, p) for p in ("/t", "/t/a", "/t/a/x", "/t/b")]
    garden.again("/t")
    garden.write("/t/c")
    assert [change[:2] for change in garden.told()] == [
        *((DELETED, path) for path in ("/t/b", "/t/a/x", "/t/a", "/t")),
        (CREATED, "/t"),
        (CREATED, "/t/c"),
    ]


def test_a_child_that_is_read_before_its_parent_waits_for_it(garden: Garden) -> None:
    garden.write("/t/a", b"x")
    assert garden.told() == []
    garden.write("/t")
    assert [change[:2] for change in garden.told()] == [(CREATED, "/t"), (CREATED, "/t/a")]


def test_a_child_that_is_read_before_its_parent_is_known_as_made_again(garden: Garden) -> None:
    """Whoever drops what is below a node that goes would lose it, if it were not told again."""
    garden.write("/t")
    garden.write("/t/a", b"old")
    garden.told()
    garden.zxid += 1
    parent = garden.zxid
    garden.again("/t/a", b"new")
    assert garden.told() == [(DELETED, "/t/a", b"old", None), (CREATED, "/t/a", None, b"new")]
    garden.read("/t", parent, b"")
    assert garden.told() == [
        (DELETED, "/t/a", b"new", None),
        (DELETED, "/t", b"", None),
        (CREATED, "/t", None, b""),
        (CREATED, "/t/a", None, b"new"),
    ]


def test_children_of_a_parent_that_is_not_looked_at() -> None:
    """They wait for nobody."""
    garden = Garden(Scope(("/t/a", "/u"), depth=0))
    garden.write("/t/a")
    assert garden.told() == [(CREATED, "/t/a", None, b"")]
    garden = Garden(Scope(("/t",), depth=1, shows_roots=False))
    garden.write("/t", b"not shown")
    garden.write("/t/a")
    assert garden.told() == [(CREATED, "/t/a", None, b"")]


# --- its life ---------------------------------------------------------------------------------------------------------


def test_it_is_woken_when_there_is_something(garden: Garden) -> None:
    woken = garden.consumer.woken
    assert not woken.done
    garden.write("/t")
    assert woken.done
    garden.told()
    assert not garden.consumer.woken.done
    garden.mirror._tell(None)
    assert garden.consumer.woken.done
    assert garden.told() == []
    assert not garden.consumer.woken.done


def test_one_that_comes_late_is_told_what_is_there(garden: Garden) -> None:
    for path in ("/t", "/t/a"):
        garden.write(path, b"x")
    garden.told()
    late = Consumer(garden.mirror)
    assert late.woken.done
    assert [tell(change) for change in late.take()] == [(CREATED, "/t", None, b"x"), (CREATED, "/t/a", None, b"x")]
    assert not Consumer(Garden(Scope(("/t",))).mirror).woken.done


def test_consumers_have_each_their_own_pace(garden: Garden) -> None:
    other = Consumer(garden.mirror)
    garden.write("/t", b"1")
    assert garden.told() == [(CREATED, "/t", None, b"1")]
    garden.write("/t", b"2")
    assert garden.told() == [(CHANGED, "/t", b"1", b"2")]
    assert [tell(change) for change in other.take()] == [(CREATED, "/t", None, b"2")]


def test_one_that_is_closed_is_told_nothing_and_kept_by_nobody(garden: Garden) -> None:
    woken = garden.consumer.woken
    garden.consumer.close()
    garden.consumer.close()
    assert woken.done
    assert garden.mirror.observers == []
    garden.write("/t")
    assert garden.told() == []


def test_one_that_never_takes_costs_no_more_than_the_nodes(garden: Garden) -> None:
    for number in range(1000):
        garden.write(f"/t/{number % 7}", b"%d" % number)
    assert len(garden.consumer._behind) == 7


# --- what could not be told -------------------------------------------------------------------------------------------


def _take(garden: Garden) -> RawChange:
    (change,) = garden.consumer.take()
    return change


def test_what_could_not_be_told_was_not_told(garden: Garden) -> None:
    """The next one continues from what was told before."""
    garden.write("/t", b"bad")
    garden.consumer.untold(_take(garden))
    garden.write("/t", b"good")
    assert garden.told() == [(CREATED, "/t", None, b"good")]
    garden.write("/t", b"bad")
    garden.consumer.untold(_take(garden))
    garden.write("/t", b"better")
    assert garden.told() == [(CHANGED, "/t", b"good", b"better")]
    garden.write("/t", b"bad")
    garden.consumer.untold(_take(garden))
    garden.write("/t", b"better")
    assert garden.told() == [], "as before"
    garden.write("/t", b"bad")
    garden.consumer.untold(_take(garden))
    garden.delete("/t")
    assert garden.told() == [(DELETED, "/t", b"better", None)]


def test_what_was_never_told_is_not_deleted(garden: Garden) -> None:
    garden.write("/t", b"bad")
    garden.consumer.untold(_take(garden))
    garden.delete("/t")
    assert garden.told() == []


def test_a_bad_one_that_was_made_again(garden: Garden) -> None:
    garden.write("/t", b"good")
    garden.told()
    garden.again("/t", b"bad")
    deleted, created = garden.consumer.take()
    assert tell(deleted) == (DELETED, "/t", b"good", None)
    garden.consumer.untold(created)
    garden.write("/t", b"good")
    assert garden.told() == [(CREATED, "/t", None, b"good")]
