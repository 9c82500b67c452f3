"""What a topic promises, for threads and asyncio, with each kind of watches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import zkrecipes as zkr
from tests.contracts.hall import Gardener, Hall
from tests.contracts.subjects import LIMIT
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


def test_what_is_published_is_read_in_order_over_segments(small: Desk) -> None:
    written = [f"m{number}" for number in range(20)]
    positions = small.publish(*written)
    assert positions == sorted(positions)
    assert positions[-1].segment >= 1  # segments are begun in the background
    subscription = small.open(start="earliest")
    assert small.values(subscription, 20) == written


def test_a_message_id_is_stored_once(small: Desk) -> None:
    (first,) = small.publish("a", message_id="x")
    small.publish("b", "c", "d")
    assert small.publish("again", message_id="x") == [first]
    subscription = small.open(start="earliest")
    assert small.values(subscription, 4) == ["a", "b", "c", "d"]
    with pytest.raises(zkr.AcquireTimeoutError):
        small.receive(subscription, 0.1)


def test_a_durable_subscription_goes_on_where_it_was_acknowledged(small: Desk) -> None:
    small.publish(*"abcdef")
    subscription = small.open(start="earliest")
    messages = [small.receive(subscription) for _ in range(4)]
    small.do(messages[1].ack)
    assert subscription.acknowledged == messages[1].position.following
    small.do(subscription.close)
    again = small.open(start="latest")  # it is not new, so this says nothing
    assert small.values(again, 4) == ["c", "d", "e", "f"]


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


def test_what_is_acknowledged_at_the_end_of_a_segment_is_no_gap(careless: Desk) -> None:
    careless.publish_many("a", "b", "c")
    subscription = careless.open(start="earliest")
    for _ in range(3):
        careless.do(careless.receive(subscription).ack)
    careless.do(subscription.close)
    careless.publish("d")
    careless.do(lambda: careless.topic.trim(keep=1))
    assert careless.values(careless.open(), 1) == ["d"]


def test_a_silent_subscription_is_forgotten_and_told_what_it_missed(hall: Hall) -> None:
    desk = Desk(hall, segment_size=3, retention=zkr.Retention(forget_after=0.0))
    desk.publish(*"abcd")
    desk.do(desk.open(start="earliest").close)
    wait_until(lambda: desk.do(lambda: desk.topic.trim(keep=1)) > zkr.Position(0, 2), LIMIT)
    with pytest.raises(zkr.GapError):
        desk.receive(desk.open())


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
