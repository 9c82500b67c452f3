"""Listeners on the simulated ensemble: seeded schedules in which a tree changes while everything else fails."""

from __future__ import annotations

import pytest

from zkrecipes.testing.simulation.runner import run_chunk

SCHEDULES = 100


@pytest.mark.parametrize("first", range(0, 300, SCHEDULES))
def test_no_promise_of_a_listener_is_broken(first: int) -> None:
    assert run_chunk((first, SCHEDULES), "listener").found == []
