"""How Curator's queues lie on the server."""

from __future__ import annotations

import random
from typing import Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from zkrecipes.errors import DecodeError
from zkrecipes.queue_curator_layout import (
    CURATOR_LAYOUTS,
    CuratorKind,
    follower,
    item_prefix,
    pack_items,
    parse_item,
    read_items,
    service_order,
)
from zkrecipes.queue_layout import Name, Record
from zkrecipes.stored import pack

PATH: Final = "/queue/queue-0000000000"
HI: Final = bytes.fromhex("00010001 01 00000002 6869 02")
MADE: Final = 1_700_000_000_000

PRIORITIES = st.integers(-(2**31), 2**31 - 1)
DUES = st.integers(1, 2**63 - 1)
SEQUENCES = st.integers(0, 2**31 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)

of_each_kind = pytest.mark.parametrize("kind", CURATOR_LAYOUTS)


def _text(kind: CuratorKind, priority: int, due: int, sequence: int) -> str:
    return f"{item_prefix(kind, priority, due)}{sequence:010d}"


def _name(kind: CuratorKind = "curator", priority: int = 0, due: int = MADE, sequence: int = 0) -> Name:
    name = parse_item(kind, _text(kind, priority, due, sequence))
    assert name is not None
    return name


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "priority", "due", "prefix"),
    [
        ("curator", 7, 7, "queue-"),
        ("curator-priority", 0, 7, "queue-100000000"),
        ("curator-priority", 10, 7, "queue-10000000A"),
        ("curator-priority", 2**31 - 1, 7, "queue-17FFFFFFF"),
        ("curator-priority", -1, 7, "queue-0FFFFFFFF"),
        ("curator-priority", -(2**31), 7, "queue-080000000"),
        ("curator-delay", 7, 1, "queue-|00000001|"),
        ("curator-delay", 7, 0xFFFFFFFF, "queue-|FFFFFFFF|"),
        ("curator-delay", 7, 0x18BCFE56800, "queue-|18BCFE56800|"),
    ],
)
def test_a_name_begins_as_curators_do(kind: CuratorKind, priority: int, due: int, prefix: str) -> None:
    assert item_prefix(kind, priority, due) == prefix


@given(SEQUENCES)
def test_a_plain_name_is_taken_apart(sequence: int) -> None:
    text = _text("curator", 3, 5, sequence)
    assert parse_item("curator", text) == Name(0, sequence, text, "", 0, 0)


@given(PRIORITIES, SEQUENCES)
@example(0, 0)
@example(-1, 0)
@example(2**31 - 1, 2**31 - 1)
@example(-(2**31), 0)
def test_a_name_with_a_priority_is_taken_apart(priority: int, sequence: int) -> None:
    text = _text("curator-priority", priority, 5, sequence)
    assert parse_item("curator-priority", text) == Name(0, sequence, text, "", 0, priority)


@given(DUES, SEQUENCES)
@example(2**63 - 1, 2**31 - 1)
def test_a_name_with_a_time_is_taken_apart(due: int, sequence: int) -> None:
    text = _text("curator-delay", 3, due, sequence)
    assert parse_item("curator-delay", text) == Name(0, sequence, text, "", due, 0)


@of_each_kind
@given(SEQUENCES)
def test_what_curator_has_put_back_is_an_item_of_every_kind(kind: CuratorKind, sequence: int) -> None:
    text = f"queue-{sequence:010d}"
    assert parse_item(kind, text) == Name(0, sequence, text, "", 0, 0)


@pytest.mark.parametrize(
    ("kind", "others"),
    [
        ("curator", CURATOR_LAYOUTS[1:]),
        ("curator-priority", ("curator-delay",)),
        ("curator-delay", CURATOR_LAYOUTS[1:]),
    ],
)
def test_names_of_the_other_kinds_are_foreign(kind: CuratorKind, others: tuple[CuratorKind, ...]) -> None:
    for other in others:
        if other != kind:
            assert parse_item(kind, _text(other, 3, MADE, 0)) is None


@of_each_kind
@pytest.mark.parametrize(
    "text",
    [
        "",
        "queue-",
        "queue-000000000",
        "queue-00000000000",
        "queue-000000000x",
        "queue--000000001",
        "lock-0000000000",
        "queue-0000000000 ",
        "queue-0000000000\n",
        "queue-\u0660\u0660\u0660\u0660\u0660\u0660\u0660\u0660\u0660\u0660",  # digits, but not ASCII
        "queue-1000000000000000000x",
        "queue-2000000000000000000",  # neither 0 nor 1
        "queue-0000000000000000000",  # says that it is negative, and is not
        "queue-1FFFFFFFF0000000000",  # and the other way round
        "queue-10000000a0000000000",  # Curator writes capitals, and sorts text
        "queue-||0000000000",
        "queue-|-1|0000000000",
        "queue-|0000000G|0000000000",
        "queue-|00000000000000001|0000000000",
        "queue-|00000001|000000000",
        "zkrecipes",
        "zkrecipes-01234567-89ab-8def-8123-456789abcdef",
    ],
)
def test_foreign_names_are_no_items(kind: CuratorKind, text: str) -> None:
    assert parse_item(kind, text) is None


