"""A lock on the simulated ensemble: seeded schedules in which clients, links and servers fail."""

from __future__ import annotations

import pytest

from zkrecipes.testing.simulation.runner import run_chunk

SCHEDULES = 200


@pytest.mark.parametrize("first", range(0, 600, SCHEDULES))
def test_no_promise_of_a_lock_is_broken(first: int) -> None:
    assert run_chunk((first, SCHEDULES), "lock").found == []
