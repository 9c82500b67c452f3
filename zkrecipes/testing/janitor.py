"""What outlives a killed test run: nothing.

The first server of a process starts one small helper process (`_sweep.py`). Everything that must not outlive us is told
to it first; when we exit or die, SIGKILL included, it kills, removes and deletes what is left. It runs in a session of
its own, so that neither Ctrl-C nor the end of a terminal reaches it before us.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal, final

__all__ = ["Kept", "keep_command", "keep_directory", "keep_process"]

_SCRIPT: Final = Path(__file__).with_name("_sweep.py")
_EXIT_LIMIT: Final = 10.0

Kind = Literal["process", "command", "directory"]


@final
class _Janitor:
    """The helper process of this process; made anew in a forked child, whose servers are its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner = 0
        self._process: subprocess.Popen[bytes] | None = None

    def tell(self, verb: Literal["add", "drop"], kind: Kind, value: str) -> None:
        line = json.dumps([verb, kind, value]).encode() + b"\n"
        with self._lock:
            process = self._running()
            assert process.stdin is not None
            process.stdin.write(line)
            process.stdin.flush()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._owner != os.getpid():
            self._owner = os.getpid()
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_SCRIPT), str(self._owner)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
            atexit.register(self.close)
        return self._process

    def close(self) -> None:
        """Let it clean up now, and wait until it has."""
        with self._lock:
            process, self._process = self._process, None
            if process is None or self._owner != os.getpid():
                return
            assert process.stdin is not None
            with contextlib.suppress(OSError):
                process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_EXIT_LIMIT)


_janitor: Final = _Janitor()


@final
class Kept:
    """Something that is put away when this process ends, unless `forget` was called."""

    def __init__(self, kind: Kind, value: str) -> None:
        self._kind: Kind = kind
        self._value = value
        self._owner = os.getpid()
        _janitor.tell("add", kind, value)

    def forget(self) -> None:
        """It has been put away. May be called twice, and does nothing in a forked child."""
        if self._owner == os.getpid():
            self._owner = 0
            _janitor.tell("drop", self._kind, self._value)


def keep_process(tag: str) -> Kept:
    """Kill every process that has `tag` as one of its arguments."""
    return Kept("process", tag)


def keep_command(arguments: Sequence[str]) -> Kept:
    """Run a command, for at most 30 s."""
    return Kept("command", json.dumps(list(arguments)))


def keep_directory(path: Path) -> Kept:
    """Delete a directory with all that is in it."""
    return Kept("directory", str(path))
