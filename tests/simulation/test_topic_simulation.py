"""Topics on the simulated ensemble: seeded schedules in which some publish and some subscribe while all else fails."""

from __future__ import annotations

import pytest

from zkrecipes.testing.simulation.runner import run_chunk

SCHEDULES = 30


@pytest.mark.parametrize("first", range(0, 60, SCHEDULES))
def test_no_promise_of_a_topic_is_broken(first: int) -> None:
    assert run_chunk((first, SCHEDULES), "topic").found == []
