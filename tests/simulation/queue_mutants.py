"""Mutants of queues: each takes one safeguard away, and names the promise that it breaks."""

from __future__ import annotations

from collections.abc import Iterator
from unittest.mock import patch

from tests.simulation.listener_mutants import edited
from tests.simulation.mutants import mutant
from zkrecipes.marks import Marks
from zkrecipes.nodes import Nodes
from zkrecipes.port import Check
from zkrecipes.queue_claim import Claims
from zkrecipes.queue_overdue import Overdue
from zkrecipes.queue_return import Returns
from zkrecipes.queue_shelf_put import ShelfPlaced
from zkrecipes.queue_take import Taker

LEFT = "still in the queue|left when all was done"


@mutant("is nowhere|was said to be acknowledged", "queue")
def a_lost_reply_of_a_put_means_that_it_is_stored() -> Iterator[None]:
    with edited(Marks, "_settle", ("if data != value:", "if False:")):
        yield


@mutant(f"stands twice|{LEFT}|was told that it was not", "queue")
def a_lost_reply_of_a_put_means_that_it_is_not_stored() -> Iterator[None]:
    with edited(Marks, "_settle", ("if data != value:", "if True:")):
        yield


@mutant("is nowhere|stands twice|said to be acknowledged|/_mark_", "queue")
def two_writes_at_once_share_a_mark() -> Iterator[None]:
    with edited(Marks, "_take", ("return mark", "return self._free.append(mark) or mark")):
        yield


@mutant("is the head", "queue")
def puts_do_not_check_the_head() -> Iterator[None]:
    with patch.object(ShelfPlaced, "check", property(lambda self: Check(self.lane))):
        yield


@mutant(LEFT, "queue")
def a_claim_does_not_check_the_version() -> Iterator[None]:
    with edited(Taker, "_commit", ("want.slot), want.version),", "want.slot)),")):
        yield


@mutant("two valid claims|has a valid claim on", "queue")
def a_claim_is_held_until_giving_it_back_is_answered() -> Iterator[None]:
    with edited(Claims, "give_up", ("held.grip.hold.released = True", "pass")):
        yield


@mutant(LEFT, "queue")
def claims_that_nobody_accounts_for_are_not_given_back() -> Iterator[None]:
    with patch.object(Returns, "give_back", lambda _self, _wants, _session_id: None):
        yield


@mutant(LEFT, "queue")
def forgotten_claims_are_not_given_back() -> Iterator[None]:
    with patch.object(Nodes, "look_after", lambda _self, _handle, _grip: None):
        yield


@mutant("too early", "queue")
def a_name_tells_when_an_item_is_due() -> Iterator[None]:
    with edited(Taker, "_checked", ("if time is None or time < due:", "if False:")):
        yield


@mutant(f"{LEFT}|is not in the queue|has a valid claim on", "queue")
def an_item_is_buried_whoever_has_claimed_it() -> Iterator[None]:
    with edited(Claims, "bury", ("(*alone, end", "(end")):
        yield


@mutant("two valid claims|has a valid claim on", "queue")
def a_holder_believes_in_a_claim_that_others_may_end() -> Iterator[None]:
    with edited(
        Overdue, "limit", ("hold.until = began + self.visibility", "hold.until = began + 1000 + self.visibility")
    ):
        yield
