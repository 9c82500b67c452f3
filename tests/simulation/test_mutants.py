"""Each safeguard is needed: without it, the simulation finds a broken promise."""

from __future__ import annotations

import gc
import re
from collections import Counter

import pytest

from tests.simulation import (
    config_mutants,
    counter_mutants,
    directed,
    listener_mutants,
    queue_mutants,
    service_mutants,
    topic_mutants,
)
from tests.simulation.mutants import MUTANTS, Mutant
from tests.simulation.near import NEAR
from zkrecipes.testing.simulation import Violation
from zkrecipes.testing.simulation.runner import KINDS, play, quiet

MODULES = (listener_mutants, config_mutants, service_mutants, topic_mutants, counter_mutants, queue_mutants)
"""They enter their mutants into MUTANTS."""

LIMIT = 2000
ROUNDS = 100


def _find(mutant: Mutant) -> tuple[int, str] | None:
    """The first schedule that catches it, and the complaint."""
    if mutant.directed is not None:
        for seed in range(LIMIT):
            try:
                mutant.directed(seed)
            except Violation as violation:
                return seed, violation.what
        return None
    with quiet():
        for seed in (NEAR.get(mutant.name, 0), *range(LIMIT)):
            _, found = play(seed, mutant.kind)
            if found is not None:
                return found.seed, found.what
            if seed % 20 == 0:
                gc.collect()
    return None


@pytest.mark.timeout(240)  # a few hundred schedules, on a machine that others use
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name.replace(" ", "-"))
def test_mutant_is_caught(mutant: Mutant) -> None:
    with mutant.apply():
        found = _find(mutant)
    assert found is not None, f"without this safeguard {LIMIT} schedules found nothing wrong"
    print(f"caught by schedule {found[0] + 1}: {found[1][:70]}")  # noqa: T201 - pytest -rP shows it
    assert re.search(mutant.breaks, found[1]), f"seed {found[0]}: {found[1]}"


@pytest.mark.parametrize("schedule", directed.SCHEDULES, ids=lambda schedule: schedule.__name__)
def test_the_unmodified_code_passes_the_directed_schedules(schedule: directed.Schedule) -> None:
    for seed in range(ROUNDS):
        schedule(seed)


def test_there_are_mutants_of_every_recipe() -> None:
    kinds = Counter(mutant.kind for mutant in MUTANTS)
    assert kinds.keys() == KINDS.keys()
    assert kinds["lock"] + kinds["election"] >= 15
    assert kinds["listener"] >= 8
    assert kinds["topic"] >= 8
    assert kinds["queue"] >= 8
    assert kinds["counter"] >= 8
    assert all(module.__name__.startswith("tests.simulation.") for module in MODULES)
