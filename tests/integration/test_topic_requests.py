"""What topics cost, counted on the wire between client and server.

Sessions are long here, so that no heartbeat falls into a count. A subscriber tells its position every two seconds, if
it has changed: that setData is not counted.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from typing import Final

import pytest

import zkrecipes as zkr
from zkrecipes.testing import FaultProxy, Server, wait_until

_SESSION: Final = 60.0
_PATHS = itertools.count(1)
LIMIT: Final = 10.0


@pytest.fixture
def proxy(zkr_server: Server) -> Iterator[FaultProxy]:
    with FaultProxy(zkr_server) as proxy:
        yield proxy


@pytest.fixture
def zk(proxy: FaultProxy) -> Iterator[zkr.Client]:
    with zkr.connect(proxy.hosts, session_timeout=_SESSION) as client:
        yield client


@pytest.fixture
def other(zkr_server: Server) -> Iterator[zkr.Client]:
    with zkr.connect(zkr_server.hosts) as client:
        yield client


@pytest.fixture
def path() -> str:
    return f"/wire-topic-{os.getpid()}-{next(_PATHS)}"


def _counts(proxy: FaultProxy) -> dict[str, int]:
    counts = proxy.counts()
    del counts["setData"]
    return dict(counts)


def test_a_publish_takes_one_request(proxy: FaultProxy, zk: zkr.Client, path: str) -> None:
    topic = zkr.Topic(zk, path)
    topic.publish(b"first", message_id="first")
    proxy.reset_counts()
    topic.publish(b"second")
    topic.publish_many([b"third"] * 50)
    topic.publish(b"fourth", message_id="fourth")
    assert proxy.counts() == {"multi": 3}
    assert proxy.flights() == 3, proxy.bursts()


def test_a_new_segment_takes_two_requests_more(proxy: FaultProxy, zk: zkr.Client, path: str) -> None:
    """The write that begins it; whoever did not makes one refused publish and reads the head."""
    topic = zkr.Topic(zk, path, segment_size=10)
    topic.publish(b"first")
    proxy.reset_counts()
    for number in range(100):
        topic.publish(b"%d" % number)
    assert proxy.counts().total() <= 100 + 10 * 3, proxy.counts()


@pytest.mark.parametrize("persistent", [True, False])
def test_a_message_takes_its_subscriber_one_request_or_two_where_watches_do_not_last(
    proxy: FaultProxy,
    zk: zkr.Client,
    other: zkr.Client,
    path: str,
    persistent: bool,  # noqa: FBT001 - a parameter
) -> None:
    zk.core.session.watches.recursive = persistent
    publisher = zkr.Topic(other, path)
    publisher.publish(b"first")
    with zkr.Topic(zk, path).subscribe("audit", start="earliest") as audit:
        audit.receive(LIMIT)
        with pytest.raises(zkr.AcquireTimeoutError):
            audit.receive(0.3)  # it has caught up, and looks ahead
        proxy.reset_counts()
        for number in range(50):
            publisher.publish(b"%d" % number)
            assert audit.receive(LIMIT).value == b"%d" % number
            zk.exists("/")  # behind its look ahead, which a quick publisher would overtake
        assert _counts(proxy) == {"getData": 50, "exists": 50 if persistent else 50 + 50}
        assert proxy.events() == 50


def test_an_acknowledgement_takes_one_request(proxy: FaultProxy, zk: zkr.Client, path: str) -> None:
    topic = zkr.Topic(zk, path)
    with topic.subscribe("audit") as audit:
        topic.publish_many([b"x"] * 20)
        messages = [audit.receive(LIMIT) for _ in range(20)]
        proxy.reset_counts()
        messages[4].ack()
        messages[9].ack()
        messages[7].ack()
        assert _counts(proxy) == {"multi": 2}, "one that is acknowledged already costs nothing"


def test_catching_up_reads_many_messages_in_a_request(
    proxy: FaultProxy, zk: zkr.Client, other: zkr.Client, path: str
) -> None:
    publisher = zkr.Topic(other, path)
    for _ in range(10):
        publisher.publish_many([b"x" * 100] * 100)
    with zkr.Topic(zk, path).subscribe("audit", start="earliest") as audit:
        proxy.reset_counts()
        for _ in range(1000):
            audit.receive(LIMIT)
        assert sum(_counts(proxy).values()) <= 40, proxy.counts()


def test_one_that_waits_costs_nothing(proxy: FaultProxy, zk: zkr.Client, path: str) -> None:
    topic = zkr.Topic(zk, path)
    topic.publish(b"x")
    with topic.subscribe("tail", durable=False) as tail:
        wait_until(lambda: len(topic.subscribers()) == 1, LIMIT, "it is here")
        with pytest.raises(zkr.AcquireTimeoutError):
            tail.receive(0.3)
        proxy.reset_counts()
        for _ in range(10):
            with pytest.raises(zkr.AcquireTimeoutError):
                tail.receive(0.3)
        assert proxy.counts().total() == 0, proxy.counts()
