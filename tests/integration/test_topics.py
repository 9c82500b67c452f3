"""What Topic and LatestTopic do on a real server, for threads. For asyncio: test_topics_asyncio.py."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

import zkrecipes as zkr
from tests.contracts.subjects import Later
from zkrecipes.testing import Server, wait_until

PATH = "/news/orders"
LIMIT = 20.0


@pytest.fixture
def topic(zkr_client: zkr.Client) -> zkr.Topic:
    return zkr.Topic(zkr_client, PATH)


@pytest.fixture
def small(zkr_client: zkr.Client) -> zkr.Topic:
    """Its segments are short, so that everything happens over their borders."""
    return zkr.Topic(zkr_client, PATH, segment_size=3)


@pytest.fixture
def other(zkr_server: Server, zkr_namespace: str) -> Iterator[zkr.Client]:
    with zkr.connect(zkr_server.hosts, namespace=zkr_namespace) as client:
        yield client


def publish(topic: zkr.Topic, first: int, behind: int) -> list[zkr.Position]:
    """Messages b"first" to b"behind - 1", and their positions."""
    return [topic.publish(b"%d" % number) for number in range(first, behind)]


def values(subscription: zkr.Subscription, count: int) -> list[int]:
    """The next so many, as numbers."""
    return [int(subscription.receive(LIMIT).value) for _ in range(count)]


def nothing_comes(subscription: zkr.Subscription) -> bool:
    with pytest.raises(zkr.AcquireTimeoutError, match="no message came"):
        subscription.receive(0.3)
    return True


def wait_for_segment(client: zkr.Client, number: int) -> None:
    """Segments are begun in the background."""
    path = f"{PATH}/s{number:010d}"
    wait_until(lambda: client.exists(path) is not None, LIMIT, lambda: f"{path} in {client.children(PATH)}")


# --- publish and receive ----------------------------------------------------------------------------------------------


def test_a_message_arrives_as_it_was_published(topic: zkr.Topic) -> None:
    before = datetime.now(UTC)
    with topic.subscribe("audit") as audit:
        position = topic.publish(b"sold", key="pear", headers={"trace": "17"}, message_id="id-1")
        message = audit.receive(LIMIT)
    assert (message.value, message.key, message.headers) == (b"sold", "pear", {"trace": "17"})
    assert (message.message_id, message.position, message.gap) == ("id-1", position, None)
    assert abs(message.published_at - before) < timedelta(seconds=LIMIT)


def test_positions_have_an_order_and_a_text_form(small: zkr.Topic, zkr_client: zkr.Client) -> None:
    positions = publish(small, 0, 3)
    wait_for_segment(zkr_client, 1)
    positions += publish(small, 3, 10)
    assert positions == sorted(set(positions))
    assert positions[0] == zkr.Position(0, 0)
    assert positions[-1].segment > 0
    assert [zkr.Position.parse(str(each)) for each in positions] == positions
    for text in ("", "1", "a-1", "1-", "-1-2", "1-2-3", "0-99999999999"):
        with pytest.raises(ValueError, match="segment-index"):
            zkr.Position.parse(text)


def test_messages_come_in_order_over_the_borders_of_segments(small: zkr.Topic, zkr_client: zkr.Client) -> None:
    with small.subscribe("audit") as audit:
        publish(small, 0, 20)
        assert values(audit, 20) == list(range(20))
        # It follows now, and no more catches up.
        for number in range(20, 35):
            small.publish(b"%d" % number)
            assert values(audit, 1) == [number]
        assert nothing_comes(audit)
    assert len([name for name in zkr_client.children(PATH) if name.startswith("s0")]) > 3


def test_several_publishers_have_one_order_for_all(zkr_server: Server, zkr_namespace: str) -> None:
    clients = [zkr.connect(zkr_server.hosts, namespace=zkr_namespace) for _ in range(3)]
    try:
        topics = [zkr.Topic(client, PATH, segment_size=7) for client in clients]
        subscriptions = [topic.subscribe(f"s{number}", start="earliest") for number, topic in enumerate(topics)]
        told: dict[zkr.Position, bytes] = {}

        def work(number: int) -> None:
            for turn in range(40):
                value = b"%d-%d" % (number, turn)
                told[topics[number].publish(value)] = value

        for later in [Later(partial(work, number)) for number in range(3)]:
            later.result()
        expected = [told[position] for position in sorted(told)]
        assert len(expected) == 120
        for subscription in subscriptions:
            messages = [subscription.receive(LIMIT) for _ in range(120)]
            assert [message.value for message in messages] == expected
            assert [message.position for message in messages] == sorted(told)
            assert nothing_comes(subscription)
        for segment in {position.segment for position in told}:
            indices = sorted(position.index for position in told if position.segment == segment)
            assert indices == list(range(len(indices))), "numbers have no gap"
    finally:
        for client in clients:
            client.close()


def test_many_messages_in_one_request_follow_one_another(zkr_client: zkr.Client) -> None:
    topic = zkr.Topic(zkr_client, PATH, segment_size=50)
    with topic.subscribe("audit") as audit:
        topic.publish(b"0")
        positions = topic.publish_many([b"%d" % number for number in range(1, 31)])
        assert positions == [zkr.Position(0, index) for index in range(1, 31)]
        assert topic.publish_many([]) == []
        assert values(audit, 31) == list(range(31))


def test_many_messages_that_are_too_many_or_too_large_store_nothing(topic: zkr.Topic) -> None:
    with topic.subscribe("audit") as audit:
        with pytest.raises(ValueError, match="segment"):
            topic.publish_many([b""] * 1001)
        with pytest.raises(zkr.PayloadTooLargeError):
            topic.publish_many([b"x" * 500_000] * 4)
        assert nothing_comes(audit)


def test_a_message_over_the_limit_is_refused_before_anything_is_sent(zkr_client: zkr.Client) -> None:
    topic = zkr.Topic(zkr_client, PATH, max_message=200)
    topic.publish(b"x" * 150)
    with pytest.raises(zkr.PayloadTooLargeError) as caught:
        topic.publish(b"x" * 200)
    assert caught.value.limit == 200
    assert caught.value.size > 200
    with topic.subscribe("audit", start="earliest") as audit:
        assert audit.receive(LIMIT).value == b"x" * 150
        assert nothing_comes(audit)


def test_a_message_as_large_as_may_be_arrives(topic: zkr.Topic) -> None:
    value = bytes(890_000)
    with topic.subscribe("audit") as audit:
        topic.publish(value)
        assert audit.receive(LIMIT).value == value


def test_a_message_id_is_stored_once_whoever_publishes_it(topic: zkr.Topic, other: zkr.Client) -> None:
    first = topic.publish(b"1", message_id="order-7")
    second = topic.publish(b"2", message_id="order-8")
    assert second > first
    assert topic.publish(b"again", message_id="order-7") == first
    assert zkr.Topic(other, PATH).publish(b"again", message_id="order-7") == first
    assert zkr.Topic(other, PATH).publish(b"again", message_id="order-8") == second
    with topic.subscribe("audit", start="earliest") as audit:
        assert values(audit, 2) == [1, 2]
        assert nothing_comes(audit)


def test_a_message_id_is_known_in_later_segments(small: zkr.Topic, zkr_client: zkr.Client) -> None:
    first = small.publish(b"0", message_id="id")
    publish(small, 1, 3)
    wait_for_segment(zkr_client, 1)
    publish(small, 3, 5)
    assert small.publish(b"again", message_id="id") == first


@dataclass(frozen=True)
class Sale:
    fruit: str
    count: int


def test_values_of_any_type(zkr_client: zkr.Client) -> None:
    topic = zkr.Topic(zkr_client, PATH, codec=zkr.JsonCodec(Sale))
    with topic.subscribe("audit") as audit:
        topic.publish(Sale("pear", 3))
        assert audit.receive(LIMIT).value == Sale("pear", 3)


# --- where a subscription begins --------------------------------------------------------------------------------------


def test_latest_begins_with_what_comes_then(topic: zkr.Topic) -> None:
    publish(topic, 0, 3)
    with topic.subscribe("audit") as audit:
        publish(topic, 3, 5)
        assert values(audit, 2) == [3, 4]


def test_earliest_begins_with_what_there_is(small: zkr.Topic) -> None:
    publish(small, 0, 8)
    with small.subscribe("audit", start="earliest") as audit:
        assert values(audit, 8) == list(range(8))


@pytest.mark.parametrize("at", range(10))
def test_a_position_begins_there(small: zkr.Topic, at: int) -> None:
    positions = publish(small, 0, 10)
    with small.subscribe("audit", start=positions[at]) as audit:
        assert values(audit, 10 - at) == list(range(at, 10))
        assert nothing_comes(audit)


def test_a_time_begins_with_the_first_message_since(small: zkr.Topic) -> None:
    publish(small, 0, 10)
    with small.subscribe("first", start="earliest", durable=False) as first:
        times = [first.receive(LIMIT).published_at for _ in range(10)]
    for time in times:
        expected = next(number for number, each in enumerate(times) if each >= time)
        with small.subscribe("audit", start=time, durable=False) as audit:
            assert values(audit, 1) == [expected]
    with small.subscribe("audit", start=times[0] - timedelta(hours=1), durable=False) as audit:
        assert values(audit, 1) == [0]
    with small.subscribe("audit", start=times[-1] + timedelta(hours=1), durable=False) as audit:
        small.publish(b"10")
        assert values(audit, 1) == [10]


def test_the_start_counts_for_a_new_durable_subscription_only(topic: zkr.Topic) -> None:
    publish(topic, 0, 5)
    with topic.subscribe("audit", start="earliest") as audit:
        assert values(audit, 1) == [0]
        audit.receive(LIMIT).ack()
    with topic.subscribe("audit", start="latest") as audit:
        assert values(audit, 3) == [2, 3, 4]


def test_latest_is_kept_from_the_first_opening_on(topic: zkr.Topic) -> None:
    """Nothing was acknowledged, and what came while it was away is not passed over."""
    publish(topic, 0, 3)
    topic.subscribe("audit", start="latest").close()
    publish(topic, 3, 5)
    with topic.subscribe("audit", start="latest") as audit:
        assert values(audit, 2) == [3, 4]


def test_without_patience_what_there_is_is_received(small: zkr.Topic) -> None:
    with small.subscribe("audit", timeout=0) as audit:
        publish(small, 0, 8)
        assert [int(audit.receive(0).value) for _ in range(8)] == list(range(8))
        with pytest.raises(zkr.AcquireTimeoutError):
            audit.receive(0)
        small.publish(b"8")
        assert audit.receive(0).value == b"8"


# --- acknowledge ------------------------------------------------------------------------------------------------------


def test_what_is_not_acknowledged_comes_again(small: zkr.Topic) -> None:
    publish(small, 0, 10)
    with small.subscribe("audit", start="earliest") as audit:
        messages = [audit.receive(LIMIT) for _ in range(8)]
        messages[4].ack()
        assert audit.acknowledged == messages[4].position.following
        assert audit.position == messages[7].position.following
    with small.subscribe("audit") as audit:
        assert values(audit, 5) == [5, 6, 7, 8, 9]


def test_an_acknowledgement_counts_for_all_before_and_never_goes_back(small: zkr.Topic) -> None:
    publish(small, 0, 10)
    with small.subscribe("audit", start="earliest") as audit:
        messages = [audit.receive(LIMIT) for _ in range(8)]
        messages[6].ack()
        messages[2].ack()
        audit.ack(messages[6])
    with small.subscribe("audit") as audit:
        assert values(audit, 3) == [7, 8, 9]


def test_after_so_many_messages_those_before_are_acknowledged(topic: zkr.Topic) -> None:
    publish(topic, 0, 10)
    with topic.subscribe("audit", start="earliest", ack_every=3) as audit:
        assert values(audit, 3) == [0, 1, 2]
        assert audit.acknowledged == zkr.Position(0, 0), "who has not asked for the next may still be at work"
        assert values(audit, 4) == [3, 4, 5, 6]
        assert audit.acknowledged == zkr.Position(0, 6)
    with topic.subscribe("audit") as audit:
        assert values(audit, 4) == [6, 7, 8, 9]


def test_after_some_time_what_was_handed_out_is_acknowledged(topic: zkr.Topic) -> None:
    publish(topic, 0, 2)
    with topic.subscribe("audit", start="earliest", ack_interval=0.2) as audit:
        assert values(audit, 2) == [0, 1]
        with pytest.raises(zkr.AcquireTimeoutError):
            audit.receive(1.0)
        assert audit.acknowledged == zkr.Position(0, 2)


def test_a_message_of_an_earlier_place_cannot_be_acknowledged(topic: zkr.Topic) -> None:
    publish(topic, 0, 4)
    with topic.subscribe("audit", start="earliest") as audit:
        message = audit.receive(LIMIT)
        audit.seek("earliest")
        with pytest.raises(zkr.ClaimLostError):
            message.ack()
        assert values(audit, 1) == [0]


def test_a_closed_subscription_acknowledges_nothing(topic: zkr.Topic) -> None:
    publish(topic, 0, 1)
    audit = topic.subscribe("audit", start="earliest")
    message = audit.receive(LIMIT)
    audit.close()
    audit.close()
    for verb in (message.ack, audit.receive, lambda: audit.seek("earliest")):
        with pytest.raises(zkr.ClosedError):
            verb()
    assert list(audit) == []


def test_one_that_is_not_durable_leaves_nothing(topic: zkr.Topic, zkr_client: zkr.Client) -> None:
    publish(topic, 0, 2)
    with topic.subscribe("tail", start="earliest", durable=False) as tail:
        for message in itertools.islice(tail, 2):
            message.ack()
    with topic.subscribe("tail", start="earliest", durable=False) as tail:
        assert values(tail, 1) == [0]
    assert zkr_client.children(f"{PATH}/subs") == []


# --- place ------------------------------------------------------------------------------------------------------------


def test_seek_goes_back_and_forth_and_is_kept(small: zkr.Topic) -> None:
    positions = publish(small, 0, 10)
    with small.subscribe("audit", start="earliest") as audit:
        assert values(audit, 6) == list(range(6))
        audit.seek(positions[2])
        assert values(audit, 2) == [2, 3]
        audit.seek("latest")
        assert nothing_comes(audit)
        small.publish(b"10")
        assert values(audit, 1) == [10]
        audit.seek(positions[7])
    with small.subscribe("audit") as audit:
        assert values(audit, 4) == [7, 8, 9, 10]


def test_seek_wakes_who_waits(topic: zkr.Topic) -> None:
    publish(topic, 0, 2)
    with topic.subscribe("audit") as audit:
        waiting = Later(lambda: audit.receive(LIMIT).value)
        audit.seek("earliest")
        assert waiting.result() == b"0"


def test_a_paused_subscription_hands_out_nothing_until_it_goes_on(topic: zkr.Topic) -> None:
    with topic.subscribe("audit") as audit:
        audit.pause()
        audit.pause()
        publish(topic, 0, 2)
        assert nothing_comes(audit)
        waiting = Later(lambda: audit.receive(LIMIT).value)
        audit.resume()
        assert waiting.result() == b"0"
        assert values(audit, 1) == [1]


def test_close_ends_an_iteration_that_waits(topic: zkr.Topic) -> None:
    audit = topic.subscribe("audit")
    publish(topic, 0, 1)
    seen: list[bytes] = []
    first = threading.Event()

    def read() -> None:
        for message in audit:
            seen.append(message.value)
            first.set()

    reading = Later(read)
    assert first.wait(LIMIT)
    audit.close()
    reading.result()
    assert seen == [b"0"]


def test_threads_of_one_subscription_share_its_messages(small: zkr.Topic) -> None:
    publish(small, 0, 60)
    seen: list[bytes] = []
    with small.subscribe("audit", start="earliest") as audit:

        def work() -> None:
            for _ in range(15):
                seen.append(audit.receive(LIMIT).value)  # noqa: PERF401 - one by one, between the others

        for later in [Later(work) for _ in range(4)]:
            later.result()
    assert sorted(map(int, seen)) == list(range(60))


def test_a_closed_client_ends_its_subscriptions(zkr_server: Server, zkr_namespace: str) -> None:
    zk = zkr.connect(zkr_server.hosts, namespace=zkr_namespace)
    audit = zkr.Topic(zk, PATH).subscribe("audit")
    waiting = Later(audit.receive)
    zk.close()
    with pytest.raises(zkr.ClosedError):
        waiting.result()


# --- one reader at a time ---------------------------------------------------------------------------------------------


def test_a_second_reader_stands_by_until_its_timeout(topic: zkr.Topic, other: zkr.Client) -> None:
    with topic.subscribe("audit"):
        with pytest.raises(zkr.SubscriptionBusyError, match="one reader at a time"):
            zkr.Topic(other, PATH).subscribe("audit", timeout=0.5)
        with pytest.raises(zkr.SubscriptionBusyError):
            zkr.Topic(other, PATH).subscribe("audit", timeout=0)
        with zkr.Topic(other, PATH).subscribe("billing", timeout=5.0):
            pass


def test_a_second_reader_goes_on_where_the_first_has_acknowledged(topic: zkr.Topic, other: zkr.Client) -> None:
    publish(topic, 0, 6)
    first = topic.subscribe("audit", start="earliest")
    messages = [first.receive(LIMIT) for _ in range(4)]
    standing_by = Later(lambda: zkr.Topic(other, PATH).subscribe("audit", timeout=LIMIT))
    messages[1].ack()
    first.close()
    with standing_by.result() as second:
        assert values(second, 4) == [2, 3, 4, 5]


def test_a_reader_that_was_robbed_takes_it_up_again(topic: zkr.Topic, other: zkr.Client) -> None:
    """Its node in the line is deleted by hand: the other one, which stood by, reads until it has done."""
    publish(topic, 0, 6)
    first = topic.subscribe("audit", start="earliest")
    messages = [first.receive(LIMIT) for _ in range(4)]
    messages[0].ack()
    standing_by = Later(lambda: zkr.Topic(other, PATH).subscribe("audit", timeout=LIMIT))
    line = f"{PATH}/subs/audit/owner"
    wait_until(lambda: len(other.children(line)) == 2, LIMIT, "the other one stands in line")
    holder = min(other.children(line), key=lambda name: name[-10:])
    other.delete(f"{line}/{holder}")
    second = standing_by.result()
    with pytest.raises(zkr.ClaimLostError):
        messages[3].ack()
    assert [int(second.receive(LIMIT).value) for _ in range(2)] == [1, 2]
    with pytest.raises(zkr.SubscriptionBusyError):
        first.receive(0.5)
    second.receive(LIMIT).ack()
    second.close()
    assert values(first, 2) == [4, 5]
    assert first.owned
    first.close()


def test_seek_and_receive_take_a_lost_subscription_up_once(topic: zkr.Topic, other: zkr.Client) -> None:
    """Two places of one reader in the line would wait for one another."""
    positions = publish(topic, 0, 6)
    first = topic.subscribe("audit", start="earliest")
    assert values(first, 1) == [0]
    standing_by = Later(lambda: zkr.Topic(other, PATH).subscribe("audit", timeout=LIMIT))
    line = f"{PATH}/subs/audit/owner"
    wait_until(lambda: len(other.children(line)) == 2, LIMIT, "the other one stands in line")
    other.delete(f"{line}/{min(other.children(line), key=lambda name: name[-10:])}")
    second = standing_by.result()
    wait_until(lambda: not first.owned, LIMIT, "it knows that it was lost")
    receiving = Later(lambda: first.receive(LIMIT))
    seeking = Later(lambda: first.seek(positions[4]))
    wait_until(lambda: len(other.children(line)) == 2, LIMIT, "it stands in line again")
    with pytest.raises(zkr.SubscriptionBusyError):
        first.seek(positions[4], timeout=0.3)
    second.close()
    seeking.result()
    assert int(receiving.result().value) in {0, 4}
    assert int(first.receive(LIMIT).value) in {4, 5}
    assert len(other.children(line)) == 1
    first.close()


def test_close_ends_an_iteration_that_stands_in_line(topic: zkr.Topic, other: zkr.Client) -> None:
    first = topic.subscribe("audit", start="earliest")
    standing_by = Later(lambda: zkr.Topic(other, PATH).subscribe("audit", timeout=LIMIT))
    line = f"{PATH}/subs/audit/owner"
    wait_until(lambda: len(other.children(line)) == 2, LIMIT, "the other one stands in line")
    other.delete(f"{line}/{min(other.children(line), key=lambda name: name[-10:])}")
    with standing_by.result():
        wait_until(lambda: not first.owned, LIMIT, "it knows that it was lost")
        reading = Later(lambda: list(first))
        wait_until(lambda: len(other.children(line)) == 2, LIMIT, "it stands in line again")
        first.close()
        assert reading.result() == []
        wait_until(lambda: len(other.children(line)) == 1, LIMIT, "it has left the line")


def test_a_subscription_that_is_dropped_makes_room(topic: zkr.Topic, other: zkr.Client) -> None:
    publish(topic, 0, 2)
    first = topic.subscribe("audit", start="earliest")
    assert values(first, 1) == [0]
    del first
    with zkr.Topic(other, PATH).subscribe("audit", timeout=LIMIT) as second:
        assert values(second, 1) == [0]
    wait_until(lambda: not other.children(f"{PATH}/members"), LIMIT, "nobody is there")


# --- what cannot be read ----------------------------------------------------------------------------------------------


def _spoil(client: zkr.Client, position: zkr.Position, raw: bytes) -> str:
    path = f"{PATH}/s{position.segment:010d}/m-{position.index:010d}"
    client.set(path, raw)
    return path


@pytest.mark.parametrize("raw", [b"", b"hello", b"ZR", b"ZR\x01\x00\x00\x00\x09{}", b'ZR\x01\x00\x00\x00\x07{"k":1}x'])
def test_a_damaged_message_is_told_once_and_blocks_nothing(
    topic: zkr.Topic, zkr_client: zkr.Client, raw: bytes
) -> None:
    positions = publish(topic, 0, 4)
    path = _spoil(zkr_client, positions[1], raw)
    with topic.subscribe("audit", start="earliest") as audit:
        assert values(audit, 1) == [0]
        with pytest.raises(zkr.DecodeError) as caught:
            audit.receive(LIMIT)
        assert (caught.value.path, caught.value.raw) == (path, raw)
        assert values(audit, 2) == [2, 3]


def test_a_message_of_a_newer_version_says_so(topic: zkr.Topic, zkr_client: zkr.Client) -> None:
    position = topic.publish(b"0")
    _spoil(zkr_client, position, b"ZR\x63\x00\x00\x00\x02{}")
    with (
        topic.subscribe("audit", start="earliest") as audit,
        pytest.raises(zkr.DecodeError, match="another version of zkrecipes"),
    ):
        audit.receive(LIMIT)


def test_a_value_that_is_not_of_the_codec_is_told_once_and_blocks_nothing(zkr_client: zkr.Client) -> None:
    zkr.Topic(zkr_client, PATH).publish(b"no number")
    numbers = zkr.Topic(zkr_client, PATH, codec=zkr.IntCodec())
    numbers.publish(7)
    with numbers.subscribe("audit", start="earliest") as audit:
        with pytest.raises(zkr.DecodeError) as caught:
            audit.receive(LIMIT)
        assert caught.value.raw == b"no number"
        assert audit.receive(LIMIT).value == 7


def test_a_damaged_position_is_told_and_can_be_emptied(topic: zkr.Topic, zkr_client: zkr.Client) -> None:
    publish(topic, 0, 2)
    topic.subscribe("audit", start="earliest").close()
    zkr_client.set(f"{PATH}/subs/audit", b"garbage")
    with pytest.raises(zkr.DecodeError, match="audit"):
        topic.subscribe("audit")
    zkr_client.set(f"{PATH}/subs/audit", b"")
    with topic.subscribe("audit", start="earliest") as audit:
        assert values(audit, 2) == [0, 1]


def test_a_path_that_is_something_else_is_refused(zkr_client: zkr.Client) -> None:
    zkr_client.create(PATH, b"somebody's", parents=True)
    topic = zkr.Topic(zkr_client, PATH)
    for verb in (lambda: topic.publish(b""), lambda: topic.subscribe("audit"), topic.subscribers):
        with pytest.raises(zkr.ForeignNodeError):
            verb()
    assert zkr_client.get(PATH).value == b"somebody's"
    assert zkr_client.children(PATH) == []


def test_a_topic_that_was_deleted_and_made_again_is_told_as_a_gap(topic: zkr.Topic, other: zkr.Client) -> None:
    publish(topic, 0, 5)
    with topic.subscribe("tail", start="earliest", durable=False) as tail:
        assert values(tail, 5) == list(range(5))
        _delete_all(other, PATH)
        publish(zkr.Topic(other, PATH), 100, 102)
        with pytest.raises(zkr.GapError):
            tail.receive(LIMIT)
        assert values(tail, 2) == [100, 101]
    assert topic.publish(b"102") == zkr.Position(0, 2)


def _delete_all(client: zkr.Client, path: str) -> None:
    for name in client.children(path):
        _delete_all(client, f"{path}/{name}")
    client.delete(path)


def test_an_interrupt_while_a_message_is_decoded_loses_nothing(zkr_client: zkr.Client) -> None:
    class Interrupted:
        calls = 0

        def encode(self, value: bytes) -> bytes:
            return value

        def decode(self, raw: bytes) -> bytes:
            Interrupted.calls += 1
            if Interrupted.calls == 1:
                raise KeyboardInterrupt
            return raw

    topic = zkr.Topic(zkr_client, PATH, codec=Interrupted())
    publish(topic, 0, 2)
    with topic.subscribe("audit", start="earliest") as audit:
        with pytest.raises(KeyboardInterrupt):
            audit.receive(LIMIT)
        assert values(audit, 2) == [0, 1]


# --- bad arguments ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "a/b", ".", "..", "x" * 201, "a\nb"])
def test_a_name_that_cannot_be_a_node_is_refused(topic: zkr.Topic, name: str) -> None:
    with pytest.raises(ValueError, match="name of a subscription"):
        topic.subscribe(name)


def test_bad_arguments_are_refused_before_anything_is_sent(topic: zkr.Topic, zkr_client: zkr.Client) -> None:
    refused: tuple[tuple[type[Exception], Callable[[], Any]], ...] = (
        (TypeError, lambda: topic.publish(b"", key=1)),  # type: ignore[arg-type]
        (TypeError, lambda: topic.publish(b"", headers={"a": 1})),  # type: ignore[dict-item]
        (TypeError, lambda: topic.publish(b"", message_id=b"x")),  # type: ignore[arg-type]
        (TypeError, lambda: topic.publish("text")),  # type: ignore[arg-type]
        (TypeError, lambda: topic.subscribe(7)),  # type: ignore[arg-type]
        (TypeError, lambda: topic.subscribe("a", start=7)),  # type: ignore[arg-type]
        (ValueError, lambda: topic.subscribe("a", start="newest")),  # type: ignore[arg-type]
        (ValueError, lambda: topic.subscribe("a", start=datetime.now())),  # noqa: DTZ005 - that is the point
        (ValueError, lambda: topic.subscribe("a", ack_every=0)),
        (TypeError, lambda: topic.subscribe("a", ack_every=1.5)),  # type: ignore[arg-type]
        (ValueError, lambda: topic.subscribe("a", ack_interval=0)),
        (TypeError, lambda: topic.subscribe("a", ack_interval="1")),  # type: ignore[arg-type]
        (ValueError, lambda: topic.subscribe("a", on_gap="ignore")),  # type: ignore[arg-type]
        (ValueError, topic.trim),
        (ValueError, lambda: topic.trim(before="latest", keep=1)),
        (ValueError, lambda: topic.trim(keep=-1)),
        (TypeError, lambda: topic.on_join("no callback")),  # type: ignore[arg-type]
        (ValueError, lambda: zkr.Topic(zkr_client, "news")),
        (ValueError, lambda: zkr.Topic(zkr_client, PATH, segment_size=1)),
        (ValueError, lambda: zkr.Topic(zkr_client, PATH, max_message=20_000_000)),
        (TypeError, lambda: zkr.Topic(zkr_client, PATH, retention=7)),  # type: ignore[arg-type]
        (ValueError, lambda: zkr.Retention(max_count=-1)),
        (ValueError, lambda: zkr.Retention(max_age=-1)),
        (TypeError, lambda: zkr.Retention(max_count=True)),
        (TypeError, lambda: zkr.Retention(max_age="1 day")),  # type: ignore[arg-type]
    )
    for number, (error, verb) in enumerate(refused):
        with pytest.raises(error):
            pytest.fail(f"number {number} was taken: {verb()!r}")
    assert zkr_client.exists(PATH) is None


# --- LatestTopic ------------------------------------------------------------------------------------------------------


def test_the_newest_value_is_told_to_whoever_listens(zkr_client: zkr.Client, other: zkr.Client) -> None:
    price = zkr.LatestTopic(zkr_client, PATH, codec=zkr.IntCodec())
    assert price.latest() is None
    seen: list[int] = []
    registration = price.subscribe(seen.append)
    writer = zkr.LatestTopic(other, PATH, codec=zkr.IntCodec())
    for number in range(1, 21):
        writer.publish(number)
    wait_until(lambda: seen[-1:] == [20], LIMIT, lambda: f"told: {seen}")
    assert seen == sorted(set(seen))
    assert price.latest() == 20
    late: list[int] = []
    again = price.subscribe(late.append)
    wait_until(lambda: late == [20], LIMIT, lambda: f"told: {late}")
    registration.cancel()
    again.cancel()
    told = len(seen)
    writer.publish(21)
    assert price.latest() == 21
    assert len(seen) == told
    assert zkr_client.get(PATH).value == b"21"
