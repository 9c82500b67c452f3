"""Counters, shared values and identifiers on the simulated ensemble: seeded schedules in which all else fails."""

from __future__ import annotations

import pytest

from zkrecipes.testing.simulation.counting import Counting
from zkrecipes.testing.simulation.runner import run_chunk

SCHEDULES = 20


@pytest.mark.parametrize("first", range(0, 100, SCHEDULES))
def test_no_promise_of_a_counter_is_broken(first: int) -> None:
    assert run_chunk((first, SCHEDULES), "counter").found == []


def test_the_same_seed_is_the_same_schedule() -> None:
    traces = []
    for _ in range(2):
        schedule = Counting(7)
        schedule.play()
        traces.append(schedule.world.trace())
    assert traces[0] == traces[1]


def test_without_faults_everything_is_counted() -> None:
    schedule = Counting(3, quiet=True)
    schedule.play()
    assert schedule.turns > 50
    assert len(schedule.identifiers) > 20
    assert schedule.counter.applied.bit_count() > 30
