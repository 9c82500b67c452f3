"""Transactions: all or nothing, guarded, committed once; for threads and asyncio."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import zkrecipes as zkr
import zkrecipes.aio as zkr_aio
from zkrecipes.testing import FaultProxy, Server, wait_until


def test_results_in_order(zkr_client: zkr.Client) -> None:
    zkr_client.create("/a")
    with zkr_client.transaction() as tx:
        tx.check("/a", version=0)
        tx.create("/b", b"data")
        tx.create("/b/n-", sequential=True)
        tx.set("/a", b"new", version=0)
        tx.delete("/b/n-0000000000")
        tx.create("/c", kind=zkr.Kind.EPHEMERAL)
    check, b, child, stat, deleted, c = tx.results
    assert (check, b, child, deleted, c) == (None, "/b", "/b/n-0000000000", None, "/c")
    assert isinstance(stat, zkr.Stat)
    assert stat.version == 1
    assert zkr_client.get("/b").value == b"data"
    assert zkr_client.get("/c").stat.ephemeral_owner == zkr_client.session_id
    assert zkr_client.children("/b") == []


@pytest.mark.parametrize("index", [0, 1, 2])
def test_all_or_nothing(zkr_client: zkr.Client, index: int) -> None:
    zkr_client.create("/taken")
    tx = zkr_client.transaction()
    for number in range(3):
        tx.create("/taken" if number == index else f"/new-{number}")
    with pytest.raises(zkr.TransactionError) as raised:
        tx.commit()
    assert raised.value.index == index
    assert isinstance(raised.value.__cause__, zkr.NodeExistsError)
    assert zkr_client.children("/") == ["taken"]
    assert tx.results == []


def test_why_an_operation_was_refused(zkr_client: zkr.Client) -> None:
    zkr_client.create("/a/b", parents=True)

    def refused(add: Any) -> BaseException | None:
        tx = zkr_client.transaction()
        add(tx)
        with pytest.raises(zkr.TransactionError) as raised:
            tx.commit()
        return raised.value.__cause__

    assert isinstance(refused(lambda tx: tx.set("/no", b"")), zkr.NodeNotFoundError)
    assert isinstance(refused(lambda tx: tx.check("/no")), zkr.NodeNotFoundError)
    assert isinstance(refused(lambda tx: tx.check("/a", version=3)), zkr.ConflictError)
    assert isinstance(refused(lambda tx: tx.delete("/a")), zkr.NotEmptyError)


def test_an_exception_commits_nothing(zkr_client: zkr.Client) -> None:
    tx = zkr_client.transaction()
    with pytest.raises(KeyError), tx:  # noqa: PT012 - the block is what is tested
        tx.create("/a")
        raise KeyError
    assert zkr_client.exists("/a") is None
    with pytest.raises(zkr.ClosedError):
        tx.commit()


def test_committed_once(zkr_client: zkr.Client) -> None:
    tx = zkr_client.transaction()
    tx.create("/a-", sequential=True)
    assert tx.commit() == ["/a-0000000000"]
    with pytest.raises(zkr.ClosedError, match="make a new one"):
        tx.commit()
    with pytest.raises(zkr.ClosedError, match="make a new one"):
        tx.create("/b")
    assert zkr_client.children("/") == ["a-0000000000"]


def test_a_refused_one_is_over_too(zkr_client: zkr.Client) -> None:
    tx = zkr_client.transaction()
    tx.set("/no", b"")
    with pytest.raises(zkr.TransactionError):
        tx.commit()
    with pytest.raises(zkr.ClosedError):
        tx.commit()


def test_an_empty_one(zkr_client: zkr.Client) -> None:
    assert zkr_client.transaction().commit() == []


def test_a_guard_of_another_client_is_a_guard_too(zkr_server: Server, zkr_namespace: str) -> None:
    """The server looks at the node, whoever asks."""
    with (
        zkr.connect(zkr_server.hosts, namespace=zkr_namespace) as holder,
        zkr.connect(zkr_server.hosts) as writer,
    ):
        held = zkr.Lock(holder, "/lock").acquire(5.0)
        with writer.transaction() as tx:
            held.guard(tx)
            tx.create(f"{zkr_namespace}/written")
        tx = writer.transaction()
        tx.guard(held)
        tx.create(f"{zkr_namespace}/late")
        held.release()
        with pytest.raises(zkr.ClosedError):
            tx.commit()
        assert holder.children("/") == ["lock", "written"]


def test_a_lost_reply_is_told_as_unknown_and_nothing_is_done_twice(
    zkr_proxy: FaultProxy, zkr_client: zkr.Client
) -> None:
    zkr_proxy.drop_reply("multi")
    tx = zkr_client.transaction()
    tx.create("/a-", sequential=True)
    with pytest.raises(zkr.OutcomeUnknownError):
        tx.commit(timeout=5.0)
    assert zkr_client.children("/") == ["a-0000000000"]


def test_without_a_server_nothing_is_written_later(zkr_proxy: FaultProxy, zkr_client: zkr.Client) -> None:
    zkr_proxy.refuse()
    wait_until(lambda: zkr_client.state is not zkr.State.CONNECTED, 5.0, "suspended")
    tx = zkr_client.transaction()
    tx.create("/a")
    with pytest.raises(zkr.UnavailableError):
        tx.commit(timeout=0.2)
    zkr_proxy.heal()
    assert zkr_client.children("/") == []


def test_asyncio(zkr_async_client: zkr_aio.Opening[zkr_aio.Client]) -> None:
    async def main() -> None:
        async with zkr_async_client as zk:
            async with zk.transaction() as tx:
                tx.create("/a", b"x")
            assert tx.results == ["/a"]
            with pytest.raises(zkr.TransactionError) as raised:  # noqa: PT012 - the block is what is tested
                async with zk.transaction() as tx:
                    tx.check("/a")
                    tx.create("/a")
            assert raised.value.index == 1
            with pytest.raises(KeyError):  # noqa: PT012 - the block is what is tested
                async with zk.transaction() as tx:
                    tx.create("/b")
                    raise KeyError
            async with zkr_aio.Lock(zk, "/lock") as held, zk.transaction() as tx:
                tx.guard(held)
                tx.set("/a", b"y")
            assert (await zk.get("/a")).value == b"y"
            assert await zk.children("/") == ["a", "lock"]
            with pytest.raises(zkr.ClosedError):
                await tx.commit()

    asyncio.run(main())
