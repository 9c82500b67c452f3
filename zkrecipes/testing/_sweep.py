"""The janitor's own process: puts away what a test process leaves behind, even one that was killed by SIGKILL.

Run as a script with the process id of its owner; uses the standard library only. It reads one JSON list a line:
`["add" | "drop", kind, value]`. When its input ends or its owner is gone, it undoes what was added and not dropped, in
this order: processes ("process": an exact argument of their command line), then commands ("command": a JSON list of
arguments to run, as for containers), then directories ("directory").
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_POLL: Final = 0.25
_COMMAND_LIMIT: Final = 30.0

Entry = tuple[str, str]


def main() -> None:
    """Serve one owner until it closes our input or dies, then clean up."""
    owner = int(sys.argv[1])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    entries: dict[Entry, None] = {}
    rest = b""
    for chunk in _chunks(owner):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            _apply(entries, line)
    _clean(list(entries))


def _chunks(owner: int) -> Iterable[bytes]:
    """What the owner writes, until it closes the pipe or dies.

    A forked child of the owner may hold the pipe open for longer than the owner lives, so the owner is watched too.
    """
    alive = None
    with contextlib.suppress(AttributeError, OSError):
        alive = os.pidfd_open(owner)
    waiting = [0] if alive is None else [0, alive]
    while True:
        ready, _, _ = select.select(waiting, [], [], _POLL)
        if 0 in ready:
            chunk = os.read(0, 65536)
            if not chunk:
                return
            yield chunk
        elif ready or os.getppid() != owner:
            return


def _apply(entries: dict[Entry, None], line: bytes) -> None:
    verb, kind, value = json.loads(line)
    if verb == "add":
        entries[kind, value] = None
    else:
        entries.pop((kind, value), None)


def _clean(entries: list[Entry]) -> None:
    tags = {value for kind, value in entries if kind == "process"}
    if tags:
        _kill(tags)
    for kind, value in entries:
        if kind == "command":
            with contextlib.suppress(OSError, subprocess.SubprocessError):
                subprocess.run(  # the owner is gone: nobody could read its output
                    json.loads(value),
                    check=False,
                    timeout=_COMMAND_LIMIT,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
    for kind, value in entries:
        if kind == "directory":
            shutil.rmtree(value, ignore_errors=True)


def _kill(tags: set[str]) -> None:
    """Kill every process that has one of the tags as an argument.

    By its arguments rather than by a process id: an id may have been given to somebody else, and a process that was
    started just before its owner died was never reported by id.
    """
    for pid, arguments in _processes():
        if tags.intersection(arguments):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)


def _processes() -> Iterable[tuple[int, list[str]]]:
    root = Path("/proc")
    if (root / "self" / "cmdline").exists():
        for entry in root.iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    yield int(entry.name), (entry / "cmdline").read_text(errors="replace").split("\0")
        return
    listing = subprocess.run(
        ["ps", "-axww", "-o", "pid=,command="],  # noqa: S607 -- part of every system without /proc
        check=False,
        capture_output=True,
        text=True,
    )
    for line in listing.stdout.splitlines():
        pid, _, command = line.strip().partition(" ")
        yield int(pid), command.split()


if __name__ == "__main__":
    main()
