from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zkrecipes.testing.frames import FrameReader, matching, parse_reply, parse_request


def _frame(body: bytes) -> bytes:
    return struct.pack(">i", len(body)) + body


@given(bodies=st.lists(st.binary(max_size=64), max_size=8), cuts=st.lists(st.integers(1, 40), max_size=20))
def test_frames_come_out_whole_however_the_stream_is_cut(bodies: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(_frame(body) for body in bodies)
    reader = FrameReader()
    found: list[bytes] = []
    for cut in [*cuts, len(stream)]:
        found += reader.feed(stream[:cut])
        stream = stream[cut:]
    assert found == [_frame(body) for body in bodies]
    assert reader.remainder() == b""


def test_an_unfinished_frame_is_the_remainder() -> None:
    reader = FrameReader()
    assert list(reader.feed(_frame(b"ab") + b"\0\0\0\5ab")) == [_frame(b"ab")]
    assert reader.remainder() == b"\0\0\0\5ab"


@pytest.mark.parametrize("start", [b"ruok", b"\x16\x03\x01\x02\x00", b"\xff\xff\xff\xffx"])
def test_what_is_no_frame_is_passed_on_as_it_came(start: bytes) -> None:
    reader = FrameReader()
    assert list(reader.feed(start)) == [start]
    assert not reader.framed
    assert list(reader.feed(b"\0\0\0\1")) == [b"\0\0\0\1"]


def test_headers_are_read() -> None:
    assert parse_request(_frame(struct.pack(">ii", 7, 15) + b"rest")) == (7, "create2")
    assert parse_request(_frame(struct.pack(">ii", 7, 9999))) == (7, "9999")
    assert parse_reply(_frame(struct.pack(">iqi", 7, 1 << 40, -110) + b"rest")) == (7, 1 << 40, -110)


def test_operations_are_matched_by_name_and_group() -> None:
    assert matching("create") == {"create"}
    assert matching(["getData", "any children"]) == {"getData", "getChildren", "getChildren2"}
    assert {"create2", "createContainer", "delete", "setData", "multi"} <= matching("any write")
    assert "ping" not in matching("any")
    assert matching("connect") == {"connect"}


def test_an_unknown_operation_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'getchildren'.*any children.*getChildren2"):
        matching("getchildren")
