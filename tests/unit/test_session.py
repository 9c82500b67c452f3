"""The session's book-keeping, on a transport whose answers the test gives."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest

from tests.unit.kit import TIMEOUT, World
from zkrecipes.calls import Call, Unsettled
from zkrecipes.errors import (
    ClosedError,
    ForkedError,
    NodeNotFoundError,
    PayloadTooLargeError,
    TransactionError,
    UnavailableError,
)
from zkrecipes.heartbeat import Heartbeat
from zkrecipes.hold import LostReason
from zkrecipes.nodes import Nodes
from zkrecipes.port import Check, Children, Code, Create, Delete, Exists, Get, Multi, NodeEvent, Set, State

BEAT = TIMEOUT / 6


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.end()


@pytest.fixture
def kept(world: World) -> World:
    """With its heartbeat."""
    world.run(Heartbeat(world.session).keep())
    while world.requests:
        world.answer(None)
    return world


def _states(world: World) -> list[State]:
    told: list[State] = []
    world.session.on_state(told.append)
    return told


# --- requests ---------------------------------------------------------------------------------------------------------


def test_answers_come_to_their_calls(world: World) -> None:
    first, second = world.session.call(Get("/a")), world.session.call(Children("/b"))
    world.answer((b"x", world.stat()))
    world.refuse(Code.NO_NODE)
    assert first.result()[0] == b"x"
    with pytest.raises(NodeNotFoundError):
        second.result()


def test_nothing_is_handed_over_while_not_connected(world: World) -> None:
    world.transport.drop()
    call = world.session.call(Set("/a", b""))
    assert isinstance(call.error, Unsettled)
    assert not call.error.written
    assert world.transport.queue == []


def test_never_more_than_128_are_unanswered(world: World) -> None:
    calls = [world.session.call(Exists(f"/{number}")) for number in range(200)]
    assert len(world.transport.queue) == 128
    world.answer(None)
    assert len(world.transport.queue) == 128
    while world.requests:
        world.answer(None)
    assert all(call.done and not call.failed for call in calls)
    assert [request.path for request in world.transport.log] == [f"/{number}" for number in range(200)], "in order"


def test_what_waits_behind_them_was_never_written(world: World) -> None:
    calls = [world.session.call(Set(f"/{number}", b"")) for number in range(130)]
    world.transport.drop()
    outcomes = [call.error.written for call in calls if isinstance(call.error, Unsettled)]
    assert outcomes == [True] * 128 + [False] * 2


def test_a_call_given_up_before_it_was_written_never_is(world: World) -> None:
    for number in range(128):
        world.session.call(Exists(f"/{number}"))
    late = world.session.call(Set("/late", b""))
    world.session.withdraw(late)
    assert isinstance(late.error, Unsettled)
    assert not late.error.written
    while world.requests:
        world.answer(None)
    assert Set("/late", b"") not in world.transport.log


def test_a_call_given_up_after_it_was_written_may_have_been_done(world: World) -> None:
    call = world.session.call(Set("/a", b""))
    world.session.withdraw(call)
    assert isinstance(call.error, Unsettled)
    assert call.error.written
    world.answer(world.stat())


def test_no_request_is_written_in_another_session(world: World) -> None:
    call = world.session.call(Set("/a", b""))
    other = world.session.call(Set("/b", b""), session_id=99)
    assert isinstance(other.error, Unsettled)
    assert not other.error.written
    world.session.disconnected()
    world.session.expired()
    world.session.connected(8, TIMEOUT, world.runtime.time)
    assert not world.session.may_write(call)
    assert not world.session.may_write(Call(Set("/a", b""), 7, world.runtime.time))
    assert world.session.may_write(Call(Set("/a", b""), 8, world.runtime.time))


def test_a_request_that_cannot_be_encoded_blocks_nothing(kept: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would count as unanswered for ever, and the connection would be given up as silent."""

    def refuse(_call: Any) -> None:
        message = "surrogates not allowed"
        raise ValueError(message)

    with monkeypatch.context() as patch:
        patch.setattr(kept.transport, "send", refuse)
        with pytest.raises(ValueError, match="surrogates"):
            kept.session.call(Get("/a"))
    for _ in range(12):
        kept.runtime.advance(BEAT / 2)
        while kept.requests:
            kept.answer(None)
    assert kept.transport.reconnects == 0
    assert kept.session.state is State.CONNECTED


@pytest.mark.parametrize(
    "request_",
    [
        Create("/a", b"x" * 2_000_000),
        Set("/a", b"x" * 2_000_000),
        Multi((Set("/a", b"x" * 600_000), Set("/b", b"x" * 600_000))),
        Multi(tuple(Delete(f"/{number:0100}") for number in range(20_000))),
    ],
    ids=["create", "set", "multi", "many deletes"],
)
def test_what_is_too_large_is_not_handed_over(world: World, request_: Any) -> None:
    with pytest.raises(PayloadTooLargeError) as caught:
        world.session.call(request_)
    assert caught.value.size > caught.value.limit > 0
    assert world.transport.queue == []


