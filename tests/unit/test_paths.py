"""Paths as ZooKeeper takes them."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zkrecipes.paths import ancestors, join, validate_namespace, validate_path


@pytest.mark.parametrize(
    "path",
    [
        "",
        "a",
        "a/b",
        "/",
        "//",
        "/a/",
        "/a//b",
        "/.",
        "/a/.",
        "/a/./b",
        "/..",
        "/a/../b",
        "/a\0b",
        "/a\nb",
        "/\x7f",
        "/\ud800",
        "/\uf8ff",
        "/\uffff",
    ],
)
def test_bad_paths_are_refused_by_name(path: str) -> None:
    with pytest.raises(ValueError, match=r"^path "):
        validate_path(path)
    with pytest.raises(ValueError, match=r"^lock_path "):
        validate_path(path, "lock_path")


@pytest.mark.parametrize("path", [None, b"/a", 3, ["/a"]])
def test_what_is_no_text_is_refused(path: Any) -> None:
    with pytest.raises(TypeError, match="path must be a str, not"):
        validate_path(path)


@pytest.mark.parametrize("path", ["/a", "/a/b", "/...", "/a.b", "/ä/日本", "/a b", "/𝄞"])
def test_good_paths_pass(path: str) -> None:
    assert validate_path(path) == path


@pytest.mark.parametrize("namespace", ["", "/"])
def test_the_root_is_no_namespace(namespace: str) -> None:
    assert validate_namespace(namespace) == ""


@pytest.mark.parametrize("namespace", ["shop", "/shop/", "/a/../b"])
def test_bad_namespaces_are_refused_by_name(namespace: str) -> None:
    with pytest.raises(ValueError, match=r"^namespace "):
        validate_namespace(namespace)


@given(st.lists(st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1), min_size=1, max_size=6))
def test_ancestors_lead_from_the_top_to_the_path(parts: list[str]) -> None:
    path = "/" + "/".join(parts)
    line = ancestors(path)
    assert line[-1] == path
    assert len(line) == len(parts)
    assert all(longer.rpartition("/")[0] == shorter for shorter, longer in itertools.pairwise(line))
    assert line[0].count("/") == 1


def test_join() -> None:
    assert join("", "/a") == "/a"
    assert join("/shop", "/a") == "/shop/a"
    assert join("/shop", "/") == "/shop"
    assert join("", "/") == "/"
