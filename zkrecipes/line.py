"""The order of a waiting line: what a contender does, given a listing. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple, final

from zkrecipes.layouts import Member
from zkrecipes.paths import LAST_NUMBER

__all__ = ["Acquired", "Decision", "Gone", "NeedCzxids", "WaitOn", "WornOut", "decide"]


@final
class Acquired(NamedTuple):
    """We are first."""


@final
class WaitOn(NamedTuple):
    """Somebody is before us; nothing changes for us before this node is gone."""

    name: str


@final
class Gone(NamedTuple):
    """Our node is not in the line."""


@final
class NeedCzxids(NamedTuple):
    """Sequence numbers do not tell the order; ask again with czxids."""


@final
class WornOut(NamedTuple):
    """Sequence numbers have run out, and a contender of another library orders by them."""


Decision = Acquired | WaitOn | Gone | NeedCzxids | WornOut


def _everybody(_me: Member, _other: Member) -> bool:
    return True


def decide(me: str, line: Sequence[Member], blocks: Callable[[Member, Member], bool] = _everybody) -> Decision:
    """What the contender named `me` does, given a listing of the line.

    `blocks(me, other)` says whether `other`, standing before us, keeps us out (readers do not keep readers out).
    """
    mine = next((member for member in line if member.name == me), None)
    if mine is None:
        return Gone()
    numbers = sorted(member.number for member in line)
    ordered = numbers[0] >= 0 and numbers[-1] < LAST_NUMBER and all(a != b for a, b in pairwise(numbers))
    if ordered:
        before = [member for member in line if member.number < mine.number and blocks(mine, member)]
        return WaitOn(max(before, key=lambda member: member.number).name) if before else Acquired()
    if not all(member.ours for member in line):
        return WornOut()
    if any(member.czxid is None for member in line):
        return NeedCzxids()
    first = _czxid(mine)
    before = [member for member in line if _czxid(member) < first and blocks(mine, member)]
    return WaitOn(max(before, key=_czxid).name) if before else Acquired()


def _czxid(member: Member) -> int:
    return member.czxid if member.czxid is not None else -1