# --- states -----------------------------------------------------------------------------------------------------------


def test_each_state_is_told_once_and_in_order(kept: World) -> None:
    told = _states(kept)
    for _ in range(2):
        kept.transport.drop()
        kept.session.disconnected()
        kept.connect()
        kept.session.connected(7, TIMEOUT, kept.runtime.time)
        while kept.requests:
            kept.answer(())
    kept.session.disconnected()
    kept.session.expired()
    kept.session.connected(8, TIMEOUT, kept.runtime.time)
    kept.session.close()
    kept.session.close()
    kept.runtime.run_callbacks()
    both = [State.SUSPENDED, State.CONNECTED]
    assert told == [*both, *both, State.SUSPENDED, State.LOST, State.CONNECTED, State.LOST]


def test_a_listener_taken_off_is_told_nothing_more(world: World) -> None:
    told: list[State] = []
    registration = world.session.on_state(told.append)
    registration.cancel()
    registration.cancel()
    world.transport.drop()
    world.runtime.run_callbacks()
    assert told == []


def test_a_cut_longer_than_the_session_is_lost_without_any_server(kept: World) -> None:
    told = _states(kept)
    kept.transport.drop()
    kept.runtime.advance(TIMEOUT - 0.1)
    kept.runtime.run_callbacks()
    assert told == [State.SUSPENDED]
    kept.runtime.advance(2 * BEAT)
    kept.runtime.run_callbacks()
    assert told == [State.SUSPENDED, State.LOST]


def test_a_process_frozen_for_longer_than_the_lease_but_not_the_session_goes_on(kept: World) -> None:
    hold = kept.session.hold("/line/me", 5)
    kept.runtime.time = hold._lease.until + 0.1  # nobody has run meanwhile
    told = _states(kept)
    kept.runtime.step()
    assert hold.ended is LostReason.UNREACHABLE
    while kept.requests:
        kept.answer(None)
    kept.runtime.run_callbacks()
    assert told == [State.LOST, State.CONNECTED]
    assert kept.session.usable


def test_answers_wake_nobody_who_waits_for_a_change(world: World) -> None:
    """A change that is none would wake every waiter of the process, whose listings would wake them again."""
    changed = world.session.changed
    for _ in range(5):
        world.session.call(Exists("/"))
        world.answer(None)
    assert not changed.done
    assert world.session.changed is changed


def test_a_server_that_is_only_slow_is_uncertain_meanwhile(kept: World) -> None:
    told = _states(kept)
    call = kept.session.call(Exists("/a"))
    kept.runtime.advance(BEAT + 0.1)
    assert kept.session.state is State.SUSPENDED
    assert not kept.session.usable
    kept.answer(None)
    assert not call.failed
    kept.runtime.run_callbacks()
    assert told == [State.SUSPENDED, State.CONNECTED]
    assert kept.transport.reconnects == 0


@pytest.mark.parametrize(("servers", "patience"), [(1, TIMEOUT / 2), (3, BEAT)])
def test_a_silent_server_is_left(servers: int, patience: float) -> None:
    world = World(servers=servers)
    world.run(Heartbeat(world.session).keep())
    while world.requests:
        world.answer(None)
    world.session.call(Exists("/a"))
    world.runtime.advance(patience - 0.1)
    assert world.transport.reconnects == 0
    world.runtime.advance(0.2)
    assert world.transport.reconnects == 1
    world.runtime.advance(TIMEOUT)
    assert world.transport.reconnects == 1, "once is enough: the transport goes on by itself"


def test_silence_right_after_a_reconnect_is_doubted_soon(kept: World) -> None:
    """A session that somebody closes just then gets no answers any more; a slow server gets no storm."""
    kept.session.hold("/line/me", 5)
    kept.transport.drop()
    kept.connect()
    kept.runtime.advance(0.5)
    assert kept.transport.reconnects == 1
    waits = []
    for _ in range(5):
        kept.transport.drop()
        kept.connect()
        before, began = kept.transport.reconnects, kept.runtime.time
        while kept.transport.reconnects == before and kept.runtime.time - began < TIMEOUT:
            kept.runtime.advance(0.05)
        waits.append(kept.runtime.time - began)
    assert waits == sorted(waits)
    assert waits[-1] >= TIMEOUT / 6, waits


# --- holds ------------------------------------------------------------------------------------------------------------


