"""Who holds: the pure decision, over every line that can be thought of."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from zkrecipes.layouts import Member
from zkrecipes.line import Acquired, Gone, NeedCzxids, WaitOn, WornOut, decide
from zkrecipes.paths import LAST_NUMBER

LOWEST = -(2**31)


@st.composite
def ordered_lines(draw: st.DrawFn) -> list[Member]:
    """Distinct numbers from 0 to below the last, listed in any order; makers of all kinds."""
    numbers = draw(st.lists(st.integers(0, LAST_NUMBER - 1), min_size=1, max_size=12, unique=True))
    return [Member(f"n{number}", number, draw(st.booleans())) for number in numbers]


@st.composite
def worn_lines(draw: st.DrawFn, *, foreign: bool = False) -> tuple[list[Member], list[Member]]:
    """A line whose numbers do not tell the order, and the same without czxids; creation order is the czxid's."""
    numbers = draw(
        st.lists(st.one_of(st.integers(LOWEST, 3), st.integers(LAST_NUMBER - 3, LAST_NUMBER)), min_size=1, max_size=12)
    )
    numbers = [*numbers, draw(st.sampled_from([-1, LOWEST, LAST_NUMBER]))]
    czxids = draw(st.lists(st.integers(1, 2**62), min_size=len(numbers), max_size=len(numbers), unique=True))
    stranger = draw(st.integers(0, len(numbers) - 1)) if foreign else -1
    full = [
        Member(f"n{index}", number, index != stranger, czxid)
        for index, (number, czxid) in enumerate(zip(numbers, czxids, strict=True))
    ]
    return full, [member._replace(czxid=None) for member in full]


def follow(line: list[Member], start: str) -> list[str]:
    """Whom one waits for, whom that one waits for, and so on."""
    chain = [start]
    while isinstance(decision := decide(chain[-1], line), WaitOn):
        chain.append(decision.name)
        assert len(chain) <= len(line), "a circle"
    assert decision == Acquired()
    return chain


@given(ordered_lines())
def test_exactly_one_holds(line: list[Member]) -> None:
    holders = [member for member in line if decide(member.name, line) == Acquired()]
    assert [holder.number for holder in holders] == [min(member.number for member in line)]


@given(ordered_lines())
def test_each_waits_for_the_one_before_it(line: list[Member]) -> None:
    last = max(line, key=lambda member: member.number)
    chain = follow(line, last.name)
    assert chain == [member.name for member in sorted(line, key=lambda member: -member.number)]


@given(ordered_lines(), st.randoms(use_true_random=False))
def test_the_order_of_the_listing_does_not_matter(line: list[Member], chance: st.DataObject) -> None:
    shuffled = list(line)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    assert all(decide(member.name, line) == decide(member.name, shuffled) for member in line)


@given(ordered_lines())
def test_who_is_not_in_the_line_is_gone(line: list[Member]) -> None:
    assert decide("somebody else", line) == Gone()


def test_an_empty_line_has_nobody() -> None:
    assert decide("me", []) == Gone()


@given(worn_lines())
def test_worn_numbers_ask_for_czxids(lines: tuple[list[Member], list[Member]]) -> None:
    full, bare = lines
    assert {decide(member.name, bare) for member in bare} == {NeedCzxids()}
    partly = [full[0], *bare[1:]]
    assert {decide(member.name, partly) for member in bare} == ({NeedCzxids()} if len(bare) > 1 else {Acquired()})


@given(worn_lines())
def test_worn_lines_are_ordered_by_creation(lines: tuple[list[Member], list[Member]]) -> None:
    full, _ = lines
    by_creation = sorted(full, key=lambda member: member.czxid or 0)
    assert follow(full, by_creation[-1].name) == [member.name for member in reversed(by_creation)]


@given(worn_lines(foreign=True))
def test_nobody_holds_in_a_worn_line_with_a_foreigner(lines: tuple[list[Member], list[Member]]) -> None:
    for line in lines:
        assert {decide(member.name, line) for member in line} == {WornOut()}


def test_the_last_number_is_worn() -> None:
    """The next one is negative, and would sort before it."""
    line = [Member("a", LAST_NUMBER - 1, ours=True), Member("b", LAST_NUMBER, ours=True)]
    assert decide("b", line) == NeedCzxids()
    assert decide("a", line[:1]) == Acquired()


def test_a_repeated_number_is_worn() -> None:
    """A container that vanished begins anew, while a listing may mix both."""
    line = [Member("a", 5, ours=True, czxid=20), Member("b", 5, ours=True, czxid=10)]
    assert decide("a", [member._replace(czxid=None) for member in line]) == NeedCzxids()
    assert decide("a", line) == WaitOn("b")
    assert decide("b", line) == Acquired()


# --- readers and writers -------------------------------------------------------------------------------------------


def _readers_share(me: Member, other: Member) -> bool:
    return not (me.name.startswith("r") and other.name.startswith("r"))


@st.composite
def mixed_lines(draw: st.DrawFn) -> list[Member]:
    numbers = draw(st.lists(st.integers(0, 1000), min_size=1, max_size=12, unique=True))
    return [Member(f"{draw(st.sampled_from('rw'))}{number}", number, ours=True) for number in numbers]


@given(mixed_lines())
def test_readers_share_and_writers_do_not(line: list[Member]) -> None:
    holders = [member for member in line if decide(member.name, line, _readers_share) == Acquired()]
    assert holders, "somebody holds"
    writers = [holder for holder in holders if holder.name.startswith("w")]
    assert not writers or len(holders) == 1


@given(mixed_lines())
def test_a_reader_waits_for_the_last_writer_before_it(line: list[Member]) -> None:
    for me in line:
        before = [m for m in line if m.number < me.number and (m.name.startswith("w") or me.name.startswith("w"))]
        expected = WaitOn(max(before, key=lambda m: m.number).name) if before else Acquired()
        assert decide(me.name, line, _readers_share) == expected


@given(mixed_lines(), st.data())
def test_worn_lines_of_readers_and_writers_keep_the_order_of_creation(line: list[Member], data: st.DataObject) -> None:
    wrapped = [member._replace(number=-member.number - 1, czxid=member.number) for member in line]
    for old, new in zip(line, wrapped, strict=True):
        assert decide(old.name, line, _readers_share) == decide(new.name, wrapped, _readers_share)
