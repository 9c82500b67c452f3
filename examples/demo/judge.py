"""Judges a demo from what its workers wrote down. Knows nothing of ZooKeeper, and trusts nobody's events."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

from examples.demo.record import WHATS, Sample, View, What

FaultKind = Literal["kill", "cut", "resign"]


class Belief(NamedTuple):
    """One worker's certain belief, for one token: it held from the first to the last sample that said so.

    Once False, `valid` never becomes True again, so it was True in between as well.

    Attributes:
        lease_end: Until when it could have been believed, as the last such sample said.
    """

    worker: str
    what: What
    token: int
    start: float
    end: float
    lease_end: float


class Fault(NamedTuple):
    """Something that was done to the leader.

    Attributes:
        token: The leader's at that time.
        limit: Seconds after which another must lead.
    """

    kind: FaultKind
    worker: str
    token: int
    at: float
    limit: float


class TakeOver(NamedTuple):
    """A leader that followed on a fault.

    Attributes:
        seconds: From the fault to the first sample of the new leader.
        margin: Seconds from the end of the old one's lease (or, where it ended earlier, of its belief) to that sample.
    """

    fault: Fault
    leader: Belief
    seconds: float
    margin: float


@dataclass(frozen=True)
class Verdict:
    """What came out.

    Attributes:
        believers: The most that believed in the same thing at once.
        takeovers: Those that happened.
        complaints: Whatever must not have been; empty if all is well.
        turns: Lock turns of each worker.
        samples: How many there are.
        longest_gap: The longest time between two samples of one worker, in seconds.
    """

    believers: int
    takeovers: tuple[TakeOver, ...]
    complaints: tuple[str, ...]
    turns: Mapping[str, int]
    samples: int
    longest_gap: float

    @property
    def last_line(self) -> str:
        """The demo's last line."""
        longest = max((takeover.seconds for takeover in self.takeovers), default=0.0)
        return f"believers at once: {self.believers}, take-overs: {len(self.takeovers)}, longest: {longest:.1f} s"


def beliefs_of(worker: str, samples: Iterable[Sample]) -> list[Belief]:
    """A worker's beliefs, in order."""
    found: dict[tuple[What, int], Belief] = {}
    for sample in samples:
        views: tuple[View, View] = (sample.leader, sample.lock)
        for what, view in zip(WHATS, views, strict=True):
            if view.valid:
                # It was valid at some moment of the sample: certainly by its end, and still at its beginning.
                before = found.get((what, view.token))
                start = sample.ended if before is None else before.start
                lease_end = sample.begun + view.remaining
                found[what, view.token] = Belief(worker, what, view.token, start, max(start, sample.begun), lease_end)
    return sorted(found.values(), key=lambda belief: belief.start)


def judge(recorded: Mapping[str, Sequence[Sample]], faults: Sequence[Fault]) -> Verdict:
    """Look for two believers at once, for tokens that do not rise, and for take-overs that are missing or late."""
    beliefs = [belief for worker, samples in recorded.items() for belief in beliefs_of(worker, samples)]
    complaints = [f"{worker} recorded nothing" for worker, samples in recorded.items() if not samples]
    believers = 0
    for what in WHATS:
        line = sorted((belief for belief in beliefs if belief.what == what), key=lambda belief: belief.start)
        most, overlaps = _overlaps(line)
        believers = max(believers, most)
        complaints += overlaps
        complaints += [
            f"{what}: {later.worker}'s token {later.token} follows on {earlier.worker}'s {earlier.token}"
            for earlier, later in pairwise(line)
            if later.token <= earlier.token
        ]
        if not line:
            complaints.append(f"{what}: nobody ever had it")
    takeovers = []
    for fault in faults:
        takeover = _takeover(fault, beliefs)
        if takeover is None:
            complaints.append(f"{fault.kind} of {fault.worker}: nobody took over")
        else:
            takeovers.append(takeover)
            if takeover.seconds > fault.limit:
                late = f"took over after {takeover.seconds:.2f} s, and {fault.limit:.2f} s are allowed"
                complaints.append(f"{fault.kind} of {fault.worker}: {takeover.leader.worker} {late}")
    return Verdict(
        believers=believers,
        takeovers=tuple(takeovers),
        complaints=tuple(complaints),
        turns={worker: sum(b.worker == worker and b.what == "lock" for b in beliefs) for worker in recorded},
        samples=sum(len(samples) for samples in recorded.values()),
        longest_gap=max(
            (later.begun - earlier.begun for samples in recorded.values() for earlier, later in pairwise(samples)),
            default=0.0,
        ),
    )


def _overlaps(line: Sequence[Belief]) -> tuple[int, list[str]]:
    """The most beliefs at one instant, and a complaint for each pair of them."""
    most, complaints = 0, []
    present: list[Belief] = []
    for belief in line:
        present = [other for other in present if other.end >= belief.start]
        for other in present:
            common = min(other.end, belief.end) - belief.start
            complaints.append(f"{belief.what}: {other.worker} and {belief.worker} both believed for {common:.3f} s")
        present.append(belief)
        most = max(most, len(present))
    return most, complaints


def _takeover(fault: Fault, beliefs: Sequence[Belief]) -> TakeOver | None:
    terms = sorted((belief for belief in beliefs if belief.what == "leader"), key=lambda belief: belief.start)
    old = next((term for term in terms if term.worker == fault.worker and term.token == fault.token), None)
    new = next((term for term in terms if term.start >= fault.at and term.worker != fault.worker), None)
    if old is None or new is None:
        return None
    # A leader that resigns gives its lease up; one that is killed or cut off takes it along to its end.
    over = old.end if fault.kind == "resign" else max(old.end, old.lease_end)
    return TakeOver(fault, new, new.start - fault.at, new.start - over)
