"""What a queue in Curator's layouts sends, and that it begins anew where its nodes are deleted."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

import zkrecipes as zkr
from tests.contracts.subjects import Later
from tests.integration.queue_layouts import LIMIT, LOCKS, PATH, Layout, drain, of_each_layout, text_queue
from zkrecipes.testing import FaultProxy, Server, wait_until


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


# --- nodes that somebody deletes --------------------------------------------------------------------------------------


def delete(zk: zkr.Client, path: str) -> None:
    """A node, and all below it."""
    for name in zk.children(path):
        delete(zk, f"{path}/{name}")
    zk.delete(path)


@of_each_layout
@pytest.mark.parametrize("gone", [[PATH], [LOCKS], [PATH, LOCKS]], ids=["items", "locks", "both"])
def test_a_queue_whose_nodes_are_deleted_begins_anew(
    zk: zkr.Client, other: zkr.Client, layout: Layout, gone: list[str]
) -> None:
    queue, producer = text_queue(zk, layout), text_queue(other, layout)
    queue.put("before")
    assert drain(queue) == ["before"]
    later = Later(lambda: queue.take(LIMIT))
    for path in gone:
        _delete_whatever_comes(other, path)
    # The consumer makes them again, by itself, and waits on.
    wait_until(lambda: other.exists(PATH) and other.exists(f"{LOCKS}/zkrecipes/marks"), LIMIT, "all is there again")
    assert not later.done
    producer.put("after")
    claim = later.result()
    assert (claim.item, claim.attempt) == ("after", 1)
    claim.ack()
    assert drain(producer) == []
    queue.put("own")
    assert drain(queue) == ["own"]


def _delete_whatever_comes(zk: zkr.Client, path: str) -> None:
    """The consumer makes its nodes again at once, maybe below one that is just being deleted."""

    def deleted() -> bool:
        try:
            delete(zk, path)
        except (zkr.NodeNotFoundError, zkr.NotEmptyError):
            return False
        return True

    wait_until(deleted, LIMIT, f"{path} was deleted")


# --- requests ---------------------------------------------------------------------------------------------------------


def _cost(proxy: FaultProxy, zk: zkr.Client, job: Callable[[], object]) -> int:
    zk.exists("/")
    proxy.reset_counts()
    job()
    return proxy.counts().total()


@of_each_layout
def test_an_idle_taker_sends_nothing(zk: zkr.Client, proxy: FaultProxy, distant: zkr.Client, layout: Layout) -> None:
    producer, queue = text_queue(zk, layout), text_queue(distant, layout)
    producer.put_many(["a", "b"])
    if layout == "curator-delay":
        producer.put("in an hour", delay=3600.0)
    assert drain(queue) == ["a", "b"]
    with pytest.raises(zkr.AcquireTimeoutError):
        queue.take(0.3)
    later: list[Later] = []

    def wait() -> None:
        later.append(Later(lambda: queue.take(1.0)))
        later[0].wait()

    assert _cost(proxy, distant, wait) <= 2, proxy.bursts()
    assert isinstance(later[0].error, zkr.AcquireTimeoutError)


@of_each_layout
def test_what_a_backlog_costs_is_bounded(
    zk: zkr.Client, proxy: FaultProxy, distant: zkr.Client, layout: Layout
) -> None:
    producer, queue = text_queue(zk, layout), text_queue(distant, layout)
    assert queue.try_take() is None
    items = [f"{number}" for number in range(500)]
    producer.put_many(items)
    done: list[str] = []

    def consume() -> None:
        with queue.consume(prefetch=50) as claims:
            for claim in claims:
                with claim:
                    done.append(claim.item)
                if len(done) == 500:
                    break

    cost = _cost(proxy, distant, consume)
    assert done == items
    # Ten times: two listings, one read, one claim; and acknowledgements, some together.
    assert cost <= 150, proxy.bursts()
    assert zk.children(PATH) == []


@of_each_layout
def test_what_puts_takes_and_acknowledgements_cost(proxy: FaultProxy, distant: zkr.Client, layout: Layout) -> None:
    queue = text_queue(distant, layout)
    queue.put("first")
    assert drain(queue) == ["first"]
    assert _cost(proxy, distant, lambda: queue.put("one")) == 1, proxy.bursts()
    assert _cost(proxy, distant, lambda: queue.put_many(["x"] * 39)) == 1, proxy.bursts()
    assert _cost(proxy, distant, lambda: queue.take_many(20).ack()) <= 5, proxy.bursts()
    # Two listings of all items, where what changes may be more urgent.
    for _ in range(2):
        assert _cost(proxy, distant, lambda: queue.take(LIMIT).ack()) <= 5, proxy.bursts()
