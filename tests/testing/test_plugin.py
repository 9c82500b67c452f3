"""The plugin, in runs of pytest of its own: they are other processes, as a user's would be."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

pytestmark = pytest.mark.timeout(180)

Run = Callable[..., subprocess.CompletedProcess[str]]

ROOT: Final = Path(__file__).parents[2]
PROCESS: Final = "--zkr-backend=process"
# The plugin is loaded in every run of pytest. What `import zkrecipes` itself brings in is not its matter.
IMPORTS: Final = """
import sys, pytest, zkrecipes
before = set(sys.modules)
import zkrecipes.testing.plugin
print({name.split(".")[0] for name in set(sys.modules) - before} - sys.stdlib_module_names - {"zkrecipes"})
"""


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs pytest on a file with the given text."""

    def run(source: str, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "test_it.py").write_text(source)
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("ZKRECIPES_", "PYTEST_"))}
        # The plugin is named, so that it makes no difference whether the package is installed.
        clean |= {"PYTHONPATH": path, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **environment}
        command = [sys.executable, "-m", "pytest", "-p", "zkrecipes.testing.plugin", "-p", "no:cacheprovider", *options]
        return subprocess.run(command, cwd=tmp_path, env=clean, check=False, capture_output=True, text=True)

    return run


def _passed(result: subprocess.CompletedProcess[str], number: int) -> None:
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"{number} passed" in result.stdout


def test_the_plugin_imports_nothing_of_weight_before_it_is_used() -> None:
    result = subprocess.run([sys.executable, "-c", IMPORTS], cwd=ROOT, check=True, capture_output=True, text=True)
    assert result.stdout == "set()\n"


def test_a_run_that_uses_no_fixture_starts_nothing_and_says_nothing(run: Run) -> None:
    result = run("import sys\ndef test(): assert 'testcontainers' not in sys.modules")
    _passed(result, 1)
    assert "zkrecipes:" not in result.stdout


@pytest.mark.server
def test_the_fixtures_give_a_server_a_proxy_and_clients_with_a_namespace(installed: None, run: Run) -> None:
    result = run(
        """
import asyncio
from zkrecipes.testing import RawClient

def raw(server):
    return RawClient((server.host, server.port))

namespaces = []

def test_client(zkr_server, zkr_client, zkr_namespace):
    zkr_client.create("/a")
    namespaces.append(zkr_namespace)
    with raw(zkr_server) as witness:
        assert witness.exists(zkr_namespace + "/a")

def test_proxy(zkr_server, zkr_client, zkr_proxy, zkr_namespace):
    assert namespaces != [zkr_namespace]
    assert not zkr_client.exists("/a")
    with raw(zkr_server) as witness:
        assert not witness.exists(namespaces[0])
    assert zkr_proxy.counts()["connect"] == 1

def test_async(zkr_server, zkr_async_client, zkr_namespace):
    async def main():
        async with zkr_async_client as zk:
            await zk.create("/a")
    asyncio.run(main())
    with raw(zkr_server) as witness:
        assert witness.exists(zkr_namespace + "/a")
""",
        PROCESS,
    )
    _passed(result, 3)


@pytest.mark.server
def test_a_broken_server_is_whole_again_for_the_next_test(installed: None, run: Run) -> None:
    result = run(
        """
pids = set()

def test_kill(zkr_server):
    pids.add(zkr_server.pid)
    zkr_server.kill()

def test_pause(zkr_server):
    pids.add(zkr_server.pid)
    assert zkr_server.serves()
    zkr_server.pause()

def test_after(zkr_server, zkr_namespace):
    pids.add(zkr_server.pid)
    assert zkr_server.serves()
    assert len(pids) == 2
""",
        PROCESS,
    )
    _passed(result, 3)


