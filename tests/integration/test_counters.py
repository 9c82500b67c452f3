"""What Counter, SharedValue and IdGenerator do on a real server, for threads and for asyncio."""

from __future__ import annotations

import asyncio
import itertools
import threading
from dataclasses import dataclass
from functools import partial

import pytest

import zkrecipes as zkr
import zkrecipes.aio as zkr_aio
from tests.contracts.subjects import Later
from zkrecipes.marks import is_mark
from zkrecipes.testing import Server, wait_until

PATH = "/stock/orders"
LIMIT = 20.0


# --- Counter ----------------------------------------------------------------------------------------------------------


def test_a_counter_counts_from_nothing(zkr_client: zkr.Client) -> None:
    counter = zkr.Counter(zkr_client, PATH)
    assert counter.value() == 0
    assert zkr_client.exists(PATH) is None
    assert [counter.add(), counter.add(5), counter.add(-10), counter.add(0)] == [1, 6, -4, -4]
    assert counter.value() == -4
    assert zkr_client.get(PATH).value == (-4).to_bytes(8, "big", signed=True)
    assert all(is_mark(name) for name in zkr_client.children(PATH))


@pytest.mark.parametrize(("layout", "raw"), [("int64", b"\0" * 7 + b"\7"), ("int32", b"\0\0\0\7"), ("text", b"7")])
def test_the_layouts_on_the_wire(zkr_client: zkr.Client, layout: str, raw: bytes) -> None:
    counter = zkr.Counter(zkr_client, PATH, layout=layout)  # type: ignore[arg-type]  # a name of a layout
    assert counter.add(7) == 7
    assert zkr_client.get(PATH).value == raw


def test_threads_of_one_client_get_each_value_once(zkr_client: zkr.Client) -> None:
    counter = zkr.Counter(zkr_client, PATH)
    values: list[list[int]] = [[] for _ in range(8)]

    def work(mine: list[int]) -> None:
        mine.extend(counter.add() for _ in range(50))

    for later in [Later(partial(work, mine)) for mine in values]:
        later.result()
    assert all(mine == sorted(mine) for mine in values)
    assert sorted(itertools.chain(*values)) == list(range(1, 401))
    assert counter.value() == 400


def test_two_clients_count_together(zkr_server: Server, zkr_namespace: str) -> None:
    with (
        zkr.connect(zkr_server.hosts, namespace=zkr_namespace) as one,
        zkr.connect(zkr_server.hosts, namespace=zkr_namespace) as two,
    ):
        seen: list[int] = []

        def work(client: zkr.Client) -> None:
            counter = zkr.Counter(client, PATH)
            for _ in range(100):
                seen.append(counter.add())  # noqa: PERF401 - one by one, each with its own value

        for later in [Later(partial(work, client)) for client in (one, two)]:
            later.result()
        assert sorted(seen) == list(range(1, 201))


def test_tasks_get_each_value_once(zkr_async_client: zkr_aio.Opening[zkr_aio.Client]) -> None:
    async def main() -> tuple[list[int], int]:
        async with zkr_async_client as zk:
            counter = zkr_aio.Counter(zk, PATH)
            values = await asyncio.gather(*[counter.add() for _ in range(300)])
            return values, await counter.value()

    assert asyncio.run(main()) == (list(range(1, 301)), 300)


def test_set_and_compare_and_set(zkr_client: zkr.Client) -> None:
    counter = zkr.Counter(zkr_client, PATH)
    counter.set(40)
    assert counter.add() == 41
    counter.compare_and_set(41, 7)
    assert counter.add() == 8
    with pytest.raises(zkr.ConflictError) as caught:
        counter.compare_and_set(7, 100)
    assert (caught.value.expected, caught.value.actual) == (7, 8)
    assert counter.value() == 8


