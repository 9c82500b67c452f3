"""What elections promise beyond the handle: terms, the signal to stop, proclaimed data, observers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any, Final

import pytest

import zkrecipes as zkr
from tests.contracts.subjects import ELECTIONS, LIMIT, PATH, Later, Parties, Party
from zkrecipes.testing import FaultProxy, Server, wait_until

pytestmark = pytest.mark.parametrize("subject", ELECTIONS, ids=str)

GRACE: Final = 0.6


def _nodes(party: Party) -> list[str]:
    return [contender.node for contender in party.line()]


def _told(party: Party, leadership: Any, limit: float = LIMIT) -> zkr.StopReason:
    assert party.do(lambda: leadership.should_stop.wait(limit)), "the work was not told to stop"
    reason: zkr.StopReason = leadership.should_stop.reason
    return reason


# --- terms ------------------------------------------------------------------------------------------------------------


def test_each_term_has_a_node_and_a_token_of_its_own(party: Party) -> None:
    terms: list[tuple[int, str]] = []

    def work(leadership: Any) -> None:
        assert leadership.valid
        assert not leadership.should_stop.is_set()
        terms.append((leadership.token, _nodes(party)[0]))

    party.run(work, terms=3)
    tokens = [token for token, _ in terms]
    assert tokens == sorted(set(tokens))
    assert len({node for _, node in terms}) == len(terms) == 3
    assert _nodes(party) == []


def test_terms_go_round_among_the_participants(parties: Parties) -> None:
    order: list[str] = []
    both = [parties.join(identity=name) for name in ("one", "two")]
    gate = threading.Event()

    def work(leadership: Any) -> None:
        gate.wait(LIMIT)
        order.append(leadership_of[leadership.token])

    leadership_of: dict[int, str] = {}

    def note_and_work(party: Party, name: str) -> None:
        def noted(leadership: Any) -> None:
            leadership_of[leadership.token] = name
            work(leadership)

        party.run(noted, terms=2)

    runs = [Later(lambda: note_and_work(both[0], "one"))]
    wait_until(lambda: len(_nodes(both[0])) == 1, LIMIT, "the first leads")
    runs.append(Later(lambda: note_and_work(both[1], "two")))
    wait_until(lambda: len(_nodes(both[0])) == 2, LIMIT, "the second waits")
    gate.set()
    for run in runs:
        run.result()
    assert order == ["one", "two", "one", "two"]


def test_an_exception_resigns_and_propagates(party: Party) -> None:
    def fail(_leadership: Any) -> None:
        raise KeyError(PATH)

    with pytest.raises(KeyError):
        party.run(fail)
    assert _nodes(party) == []


def test_the_loss_of_its_own_leadership_ends_the_term_only(parties: Parties, zkr_server: Server) -> None:
    party = parties.join()
    tokens: list[int] = []

    def work(leadership: Any) -> None:
        tokens.append(leadership.token)
        if len(tokens) == 1:
            zkr_server.expire(party.client)
            wait_until(leadership.lost.is_set, 15.0, "it is lost")
            assert leadership.should_stop.is_set()
        leadership.raise_if_lost()

    party.run(work, terms=2)
    assert len(tokens) == 2
    assert tokens[0] < tokens[1]


def test_the_loss_of_another_leadership_propagates(party: Party) -> None:
    def work(_leadership: Any) -> None:
        message = "of another office"
        raise zkr.LeadershipLostError(message, reason=zkr.LostReason.EXPIRED)

    with pytest.raises(zkr.LeadershipLostError, match="another office"):
        party.run(work)
    assert _nodes(party) == []


def test_close_ends_the_run(parties: Parties) -> None:
    party = parties.join()
    led = threading.Event()

    def work(leadership: Any) -> None:
        led.set()
        wait_until(leadership.should_stop.is_set, LIMIT, "told to stop")
        assert leadership.should_stop.reason is zkr.StopReason.CLOSED

    run = Later(lambda: party.run(work))
    assert led.wait(LIMIT)
    party.close()
    with pytest.raises(zkr.ClosedError):
        run.result()


# --- cancel -----------------------------------------------------------------------------------------------------------


def test_cancel_while_waiting_returns_at_once(parties: Parties) -> None:
    leader, party = parties.join(), parties.join()
    leader.acquire()
    cancel = zkr.Cancel()
    worked: list[Any] = []
    run = Later(lambda: party.run(worked.append, cancel=cancel))
    wait_until(lambda: len(_nodes(leader)) == 2, LIMIT, "it waits")
    cancel.cancel()
    run.result(2.0)
    assert worked == []
    assert len(_nodes(leader)) == 1


def test_cancel_while_leading_stops_the_work_and_then_gives_the_node_up(parties: Parties) -> None:
    party, other = parties.join(), parties.join()
    cancel = zkr.Cancel()
    leads, may_end = threading.Event(), threading.Event()
    reasons: list[zkr.StopReason] = []

    def work(leadership: Any) -> None:
        leads.set()
        reasons.append(_told(party, leadership))
        assert may_end.wait(LIMIT)

    run = Later(lambda: party.run(work, cancel=cancel))
    assert leads.wait(LIMIT)
    cancel.cancel()
    wait_until(lambda: reasons, 2.0, "the work is told")
    assert reasons == [zkr.StopReason.RESIGNED]
    assert other.try_acquire(0.3) is None, "the work has not ended"
    assert not run.done
    may_end.set()
    run.result(5.0)
    assert other.try_acquire(5.0) is not None


# --- stopping in time -------------------------------------------------------------------------------------------------


def test_the_work_is_told_before_the_lease_ends_by_the_grace(parties: Parties, zkr_proxy: FaultProxy) -> None:
    options = {"on_suspended": "keep_until_deadline", "stop_grace": GRACE}
    party = parties.join(zkr_proxy.hosts, session_timeout=4.0, **options)
    leadership = party.acquire()
    zkr_proxy.blackhole()
    wait_until(lambda: leadership.state is zkr.HoldState.UNCERTAIN, 4.0, "the connection is suspended")
    assert not leadership.should_stop.is_set()
    assert leadership.remaining() > GRACE
    assert not leadership.health().ok
    assert _told(party, leadership) is zkr.StopReason.SUSPENDED
    assert 0 < leadership.remaining() <= GRACE
    assert leadership.valid
    wait_until(lambda: not leadership.valid, GRACE + 0.2, "the lease has ended")
    assert leadership.lost.reason is zkr.LostReason.UNREACHABLE
    assert leadership.should_stop.reason is zkr.StopReason.SUSPENDED, "the first reason stays"


def test_by_default_a_suspended_connection_ends_the_term_at_once(parties: Parties, zkr_proxy: FaultProxy) -> None:
    party = parties.join(zkr_proxy.hosts, session_timeout=6.0)
    terms: list[tuple[int, str]] = []

    def work(leadership: Any) -> None:
        terms.append((leadership.token, _nodes(party)[0]))
        if len(terms) == 1:
            assert leadership.health().ok
            zkr_proxy.cut()
            assert _told(party, leadership, 2.0) is zkr.StopReason.SUSPENDED
            assert leadership.valid, "it was told long before the lease ends"
            wait_until(lambda: party.client.state is zkr.State.CONNECTED, LIMIT, "connected again")
            assert leadership.should_stop.is_set(), "a reconnect does not take it back"

    party.run(work, terms=2)
    (first, first_node), (second, second_node) = terms
    assert second > first
    assert second_node != first_node


def test_kept_until_the_deadline_a_term_survives_a_short_cut(parties: Parties, zkr_proxy: FaultProxy) -> None:
    party = parties.join(zkr_proxy.hosts, session_timeout=6.0, on_suspended="keep_until_deadline")
    leadership = party.acquire()
    node = _nodes(party)
    states: list[zkr.State] = []
    party.client.on_state(states.append)
    zkr_proxy.cut()
    wait_until(lambda: zkr.State.CONNECTED in states, LIMIT, "connected again")
    assert states[0] is zkr.State.SUSPENDED
    assert not leadership.should_stop.is_set()
    assert leadership.valid
    assert _nodes(party) == node
    wait_until(lambda: leadership.health().ok, 5.0, "healthy again")


def test_health(parties: Parties, zkr_proxy: FaultProxy) -> None:
    party = parties.join(zkr_proxy.hosts, session_timeout=6.0)
    leadership = party.acquire()
    assert leadership.health() == zkr.Health(ok=True, state="leading")
    zkr_proxy.refuse()
    wait_until(lambda: not leadership.health().ok, 2.0, "health is bad")
    assert leadership.health().state == "uncertain"
    assert leadership.valid
    assert not party.client.health().ok
    zkr_proxy.heal()
    party.release(leadership)
    assert leadership.health() == zkr.Health(ok=False, state="released", reason="resigned")


def test_resigning_tells_the_work(party: Party) -> None:
    leadership = party.acquire()
    told: list[zkr.StopReason] = []
    leadership.should_stop.on_set(told.append)
    party.do(leadership.resign)
    party.do(leadership.resign)
    wait_until(lambda: told, 2.0, "told")
    assert told == [zkr.StopReason.RESIGNED]
    assert not leadership.lost.is_set()


def test_the_signal_to_stop_is_told_once_with_its_first_reason(parties: Parties, zkr_server: Server) -> None:
    party = parties.join(on_suspended="keep_until_deadline")
    leadership = party.acquire()
    told: list[zkr.StopReason] = []
    again: list[zkr.StopReason] = []
    leadership.should_stop.on_set(told.append)
    zkr_server.expire(party.client)
    wait_until(lambda: told, 15.0, "told")
    party.release(leadership)
    party.close()
    leadership.should_stop.on_set(again.append)
    wait_until(lambda: again, 2.0, "told at once to who comes late")
    assert len(told) == 1
    assert told == again
    # Usually the first; where the server forgets to hang up, the lease comes to its end before we hear of it.
    assert told[0] in {zkr.StopReason.EXPIRED, zkr.StopReason.SUSPENDED}


# --- proclaimed data --------------------------------------------------------------------------------------------------


def test_what_a_leader_proclaims_is_seen_while_it_leads(parties: Parties) -> None:
    one, two = parties.join(identity="one", data=b"at once"), parties.join(identity="two")
    first = one.acquire()
    leader = two.do(two.recipe.leader)
    assert (leader.identity, leader.token, leader.holder, leader.data) == ("one", first.token, True, b"at once")
    one.do(lambda: first.proclaim(b"later"))
    assert two.do(two.recipe.leader).data == b"later"
    later = two.acquire_later()
    assert [contender.identity for contender in one.line()] == ["one", "two"]
    one.release(first)
    second = later.result()
    leader = one.do(one.recipe.leader)
    assert (leader.identity, leader.data) == ("two", b""), "what another leader proclaimed is not its successor's"
    two.do(lambda: second.proclaim(b"\x00\xff\n"))
    assert one.do(one.recipe.leader).data == b"\x00\xff\n"
    two.release(second)
    assert one.do(one.recipe.leader) is None


def test_only_the_leader_may_proclaim(parties: Parties, zkr_server: Server) -> None:
    party, operator = parties.join(session_timeout=30.0), parties.join()
    leadership = party.acquire()
    party.do(lambda: leadership.proclaim(b"mine"))
    operator.delete_node()
    with pytest.raises(zkr.LeadershipLostError):
        party.do(lambda: leadership.proclaim(b"not mine any more"))
    data = operator.do(lambda: operator.client.get(f"{PATH}-proclaimed")).value
    assert data.endswith(b"mine")
    party.release(leadership)
    with pytest.raises((zkr.LeadershipLostError, zkr.ClosedError)):
        party.do(lambda: leadership.proclaim(b"nor now"))


# --- observers --------------------------------------------------------------------------------------------------------


class _Observer:
    """What an observation has seen, read in a thread of its own."""

    def __init__(self, party: Party) -> None:
        self.seen: list[tuple[str, bytes] | None] = []
        self.observation = party.recipe.observe()
        self._party = party
        self.reading = Later(self._read)

    def _read(self) -> None:
        for leader in self._leaders():
            self.seen.append(None if leader is None else (leader.identity, leader.data))

    def _leaders(self) -> Iterator[Any]:
        if self._party.subject.driver == "threads":
            yield from self.observation
            return
        while True:
            try:
                yield self._party.do(self.observation.__anext__)
            except StopAsyncIteration:
                return

    def reaches(self, newest: tuple[str, bytes] | None) -> None:
        wait_until(lambda: self.seen[-1:] == [newest], 5.0, lambda: f"{newest} is observed: {self.seen}")


def test_an_observer_always_reaches_the_newest(parties: Parties) -> None:
    one, two, watcher = parties.join(identity="one"), parties.join(identity="two"), parties.join()
    observer = _Observer(watcher)
    observer.reaches(None)
    first = one.acquire()
    observer.reaches(("one", b""))
    one.do(lambda: first.proclaim(b"ready"))
    observer.reaches(("one", b"ready"))
    later = two.acquire_later()
    one.release(first)
    second = later.result()
    observer.reaches(("two", b""))
    two.release(second)
    observer.reaches(None)
    for _ in range(20):  # faster than anybody can look
        one.release(one.acquire())
    last = two.acquire()
    two.do(lambda: last.proclaim(b"last"))
    observer.reaches(("two", b"last"))
    observer.observation.close()
    observer.observation.close()
    observer.reading.result(5.0)


def test_an_observer_goes_on_over_an_expired_session(parties: Parties, zkr_server: Server) -> None:
    one, watcher = parties.join(identity="one"), parties.join()
    observer = _Observer(watcher)
    observer.reaches(None)
    session = watcher.client.session_id
    zkr_server.expire(watcher.client)
    wait_until(lambda: watcher.client.session_id not in {0, session}, 15.0, "it has a new session")
    one.acquire()
    observer.reaches(("one", b""))
    watcher.close()
    observer.reading.result(5.0)
