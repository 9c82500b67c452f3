"""The formats that are ours."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zkrecipes.errors import DecodeError, ForeignNodeError
from zkrecipes.stored import check_root, pack, root_record, unpack

HEADERS = st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5) | st.none(), max_size=4)


@given(HEADERS, st.binary(max_size=50))
def test_what_was_packed_is_unpacked(header: dict[str, object], payload: bytes) -> None:
    assert unpack(pack(header, payload), "/q/item") == (header, payload)


@given(st.binary(max_size=60))
def test_any_bytes_but_a_record_are_refused_with_the_path(raw: bytes) -> None:
    with pytest.raises(DecodeError) as refused:
        unpack(raw[:2].replace(b"ZR", b"") + raw[2:], "/q/item")
    assert refused.value.path == "/q/item"


@pytest.mark.parametrize("cut", [0, 1, 2, 6, 8])
def test_a_truncated_record_is_refused(cut: int) -> None:
    with pytest.raises(DecodeError, match="/q/item"):
        unpack(pack({"a": 1}, b"")[:cut], "/q/item")


def test_a_newer_format_says_so() -> None:
    raw = bytearray(pack({"a": 1}, b"x"))
    raw[2] = 2
    with pytest.raises(DecodeError, match="another version of zkrecipes, in format 2"):
        unpack(bytes(raw), "/q/item")


def test_deeply_nested_headers_are_refused() -> None:
    text = b"[" * 100_000
    raw = b"ZR\x01" + len(text).to_bytes(4, "big") + text
    with pytest.raises(DecodeError, match="damaged"):
        unpack(raw, "/q/item")


def test_a_root_says_what_it_is() -> None:
    check_root(root_record("queue"), "queue", "/q")
    with pytest.raises(ForeignNodeError, match="is no queue: the node holds a topic"):
        check_root(root_record("topic"), "queue", "/q")
    with pytest.raises(ForeignNodeError, match="is no queue"):
        check_root(b"10.0.0.1", "queue", "/q")
    with pytest.raises(ForeignNodeError, match="format 7"):
        check_root(b'{"zkrecipes":"queue","format":7}', "queue", "/q")