def test_compare_and_set_takes_a_missing_counter_for_zero(zkr_client: zkr.Client) -> None:
    counter = zkr.Counter(zkr_client, PATH)
    with pytest.raises(zkr.ConflictError):
        counter.compare_and_set(1, 2)
    counter.compare_and_set(0, 2)
    assert counter.value() == 2


def test_an_overflow_is_refused_before_the_write(zkr_client: zkr.Client) -> None:
    counter = zkr.Counter(zkr_client, PATH, layout="int32")
    counter.set(2**31 - 2)
    assert counter.add() == 2**31 - 1
    for verb in (counter.add, lambda: counter.set(2**31), lambda: counter.compare_and_set(2**31 - 1, 2**31)):
        with pytest.raises(zkr.CounterOverflowError) as caught:
            verb()
        assert caught.value.value == 2**31
    assert counter.value() == 2**31 - 1
    text = zkr.Counter(zkr_client, "/stock/text", layout="text")
    text.set(2**100)
    assert text.add() == 2**100 + 1


def test_what_is_no_number_is_told_by_all_and_repaired_by_set(zkr_client: zkr.Client) -> None:
    zkr_client.create(PATH, b"garbage", parents=True)
    counter = zkr.Counter(zkr_client, PATH)
    for verb in (counter.add, counter.value, lambda: counter.compare_and_set(0, 1)):
        with pytest.raises(zkr.DecodeError, match="int64") as caught:
            verb()
        assert (caught.value.path, caught.value.raw) == (PATH, b"garbage")
    counter.set(3)
    assert counter.add() == 4


def test_an_empty_node_is_zero(zkr_client: zkr.Client) -> None:
    zkr_client.create(PATH, parents=True)
    assert zkr.Counter(zkr_client, PATH).add() == 1


def test_a_counter_that_somebody_deletes_begins_again(zkr_client: zkr.Client) -> None:
    counter = zkr.Counter(zkr_client, PATH)
    counter.add(10)
    for name in zkr_client.children(PATH):
        zkr_client.delete(f"{PATH}/{name}")
    zkr_client.delete(PATH)
    assert counter.value() == 0
    assert counter.add() == 1


def test_a_node_made_again_in_the_same_version_is_not_taken_for_the_old_one(zkr_client: zkr.Client) -> None:
    counter = zkr.Counter(zkr_client, PATH)
    assert counter.add(10) == 10
    for name in zkr_client.children(PATH):
        zkr_client.delete(f"{PATH}/{name}")
    zkr_client.delete(PATH)
    zkr_client.create(PATH, (70).to_bytes(8, "big"))
    zkr_client.set(PATH, (70).to_bytes(8, "big"))
    assert counter.add() == 71


def test_no_mark_is_left_when_a_client_has_ended(
    zkr_server: Server, zkr_client: zkr.Client, zkr_namespace: str
) -> None:
    with zkr.connect(zkr_server.hosts, namespace=zkr_namespace) as other:
        zkr.Counter(other, PATH).add()
        assert len(zkr_client.children(PATH)) == 1
    wait_until(lambda: not zkr_client.children(PATH), LIMIT, lambda: f"left: {zkr_client.children(PATH)}")


def test_changes_are_told_from_now_on(zkr_client: zkr.Client) -> None:
    counter = zkr.Counter(zkr_client, PATH)
    counter.add(5)
    changes: list[zkr.ValueChange[int]] = []
    registration = counter.on_change(changes.append)
    # The first state is not told, whenever it comes; so the changes are made one by one until one is.
    wait_until(lambda: bool(changes) or counter.add() < 0, LIMIT, lambda: "no change was told")
    wait_until(lambda: changes[-1].new == counter.value(), LIMIT, lambda: f"told: {changes}")
    assert changes[0].old >= 5
    assert all(one.new == two.old for one, two in itertools.pairwise(changes))
    assert changes[-1].version == zkr_client.get(PATH).stat.version
    registration.cancel()
    told = len(changes)
    counter.add()
    another = threading.Event()
    again = counter.on_change(lambda _change: another.set())
    wait_until(lambda: another.is_set() or counter.add() < 0, LIMIT, lambda: "no change was told")
    again.cancel()
    assert len(changes) == told


