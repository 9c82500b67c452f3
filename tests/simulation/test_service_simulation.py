"""Services on a configuration that operators change, on the simulated ensemble: seeded schedules under faults."""

from __future__ import annotations

import pytest

from zkrecipes.testing.simulation.runner import run_chunk

SCHEDULES = 100


@pytest.mark.parametrize("first", range(0, 100, SCHEDULES))
def test_no_promise_of_a_service_is_broken(first: int) -> None:
    assert run_chunk((first, SCHEDULES), "service").found == []
