"""A topic's names, positions and records: pure."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zkrecipes.errors import DecodeError
from zkrecipes.stored import pack
from zkrecipes.topic_chunks import PIECE, SINGLE, outgoing
from zkrecipes.topic_layout import (
    Chunks,
    LowWater,
    Member,
    Position,
    Record,
    Stored,
    TopicPlaces,
    checked_name,
    encode_stored,
    message_index,
    parse_head,
    parse_low,
    segment_number,
)
from zkrecipes.topic_view import start_of

GUID = "12345678-1234-8234-8234-123456789012"

positions = st.builds(Position, st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1))
texts = st.none() | st.text(max_size=20)


# --- positions --------------------------------------------------------------------------------------------------------


@given(positions)
def test_a_position_is_read_back_from_its_text(position: Position) -> None:
    assert Position.parse(str(position)) == position


@given(positions, positions)
def test_positions_have_the_order_of_their_messages(one: Position, two: Position) -> None:
    assert (one < two) == ((one.segment, one.index) < (two.segment, two.index))
    assert one < one.following
    assert one.following.segment == one.segment


@pytest.mark.parametrize(
    "text", ["", "1", "1-", "-1", "1-2-3", "1:2", " 1-2", "1-2\n", "a-b", "12345678901-0", "\u0661-\u0662"]
)
def test_what_is_no_position_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="segment-index"):
        Position.parse(text)


@given(positions)
def test_names_are_read_back(position: Position) -> None:
    segment, _, message = TopicPlaces("/a/b").message(position).removeprefix("/a/b/").partition("/")
    assert (segment_number(segment), message_index(message)) == (position.segment, position.index)


@pytest.mark.parametrize("name", ["", "s1", "s00000000000", "m-0000000001", "subs", "head", "s000000000a"])
def test_other_names_are_no_segments(name: str) -> None:
    assert segment_number(name) is None


@pytest.mark.parametrize("name", ["", "m-1", "m-00000000001", "s0000000001", "_mark_1", "m--000000001"])
def test_other_names_are_no_messages(name: str) -> None:
    assert message_index(name) is None


@given(positions, st.none() | positions)
def test_a_low_water_is_read_back(position: Position, ended: Position | None) -> None:
    water = LowWater(position, ended)
    assert parse_low(water.encode(), "/low") == water


def test_who_stands_at_the_end_of_a_removed_segment_has_missed_nothing() -> None:
    water = LowWater(Position(3, 0), Position(2, 40))
    assert water.misses(Position(2, 39))
    assert not water.misses(Position(2, 40))
    assert not water.misses(Position(3, 0))
    assert water.misses(Position(1, 50))
    assert LowWater(Position(3, 5)).misses(Position(3, 4))
    assert not LowWater(Position(3, 5)).misses(Position(3, 5))


@pytest.mark.parametrize("raw", [b"", b"x", b"1", b"1-2 x", b"\xff-1"])
def test_what_is_no_low_water_is_told_with_its_path(raw: bytes) -> None:
    with pytest.raises(DecodeError, match="/t/low") as caught:
        parse_low(raw, "/t/low")
    assert caught.value.raw == raw


def test_heads() -> None:
    assert parse_head(b"12", "/t/head") == 12
    for raw in (b"", b"-1", b"1 ", b"12345678901", b"x", "\u0661".encode()):
        with pytest.raises(DecodeError, match="/t/head"):
            parse_head(raw, "/t/head")


@pytest.mark.parametrize("name", ["billing", "ä ö", "a.b", "x" * 200, "..."])
def test_names_of_subscriptions(name: str) -> None:
    assert checked_name(name) == name


# --- records ----------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=200), texts, st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3), texts)
def test_a_message_is_read_back(
    payload: bytes, key: str | None, headers: dict[str, str], message_id: str | None
) -> None:
    record = Record(payload, key, headers or None, message_id)
    assert Record.decode(record.encode(), "/m") == record


@given(st.binary(max_size=60))
def test_anything_else_is_told_and_never_breaks(raw: bytes) -> None:
    try:
        Record.decode(raw, "/m")
    except DecodeError as error:
        assert error.path == "/m"  # noqa: PT017 - it may also be a message
        assert error.raw == raw  # noqa: PT017


CHUNKS = [GUID, 2, 10, "0" * 64]


@pytest.mark.parametrize(
    "header",
    [
        {"k": 1},
        {"i": []},
        {"h": {"a": 1}},
        {"h": []},
        {"c": None},
        {"c": []},
        {"c": "x"},
        {"c": [GUID, 0, 10, "0"]},
        {"c": [GUID, 101, 10, "0"]},
        {"c": ["../../../../../../../../../other/node", 2, 10, "0"]},
        {"c": [*CHUNKS, 1]},
        {"c": CHUNKS},
    ],
    ids=str,
)
def test_a_header_that_is_not_ours_is_told(header: dict[str, object]) -> None:
    with pytest.raises(DecodeError, match="/m"):
        Record.decode(pack(header, b"x"), "/m")


@given(positions, st.text(max_size=20))
def test_a_stored_position_is_read_back(position: Position, who: str) -> None:
    assert Stored.decode(encode_stored(position, who), "/s") == Stored(position, who)


@pytest.mark.parametrize("raw", [b"x", pack({}, b""), pack({"at": "x"}, b""), pack({"at": 7}, b"")])
def test_what_is_no_stored_position_is_told(raw: bytes) -> None:
    with pytest.raises(DecodeError, match="/s"):
        Stored.decode(raw, "/s")


@given(st.text(max_size=9), st.text(max_size=9), positions, st.booleans())
def test_a_subscriber_is_read_back(name: str, host: str, position: Position, durable: bool) -> None:  # noqa: FBT001
    member = Member(name, host, position, durable)
    assert Member.decode(member.encode(), "/m") == member


# --- large ones -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, SINGLE // 2, SINGLE - 100])
def test_what_fits_into_one_node_is_not_cut_up(size: int) -> None:
    message = outgoing(Record(bytes(size), "k"), GUID)
    assert message.pieces == ()
    assert message.raw == Record(bytes(size), "k").encode()
    assert message.size == len(message.raw)


@pytest.mark.parametrize("size", [SINGLE, 2 * PIECE, 2 * PIECE + 1, 4_000_000])
def test_what_does_not_is_cut_up_and_checked_when_it_is_put_together(size: int) -> None:
    payload = bytes(range(256)) * (size // 256) + bytes(size % 256)
    record = Record(payload, "k", {"a": "b"}, "id")
    message = outgoing(record, GUID)
    assert message.size == len(record.encode())
    assert len(message.pieces) == -(-size // PIECE)
    assert max(map(len, message.pieces)) <= PIECE
    assert b"".join(message.pieces) == payload
    stub = Record.decode(message.raw, "/m", whole=False)
    digest = hashlib.sha256(payload).hexdigest()
    assert stub == Record(b"", "k", {"a": "b"}, "id", Chunks(GUID, len(message.pieces), size, digest))
    whole = stub._replace(payload=payload).encode()
    assert Record.decode(whole, "/m").payload == payload
    for damaged in (b"", payload[:-1], payload[:-1] + b"x"):
        with pytest.raises(DecodeError, match="pieces, is damaged"):
            Record.decode(stub._replace(payload=damaged).encode(), "/m")


def test_a_header_that_is_too_large_is_not_cut_up() -> None:
    assert outgoing(Record(b"x", headers={"a": "x" * 1_000_000}), GUID).pieces == ()


# --- starts -----------------------------------------------------------------------------------------------------------


def test_a_start_in_time_is_told_in_milliseconds() -> None:
    assert start_of(datetime(1970, 1, 1, 0, 0, 1, 5000, tzinfo=UTC)) == 1005
    assert start_of(datetime(2026, 7, 1, 12, 0, 0, 123000, tzinfo=UTC)) == 1782907200123
    assert start_of(datetime(2026, 7, 1, 12, 0, 0, 122001, tzinfo=UTC)) == 1782907200123
    assert start_of("latest") == "latest"
    assert start_of(Position(1, 2)) == Position(1, 2)
