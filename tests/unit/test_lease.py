"""The lease clock against the rule, recomputed from the whole history each time."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zkrecipes.lease import Lease, Stamp

TIMEOUT = 10.0
MARGIN = 2.5
DRIFT = 0.1


@dataclass
class _Sent:
    sent: float
    basis: float
    write: bool
    stamp: Stamp
    answered: float = math.inf


@dataclass
class _Naive:
    """The rule, word for word: no pruning, no shortcut."""

    requests: list[_Sent] = field(default_factory=list)
    in_flight: list[_Sent] = field(default_factory=list)
    until: float = -math.inf

    def extend(self, written: _Sent) -> None:
        limit = written.basis - MARGIN
        older = [request.sent for request in self.requests if request.answered <= limit]
        if older:
            self.until = max(self.until, max(older) + TIMEOUT - MARGIN - DRIFT)


class _Both:
    """The real clock and the naive one, driven alike."""

    def __init__(self) -> None:
        self.now = 100.0
        self.lease = Lease(TIMEOUT, MARGIN, 0.01)
        self.naive = _Naive()

    def start(self, since: float) -> None:
        self.lease.started(since, self.now)
        stamp = Stamp(since, since, write=False)
        self.naive.requests.append(_Sent(since, since, write=False, stamp=stamp, answered=self.now))
        self.naive.until = since + TIMEOUT - DRIFT

    def send(self, *, write: bool) -> None:
        unanswered = [other.sent for other in self.naive.in_flight if other.write]
        stamp = self.lease.written(self.now, write=write)
        request = _Sent(self.now, min([*unanswered, self.now]), write, stamp)
        self.naive.requests.append(request)
        self.naive.in_flight.append(request)

    def answer(self, *, committed: bool) -> None:
        if self.naive.in_flight:
            request = self.naive.in_flight.pop(0)
            request.answered = self.now
            committed = committed and request.write
            self.lease.answered(request.stamp, self.now, committed=committed)
            if committed:
                self.naive.extend(request)

    def reconnect(self, since: float) -> None:
        self.naive.in_flight.clear()
        self.lease.resumed(since, self.now)
        stamp = Stamp(since, since, write=False)
        self.naive.requests.append(_Sent(since, since, write=False, stamp=stamp, answered=self.now))


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["read", "write", "answer", "answer", "answer all", "refuse", "reconnect"]),
        st.one_of(st.just(0.0), st.floats(0.0, 0.2), st.floats(0.0, 4.0)),
    ),
    max_size=60,
)


@given(STEPS)
def test_lease_is_the_rule(steps: list[tuple[str, float]]) -> None:
    both = _Both()
    both.start(both.now - TIMEOUT)  # so that the handshake does not outshine what follows
    for what, pause in steps:
        before, both.now = both.now, both.now + pause
        match what:
            case "read" | "write":
                both.send(write=what == "write")
            case "answer" | "refuse":
                both.answer(committed=what == "answer")
            case "answer all":
                while both.naive.in_flight:
                    both.answer(committed=True)
            case _:
                both.reconnect(before)
        assert both.lease.until <= both.naive.until + 1e-9, "longer than can be proved"
        # It may forget one of several requests within T/256 to save memory, and nothing else.
        assert both.lease.until >= both.naive.until - TIMEOUT / 128, "shorter than can be proved"


@pytest.mark.parametrize("latency", [0.001, 0.02, 0.1, 0.5])
def test_lease_goes_on_under_a_stream_of_overlapping_writes(latency: float) -> None:
    both = _Both()
    both.start(both.now)
    waiting: list[float] = []
    for _ in range(2000):
        both.now += latency / 4
        both.send(write=True)
        waiting.append(both.now)
        while waiting and waiting[0] + latency <= both.now:
            waiting.pop(0)
            both.answer(committed=True)
        assert both.lease.until <= both.naive.until + 1e-9
        assert both.lease.until >= both.naive.until - TIMEOUT / 128


def test_lease_does_not_suffer_from_a_stall() -> None:
    """Many answers at once after a stall: the newest request counts, not the first that was answered."""
    both = _Both()
    both.start(both.now - TIMEOUT)
    for _ in range(20):
        both.now += 0.1
        both.send(write=False)
    for _ in range(20):
        both.answer(committed=False)
    both.now += MARGIN + 0.1
    both.send(write=True)
    both.now += 0.01
    both.answer(committed=True)
    assert both.lease.until == pytest.approx(both.naive.until, abs=TIMEOUT / 128)


def test_a_handshake_of_a_new_session_is_a_proof() -> None:
    lease = Lease(TIMEOUT, MARGIN, 0.01)
    assert lease.until == -math.inf
    lease.started(100.0, 100.2)
    assert lease.until == pytest.approx(100.0 + TIMEOUT - DRIFT)


def test_reads_prove_nothing() -> None:
    lease = Lease(TIMEOUT, MARGIN, 0.01)
    lease.started(100.0, 100.0)
    before = lease.until
    for second in range(101, 120):
        stamp = lease.written(float(second), write=False)
        lease.answered(stamp, second + 0.01, committed=False)
    assert lease.until == before


def test_a_refused_write_proves_nothing() -> None:
    lease = Lease(TIMEOUT, MARGIN, 0.01)
    lease.started(100.0, 100.0)
    before = lease.until
    stamp = lease.written(105.0, write=True)
    lease.answered(stamp, 105.1, committed=False)
    assert lease.until == before


def test_a_write_proves_only_what_was_answered_a_margin_before_the_oldest_open_write() -> None:
    lease = Lease(TIMEOUT, MARGIN, 0.01)
    lease.started(90.0, 100.0)
    read = lease.written(101.0, write=False)
    lease.answered(read, 101.1, committed=False)
    first = lease.written(103.0, write=True)  # 101.1 is not yet a margin ago
    second = lease.written(104.0, write=True)  # it would be here, but the first is still open
    assert second.basis == first.sent
    lease.answered(first, 104.1, committed=True)
    lease.answered(second, 104.2, committed=True)
    assert lease.until == pytest.approx(90.0 + TIMEOUT - DRIFT)
    third = lease.written(104.3, write=True)
    lease.answered(third, 104.4, committed=True)
    assert lease.until == pytest.approx(101.0 + TIMEOUT - MARGIN - DRIFT)


def test_writes_of_the_old_connection_hold_nothing_back() -> None:
    lease = Lease(TIMEOUT, MARGIN, 0.01)
    lease.started(100.0, 100.0)
    lease.written(101.0, write=True)
    lease.disconnected()
    lease.resumed(104.0, 104.1)
    assert lease.written(108.0, write=True).basis == 108.0


def test_a_resumed_session_needs_a_write_after_its_handshake() -> None:
    lease = Lease(TIMEOUT, MARGIN, 0.01)
    lease.started(95.0, 100.0)
    before = lease.until
    lease.resumed(106.0, 106.1)
    assert lease.until == before, "a handshake is answered by a follower alone"
    early = lease.written(106.2, write=True)
    lease.answered(early, 106.3, committed=True)
    assert lease.until == before, "the handshake is not yet a margin old"
    late = lease.written(106.1 + MARGIN, write=True)
    lease.answered(late, 109.0, committed=True)
    assert lease.until == pytest.approx(106.0 + TIMEOUT - MARGIN - DRIFT)


def test_short_sessions_keep_the_least_drift() -> None:
    assert Lease(1.0, 0.25, 0.01).drift == Lease.MIN_DRIFT
    assert Lease(100.0, 25.0, 0.02).drift == pytest.approx(2.0)


def test_memory_is_bounded() -> None:
    lease = Lease(TIMEOUT, MARGIN, 0.01)
    now = 0.0
    for _ in range(2000):
        now += 0.002
        lease.answered(lease.written(now, write=True), now + 0.001, committed=True)
    assert len(lease._answered) <= 2 * 256
    assert len(lease._writes) <= 1
