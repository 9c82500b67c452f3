"""One term of a leader: when it must stop, what it proclaims, how healthy it is. Driver-free, but for the shell."""

from __future__ import annotations

import math
from enum import Enum
from typing import TYPE_CHECKING, Literal, final

from zkrecipes.core import DEFAULT, Core, DefaultTimeout
from zkrecipes.errors import LeadershipLostError, TransactionError
from zkrecipes.flow import Pending, first_of
from zkrecipes.handle import Handle, HandleState, HoldState, Signal
from zkrecipes.health import Health
from zkrecipes.hold import Grip, SignalState
from zkrecipes.operations import checked_data
from zkrecipes.port import Check, Create, Multi, Set
from zkrecipes.timing import Timeout, to_seconds

if TYPE_CHECKING:
    from zkrecipes.client import Client

__all__ = ["Leadership", "LeadershipState", "OnSuspended", "StopReason", "Term", "checked_grace", "decode_proclaimed"]

OnSuspended = Literal["stop", "keep_until_deadline"]


@final
class StopReason(Enum):
    """Why a leader must stop."""

    SUSPENDED = "the connection is suspended, or the lease is about to run out"
    RESIGNED = "the leadership was resigned"
    EXPIRED = "the server ended the session"
    UNREACHABLE = "no proof of the session could be had from the servers in time"
    NODE_DELETED = "somebody deleted the node"
    CLOSED = "the client was closed"
    FORKED = "this process is a fork of the one that leads"


def largest_grace(core: Core) -> float:
    """The longest stop_grace, in seconds, that a healthy connection never reaches.

    Heartbeats come each sixth of the session timeout T. The proof that a beat renews is the newest answer a margin
    older, that is, some whole beats older; just before the next beat's answer, the lease is shorter by one more beat.
    """
    session = core.session
    timeout, margin = session.timeout, session.lease.margin
    if not timeout:
        return math.inf  # not negotiated yet; it is looked at again when a term begins
    beats = math.ceil(margin / (timeout / 6) - 1e-9) + 1
    return 0.8 * (timeout - margin - beats * timeout / 6)


def checked_grace(core: Core, stop_grace: Timeout) -> float:
    """Check a grace against the negotiated session timeout; None is an eighth of it, or what is possible.

    Raises:
        ValueError: It is longer than a healthy connection can give.
    """
    largest = largest_grace(core)
    if stop_grace is None:
        return min(core.session.timeout / 8, largest)
    grace = to_seconds(stop_grace, "stop_grace")
    if grace > largest:
        message = (
            f"stop_grace must be at most {largest:.2f} s with a session timeout of {core.session.timeout:g} s, not "
            f"{grace:g}; for a longer one, ask for a longer session_timeout, or tell connect() the server_tick"
        )
        raise ValueError(message)
    return grace


