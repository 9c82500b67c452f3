"""Configurations on the simulated ensemble: seeded schedules in which many publish and read while all else fails."""

from __future__ import annotations

import pytest

from zkrecipes.testing.simulation.rollouts import Rollouts
from zkrecipes.testing.simulation.runner import run_chunk

SCHEDULES = 20


@pytest.mark.parametrize("first", range(0, 100, SCHEDULES))
def test_no_promise_of_a_configuration_is_broken(first: int) -> None:
    assert run_chunk((first, SCHEDULES), "config").found == []


def test_the_same_seed_is_the_same_schedule() -> None:
    traces = []
    for _ in range(2):
        schedule = Rollouts(7)
        schedule.play()
        traces.append(schedule.world.trace())
    assert traces[0] == traces[1]


def test_without_faults_much_happens() -> None:
    schedule = Rollouts(3, quiet=True)
    schedule.play()
    assert schedule.turns > 20
    assert schedule.register.version > 0
