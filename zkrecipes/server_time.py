"""What the time of day is for the servers, at least. Pure: the clock is passed in.

Delays, retention and windows are counted by the servers' clock, which all clients share, never by a host's, which may
be wrong by an hour. Each answered write of ours tells the leader's time at some moment before the answer came; since
then at least as much time has passed there as our own clock says, less its drift.

Does not promise: more than the leader's own clock. Where a new leader's clock is behind the last one's, times are early
by that much until the next write is answered.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import final

__all__ = ["ServerTime"]


@final
class ServerTime:
    """One a client. Under the step lock.

    Args:
        now: Our clock, in seconds.
        drift: The largest difference in speed between our clock and the server's, as a part of 1.
    """

    def __init__(self, now: Callable[[], float], drift: float) -> None:
        self._now = now
        self._slowest = 1.0 - drift
        self._seen = 0
        self._seen_at = -math.inf

    def saw(self, time: int) -> None:
        """A write of ours has just been answered, which the leader has done at this time (ms since 1970)."""
        # The newest counts, not the largest: a leader whose clock was an hour ahead must not be believed for ever.
        self._seen, self._seen_at = time, self._now()

    @property
    def age(self) -> float:
        """Seconds since the newest answer; infinite if there is none. With its age it falls behind."""
        return self._now() - self._seen_at

    def at_least(self) -> int | None:
        """A time, in ms since 1970, that the servers' clock has reached; None if no write was answered yet."""
        if self._seen_at == -math.inf:
            return None
        return self._seen + int(1000 * self._slowest * self.age)
