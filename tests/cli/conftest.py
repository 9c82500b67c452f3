"""Runs the command line as a program, on a real server."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from unittest import mock

import pytest

import zkrecipes as zkr
from zkrecipes.cli import app
from zkrecipes.testing import Server, wait_until

LIMIT: Final = 30.0

# A command that notes the time each 5 ms, and each SIGTERM, which it does not obey. Its arguments: where, and how long.
STUBBORN: Final = """
import os, signal, sys, time
now = lambda: time.clock_gettime(time.CLOCK_BOOTTIME)
out = os.open(sys.argv[1], os.O_CREAT | os.O_APPEND | os.O_WRONLY)
say = lambda word: os.write(out, f"{word} {now():.4f} {os.getpid()}\\n".encode())
signal.signal(signal.SIGTERM, lambda *_: say("term"))
end = now() + float(sys.argv[2])
while now() < end:
    say("alive")
    time.sleep(0.005)
"""


class Notes:
    """What stubborn commands have noted."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def command(self, seconds: float = 60.0) -> list[str]:
        return [sys.executable, "-I", "-S", "-c", STUBBORN, str(self.path), str(seconds)]

    def rows(self) -> list[tuple[str, float, int]]:
        if not self.path.exists():
            return []
        lines = [line.split() for line in self.path.read_text().splitlines(keepends=True) if line.endswith("\n")]
        return [(word, float(at), int(pid)) for word, at, pid in lines]

    def started(self) -> None:
        wait_until(lambda: len(self.rows()) > 2, 10.0, "the command runs")

    @property
    def last(self) -> float:
        return max(at for _, at, _ in self.rows())

    @property
    def told(self) -> list[float]:
        return [at for word, at, _ in self.rows() if word == "term"]

    @property
    def pids(self) -> set[int]:
        return {pid for _, _, pid in self.rows()}

    def nothing_lives(self, limit: float = 5.0) -> None:
        wait_until(lambda: not any(alive(pid) for pid in self.pids), limit, lambda: f"{self.pids} are gone")


def guardian_of(process: subprocess.Popen[str]) -> int:
    """The process between the program and its command."""
    (pid,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return int(pid)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in {"Z", "X"}


class Cli:
    """The program, for one namespace of a server."""

    def __init__(self, hosts: str, namespace: str) -> None:
        self.hosts = hosts
        self.environment = os.environ | {"ZKRECIPES_HOSTS": hosts, "ZKRECIPES_NAMESPACE": namespace, "COLUMNS": "200"}
        self._started: list[subprocess.Popen[str]] = []

    def start(self, *arguments: str, hosts: str | None = None, **options: Any) -> subprocess.Popen[str]:
        """Start it; it is ended with the test."""
        environment = self.environment | ({} if hosts is None else {"ZKRECIPES_HOSTS": hosts})
        process = subprocess.Popen(
            [sys.executable, "-m", "zkrecipes.cli", *arguments],
            **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
            text=True,
            env=environment,
        )
        self._started.append(process)
        return process

    def run(self, *arguments: str, hosts: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        process = self.start(*arguments, hosts=hosts)
        output, errors = process.communicate(timeout=LIMIT)
        return subprocess.CompletedProcess(arguments, process.returncode, output, errors)

    def call(self, *arguments: str, hosts: str | None = None) -> subprocess.CompletedProcess[str]:
        """The same in this process, which takes a tenth of the time: where the process itself does not matter."""
        environment = self.environment | ({} if hosts is None else {"ZKRECIPES_HOSTS": hosts})
        output, errors = io.StringIO(), io.StringIO()
        with (
            mock.patch.dict(os.environ, environment),
            mock.patch.object(sys, "argv", ["zkrecipes", *arguments]),
            contextlib.redirect_stdout(output),
            contextlib.redirect_stderr(errors),
        ):
            status = app.run()
        return subprocess.CompletedProcess(arguments, status, output.getvalue(), errors.getvalue())

    def close(self) -> None:
        for process in self._started:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()
            # Not read to their end: whatever has gone wrong, something may still hold the other one.
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    stream.close()


def events(text: str) -> list[dict[str, Any]]:
    """The JSON lines; the command may have written others."""
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


@pytest.fixture
def cli(zkr_server: Server, zkr_namespace: str) -> Iterator[Cli]:
    cli = Cli(zkr_server.hosts, zkr_namespace)
    try:
        yield cli
    finally:
        cli.close()


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    return Notes(tmp_path / "notes")


@pytest.fixture
def zk(zkr_server: Server, zkr_namespace: str) -> Iterator[zkr.Client]:
    """A client beside the program, straight to the server."""
    with zkr.connect(zkr_server.hosts, namespace=zkr_namespace) as client:
        yield client
