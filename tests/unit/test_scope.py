"""Which part of the tree a listener looks at."""

from __future__ import annotations

import itertools

import pytest

from zkrecipes.scope import Scope

PATHS = [
    "/",
    *(f"/{a}" for a in "tu"),
    *(f"/{a}/{b}" for a in "tu" for b in "ab"),
    "/t/a/x",
    "/t/a/x/y",
    "/tt",
    "/t/ab",
]


@pytest.mark.parametrize(
    ("scope", "covered", "listed"),
    [
        (Scope(("/t",)), "/t /t/a /t/b /t/a/x /t/a/x/y /t/ab", "/t /t/a /t/b /t/a/x /t/a/x/y /t/ab"),
        (Scope(("/t",), depth=0), "/t", ""),
        (Scope(("/t",), depth=1), "/t /t/a /t/b /t/ab", "/t"),
        (Scope(("/t",), depth=2), "/t /t/a /t/b /t/ab /t/a/x", "/t /t/a /t/b /t/ab"),
        (Scope(("/",), depth=0), "/", ""),
        (Scope(("/",), depth=1), "/ /t /u /tt", "/"),
        (Scope(("/",)), " ".join(PATHS), " ".join(PATHS)),
        (Scope(("/t/a", "/u"), depth=1), "/t/a /t/a/x /u /u/a /u/b", "/t/a /u"),
        (Scope(("/t", "/t/a"), depth=1), "/t /t/a /t/b /t/ab /t/a/x", "/t /t/a"),
        (Scope(("/t", "/t/a/x"), depth=1), "/t /t/a /t/b /t/ab /t/a/x /t/a/x/y", "/t /t/a/x"),
        (Scope(("/none",)), "", ""),
    ],
    ids=str,
)
def test_what_belongs_to_it(scope: Scope, covered: str, listed: str) -> None:
    assert {path for path in PATHS if scope.covers(path)} == set(covered.split())
    assert {path for path in PATHS if scope.lists(path)} == set(listed.split())


def test_what_is_listed_is_where_covered_children_are() -> None:
    """Neither a child that nobody looks for, nor a list that is read in vain."""
    roots = ["/", "/t", "/t/a", "/u", "/t/a/x"]
    for first, second, depth in itertools.product(roots, roots, (None, 0, 1, 2)):
        scope = Scope((first, second), depth)
        for path in PATHS:
            if scope.covers(path) and path not in scope.roots:
                assert scope.lists(path.rpartition("/")[0] or "/"), (scope, path)
            assert scope.lists(path) <= scope.covers(path)
            assert scope.covers(f"{path.rstrip('/')}/new") or not scope.lists(path)


def test_roots_may_be_left_out_of_what_is_shown() -> None:
    scope = Scope(("/t", "/t/a"), depth=1, shows_roots=False)
    assert {path for path in PATHS if scope.covers(path) and scope.shows(path)} == {"/t/b", "/t/ab", "/t/a/x"}
    assert Scope(("/t",)).shows("/t")


@pytest.mark.parametrize(
    ("roots", "path", "chain"),
    [
        (("/t",), "/t", []),
        (("/t",), "/t/a", ["/t/a"]),
        (("/t",), "/t/a/x/y", ["/t/a", "/t/a/x", "/t/a/x/y"]),
        (("/t", "/t/a"), "/t/a/x", ["/t/a/x"]),
        (("/t/a", "/t"), "/t/a/x", ["/t/a/x"]),
        (("/u", "/t"), "/t/a", ["/t/a"]),
        (("/",), "/t/a", ["/t", "/t/a"]),
        (("/",), "/", []),
    ],
)
def test_the_chain_of_a_node_begins_below_the_nearest_root(roots: tuple[str, ...], path: str, chain: list[str]) -> None:
    assert Scope(roots).chain(path) == chain