@final
class Term:
    """A leader's grip, and the signal to stop, which comes before the lease ends.

    Args:
        core: The client's core.
        grip: On the leader's node.
        grace: Seconds before the end of the lease at which the work is told to stop.
        on_suspended: Whether a suspended connection ends the term at once.
        cancelled: Done when the run is cancelled.
    """

    def __init__(
        self, core: Core, grip: Grip, grace: float, on_suspended: OnSuspended, cancelled: Pending[None] | None = None
    ) -> None:
        self.core = core
        self.grip = grip
        self.grace = grace
        self.should_stop: SignalState[StopReason] = SignalState(core.runtime, self._reason)
        self._stop_when_suspended = on_suspended == "stop"
        self._suspensions = core.session.suspensions
        self._cancelled: Pending[None] = Pending() if cancelled is None else cancelled
        self._latched: StopReason | None = None
        self._over: Pending[None] = Pending()
        core.runtime.spawn(self._mind(), f"term of {grip.hold.path}")

    def _reason(self) -> StopReason | None:
        """By the clock, when asked; once there is a reason, it stays."""
        if self._latched is None:
            self._latched = self._look()
        return self._latched

    def _look(self) -> StopReason | None:
        lost = self.grip.reason
        if lost is not None:
            return StopReason[lost.name]
        if self.grip.released or self._cancelled.done:
            return StopReason.RESIGNED
        if self._stop_when_suspended and self.core.session.suspensions != self._suspensions:
            return StopReason.SUSPENDED
        return StopReason.SUSPENDED if self.out_of_time else None

    @property
    def out_of_time(self) -> bool:
        """Whether the lease ends within the grace, or has ended: work that still runs must be ended now."""
        return self.grip.remaining() <= self.grace

    def time_to_stop(self) -> float:
        """Seconds until the lease, as it is now, ends less the grace."""
        return max(0.0, self.grip.remaining() - self.grace)

    async def running_out(self) -> None:
        """Wait until work that still runs must be ended, or the term is over."""
        while not self.out_of_time and not self._over.done:
            until = self.core.runtime.now() + self.time_to_stop()
            await first_of(self.grip.lost.fired, self.core.session.changed, self._over, until=until)

    async def resign(self) -> None:
        """Give the leadership up; the second time, nothing happens."""
        self._over.resolve(None)
        if self._reason() is None:
            self._latched = StopReason.RESIGNED
        if self._latched is not None:
            self.should_stop.fire(self._latched)
        await self.grip.release()

    async def proclaim(self, data: bytes, timeout: Timeout | DefaultTimeout) -> None:
        """Publish data as the leader's, refused by the server unless we lead."""
        deadline = self.core.deadline(timeout)
        hold = self.grip.hold
        path = proclaimed_path(hold.path.rpartition("/")[0])
        payload = b"1 %d\n" % self.grip.token + checked_data(data)
        check = Check(hold.path, hold.version)
        create = False
        while True:
            # The place of the data has a fixed name, and is made by the first leader who proclaims anything.
            write = Create(path, payload, acl=self.core.nodes.acl) if create else Set(path, payload)
            try:
                await self.core.ask(Multi((check, write)), deadline, path)
            except TransactionError as refused:
                if refused.index == 0:
                    message = "only the leader may proclaim, and this leadership has ended"
                    raise LeadershipLostError(message, path=path, reason=self.grip.reason) from refused
                if refused.index != 1:
                    raise
                if deadline.passed(self.core.runtime.now()):
                    raise self.core.session.unavailable(path) from refused
                create = not create
            else:
                return

    async def _mind(self) -> None:
        """Tell the signal in time; the reader's own look at the clock does not depend on it."""
        session = self.core.session
        while not self._over.done:
            reason = self._reason()
            if reason is not None:
                self.should_stop.fire(reason)
                return
            until = self.core.runtime.now() + self.time_to_stop()
            await first_of(self.grip.lost.fired, session.changed, self._cancelled, self._over, until=until)


def proclaimed_path(path: str) -> str:
    """Where the leader's data is: beside the line, since nothing but contenders may be in it."""
    return f"{path}-proclaimed"


def decode_proclaimed(raw: bytes, token: int) -> bytes:
    """The data, if the leader with this token has proclaimed it; empty otherwise."""
    head, separator, data = raw.partition(b"\n")
    return data if separator and head == b"1 %d" % token else b""


class LeadershipState(HandleState):
    """What threads and asyncio share of a leadership."""

    _lost_error = LeadershipLostError
    _what = "leadership"
    term: Term

    def health(self) -> Health:
        """For health checks: bad as soon as this leader cannot confirm any more that it leads."""
        state = self.state
        if state is HoldState.HELD and self.valid:
            return Health(ok=True, state="leading")
        if state is HoldState.UNCERTAIN:
            return Health(ok=False, state="uncertain", reason="the connection is suspended")
        reason = self._grip.reason
        return Health(ok=False, state=state.value, reason="resigned" if reason is None else reason.value)


@final
class Leadership(Handle, LeadershipState):
    """Held while we lead. Leaving its `with` block resigns.

    Attributes:
        lost: Set when the leadership has ended otherwise than by resigning.
        should_stop: Set when the work must stop: before the lease ends, by the grace; with its reason.
    """

    def __init__(self, client: Client, term: Term, label: str) -> None:
        super().__init__(client, term.grip, label)
        self.term = term
        self.should_stop: Signal[StopReason] = Signal(client, term.should_stop)

    def proclaim(self, data: bytes, *, timeout: Timeout | DefaultTimeout = DEFAULT) -> None:
        """Publish data as the leader's: `Election.leader()` and observers see it while we lead.

        Raises:
            LeadershipLostError: We do not lead any more; nothing was written.
            OutcomeUnknownError: The reply was lost; it may have been published.
        """
        self._client.run(self.term.proclaim(data, timeout))

    def resign(self) -> None:
        """Give the leadership up; the same as release()."""
        self.release()

    def release(self) -> None:
        """Give the leadership up. Idempotent, from any thread; never raises for a lost leadership."""
        self._client.run(self.term.resign())