# --- SharedValue ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Limits:
    rate: int
    burst: int = 1


def test_a_value_is_made_by_the_first_one(zkr_client: zkr.Client) -> None:
    one = zkr.SharedValue(zkr_client, PATH, codec=zkr.IntCodec(), initial=10)
    two = zkr.SharedValue(zkr_client, PATH, codec=zkr.IntCodec(), initial=20)
    assert one.get().value == 10
    assert two.get() == one.get()
    assert zkr_client.get(PATH).value == b"10"


def test_a_value_of_any_type(zkr_client: zkr.Client) -> None:
    value = zkr.SharedValue(zkr_client, PATH, codec=zkr.JsonCodec(Limits), initial=Limits(5))
    assert value.update(lambda limits: Limits(limits.rate * 2)).value == Limits(10)
    value.set(Limits(1, 2))
    assert value.get().value == Limits(1, 2)
    assert zkr_client.get(PATH).value == b'{"rate":1,"burst":2}'


def test_compare_and_set_takes_only_what_was_read(zkr_client: zkr.Client) -> None:
    value = zkr.SharedValue(zkr_client, PATH, initial=b"a")
    first = value.get()
    second = value.compare_and_set(first, b"b")
    assert second == value.get()
    with pytest.raises(zkr.ConflictError) as caught:
        value.compare_and_set(first, b"c")
    assert (caught.value.expected, caught.value.actual) == (first, second)
    assert value.get().value == b"b"


def test_a_value_that_was_deleted_and_made_again_is_another_one(zkr_client: zkr.Client) -> None:
    value = zkr.SharedValue(zkr_client, PATH, initial=b"a")
    first = value.get()
    zkr_client.delete(PATH)
    with pytest.raises(zkr.ConflictError) as gone:
        value.compare_and_set(first, b"b")
    assert gone.value.actual is None
    again = value.get()
    assert (again.version, again.value) == (first.version, first.value)
    with pytest.raises(zkr.ConflictError):
        value.compare_and_set(first, b"b")


def test_updates_of_many_are_all_applied(zkr_server: Server, zkr_namespace: str) -> None:
    clients = [zkr.connect(zkr_server.hosts, namespace=zkr_namespace) for _ in range(3)]
    try:
        values = [zkr.SharedValue(client, PATH, codec=zkr.IntCodec(), initial=0) for client in clients]

        def work(value: zkr.SharedValue[int]) -> None:
            for _ in range(30):
                value.update(lambda number: number + 1)

        for later in [Later(partial(work, value)) for value in values]:
            later.result()
        assert values[0].get().value == 90
    finally:
        for client in clients:
            client.close()


