"""The fixture for simulations of one's own algorithms."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from zkrecipes.lock import LockRecipe
from zkrecipes.testing.simulation import SimulatedClient, Simulation, Violation

traces: dict[str, str] = {}


async def take_and_release(client: SimulatedClient) -> int:
    await client.session.ready(math.inf)
    held = await LockRecipe(client.core, "/lock", identity=None, layout="curator").acquire(None, None)
    await held.release()
    return held.hold.token


def play(sim: Simulation) -> str:
    worker = sim.client("worker")
    task = sim.start(worker, take_and_release(worker))
    sim.at(0.5, worker.isolate, 3.0)
    sim.run_until(lambda: task.done.done, 10.0, "the lock was taken and released")
    assert task.done.result() > 0
    sim.run(5.0)
    return sim.trace()


def test_a_simulation_in_a_test(zkr_simulation: Callable[..., Simulation]) -> None:
    sim = zkr_simulation(servers=1)
    assert len(sim.ensemble.servers) == 1
    assert play(sim) == play(zkr_simulation(servers=1))  # the same test, the same seed
    assert play(zkr_simulation(servers=1)) != play(zkr_simulation(seed=1, servers=1))


@pytest.mark.parametrize("case", ["first", "second"])
def test_each_case_has_a_seed_of_its_own(zkr_simulation: Callable[..., Simulation], case: str) -> None:
    traces[case] = play(zkr_simulation())
    assert len(traces) == len(set(traces.values()))


def test_a_broken_promise_tells_the_seed_and_the_trace(zkr_simulation: Callable[..., Simulation]) -> None:
    sim = zkr_simulation(seed=7)
    worker = sim.client("worker")
    task = sim.start(worker, take_and_release(worker))
    sim.always(lambda: not task.done.done, "the task never ends")
    with pytest.raises(Violation, match=r"seed 7: the task never ends\n(.|\n)*worker") as caught:
        sim.run(10.0)
    assert caught.value.seed == 7
