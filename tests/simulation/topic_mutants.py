"""Mutants of topics: each takes one safeguard away, and names the promise that it breaks."""

from __future__ import annotations

from collections.abc import Iterator
from unittest.mock import patch

import zkrecipes.topic_follow as follow_module
from tests.simulation.listener_mutants import edited
from tests.simulation.mutants import mutant
from zkrecipes.marks import Marks
from zkrecipes.topic_follow import Follower
from zkrecipes.topic_log import Log
from zkrecipes.topic_owner import Owner
from zkrecipes.topic_retention import Trimmer
from zkrecipes.topic_tail import Tail

MISSED = "comes next|are missing|has acknowledged up to|has seen up to"


@mutant("was said to stand at", "topic")
def a_lost_reply_means_that_it_was_stored() -> Iterator[None]:
    with edited(Marks, "_settle", ("if data != value:", "if False:")):
        yield


@mutant("was stored twice", "topic")
def a_lost_reply_means_that_it_was_not_stored() -> Iterator[None]:
    with edited(Marks, "_settle", ("if data != value:", "if True:")):
        yield


@mutant("written to segment", "topic")
def the_head_is_not_checked() -> Iterator[None]:
    with edited(Log, "_publish", ("Check(self.places.head, head.version),", "Check(self.places.root),")):
        yield


@mutant(MISSED, "topic")
def what_is_absent_is_the_end_of_its_segment() -> Iterator[None]:
    with edited(Follower, "_step", ("if at.segment < head:", "if at.segment <= head:")):
        yield


@mutant(f"{MISSED}|goes round for ever", "topic")
def watches_do_not_end_with_their_connection() -> Iterator[None]:
    with patch.object(follow_module, "_is_over", lambda call: call.failed):
        yield


@mutant(f"{MISSED}|goes round for ever", "topic")
def the_watch_of_a_segment_does_not_end_with_its_connection() -> Iterator[None]:
    with patch.object(Tail, "over", property(lambda tail: tail.armed.failed)):
        yield


@mutant(MISSED, "topic")
def what_was_there_before_the_watch_is_not_looked_at() -> Iterator[None]:
    with patch.object(Tail, "looked", lambda _tail, _index: True):
        yield


@mutant("again, though|went back|are missing|left when all is closed", "topic")
def a_read_that_was_under_way_moves_the_place_that_was_sought() -> Iterator[None]:
    with edited(Follower, "_answer", ("if self._ended.done or not call.done:", "if not call.done:")):
        yield


@mutant(MISSED, "topic")
def a_hole_is_passed_over_in_silence() -> Iterator[None]:
    with edited(Follower, "_step", ("return Hole(at, low.position) if low.misses(at) else []", "return []")):
        yield


@mutant("does not tell", "topic")
def the_low_water_is_not_raised_with_the_deletes() -> Iterator[None]:
    with edited(
        Trimmer,
        "_step",
        ("Set(places.low, water.encode(), low.version),", "Check(places.low, low.version),"),
        ("return Low(water, answers[1].version)", "return Low(water, low.version)"),
    ):
        yield


@mutant("was removed, and", "topic")
def durable_subscriptions_hold_up_nothing() -> Iterator[None]:
    with edited(Trimmer, "_target", ("if self._retention.keep_for_durable:", "if False:")):
        yield


@mutant("again, though|went back|are missing", "topic")
def a_lost_subscription_goes_on_where_it_was() -> Iterator[None]:
    with (
        edited(
            Owner,
            "own",
            (
                "await self._position(hold, deadline)",
                "self.stored if self._went_on else await self._position(hold, deadline)",
            ),
            (
                "self._hold, self.stored = hold, position",
                "self._hold, self.stored, self._went_on = hold, position, True",
            ),
        ),
        patch.object(Owner, "_went_on", False, create=True),
    ):
        yield
