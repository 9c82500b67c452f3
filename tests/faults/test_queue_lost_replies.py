"""The reply of each request of a queue lost in turn: nothing is lost, nothing twice, and the result tells the truth."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import get_args

import pytest

import zkrecipes as zkr
from tests.contracts.subjects import Later
from zkrecipes.queue_parts import Layout
from zkrecipes.testing import FaultProxy, ZooKeeperServer, wait_until

SESSION = 4.0
LIMIT = 10.0
LAYOUTS: tuple[Layout, ...] = get_args(Layout)

of_each_layout = pytest.mark.parametrize("layout", LAYOUTS)


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


def _claims(queue: zkr.Queue[bytes]) -> int:
    return queue.stats().claimed


@of_each_layout
@pytest.mark.parametrize("lost", list(itertools.product(["multi", "create2", "create", "getData"], [1, 2, 3])), ids=str)
def test_a_first_put_is_stored_once(
    proxy: FaultProxy, zk: zkr.Client, other: zkr.Client, path: str, *, lost: tuple[str, int], layout: Layout
) -> None:
    trap = proxy.drop_reply(*lost)
    zkr.Queue(zk, path, layout=layout).put(b"item", timeout=LIMIT)
    trap.disarm()
    assert _drain(zkr.Queue(other, path, layout=layout)) == [b"item"]


@of_each_layout
def test_puts_are_stored_once(proxy: FaultProxy, zk: zkr.Client, other: zkr.Client, path: str, layout: Layout) -> None:
    queue = zkr.Queue(zk, path, layout=layout)
    queue.put(b"0")
    for number in range(1, 6):
        trap = proxy.drop_reply("multi")
        queue.put(b"%d" % number, timeout=LIMIT)
        trap.wait()
    assert _drain(zkr.Queue(other, path, layout=layout)) == [b"%d" % number for number in range(6)]


@of_each_layout
def test_a_duplicate_whose_reply_is_lost_is_no_duplicate_of_itself(
    proxy: FaultProxy, zk: zkr.Client, other: zkr.Client, path: str, layout: Layout
) -> None:
    queue = zkr.Queue(zk, path, layout=layout)
    queue.put(b"0", dedup_id="first")
    trap = proxy.drop_reply("multi")
    id_ = queue.put(b"1", dedup_id="second", timeout=LIMIT)
    trap.wait()
    assert queue.put(b"2", dedup_id="second") == id_
    assert _drain(zkr.Queue(other, path, layout=layout)) == [b"0", b"1"]


@of_each_layout
@pytest.mark.parametrize("operation", ["multi", "getData", "getChildren"])
def test_a_claim_is_made_once(
    proxy: FaultProxy, zk: zkr.Client, other: zkr.Client, path: str, *, operation: str, layout: Layout
) -> None:
    zkr.Queue(other, path, layout=layout).put_many([b"a", b"b"])
    queue = zkr.Queue(zk, path, layout=layout)
    trap = proxy.drop_reply(operation)
    claim = queue.take(LIMIT)
    trap.wait()
    assert (claim.item, claim.attempt) == (b"a", 1)
    assert claim.valid
    assert _claims(zkr.Queue(other, path, layout=layout)) == 1
    claim.ack()
    assert _drain(zkr.Queue(other, path, layout=layout)) == [b"b"]


@pytest.mark.parametrize(
    ("layout", "verb"),
    [
        *itertools.product(LAYOUTS, ["ack", "nack", "release"]),
        ("segments", "later"),
        ("curator-delay", "later"),
    ],
)
def test_the_end_of_a_claim_is_settled(
    proxy: FaultProxy, zk: zkr.Client, other: zkr.Client, path: str, *, verb: str, layout: Layout
) -> None:
    queue = zkr.Queue(zk, path, layout=layout)
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
    wait_until(lambda: _claims(zkr.Queue(other, path, layout=layout)) == 0, LIMIT, "nothing is claimed")
    left = [b"b"] if verb in {"ack", "later"} else [b"a", b"b"]
    assert _drain(zkr.Queue(other, path, layout=layout)) == left
    assert zkr.Queue(other, path, layout=layout).stats().delayed == (1 if verb == "later" else 0)


@of_each_layout
def test_acknowledgements_of_a_batch_are_settled_together(
    proxy: FaultProxy, zk: zkr.Client, other: zkr.Client, path: str, layout: Layout
) -> None:
    queue = zkr.Queue(zk, path, layout=layout)
    queue.put_many([b"%d" % number for number in range(10)])
    batch = queue.take_many(7, LIMIT)
    trap = proxy.drop_reply("multi")
    batch.ack(timeout=LIMIT)
    trap.wait()
    assert _drain(zkr.Queue(other, path, layout=layout)) == [b"7", b"8", b"9"]


def test_a_put_that_cannot_be_settled_says_so(proxy: FaultProxy, zk: zkr.Client, other: zkr.Client, path: str) -> None:
    queue = zkr.Queue(zk, path)
    queue.put(b"0")
    proxy.blackhole("to_client")
    with pytest.raises(zkr.OutcomeUnknownError):
        queue.put(b"1", timeout=0.5)
    proxy.heal()
    assert _drain(zkr.Queue(other, path)) == [b"0", b"1"], "it is never taken back"


# --- identifiers, which Curator's layouts have from the server --------------------------------------------------------

of_curators_layouts = pytest.mark.parametrize("layout", LAYOUTS[1:])


@of_curators_layouts
@pytest.mark.parametrize("count", [1, 3])
def test_the_identifiers_of_a_put_whose_reply_is_lost_are_found(
    proxy: FaultProxy, zk: zkr.Client, other: zkr.Client, path: str, *, layout: Layout, count: int
) -> None:
    queue = zkr.Queue(zk, path, layout=layout)
    before = queue.put(b"before")
    gate = proxy.hold_reply("multi")
    later = Later(lambda: queue.put_many([b"%d" % number for number in range(count)], timeout=LIMIT))
    gate.wait_held()
    after = zkr.Queue(other, path, layout=layout).put(b"after")
    gate.drop()
    ids = later.result()
    stored = sorted(other.children(path), key=lambda name: name[-10:])
    assert [before, *ids, after] == stored


@of_curators_layouts
@pytest.mark.parametrize("count", [1, 3])
def test_a_put_whose_reply_is_lost_and_whose_item_is_done_has_an_identifier_all_the_same(
    proxy: FaultProxy, zk: zkr.Client, other: zkr.Client, path: str, *, layout: Layout, count: int
) -> None:
    queue, consumer = zkr.Queue(zk, path, layout=layout), zkr.Queue(other, path, layout=layout)
    queue.put(b"before")
    consumer.take(LIMIT).ack()
    gate = proxy.hold_reply("multi")
    later = Later(lambda: queue.put_many([b"%d" % number for number in range(count)], timeout=LIMIT))
    gate.wait_held()
    claim = consumer.take(LIMIT)
    stat = other.exists(f"{path}/{claim.id}")
    assert stat is not None
    claim.ack()
    gate.drop()
    # As many as were put, each once, and with what the transaction is known by.
    assert later.result() == [f"zxid-{stat.czxid:x}-{number}" for number in range(count)]
    assert _drain(consumer) == [b"%d" % number for number in range(1, count)]


@of_curators_layouts
def test_an_item_with_headers_has_an_identifier_of_its_own(
    proxy: FaultProxy, zk: zkr.Client, other: zkr.Client, path: str, layout: Layout
) -> None:
    queue, consumer = zkr.Queue(zk, path, layout=layout), zkr.Queue(other, path, layout=layout)
    gate = proxy.hold_reply("multi")
    later = Later(lambda: queue.put(b"item", headers={"a": "b"}, timeout=LIMIT))
    gate.wait_held()
    claim = consumer.take(LIMIT)
    claim.ack()
    gate.drop()
    assert later.result() == claim.id
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", claim.id)
