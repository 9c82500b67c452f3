"""A host whose clock is an hour behind, or ahead: what is due, old, or known is told by the servers' time alone."""

from __future__ import annotations

import time

import pytest

import zkrecipes as zkr
from zkrecipes.testing import Server, wait_until

LIMIT = 10.0
HOUR = 3600.0


@pytest.fixture(params=[-HOUR, HOUR], ids=["an hour behind", "an hour ahead"])
def wrong(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, zkr_server: Server) -> float:
    """The clock of this process is wrong; the servers' is right. How many seconds it is ahead."""
    ahead: float = request.param
    true = time.time
    monkeypatch.setattr(time, "time", lambda: true() + ahead)
    monkeypatch.setattr(time, "time_ns", lambda: int((true() + ahead) * 1e9))
    return ahead


def test_a_delayed_item_is_served_when_it_is_due(zkr_client: zkr.Client, wrong: float) -> None:
    queue = zkr.Queue(zkr_client, "/queue")
    began = time.monotonic()
    queue.put(b"later", delay=0.5)
    queue.put(b"now")
    with queue.take(LIMIT) as claim:
        assert claim.item == b"now"
    with queue.take(LIMIT) as claim:
        assert claim.item == b"later"
    assert 0.5 <= time.monotonic() - began < 3.0


def test_a_delayed_item_in_curators_layout_is_served_when_it_is_due(zkr_client: zkr.Client, wrong: float) -> None:
    queue = zkr.Queue(zkr_client, "/queue", layout="curator-delay")
    began = time.monotonic()
    queue.put(b"later", delay=0.5)
    with queue.take(LIMIT) as claim:
        assert claim.item == b"later"
    assert 0.5 <= time.monotonic() - began < 3.0


def test_a_claim_ends_with_its_visibility_and_not_before(zkr_client: zkr.Client, wrong: float) -> None:
    queue = zkr.Queue(zkr_client, "/queue", visibility=1.0)
    queue.put(b"x")
    began = time.monotonic()
    first = queue.take(LIMIT)
    again = queue.take(LIMIT)
    assert 0.9 <= time.monotonic() - began < 4.0
    assert not first.valid
    again.ack()


def test_an_identifier_is_remembered(zkr_client: zkr.Client, wrong: float) -> None:
    queue = zkr.Queue(zkr_client, "/queue", dedup_window=600.0)
    assert queue.put(b"x", dedup_id="once") == queue.put(b"x", dedup_id="once")
    topic = zkr.Topic(zkr_client, "/topic")
    assert topic.publish(b"x", message_id="once") == topic.publish(b"x", message_id="once")


def test_retention_by_age_removes_what_is_old_and_nothing_else(zkr_client: zkr.Client, wrong: float) -> None:
    short, long = (
        zkr.Topic(zkr_client, path, segment_size=2, retention=zkr.Retention(max_age=age, keep_for_durable=False))
        for path, age in (("/short", 0.5), ("/long", 600.0))
    )
    began = time.monotonic()
    first = short.publish(b"0")
    kept = [long.publish(b"0")]

    def removed() -> bool:
        short.publish(b"x")
        kept.append(long.publish(b"x"))
        return zkr_client.exists(f"/short/s{first.segment:010d}/m-{first.index:010d}") is None

    wait_until(removed, LIMIT, "publishers remove what is older than half a second")
    assert time.monotonic() - began >= 0.5
    with long.subscribe("all", start="earliest", durable=False) as reader:
        assert [reader.receive(LIMIT).position for _ in kept] == kept


def test_a_start_in_time_is_of_the_servers_time(zkr_client: zkr.Client, wrong: float) -> None:
    topic = zkr.Topic(zkr_client, "/topic")
    topic.publish(b"before")
    with topic.subscribe("look", start="earliest", durable=False) as look:
        at = look.receive(LIMIT).published_at
    assert abs(at.timestamp() - (time.time() - wrong)) < 60.0
    with topic.subscribe("audit", start=at) as audit:
        assert audit.receive(LIMIT).value == b"before"
