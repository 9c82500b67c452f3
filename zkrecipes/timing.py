"""Timeouts and deadlines. Pure: the clock is passed in.

A timeout is what a caller gives (seconds from now); a deadline is made from it once, at the boundary, and passed down.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, final

__all__ = ["NEVER", "Deadline", "Timeout", "to_seconds"]

Timeout = float | timedelta | None
"""Seconds, or a timedelta; None waits for ever."""

NEVER: Final = math.inf


def to_seconds(value: Timeout, name: str = "timeout") -> float:
    """Check a timeout and return it in seconds; None becomes infinity.

    Raises:
        TypeError: It is no number and no timedelta.
        ValueError: It is negative or NaN.
    """
    if value is None:
        return NEVER
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float):
        message = f"{name} must be a number of seconds, a timedelta or None (for ever), not {type(value).__name__}"
        raise TypeError(message)
    if math.isnan(value) or value < 0:
        message = f"{name} must be 0 or more seconds, not {value!r}"
        raise ValueError(message)
    return float(value)


@final
@dataclass(frozen=True, slots=True)
class Deadline:
    """A point in time on our clock, made once from a caller's timeout.

    Attributes:
        at: The point, in seconds of the clock that made it; infinite if there is none.
        timeout: The caller's timeout in seconds, for messages.
    """

    at: float
    timeout: float

    @classmethod
    def after(cls, timeout: Timeout, now: float, name: str = "timeout") -> Deadline:
        """The deadline that lies `timeout` after `now`."""
        seconds = to_seconds(timeout, name)
        return cls(now + seconds, seconds)

    def remaining(self, now: float) -> float:
        """Seconds left, 0.0 if it has passed."""
        return max(0.0, self.at - now)

    def passed(self, now: float) -> bool:
        """Whether it has been reached."""
        return now >= self.at
