"""What holds for all tests: which marker a test gets by its place and fixtures, and the list of what did not run.

tools/test.py reads that list from the file that ZKRECIPES_TEST_REPORT names, and prints it as the last line of
`make test`. With ZKRECIPES_TEST_REQUIRE=all a test that did not run is a failure.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path
from typing import Final

import hypothesis
import pytest

TESTS: Final = Path(__file__).parent

# By directory: a forgotten marker would bring a server into `make test-fast`.
MARKERS: Final = {
    "cli": ("server",),
    "contracts": ("server",),
    "demo": ("server", "slow"),
    "docs": ("docs", "server"),
    "faults": ("faults", "server"),
    "integration": ("server",),
    "interop": ("interop", "server"),
    "packaging": ("packaging",),
    "simulation": ("simulation",),
    "testing": ("server",),
}
SERVER_FIXTURES: Final = frozenset({"zkr_server", "zkr_client", "zkr_async_client", "zkr_proxy", "zkr_ensemble"})

# Loaded machines are slow at times; the time limit of a test is pytest-timeout's matter.
hypothesis.settings.register_profile("zkrecipes", deadline=None, print_blob=True)
hypothesis.settings.load_profile("zkrecipes")


class _NotRun:
    """Counts what was skipped: (suite, reason)."""

    def __init__(self) -> None:
        self.skipped: Counter[tuple[str, str]] = Counter()

    def _add(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            suite = report.nodeid.removeprefix("tests/").split("/")[0]
            # longrepr is (file, line, "Skipped: reason").
            text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            self.skipped[suite, text.removeprefix("Skipped: ")] += 1

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._add(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._add(report)

    def lines(self) -> list[str]:
        """One line a suite and reason."""
        return [f"{suite}, {count} x ({reason})" for (suite, reason), count in sorted(self.skipped.items())]

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        lines = self.lines()
        if lines and (report := os.environ.get("ZKRECIPES_TEST_REPORT")):
            with Path(report).open("a", encoding="utf-8") as file:
                file.writelines(f"{' '.join(line.split())}\n" for line in lines)
        if lines and os.environ.get("ZKRECIPES_TEST_REQUIRE") == "all" and session.exitstatus == 0:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.skipped and os.environ.get("ZKRECIPES_TEST_REQUIRE") == "all":
            for line in self.lines():
                terminalreporter.write_line(f"FAILED, since all is required: not run: {line}", red=True)


def _heed_signals() -> None:
    """Undo what `nohup`, `&` and some runners do: processes that we start would ignore these signals for ever, too."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def pytest_configure(config: pytest.Config) -> None:
    _heed_signals()
    if not hasattr(config, "workerinput"):  # the reports of xdist's workers all come to the main process
        config.pluginmanager.register(_NotRun())


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        suite = item.path.relative_to(TESTS).parts[0] if item.path.is_relative_to(TESTS) else ""
        for marker in MARKERS.get(suite, ()):
            item.add_marker(marker)
        fixtures = frozenset(getattr(item, "fixturenames", ()))
        if fixtures & SERVER_FIXTURES:
            item.add_marker("server")
        if "zkr_ensemble" in fixtures:
            item.add_marker("ensemble")
