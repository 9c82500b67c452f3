"""How contenders are named, and who is refused."""

from __future__ import annotations

import itertools
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zkrecipes.errors import ForeignNodeError
from zkrecipes.layouts import CURATOR_LATCH, CURATOR_LOCK, KAZOO_LOCK, Layout
from zkrecipes.runtime import ThreadRuntime

LAYOUTS = [CURATOR_LOCK, CURATOR_LATCH, KAZOO_LOCK]
OURS = "a1b2c3d4-0000-8000-8000-00000000000f"
THEIRS = "a1b2c3d4-0000-4000-8000-00000000000f"


def _server_number(number: int) -> str:
    """As the server appends it: Java's "%010d"."""
    return f"{number:010d}"


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
@given(number=st.integers(-(2**31), 2**31 - 1))
def test_a_name_is_read_as_it_was_made(layout: Layout, number: int) -> None:
    member = layout.member(layout.prefix(OURS) + _server_number(number))
    assert member is not None
    assert (member.number, member.ours, member.czxid) == (number, True, None)


@pytest.mark.parametrize(
    ("layout", "name"),
    [
        (CURATOR_LOCK, f"_c_{THEIRS}-lock-0000000003"),
        (CURATOR_LOCK, "lock-0000000003"),
        (CURATOR_LATCH, f"_c_{THEIRS}-latch-0000000003"),
        (KAZOO_LOCK, f"{uuid.UUID(THEIRS).hex}__lock__0000000003"),
    ],
)
def test_names_of_other_libraries_are_contenders_but_not_ours(layout: Layout, name: str) -> None:
    member = layout.member(name)
    assert member is not None
    assert (member.number, member.ours) == (3, False)


def test_names_are_what_the_peers_expect() -> None:
    assert CURATOR_LOCK.prefix(OURS) == f"_c_{OURS}-lock-"
    assert CURATOR_LATCH.prefix(OURS) == f"_c_{OURS}-latch-"
    assert KAZOO_LOCK.prefix(OURS) == "a1b2c3d400008000800000000000000f__lock__"


@pytest.mark.parametrize(("layout", "other"), list(itertools.permutations(LAYOUTS, 2)))
def test_a_layout_refuses_the_others(layout: Layout, other: Layout) -> None:
    name = other.prefix(OURS) + _server_number(1)
    with pytest.raises(ForeignNodeError, match="no contender in the layout") as caught:
        layout.members("/locks/report", [name])
    assert caught.value.path == "/locks/report"


@pytest.mark.parametrize(
    "name",
    [
        "config",
        "lock-",
        "lock-12",
        "lock-00000000001",
        "lock-0000000001x",
        "leases",
        "lock-000000000a",
        "",
        "lock-+000000001",
    ],
)
def test_what_is_no_contender_is_refused(name: str) -> None:
    assert CURATOR_LOCK.member(name) is None
    with pytest.raises(ForeignNodeError):
        CURATOR_LOCK.members("/x", [CURATOR_LOCK.prefix(OURS) + _server_number(1), name])


def test_digits_of_other_scripts_are_no_number() -> None:
    assert CURATOR_LOCK.member("lock-" + "٣" * 10) is None


def test_czxids_reach_the_members() -> None:
    name = CURATOR_LOCK.prefix(OURS) + _server_number(-7)
    assert CURATOR_LOCK.members("/x", [name], {name: 42})[0].czxid == 42


def test_our_guids_are_never_those_of_others() -> None:
    runtime = ThreadRuntime()
    for layout in LAYOUTS:
        for guid, ours in ((runtime.unique(), True), (str(uuid.uuid4()), False)) * 200:
            member = layout.member(layout.prefix(guid) + "0000000001")
            assert member is not None
            assert member.ours is ours
