"""The demo, as `make demo` runs it, and what it leaves behind."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from zkrecipes.testing import wait_until

ROOT: Final = Path(__file__).parents[2]
LAST_LINE: Final = re.compile(r"believers at once: 1, take-overs: 3, longest: \d+\.\d s")
ADDRESS: Final = re.compile(r"server runs on 127\.0\.0\.1:(\d+)")

# It measures take-overs, in seconds: nothing else may use the processors meanwhile.
pytestmark = [pytest.mark.server, pytest.mark.faults, pytest.mark.serial, pytest.mark.slow, pytest.mark.timeout(120)]


@contextlib.contextmanager
def demo(samples: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "examples.demo", "--samples", str(samples)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        env=os.environ | {"PYTHONIOENCODING": "utf-8"},
        start_new_session=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def workers_left(samples: Path) -> list[str]:
    """The command lines of the processes that write into our directory."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = file.read_text(errors="replace").replace("\0", " ")
            if str(samples) in line and "examples.demo.worker" in line:
                found.append(line)
    return found


def nobody_listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1.0).close()
    except OSError:
        return True
    return False


def read_until(process: subprocess.Popen[str], word: str) -> str:
    """Read its output as far as the line that has `word`."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if word in line:
            return "".join(lines)
    pytest.fail(f"it ended before {word!r}:\n{''.join(lines)}")


def port_of(output: str) -> int:
    found = ADDRESS.search(output)
    assert found, output
    return int(found[1])


def test_never_a_second_believer_and_every_take_over_in_time(tmp_path: Path) -> None:
    samples = tmp_path / "samples"
    with demo(samples) as process:
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert LAST_LINE.fullmatch(output.splitlines()[-1]), output
    assert "SIGKILL" in output
    assert "is cut off" in output
    assert len(list(samples.glob("*.samples"))) == 5
    assert workers_left(samples) == []
    assert nobody_listens(port_of(output))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_no_process_behind(tmp_path: Path, number: signal.Signals) -> None:
    samples = tmp_path / "samples"
    with demo(samples) as process:
        before = read_until(process, "leads")
        process.send_signal(number)
        after, _ = process.communicate(timeout=20)
    assert process.returncode == 130, before + after
    assert "Traceback" not in after
    assert workers_left(samples) == []
    assert nobody_listens(port_of(before))


def test_a_killed_demo_leaves_no_process_behind(tmp_path: Path) -> None:
    samples = tmp_path / "samples"
    with demo(samples) as process:
        before = read_until(process, "leads")
        process.kill()
        process.wait()
        wait_until(lambda: not workers_left(samples), 15.0, lambda: f"workers end: {workers_left(samples)}")
        wait_until(lambda: nobody_listens(port_of(before)), 10.0, "the server ends")
