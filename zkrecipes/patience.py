"""What a contender wants, and how long it waits for it. Driver-free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from zkrecipes.errors import AcquireTimeoutError, CancelledError
from zkrecipes.flow import Pending
from zkrecipes.layouts import Layout
from zkrecipes.timing import Deadline, Timeout

__all__ = ["Patience", "Place", "check_cancelled", "timed_out"]

ONE_FLIGHT = 0.2
"""Seconds for a call that never waits in line."""


@final
@dataclass(frozen=True)
class Place:
    """What a contender wants, and where.

    Attributes:
        path: The line's full path on the server.
        label: The path as the user wrote it, for messages.
        layout: How contenders are named.
        data: What our node holds: the identity.
    """

    path: str
    label: str
    layout: Layout
    data: bytes


@final
@dataclass(frozen=True)
class Patience:
    """How long a contender waits.

    Attributes:
        deadline: The end of the whole call.
        in_line: Whether it waits behind others at all.
        cancelled: Done when somebody cancels the wait.
    """

    deadline: Deadline
    in_line: bool
    cancelled: Pending[None]

    @classmethod
    def of(cls, timeout: Timeout, now: float, cancelled: Pending[None] | None = None) -> Patience:
        """From a caller's timeout: 0 never waits in line, one flight, bounded by 0.2 s."""
        deadline = Deadline.after(timeout, now)
        in_line = deadline.timeout > 0
        if not in_line:
            deadline = Deadline(now + ONE_FLIGHT, 0.0)
        return cls(deadline, in_line, Pending() if cancelled is None else cancelled)


def timed_out(place: Place, patience: Patience, *, left_behind: bool = False) -> AcquireTimeoutError:
    """The error for a deadline that came while others held it."""
    timeout = patience.deadline.timeout
    message = f"{place.label} was still held by others after {timeout:g} s"
    return AcquireTimeoutError(message, path=place.label, timeout=timeout, left_behind=left_behind)


def check_cancelled(place: Place, patience: Patience) -> None:
    """Raise if the wait was cancelled."""
    if patience.cancelled.done:
        message = f"the wait for {place.label} was cancelled by its Cancel object"
        raise CancelledError(message, path=place.label)
