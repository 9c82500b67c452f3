"""Runs a command for as long as a hold can be proved: the wrapper's side of the guardian.

Promises: the command is told to stop (SIGTERM) before the lease ends, and killed, with all that it started, before the
lease ends; it does not outlive us, even if we are killed; the signals that we get are passed on to it.

Does not promise: anything for processes of another user (a command that calls `sudo`), or for what the command asks a
service to do elsewhere.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Final, Literal, NamedTuple, cast, final

from zkrecipes.cli import guardian
from zkrecipes.handle import Handle

__all__ = ["Ended", "InterruptedBySignal", "Signals", "run_child"]

FORWARDED: Final = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGWINCH,
)
ENDING: Final = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT})
SIGNALLED: Final = 128
"""Plus the signal's number: the status of a command that a signal ended, as shells have it."""
Why = Literal["itself", "stopped", "killed", "failed", "guardian"]

_POLL: Final = 0.05
_GRAIN: Final = 0.001
_GUARDIAN_LIMIT: Final = 1.0
_KILL_SHARE: Final = 4
_LONGEST_MARGIN: Final = 0.5


@final
class InterruptedBySignal(KeyboardInterrupt):
    """A signal came while we waited; waits clean up after it as after Ctrl-C.

    Attributes:
        number: The signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@final
class Signals:
    """What to do with the signals we get: before the command runs they end us, then they are for the command.

    Attributes:
        pending: For the command, which has not been told of them yet.
        ending: The last of them that asks a process to end; 0 if there was none.
    """

    def __init__(self) -> None:
        self.pending: list[int] = []
        self.ending = 0
        self._running = False
        self._wake: Callable[[], None] = lambda: None

    @contextlib.contextmanager
    def caught(self) -> Iterator[None]:
        """Catch them, within a `with` block; what was ignored before us (nohup) stays ignored."""
        before = {number: signal.getsignal(number) for number in FORWARDED}
        caught = [number for number in FORWARDED if before[number] is not signal.SIG_IGN]
        for number in caught:
            signal.signal(number, self._handle)
        try:
            yield
        finally:
            for number in caught:
                signal.signal(number, before[number])

    @contextlib.contextmanager
    def collected(self, wake: Callable[[], None]) -> Iterator[None]:
        """Put them into `pending` and call `wake`, within a `with` block."""
        self._wake = wake
        self._running = True
        try:
            yield
        finally:
            self._running = False

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self._running:
            self.pending.append(number)
            self.ending = number if number in ENDING else self.ending
            self._wake()
        elif number in ENDING:
            raise InterruptedBySignal(number)


class Ended(NamedTuple):
    """How a command ended.

    Attributes:
        status: As a shell would tell it: its exit status, or 128 and the number of the signal that ended it.
        why: "itself"; "stopped" or "killed" because of the lease; "failed" if it never started; "guardian" if the
            process that watches it was killed, and the command with it.
        left: Seconds of the lease that were left when nothing of it ran any more.
        message: Why it did not start.
    """

    status: int
    why: Why
    left: float = 0.0
    message: str = ""


def kill_margin(grace: float) -> float:
    """How long before the end of the lease the command is killed, in seconds."""
    return min(grace / _KILL_SHARE, _LONGEST_MARGIN)


def run_child(
    command: Sequence[str],
    handle: Handle,
    *,
    grace: float,
    signals: Signals,
    environment: Mapping[str, str],
    should_stop: Callable[[], bool] = lambda: False,
) -> Ended:
    """Run a command while `handle` is valid, and return when nothing of it is left.

    For a process that has no other children: it adopts, and kills, whatever is below it.

    Args:
        command: The program and its arguments.
        handle: What it needs.
        grace: Seconds before the lease's end at which it gets SIGTERM.
        signals: Where the signals come from that it gets, too.
        environment: Added to ours.
        should_stop: A further reason to stop it.
    """
    # If the guardian is killed, what it watched becomes ours to kill.
    guardian.adopt_orphans()
    margin = kill_margin(grace)
    ours, theirs = socket.socketpair()
    with ours, _Wake() as wake, signals.collected(wake.set), _terminal_kept():
        with theirs:
            until = guardian.clock() + handle.remaining()
            arguments = [str(theirs.fileno()), f"{until:.6f}", f"{grace:.6f}", f"{margin:.6f}", *command]
            process = subprocess.Popen(  # noqa: S603 - to run a command is what we are for
                [sys.executable, "-I", "-S", str(Path(guardian.__file__)), *arguments],
                env={**os.environ, **environment},
                pass_fds=[theirs.fileno()],
            )
        registration = handle.lost.on_set(lambda _reason: wake.set())
        try:
            return _Watch(
                ours, wake, handle=handle, signals=signals, should_stop=should_stop, margin=margin
            ).until_ended()
        finally:
            registration.cancel()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_GUARDIAN_LIMIT)
            process.kill()
            process.wait()
            guardian.kill_descendants(os.getpid())


@final
class _Wake:
    """Ends a select, from a signal handler or another thread."""

    def __init__(self) -> None:
        # Sockets, not a pipe: a callback that comes after close() must not write into a file that got our number.
        self.reader, self._writer = socket.socketpair()
        self.reader.setblocking(False)
        self._writer.setblocking(False)

    def set(self) -> None:
        with contextlib.suppress(OSError):
            self._writer.send(b"!")

    def clear(self) -> None:
        with contextlib.suppress(OSError):
            self.reader.recv(4096)

    def __enter__(self) -> _Wake:
        return self

    def __exit__(self, *error: object) -> None:
        self.reader.close()
        self._writer.close()


@final
class _Watch:
    """Tells the guardian how long the lease is, until it answers."""

    def __init__(
        self,
        channel: socket.socket,
        wake: _Wake,
        *,
        handle: Handle,
        signals: Signals,
        should_stop: Callable[[], bool],
        margin: float,
    ) -> None:
        channel.setblocking(False)
        self._channel = channel
        self._wake = wake
        self._handle = handle
        self._signals = signals
        self._should_stop = should_stop
        self._margin = margin
        self._told_until = 0.0
        self._told = False
        self._overdue_at = math.inf

    def until_ended(self) -> Ended:
        answer = b""
        while True:
            self._inform()
            ready, _, _ = select.select([self._channel, self._wake.reader], [], [], _POLL)
            if self._wake.reader in ready:
                self._wake.clear()
            if self._channel in ready:
                chunk = self._channel.recv(65536)
                answer += chunk
                if answer.endswith(b"\n"):
                    return _read(answer.decode(errors="replace").strip())
                if not chunk:
                    guardian.kill_descendants(os.getpid())
                    return Ended(SIGNALLED + signal.SIGKILL, "guardian", self._handle.remaining())
            elif self._guardian_is_late():
                guardian.kill_descendants(os.getpid())
                return Ended(SIGNALLED + signal.SIGKILL, "killed", self._handle.remaining())

    def _inform(self) -> None:
        remaining = self._handle.remaining()
        if remaining == 0.0:
            self._say("lost")
        else:
            until = guardian.clock() + remaining
            if abs(until - self._told_until) > _GRAIN:
                self._told_until = until
                self._say(f"until {until:.6f}")
        if not self._told and self._should_stop():
            self._told = True
            self._say("stop")
        pending = self._signals.pending
        while pending:
            self._say(f"signal {pending.pop(0)}")

    def _say(self, message: str) -> None:
        # A guardian that stands still does not read; it must not stop us, who then do its work.
        with contextlib.suppress(OSError):
            self._channel.send(message.encode() + b"\n")

    def _guardian_is_late(self) -> bool:
        now = guardian.clock()
        if self._handle.remaining() > self._margin / 2:
            self._overdue_at = math.inf
        elif self._overdue_at == math.inf:
            self._overdue_at = now + self._margin / 4
        return now >= self._overdue_at


def _read(answer: str) -> Ended:
    verb, status, rest = answer.split(" ", 2)
    if verb == "failed":
        return Ended(int(status), "failed", message=rest)
    why, left = rest.split(" ")
    number = int(status)
    return Ended(SIGNALLED - number if number < 0 else number, cast("Why", why), float(left))


@contextlib.contextmanager
def _terminal_kept() -> Iterator[None]:
    """Take the terminal back from the command's process group when it has ended."""
    group: int | None = None
    with contextlib.suppress(OSError):
        if os.isatty(0) and os.tcgetpgrp(0) == os.getpgrp():
            group = os.getpgrp()
    try:
        yield
    finally:
        if group is not None:
            # From the background this raises SIGTTOU, whose default is to stop.
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTTOU])
            with contextlib.suppress(OSError):
                os.tcsetpgrp(0, group)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTTOU])