@pytest.mark.server
def test_under_xdist_each_worker_has_its_server_and_ensembles_are_in_one_group(
    installed: None, run: Run, tmp_path: Path
) -> None:
    pytest.importorskip("xdist", reason="pytest-xdist is not installed")
    result = run(
        """
import os, threading, pytest
from pathlib import Path

def note(kind, value):
    Path(f"{kind}-{os.environ['PYTEST_XDIST_WORKER']}-{value}").touch()

@pytest.mark.parametrize("number", range(20))
def test_server(zkr_server, zkr_namespace, number):
    note("server", zkr_server.port)
    # Every worker gets its share: the first to come waits for the other.
    for _ in range(200):
        if len({path.name.split("-")[1] for path in Path().glob("server-*")}) == 2:
            break
        threading.Event().wait(0.05)

@pytest.mark.parametrize("number", range(5))
def test_ensemble(zkr_ensemble, number, request):
    assert request.node.get_closest_marker("xdist_group").args == ("ensemble",)
    assert len(zkr_ensemble.followers()) == 2
    zkr_ensemble.kill(number % 3)
    assert zkr_ensemble.leader()
""",
        *("-p", "xdist", "-n", "2", "--dist", "loadgroup", "--strict-markers", PROCESS),
    )
    _passed(result, 25)
    assert len({path.name for path in tmp_path.glob("server-*")}) == 2


def test_a_missing_engine_is_told_at_the_end_and_a_process_is_used(installed: None, run: Run, tmp_path: Path) -> None:
    report = tmp_path / "report"
    result = run(
        "def test(zkr_server): assert type(zkr_server).__name__ == 'ZooKeeperServer'",
        DOCKER_HOST="unix:///nonexistent",
        ZKRECIPES_TEST_REPORT=str(report),
    )
    _passed(result, 1)
    assert "zkrecipes: not run: container backend (" in result.stdout.splitlines()[-2]
    assert report.read_text().startswith("container backend (")


def test_where_all_is_required_a_missing_engine_fails_the_run(installed: None, run: Run) -> None:
    result = run("def test(zkr_server): pass", DOCKER_HOST="unix:///nonexistent", ZKRECIPES_TEST_REQUIRE="all")
    assert result.returncode == 1, result.stdout
    assert "FAILED, since all is required: not run: container backend" in result.stdout
    assert "1 passed" in result.stdout


def test_under_xdist_the_main_process_tells_what_the_workers_miss(installed: None, run: Run) -> None:
    pytest.importorskip("xdist", reason="pytest-xdist is not installed")
    result = run(
        "def test(zkr_server): pass",
        *("-p", "xdist", "-n", "2"),
        DOCKER_HOST="unix:///nonexistent",
        ZKRECIPES_TEST_REQUIRE="all",
    )
    assert result.returncode == 1, result.stdout
    assert result.stdout.count("not run: container backend") == 1


@pytest.mark.parametrize("fixture", ["zkr_server", "zkr_ensemble"])
def test_without_any_server_tests_are_skipped_with_the_command_to_type(run: Run, tmp_path: Path, fixture: str) -> None:
    source = f"def test({fixture}): pass\ndef test_too({fixture}): pass\ndef test_other(): pass"
    result = run(source, "-rs", PROCESS, ZOOKEEPER_HOME=str(tmp_path))
    assert result.returncode == 0, result.stdout
    assert "1 passed, 2 skipped" in result.stdout
    assert "correct or unset it" in result.stdout.splitlines()[-2]


def test_where_all_is_required_a_missing_server_fails_the_tests(run: Run, tmp_path: Path) -> None:
    result = run("def test(zkr_server): pass", PROCESS, ZOOKEEPER_HOME=str(tmp_path), ZKRECIPES_TEST_REQUIRE="all")
    assert result.returncode == 1
    assert "1 error" in result.stdout


def test_a_container_that_is_asked_for_and_cannot_be_had_is_not_replaced(run: Run) -> None:
    result = run("def test(zkr_server): pass", "--zkr-backend=container", DOCKER_HOST="unix:///nonexistent")
    assert "1 skipped" in result.stdout
    assert "not run: tests that need a server (no Docker engine answers" in result.stdout