# --- order ------------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(PRIORITIES, st.booleans()), unique=True, max_size=20), st.randoms(use_true_random=False))
def test_items_with_a_priority_are_served_as_curator_sorts_text(
    items: list[tuple[int, bool]], chance: random.Random
) -> None:
    texts = [
        f"queue-{sequence:010d}" if plain else _text("curator-priority", priority, 5, sequence)
        for sequence, (priority, plain) in enumerate(items)
    ]
    chance.shuffle(texts)
    names = [name for text in texts if (name := parse_item("curator-priority", text)) is not None]
    assert [name.text for name in sorted(names, key=service_order)] == sorted(texts)


@given(st.lists(PRIORITIES, max_size=20))
def test_lower_priorities_come_first_and_equal_ones_as_they_were_put(priorities: list[int]) -> None:
    names = [_name("curator-priority", priority, 5, sequence) for sequence, priority in enumerate(priorities)]
    served = sorted(names, key=service_order)
    assert served == sorted(names, key=lambda name: (name.priority, name.sequence))


def _curators_due(text: str) -> int:
    """What DistributedDelayQueue sorts by: the number between the bars; 0 where there is none."""
    middle = text.split("|")[1:2]
    return int(middle[0], 16) if middle else 0


@given(st.lists(st.tuples(DUES, st.booleans()), max_size=20), st.randoms(use_true_random=False))
@example([(0xFFFFFFFF, False), (0x100000000, False), (1, True)], random.Random(0))
def test_items_with_a_time_are_served_as_curator_compares_numbers(
    items: list[tuple[int, bool]], chance: random.Random
) -> None:
    texts = [
        f"queue-{sequence:010d}" if plain else _text("curator-delay", 0, due, sequence)
        for sequence, (due, plain) in enumerate(items)
    ]
    # Curator's sort keeps the order of the listing among equals, and a listing has none; ours is that of the puts.
    expected = sorted(texts, key=_curators_due)
    chance.shuffle(texts)
    names = [name for text in texts if (name := parse_item("curator-delay", text)) is not None]
    assert [name.text for name in sorted(names, key=service_order)] == expected


@given(st.lists(SEQUENCES, unique=True, max_size=20))
def test_plain_items_are_served_as_they_were_put(sequences: list[int]) -> None:
    names = [_name(sequence=sequence) for sequence in sequences]
    assert [name.sequence for name in sorted(names, key=service_order)] == sorted(sequences)


# --- identifiers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("id_", "following"),
    [
        ("queue-0000000000", "queue-0000000000.1"),
        ("queue-0000000000.1", "queue-0000000000.2"),
        ("queue-|18BCFE56800|0000000001.9", "queue-|18BCFE56800|0000000001.10"),
        ("01234567-89ab-8def-8123-456789abcdef", "01234567-89ab-8def-8123-456789abcdef.1"),
        ("a.b", "a.b.1"),
        ("a.", "a..1"),
        (".1", ".1.1"),
    ],
)
def test_the_items_of_a_node_are_numbered(id_: str, following: str) -> None:
    assert follower(id_) == following


@given(TEXT, st.integers(1, 30))
def test_no_two_items_of_a_node_have_one_identifier(id_: str, count: int) -> None:
    ids = [id_]
    for _ in range(count):
        ids.append(follower(ids[-1]))
    assert len(dict.fromkeys(ids)) == count + 1


# --- bytes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payloads", "stored"),
    [
        ((b"",), "00010001 01 00000000 02"),
        ((b"hi",), "00010001 01 00000002 6869 02"),
        ((b"a", b"bc"), "00010001 01 00000001 61 01 00000002 6263 02"),
        ((b"\x02\x01ZR",), "00010001 01 00000004 02015A52 02"),
    ],
)
def test_an_item_is_written_as_curator_writes_it(payloads: tuple[bytes, ...], stored: str) -> None:
    first, *rest = payloads
    record = Record("", 0, first, rest=tuple(rest))
    assert pack_items(record, "") == bytes.fromhex(stored)
    # Its name is what Curator knows it by: that is nothing to remember.
    name = _name()
    assert pack_items(record.with_(id=name.text), name.text) == bytes.fromhex(stored)
    read = read_items(bytes.fromhex(stored), name, MADE, PATH)
    assert read == Record(name.text, 0, first, rest=tuple(rest))


def test_priority_and_time_are_the_names_matter() -> None:
    assert pack_items(Record("", 5, b"hi", delay=9), "") == HI
    read = read_items(HI, _name("curator-priority", -5), MADE, PATH)
    assert (read.priority, read.delay) == (-5, 0)
    read = read_items(HI, _name("curator-delay", due=MADE + 250), MADE, PATH)
    assert (read.priority, read.delay) == (0, 250)
    assert read_items(HI, _name("curator-delay", due=1), MADE, PATH).delay == 1 - MADE


