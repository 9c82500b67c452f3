"""How a counter's number is stored: Curator's and kazoo's bytes, limits, and what is no number."""

from __future__ import annotations

import pickle
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zkrecipes.counter_layouts import LAYOUTS, fits, layout_of, next_version, overflow, whole
from zkrecipes.errors import CounterOverflowError, DecodeError


@pytest.mark.parametrize("name", LAYOUTS)
@given(data=st.data())
def test_what_is_stored_is_read(name: str, data: st.DataObject) -> None:
    layout = layout_of(name)
    value = data.draw(st.integers(max(layout.low, -(10**30)), min(layout.high, 10**30)))
    assert layout.decode(layout.encode(value)) == value


@pytest.mark.parametrize(("name", "pattern"), [("int64", ">q"), ("int32", ">i")])
def test_the_bytes_are_curators(name: str, pattern: str) -> None:
    layout = layout_of(name)
    for value in (0, 1, -1, layout.low, layout.high):
        assert layout.encode(value) == struct.pack(pattern, value)


def test_the_text_is_kazoos() -> None:
    assert layout_of("text").encode(-120) == b"-120"


@pytest.mark.parametrize("name", LAYOUTS)
def test_empty_is_zero(name: str) -> None:
    assert layout_of(name).decode(b"") == 0


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_limits_are_held_exactly(name: str) -> None:
    layout = layout_of(name)
    for limit, over in ((layout.low, layout.low - 1), (layout.high, layout.high + 1)):
        assert fits(layout, limit)
        assert layout.decode(layout.encode(limit)) == limit
        assert not fits(layout, over)


@pytest.mark.parametrize(
    ("name", "raw"), [("int64", b"1234567"), ("int32", b"12345"), ("text", b"1.5"), ("text", b"1_0"), ("int64", b"x")]
)
def test_what_is_no_number_is_refused_with_its_bytes(name: str, raw: bytes) -> None:
    with pytest.raises(DecodeError) as caught:
        layout_of(name).decode(raw)
    assert caught.value.raw == raw


def test_another_layouts_bytes_are_recognised() -> None:
    with pytest.raises(DecodeError, match='layout "int32" reads it'):
        layout_of("int64").decode(b"\0\0\0\1")


def test_an_overflow_tells_the_limit_and_can_be_pickled() -> None:
    layout = layout_of("int32")
    error = overflow(layout, 2**31, "/c")
    assert (error.value, error.low, error.high, error.path) == (2**31, layout.low, layout.high, "/c")
    assert '"text" has no such limit' in str(error)
    assert isinstance(error, OverflowError)
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, CounterOverflowError)
    assert again.high == layout.high


def test_an_unknown_layout_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'int64', 'int32', 'text'"):
        layout_of("int16")


@pytest.mark.parametrize("value", [True, 1.0, "1", None])
def test_what_is_no_int_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="n must be an int"):
        whole(value, "n")  # type: ignore[arg-type]  # refused


def test_versions_go_round_as_the_servers_do() -> None:
    assert next_version(0) == 1
    assert next_version(2**31 - 1) == -(2**31)
    assert next_version(-3) == -2
    assert next_version(-2) == 0, "-1 would be any version"
