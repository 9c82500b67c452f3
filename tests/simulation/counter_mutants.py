"""Mutants of counters and identifiers: each takes one safeguard away, and names the promise that it breaks."""

from __future__ import annotations

from collections.abc import Iterator

from tests.simulation.listener_mutants import edited
from tests.simulation.mutants import mutant
from zkrecipes.carry import Carried
from zkrecipes.cell import Cell
from zkrecipes.counter_line import CounterLine
from zkrecipes.identifiers import IdSource
from zkrecipes.marks import Marks

TWICE = "counted twice|set twice"
UNTRUE = f"{TWICE}|is lost|and not counted|never was|had said that it|its call has failed|and not set"


@mutant("and not counted|never was|is lost|and not set", "counter")
def a_lost_reply_means_that_it_was_counted() -> Iterator[None]:
    with edited(Marks, "_settle", ("if data != value:\n            return None", "pass")):
        yield


@mutant(TWICE, "counter")
def a_lost_reply_means_that_it_was_not_counted() -> Iterator[None]:
    with edited(Marks, "_settle", ("if data != value:", "if True:")):
        yield


@mutant(f"{TWICE}|had said|failed", "counter")
def a_mark_is_read_without_a_committed_write() -> Iterator[None]:
    with edited(Marks, "_settle", ('Multi((Check("/"),))', "Get(mark.path)")):
        yield


@mutant(f"{TWICE}|failed|never would be", "counter")
def a_mark_is_looked_for_in_another_session() -> Iterator[None]:
    with edited(
        Marks,
        "_settle",
        ("session.id != mark.attempt.session_id or ", ""),
        ('session.call(Multi((Check("/"),)), mark.attempt.session_id)', 'session.call(Multi((Check("/"),)))'),
        ("session.call(Get(mark.path), mark.attempt.session_id)", "session.call(Get(mark.path))"),
        ("if mark.made:", "if False:"),
    ):
        yield


@mutant("is lost|counted twice", "counter")
def versions_are_not_checked() -> Iterator[None]:
    with edited(Cell, "swap", ("Set(self.path, data, reading.version)", "Set(self.path, data)")):
        yield


@mutant(f"{TWICE}|still waits", "counter")
def two_writes_share_a_mark() -> Iterator[None]:
    with edited(Marks, "_take", ("return mark", "self._free += [mark][: mark.made]\n            return mark")):
        yield


@mutant(f"{UNTRUE}", "counter")
def all_writes_of_a_mark_have_one_number() -> Iterator[None]:
    with edited(Marks, "_try", ("mark.serial += 1", "mark.serial = 1")):
        yield


@mutant("never was|the same value|and not counted", "counter")
def all_of_a_batch_are_told_the_sum_before() -> Iterator[None]:
    with edited(
        CounterLine,
        "_take",
        ("value += add.amount\n            add.after = value", "add.after = value\n            value += add.amount"),
    ):
        yield


@mutant("failed|never would be", "counter")
def an_add_under_way_is_unavailable_at_its_deadline() -> Iterator[None]:
    with edited(CounterLine, "add", ("raise self._unknown()", "raise self._core.session.unavailable()")):
        yield


@mutant("failed|never would be", "counter")
def an_add_that_was_given_up_is_sent_all_the_same() -> Iterator[None]:
    with (
        edited(CounterLine, "_give_up", ("self._waiting.remove(add)", "pass")),
        edited(CounterLine, "_take", ("if add.given_up:", "if False:")),
    ):
        yield


@mutant(f"{TWICE}|failed|never would be", "counter")
def in_a_new_session_nothing_was_applied() -> Iterator[None]:
    with edited(Cell, "_untouched", ("return same(reading, Reading(data, stat.version, stat.czxid))", "return True")):
        yield


@mutant("still waits|was allowed|were allowed", "counter")
def an_interrupted_leader_takes_the_lead_with_him() -> Iterator[None]:
    with edited(Carried, "_go_on", ("self._core.runtime.spawn(self.release(), self._name)", "pass")):
        yield


@mutant("still waits|a call took", "counter")
def a_collected_leader_takes_the_lead_with_him() -> Iterator[None]:
    with edited(Carried, "__await__", ("self._core.nodes.dropped.append(self)\n", "pass\n")):
        yield


@mutant("was given to", "counter")
def blocks_are_reserved_without_a_look_at_the_version() -> Iterator[None]:
    with edited(IdSource, "_try", ("LAYOUT.encode(last), version)", "LAYOUT.encode(last))")):
        yield


@mutant("was given to", "counter")
def a_block_of_unknown_outcome_is_taken() -> Iterator[None]:
    with edited(
        IdSource,
        "_try",
        (
            "except (ConflictError, NodeNotFoundError, OutcomeUnknownError):",
            "except (ConflictError, NodeNotFoundError):",
        ),
        (
            "    self._known = last, stat.version\n",
            "    except OutcomeUnknownError:\n        stat = None\n    self._known = None\n",
        ),
    ):
        yield


@mutant("marks that nobody uses", "counter")
def a_mark_of_an_interrupted_write_is_left() -> Iterator[None]:
    with edited(
        Marks,
        "once",
        ("self._core.nodes.remove(mark.attempt)", "mark.attempt.settle()"),
    ):
        yield
