"""Messages that do not fit into one node, on a real server."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

import zkrecipes as zkr
from zkrecipes import topic_chunks
from zkrecipes.testing import FaultProxy, Server, ZooKeeperServer, wait_until

PATH = "/news/pictures"
CHUNKS = f"{PATH}/chunks"
LIMIT = 20.0


@pytest.fixture(scope="module")
def zkr_server() -> Iterator[Server]:
    """One of our own: it keeps all of this in memory, the newest writes twice."""
    with ZooKeeperServer(java_options=["-Xmx512m"]) as server:
        yield server


@pytest.fixture
def topic(zkr_client: zkr.Client) -> zkr.Topic:
    return zkr.Topic(zkr_client, PATH)


@pytest.fixture
def other(zkr_server: Server, zkr_namespace: str) -> Iterator[zkr.Client]:
    with zkr.connect(zkr_server.hosts, namespace=zkr_namespace) as client:
        yield client


def _value(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def _groups(client: zkr.Client) -> list[str]:
    try:
        return client.children(CHUNKS)
    except zkr.NodeNotFoundError:
        return []


def _none_left(client: zkr.Client) -> None:
    wait_until(lambda: not _groups(client), LIMIT, lambda: f"left: {_groups(client)}")


@pytest.mark.parametrize("size", [899_000, 900_000, 999_999, 1_000_001, 3_900_000])
def test_a_large_message_arrives_as_it_was_published(topic: zkr.Topic, other: zkr.Client, size: int) -> None:
    with zkr.Topic(other, PATH).subscribe("audit") as audit:
        topic.publish(b"before")
        position = topic.publish(_value(size), key="k", headers={"a": "b"}, message_id="id")
        assert topic.publish(_value(size), message_id="id") == position
        topic.publish(b"behind")
        messages = [audit.receive(LIMIT) for _ in range(3)]
        assert [message.value for message in messages] == [b"before", _value(size), b"behind"]
        assert (messages[1].key, messages[1].headers, messages[1].message_id) == ("k", {"a": "b"}, "id")
        messages[2].ack()
    wait_until(lambda: len(_groups(other)) == (size > 899_000), LIMIT, "what was published twice left nothing")


def test_what_is_over_the_limit_is_refused_before_anything_is_sent(topic: zkr.Topic, zkr_client: zkr.Client) -> None:
    with pytest.raises(zkr.PayloadTooLargeError) as caught:
        topic.publish(bytes(4_000_001))
    assert caught.value.limit == 4_000_000
    with pytest.raises(zkr.PayloadTooLargeError):
        topic.publish(b"", headers={"a": "x" * 1_100_000})
    with pytest.raises(zkr.PayloadTooLargeError):
        topic.publish_many([bytes(2_000_000), bytes(600_000), bytes(600_000)])
    assert zkr_client.exists(PATH) is None
    large = zkr.Topic(zkr_client, PATH, max_message=16_000_000)
    with large.subscribe("audit") as audit:
        large.publish(_value(5_900_000))
        assert audit.receive(LIMIT).value == _value(5_900_000)


def test_several_large_messages_in_one_call(topic: zkr.Topic) -> None:
    values = [_value(size) for size in (1_200_000, 10, 1_100_000)]
    with topic.subscribe("audit") as audit:
        positions = topic.publish_many(values)
        messages = [audit.receive(LIMIT) for _ in values]
        assert [message.value for message in messages] == values
        assert [message.position for message in messages] == positions


@pytest.mark.parametrize("how", ["missing", "changed", "shorter"])
def test_a_missing_or_damaged_piece_is_told_once_and_blocks_nothing(
    topic: zkr.Topic, zkr_client: zkr.Client, how: str
) -> None:
    topic.publish(_value(1_300_000))
    topic.publish(b"behind")
    piece = f"{CHUNKS}/{_groups(zkr_client)[0]}/0001"
    match how:
        case "missing":
            zkr_client.delete(piece)
        case "changed":
            zkr_client.set(piece, bytes(500_000))
        case _:
            zkr_client.set(piece, b"")
    with topic.subscribe("audit", start="earliest") as audit:
        with pytest.raises(zkr.DecodeError, match="piece") as caught:
            audit.receive(LIMIT)
        assert caught.value.path == f"{PATH}/s0000000000/m-0000000000"
        assert audit.receive(LIMIT).value == b"behind"


def test_pieces_go_with_their_segment(zkr_client: zkr.Client) -> None:
    topic = zkr.Topic(zkr_client, PATH, segment_size=2)
    topic.publish(_value(1_000_000))
    topic.publish(b"1")
    wait_until(lambda: zkr_client.exists(f"{PATH}/s0000000001") is not None, LIMIT, "a new segment")
    topic.publish(_value(1_100_000))
    topic.trim(keep=1)
    assert len(_groups(zkr_client)) == 1
    with topic.subscribe("audit", start="earliest") as audit:
        assert audit.receive(LIMIT).value == _value(1_100_000)


def test_pieces_without_a_message_are_removed_after_an_hour(
    topic: zkr.Topic, zkr_client: zkr.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic.publish(_value(1_000_000))
    zkr_client.create(f"{CHUNKS}/12345678-1234-8234-8234-123456789012/0000", b"piece", parents=True)
    topic.trim(keep=10)
    assert len(_groups(zkr_client)) == 2
    monkeypatch.setattr(topic_chunks, "ORPHANS", -1)
    topic.trim(keep=10)
    assert len(_groups(zkr_client)) == 1
    with topic.subscribe("audit", start="earliest") as audit:
        assert audit.receive(LIMIT).value == _value(1_000_000)


def test_pieces_that_are_removed_before_their_message_is_stored_refuse_it(
    zkr_server: Server, zkr_namespace: str, other: zkr.Client
) -> None:
    with FaultProxy(zkr_server) as proxy, zkr.connect(proxy.hosts, namespace=zkr_namespace, session_timeout=30) as zk:
        topic = zkr.Topic(zk, PATH)
        topic.publish(b"before")
        gate = proxy.hold_request("multi")

        def publish() -> None:
            with pytest.raises(zkr.UnavailableError, match="were deleted"):
                topic.publish(_value(1_000_000))

        from tests.contracts.subjects import Later  # noqa: PLC0415 - only here

        later = Later(publish)
        gate.wait_held()
        (group,) = _groups(other)
        for name in other.children(f"{CHUNKS}/{group}"):
            other.delete(f"{CHUNKS}/{group}/{name}")
        other.delete(f"{CHUNKS}/{group}")
        gate.release()
        later.result()
        assert topic.publish(b"behind") == zkr.Position(0, 1)


@pytest.mark.parametrize("lost", [("create2", number) for number in range(1, 8)] + [("multi", 1)], ids=str)
def test_a_lost_reply_stores_a_large_message_once(
    zkr_server: Server, zkr_namespace: str, other: zkr.Client, lost: tuple[str, int]
) -> None:
    with FaultProxy(zkr_server) as proxy, zkr.connect(proxy.hosts, namespace=zkr_namespace, session_timeout=30) as zk:
        topic = zkr.Topic(zk, PATH)
        topic.publish(b"before")
        trap = proxy.drop_reply(*lost)
        position = topic.publish(_value(1_300_000), timeout=LIMIT)
        fired = trap.fired
        trap.disarm()
        assert fired or lost[1] > 5
        with zkr.Topic(other, PATH).subscribe("audit", start=position) as audit:
            assert audit.receive(LIMIT).value == _value(1_300_000)
            with pytest.raises(zkr.AcquireTimeoutError):
                audit.receive(0.3)


def test_a_publish_that_has_failed_leaves_no_pieces(zkr_server: Server, zkr_namespace: str, other: zkr.Client) -> None:
    with FaultProxy(zkr_server) as proxy, zkr.connect(proxy.hosts, namespace=zkr_namespace) as zk:
        topic = zkr.Topic(zk, PATH)
        topic.publish(b"before")
        gate = proxy.hold_request("create2", 4)
        with pytest.raises(zkr.UnavailableError):
            topic.publish(_value(2_000_000), timeout=1.0)
        assert len(_groups(other)) == 1
        gate.release()
        _none_left(other)
