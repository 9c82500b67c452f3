"""The nodes of a queue in Curator's layouts: arguments, strangers, damage, deletion, and what requests cost."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any, Final

import pytest
from kazoo.client import KazooClient

import zkrecipes as zkr
from tests.contracts.subjects import Later
from tests.integration.queue_layouts import LAYOUTS, LIMIT, LOCKS, PATH, Layout, drain, of_each_layout, text_queue
from zkrecipes import queue_curator_view, queue_recipe
from zkrecipes.testing import FaultProxy, Server, wait_until

HI: Final = bytes.fromhex("00010001 01 00000002 6869 02")
SEVERAL: Final = bytes.fromhex("00010001 01 00000001 61 01 00000001 62 02")

without_delays = pytest.mark.parametrize("layout", LAYOUTS[:2])


@pytest.fixture
def zk(zkr_client: zkr.Client) -> zkr.Client:
    return zkr_client


@pytest.fixture
def other(zkr_server: Server, zkr_namespace: str) -> Iterator[zkr.Client]:
    with zkr.connect(zkr_server.hosts, namespace=zkr_namespace) as client:
        yield client


@pytest.fixture
def proxy(zkr_server: Server) -> Iterator[FaultProxy]:
    with FaultProxy(zkr_server) as proxy:
        yield proxy


@pytest.fixture
def distant(proxy: FaultProxy, zkr_namespace: str) -> Iterator[zkr.Client]:
    """Behind the proxy; no heartbeat of its session falls into a count."""
    with zkr.connect(proxy.hosts, namespace=zkr_namespace, session_timeout=60.0) as client:
        yield client


# --- arguments --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lock_path", [PATH, f"{PATH}/locks", "/", "relative", "/queue/", "/a//b"])
def test_a_lock_path_that_is_not_beside_the_queue_is_refused(zk: zkr.Client, lock_path: str) -> None:
    with pytest.raises(ValueError, match="path"):
        text_queue(zk, "curator", lock_path=lock_path)


def test_a_lock_path_above_the_queue_is_refused(zk: zkr.Client) -> None:
    with pytest.raises(ValueError, match="beside the queue"):
        zkr.Queue(zk, "/shop/queue", layout="curator", lock_path="/shop")
    zkr.Queue(zk, "/shop/queue", layout="curator", lock_path="/shop/queue-of-locks")


def test_an_unknown_layout_is_refused_and_the_known_ones_are_told(zk: zkr.Client) -> None:
    unknown: Any = "curator_delay"
    with pytest.raises(ValueError, match="'segments', 'curator', 'curator-priority', 'curator-delay', not"):
        text_queue(zk, unknown)


def test_a_lock_path_in_our_own_layout_is_refused(zk: zkr.Client) -> None:
    with pytest.raises(ValueError, match="lock_path belongs to Curator's layouts"):
        text_queue(zk, "segments", lock_path="/locks")


@pytest.mark.parametrize("layout", ["curator", "curator-delay"])
def test_a_priority_is_refused_where_there_is_none(zk: zkr.Client, layout: Layout) -> None:
    queue = text_queue(zk, layout)
    with pytest.raises(ValueError, match="use 'segments' or 'curator-priority'"):
        queue.put("item", priority=1)
    with pytest.raises(ValueError, match="priorities"):
        queue.put_many(["item"], priority=-1)
    assert zk.exists(PATH) is None, "nothing was sent"


@without_delays
def test_a_delay_is_refused_where_there_is_none(zk: zkr.Client, layout: Layout) -> None:
    with pytest.raises(ValueError, match="cannot have a backoff"):
        text_queue(zk, layout, backoff=lambda attempt: 1.0 * attempt)
    queue = text_queue(zk, layout)
    with pytest.raises(ValueError, match="use 'segments' or 'curator-delay'"):
        queue.put("item", delay=0.1)
    assert zk.exists(PATH) is None, "nothing was sent"
    queue.put("item", delay=0)
    claim = queue.take(LIMIT)
    with pytest.raises(ValueError, match="delays"):
        claim.nack(1.0)
    assert claim.valid, "nothing has become of it"
    claim.nack(0)
    assert drain(queue) == ["item"]


# --- strangers --------------------------------------------------------------------------------------------------------


@of_each_layout
@pytest.mark.parametrize("used", [False, True], ids=["empty", "used"])
def test_a_queue_in_our_own_layout_is_no_queue_of_curators_and_the_other_way_round(
    zk: zkr.Client, other: zkr.Client, *, layout: Layout, used: bool
) -> None:
    for mine, theirs in (("segments", layout), (layout, "segments")):
        path = f"{PATH}-{mine}"
        options: list[Any] = [mine, theirs]
        queue, stranger = (
            zkr.Queue(client, path, layout=each) for client, each in zip((zk, other), options, strict=True)
        )
        if used:
            queue.put(b"item")
        assert queue.try_take(0.5 if used else 0) is None or used
        for verb in (lambda: stranger.put(b"other"), stranger.try_take):  # noqa: B023 - called within the loop
            with pytest.raises(zkr.ForeignNodeError, match="Give each recipe a path of its own") as raised:
                verb()
            assert raised.value.path == path
        if mine == "segments":
            assert zk.exists(f"{path}-locks") is None, "nothing was made beside it"


@of_each_layout
def test_what_others_have_written_into_the_queues_node_is_left_alone(zk: zkr.Client, layout: Layout) -> None:
    """Curator's create writes the address of its host there."""
    zk.create(PATH, b"192.0.2.7")
    queue = text_queue(zk, layout)
    queue.put("item")
    assert drain(queue) == ["item"]
    assert zk.get(PATH).value == b"192.0.2.7"
    with pytest.raises(zkr.ForeignNodeError):
        text_queue(zk, "segments").put("item")