def test_an_update_function_that_raises_writes_nothing(zkr_client: zkr.Client) -> None:
    value = zkr.SharedValue(zkr_client, PATH, codec=zkr.IntCodec(), initial=0)
    before = value.get()
    with pytest.raises(ZeroDivisionError):
        value.update(lambda number: 1 // number)
    assert value.get() == before


def test_an_update_function_may_use_the_client(zkr_client: zkr.Client) -> None:
    """It does not run under the step lock: another thread of the same client goes on meanwhile."""
    value = zkr.SharedValue(zkr_client, PATH, codec=zkr.IntCodec(), initial=0)
    assert value.update(lambda number: number + Later(lambda: len(zkr_client.children("/"))).result()).value >= 1


def test_values_for_tasks(zkr_async_client: zkr_aio.Opening[zkr_aio.Client]) -> None:
    async def main() -> None:
        async with zkr_async_client as zk:
            value = zkr_aio.SharedValue(zk, PATH, codec=zkr.IntCodec(), initial=1)
            changes: list[zkr.ValueChange[int | None]] = []
            registration = value.on_change(changes.append)
            first = await value.get()
            await value.compare_and_set(first, 2)
            await asyncio.gather(*[value.update(lambda number: number + 1) for _ in range(5)])
            await value.set(50)
            assert (await value.get()).value == 50
            async with asyncio.timeout(LIMIT):
                while not changes or changes[-1].new != 50:
                    await value.set((await value.get()).value + 0)
                    await asyncio.sleep(0)
                    if not changes:
                        await value.set(49)
                        await value.set(50)
            registration.cancel()

    asyncio.run(main())


# --- IdGenerator ------------------------------------------------------------------------------------------------------


def test_identifiers_rise_over_blocks(zkr_client: zkr.Client) -> None:
    ids = zkr.IdGenerator(zkr_client, PATH, block=7)
    assert [ids.next() for _ in range(100)] == list(range(1, 101))
    assert list(itertools.islice(ids, 3)) == [101, 102, 103]
    assert int.from_bytes(zkr_client.get(PATH).value, "big") >= 103


def test_identifiers_of_two_clients_differ(zkr_server: Server, zkr_namespace: str) -> None:
    with (
        zkr.connect(zkr_server.hosts, namespace=zkr_namespace) as one,
        zkr.connect(zkr_server.hosts, namespace=zkr_namespace) as two,
    ):
        seen: list[list[int]] = []

        def work(client: zkr.Client) -> None:
            ids = zkr.IdGenerator(client, PATH, block=3)
            mine = [ids.next() for _ in range(200)]
            assert mine == sorted(mine)
            seen.append(mine)

        for later in [Later(partial(work, client)) for client in (one, two, one, two)]:
            later.result()
        flat = list(itertools.chain(*seen))
        assert len(flat) == len(set(flat)) == 800


def test_identifiers_for_tasks(zkr_async_client: zkr_aio.Opening[zkr_aio.Client]) -> None:
    async def main() -> list[int]:
        async with zkr_async_client as zk:
            ids = zkr_aio.IdGenerator(zk, PATH, block=10)
            mine = list(await asyncio.gather(*[ids.next() for _ in range(50)]))
            async for identifier in ids:
                mine.append(identifier)
                if len(mine) == 60:
                    return mine
            return []

    assert sorted(asyncio.run(main())) == list(range(1, 61))


def test_a_node_that_was_set_back_is_refused(zkr_client: zkr.Client) -> None:
    ids = zkr.IdGenerator(zkr_client, PATH, block=2)
    for _ in range(6):
        ids.next()
    zkr_client.set(PATH, (1).to_bytes(8, "big"))
    with pytest.raises(zkr.ForeignNodeError, match="would come again"):
        list(itertools.islice(ids, 6))


def test_identifiers_end_at_63_bits(zkr_client: zkr.Client) -> None:
    zkr_client.create(PATH, (2**63 - 3).to_bytes(8, "big"), parents=True)
    ids = zkr.IdGenerator(zkr_client, PATH, block=2)
    assert [ids.next(), ids.next()] == [2**63 - 2, 2**63 - 1]
    with pytest.raises(zkr.CounterOverflowError):
        ids.next()


def test_a_closed_client_gives_no_identifiers(zkr_server: Server, zkr_namespace: str) -> None:
    with zkr.connect(zkr_server.hosts, namespace=zkr_namespace) as zk:
        ids = zkr.IdGenerator(zk, PATH)
        ids.next()
    with pytest.raises(zkr.ClosedError):
        ids.next()


@pytest.mark.parametrize("block", [0, -1, 2**31 + 1])
def test_a_block_out_of_range_is_refused(zkr_client: zkr.Client, block: int) -> None:
    with pytest.raises(ValueError, match="block must be"):
        zkr.IdGenerator(zkr_client, PATH, block=block)
