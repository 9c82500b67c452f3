"""The handle: what you hold. The same for locks, leaderships, claims and memberships.

Promises: `valid` is True only while we can prove that we hold it, computed from the clock when asked; `lost` fires
once; `release` can be called again, from any thread, and never raises for a lost hold; a guarded write is refused by
the server itself if we do not hold it any more.

A handle must be kept: one that is dropped unreleased is released soon after, with a warning in the log.

Does not promise: that work stops by itself when the hold is lost. Ask `valid` or `raise_if_lost()` before each step
that matters, and guard each write.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Self, TypeVar, final

from zkrecipes.errors import ClosedError, LostError
from zkrecipes.flow import first_of
from zkrecipes.hold import Grip, LostReason, Registration, SignalState
from zkrecipes.port import State
from zkrecipes.timing import Deadline, Timeout

if TYPE_CHECKING:
    from zkrecipes.client import Client, Transaction
    from zkrecipes.core import Core
    from zkrecipes.operations import Plan

__all__ = ["Handle", "HandleState", "HoldState", "LostReason", "Registration", "Signal", "SignalView"]

R = TypeVar("R")


@final
class HoldState(Enum):
    """What is known of a hold."""

    HELD = "held"
    UNCERTAIN = "uncertain"
    """The connection is suspended; the hold can still be proved, but not for long."""
    LOST = "lost"
    RELEASED = "released"


class SignalView(Generic[R]):
    """What threads and asyncio share of a signal."""

    def __init__(self, core: Core, state: SignalState[R]) -> None:
        self._core = core
        self._state = state

    def is_set(self) -> bool:
        """Whether it is set; by the clock, so before anybody was told."""
        return self._state.reason is not None

    @property
    def reason(self) -> R | None:
        """Why it is set; None while it is not."""
        return self._state.reason

    def on_set(self, callback: Callable[[R], None]) -> Registration:
        """Call `callback(reason)` once, when it fires; at once if it is set."""
        return self._state.on_set(callback)

    async def _wait(self, timeout: Timeout) -> bool:
        deadline = Deadline.after(timeout, self._core.runtime.now())
        while not self.is_set() and not deadline.passed(self._core.runtime.now()):
            await first_of(self._state.fired, until=deadline.at)
        return self.is_set()

    def __repr__(self) -> str:
        reason = self.reason
        return f"<{type(self).__name__} {'not set' if reason is None else f'set: {reason}'}>"


@final
class Signal(SignalView[R]):
    """Something that happens at most once, and says why."""

    def __init__(self, client: Client, state: SignalState[R]) -> None:
        super().__init__(client.core, state)
        self._client = client

    def wait(self, timeout: Timeout = None) -> bool:
        """Block until it is set, `timeout` seconds at most; whether it is."""
        return self._client.run(self._wait(timeout))


def core_of(client: object, *, aio: bool) -> Core:
    """The core of a client of the right kind.

    Raises:
        TypeError: It is no client, or one for threads where one for asyncio is needed, or the other way round.
    """
    if getattr(client, "aio", None) is not aio:
        home = "zkrecipes.aio" if aio else "zkrecipes"
        kind = f"{type(client).__module__}.{type(client).__name__}"
        message = (
            f"client must be a {home}.Client, from {home}.connect(), not {kind}; "
            f"wrap a KazooClient by {home}.Client(kazoo)"
        )
        raise TypeError(message)
    core: Core = client.core  # type: ignore[attr-defined]  # told by the marker
    return core


class HandleState:
    """What threads and asyncio share of a handle: everything that sends nothing."""

    _lost_error: type[LostError] = LostError
    _what = "hold"

    def __init__(self, core: Core, grip: Grip, label: str) -> None:
        self._core = core
        self._grip = grip
        self.path = label
        core.nodes.look_after(self, grip)

    @property
    def token(self) -> int:
        """The fencing token: rises strictly from holder to holder. Holders that share a node share it (see `turn`)."""
        return self._grip.token

    @property
    def turn(self) -> int:
        """Tells holders of this process that share one node apart: 1, 2, … in order."""
        return self._grip.turn

    @property
    def valid(self) -> bool:
        """Whether we can prove at this moment that we hold it. Once False, it stays False."""
        return self._grip.valid

    @property
    def state(self) -> HoldState:
        """Held, uncertain, lost or released."""
        if self._grip.reason is not None:
            return HoldState.LOST
        if self._grip.released:
            return HoldState.RELEASED
        session = self._core.session
        certain = session.state is State.CONNECTED and not session.unconfirmed
        return HoldState.HELD if certain else HoldState.UNCERTAIN

    def remaining(self) -> float:
        """Seconds for which we could prove it if no server answered any more; 0.0 if we cannot now."""
        return self._grip.remaining()

    def raise_if_lost(self) -> None:
        """Raise the recipe's LostError, with the reason, if it was lost.

        Raises:
            ClosedError: It was released.
        """
        reason = self._grip.reason
        if reason is not None:
            raise self._lost(reason)
        if self._grip.released:
            raise self._released()

    def check_held(self) -> None:
        """Raise unless it is held: LostError if it was lost, ClosedError if it was released."""
        self.raise_if_lost()

    def _check_entered(self) -> None:
        # A body that runs under a handle which was released before would run without the lock, in silence.
        if self._grip.released:
            raise self._released()

    def _guard(self, plan: Plan) -> None:
        self.check_held()
        plan.guard(self, self._grip.hold.path, self._grip.hold.version)

    def _lost(self, reason: LostReason) -> LostError:
        message = f"the {self._what} {self.path} (token {self.token}) was lost: {reason.value}"
        return self._lost_error(message, path=self.path, reason=reason)

    def _released(self) -> ClosedError:
        message = f"the {self._what} {self.path} (token {self.token}) was released; acquire it again"
        return ClosedError(message, path=self.path)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path} token={self.token} turn={self.turn} {self.state.value}>"


class Handle(HandleState):
    """A hold, for threads. Leaving its `with` block releases it, and raises LostError if it had been lost by then."""

    def __init__(self, client: Client, grip: Grip, label: str) -> None:
        super().__init__(client.core, grip, label)
        self._client = client
        self.lost: Signal[LostReason] = Signal(client, grip.lost)

    def guard(self, tx: Transaction) -> None:
        """Add a check of our node to a transaction: the server refuses it all if we do not hold it any more.

        Raises:
            LostError: It was lost already.
            ClosedError: It was released.
        """
        self._guard(tx.plan)

    def release(self) -> None:
        """Let go. Idempotent, from any thread; what cannot be sent now is done in the background."""
        self._client.run(self._grip.release())

    def __enter__(self) -> Self:
        self._check_entered()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        reason = None if self._grip.released else self._grip.reason
        if reason is not LostReason.FORKED:
            self.release()
        if reason is not None and error is None:
            raise self._lost(reason)
