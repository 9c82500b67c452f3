"""A test that was skipped is told at the end of the run, and fails it where all is required."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

CONFTEST: Final = Path(__file__).parents[1] / "conftest.py"
TESTS: Final = {
    "interop/test_a.py": "import pytest\n@pytest.mark.skip('no Curator')\ndef test_a(): ...\ndef test_b(): ...\n",
    "unit/test_c.py": "import pytest\npytest.skip('no module', allow_module_level=True)\n",
}


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A suite of its own, with our conftest and two tests that cannot run."""
    for name, text in TESTS.items():
        path = tmp_path / "tests" / name
        path.parent.mkdir(parents=True)
        path.write_text(text)
    shutil.copy(CONFTEST, tmp_path / "tests")
    # A root of its own: without it pytest would take the nearest settings above.
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\naddopts = --import-mode=importlib -p no:asyncio -p no:cacheprovider\n"
    )
    return tmp_path


def run(suite: Path, *arguments: str, require: str) -> tuple[int, str, list[str]]:
    """Exit status, output, and the lines of the report."""
    report = suite / "report"
    environment = os.environ | {"ZKRECIPES_TEST_REPORT": str(report), "ZKRECIPES_TEST_REQUIRE": require}
    command = [sys.executable, "-m", "pytest", "-q", *arguments]
    answer = subprocess.run(
        command, cwd=suite, env=environment, check=False, capture_output=True, text=True, timeout=50
    )
    lines = report.read_text().splitlines() if report.exists() else []
    return answer.returncode, answer.stdout, lines


@pytest.mark.parametrize("arguments", [[], ["-n", "1"]], ids=["alone", "xdist"])
def test_what_was_skipped_is_told_once_with_its_reason(suite: Path, arguments: list[str]) -> None:
    status, _, lines = run(suite, *arguments, require="")
    assert status == 0
    assert lines == ["interop, 1 x (no Curator)", "unit, 1 x (no module)"]


def test_where_all_is_required_a_skipped_test_fails_the_run(suite: Path) -> None:
    status, output, _ = run(suite, require="all")
    assert status == 1
    assert "not run: interop, 1 x (no Curator)" in output


def test_where_nothing_is_skipped_nothing_is_told(suite: Path) -> None:
    status, _, lines = run(suite, "tests/interop", "-k", "test_b", require="all")
    assert status == 0
    assert lines == []
