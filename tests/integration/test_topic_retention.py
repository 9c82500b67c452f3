"""What topics keep and remove on a real server, who is told, and who reads them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import timedelta

import pytest

import zkrecipes as zkr
from tests.integration.test_topics import LIMIT, PATH, nothing_comes, publish, values, wait_for_segment
from zkrecipes.testing import Server, wait_until


@pytest.fixture
def other(zkr_server: Server, zkr_namespace: str) -> Iterator[zkr.Client]:
    with zkr.connect(zkr_server.hosts, namespace=zkr_namespace) as client:
        yield client


def _small(client: zkr.Client, retention: zkr.Retention | None = None) -> zkr.Topic:
    return zkr.Topic(client, PATH, segment_size=4, retention=retention)


def _left(client: zkr.Client) -> dict[str, int]:
    """How many messages are left in each segment."""
    left: dict[str, int] = {}
    for name in sorted(name for name in client.children(PATH) if name.startswith("s0")):
        with contextlib.suppress(zkr.NodeNotFoundError):  # removed while we look
            left[name] = len(client.children(f"{PATH}/{name}"))
    return left


FREE = zkr.Retention(keep_for_durable=False)


# --- trim by hand -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", range(12))
def test_everything_before_a_position_is_removed(zkr_client: zkr.Client, at: int) -> None:
    topic = _small(zkr_client)
    positions = publish(topic, 0, 12)
    low = topic.trim(before=positions[at])
    assert low == positions[at]
    assert sum(_left(zkr_client).values()) == 12 - at
    with topic.subscribe("audit", start="earliest") as audit:
        assert values(audit, 12 - at) == list(range(at, 12))


def test_empty_segments_are_removed_and_never_come_again(zkr_client: zkr.Client) -> None:
    topic = _small(zkr_client)
    positions = publish(topic, 0, 12)
    last = positions[-1].segment
    assert topic.trim(before="latest") > positions[-1]
    assert sum(_left(zkr_client).values()) == 0
    assert len(_left(zkr_client)) <= 2
    following = publish(topic, 12, 20)
    assert following[0] > positions[-1]
    assert min(_left(zkr_client)) >= f"s{last:010d}"
    assert topic.trim(before="latest") >= following[-1]
    assert topic.trim(before="latest") >= following[-1], "there is nothing to do a second time"


@pytest.mark.parametrize("keep", [0, 1, 3, 5, 12, 100])
def test_all_but_the_newest_are_removed(zkr_client: zkr.Client, keep: int) -> None:
    topic = _small(zkr_client)
    publish(topic, 0, 12)
    topic.trim(keep=keep)
    assert sum(_left(zkr_client).values()) == min(keep, 12)
    with topic.subscribe("audit", start="earliest") as audit:
        assert values(audit, min(keep, 12)) == list(range(max(0, 12 - keep), 12))
        assert nothing_comes(audit)


def test_more_messages_than_one_request_removes(zkr_client: zkr.Client) -> None:
    topic = zkr.Topic(zkr_client, PATH, segment_size=400)
    topic.publish_many([b""] * 350)
    assert topic.trim(keep=20) == zkr.Position(0, 330)
    assert _left(zkr_client) == {"s0000000000": 20}


def test_what_was_written_before_a_time_is_removed(zkr_client: zkr.Client) -> None:
    topic = _small(zkr_client)
    publish(topic, 0, 10)
    with topic.subscribe("tail", start="earliest", durable=False) as tail:
        times = [tail.receive(LIMIT).published_at for _ in range(10)]
    topic.trim(before=times[6])
    first = times.index(times[6])
    with topic.subscribe("tail", start="earliest", durable=False) as tail:
        assert values(tail, 10 - first) == list(range(first, 10))


def test_the_slowest_durable_subscription_holds_up_the_trimmer(zkr_client: zkr.Client) -> None:
    topic = _small(zkr_client)
    positions = publish(topic, 0, 12)
    with (
        topic.subscribe("slow", start="earliest") as slow,
        topic.subscribe("quick", start="earliest") as quick,
        topic.subscribe("tail", start="earliest", durable=False),
    ):
        for _ in range(10):
            quick.receive(LIMIT).ack()
        for _ in range(3):
            slow.receive(LIMIT).ack()
        assert topic.trim(before="latest") == positions[3]
        assert values(slow, 9) == list(range(3, 12))
    assert topic.trim(keep=0) == positions[3], "it is away, and counts all the same"


def test_a_subscription_that_was_silent_for_long_is_forgotten_and_told_of_its_gap(zkr_client: zkr.Client) -> None:
    topic = _small(zkr_client, zkr.Retention(forget_after=timedelta(seconds=0.5)))
    positions = publish(topic, 0, 12)
    audit = topic.subscribe("audit", start="earliest")
    audit.receive(LIMIT).ack()
    assert topic.trim(before=positions[6]) == positions[1], "it has a reader, and is never forgotten"
    audit.close()
    wait_until(lambda: topic.trim(before=positions[6]) == positions[6], LIMIT, "it is forgotten")
    with topic.subscribe("audit") as audit:
        with pytest.raises(zkr.GapError) as caught:
            audit.receive(LIMIT)
        assert (caught.value.first_missing, caught.value.resumed_at) == (positions[1], positions[6])
        assert values(audit, 6) == list(range(6, 12))


def test_only_one_trims_at_a_time(zkr_client: zkr.Client, other: zkr.Client) -> None:
    topic = _small(zkr_client)
    publish(topic, 0, 8)
    with (
        zkr.Lock(other, f"{PATH}/trimmer").acquire(timeout=LIMIT),
        pytest.raises(zkr.AcquireTimeoutError),
    ):
        topic.trim(before="latest", timeout=0.5)
    assert sum(_left(zkr_client).values()) == 8
    topic.trim(before="latest")
    assert sum(_left(zkr_client).values()) == 0


# --- retention by itself ----------------------------------------------------------------------------------------------


def test_publishers_remove_what_is_over_the_count(zkr_client: zkr.Client) -> None:
    topic = zkr.Topic(zkr_client, PATH, segment_size=40, retention=zkr.Retention(max_count=30))
    publish(topic, 0, 100)
    wait_until(lambda: sum(_left(zkr_client).values()) == 30, LIMIT, lambda: f"left: {_left(zkr_client)}")
    with topic.subscribe("audit", start="earliest") as audit:
        assert values(audit, 30) == list(range(70, 100))


def test_publishers_remove_what_is_too_old(zkr_client: zkr.Client) -> None:
    topic = zkr.Topic(zkr_client, PATH, segment_size=40, retention=zkr.Retention(max_age=0.3))
    publish(topic, 0, 99)

    def some_are_gone() -> bool:
        publish(topic, 0, 100)
        return sum(_left(zkr_client).values()) < 90 or min(_left(zkr_client)) > "s0000000002"

    wait_until(some_are_gone, LIMIT, lambda: f"left: {_left(zkr_client)}")


def test_without_a_limit_nothing_is_removed_by_itself(zkr_client: zkr.Client) -> None:
    topic = zkr.Topic(zkr_client, PATH, segment_size=40)
    publish(topic, 0, 210)
    with topic.subscribe("audit", start="earliest") as audit:
        assert values(audit, 210) == list(range(210))
    assert sum(_left(zkr_client).values()) == 210


# --- gaps -------------------------------------------------------------------------------------------------------------


def test_a_gap_is_raised_once_and_reading_goes_on_behind_it(zkr_client: zkr.Client) -> None:
    topic = _small(zkr_client, FREE)
    with topic.subscribe("audit", start="earliest") as audit:
        positions = publish(topic, 0, 10)
        topic.trim(before=positions[7])
        with pytest.raises(zkr.GapError, match=r"from 0-0 on") as caught:
            audit.receive(LIMIT)
        assert (caught.value.first_missing, caught.value.resumed_at) == (positions[0], positions[7])
        assert audit.position == positions[7]
        assert values(audit, 3) == [7, 8, 9]
        assert nothing_comes(audit)


def test_a_gap_is_raised_though_nothing_is_left_behind_it(zkr_client: zkr.Client) -> None:
    topic = _small(zkr_client, FREE)
    with topic.subscribe("audit", start="earliest") as audit:
        publish(topic, 0, 10)
        low = topic.trim(before="latest")
        with pytest.raises(zkr.GapError) as caught:
            audit.receive(LIMIT)
        assert (caught.value.first_missing, caught.value.resumed_at) == (zkr.Position(0, 0), low)
        assert nothing_comes(audit)
        topic.publish(b"10")
        assert values(audit, 1) == [10]


def test_a_gap_is_marked_on_the_next_message(zkr_client: zkr.Client) -> None:
    topic = _small(zkr_client, FREE)
    with topic.subscribe("audit", start="earliest", on_gap="mark") as audit:
        positions = publish(topic, 0, 10)
        topic.trim(before=positions[7])
        message = audit.receive(LIMIT)
        assert (message.value, message.gap) == (b"7", (positions[0], positions[7]))
        assert audit.receive(LIMIT).gap is None


def test_a_gap_at_the_end_is_marked_on_what_comes_later(zkr_client: zkr.Client) -> None:
    topic = _small(zkr_client, FREE)
    with topic.subscribe("audit", start="earliest", on_gap="mark") as audit:
        publish(topic, 0, 10)
        low = topic.trim(before="latest")
        assert nothing_comes(audit)
        topic.publish(b"10")
        message = audit.receive(LIMIT)
        assert (message.value, message.gap) == (b"10", (zkr.Position(0, 0), low))
        topic.publish(b"11")
        assert audit.receive(LIMIT).gap is None


def test_who_waits_at_the_end_is_told_of_no_gap_when_all_is_removed(zkr_client: zkr.Client) -> None:
    topic = _small(zkr_client, FREE)
    with topic.subscribe("audit", start="earliest") as audit:
        publish(topic, 0, 4)
        assert values(audit, 4) == [0, 1, 2, 3]
        wait_for_segment(zkr_client, 1)
        topic.trim(before="latest")
        assert nothing_comes(audit)
        topic.publish(b"4")
        assert values(audit, 1) == [4]


# --- who reads it -----------------------------------------------------------------------------------------------------


def test_subscribers_are_listed_with_their_lag(zkr_client: zkr.Client, other: zkr.Client) -> None:
    topic = _small(zkr_client)
    assert topic.subscribers() == []
    positions = publish(topic, 0, 10)
    away = topic.subscribe("away", start="earliest")
    for _ in range(3):
        away.receive(LIMIT).ack()
    away.close()
    with (
        zkr.Topic(other, PATH).subscribe("here", start="earliest") as here,
        topic.subscribe("tail", durable=False),
    ):
        for _ in range(7):
            here.receive(LIMIT).ack()
        wait_until(lambda: len(topic.subscribers()) == 3, LIMIT, lambda: f"{topic.subscribers()}")
        listed = {each.name: each for each in topic.subscribers()}
        assert {name: each.lag for name, each in listed.items()} == {"away": 7, "here": 3, "tail": 0}
        assert {name: each.here for name, each in listed.items()} == {"away": False, "here": True, "tail": True}
        assert {name: each.durable for name, each in listed.items()} == {"away": True, "here": True, "tail": False}
        assert listed["away"].position == positions[3]
        assert ":" in listed["here"].host
        topic.trim(before=positions[2])
        assert {each.name: each.lag for each in topic.subscribers()} == {"away": 7, "here": 3, "tail": 0}
    wait_until(lambda: not any(each.here for each in topic.subscribers()), LIMIT, "all are away")
    assert [each.name for each in topic.subscribers()] == ["away", "here"]


def test_who_comes_and_goes_is_told(zkr_client: zkr.Client, other: zkr.Client) -> None:
    topic = _small(zkr_client)
    joined: list[str] = []
    left: list[str] = []
    registrations = [
        topic.on_join(lambda subscriber: joined.append(subscriber.name)),
        topic.on_leave(lambda subscriber: left.append(subscriber.name)),
    ]
    with zkr.Topic(other, PATH).subscribe("audit"):
        wait_until(lambda: joined == ["audit"], LIMIT, lambda: f"joined: {joined}")
        assert left == []
    wait_until(lambda: left == ["audit"], LIMIT, lambda: f"left: {left}")
    for registration in registrations:
        registration.cancel()
    with topic.subscribe("other"):
        wait_until(lambda: len(zkr_client.children(f"{PATH}/members")) == 1, LIMIT, "it is here")
    assert joined == ["audit"]


def test_a_subscriber_whose_client_ends_is_told_to_have_left(
    zkr_server: Server, zkr_namespace: str, zkr_client: zkr.Client
) -> None:
    topic = _small(zkr_client)
    left: list[str] = []
    topic.on_leave(lambda subscriber: left.append(subscriber.name))
    with zkr.connect(zkr_server.hosts, namespace=zkr_namespace) as reader:
        subscription = zkr.Topic(reader, PATH).subscribe("audit")
        wait_until(lambda: len(zkr_client.children(f"{PATH}/members")) == 1, LIMIT, "it is here")
        assert not subscription.closed  # kept: one that is dropped is closed by itself
    wait_until(lambda: left == ["audit"], LIMIT, lambda: f"left: {left}")
