"""The tree layout: what is written as nodes is read back, and only what differs is written."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from zkrecipes.config_document import DocumentError
from zkrecipes.config_model import ModelType
from zkrecipes.config_tree import digest, digest_of, from_nodes, meaning, root_data, to_nodes, tree_writes
from zkrecipes.port import OPEN_ACL, Create, Delete, Set, Stat


class Inner(BaseModel):
    text: str = ""
    number: float = 0
    port: int = Field(default=1, alias="Port")
    listed: list[int | str] = []
    by_name: dict[str, bool] = {}


class Outer(BaseModel):
    inner: Inner = Inner()
    maybe: Inner | None = None
    text: str = ""
    flag: bool = False


MODEL: ModelType[Outer] = ModelType(Outer)
inners = st.builds(
    Inner,
    text=st.text(),
    number=st.floats(allow_nan=False, allow_infinity=False),
    Port=st.integers(-(2**60), 2**60),
    listed=st.lists(st.integers(0, 9) | st.text(), max_size=3),
    by_name=st.dictionaries(st.text(), st.booleans(), max_size=3),
)
outers = st.builds(Outer, inner=inners, maybe=st.none() | inners, text=st.text(), flag=st.booleans())


@given(outers)
def test_round_trip(value: Outer) -> None:
    document = MODEL.dump(value)
    assert MODEL.validate(from_nodes(to_nodes(document, MODEL.fields), MODEL.fields)) == value


def test_nodes() -> None:
    document = {"inner": {"Port": 2, "by_name": {"a/b": True}}, "text": "5", "unknown": {"a": [1]}}
    assert to_nodes(document, MODEL.fields) == {
        "inner": b"",
        "inner/Port": b"2",
        "inner/by_name": b'{"a/b": true}',
        "text": b"5",
        "unknown": b'{"a": [1]}',
    }


def test_trees_of_other_tools() -> None:
    """Parents may have data of their own, or not be listed; names are the fields' or their aliases."""
    nodes = {"inner": b"ignored", "inner/port": b"7", "inner/by_name/x": b"true", "text": b"[1]", "else/where": b"[1]"}
    assert from_nodes(nodes, MODEL.fields) == {
        "inner": {"port": 7, "by_name": {"x": True}},
        "text": "[1]",
        "else": {"where": [1]},
    }
    with pytest.raises(DocumentError, match="text"):
        from_nodes({"text": b"\xff"}, MODEL.fields)


@pytest.mark.parametrize("name", ["a/b", "", ".", "..", "a\x00"])
def test_names_that_are_no_nodes(name: str) -> None:
    with pytest.raises(ValueError, match=r"name|node"):
        to_nodes({name: 1}, None)


def test_meanings() -> None:
    fields = MODEL.fields
    assert fields is not None
    assert meaning("5", fields["text"]) == "5"
    assert meaning("true", fields["flag"]) is True
    assert meaning("perhaps", fields["flag"]) == "perhaps"
    assert meaning("5", None) == 5
    assert meaning("{", None) == "{"


def test_only_what_differs_is_written() -> None:
    def stat(version: int) -> Stat:
        return Stat(1, 1, 0, 0, version, 0, 0, 0, 0, 0, 0)

    current = {"same": (b"1", stat(4)), "other": (b"1", stat(5)), "gone": (b"", stat(6)), "gone/too": (b"", stat(7))}
    wanted = {"same": b"1", "other": b"2", "new": b"", "new/too": b"3"}
    assert tree_writes("/r", current, wanted, OPEN_ACL) == (
        Delete("/r/gone/too", 7),
        Delete("/r/gone", 6),
        Create("/r/new", b""),
        Create("/r/new/too", b"3"),
        Set("/r/other", b"2", 5),
    )


@given(st.dictionaries(st.text(max_size=3), st.binary(max_size=3), max_size=3),
       st.dictionaries(st.text(max_size=3), st.binary(max_size=3), max_size=3))  # fmt: skip
def test_digests_tell_trees_apart(one: dict[str, bytes], other: dict[str, bytes]) -> None:
    assert (digest(one.items()) == digest(other.items())) == (one == other)
    assert digest_of(root_data("id", one)) == digest(one.items())


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"5", b'{"format": 2, "digest": "x"}', b"[" * 100_000, b"\xff"])
def test_a_root_that_is_not_ours_has_no_digest(data: Any) -> None:
    assert digest_of(data) is None
