"""Queues on the simulated ensemble: seeded schedules in which some put and some take while everything else fails."""

from __future__ import annotations

import pytest

from zkrecipes.testing.simulation.runner import run_chunk

SCHEDULES = 30


@pytest.mark.parametrize("first", range(0, 60, SCHEDULES))
def test_no_promise_of_a_queue_is_broken(first: int) -> None:
    assert run_chunk((first, SCHEDULES), "queue").found == []