def test_a_hold_is_kept_by_heartbeats(kept: World) -> None:
    hold = kept.session.hold("/line/me", 5)
    for _ in range(60):
        kept.runtime.advance(BEAT / 3)
        while kept.requests:
            kept.answer(kept.stat() if isinstance(kept.requests[0], Exists) else (None,))
    assert hold.valid
    assert Multi((Check("/line/me", -1),)) in kept.transport.log


def test_a_hold_ends_by_the_clock_before_anybody_runs(kept: World) -> None:
    hold = kept.session.hold("/line/me", 5)
    assert hold.valid
    kept.runtime.time = hold._lease.until
    assert not hold.valid
    assert hold.remaining() == 0.0
    assert hold.reason is LostReason.UNREACHABLE


def _answer_all(world: World) -> None:
    while world.requests:
        world.answer(world.stat() if isinstance(world.requests[0], Exists) else (None,))


def test_a_late_answer_revives_nothing(kept: World) -> None:
    """It would extend the lease, if the lease had not run out before it came."""
    hold = kept.session.hold("/line/me", 5)
    for _ in range(6):
        kept.runtime.advance(BEAT)
        _answer_all(kept)
    kept.runtime.advance(BEAT)
    assert isinstance(kept.requests[0], Multi)
    kept.runtime.time = hold._lease.until + 0.01
    call = kept.transport.queue.pop(0)
    kept.session.answered(call, (None,))
    assert hold.ended is LostReason.UNREACHABLE, "before anybody could use the answer"
    assert kept.session.lease.until > kept.runtime.time, "the answer alone would have extended it"
    _answer_all(kept)
    assert hold.ended is LostReason.UNREACHABLE
    assert not hold.valid
    assert hold.path not in kept.session.holds


def test_a_reader_that_saw_it_end_keeps_it_ended(kept: World) -> None:
    """Even if the clock could be turned back."""
    hold = kept.session.hold("/line/me", 5)
    kept.runtime.time = hold._lease.until
    assert not hold.valid
    kept.runtime.time -= 5.0
    assert not hold.valid


def test_a_failed_check_ends_that_hold_alone(kept: World) -> None:
    gone, stays = kept.session.hold("/line/gone", 5), kept.session.hold("/line/stays", 6)
    kept.runtime.advance(BEAT)
    assert isinstance(kept.requests[0], Multi)
    kept.refuse(Code.NO_NODE, 0)
    assert gone.ended is LostReason.NODE_DELETED
    assert stays.valid
    assert Multi((Check("/line/stays", -1),)) in kept.requests


def test_many_holds_are_confirmed_in_parts(kept: World) -> None:
    holds = [kept.session.hold(f"/line/{number:04}", number) for number in range(1000)]
    kept.runtime.advance(BEAT)
    multis = [request for request in kept.requests if isinstance(request, Multi)]
    assert sum(len(multi.operations) for multi in multis) == len(holds)
    assert max(len(multi.operations) for multi in multis) <= 250


@pytest.mark.parametrize(
    ("end", "reason"),
    [("expired", LostReason.EXPIRED), ("close", LostReason.CLOSED), ("another", LostReason.EXPIRED)],
)
def test_the_end_of_a_session_ends_its_holds_once(kept: World, end: str, reason: LostReason) -> None:
    hold = kept.session.hold("/line/me", 5)
    told: list[LostReason] = []
    hold.over.add_waiter(lambda: told.append(hold.over.result()))
    if end == "another":
        kept.transport.drop()
        kept.session.connected(8, TIMEOUT, kept.runtime.time)
    else:
        getattr(kept.session, end)()
    kept.session.close()
    assert told == [reason]
    assert not hold.valid
    assert kept.session.holds == {}


def test_a_hold_given_up_as_unreachable_is_removed_when_the_session_turns_out_alive(kept: World) -> None:
    Nodes(kept.session)
    hold = kept.session.hold("/line/me", 5)
    kept.transport.drop()
    kept.runtime.advance(TIMEOUT)
    assert hold.ended is LostReason.UNREACHABLE
    kept.connect()
    assert Delete("/line/me", -1) in kept.requests


def test_after_a_reconnect_a_write_is_sent_at_once(kept: World) -> None:
    kept.session.hold("/line/me", 5)
    kept.transport.drop()
    kept.connect()
    assert isinstance(kept.requests[0], Multi)


def test_a_fork_ends_holds_and_verbs(kept: World) -> None:
    hold = kept.session.hold("/line/me", 5)
    kept.runtime.is_fork = True
    assert hold.reason is LostReason.FORKED
    with pytest.raises(ForkedError):
        kept.session.call(Get("/a"))
    call = kept.transport.queue[0] if kept.transport.queue else None
    assert call is None or not kept.session.may_write(call)


# --- the end ----------------------------------------------------------------------------------------------------------


