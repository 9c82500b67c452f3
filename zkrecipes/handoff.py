"""Local hand-off: threads of one process pass one node on among them, without a request. Driver-free.

Promises: at most `max_turns` holders, and about `max_time` seconds, in a row; then the node is given up, and the next
local contender joins the line behind those of other processes. The holders share one fencing token, told apart by
`turn`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from zkrecipes.contention import enter
from zkrecipes.flow import Algorithm, Pending, first_of
from zkrecipes.hold import Grip, Hold
from zkrecipes.nodes import Nodes
from zkrecipes.patience import Patience, Place, check_cancelled, timed_out

__all__ = ["LocalHandoff", "LocalLine"]


@final
@dataclass(frozen=True)
class LocalHandoff:
    """How long threads of one process may pass a lock on among them before another process gets its turn.

    Attributes:
        max_turns: Holders in a row, the first included.
        max_time: Seconds in a row after which no further local holder begins.
    """

    max_turns: int = 64
    max_time: float = 0.1

    def __post_init__(self) -> None:
        if self.max_turns < 1:
            message = f"max_turns must be 1 or more, not {self.max_turns}"
            raise ValueError(message)
        if not self.max_time >= 0:
            message = f"max_time must be 0 or more seconds, not {self.max_time}"
            raise ValueError(message)


# What a local waiter is given: a hold with its turn, or None: it is its turn to go to the server.
_Pass = tuple[Hold, int] | None


@final
class LocalLine:
    """The local contenders for one lock of one client. One at a time holds the node, or stands in the server's line."""

    def __init__(self, nodes: Nodes, release: Callable[[Hold], Algorithm[None]]) -> None:
        self._nodes = nodes
        self._release = release
        self._busy = False
        self._waiting: deque[Pending[_Pass]] = deque()
        self._since = 0.0

    async def acquire(self, place: Place, patience: Patience, limits: LocalHandoff) -> Grip:
        """Wait for a local turn, or for the server's line."""
        passed = await self._local_turn(place, patience) if self._busy else None
        self._busy = True
        if passed is not None and passed[0].valid:
            return self._grip(passed[0], limits, passed[1])
        try:
            if passed is not None:
                # It was lost while it was handed over: nobody holds it.
                await self._release(passed[0])
            hold = await enter(self._nodes, place, patience)
        except BaseException:
            self._pass_on(None)
            raise
        self._since = self._nodes.runtime.now()
        return self._grip(hold, limits, 1)

    def _grip(self, hold: Hold, limits: LocalHandoff, turn: int) -> Grip:
        async def let_go(grip: Grip) -> None:
            elapsed = self._nodes.runtime.now() - self._since
            if self._waiting and grip.turn < limits.max_turns and elapsed < limits.max_time and hold.valid:
                self._pass_on((hold, grip.turn + 1))
                return
            # The next local contender steps only after our delete has been handed over: others come first.
            self._pass_on(None)
            await self._release(hold)

        return Grip(self._nodes.runtime, hold, let_go, turn)

    def _pass_on(self, what: _Pass) -> None:
        if self._waiting:
            self._waiting.popleft().resolve(what)
        else:
            self._busy = False

    async def _local_turn(self, place: Place, patience: Patience) -> _Pass:
        session, now = self._nodes.session, self._nodes.runtime.now
        if not patience.in_line:
            raise timed_out(place, patience)
        ticket: Pending[_Pass] = Pending()
        self._waiting.append(ticket)
        try:
            while not ticket.done:
                await first_of(ticket, patience.cancelled, session.changed, until=patience.deadline.at)
                if not ticket.done:
                    session.check_open(place.label)
                    check_cancelled(place, patience)
                    if patience.deadline.passed(now()):
                        raise timed_out(place, patience) if session.usable else session.unavailable(place.label)
        except BaseException:
            await self._refuse(ticket)
            raise
        return ticket.result()

    async def _refuse(self, ticket: Pending[_Pass]) -> None:
        """We do not want it any more; what was passed to us at this moment goes on to the next."""
        if not ticket.done:
            self._waiting.remove(ticket)
            return
        passed = ticket.result()
        self._pass_on(passed)
        if passed is not None and not self._busy:
            await self._release(passed[0])
