"""The life of a handle: the same for everything that hands one out, in threads and asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import zkrecipes as zkr
from tests.contracts.subjects import CLAIMS, PATH, SUBJECTS, Later, Parties, Party, Subject
from zkrecipes.testing import FaultProxy, Server, wait_until

Lose = Callable[[Party], None]


@pytest.fixture(params=[*SUBJECTS, *CLAIMS], ids=str)
def subject(request: pytest.FixtureRequest) -> Subject:
    """All that hands out a handle."""
    chosen: Subject = request.param
    return chosen


class _Calls:
    """What callbacks of `lost` were told."""

    def __init__(self) -> None:
        self.reasons: list[zkr.LostReason] = []

    def __call__(self, reason: zkr.LostReason) -> None:
        self.reasons.append(reason)


def _lost(handle: Any, reason: zkr.LostReason, limit: float = 15.0) -> None:
    wait_until(handle.lost.is_set, limit, f"the hold is lost: {reason}")
    assert handle.lost.reason is reason


# --- held -------------------------------------------------------------------------------------------------------------


def test_a_fresh_hold_is_provable(party: Party) -> None:
    handle = party.acquire()
    assert handle.valid
    assert handle.state is zkr.HoldState.HELD
    assert 0 < handle.remaining() <= party.client.session_timeout
    assert not handle.lost.is_set()
    assert handle.lost.reason is None
    assert handle.turn == 1
    assert handle.path == PATH
    handle.raise_if_lost()
    assert [contender.token for contender in party.line()] == [handle.token]
    assert party.line()[0].holder
    assert f"token={handle.token}" in repr(handle)


def test_the_token_is_the_transaction_that_made_the_node(party: Party) -> None:
    handle = party.acquire()
    node = party.line()[0].node
    stat = party.do(lambda: party.client.exists(f"{PATH}/{node}"))
    assert handle.token == stat.czxid
    assert stat.ephemeral_owner == party.client.session_id


def test_tokens_rise_over_holders_even_when_the_path_is_made_anew(parties: Parties) -> None:
    one, two = parties.join(), parties.join()
    tokens: list[int] = []
    for number in range(3):
        for party in (one, two):
            handle = party.acquire()
            tokens.append(handle.token)
            party.release(handle)
        if number == 1:
            one.make_anew()  # numbers of nodes begin at 0 again, tokens do not
    assert tokens == sorted(set(tokens)), tokens


def test_remaining_falls_and_is_renewed(parties: Parties) -> None:
    party = parties.join(session_timeout=2.0)
    handle = party.acquire()
    lowest = [handle.remaining()]

    def renewed() -> bool:
        now = handle.remaining()
        if now > lowest[0] + 0.1:
            return True
        lowest[0] = min(now, lowest[0])
        return False

    wait_until(renewed, 5.0, "the lease was renewed by a heartbeat")
    assert lowest[0] > 0
    assert handle.valid


# --- released ---------------------------------------------------------------------------------------------------------


def test_release_is_idempotent_and_from_any_thread(parties: Parties) -> None:
    party, other = parties.join(), parties.join()
    handle = party.acquire()
    calls = _Calls()
    handle.lost.on_set(calls)
    for release in [Later(lambda: party.release(handle)) for _ in range(3)]:
        release.result()
    party.release(handle)
    assert not handle.valid
    assert handle.remaining() == 0.0
    assert handle.state is zkr.HoldState.RELEASED
    assert not handle.lost.is_set()
    assert not party.do(lambda: handle.lost.wait(0))
    assert calls.reasons == []
    with pytest.raises(zkr.ClosedError, match="released"):
        handle.raise_if_lost()
    with pytest.raises(zkr.ClosedError, match="released"):
        handle.guard(party.client.transaction())
    assert party.line() == []
    assert other.try_acquire() is not None


def test_a_released_handle_is_not_lost_by_what_comes_later(parties: Parties) -> None:
    party = parties.join()
    handle = party.acquire()
    party.release(handle)
    party.close()
    assert handle.state is zkr.HoldState.RELEASED
    assert not handle.lost.is_set()


def test_leaving_the_block_releases(party: Party) -> None:
    handle = party.acquire()
    party.inside(handle, lambda: None)
    assert handle.state is zkr.HoldState.RELEASED
    assert party.line() == []


def test_an_exception_in_the_block_releases_and_propagates(party: Party) -> None:
    def fail() -> None:
        raise KeyError(PATH)

    handle = party.acquire()
    with pytest.raises(KeyError):
        party.inside(handle, fail)
    assert party.line() == []


# --- lost -------------------------------------------------------------------------------------------------------------


def test_an_expired_session_ends_the_hold_once(parties: Parties, subject: Subject, zkr_server: Server) -> None:
    party = parties.join()
    handle = party.acquire()
    before, after, cancelled = _Calls(), _Calls(), _Calls()
    handle.lost.on_set(before)
    handle.lost.on_set(cancelled).cancel()
    zkr_server.expire(party.client)
    assert party.do(lambda: handle.lost.wait(15.0))
    _lost(handle, zkr.LostReason.EXPIRED)
    assert not handle.valid
    assert handle.remaining() == 0.0
    assert handle.state is zkr.HoldState.LOST
    with pytest.raises(subject.lost_error, match=PATH) as raised:
        handle.raise_if_lost()
    assert raised.value.reason is zkr.LostReason.EXPIRED
    with pytest.raises(subject.lost_error):
        handle.guard(party.client.transaction())
    handle.lost.on_set(after)
    wait_until(lambda: before.reasons and after.reasons, 5.0, "both callbacks have run")
    party.release(handle)
    party.close()
    assert handle.state is zkr.HoldState.LOST, "a release does not hide a loss"
    assert before.reasons == after.reasons == [zkr.LostReason.EXPIRED]
    assert cancelled.reasons == []


def test_leaving_the_block_of_a_lost_hold_raises(parties: Parties, subject: Subject, zkr_server: Server) -> None:
    party = parties.join()
    handle = party.acquire()

    def expire() -> None:
        zkr_server.expire(party.client)
        _lost(handle, zkr.LostReason.EXPIRED)

    with pytest.raises(subject.lost_error) as raised:
        party.inside(handle, expire)
    assert raised.value.reason is zkr.LostReason.EXPIRED
    assert raised.value.path == PATH


def test_the_bodys_own_exception_is_not_hidden_by_a_loss(parties: Parties, zkr_server: Server) -> None:
    party = parties.join()
    handle = party.acquire()

    def expire_and_fail() -> None:
        zkr_server.expire(party.client)
        _lost(handle, zkr.LostReason.EXPIRED)
        raise KeyError(PATH)

    with pytest.raises(KeyError):
        party.inside(handle, expire_and_fail)


def test_after_a_loss_the_same_client_can_hold_again(parties: Parties, zkr_server: Server) -> None:
    party = parties.join()
    lost = party.acquire()
    zkr_server.expire(party.client)
    _lost(lost, zkr.LostReason.EXPIRED)
    party.release(lost)
    again = party.acquire()
    assert again.valid
    assert again.token > lost.token
    assert not lost.valid


def test_close_ends_every_hold(parties: Parties, subject: Subject) -> None:
    party, other = parties.join(), parties.join()
    handle = party.acquire()
    calls = _Calls()
    handle.lost.on_set(calls)
    party.close()
    assert handle.lost.is_set()
    assert handle.lost.reason is zkr.LostReason.CLOSED
    assert not handle.valid
    wait_until(lambda: calls.reasons, 5.0, "the callback has run")
    assert calls.reasons == [zkr.LostReason.CLOSED]
    with pytest.raises(subject.lost_error):
        handle.raise_if_lost()
    party.release(handle)
    assert other.try_acquire(5.0) is not None, "the session's end has freed it"


def test_a_deleted_node_ends_the_hold(parties: Parties, subject: Subject) -> None:
    party, operator = parties.join(session_timeout=1.5), parties.join()
    handle = party.acquire()
    operator.delete_node()
    _lost(handle, zkr.LostReason.NODE_DELETED)
    assert not handle.valid
    with pytest.raises(subject.lost_error):
        handle.raise_if_lost()
    assert party.client.state is zkr.State.CONNECTED
    party.release(handle)


def test_silence_makes_it_uncertain_and_then_lost_by_its_own_clock(
    parties: Parties, subject: Subject, zkr_proxy: FaultProxy
) -> None:
    party = parties.join(zkr_proxy.hosts, session_timeout=2.0)
    handle = party.acquire()
    zkr_proxy.blackhole()
    longest = handle.remaining()
    wait_until(lambda: handle.state is zkr.HoldState.UNCERTAIN, 2.0, "the hold is uncertain")
    assert handle.valid
    assert handle.remaining() > 0
    wait_until(lambda: not handle.valid, longest + 0.2, "the hold has ended by the clock")
    assert handle.lost.reason is zkr.LostReason.UNREACHABLE
    assert handle.state is zkr.HoldState.LOST
    with pytest.raises(subject.lost_error):
        handle.raise_if_lost()
    release = Later(lambda: party.release(handle))
    release.result()
    assert release.seconds < 1.5
    zkr_proxy.heal()
    wait_until(lambda: party.client.state is zkr.State.CONNECTED, 10.0, "the client is connected again")
    assert not handle.valid, "nothing is revived"


# --- guarded writes ---------------------------------------------------------------------------------------------------


def test_a_guarded_write_is_applied_while_we_hold(party: Party) -> None:
    party.do(lambda: party.client.create("/data", b"old", parents=True))
    handle = party.acquire()
    party.guarded_set(handle, "/data", b"new")
    assert party.do(lambda: party.client.get("/data")).value == b"new"


def test_the_server_refuses_a_guarded_write_as_soon_as_the_node_is_gone(parties: Parties) -> None:
    """Before we know it ourselves: no heartbeat comes within five seconds, and no watch stands yet."""
    party, operator = parties.join(session_timeout=30.0), parties.join()
    party.do(lambda: party.client.create("/data", b"old", parents=True))
    handle = party.acquire()
    operator.delete_node()
    assert handle.valid
    with pytest.raises(zkr.TransactionError) as raised:
        party.guarded_set(handle, "/data", b"new")
    assert raised.value.index == 0
    assert party.do(lambda: party.client.get("/data")).value == b"old"


def test_a_guard_is_looked_at_again_at_the_commit(parties: Parties, subject: Subject, zkr_server: Server) -> None:
    party = parties.join()
    party.do(lambda: party.client.create("/data", b"old", parents=True))

    def expire() -> None:
        zkr_server.expire(party.client)
        _lost(handle, zkr.LostReason.EXPIRED)

    handle = party.acquire()
    with pytest.raises(subject.lost_error):
        party.guarded_set(handle, "/data", b"new", before_commit=expire)
    party.release(handle)
    handle = party.acquire()
    with pytest.raises(zkr.ClosedError):
        party.guarded_set(handle, "/data", b"new", before_commit=lambda: party.release(handle))
    assert party.do(lambda: party.client.get("/data")).value == b"old"


# --- event loops ------------------------------------------------------------------------------------------------------


def test_blocking_verbs_refuse_to_run_in_an_event_loop(zkr_client: zkr.Client) -> None:
    lock, reentrant = zkr.Lock(zkr_client, PATH), zkr.RLock(zkr_client, f"{PATH}-again")
    election = zkr.Election(zkr_client, f"{PATH}-office")
    handle, leadership = lock.acquire(5.0), election.campaign(5.0)
    verbs: list[Callable[[], object]] = [
        *(lock.acquire, lock.try_acquire, lock.contenders, lock.break_, reentrant.acquire, lock.__enter__),
        *(election.campaign, election.try_campaign, election.leader, election.participants),
        lambda: election.run(lambda _: None, terms=1),
        lambda: next(election.observe()),
        *(handle.release, handle.lost.wait, leadership.resign, leadership.should_stop.wait),
        lambda: leadership.proclaim(b""),
        *(lambda: zkr_client.get("/"), zkr_client.sync, zkr_client.transaction().commit),
        lambda: zkr.connect("127.0.0.1:1", connect_timeout=0.1),
    ]

    async def call_all() -> None:
        for verb in verbs:
            with pytest.raises(RuntimeError, match=r"zkrecipes\.aio"):
                verb()

    asyncio.run(call_all())
    assert handle.valid
    assert leadership.valid
