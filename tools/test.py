"""Runs the test suite and says, in its last line, which parts did not run and why.

    tools/test.py [--fast] [pytest arguments]

Without arguments the suite runs in three phases: alone, the tests that measure time (marker `serial`); a few at a time,
those that need three servers (`ensemble`); then all others. They mostly wait, so there are more workers than cores, and
one that is done takes from the others what they have not begun. With arguments pytest gets them as they are, in one
phase. `--fast` leaves out everything that needs a server.

Environment: ZKRECIPES_TEST_REQUIRE=all makes a part that did not run a
failure. Up to five tests that failed are run again, alone, and named if they pass then.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORKERS = 1 + 2 * (os.cpu_count() or 1)
ENSEMBLES = 3
FEW = 5  # more failures than these are no accident
NO_TESTS = 5  # pytest's exit status when nothing was collected
NEEDS_MORE = "server or container or ensemble or faults or interop or packaging or docs or serial or slow"


def phases(arguments: list[str]) -> list[list[str]]:
    """The arguments of each run of pytest."""
    side_by_side = ["-n", str(WORKERS), "--dist", "worksteal"]
    if arguments[:1] == ["--fast"]:
        return [[*side_by_side, "-m", f"not ({NEEDS_MORE})", *arguments[1:]]]
    if arguments:
        return [arguments]
    return [
        ["-m", "serial"],
        ["-n", str(ENSEMBLES), "--dist", "worksteal", "-m", "ensemble and not serial"],
        [*side_by_side, "-m", "not serial and not ensemble"],
    ]


def run_again(environment: dict[str, str]) -> tuple[list[str], int]:
    """Run the few tests that failed again, alone: which they are, and the exit status of that.

    Many tests hold real processes to real seconds. On a machine that others use, a limit may be missed without a fault
    of ours; alone, it must hold. What passes only then is named in the last lines, never passed over.
    """
    record = ROOT / ".pytest_cache" / "v" / "cache" / "lastfailed"
    failed = sorted(json.loads(record.read_text())) if record.exists() else []
    if not 0 < len(failed) <= FEW:
        return [], 1
    command = [sys.executable, "-m", "pytest", "--last-failed", "--last-failed-no-failures", "none"]
    code = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
    return (failed, 0) if code == 0 else ([], code)


def main() -> int:
    """Run the phases and print the last line."""
    arguments = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="zkrecipes-test-") as directory:
        report = Path(directory) / "not-run"
        environment = os.environ | {"ZKRECIPES_TEST_REPORT": str(report)}
        status = 0
        for phase in phases(arguments):
            command = [sys.executable, "-m", "pytest", *phase]
            code = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
            if code not in {0, NO_TESTS}:
                status = status or code
            if code < 0 or code == 2:  # noqa: PLR2004  # ended by a signal, or interrupted: no further phase
                break
        again: list[str] = []
        if not arguments and status == 1:
            again, status = run_again(environment)
        missing = sorted(set(report.read_text().splitlines())) if report.exists() else []
    if arguments[:1] == ["--fast"]:
        missing.append("what needs a server, a build or time (make test runs all)")
    elif arguments:
        missing.append("what the given arguments left out")
    elif missing and os.environ.get("ZKRECIPES_TEST_REQUIRE") == "all":
        status = status or 1
    if again:
        print(f"passed only when run again, alone; look into them: {' '.join(again)}")
    print(f"not run: {'; '.join(missing) or 'nothing'}", flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
