"""`python -m benchmarks [--rounds N] [--only NAME] [--quick]`, from the root of the checkout.

Exit status 1 if a figure is below 0.8 of its target.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Final

from benchmarks import configs, counters, listeners, locks, queues, reconnects, takeovers, topics  # noqa: F401  # importing an entry registers it
from benchmarks.bench import TICK, Bench
from benchmarks.harness import ENTRIES, run
from benchmarks.report import screen, write
from zkrecipes.testing import ZooKeeperServer

_JAVA: Final = (
    "-Xmx512m",
    "-XX:TieredStopAtLevel=4",
)  # the test kit's servers are made to start quickly, not to run long
_DOCUMENT: Final = Path(__file__).parent.parent / "docs" / "benchmarks.md"


def main() -> int:
    """Run the entries that the command line asks for."""
    names = [job.name for job in ENTRIES]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="rounds of each entry (default: 7)")
    parser.add_argument("--only", action="append", choices=names, help="only this entry; may be repeated")
    parser.add_argument("--quick", action="store_true", help="short rounds; the figures are rough")
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error("--rounds must be 1 or more")
    jobs = [job for job in ENTRIES if not arguments.only or job.name in arguments.only]
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load > cores / 2:
        print(f"the machine is busy (load {load:.1f} on {cores} cores): the figures are rough")
    start = time.monotonic()
    outcomes = []
    with ZooKeeperServer(properties={"forceSync": "no"}, tick_time=TICK, java_options=_JAVA) as server:
        seconds, samples = (0.3, 10) if arguments.quick else (1.0, 30)
        bench = Bench(server.hosts, seconds=seconds, samples=samples)
        for job in jobs:
            outcomes.append(run(job, bench, arguments.rounds))
            print(screen(outcomes[-1]), flush=True)
        version = bench.server_version()
    for reason in bench.left_out:
        print(f"left out: {reason}")
    print(f"{len(jobs)} entries, {arguments.rounds} rounds, {time.monotonic() - start:.0f} s")
    if len(jobs) == len(ENTRIES) and not arguments.quick:
        write(_DOCUMENT, outcomes, rounds=arguments.rounds, server=version, load=load, left_out=sorted(bench.left_out))
        print(f"written: {_DOCUMENT.relative_to(_DOCUMENT.parent.parent)}")
    failed = [verdict.words for outcome in outcomes for verdict in outcome.verdicts if verdict.failed]
    for words in failed:
        print(f"FAILED: {words}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
