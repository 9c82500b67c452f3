"""The heartbeat: keeps the lease alive, looks after what is held, and notices silent servers. Driver-free.

Each sixth of the session timeout a client that holds something sends one `multi` of checks over all nodes that it
holds: at once a committed write for the lease, and the proof that each node is still there. A client that holds
nothing sends one cheap read, so that the lease has an answer to start from when it acquires. (At a quarter of the
timeout the age of the proof jumps with the least jitter, and holds were lost on healthy servers.)
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, final

from zkrecipes.errors import AccessDeniedError
from zkrecipes.flow import Pending, first_of
from zkrecipes.hold import Hold, LostReason
from zkrecipes.port import Check, Exists, Multi, State

if TYPE_CHECKING:
    from zkrecipes.calls import Call
    from zkrecipes.session import Session

__all__ = ["Heartbeat"]

logger = logging.getLogger("zkrecipes.heartbeat")

CHECKS_IN_ONE_BEAT: Final = 250


@final
class Heartbeat:
    """The task of one session."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def keep(self) -> None:
        """Runs until the client is closed."""
        while not self._session.closed:
            now = self._session.runtime.now()
            self._session.latch(now)
            self._look_for_silence(now)
            if self._session.usable and now >= self._session.next_beat:
                self._beat(now)
            await first_of(self._session.changed, self._session.kicked, until=self._next_look(now))
            if self._session.kicked.done:
                self._session.kicked = Pending()

    def _next_look(self, now: float) -> float:
        if not self._session.timeout:
            return math.inf
        times = [now + self._session.timeout / 6]
        if self._session.usable:
            times.append(self._session.next_beat)
        if self._session.unanswered:
            limits = (*self._silence_limits(), *((self._doubtful,) if self._session.unproven else ()))
            oldest = self._session.unanswered[0].handed
            times.extend(oldest + limit for limit in limits if oldest + limit > now)
        if self._session.holds:
            times.append(self._session.lease.until)
        return min(times)

    @property
    def _doubtful(self) -> float:
        return max(0.1, self._session.timeout / 100) * 2.0**self._session.doubts

    def _silence_limits(self) -> tuple[float, float]:
        alone = self._session.transport is None or self._session.transport.servers <= 1
        # With one server only there is nobody better to ask: a slow one must not get a storm of reconnects.
        return self._session.timeout / 6, self._session.timeout / 2 if alone else self._session.timeout / 6

    def _look_for_silence(self, now: float) -> None:
        if not self._session.linked or not self._session.unanswered or self._session.transport is None:
            return
        silence = now - self._session.unanswered[0].handed
        if self._session.unproven and silence >= self._doubtful:
            # Each time twice as long, up to the ordinary limit: a server that is only slow must not get a storm.
            self._session.unproven = False
            self._session.doubts += 1
            self._session.transport.reconnect()
            return
        uncertain, hopeless = self._silence_limits()
        if silence >= uncertain and not self._session.silent:
            self._session.silent = True
            self._session.enter(State.SUSPENDED)
        if silence >= hopeless and not self._session.dropping:
            # kazoo notices a silent server only when it has nothing to send.
            self._session.dropping = True
            logger.warning("No answer for %.2f s: the connection is made anew", silence)
            self._session.transport.reconnect()

    def _beat(self, now: float) -> None:
        self._session.next_beat = now + self._session.timeout / 6
        holds = list(self._session.holds.values())
        for start in range(0, len(holds), CHECKS_IN_ONE_BEAT):
            self._confirm(holds[start : start + CHECKS_IN_ONE_BEAT])
        for hold in holds:
            if not hold.watched and now - hold.born > self._session.timeout / 12:
                self._watch_hold(hold)
        if not holds and not self._session.unanswered:
            self._session.call(Exists("/"))

    def _confirm(self, holds: Iterable[Hold]) -> None:
        present = [hold for hold in holds if self._session.holds.get(hold.path) is hold]
        if present and self._session.usable:
            call = self._session.call(Multi(tuple(Check(hold.path, hold.version) for hold in present)))
            call.add_waiter(lambda: self._confirmed(call, present))

    def _confirmed(self, call: Call[Any], holds: list[Hold]) -> None:
        if not call.failed:
            return
        index = getattr(call.error, "index", -1)
        if 0 <= index < len(holds):
            # The failed check names the node that is not there; the others are asked for again at once, since a multi
            # that failed has confirmed none of them.
            hold = holds[index]
            if self._session.holds.get(hold.path) is hold:
                denied = isinstance(call.error.__cause__, AccessDeniedError) if call.error is not None else False
                if denied:
                    logger.error("Cannot confirm %s: its ACL must let us read our own node; see acl=", hold.path)
                self._session.give_up(hold, LostReason.UNREACHABLE if denied else LostReason.NODE_DELETED)
            self._confirm(holds[:index] + holds[index + 1 :])

    def _watch_hold(self, hold: Hold) -> None:
        """A removal by somebody else is then told at once, not with the next beat."""
        call = self._session.call(Exists(hold.path, watch=True))
        hold.watched = True

        def set_up() -> None:
            if call.failed or call.watch is None:
                hold.watched = False
            elif call.result() is None:
                self._found_deleted(hold)
            else:
                call.watch.add_waiter(lambda: self._look_at(hold))

        call.add_waiter(set_up)

    def _look_at(self, hold: Hold) -> None:
        # Fired for data that changed, for a removal, and when the connection ended: ask.
        hold.watched = False
        if self._session.holds.get(hold.path) is hold and self._session.usable:
            self._watch_hold(hold)

    def _found_deleted(self, hold: Hold) -> None:
        if self._session.holds.get(hold.path) is hold:
            self._session.give_up(hold, LostReason.NODE_DELETED)
