"""A simulated ZooKeeper ensemble with virtual time, for the library's own algorithms and for yours.

    python -m zkrecipes.testing.simulation --schedules 1000000      every schedule has a seed
    python -m zkrecipes.testing.simulation --seed 1234 --trace      replay one

The ensemble is modelled as far as coordination depends on it: followers that lag and answer reads by themselves,
session touches that travel with pings, expiry by the leader in whole ticks, quorums, fail-over that drops uncommitted
proposals, deposed leaders, sessions that move. Algorithms are stepped as under the step lock of the real drivers.
"""

from zkrecipes.testing.simulation.client import SimulatedClient
from zkrecipes.testing.simulation.contest import Contest
from zkrecipes.testing.simulation.simulation import Simulation
from zkrecipes.testing.simulation.world import Violation

__all__ = ["Contest", "SimulatedClient", "Simulation", "Violation"]