def test_what_we_remember_stands_behind_the_end() -> None:
    """The bytes themselves: they outlast the version that wrote them."""
    record = Record("queue-0000000000", 0, b"hi", attempts=1, headers={"a": "b"}, error="no")
    ours = b'{"id":"queue-0000000000","p":0,"a":1,"h":{"a":"b"},"e":"no"}'
    stored = HI + b"ZR\x01" + len(ours).to_bytes(4) + ours
    assert pack_items(record, "queue-0000000000") == stored
    assert read_items(stored, _name(), MADE, PATH) == record


def test_an_identifier_of_ours_is_kept_and_an_empty_one_is_the_name() -> None:
    stored = pack_items(Record("mine", 0, b"hi"), "queue-0000000000")
    assert stored.startswith(HI + b"ZR")
    assert read_items(stored, _name(), MADE, PATH).id == "mine"
    stored = pack_items(Record("", 0, b"hi", headers={"a": "b"}), "")
    assert read_items(stored, _name(sequence=7), MADE, PATH).id == "queue-0000000007"


RECORDS = st.builds(
    Record,
    id=st.one_of(st.just("queue-0000000000"), TEXT.filter(bool)),
    priority=PRIORITIES,
    payload=st.binary(max_size=20),
    attempts=st.integers(0, 9),
    delay=st.integers(-(2**40), 2**40),
    place=st.integers(0, 2**60),
    born=st.integers(0, 2**45),
    headers=st.dictionaries(TEXT, TEXT, max_size=3),
    error=TEXT,
    rest=st.lists(st.binary(max_size=20), max_size=3).map(tuple),
)


@of_each_kind
@given(RECORDS)
def test_what_was_packed_is_read(kind: CuratorKind, record: Record) -> None:
    record = record.with_(
        priority=record.priority if kind == "curator-priority" else 0,
        delay=record.delay if kind == "curator-delay" else 0,
    )
    name = _name(kind, record.priority, MADE + record.delay)
    stored = pack_items(record, name.text)
    assert read_items(stored, name, MADE, PATH) == record
    # Curator reads no further than the end of the items.
    plain = Record(name.text, record.priority, record.payload, delay=record.delay, rest=record.rest)
    bare = pack_items(plain, name.text)
    assert stored.startswith(bare)
    assert read_items(bare, name, MADE, PATH) == plain


@given(st.binary(max_size=10).filter(lambda rest: not rest.startswith(b"ZR")))
@example(b"Z")
@example(HI)
@example(b"\x01\x00\x00\x00\x01x\x02")
def test_what_stands_behind_the_end_is_not_read_where_it_is_not_ours(rest: bytes) -> None:
    assert read_items(HI + rest, _name(), MADE, PATH) == Record("queue-0000000000", 0, b"hi")


# --- damage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stored", "why"),
    [
        (b"", "nothing"),
        (b"mine", "6d696e65"),
        (HI[:3], "000100"),
        (b"\x00\x01\x00\x02" + HI[4:], "00010002"),
        (HI[:4], "nothing at byte 4"),
        (HI[:4] + b"\x02", "no item"),
        (HI[:4] + b"\x03" + HI[5:], "03 at byte 4"),
        (HI[:7], "01 at byte 4"),
        (HI[:9], "2 bytes at byte 9, of 9"),
        (HI[:10], "2 bytes at byte 9, of 10"),
        (HI[:-1], "nothing at byte 11"),
        (HI[:-1] + b"\x00", "00 at byte 11"),
        (HI[:5] + b"\xff\xff\xff\xfe" + HI[9:], "-2 bytes"),
        (HI[:5] + b"\x7f\xff\xff\xff" + HI[9:], "2147483647 bytes"),
        (HI[:5] + b"\x00\x00\x00\x04" + HI[9:], "4 bytes"),
        (HI[:-1] + HI[4:-2], "2 bytes"),
        (HI + b"ZR", "record"),
        (HI + b"ZR\x01\x00\x00\x00\x09{}", "damaged"),
        (HI + b"ZR\x01\x00\x00\x00\x02[]", "damaged"),
        (HI + b"ZR\x02\x00\x00\x00\x02{}", "another version"),
        (HI + pack({"id": 1, "p": 0}, b""), "no queue item"),
        (HI + pack({"id": "x", "p": 0, "h": {"a": 1}}, b""), "no queue item"),
    ],
)
def test_damage_is_told_with_the_path(stored: bytes, why: str) -> None:
    with pytest.raises(DecodeError, match=why) as raised:
        read_items(stored, _name(), MADE, PATH)
    assert raised.value.path == PATH
    assert PATH in str(raised.value)
    assert raised.value.raw == stored


@given(st.binary(max_size=30))
@example(HI[:8])
def test_any_bytes_are_an_item_or_a_decode_error(stored: bytes) -> None:
    for raw in (stored, HI[:4] + stored, HI + stored):
        try:
            record = read_items(raw, _name(), MADE, PATH)
        except DecodeError:
            continue
        assert raw.startswith(pack_items(Record("", 0, record.payload, rest=record.rest), ""))
