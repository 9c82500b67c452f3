"""What a topic promises, for threads and asyncio, with each kind of watches."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import zkrecipes as zkr
from tests.contracts.hall import Gardener, Hall
from tests.contracts.subjects import LIMIT, Later
from zkrecipes.testing import FaultProxy, wait_until

PATH = "/topics/orders"


class Desk:
    """A topic, as one client sees it."""

    def __init__(self, hall: Hall, path: str = PATH, **options: Any) -> None:
        self.hall = hall
        self.topic = hall.package.Topic(hall.client, path, codec=zkr.TextCodec(), **options)

    def publish(self, *values: str, **options: Any) -> list[zkr.Position]:
        def publish(value: str) -> zkr.Position:
            position: zkr.Position = self.hall.do(lambda: self.topic.publish(value, **options))
            return position

        return [publish(value) for value in values]

    def publish_many(self, *values: str) -> list[zkr.Position]:
        positions: list[zkr.Position] = self.hall.do(lambda: self.topic.publish_many(values))
        return positions

    def open(self, name: str = "billing", **options: Any) -> Any:
        async def opened() -> Any:
            return await self.topic.subscribe(name, **options)

        if self.hall.setting.driver == "threads":
            return self.topic.subscribe(name, **options)
        return self.hall.do(opened)

    def receive(self, subscription: Any, timeout: float = LIMIT) -> Any:
        return self.hall.do(lambda: subscription.receive(timeout))

    def values(self, subscription: Any, count: int) -> list[str]:
        return [self.receive(subscription).value for _ in range(count)]

    def do(self, verb: Callable[[], Any]) -> Any:
        return self.hall.do(verb)


@pytest.fixture
def desk(hall: Hall) -> Desk:
    return Desk(hall)


@pytest.fixture
def small(hall: Hall) -> Desk:
    """With segments of three."""
    return Desk(hall, segment_size=3)


# --- order, and where to begin ----------------------------------------------------------------------------------------


def test_what_is_published_is_read_in_order_over_segments(small: Desk) -> None:
    written = [f"m{number}" for number in range(20)]
    positions = small.publish(*written)
    assert positions == sorted(positions)
    assert positions[-1].segment >= 3
    subscription = small.open(start="earliest")
    assert small.values(subscription, 20) == written


def test_a_message_carries_what_its_publisher_gave(desk: Desk) -> None:
    before = datetime.now(UTC) - timedelta(minutes=1)
    subscription = desk.open()
    (position,) = desk.publish("hello", key="k", headers={"a": "ä"}, message_id="id-1")
    message = desk.receive(subscription)
    assert (message.value, message.key, message.headers, message.message_id) == ("hello", "k", {"a": "ä"}, "id-1")
    assert message.position == position
    assert before < message.published_at < before + timedelta(minutes=2)
    assert message.gap is None


def test_latest_begins_behind_what_is_there(desk: Desk) -> None:
    desk.publish("old")
    subscription = desk.open()
    desk.publish("new")
    assert desk.values(subscription, 1) == ["new"]


def test_a_position_and_a_time_are_starts(small: Desk) -> None:
    positions = small.publish(*"abcdefg")
    assert small.values(small.open("by position", start=positions[4]), 3) == ["e", "f", "g"]
    first = small.receive(small.open("first", start="earliest", durable=False))
    assert small.values(small.open("by time", start=first.published_at), 7) == list("abcdefg")
    late = datetime.now(UTC) + timedelta(hours=1)
    behind = small.open("in an hour", start=late)
    small.publish("h")
    assert small.values(behind, 1) == ["h"]


def test_many_are_stored_together_and_follow_one_another(desk: Desk) -> None:
    positions = desk.publish_many("a", "b", "c")
    assert [position.index for position in positions] == [0, 1, 2]
    assert desk.publish_many() == []
    assert desk.values(desk.open(start="earliest"), 3) == ["a", "b", "c"]


def test_a_message_id_is_stored_once(small: Desk) -> None:
    (first,) = small.publish("a", message_id="x")
    small.publish("b", "c", "d")
    assert small.publish("again", message_id="x") == [first]
    subscription = small.open(start="earliest")
    assert small.values(subscription, 4) == ["a", "b", "c", "d"]
    with pytest.raises(zkr.AcquireTimeoutError):
        small.receive(subscription, 0.1)


# --- durable subscriptions --------------------------------------------------------------------------------------------


def test_a_durable_subscription_goes_on_where_it_was_acknowledged(small: Desk) -> None:
    small.publish(*"abcdef")
    subscription = small.open(start="earliest")
    messages = [small.receive(subscription) for _ in range(4)]
    small.do(messages[1].ack)
    assert subscription.acknowledged == messages[1].position.following
    small.do(subscription.close)
    again = small.open(start="latest")  # it is not new, so this says nothing
    assert small.values(again, 4) == ["c", "d", "e", "f"]


def test_who_does_not_acknowledge_reads_again(desk: Desk) -> None:
    desk.publish("a")
    first = desk.open(start="earliest")
    assert desk.values(first, 1) == ["a"]
    desk.do(first.close)
    assert desk.values(desk.open(), 1) == ["a"]


def test_acknowledging_by_itself(desk: Desk) -> None:
    desk.publish(*"abcde")
    subscription = desk.open(start="earliest", ack_every=2)
    desk.values(subscription, 5)
    desk.do(subscription.close)
    assert desk.values(desk.open(), 1) == ["e"]


def test_a_second_reader_stands_by(desk: Desk) -> None:
    first = desk.open()
    with pytest.raises(zkr.SubscriptionBusyError, match="read by another"):
        desk.open(timeout=0.2)
    waiting = Later(lambda: desk.open(timeout=LIMIT))
    desk.do(first.close)
    second = waiting.result()
    desk.publish("a")
    assert desk.values(second, 1) == ["a"]


def test_a_subscription_from_now_on_is_not_kept(desk: Desk, gardener: Gardener) -> None:
    subscription = desk.open(durable=False)
    desk.publish("a")
    assert desk.values(subscription, 1) == ["a"]
    assert gardener.client.children(f"{gardener.namespace}{PATH}/subs") == []


def test_a_late_acknowledgement_fails_loudly_and_the_message_comes_again(desk: Desk) -> None:
    desk.publish("a")
    subscription = desk.open(start="earliest")
    message = desk.receive(subscription)
    desk.do(lambda: subscription.seek("earliest"))
    with pytest.raises(zkr.ClaimLostError, match="comes again"):
        desk.do(message.ack)
    again = desk.receive(subscription)
    assert again.value == "a"
    desk.do(again.ack)


def test_seek_goes_forwards_and_backwards(small: Desk) -> None:
    positions = small.publish(*"abcdef")
    subscription = small.open(start="earliest")
    small.values(subscription, 3)
    small.do(lambda: subscription.seek(positions[1]))
    assert small.values(subscription, 2) == ["b", "c"]
    small.do(lambda: subscription.seek("latest"))
    small.publish("g")
    assert small.values(subscription, 1) == ["g"]


def test_pause_holds_back_what_comes(desk: Desk) -> None:
    subscription = desk.open()
    subscription.pause()
    desk.publish("a")
    with pytest.raises(zkr.AcquireTimeoutError):
        desk.receive(subscription, 0.2)
    waiting = Later(lambda: desk.receive(subscription))
    subscription.resume()
    assert waiting.result().value == "a"


def test_closing_ends_whoever_waits(desk: Desk) -> None:
    subscription = desk.open()
    waiting = Later(lambda: desk.receive(subscription))
    desk.do(subscription.close)
    with pytest.raises(zkr.ClosedError):
        waiting.result()
    desk.do(subscription.close)


# --- gaps and retention -----------------------------------------------------------------------------------------------


@pytest.fixture
def careless(hall: Hall) -> Desk:
    """A topic that does not wait for durable subscriptions."""
    return Desk(hall, segment_size=3, retention=zkr.Retention(keep_for_durable=False))


def test_a_gap_is_raised_once_and_then_it_goes_on(careless: Desk) -> None:
    positions = careless.publish(*"abcdefgh")
    subscription = careless.open(start="earliest")
    careless.do(lambda: careless.topic.trim(keep=2))
    with pytest.raises(zkr.GapError) as gap:
        careless.receive(subscription)
    assert (gap.value.first_missing, gap.value.resumed_at) == (positions[0], positions[6])
    assert careless.values(subscription, 2) == ["g", "h"]


def test_a_gap_is_marked_on_the_next_message(careless: Desk) -> None:
    positions = careless.publish(*"abcdefgh")
    subscription = careless.open(start="earliest", on_gap="mark")
    careless.do(lambda: careless.topic.trim(keep=2))
    message = careless.receive(subscription)
    assert (message.value, message.gap) == ("g", (positions[0], positions[6]))
    assert careless.receive(subscription).gap is None


def test_what_is_acknowledged_at_the_end_of_a_segment_is_no_gap(careless: Desk) -> None:
    careless.publish_many("a", "b", "c")
    subscription = careless.open(start="earliest")
    for _ in range(3):
        careless.do(careless.receive(subscription).ack)
    careless.do(subscription.close)
    careless.publish("d")
    careless.do(lambda: careless.topic.trim(keep=1))
    assert careless.values(careless.open(), 1) == ["d"]


def test_nothing_goes_that_a_durable_subscription_has_not_acknowledged(small: Desk) -> None:
    positions = small.publish(*"abcdefgh")
    subscription = small.open(start="earliest")
    small.do(small.receive(subscription).ack)
    assert small.do(lambda: small.topic.trim(keep=0)) == positions[1]
    assert small.values(subscription, 7) == list("bcdefgh")


def test_a_silent_subscription_is_forgotten_and_told_what_it_missed(hall: Hall) -> None:
    desk = Desk(hall, segment_size=3, retention=zkr.Retention(forget_after=0.0))
    desk.publish(*"abcd")
    desk.do(desk.open(start="earliest").close)
    wait_until(lambda: desk.do(lambda: desk.topic.trim(keep=1)) > zkr.Position(0, 2), LIMIT)
    with pytest.raises(zkr.GapError):
        desk.receive(desk.open())


def test_a_limit_is_kept_by_itself(hall: Hall) -> None:
    desk = Desk(hall, segment_size=20, retention=zkr.Retention(max_count=30))
    for _ in range(12):
        desk.publish_many(*(["x"] * 15))
    subscription = desk.open("look", start="earliest", durable=False)
    wait_until(lambda: desk.do(lambda: subscription.seek("earliest")) or subscription.position.segment > 0, LIMIT)


def test_trim_by_time(small: Desk) -> None:
    small.publish(*"abcd")
    low = small.do(lambda: small.topic.trim(before=datetime.now(UTC) - timedelta(hours=1)))
    assert low == zkr.Position(0, 0)
    low = small.do(lambda: small.topic.trim(before=datetime.now(UTC) + timedelta(hours=1)))
    small.publish("e")
    assert small.values(small.open(start="earliest"), 1) == ["e"]
    with pytest.raises(ValueError, match="one of before= and keep="):
        small.do(small.topic.trim)


# --- who reads it -----------------------------------------------------------------------------------------------------


def test_subscribers_are_seen_with_their_lag(small: Desk) -> None:
    small.publish(*"abcdefgh")
    subscription = small.open(start="earliest")
    for _ in range(3):
        message = small.receive(subscription)
    small.do(message.ack)
    small.do(small.open("away", start="earliest").close)

    def seen() -> dict[str, tuple[bool, int]]:
        return {each.name: (each.here, each.lag) for each in small.do(small.topic.subscribers)}

    wait_until(lambda: seen() == {"away": (False, 8), "billing": (True, 5)}, LIMIT)


def test_who_comes_and_goes_is_told(desk: Desk) -> None:
    told: list[tuple[str, str]] = []
    joined = desk.do(lambda: desk.topic.on_join(lambda who: told.append(("joined", who.name))))
    left = desk.do(lambda: desk.topic.on_leave(lambda who: told.append(("left", who.name))))
    subscription = desk.open()
    wait_until(lambda: told == [("joined", "billing")], LIMIT)
    desk.do(subscription.close)
    wait_until(lambda: told == [("joined", "billing"), ("left", "billing")], LIMIT)
    joined.cancel()
    left.cancel()


# --- what is not ours -------------------------------------------------------------------------------------------------


def test_what_does_not_decode_is_told_once_and_blocks_nothing(desk: Desk, gardener: Gardener) -> None:
    desk.publish("a")
    for raw in (b"", b"foreign", b"ZR\x01\x00\x00\x00\x02{}\xff", b"ZR\x09\x00\x00\x00\x02{}x"):
        gardener.client.create(f"{gardener.namespace}{PATH}/s0000000000/m-", raw, sequential=True)
    desk.publish("b")
    subscription = desk.open(start="earliest")
    assert desk.values(subscription, 1) == ["a"]
    for number in range(1, 5):
        with pytest.raises(zkr.DecodeError, match=f"m-000000000{number}"):
            desk.receive(subscription)
    last = desk.receive(subscription)
    assert last.value == "b"
    desk.do(last.ack)


def test_a_path_that_is_something_else_is_refused(desk: Desk, gardener: Gardener) -> None:
    gardener.client.create(f"{gardener.namespace}{PATH}", b"mine", parents=True)
    with pytest.raises(zkr.ForeignNodeError, match="is no topic"):
        desk.publish("a")


def test_what_is_too_large_is_refused_before_it_is_sent(hall: Hall) -> None:
    desk = Desk(hall, max_message=100)
    with pytest.raises(zkr.PayloadTooLargeError, match="100 are taken"):
        desk.publish("x" * 200)
    with pytest.raises(ValueError, match="more than a segment"):
        Desk(hall, segment_size=2).publish_many("a", "b", "c")


def test_bad_arguments_are_refused_before_anything_is_sent(desk: Desk) -> None:
    topic = desk.topic
    with pytest.raises(ValueError, match="segment_size"):
        Desk(desk.hall, segment_size=1)
    with pytest.raises(TypeError, match="retention"):
        Desk(desk.hall, retention=5)
    with pytest.raises(ValueError, match="'/'"):
        topic.subscribe("a/b")
    with pytest.raises(ValueError, match="time zone"):
        topic.subscribe("a", start=datetime(2026, 1, 1))  # noqa: DTZ001 - that is what is refused
    with pytest.raises(ValueError, match="earliest"):
        topic.subscribe("a", start="first")
    with pytest.raises(ValueError, match="on_gap"):
        topic.subscribe("a", on_gap="ignore")
    with pytest.raises(ValueError, match="ack_every"):
        topic.subscribe("a", ack_every=0)


# --- the newest value only --------------------------------------------------------------------------------------------


def test_the_latest_value_is_told(hall: Hall) -> None:
    latest = hall.package.LatestTopic(hall.client, "/rates/eur", codec=zkr.IntCodec())
    assert hall.do(latest.latest) is None
    seen: list[int] = []
    registration = hall.do(lambda: latest.subscribe(seen.append))
    hall.do(lambda: latest.publish(7))
    wait_until(lambda: seen == [7], LIMIT)
    hall.do(lambda: latest.publish(8))
    wait_until(lambda: seen == [7, 8], LIMIT)
    assert hall.do(latest.latest) == 8
    if hall.setting.driver == "threads":
        registration.cancel()
    else:
        hall.do(registration.close)


# --- outages ----------------------------------------------------------------------------------------------------------


def test_calls_end_in_time_while_no_server_answers(hall: Hall, zkr_proxy: FaultProxy) -> None:
    desk = Desk(hall)
    desk.publish("a")
    subscription = desk.open(start="earliest")
    desk.values(subscription, 1)
    zkr_proxy.refuse()
    zkr_proxy.cut()
    wait_until(lambda: hall.client.state is not zkr.State.CONNECTED, LIMIT)
    with pytest.raises(zkr.UnavailableError):
        desk.publish("b", timeout=0.3)
    with pytest.raises((zkr.UnavailableError, zkr.AcquireTimeoutError)):
        desk.receive(subscription, 0.3)
    zkr_proxy.heal()
    desk.publish("c", timeout=LIMIT)
    assert desk.values(subscription, 1) == ["c"]


def test_a_subscription_outlives_its_session(hall: Hall, zkr_proxy: FaultProxy) -> None:
    desk = Desk(hall)
    desk.publish("a", "b")
    subscription = desk.open(start="earliest")
    first, second = (desk.receive(subscription) for _ in range(2))
    desk.do(first.ack)
    zkr_proxy.refuse()
    zkr_proxy.cut()
    wait_until(lambda: not subscription.owned, 3 * LIMIT)
    zkr_proxy.heal()
    again = desk.receive(subscription, 3 * LIMIT)
    assert again.value == "b"
    with pytest.raises(zkr.ClaimLostError):
        desk.do(second.ack)
    desk.do(again.ack)
