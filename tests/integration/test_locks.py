"""What Lock, RLock and the local hand-off promise beyond the handle."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from functools import partial

import pytest

import zkrecipes as zkr
import zkrecipes.aio as zkr_aio
from tests.contracts.subjects import Later
from zkrecipes.handoff import LocalLine
from zkrecipes.testing import Server, wait_until

PATH = "/lock"
LIMIT = 20.0


def _local_waiters(zk: zkr.Client) -> int:
    return sum(len(line._waiting) for line in zk.core.shared.values() if isinstance(line, LocalLine))


# --- with lock --------------------------------------------------------------------------------------------------------


def test_with_lock_keeps_a_handle_for_each_thread(zkr_client: zkr.Client) -> None:
    """One object, several threads inside its `with`, one after the other."""
    lock = zkr.Lock(zkr_client, PATH)
    inside = 0
    most = 0
    tokens: list[int] = []

    def turns() -> None:
        nonlocal inside, most
        for _ in range(5):
            with lock as held:
                inside += 1
                most = max(most, inside)
                assert held.valid
                tokens.append(held.token)
                inside -= 1

    for later in [Later(turns) for _ in range(4)]:
        later.result()
    assert most == 1
    assert tokens == sorted(set(tokens))
    assert len(tokens) == 20


def test_with_lock_for_tasks(zkr_async_client: zkr_aio.Opening[zkr_aio.Client]) -> None:
    async def main() -> list[int]:
        tokens: list[int] = []
        async with zkr_async_client as zk:
            lock = zkr_aio.Lock(zk, PATH)

            async def turn() -> None:
                async with lock as held:
                    tokens.append(held.token)
                    await asyncio.sleep(0)

            await asyncio.gather(*[turn() for _ in range(10)])
        return tokens

    tokens = asyncio.run(main())
    assert tokens == sorted(set(tokens))
    assert len(tokens) == 10


def test_a_lock_is_not_reentrant(zkr_client: zkr.Client) -> None:
    lock = zkr.Lock(zkr_client, PATH)
    with lock.acquire(LIMIT), pytest.raises(zkr.AcquireTimeoutError):
        lock.acquire(0.1)


@pytest.mark.parametrize("layout", ["curator", "kazoo"])
def test_nodes_on_the_wire(zkr_client: zkr.Client, layout: str) -> None:
    lock = zkr.Lock(zkr_client, "/deep/down", identity="Zoë", layout="kazoo" if layout == "kazoo" else "curator")
    with lock.acquire(LIMIT):
        (name,) = zkr_client.children("/deep/down")
        node = zkr_client.get(f"/deep/down/{name}")
        assert node.value.decode() == "Zoë"
        assert node.stat.ephemeral_owner == zkr_client.session_id
        guid = name.removeprefix("_c_")[:36] if layout == "curator" else name.partition("__")[0]
        assert guid.count("-") == 4 or len(guid) == 32
        assert name.endswith("-lock-0000000000" if layout == "curator" else "__lock__0000000000")


# --- looking on -------------------------------------------------------------------------------------------------------


def test_contenders_and_break(zkr_server: Server, zkr_namespace: str, caplog: pytest.LogCaptureFixture) -> None:
    with (
        zkr.connect(zkr_server.hosts, namespace=zkr_namespace) as one,
        zkr.connect(zkr_server.hosts, namespace=zkr_namespace) as two,
    ):
        lock = zkr.Lock(one, PATH, identity="first")
        assert lock.contenders() == []
        assert lock.break_() is None
        held = lock.acquire(LIMIT)
        later = Later(lambda: zkr.Lock(two, PATH, identity="second").acquire(LIMIT))
        wait_until(lambda: len(lock.contenders()) == 2, LIMIT, "the second waits")
        first, second = lock.contenders()
        assert (first.identity, first.token, first.holder) == ("first", held.token, True)
        assert (second.identity, second.holder) == ("second", False)
        assert second.token > first.token
        with caplog.at_level(logging.WARNING, "zkrecipes.lock"):
            broken = lock.break_()
        assert broken == first
        assert any("first" in record.getMessage() for record in caplog.records), "audited"
        successor = later.result()
        assert successor.valid
        wait_until(held.lost.is_set, LIMIT, "the holder is told")
        assert held.lost.reason is zkr.LostReason.NODE_DELETED
        held.release()
        assert [contender.identity for contender in lock.contenders()] == ["second"]


# --- RLock ------------------------------------------------------------------------------------------------------------


def test_the_last_release_frees_a_reentrant_lock(
    zkr_server: Server, zkr_namespace: str, zkr_client: zkr.Client
) -> None:
    lock = zkr.RLock(zkr_client, PATH)
    with zkr.connect(zkr_server.hosts, namespace=zkr_namespace) as stranger:
        other = zkr.RLock(stranger, PATH)
        first = lock.acquire(LIMIT)
        second = lock.acquire(0)
        third = lock.try_acquire()
        assert third is not None
        assert first.token == second.token == third.token
        assert [first.turn, second.turn, third.turn] == [1, 2, 3]
        first.release()
        assert not first.valid
        assert second.valid
        assert other.try_acquire() is None
        third.release()
        third.release()
        assert other.try_acquire() is None
        with lock as inner:
            assert inner.token == second.token
        assert second.valid
        second.release()
        taken = other.acquire(LIMIT)
        assert taken.token > first.token
        taken.release()


def test_two_objects_of_one_path_are_one_reentrant_lock(zkr_client: zkr.Client) -> None:
    with zkr.RLock(zkr_client, PATH).acquire(LIMIT) as outer, zkr.RLock(zkr_client, PATH).acquire(0) as inner:
        assert inner.token == outer.token
    assert zkr_client.children(PATH) == []


def test_another_thread_waits(zkr_client: zkr.Client) -> None:
    lock = zkr.RLock(zkr_client, PATH)
    held = lock.acquire(LIMIT)
    assert Later(lock.try_acquire).result() is None
    later = Later(lambda: lock.acquire(LIMIT).token)
    wait_until(lambda: len(lock.contenders()) == 2, LIMIT, "it waits")
    held.release()
    assert later.result() > held.token


def test_an_ended_threads_hold_is_not_its_namesakes(zkr_client: zkr.Client) -> None:
    """Idents of threads are used again; a new thread must not walk in through the hold of an old one."""
    lock = zkr.RLock(zkr_client, PATH)
    idents: set[int] = set()
    handles: list[zkr.LockHandle] = []

    def take() -> None:
        idents.add(threading.get_ident())
        handles.append(lock.acquire(LIMIT))

    thread = threading.Thread(target=take)
    thread.start()
    thread.join(LIMIT)
    met = False

    def enter() -> None:
        nonlocal met
        met = met or threading.get_ident() in idents
        assert lock.try_acquire() is None

    for _ in range(20):
        Later(enter).result()
    assert handles[0].valid
    handles[0].release()
    assert met, "no ident was used again, so nothing was shown"


def test_an_ended_tasks_hold_is_not_its_namesakes(zkr_async_client: zkr_aio.Opening[zkr_aio.Client]) -> None:
    async def main() -> None:
        async with zkr_async_client as zk:
            lock = zkr_aio.RLock(zk, PATH)

            async def take() -> zkr_aio.LockHandle:
                return await lock.acquire(LIMIT)

            held = await asyncio.create_task(take())
            for _ in range(20):
                gc.collect()
                assert await asyncio.create_task(lock.try_acquire()) is None
            await held.release()
            async with lock as outer, lock as inner:
                assert outer.token == inner.token > held.token

    asyncio.run(main())


def test_no_reentry_into_a_lost_hold(zkr_server: Server, zkr_client: zkr.Client) -> None:
    lock = zkr.RLock(zkr_client, PATH)
    first, second = lock.acquire(LIMIT), lock.acquire(LIMIT)
    zkr_server.expire(zkr_client)
    wait_until(first.lost.is_set, LIMIT, "it is lost")
    assert second.lost.is_set()
    with pytest.raises(zkr.LockLostError, match="release its handles first") as raised:
        lock.acquire(LIMIT)
    assert raised.value.reason is zkr.LostReason.EXPIRED
    first.release()
    with pytest.raises(zkr.LockLostError):
        lock.acquire(LIMIT)
    second.release()
    assert lock.acquire(LIMIT).token > first.token


# --- local hand-off ---------------------------------------------------------------------------------------------------


def test_local_handoff_is_first_come_first_served_and_shares_a_token(zkr_client: zkr.Client) -> None:
    lock = zkr.Lock(zkr_client, PATH, local_handoff=zkr.LocalHandoff(max_time=60.0))
    order: list[int] = []
    turns: list[tuple[int, int]] = []

    def turn(number: int) -> None:
        with lock.acquire(LIMIT) as held:
            order.append(number)
            turns.append((held.token, held.turn))

    held = lock.acquire(LIMIT)
    waiting = []
    for number in range(5):
        waiting.append(Later(partial(turn, number)))
        wait_until(partial(_waits, zkr_client, number + 1), LIMIT, "it waits")
    assert len(lock.contenders()) == 1, "they wait in this process only"
    held.release()
    for later in waiting:
        later.result()
    assert order == list(range(5))
    assert turns == [(held.token, number) for number in range(2, 7)]
    assert zkr_client.children(PATH) == []


def _waits(zk: zkr.Client, number: int) -> bool:
    return _local_waiters(zk) == number


@pytest.mark.parametrize("limits", [zkr.LocalHandoff(max_turns=3, max_time=60.0), zkr.LocalHandoff(max_time=0.0)])
def test_the_limits_let_another_client_in(
    zkr_server: Server, zkr_namespace: str, zkr_client: zkr.Client, limits: zkr.LocalHandoff
) -> None:
    """However many threads of one process contend, another process waits for so many turns at most."""
    lock = zkr.Lock(zkr_client, PATH, local_handoff=limits)
    with zkr.connect(zkr_server.hosts, namespace=zkr_namespace) as stranger:
        order: list[str] = []

        def turn(who: str, lock: zkr.Lock) -> None:
            with lock.acquire(LIMIT):
                order.append(who)

        held = lock.acquire(LIMIT)
        other = Later(partial(turn, "other", zkr.Lock(stranger, PATH)))
        wait_until(lambda: len(lock.contenders()) == 2, LIMIT, "the other client waits")
        own = [Later(partial(turn, "own", lock)) for _ in range(6)]
        wait_until(partial(_waits, zkr_client, 6), LIMIT, "all wait")
        held.release()
        for later in (other, *own):
            later.result()
    assert order.index("other") <= (limits.max_turns - 1 if limits.max_time else 0), order
    assert len(order) == 7


def test_a_local_waiter_can_give_up(zkr_client: zkr.Client) -> None:
    lock = zkr.Lock(zkr_client, PATH, local_handoff=zkr.LocalHandoff(max_time=60.0))
    held = lock.acquire(LIMIT)
    cancel = zkr.Cancel()
    cancelled, late = Later(lambda: lock.acquire(LIMIT, cancel=cancel)), Later(lambda: lock.acquire(0.3))
    last = Later(lambda: lock.acquire(LIMIT))
    wait_until(lambda: _local_waiters(zkr_client) >= 2, LIMIT, "they wait")
    assert lock.try_acquire() is None
    cancel.cancel()
    with pytest.raises(zkr.CancelledError):
        cancelled.result()
    with pytest.raises(zkr.AcquireTimeoutError):
        late.result()
    held.release()
    got = last.result()
    assert got.valid
    got.release()
    assert zkr_client.children(PATH) == []


def test_a_lost_hold_is_not_handed_on(zkr_server: Server, zkr_client: zkr.Client) -> None:
    lock = zkr.Lock(zkr_client, PATH, local_handoff=zkr.LocalHandoff(max_time=60.0))
    held = lock.acquire(LIMIT)
    later = Later(lambda: lock.acquire(LIMIT))
    wait_until(lambda: _local_waiters(zkr_client) == 1, LIMIT, "it waits")
    zkr_server.expire(zkr_client)
    wait_until(held.lost.is_set, LIMIT, "it is lost")
    held.release()
    successor = later.result()
    assert successor.valid
    assert successor.token > held.token
    assert successor.turn == 1


def test_close_ends_local_waits(zkr_client: zkr.Client) -> None:
    lock = zkr.Lock(zkr_client, PATH, local_handoff=zkr.LocalHandoff())
    held = lock.acquire(LIMIT)
    later = Later(lambda: lock.acquire(LIMIT))
    wait_until(lambda: _local_waiters(zkr_client) == 1, LIMIT, "it waits")
    zkr_client.close()
    with pytest.raises(zkr.ClosedError):
        later.result(5.0)
    held.release()


def test_without_handoff_threads_of_one_client_stand_in_the_servers_line(zkr_client: zkr.Client) -> None:
    lock = zkr.Lock(zkr_client, PATH)
    held = lock.acquire(LIMIT)
    later = Later(lambda: lock.acquire(LIMIT))
    wait_until(lambda: len(lock.contenders()) == 2, LIMIT, "it stands in the server's line")
    held.release()
    got = later.result()
    assert got.token > held.token
    got.release()


def test_asyncio_tasks_hand_over_locally(zkr_async_client: zkr_aio.Opening[zkr_aio.Client]) -> None:
    async def main() -> list[tuple[int, int]]:
        turns: list[tuple[int, int]] = []
        async with zkr_async_client as zk:
            lock = zkr_aio.Lock(zk, PATH, local_handoff=zkr.LocalHandoff(max_time=60.0))

            async def turn() -> None:
                async with lock.acquire(LIMIT) as held:
                    turns.append((held.token, held.turn))
                    await asyncio.sleep(0)

            await asyncio.gather(*[turn() for _ in range(6)])
            assert await zk.children(PATH) == []
        return turns

    turns = asyncio.run(main())
    assert len({token for token, _ in turns}) == 1
    assert [turn for _, turn in turns] == [1, 2, 3, 4, 5, 6]
