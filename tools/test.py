"""Runs the test suite and says, in its last line, which parts did not run and why.

    tools/test.py [--fast] [pytest arguments]

Without arguments the suite runs in two phases: alone, the tests that measure time (marker `serial`) or need three
servers (`ensemble`), then all others, side by side on two workers. (xdist's groups would do for the ensembles, but its
release 3.8 does not see them under pytest 9.) With arguments pytest gets them as they are, in one phase. `--fast`
leaves out everything that needs a server. Environment: ZKRECIPES_TEST_REQUIRE=all makes a part that did not run a
failure.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NO_TESTS = 5  # pytest's exit status when nothing was collected
NEEDS_MORE = "server or container or ensemble or faults or interop or packaging or docs or serial or slow"


def phases(arguments: list[str]) -> list[list[str]]:
    """The arguments of each run of pytest."""
    side_by_side = ["-n", "2", "--dist", "loadgroup"]
    if arguments[:1] == ["--fast"]:
        return [[*side_by_side, "-m", f"not ({NEEDS_MORE})", *arguments[1:]]]
    if arguments:
        return [arguments]
    return [["-m", "serial or ensemble"], [*side_by_side, "-m", "not serial and not ensemble"]]


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
        missing = sorted(set(report.read_text().splitlines())) if report.exists() else []
    if arguments[:1] == ["--fast"]:
        missing.append("what needs a server, a build or time (make test runs all)")
    elif arguments:
        missing.append("what the given arguments left out")
    elif missing and os.environ.get("ZKRECIPES_TEST_REQUIRE") == "all":
        status = status or 1
    print(f"not run: {'; '.join(missing) or 'nothing'}", flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
