"""The guardian: a small process between `zkrecipes lock run` and the command, which sees that the command ends in time.

It runs as a script of its own, with the standard library only, and is the command's parent. Its input is a socket from
the wrapper; one line a message: `until SECONDS` (the end of the lease, on the clock of `clock()`), `stop`, `lost`,
`signal NUMBER`. Its answer, at the end: `ended STATUS WHY LEFT`; `failed STATUS MESSAGE` if the command did not start.

The command is told to stop (SIGTERM) at `until - grace` and killed, with all that it started, at `until - margin`; on
`lost`, at once; and if the wrapper is gone, for whatever reason, at once as well. A wrapper that stands still (SIGSTOP)
sends no newer `until`, so the last one counts. Nothing that the command started outlives it: on Linux the guardian is
the reaper of all its orphans, elsewhere the process group has to do.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, final

__all__ = ["adopt_orphans", "clock", "descendants", "kill_descendants"]

NOT_EXECUTABLE: Final = 126
NOT_FOUND: Final = 127
STOP_LIMIT: Final = 10.0
"""Seconds that a command may take to stop after it was told to, while the lease goes on nevertheless."""
KILL_LIMIT: Final = 5.0
"""Seconds for which we go on killing; what is left then cannot be killed by us (as after `sudo`)."""

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_POLL: Final = 0.1
_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
# Passed on to the command by the wrapper, or sent to it by the terminal; the guardian itself must outlive them.
_NOT_FOR_US: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP)


def clock() -> float:
    """The clock of leases: it runs on while the machine sleeps."""
    return time.clock_gettime(_CLOCK)


# --- processes --------------------------------------------------------------------------------------------------------


def adopt_orphans() -> None:
    """Become the parent of every descendant that loses its own (Linux)."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def descendants(root: int) -> list[int]:
    """The living processes below `root`; empty where there is no /proc."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            # The name, in parentheses, may hold anything; what we need follows on it.
            state, parent = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
            if state not in {"Z", "X"}:
                children.setdefault(int(parent), []).append(int(entry.name))
    found, front = [], [root]
    while front:
        below = children.get(front.pop(), [])
        found += below
        front += below
    return found


def kill_descendants(root: int, group: int | None = None) -> list[int]:
    """SIGKILL everything below `root`, and the process group, until nothing is left; return what cannot be killed."""
    deadline = clock() + KILL_LIMIT
    while True:
        if group is not None:
            _send_to_group(group, signal.SIGKILL)
        # Again and again: a process may have forked between our look and its end.
        left = descendants(root)
        for process in left:
            _send(process, signal.SIGKILL)
        if root == os.getpid():
            _reap_others(group)
        if not left or clock() >= deadline:
            return left
        time.sleep(0.002)


def _reap_others(child: int | None) -> None:
    """Bury adopted orphans; the child itself is left for whoever wants its status."""
    for process in [pid for pid in _zombies() if pid != child]:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(process, os.WNOHANG)


def _zombies() -> Iterator[int]:
    mine = str(os.getpid())
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
            if fields[0] == "Z" and fields[1] == mine:
                yield int(entry.name)


def _send(process: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(process, number)


def _send_to_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


# --- the guardian -----------------------------------------------------------------------------------------------------


def start(command: list[str], terminal: int | None) -> subprocess.Popen[bytes]:
    """Start the command in a process group of its own, in the foreground of the terminal if we are.

    Raises:
        OSError: It cannot be started.
    """
    guardian = os.getpid()

    def prepare() -> None:
        # We may be killed: then the command must not go on without anybody who watches its lease.
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != guardian:
            os._exit(NOT_FOUND)
        if terminal is not None:
            # From the background this raises SIGTTOU, whose default is to stop.
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTTOU])
            os.tcsetpgrp(terminal, os.getpid())
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTTOU])

    return subprocess.Popen(command, preexec_fn=prepare, process_group=0)  # noqa: PLW1509, S603 - one thread only


def _foreground_terminal() -> int | None:
    with contextlib.suppress(OSError):
        if os.isatty(0) and os.tcgetpgrp(0) == os.getpgrp():
            return 0
    return None


@final
class Guardian:
    """Watches one command.

    Args:
        channel: To the wrapper.
        child: The command.
        until: The end of the lease as it is now.
        grace: Seconds before the end of the lease at which it is told to stop.
        margin: Seconds before the end of the lease at which it is killed.
        terminal: Whether it is in the foreground of one.
    """

    def __init__(
        self,
        channel: socket.socket,
        child: subprocess.Popen[bytes],
        until: float,
        grace: float,
        margin: float,
        *,
        terminal: bool,
    ) -> None:
        self._channel = channel
        self._child = child
        self._grace = grace
        self._margin = margin
        self._terminal = terminal
        self._buffer = b""
        self._status: int | None = None
        self._until = until
        self._kill_at = math.inf  # when patience ends, whatever the lease says
        self._ending_rest = False
        self._told = False
        self._why = "itself"
        self._wake, wake = os.pipe()
        os.set_blocking(wake, False)
        os.set_blocking(self._wake, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def watch(self) -> None:
        """Until nothing of the command is left. Then answer."""
        while True:
            self._reap()
            if self._status is not None and not self._end_the_rest():
                break
            now = clock()
            if now >= self._until - self._margin or now >= self._kill_at:
                self._kill()
                break
            if now >= self._until - self._grace:
                self._tell()
            self._listen(min(self._next() - now, _POLL))
        self._answer()

    def _next(self) -> float:
        return self._until - (self._margin if self._told else self._grace)

    def _listen(self, seconds: float) -> None:
        ready, _, _ = select.select([self._channel.fileno(), self._wake], [], [], max(0.0, seconds))
        if self._wake in ready:
            os.read(self._wake, 4096)
        if self._channel.fileno() in ready:
            chunk = self._channel.recv(65536)
            if not chunk:
                # The wrapper is gone: nobody knows of the lease any more.
                kill_descendants(os.getpid(), self._group)
                os._exit(1)
            *lines, self._buffer = (self._buffer + chunk).split(b"\n")
            for line in lines:
                self._obey(*line.decode().split(" "))

    def _obey(self, verb: str, argument: str = "") -> None:
        if verb == "until":
            self._until = float(argument)
        elif verb == "stop":
            self._tell()
        elif verb == "lost":
            self._until = 0.0
        elif verb == "signal":
            self._send(int(argument))

    def _tell(self) -> None:
        """Tell it to stop because of the lease, once."""
        if not self._told:
            self._told = True
            self._kill_at = clock() + STOP_LIMIT
            if self._status is None:
                self._why = "stopped"
            # One that was paused hears nothing before it goes on.
            self._send(signal.SIGTERM)
            self._send(signal.SIGCONT)

    @property
    def _group(self) -> int | None:
        """The command's process group, while nobody else can have been given its number."""
        return self._child.pid if self._status is None else None

    def _send(self, number: int) -> None:
        if self._group is not None:
            _send_to_group(self._group, number)

    def _kill(self) -> None:
        if self._status is None:
            self._why = "killed"
        left = kill_descendants(os.getpid(), self._group)
        if left:
            print(f"zkrecipes: could not kill {left}: another user's processes?", file=sys.stderr)
        with contextlib.suppress(ChildProcessError):
            self._note(*os.waitpid(self._child.pid, 0 if self._child.pid not in left else os.WNOHANG))

    def _end_the_rest(self) -> bool:
        """The command has ended: nothing that it started may go on. False if nothing does."""
        left = descendants(os.getpid())
        if left and not self._ending_rest:
            self._ending_rest = True
            self._kill_at = clock() + self._grace
            for process in left:
                _send(process, signal.SIGTERM)
                _send(process, signal.SIGCONT)
        return bool(left)

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                process, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
                if process == 0:
                    return
                self._note(process, status)

    def _note(self, process: int, status: int) -> None:
        if process != self._child.pid:
            return
        if os.WIFSTOPPED(status):
            # Ctrl-Z: nobody could bring it back to the foreground, and it would hold the lock for ever.
            if self._terminal and os.WSTOPSIG(status) == signal.SIGTSTP:
                _send_to_group(process, signal.SIGCONT)
        else:
            self._status = os.waitstatus_to_exitcode(status)

    def _answer(self) -> None:
        if sys.platform != "linux":
            # Without /proc there is no looking for what is left; its group is all that we know.
            _send_to_group(self._child.pid, signal.SIGKILL)
        status = -signal.SIGKILL if self._status is None else self._status
        left = max(0.0, self._until - clock())
        # The wrapper may have been killed in this moment; then nobody asks.
        with contextlib.suppress(OSError):
            self._channel.sendall(f"ended {status} {self._why} {left:.3f}\n".encode())


def main() -> None:
    """guardian.py CHANNEL UNTIL GRACE MARGIN COMMAND..."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    channel.set_inheritable(False)
    until, grace, margin = (float(argument) for argument in sys.argv[2:5])
    command = sys.argv[5:]
    adopt_orphans()
    for number in _NOT_FOR_US:
        # A handler, not SIG_IGN, which the command would inherit; what was ignored before us (nohup) stays so for it.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
    terminal = _foreground_terminal()
    try:
        child = start(command, terminal)
    except (OSError, ValueError) as error:
        status = NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
        channel.sendall(f"failed {status} {error}\n".encode())
        return
    Guardian(channel, child, until, grace, margin, terminal=terminal is not None).watch()


if __name__ == "__main__":
    main()
    os._exit(0)
