"""The reply of each request of a queue lost in turn: nothing is lost, nothing twice, and the result tells the truth."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

import zkrecipes as zkr
from zkrecipes.testing import FaultProxy, ZooKeeperServer, wait_until

SESSION = 4.0
LIMIT = 10.0


@pytest.fixture
def other(server: ZooKeeperServer) -> Iterator[zkr.Client]:
    """A client that no fault of the proxy touches."""
    with zkr.connect(server.hosts, session_timeout=10.0) as client:
        yield client


@pytest.fixture
def zk(proxy: FaultProxy) -> Iterator[zkr.Client]:
    with zkr.connect(proxy.hosts, session_timeout=SESSION) as client:
        yield client


def _drain(queue: zkr.Queue[bytes]) -> list[bytes]:
    items = []
    while queue.stats().waiting:
        claim = queue.take(LIMIT)
        items.append(claim.item)
        claim.ack()
    return items


def _claims(other: zkr.Client, path: str) -> int:
    return zkr.Queue(other, path).stats().claimed


@pytest.mark.parametrize("lost", list(itertools.product(["multi", "create2", "create", "getData"], [1, 2, 3])), ids=str)
def test_a_first_put_is_stored_once(
    proxy: FaultProxy, zk: zkr.Client, other: zkr.Client, path: str, lost: tuple[str, int]
) -> None:
    trap = proxy.drop_reply(*lost)
    zkr.Queue(zk, path).put(b"item", timeout=LIMIT)
    trap.disarm()
    assert _drain(zkr.Queue(other, path)) == [b"item"]


def test_puts_are_stored_once(proxy: FaultProxy, zk: zkr.Client, other: zkr.Client, path: str) -> None:
    queue = zkr.Queue(zk, path)
    queue.put(b"0")
    for number in range(1, 6):
        trap = proxy.drop_reply("multi")
        queue.put(b"%d" % number, timeout=LIMIT)
        trap.wait()
    assert _drain(zkr.Queue(other, path)) == [b"%d" % number for number in range(6)]


def test_a_duplicate_whose_reply_is_lost_is_no_duplicate_of_itself(
    proxy: FaultProxy, zk: zkr.Client, other: zkr.Client, path: str
) -> None:
    queue = zkr.Queue(zk, path)
    queue.put(b"0", dedup_id="first")
    trap = proxy.drop_reply("multi")
    id_ = queue.put(b"1", dedup_id="second", timeout=LIMIT)
    trap.wait()
    assert queue.put(b"2", dedup_id="second") == id_
    assert _drain(zkr.Queue(other, path)) == [b"0", b"1"]


@pytest.mark.parametrize("operation", ["multi", "getData", "getChildren"])
def test_a_claim_is_made_once(proxy: FaultProxy, zk: zkr.Client, other: zkr.Client, path: str, operation: str) -> None:
    zkr.Queue(other, path).put_many([b"a", b"b"])
    queue = zkr.Queue(zk, path)
    trap = proxy.drop_reply(operation)
    claim = queue.take(LIMIT)
    trap.wait()
    assert (claim.item, claim.attempt) == (b"a", 1)
    assert claim.valid
    assert _claims(other, path) == 1
    claim.ack()
    assert _drain(zkr.Queue(other, path)) == [b"b"]


@pytest.mark.parametrize("verb", ["ack", "nack", "later", "release"])
def test_the_end_of_a_claim_is_settled(
    proxy: FaultProxy, zk: zkr.Client, other: zkr.Client, path: str, verb: str
) -> None:
    queue = zkr.Queue(zk, path)
    queue.put_many([b"a", b"b"])
    claim = queue.take(LIMIT)
    trap = proxy.drop_reply("multi")
    match verb:
        case "ack":
            claim.ack(timeout=LIMIT)
        case "nack":
            claim.nack(timeout=LIMIT)
        case "later":
            claim.nack(60.0, timeout=LIMIT)
        case _:
            claim.release()
    trap.wait()
    assert not claim.valid
    wait_until(lambda: _claims(other, path) == 0, LIMIT, "nothing is claimed")
    left = [b"b"] if verb in {"ack", "later"} else [b"a", b"b"]
    assert _drain(zkr.Queue(other, path)) == left
    assert zkr.Queue(other, path).stats().delayed == (1 if verb == "later" else 0)


def test_acknowledgements_of_a_batch_are_settled_together(
    proxy: FaultProxy, zk: zkr.Client, other: zkr.Client, path: str
) -> None:
    queue = zkr.Queue(zk, path)
    queue.put_many([b"%d" % number for number in range(10)])
    batch = queue.take_many(7, LIMIT)
    trap = proxy.drop_reply("multi")
    batch.ack(timeout=LIMIT)
    trap.wait()
    assert _drain(zkr.Queue(other, path)) == [b"7", b"8", b"9"]


def test_a_put_that_cannot_be_settled_says_so(proxy: FaultProxy, zk: zkr.Client, other: zkr.Client, path: str) -> None:
    queue = zkr.Queue(zk, path)
    queue.put(b"0")
    proxy.blackhole("to_client")
    with pytest.raises(zkr.OutcomeUnknownError):
        queue.put(b"1", timeout=0.5)
    proxy.heal()
    assert _drain(zkr.Queue(other, path)) == [b"0", b"1"], "it is never taken back"