@of_each_layout
def test_foreign_and_damaged_nodes_are_reported_left_alone_and_block_nothing(zk: zkr.Client, layout: Layout) -> None:
    queue = text_queue(zk, layout)
    errors: list[Exception] = []
    queue.on_error(errors.append)
    queue.put("before")
    strangers = {"foreign": b"", "queue-": HI, "queue-0000000077": b"", "queue-0000000078": HI + b"ZR\x02\0\0\0\0"}
    for name, data in strangers.items():
        zk.create(f"{PATH}/{name}", data)
    queue.put("after")
    assert sorted(drain(queue)) == ["after", "before"]
    wait_until(lambda: len(errors) >= 4, LIMIT, lambda: f"each is reported: {errors}")
    assert {error.path.removeprefix(zk.core.namespace) for error in errors if isinstance(error, zkr.DecodeError)} == {
        f"{PATH}/{name}" for name in strangers
    }
    assert queue.peek(9) == []
    assert sorted(zk.children(PATH)) == sorted(strangers)


@of_each_layout
def test_a_damaged_item_that_was_repaired_is_served(
    zk: zkr.Client, other: zkr.Client, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By an operator; or its name was made anew, with the node of the queue."""
    monkeypatch.setattr(queue_curator_view, "SKIPPED", 0.3)
    queue = text_queue(zk, layout)
    assert queue.try_take() is None
    other.create(f"{PATH}/queue-0000000000", b"damaged")
    errors: list[Exception] = []
    queue.on_error(errors.append)
    later = Later(lambda: queue.take(LIMIT))
    wait_until(lambda: errors, LIMIT, "it is reported")
    other.set(f"{PATH}/queue-0000000000", HI)
    claim = later.result()
    assert claim.item == "hi"
    claim.ack()


# --- what does not decode ---------------------------------------------------------------------------------------------


@of_each_layout
def test_an_item_that_does_not_decode_is_put_off_and_those_behind_it_are_served(
    zk: zkr.Client, other: zkr.Client, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_recipe, "UNDECODABLE", 1.5)
    errors: list[Exception] = []
    zkr.Queue(other, PATH, layout=layout).put(b"\xff")
    queue = text_queue(zk, layout)
    queue.on_error(errors.append)
    queue.put_many(["good", "better"])
    began = time.monotonic()
    assert [claim.item for claim in queue.take_many(3, LIMIT)] == ["good", "better"]
    wait_until(lambda: len(errors) == 1, LIMIT, "it is reported")
    assert queue.try_take() is None
    assert time.monotonic() - began < 1.5
    # The same consumer tries it again, by itself: with the same outcome.
    later = Later(lambda: queue.take(LIMIT))
    wait_until(lambda: len(errors) == 2, LIMIT, "it is served again")
    assert time.monotonic() - began >= 1.4
    queue.put("last")
    assert later.result().item == "last"
    stats = queue.stats()
    assert stats.waiting + stats.delayed == 1, "nothing is lost"


@without_delays
def test_an_item_that_does_not_decode_is_left_to_others(zk: zkr.Client, other: zkr.Client, layout: Layout) -> None:
    queue = text_queue(zk, layout, max_attempts=3)
    id_ = zkr.Queue(other, PATH, layout=layout).put(b"\xff", headers={"a": "b"})
    assert queue.try_take() is None
    claim = zkr.Queue(other, PATH, layout=layout).take(LIMIT)
    assert (claim.item, claim.id, claim.attempt, claim.headers) == (b"\xff", id_, 2, {"a": "b"})
    claim.ack()
    assert zk.children(PATH) == []


def test_an_item_that_does_not_decode_is_delayed_for_all(zk: zkr.Client, other: zkr.Client) -> None:
    zkr.Queue(other, PATH, layout="curator-delay").put(b"\xff")
    assert text_queue(zk, "curator-delay").try_take() is None
    assert zkr.Queue(other, PATH, layout="curator-delay").try_take() is None
    assert text_queue(zk, "curator-delay").stats().delayed == 1


@of_each_layout
def test_an_item_that_never_decodes_is_a_dead_letter(zk: zkr.Client, layout: Layout) -> None:
    zkr.Queue(zk, PATH, layout=layout).put(b"\xff")
    queue = text_queue(zk, layout, max_attempts=1)
    queue.put("good")
    assert drain(queue) == ["good"]
    [dead] = queue.dead_letters()
    assert (dead.payload, dead.attempts) == (b"\xff", 1)
    assert dead.error.startswith("DecodeError")


# --- Curator's own ways -----------------------------------------------------------------------------------------------


@of_each_layout
def test_what_others_have_claimed_meanwhile_is_not_purged(
    zk: zkr.Client, proxy: FaultProxy, distant: zkr.Client, layout: Layout
) -> None:
    """Curator's claims leave an item's version as it is, so that tells nothing."""
    first, _ = text_queue(zk, layout).put_many(["first", "second"])
    gate = proxy.hold_request("multi")
    later = Later(lambda: text_queue(distant, layout).purge())
    gate.wait_held()
    zk.create(f"{LOCKS}/{first}", kind=zkr.Kind.EPHEMERAL)
    gate.release()
    assert later.result() == 1
    assert zk.children(PATH) == [first]


@of_each_layout
def test_items_are_purged_where_nobody_has_claimed_any_before(zk: zkr.Client, layout: Layout) -> None:
    zk.create(f"{PATH}/queue-0000000000", HI, parents=True)
    assert text_queue(zk, layout).purge() == 1
    assert zk.children(PATH) == []


@of_each_layout
@pytest.mark.parametrize("how", ["ack", "dead", "nack"])
def test_curator_is_told_that_the_next_item_of_a_node_is_free(
    zk: zkr.Client, zkr_server: Server, zkr_namespace: str, *, layout: Layout, how: str
) -> None:
    """It watches the children of the queue's node: neither an item's data, nor the locks."""
    zk.create(f"{PATH}/queue-0000000000", SEVERAL, parents=True)
    queue = text_queue(zk, layout, max_attempts=1 if how == "dead" else None)
    claim = queue.take(LIMIT)
    assert claim.item == "a"
    told = threading.Event()
    kazoo = KazooClient(zkr_server.hosts)
    kazoo.start()
    try:
        kazoo.get_children(f"{zkr_namespace}{PATH}", watch=lambda _event: told.set())
        if how == "ack":
            claim.ack()
        else:
            claim.nack(60.0 if how == "nack" and layout == "curator-delay" else None)
        assert told.wait(LIMIT)
    finally:
        kazoo.stop()
        kazoo.close()
    assert queue.take(LIMIT).item == ("a" if how == "nack" and layout != "curator-delay" else "b")


def test_consumers_that_contend_do_not_overtake_what_is_urgent(zk: zkr.Client) -> None:
    """Where others were faster, a taker begins behind the head: behind that of its priority."""
    queue = text_queue(zk, "curator-priority")
    queue.put_many([f"{number}" for number in range(200)], priority=5)
    queue.put_many(["a", "b"], priority=-1)
    queue._recipe._sight._contention = 64
    assert {claim.item for claim in (queue.take(LIMIT), queue.take(LIMIT))} == {"a", "b"}
    queue.put("c", priority=-1)
    queue._recipe._sight._contention = 64
    with queue.take_many(3, LIMIT) as batch:
        assert batch[0].item == "c"
        assert len(batch) == 3
