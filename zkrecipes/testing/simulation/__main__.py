"""Play many schedules, or replay one.

python -m zkrecipes.testing.simulation --schedules 1000000
python -m zkrecipes.testing.simulation --seed 1234 --trace
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from zkrecipes.testing.simulation.runner import KINDS, play, quiet, run_many

HASH_SEED = "0"
LAST_LINES = 60
UNFINISHED = 3


def main(arguments: Sequence[str]) -> int:
    """The exit status: 0, 1 if a promise was broken, 3 if it ended before its time."""
    parser = argparse.ArgumentParser(prog="python -m zkrecipes.testing.simulation", description=__doc__)
    most = 200_000 * len(KINDS)
    parser.add_argument("--schedules", type=int, default=most, help="how many, with the seeds from 0 on")
    parser.add_argument("--kind", choices=("all", *KINDS), default="all", help="of which recipe")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes; all cores by default")
    parser.add_argument("--seconds", type=float, help="stop after so many seconds; the next run goes on from there")
    parser.add_argument("--fresh", action="store_true", help="begin anew, not where the last run stopped")
    parser.add_argument("--seed", type=int, help="replay this schedule")
    parser.add_argument("--trace", action="store_true", help="with --seed: print all of the trace")
    options = parser.parse_args(arguments)
    kind = None if options.kind == "all" else options.kind
    print(f"PYTHONHASHSEED={os.environ['PYTHONHASHSEED']}")  # noqa: T201 - it is a command line
    if options.seed is not None:
        return replay(options.seed, kind, trace=options.trace)
    tally = run_many(
        options.schedules,
        kind=kind,
        jobs=options.jobs,
        fresh=options.fresh,
        seconds=options.seconds,
    )
    for found in tally.found:
        print(f"seed {found.seed} ({found.kind}): {found.what}")  # noqa: T201
        print(f"    replay: python -m zkrecipes.testing.simulation --seed {found.seed} --kind {found.kind} --trace")  # noqa: T201
    print(  # noqa: T201
        f"{tally.done} schedules in {tally.seconds:.0f} s ({tally.events / max(tally.done, 1):.0f} events and "
        f"{tally.turns / max(tally.done, 1):.1f} turns each): {len(tally.found)} violations"
    )
    if tally.found:
        return 1
    # Stopped by Ctrl-C, or by a dead worker: nothing is wrong, but it is not done.
    return 0 if options.seconds is not None or tally.done >= options.schedules else UNFINISHED


def replay(seed: int, kind: str | None, *, trace: bool) -> int:
    """Play one schedule and print what happened."""
    with quiet():
        schedule, found = play(seed, kind)
    print(schedule.world.trace(None if trace else LAST_LINES))  # noqa: T201
    if found is None:
        print(f"seed {seed} ({schedule.kind}): every promise was kept")  # noqa: T201
        return 0
    print(f"seed {seed} ({found.kind}): {found.what}")  # noqa: T201
    return 1


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != HASH_SEED:
        # Nothing in it depends on the order of a set; this makes sure that nothing can.
        environment = {**os.environ, "PYTHONHASHSEED": HASH_SEED}
        command = [sys.executable, "-m", "zkrecipes.testing.simulation", *sys.argv[1:]]
        os.execve(sys.executable, command, environment)  # noqa: S606 - the same program again
    sys.exit(main(sys.argv[1:]))
