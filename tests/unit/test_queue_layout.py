"""How a queue lies on the server."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zkrecipes.errors import DecodeError
from zkrecipes.queue_layout import (
    Record,
    Slot,
    checked_headers,
    checked_priority,
    delayed_prefix,
    lane_name,
    lane_nodes,
    parse_bucket,
    parse_lane,
    parse_name,
    place_of,
    read_record,
    shelf_numbers,
    shelf_prefix,
)
from zkrecipes.stored import pack

GUID = "01234567-89ab-8def-8123-456789abcdef"
PRIORITIES = st.integers(-(2**31), 2**31 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)


@given(PRIORITIES, PRIORITIES)
def test_names_of_lanes_sort_as_priorities_do(one: int, other: int) -> None:
    assert (lane_name(one) < lane_name(other)) == (one < other)
    assert parse_lane(lane_name(one)) == one


@pytest.mark.parametrize("name", ["", "head", "8000000", "800000000", "8000000g", "80000000 "])
def test_foreign_names_are_no_lanes_and_no_buckets(name: str) -> None:
    assert parse_lane(name) is None
    assert parse_bucket(name) is None


def test_shelves_are_told_from_claims_and_the_head() -> None:
    assert shelf_numbers(["head", "c0000000001", "s0000000010", "s0000000002", "s1", "x"]) == [2, 10]


def test_an_items_name_is_taken_apart() -> None:
    name = parse_name(f"{shelf_prefix(GUID)}0000000012", 7)
    assert name is not None
    assert (name.guid, name.sequence, name.priority, name.due, name.place) == (GUID, 12, 7, 0, 0)
    slot = Slot(*lane_nodes("/q/lanes/80000007", 3), name)
    assert slot.item == f"/q/lanes/80000007/s0000000003/{GUID}-0000000012"
    assert slot.claim == f"/q/lanes/80000007/c0000000003/{GUID}-0000000012"


@given(st.integers(1, 2**45), PRIORITIES, st.integers(0, 2**45), st.integers(0, 2**31 - 1))
def test_a_delayed_items_name_is_taken_apart(due: int, priority: int, time: int, sequence: int) -> None:
    place = place_of(time, sequence)
    name = parse_name(f"{delayed_prefix(due, priority, place, GUID)}0000000003", None)
    assert name is not None
    assert (name.guid, name.sequence, name.priority, name.due, name.place) == (GUID, 3, priority, due, place)


def test_places_go_by_time_and_then_as_items_were_put() -> None:
    assert place_of(5, 7) < place_of(5, 8) < place_of(6, 0)


@pytest.mark.parametrize("name", ["", "x", GUID, f"{GUID}-1", f"x{GUID}-0000000001", f"{GUID}-0000000001x"])
def test_foreign_names_are_no_items(name: str) -> None:
    assert parse_name(name, 0) is None
    assert parse_name(name, None) is None


@given(
    st.builds(
        Record,
        id=TEXT,
        priority=PRIORITIES,
        payload=st.binary(max_size=20),
        attempts=st.integers(0, 9),
        delay=st.integers(0, 9),
        place=st.integers(0, 2**60),
        born=st.integers(0, 2**45),
        headers=st.dictionaries(TEXT, TEXT, max_size=3),
        error=TEXT,
        dead_at=st.integers(0, 2**45),
    )
)
def test_what_was_packed_is_read(record: Record) -> None:
    assert read_record(record.pack(), "/q/item") == record


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"id": 1, "p": 0},
        {"id": "x", "p": "0"},
        {"id": "x", "p": True},
        {"id": "x", "p": 2**31},
        {"id": "x", "p": 0, "h": []},
        {"id": "x", "p": 0, "h": {"a": 1}},
        {"id": "x", "p": 0, "e": 1},
        {"id": "x", "p": 0, "a": 1.5},
    ],
)
def test_a_record_that_is_no_item_is_refused(header: dict[str, Any]) -> None:
    with pytest.raises(DecodeError, match="/q/item"):
        read_record(pack(header, b""), "/q/item")


@pytest.mark.parametrize("raw", [b"", b"mine", b"ZR\x02\0\0\0\0", b"ZR\x01\0\0\0\xff{}"])
def test_bytes_that_are_no_record_are_refused(raw: bytes) -> None:
    with pytest.raises(DecodeError) as raised:
        read_record(raw, "/q/item")
    assert raised.value.raw == raw


@pytest.mark.parametrize("priority", [2**31, -(2**31) - 1])
def test_a_priority_has_32_bits(priority: int) -> None:
    with pytest.raises(ValueError, match="priority"):
        checked_priority(priority)


@pytest.mark.parametrize("priority", [True, "1", 1.0, None])
def test_a_priority_is_an_int(priority: Any) -> None:
    with pytest.raises(TypeError, match="priority"):
        checked_priority(priority)


@pytest.mark.parametrize("headers", [[("a", "b")], {"a": 1}, {1: "a"}, "a"])
def test_headers_are_text(headers: Any) -> None:
    with pytest.raises(TypeError, match="headers"):
        checked_headers(headers)
