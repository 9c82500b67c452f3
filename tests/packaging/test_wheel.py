"""The wheel is whole: built from the tree, it installs and imports in an environment that has nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
LIMIT: Final = 300  # seconds for one step; pip may have to fetch

# One worker builds and installs once for all tests of this file.
pytestmark = [pytest.mark.xdist_group("packaging"), pytest.mark.timeout(2 * LIMIT), pytest.mark.slow]


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    # What the caller put on the path must not stand in for what the wheel forgot.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(command, cwd=cwd, env=environment, check=False, capture_output=True, text=True, timeout=LIMIT)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built without the network: the build backend is one of the development tools."""
    target = tmp_path_factory.mktemp("wheel")
    built = run(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", target, ROOT, cwd=target)
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = target.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def clean(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a new environment with the wheel, and with nothing but what the wheel asks for."""
    home = tmp_path_factory.mktemp("clean")
    made = run(sys.executable, "-m", "venv", home / "venv", cwd=home)
    assert made.returncode == 0, made.stderr
    python = home / "venv" / "bin" / "python"
    install(python, str(wheel))
    return python


def install(python: Path, requirement: str) -> None:
    answer = run(python, "-m", "pip", "install", "--disable-pip-version-check", requirement, cwd=python.parent)
    if "Could not find a version that satisfies" in answer.stderr and "NewConnectionError" in answer.stderr:
        pytest.skip("no package index can be reached")
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_the_wheel_holds_the_package_its_types_and_the_licence(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "zkrecipes").rglob("*.py")}
    assert modules <= set(names)
    assert "zkrecipes/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert [name for name in names if not name.startswith(("zkrecipes/", "zkrecipes-"))] == []


def test_every_public_name_imports_in_a_clean_environment(clean: Path) -> None:
    code = (
        "import importlib.resources as r, zkrecipes, zkrecipes.aio, zkrecipes.testing as t\n"
        "assert 'site-packages' in zkrecipes.__file__, zkrecipes.__file__\n"
        "assert r.files('zkrecipes').joinpath('py.typed').is_file()\n"
        "missing = [n for m in (zkrecipes, zkrecipes.aio, t) for n in m.__all__ if not hasattr(m, n)]\n"
        "assert not missing, missing"
    )
    answer = run(clean, "-c", code, cwd=clean.parent)
    assert answer.returncode == 0, answer.stderr


def test_without_its_extra_the_command_says_what_to_install(clean: Path) -> None:
    answer = run(clean.with_name("zkrecipes"), "--help", cwd=clean.parent)
    assert answer.returncode != 0
    assert "zkrecipes[cli]" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_with_its_extra_the_command_runs(wheel: Path, clean: Path, tmp_path: Path) -> None:
    # A second environment: the first must stay without the extra, whatever the order of the tests.
    made = run(clean, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    python = tmp_path / "venv" / "bin" / "python"
    install(python, f"{wheel}[cli]")
    answer = run(python.with_name("zkrecipes"), "--help", cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert "lock" in answer.stdout