def test_close_ends_everything_that_waits(kept: World) -> None:
    written = kept.session.call(Set("/a", b""))
    backlog = [kept.session.call(Get(f"/{number}")) for number in range(200)][-1]
    ready = kept.run(kept.session.ready(kept.runtime.time + 100))
    watching = kept.session.call(Get("/w", watch=True))
    kept.session.close()
    kept.runtime.step()
    assert isinstance(written.error, Unsettled)
    assert written.error.written
    assert isinstance(backlog.error, Unsettled)
    assert not backlog.error.written
    assert isinstance(watching.error, Unsettled)
    assert ready.done
    with pytest.raises(ClosedError):
        kept.session.call(Get("/a"))
    assert kept.runtime.tasks.names() == []


def test_failure_for_good_is_told_to_everybody(kept: World) -> None:
    kept.transport.drop()
    waiting = kept.run(kept.session.ready(kept.runtime.time + 100))
    kept.session.failed(UnavailableError("credentials"))
    kept.runtime.step()
    with pytest.raises(UnavailableError, match="credentials"):
        waiting.result()
    with pytest.raises(UnavailableError, match="credentials"):
        kept.session.call(Get("/a"))


def test_watches_fire_once_and_at_the_end_of_a_connection(world: World) -> None:
    first = world.session.call(Get("/a", watch=True))
    world.answer((b"", world.stat()))
    second = world.session.call(Exists("/b", watch=True))
    world.answer(None)
    assert first.watch is not None
    assert second.watch is not None
    world.session.notified("/a", NodeEvent.CHILDREN)
    assert not first.watch.done
    world.session.notified("/a", NodeEvent.CHANGED)
    assert first.watch.done
    assert not second.watch.done
    world.transport.drop()
    assert second.watch.done


# --- attempts ---------------------------------------------------------------------------------------------------------


def test_a_create_is_not_sent_in_a_session_that_has_come_since(world: World) -> None:
    """The reaper would not look for it there, and it would stand in the line for ever."""
    nodes = Nodes(world.session)
    attempt = nodes.attempt("/line", "guid-")
    world.transport.drop()
    world.session.expired()
    world.session.connected(8, TIMEOUT, world.runtime.time)
    call = nodes.create(attempt, b"")
    assert isinstance(call.error, Unsettled)
    assert not call.error.written
    assert world.transport.queue == []


def test_what_a_collected_attempt_has_made_is_removed(kept: World) -> None:
    nodes = Nodes(kept.session)
    kept.run(nodes.sweep())
    attempt = nodes.attempt("/line", "guid-")
    nodes.create(attempt, b"")
    del attempt
    gc.collect()
    kept.runtime.advance(1.0)
    assert [type(request) for request in kept.requests] == [Create, Multi, Children]
    kept.answer(kept.created("/line/guid-0000000007"))
    kept.answer((None,))
    kept.answer(["other-0000000001", "guid-0000000007"])
    assert Delete("/line/guid-0000000007", -1) in kept.requests


def test_a_settled_attempt_is_left_alone(kept: World) -> None:
    nodes = Nodes(kept.session)
    kept.run(nodes.sweep())
    attempt = nodes.attempt("/line", "guid-")
    attempt.settle()
    del attempt
    gc.collect()
    kept.runtime.advance(1.0)
    assert not [request for request in kept.requests if not isinstance(request, Exists)]


def test_a_lookup_believes_nothing_without_a_committed_write(world: World) -> None:
    nodes = Nodes(world.session)
    found = world.run(nodes.find(nodes.attempt("/line", "guid-"), world.runtime.time + 5))
    assert [type(request) for request in world.requests] == [Multi, Children], "in one flight"
    world.transport.drop()
    world.runtime.step()
    with pytest.raises(Unsettled):
        found.result()


def test_the_reaper_goes_on_over_reconnects_and_ends_with_the_session(kept: World) -> None:
    nodes = Nodes(kept.session)
    attempt = nodes.attempt("", "", "/line/me")
    removed = nodes.remove(attempt)
    kept.runtime.step()
    for _ in range(3):
        assert kept.requests[-1] == Delete("/line/me", -1)
        kept.transport.drop()
        kept.runtime.advance(0.1)
        kept.connect()
        kept.runtime.advance(0.1)
    assert not removed.done
    kept.transport.drop()
    kept.session.expired()
    kept.session.connected(8, TIMEOUT, kept.runtime.time)
    kept.runtime.advance(0.1)
    assert removed.done
    assert Delete("/line/me", -1) not in kept.requests


def test_a_refused_transaction_names_its_operation(world: World) -> None:
    call = world.session.call(Multi((Check("/a"), Check("/b"))))
    world.refuse(Code.NO_NODE, 1)
    assert isinstance(call.error, TransactionError)
    assert call.error.index == 1
