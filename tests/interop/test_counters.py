"""Our counters are one with Curator's and kazoo's: the same bytes, and nobody's count is lost."""

from __future__ import annotations

from functools import partial
from typing import Final, Literal

import pytest
from kazoo.client import KazooClient

import zkrecipes as zkr
from tests.contracts.subjects import Later
from tests.interop.peer import CuratorPeer

LIMIT: Final = 60.0
ADDS: Final = 500


def _count(counter: zkr.Counter, times: int) -> list[int]:
    return [counter.add() for _ in range(times)]


@pytest.mark.parametrize(("layout", "command"), [("int64", "counter.long"), ("int32", "counter.int")])
def test_we_and_curator_count_together(
    zk: zkr.Client, curator: CuratorPeer, path: str, layout: Literal["int64", "int32"], command: str
) -> None:
    counter = zkr.Counter(zk, path, layout=layout)
    theirs = curator.send(command, path=path, n=1, times=ADDS)
    ours = [Later(partial(_count, counter, ADDS // 4)) for _ in range(4)]
    values = [value for later in ours for value in later.result(LIMIT)] + theirs.result(LIMIT).values
    assert sorted(values) == list(range(1, 2 * ADDS + 1))
    assert counter.value() == 2 * ADDS


@pytest.mark.parametrize(("layout", "command"), [("int64", "counter.long"), ("int32", "counter.int")])
def test_negative_numbers_are_read_by_both(
    zk: zkr.Client, curator: CuratorPeer, path: str, layout: Literal["int64", "int32"], command: str
) -> None:
    counter = zkr.Counter(zk, path, layout=layout)
    assert counter.add(-5) == -5
    assert curator.call(command, path=path, n=-10).values == [-15]
    assert counter.add(7) == -8


def test_a_counter_that_curator_has_made_is_counted_on(zk: zkr.Client, curator: CuratorPeer, path: str) -> None:
    assert curator.call("counter.long", path=path, n=2**40).values == [2**40]
    assert zkr.Counter(zk, path).add() == 2**40 + 1
    with pytest.raises(zkr.DecodeError, match='layout "int64" reads it'):
        zkr.Counter(zk, path, layout="int32").value()


def test_a_shared_count_of_curator(zk: zkr.Client, curator: CuratorPeer, path: str) -> None:
    counter = zkr.Counter(zk, path, layout="int32")
    assert counter.add(20) == 20
    theirs = curator.send("counter.shared", path=path, seed=99, n=1, times=100)
    assert len(_count(counter, 100)) == 100
    theirs.result(LIMIT)
    assert counter.value() == 220
    assert curator.call("counter.shared", path=f"{path}-new", seed=99, n=1).values == [100]
    assert zkr.Counter(zk, f"{path}-new", layout="int32").value() == 100


def test_a_shared_value_of_curator(zk: zkr.Client, curator: CuratorPeer, path: str) -> None:
    value = zkr.SharedValue(zk, path, codec=zkr.TextCodec(), initial="ours")
    before = value.get()
    assert curator.call("counter.value", path=path, seed="theirs", set="changed").leader == "ours"
    assert value.get().value == "changed"
    with pytest.raises(zkr.ConflictError):
        value.compare_and_set(before, "lost")
    assert curator.call("counter.value", path=f"{path}-new", seed="theirs").leader == "theirs"
    assert zkr.SharedValue(zk, f"{path}-new", codec=zkr.TextCodec(), initial="ours").get().value == "theirs"


def test_identifiers_and_curators_cached_ones_differ(zk: zkr.Client, curator: CuratorPeer, path: str) -> None:
    ids = zkr.IdGenerator(zk, path, block=4)
    theirs = curator.send("counter.next", path=path, times=60)
    ours = [ids.next() for _ in range(60)]
    assert not set(ours) & set(theirs.result(LIMIT).values)


def test_a_counter_of_kazoo(zk: zkr.Client, kazoo: KazooClient, path: str) -> None:
    theirs, ours = kazoo.Counter(path), zkr.Counter(zk, path, layout="text")
    theirs += 5
    assert ours.add(10) == 15
    theirs -= 20
    assert ours.value() == -5
    assert theirs.value == -5

    def count() -> None:
        counter = kazoo.Counter(path)
        for _ in range(50):
            counter.__add__(1)

    later = Later(count)
    assert len(_count(ours, 200)) == 200
    later.result(LIMIT)
    assert ours.value() == theirs.value == 245


def test_a_counter_of_kazoo_in_curators_layout(zk: zkr.Client, kazoo: KazooClient, path: str) -> None:
    theirs, ours = kazoo.Counter(path, support_curator=True), zkr.Counter(zk, path, layout="int32")
    theirs += 5
    assert ours.add(-7) == -2
    assert theirs.value == -2


def test_what_kazoo_counts_in_fractions_is_told(zk: zkr.Client, kazoo: KazooClient, path: str) -> None:
    theirs = kazoo.Counter(path, default=0.0)
    theirs += 1.5
    with pytest.raises(zkr.DecodeError, match="whole number"):
        zkr.Counter(zk, path, layout="text").add()
