"""The benchmark's verdicts: what is met, what is reported, what fails."""

from __future__ import annotations

import itertools
from contextlib import ExitStack

import pytest

from benchmarks.bench import Bench, contend
from benchmarks.harness import Entry, Limit, Measure, Ratio, Unit, run

BENCH = Bench("127.0.0.1:1", seconds=0.01, samples=1)


def _fail() -> None:
    message = "division of labour"
    raise ArithmeticError(message)


@pytest.mark.parametrize(
    ("ours", "label"), [(120.0, "met"), (119.0, "below target"), (96.0, "below target"), (95.0, "FAILED")]
)
def test_rate_is_judged_by_its_ratio(ours: float, label: str) -> None:
    verdict = Ratio("ours", 1.2, "kazoo").judge({"ours": ours, "kazoo": 100.0})
    assert verdict is not None
    assert (verdict.label, verdict.failed) == (label, label == "FAILED")


@pytest.mark.parametrize(
    ("ours", "label"), [(4.0, "met"), (4.1, "below target"), (5.0, "below target"), (5.1, "FAILED")]
)
def test_time_is_judged_by_its_limit(ours: float, label: str) -> None:
    limit = Limit("ours", lambda medians: 2 * medians["raw"] + 2, "two round trips and 2 ms")
    verdict = limit.judge({"ours": ours, "raw": 1.0})
    assert verdict is not None
    assert (verdict.label, verdict.failed) == (label, label == "FAILED")


def test_target_of_a_competitor_that_was_left_out_is_not_judged() -> None:
    assert Ratio("ours", 0.8, "Curator").judge({"ours": 1.0}) is None


def test_rounds_are_interleaved_and_their_medians_judged() -> None:
    order: list[str] = []
    closed: list[str] = []

    def prepare(_: Bench, stack: ExitStack) -> dict[str, Measure]:
        stack.callback(closed.append, "closed")
        figures = {"ours": itertools.count(1), "kazoo": itertools.count(11)}

        def measure(who: str) -> Measure:
            def once() -> float:
                order.append(who)
                return float(next(figures[who]))

            return once

        return {who: measure(who) for who in figures}

    outcome = run(Entry("job", "Job", Unit.PER_SECOND, (Ratio("ours", 1.0, "kazoo"),), prepare), BENCH, 3)
    assert order == ["ours", "kazoo", "kazoo", "ours", "ours", "kazoo"]
    assert outcome.medians == {"ours": 2.0, "kazoo": 12.0}
    assert [verdict.label for verdict in outcome.verdicts] == ["FAILED"]
    assert closed == ["closed"]


def test_figure_that_is_none_is_an_error() -> None:
    with pytest.raises(ValueError, match="ours gave 0"):
        run(Entry("job", "Job", Unit.PER_SECOND, (), lambda _, __: {"ours": lambda: 0.0}), BENCH, 1)


def test_failure_of_a_contending_thread_is_told() -> None:
    with pytest.raises(RuntimeError, match="division"):
        contend([lambda: None, _fail], 0.01)
