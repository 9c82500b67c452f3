"""Waiting for a hold: deadlines, cancellation, order, and what is left on the server."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

import zkrecipes as zkr
from tests.contracts.subjects import DRIVERS, KINDS, PATH, SUBJECTS, Later, Parties, Party, Subject
from zkrecipes.testing import FaultProxy, Server, wait_until

ROOT: Final = Path(__file__).parents[2]
TICK: Final = 0.5  # of the shared server
ASYNCIO: Final = [subject for subject in SUBJECTS if subject.driver == "asyncio"]


@pytest.fixture
def holder(parties: Parties) -> Party:
    """Somebody who holds it all the time."""
    holder = parties.join()
    holder.acquire()
    return holder


def _nodes(party: Party) -> list[str]:
    try:
        names: list[str] = party.do(lambda: party.client.children(PATH))
    except zkr.NodeNotFoundError:
        return []  # the server has cleared the empty container away
    return names


def _stand(party: Party, number: int) -> bool:
    return len(_nodes(party)) == number


# --- others hold it ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [0.3, timedelta(milliseconds=300)], ids=["seconds", "timedelta"])
def test_a_deadline_while_others_hold_it(parties: Parties, holder: Party, timeout: Any) -> None:
    party = parties.join()
    began = time.monotonic()
    with pytest.raises(zkr.AcquireTimeoutError, match=PATH) as raised:
        party.acquire(timeout)
    assert 0.3 <= time.monotonic() - began < 0.6
    assert isinstance(raised.value, TimeoutError)
    assert raised.value.timeout == 0.3
    assert not raised.value.left_behind
    assert len(_nodes(holder)) == 1, "the one who gave up has left nothing"


def test_no_waiting_in_line_with_a_timeout_of_zero(parties: Parties, holder: Party) -> None:
    party = parties.join()
    began = time.monotonic()
    with pytest.raises(zkr.AcquireTimeoutError):
        party.acquire(0)
    assert party.try_acquire() is None
    assert time.monotonic() - began < 1.0
    wait_until(lambda: len(_nodes(holder)) == 1, 1.0, "nothing is left")


def test_try_waits_as_long_as_it_is_told(parties: Parties, holder: Party) -> None:
    party = parties.join()
    began = time.monotonic()
    assert party.try_acquire(0.3) is None
    assert 0.3 <= time.monotonic() - began < 0.6


def test_try_takes_what_is_free(party: Party) -> None:
    handle = party.try_acquire()
    assert handle is not None
    assert handle.valid
    party.release(handle)
    again = party.acquire(0)
    assert again.token > handle.token


def test_first_come_first_served(parties: Parties) -> None:
    holder = parties.join()
    held = holder.acquire()
    order: list[int] = []
    waiters = [parties.join() for _ in range(3)]

    def turn(number: int, waiter: Party) -> None:
        handle = waiter.acquire()
        order.append(number)
        waiter.release(handle)

    turns = []
    for number, waiter in enumerate(waiters):
        turns.append(Later(partial(turn, number, waiter)))
        wait_until(partial(_stand, holder, number + 2), 5.0, "it stands in line")
    assert [contender.holder for contender in holder.line()] == [True, False, False, False]
    holder.release(held)
    for each in turns:
        each.result()
    assert order == [0, 1, 2]


def test_a_waiter_whose_session_expires_joins_anew(parties: Parties, zkr_server: Server) -> None:
    holder, party = parties.join(), parties.join()
    held = holder.acquire()
    later = party.acquire_later()
    session = party.client.session_id
    zkr_server.expire(party.client)
    wait_until(lambda: party.client.session_id not in {0, session}, 15.0, "it has a new session")
    wait_until(lambda: len(_nodes(holder)) == 2, 5.0, "it stands in line again")
    assert not later.done
    holder.release(held)
    handle = later.result()
    assert handle.valid
    assert handle.token > held.token


def test_a_waiter_keeps_its_place_over_a_short_cut(parties: Parties, zkr_proxy: FaultProxy) -> None:
    holder, party = parties.join(), parties.join(zkr_proxy.hosts)
    held = holder.acquire()
    later = party.acquire_later()
    before = sorted(_nodes(holder))
    zkr_proxy.cut()
    wait_until(lambda: party.client.state is zkr.State.CONNECTED, 10.0, "it is connected again")
    assert sorted(_nodes(holder)) == before
    holder.release(held)
    assert later.result().valid


def test_a_waiter_gets_its_turn_when_the_holders_node_is_removed(parties: Parties) -> None:
    holder, party = parties.join(), parties.join()
    holder.acquire()
    later = party.acquire_later()
    parties.join().delete_node()
    assert later.result(2.0).valid


# --- no server --------------------------------------------------------------------------------------------------------


@pytest.mark.serial
def test_the_deadline_holds_while_the_server_is_away_hung_or_silent(
    parties: Parties, zkr_server: Server, zkr_proxy: FaultProxy
) -> None:
    with FaultProxy(zkr_server) as refusing, FaultProxy(zkr_server) as mute:
        waiters = {
            "away": parties.join(refusing.hosts),
            "black hole": parties.join(zkr_proxy.hosts),
            "no answers": parties.join(mute.hosts),
            "hung": parties.join(),
        }
        for waiter in waiters.values():
            waiter.release(waiter.acquire())
        refusing.refuse()
        zkr_proxy.blackhole()
        mute.blackhole("to_client")
        zkr_server.pause()
        laters = {what: Later(partial(waiter.acquire, 1.0)) for what, waiter in waiters.items()}
        try:
            for later in laters.values():
                later.wait(5.0)
        finally:
            zkr_server.resume()
        for what, later in laters.items():
            assert isinstance(later.error, zkr.UnavailableError), (what, later.error)
            assert isinstance(later.error, TimeoutError)
            assert 0.9 < later.seconds <= 1.2, (what, later.seconds)
        mute.heal()
        zkr_proxy.heal()
        refusing.heal()
        witness = parties.join()
        wait_until(lambda: not _nodes(witness), 10.0, lambda: f"nothing is left: {_nodes(witness)}")


def test_not_connected_and_no_waiting_is_unavailable_at_once(parties: Parties, zkr_proxy: FaultProxy) -> None:
    party = parties.join(zkr_proxy.hosts)
    zkr_proxy.refuse()
    wait_until(lambda: party.client.state is not zkr.State.CONNECTED, 5.0, "it is suspended")
    began = time.monotonic()
    with pytest.raises(zkr.UnavailableError):
        party.acquire(0)
    with pytest.raises(zkr.UnavailableError):
        party.try_acquire()
    assert time.monotonic() - began < 0.2


def test_an_acquire_waits_for_the_server_to_come_back(parties: Parties, zkr_proxy: FaultProxy) -> None:
    party = parties.join(zkr_proxy.hosts)
    zkr_proxy.refuse()
    wait_until(lambda: party.client.state is not zkr.State.CONNECTED, 5.0, "it is suspended")
    later = Later(party.acquire)
    zkr_proxy.heal()
    assert later.result().valid


# --- cancelled --------------------------------------------------------------------------------------------------------


def test_cancel_from_another_thread(parties: Parties, holder: Party) -> None:
    party = parties.join()
    cancel = zkr.Cancel()
    later = party.acquire_later(None, cancel=cancel)
    cancel.cancel()
    with pytest.raises(zkr.CancelledError):
        later.result(2.0)
    assert len(_nodes(holder)) == 1
    with pytest.raises(zkr.CancelledError):
        party.acquire(cancel=cancel)
    assert len(_nodes(holder)) == 1


def test_cancel_while_there_is_no_server(parties: Parties, zkr_proxy: FaultProxy) -> None:
    party = parties.join(zkr_proxy.hosts)
    zkr_proxy.refuse()
    wait_until(lambda: party.client.state is not zkr.State.CONNECTED, 5.0, "it is suspended")
    cancel = zkr.Cancel()
    later = Later(lambda: party.acquire(None, cancel=cancel))
    cancel.cancel()
    with pytest.raises(zkr.CancelledError):
        later.result(2.0)


@pytest.mark.parametrize("subject", ASYNCIO, ids=str)
def test_a_cancelled_task_leaves_nothing(subject: Subject, parties: Parties, holder: Party) -> None:
    party = parties.join()
    verb = party.recipe.campaign if subject.kind == "election" else party.recipe.acquire

    async def cancelled() -> None:
        waiting = asyncio.ensure_future(_take(verb))
        while len(await party.client.children(PATH)) < 2:
            await party.client.sync()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    party.do(cancelled)
    assert len(_nodes(holder)) == 1


@pytest.mark.parametrize("subject", ASYNCIO, ids=str)
def test_wait_for_leaves_nothing(subject: Subject, parties: Parties, holder: Party) -> None:
    party = parties.join()
    verb = party.recipe.campaign if subject.kind == "election" else party.recipe.acquire
    with pytest.raises(TimeoutError):
        party.do(lambda: asyncio.wait_for(_take(verb), 0.3))
    assert len(_nodes(holder)) == 1


async def _take(verb: Any) -> Any:
    return await verb()


# --- closed -----------------------------------------------------------------------------------------------------------


def test_close_ends_a_wait(parties: Parties, holder: Party) -> None:
    party = parties.join()
    later = party.acquire_later(None)
    party.close()
    with pytest.raises(zkr.ClosedError, match="connect"):
        later.result(2.0)
    wait_until(lambda: len(_nodes(holder)) == 1, 2.0, "nothing is left")


def test_a_closed_client_is_refused(party: Party) -> None:
    party.close()
    for call in (party.acquire, party.try_acquire, party.line):
        with pytest.raises(zkr.ClosedError, match="connect"):
            call()


# --- strangers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["config", "lock-1", "item-0000000001"])
def test_a_foreign_node_is_refused(parties: Parties, name: str) -> None:
    party = parties.join()
    party.do(lambda: party.client.create(f"{PATH}/{name}", parents=True))
    with pytest.raises(zkr.ForeignNodeError, match=PATH):
        party.acquire(5.0)
    with pytest.raises(zkr.ForeignNodeError, match=name):
        party.line()
    assert _nodes(party) == [name]


# --- killed -----------------------------------------------------------------------------------------------------------


@pytest.mark.serial
@pytest.mark.parametrize("driver", DRIVERS)
def test_a_killed_holder_is_followed_within_its_session_and_two_ticks(
    driver: str, zkr_server: Server, zkr_namespace: str
) -> None:
    timeout = 1.5
    command = [sys.executable, "-m", "tests.contracts.holder", zkr_server.hosts, zkr_namespace, driver, str(timeout)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=_environment())
    everybody = [Parties(Subject(kind, driver), zkr_server.hosts, zkr_namespace) for kind in KINDS]
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        waiters = []
        for parties in everybody:
            waiter = parties.join()
            waiter.recipe = waiter.make(f"{PATH}-{waiter.subject.kind}")
            waiters.append((waiter.subject, waiter.acquire_later()))
        process.kill()
        killed = time.monotonic()
        for subject, later in waiters:
            assert later.result().valid
            assert later.ended - killed <= timeout + 2 * TICK, subject
    finally:
        process.kill()
        process.communicate()
        for parties in everybody:
            parties.close()


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT)}
