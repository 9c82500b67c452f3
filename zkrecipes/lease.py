"""The lease clock: until when no server can have expired our session. Pure; times are passed in.

Let T be the negotiated session timeout, W the newest committed write (an answered request that took a zxid) and B the
moment at which the oldest write still unanswered when W was sent had been sent (W's own moment, if there was none).
Let R be the newest request that had been answered by B - margin. Then

    until = sent(R) + T - margin - drift

Why not simply "last answer + T": a follower that is cut off from its leader goes on answering reads and pings, while
the leader, who alone expires sessions, has heard nothing. Only a committed write proves that leader and follower still
talked; and R's sign of life travelled to the leader with a ping reply (each half tick) before W did. The margin in
`until` covers a leader that freezes between two pings and wakes just then. A session's first handshake is itself a
committed write that starts the leader's timer.

The margin is T/4, or half a tick where the operator's tick is told (sessions last two ticks at least, so half a tick is
at most T/4). The drift covers two clocks that run at different speeds.
"""

from __future__ import annotations

import math
from collections import deque
from typing import NamedTuple, final

__all__ = ["Lease", "Stamp"]


@final
class Stamp(NamedTuple):
    """What was known when a request was written.

    Attributes:
        sent: When it was written.
        basis: B of this request, if it is a write.
        write: Whether an answer takes a zxid.
    """

    sent: float
    basis: float
    write: bool


@final
class Lease:
    """The lease of one session.

    Args:
        timeout: T, the negotiated session timeout, in seconds.
        margin: T/4, or half the server's tick where that is known, in seconds.
        drift: The largest difference in speed of two clocks, as a part of 1.
    """

    MIN_DRIFT = 0.05

    def __init__(self, timeout: float, margin: float, drift: float) -> None:
        self.timeout = timeout
        self.margin = margin
        self.drift = max(drift * timeout, self.MIN_DRIFT)
        self.until = -math.inf
        self.heard = -math.inf  # when the newest answered request was sent, whoever answered
        self._answered: deque[tuple[float, float]] = deque()  # (sent, answered), oldest first
        self._writes: deque[Stamp] = deque()  # the unanswered ones, oldest first
        self._grain = timeout / 256

    def started(self, since: float, now: float) -> None:
        """The handshake of a new session, sent after `since`, has been answered."""
        self._note(since, now)
        self.until = max(self.until, since + self.timeout - self.drift)

    def resumed(self, since: float | None, now: float) -> None:
        """A handshake that took the session up again has been answered; older requests will not be any more."""
        self.disconnected()
        if since is not None:
            self._note(since, now)

    def disconnected(self) -> None:
        """Nothing that was written on the old connection will be answered any more."""
        self._writes.clear()

    def written(self, now: float, *, write: bool) -> Stamp:
        """A request is being written now."""
        if not write:
            return Stamp(now, now, write=False)
        stamp = Stamp(now, self._writes[0].sent if self._writes else now, write=True)
        self._writes.append(stamp)
        return stamp

    def answered(self, stamp: Stamp, now: float, *, committed: bool) -> None:
        """The request of `stamp` has been answered; `committed` if it took a zxid."""
        self._note(stamp.sent, now)
        if stamp.write and self._writes:
            self._writes.popleft()
        if committed:
            self._extend(stamp.basis - self.margin)

    def _note(self, sent: float, now: float) -> None:
        self.heard = max(self.heard, sent)
        # Writes that are answered from now on look for what was answered a margin before their basis, at the earliest
        # (that of the oldest one, which may lie before the oldest unanswered write): of what is older, the newest
        # will do.
        self._forget((self._writes[0].basis if self._writes else now) - self.margin)
        # To leave out what was both sent and answered within 1/256 of T after another shortens the lease by that at
        # most.
        last = self._answered[-1] if self._answered else (-math.inf, -math.inf)
        if sent - last[0] >= self._grain or now - last[1] >= self._grain:
            self._answered.append((sent, now))

    def _extend(self, limit: float) -> None:
        proof = -math.inf
        for sent, answered in self._answered:
            if answered > limit:
                break
            proof = sent
        self.until = max(self.until, proof + self.timeout - self.margin - self.drift)

    def _forget(self, limit: float) -> None:
        while len(self._answered) > 1 and self._answered[1][1] <= limit:
            self._answered.popleft()
