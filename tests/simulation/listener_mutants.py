"""Mutants of listeners: each takes one safeguard away, and names the promise that it breaks."""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

from tests.simulation.mutants import mutant
from zkrecipes.changes import Consumer
from zkrecipes.known import Known
from zkrecipes.mirror import Mirror
from zkrecipes.watches import Watches


def edited(owner: type, name: str, *edits: tuple[str, str]) -> AbstractContextManager[object]:
    """A method with some of its lines exchanged. Each must be there, so that no mutant turns into the original."""
    function: Any = inspect.getattr_static(owner, name)
    is_property = isinstance(function, property)
    source = textwrap.dedent(inspect.getsource(function.fget if is_property else function))
    for old, new in edits:
        assert source.count(old) == 1, f"{owner.__name__}.{name} has changed: {old!r} is not in it, or more than once"
        source = source.replace(old, new)
    made: dict[str, Any] = {}
    program = f"from __future__ import annotations\n{source}"
    exec(program, vars(sys.modules[owner.__module__]), made)
    return patch.object(owner, name, made[name])


LOOK = "await self._look(dict.fromkeys(self.scope.roots, ALL))"
UNEQUAL = "its mirror is|does not know"


@mutant(UNEQUAL, "listener")
def armed_after_reading() -> Iterator[None]:
    arming = "if self._recursive:\n        for arm"
    first = f"if self._recursive:\n        {LOOK}\n    {arming}"
    with edited(Mirror, "_resync", (LOOK, f"if not self._recursive:\n        {LOOK}"), (arming, first)):
        yield


@mutant(UNEQUAL, "listener")
def armed_again_and_not_read_again() -> Iterator[None]:
    with edited(Mirror, "_resync", (LOOK, f"if not (self.initialized and self._recursive):\n        {LOOK}")):
        yield


@mutant(UNEQUAL, "listener")
def not_armed_again_after_a_reconnect() -> Iterator[None]:
    with edited(
        Mirror, "_keep", ("await self._resync()", "if not self.initialized:\n                    await self._resync()")
    ):
        yield


@mutant("says that it is fresh|before the first state", "listener")
def fresh_before_everything_is_read() -> Iterator[None]:
    with edited(
        Mirror,
        "_keep",
        ("await self._resync()", "self._set_fresh(fresh=True)\n                await self._resync()"),
    ):
        yield


@mutant("says that it is fresh", "listener")
def fresh_until_the_task_has_looked() -> Iterator[None]:
    with patch.object(Mirror, "fresh", property(lambda self: self._fresh)):
        yield


@mutant(UNEQUAL, "listener")
def what_is_told_while_it_is_read_is_lost() -> Iterator[None]:
    with edited(
        Mirror,
        "_follow",
        ("dirty, self._dirty = self._dirty, {}", "dirty = dict(self._dirty)"),
        ("await self._look(dirty)", "await self._look(dirty)\n            self._dirty.clear()"),
    ):
        yield


@mutant(UNEQUAL, "listener")
def nodes_are_compared_by_version() -> Iterator[None]:
    with edited(
        Known,
        "keep",
        ("(stat.czxid, stat.mzxid) <= (old.stat.czxid, old.stat.mzxid)", "stat.version == old.stat.version"),
    ):
        yield


@mutant("went backwards", "listener")
def answers_are_taken_whatever_is_known() -> Iterator[None]:
    with edited(Known, "keep", ("if (stat.czxid, stat.mzxid) <= (old.stat.czxid, old.stat.mzxid):", "if False:")):
        yield


@mutant("another node than before", "listener")
def a_node_that_was_made_again_is_told_as_changed() -> Iterator[None]:
    with edited(Consumer, "_gone", ("(new is None or new.stat.czxid != old.stat.czxid)", "new is None")):
        yield


@mutant(f"{UNEQUAL}|before /", "listener")
def a_deleted_node_leaves_what_was_below_it() -> Iterator[None]:
    with edited(Known, "descendants", ("found = self.children(path)", "found: list[str] = []")):
        yield


@mutant(UNEQUAL, "listener")
def children_are_compared_by_cversion() -> Iterator[None]:
    saw = "stat = self._saw(path, answer)"
    with edited(
        Mirror,
        "_look_behind",
        (saw, f"before = self.nodes.get(path)\n        {saw}"),
        (
            "if stat is not None and",
            "if stat is not None and (not before or before.stat.cversion != stat.cversion) and",
        ),
    ):
        yield


@mutant(UNEQUAL, "listener")
def a_root_that_is_absent_is_not_waited_for() -> Iterator[None]:
    with edited(Mirror, "_took", ("self._absent[path] = None\n        more[path] = ALL", "pass")):
        yield


# --- watches ----------------------------------------------------------------------------------------------------------


@mutant(UNEQUAL, "listener")
def one_shot_watches_are_sent_on_armed_roots() -> Iterator[None]:
    with edited(Watches, "asked", ("if key[0] in self._armed:", "if False:")):
        yield


@mutant("it waits for|its mirror is", "listener")
def who_was_stripped_is_not_woken_on_disarm() -> Iterator[None]:
    with edited(
        Watches, "_disarm", ("self._wake(key)", "pass"), ("self._spoilt.update(self._asked.get(key, {}))", "pass")
    ):
        yield


@mutant("it waits for|its mirror is|when all is closed", "listener")
def watches_outlive_their_connection() -> Iterator[None]:
    with edited(Watches, "ended", ("self._armed.clear()", "pass")):
        yield


@mutant("not fresh|its mirror is|is not connected", "listener")
def an_old_server_is_asked_again_and_again() -> Iterator[None]:
    with edited(Watches, "unsupported", ("self.recursive = False", "pass")):
        yield


@mutant("when all is closed", "listener")
def watches_stay_when_a_listener_is_closed() -> Iterator[None]:
    async def nothing(_self: Mirror) -> None:
        pass

    with patch.object(Mirror, "_take_watches_off", nothing):
        yield


# --- consumers --------------------------------------------------------------------------------------------------------


@mutant("another old value|is told|has been told of|have heard of", "listener")
def merging_loses_the_first_old_value() -> Iterator[None]:
    marked = "self._behind[path] = None"
    lost = "if path in self._told and path in self._mirror.nodes: self._told[path] = self._mirror.nodes[path]"
    with edited(Consumer, "touched", (marked, f"{marked}\n            {lost}")):
        yield


@mutant("before /", "listener")
def parents_are_deleted_first() -> Iterator[None]:
    with edited(Consumer, "take", ("sorted(gone, reverse=True)", "sorted(gone)")):
        yield


@mutant("without its parent", "listener")
def children_are_told_before_their_parents() -> Iterator[None]:
    with patch.object(Mirror, "awaits_parent", lambda _self, _path: False):
        yield


@mutant("before /", "listener")
def what_is_new_below_a_node_that_went_stays() -> Iterator[None]:
    with edited(Consumer, "_gone", ("each for each in self._mirror.descendants(path) if each in told", "()")):
        yield
