"""Documents: whatever the bytes are, parsing ends, with a mapping or a refusal that shows nothing of them."""

from __future__ import annotations

import contextlib
import gzip
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zkrecipes.config_document import FORMATS, DocumentError, compressed, parse, render, text_of

SECRET = "hunter2"

keys = st.text(st.characters(categories=["L", "Nd"]), min_size=1, max_size=8)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**62), 2**62)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)
documents = st.dictionaries(keys, values, max_size=5)


@given(documents)
def test_json_round_trip(document: dict[str, Any]) -> None:
    assert parse(render(document, "json").encode(), "json") == document


@given(documents)
def test_yaml_round_trip(document: dict[str, Any]) -> None:
    assert parse(render(document, "yaml").encode(), "yaml") == document


@given(st.dictionaries(keys, st.integers(-(2**62), 2**62) | st.text() | st.lists(st.booleans()), max_size=5))
def test_toml_round_trip(document: dict[str, Any]) -> None:
    assert parse(render(document, "toml").encode(), "toml") == document


@given(st.binary(max_size=200), st.sampled_from(FORMATS))
def test_any_bytes_are_a_mapping_or_a_refusal(raw: bytes, format_: Any) -> None:
    with contextlib.suppress(DocumentError):
        assert isinstance(parse(raw, format_), dict)


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize(
    "raw",
    [
        b"\xff\xfe",
        b'{"a": ' + b"[" * 100_000,
        b"[" * 100_000,
        b"a = " + b"[" * 100_000 + b"]" * 100_000,
        b"a" + b".a" * 50_000 + b" = 1",
        b"- " * 50_000,
        b"9" * 20_000,
        b'{"a": ' + b"9" * 20_000 + b"}",
        b"\x00",
        b"a: &a [*a]",
        b"a: *b",
        b"? [1, 2]\n: 3",
        b"!!python/object/apply:os.system ['true']",
        b"[a]\n[a]\n",
        b"just text",
        b'"text"',
        b"1",
    ],
    ids=lambda raw: repr(raw[:20]),
)
def test_what_is_no_document(raw: bytes, format_: Any) -> None:
    """Some of these are documents in one of the formats; none of them ends otherwise than by a refusal."""
    with contextlib.suppress(DocumentError):
        parse(raw, format_)


def test_ten_lines_that_stand_for_a_billion_values() -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"{each}: &{each} [{', '.join([f'*{chr(ord(each) - 1)}'] * 10)}]" for each in "bcdefghi"]
    with pytest.raises(DocumentError, match="too many values"):
        parse("\n".join(lines).encode(), "yaml")


def test_a_long_name_over_many_values() -> None:
    """The paths of all values would have twenty gigabytes."""
    values = ",".join(f'"{number}":1' for number in range(50_000))
    with pytest.raises(DocumentError, match="names in the document are too long"):
        parse(f'{{"{"x" * 400_000}": {{{values}}}}}'.encode(), "json")
    parse(f'{{"{"x" * 400_000}": [{",".join("1" * 50_000)}]}}'.encode(), "json")


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    with pytest.raises(DocumentError, match="more than"):
        text_of(gzip.compress(b" " * 200_000_000))


@pytest.mark.parametrize("cut", [1, 9, 15])
def test_damaged_gzip(cut: int) -> None:
    with pytest.raises(DocumentError, match=r"gzip|cut off"):
        text_of(compressed(b'{"a": 1}')[:-cut])


def test_gzip_is_recognised() -> None:
    assert parse(compressed(b'{"a": 1}'), "json") == {"a": 1}
    assert compressed(b"x") == compressed(b"x")


def test_a_byte_order_mark_is_no_part_of_it() -> None:
    assert parse(b'\xef\xbb\xbf{"a": 1}', "json") == {"a": 1}


def test_an_empty_yaml_document_is_an_empty_mapping() -> None:
    assert parse(b"# nothing\n", "yaml") == {}
    assert parse(b"", "toml") == {}


def test_names_are_text() -> None:
    assert parse(b"1: a\n2: b\n", "yaml") == {"1": "a", "2": "b"}
    with pytest.raises(DocumentError, match="quotes"):
        parse(b"true: a", "yaml")


@pytest.mark.parametrize(
    ("raw", "format_"),
    [
        (f'{{"password": "{SECRET}", "x": }}', "json"),
        (f"password: {SECRET}\n  x: [", "yaml"),
        (f'password = "{SECRET}"\n{SECRET}', "toml"),
        (f'password = "{SECRET}"\npassword = "{SECRET}"', "toml"),
        (f"password = {SECRET}", "toml"),
        (f'password: "{SECRET}\\q"', "yaml"),
        (f"password: !{SECRET} x", "yaml"),
        (f"password: *{SECRET}", "yaml"),
    ],
)
def test_a_refusal_shows_nothing_of_the_document(raw: str, format_: Any) -> None:
    with pytest.raises(DocumentError) as raised:
        parse(raw.encode(), format_)
    assert SECRET not in str(raised.value)
    assert raised.value.__cause__ is None
    assert "line" in str(raised.value) or "end of document" in str(raised.value)


@pytest.mark.parametrize("value", [math.nan, math.inf, b"x", object()])
def test_what_cannot_be_written(value: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        render({"a": value}, "json")


def test_json_is_for_people() -> None:
    assert (
        render({"b": {"ä": 1}, "a": []}, "json")
        == json.dumps({"b": {"ä": 1}, "a": []}, indent=2, ensure_ascii=False) + "\n"
    )


@pytest.mark.parametrize("raw", [b"", b" \n"])
def test_an_empty_json_document_is_refused_in_plain_words(raw: bytes) -> None:
    with pytest.raises(DocumentError, match="the document is empty"):
        parse(raw, "json")
