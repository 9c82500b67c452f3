"""What is held on the server, and how its end is told. Driver-free; the public face is handle.py."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Generic, TypeVar, final

from zkrecipes.flow import Algorithm, Pending
from zkrecipes.port import Runtime

if TYPE_CHECKING:
    from zkrecipes.lease import Lease

__all__ = ["Grip", "Hold", "LostReason", "Registration", "SignalState"]

logger = logging.getLogger("zkrecipes.hold")


@final
class LostReason(Enum):
    """Why a hold ended before it was released."""

    EXPIRED = "the server ended the session"
    UNREACHABLE = "no proof of the session could be had from the servers in time"
    NODE_DELETED = "somebody deleted the node"
    CLOSED = "the client was closed"
    FORKED = "this process is a fork of the one that holds it"
    TIMED_OUT = "its visibility timeout has ended"


R = TypeVar("R")


def checked_callback(callback: Callable[..., object]) -> None:
    """Check a callback when it is given, not when it is called.

    Raises:
        TypeError: It cannot be called.
    """
    if not callable(callback):
        message = f"callback must be callable, not {type(callback).__name__}"
        raise TypeError(message)


@final
class Registration:
    """A callback that is registered. `cancel()` takes it off again; cancelling twice does no harm."""

    __slots__ = ("_cancel",)

    def __init__(self, cancel: Callable[[], None]) -> None:
        self._cancel: Callable[[], None] | None = cancel

    def cancel(self) -> None:
        """Take the callback off. One that runs at this moment ends normally."""
        cancel, self._cancel = self._cancel, None
        if cancel is not None:
            cancel()


@final
class SignalState(Generic[R]):
    """A signal that fires at most once, with a reason. Fired under the step lock.

    Args:
        runtime: For the lock and the dispatcher.
        probe: Tells a reason that holds by the clock already, though nobody has fired the signal yet.
    """

    __slots__ = ("_callbacks", "_probe", "_reason", "_runtime", "fired")

    def __init__(self, runtime: Runtime, probe: Callable[[], R | None] = lambda: None) -> None:
        self._runtime = runtime
        self._probe = probe
        self._reason: R | None = None
        self.fired: Pending[R] = Pending()
        self._callbacks: list[Callable[[R], None]] = []

    @property
    def reason(self) -> R | None:
        """Why it is set; None if it is not."""
        return self._probe() if self._reason is None else self._reason

    def fire(self, reason: R) -> None:
        """Fire, unless it has."""
        if self._reason is None:
            self._reason = reason
            callbacks, self._callbacks = self._callbacks, []
            for callback in callbacks:
                self._dispatch(callback, reason)
            self.fired.resolve(reason)

    def on_set(self, callback: Callable[[R], None]) -> Registration:
        """Call `callback(reason)` when it fires; at once, if it has."""
        checked_callback(callback)
        with self._runtime.lock:
            if self._reason is not None:
                self._dispatch(callback, self._reason)
            else:
                self._callbacks.append(callback)
        return Registration(lambda: self._remove(callback))

    def _remove(self, callback: Callable[[R], None]) -> None:
        with self._runtime.lock:
            if callback in self._callbacks:
                self._callbacks.remove(callback)

    def _dispatch(self, callback: Callable[[R], None], reason: R) -> None:
        self._runtime.dispatch(self, lambda: callback(reason))


@final
class Hold:
    """One node of ours that gives us something while it exists.

    Attributes:
        path: Its full path on the server.
        token: Its czxid, the fencing token.
        version: What a guard checks: -1 where the name can never be made twice.
        session_id: The session that owns it.
        over: Done when the hold ends otherwise than by release.
        born: When it was won.
        watched: Whether a watch stands on the node.
        undo: How it is given up, where that is not the removal of its node.
        until: When it ends although its session lives, by our clock; infinite where it does not.
    """

    __slots__ = (
        "_lease",
        "_runtime",
        "born",
        "ended",
        "over",
        "path",
        "released",
        "session_id",
        "token",
        "undo",
        "until",
        "version",
        "watched",
    )

    def __init__(
        self, runtime: Runtime, lease: Lease, session_id: int, path: str, token: int, *, version: int = -1
    ) -> None:
        self._runtime = runtime
        self._lease = lease
        self.session_id = session_id
        self.path = path
        self.token = token
        self.version = version
        self.born = runtime.now()
        self.over: Pending[LostReason] = Pending()
        self.ended: LostReason | None = None
        self.released = False
        self.watched = False
        self.undo: Callable[[], None] | None = None
        self.until = math.inf

    @property
    def valid(self) -> bool:
        """Whether we can still prove that we hold it; decided by the clock, now."""
        return not self.released and self.reason is None

    def remaining(self) -> float:
        """Seconds for which that will be provable if no server answers any more; 0.0 if it is not."""
        return max(0.0, min(self._lease.until, self.until) - self._runtime.now()) if self.valid else 0.0

    @property
    def reason(self) -> LostReason | None:
        """Why it has ended, by the clock and the process id, before anybody was told; None while it has not."""
        if self.ended is None and not self.released:
            if self._runtime.forked():
                self.ended = LostReason.FORKED
            elif self._runtime.now() >= self._lease.until:
                # Latch: a reader who has once seen it end makes sure that no later answer can revive it.
                self.ended = LostReason.UNREACHABLE
            elif self._runtime.now() >= self.until:
                self.ended = LostReason.TIMED_OUT
        return self.ended

    def end(self, reason: LostReason) -> None:
        """End it for `reason`, unless it has been released or has ended. Under the step lock."""
        if not self.released and not self.over.done:
            if self.ended is None:
                self.ended = reason
            level = logging.INFO if reason is LostReason.CLOSED else logging.WARNING
            logger.log(level, "Lost %s (token %d): %s", self.path, self.token, self.ended.value)
            self.over.resolve(self.ended)


@final
class Grip:
    """One user's grip on a hold. Re-entry and local hand-off let several share one hold, told apart by `turn`.

    Attributes:
        hold: What is held.
        turn: The how manyeth user of the hold this is, from 1.
        lost: Fires once when the hold ends before this grip is released.
    """

    __slots__ = ("_let_go", "hold", "lost", "released", "runtime", "turn")

    def __init__(self, runtime: Runtime, hold: Hold, let_go: Callable[[Grip], Algorithm[None]], turn: int = 1) -> None:
        self.runtime = runtime
        self.hold = hold
        self.turn = turn
        self.released = False
        self.lost: SignalState[LostReason] = SignalState(runtime, lambda: self.reason)
        self._let_go = let_go
        hold.over.add_waiter(self._over)

    def _over(self) -> None:
        if not self.released:
            self.lost.fire(self.hold.over.result())

    @property
    def token(self) -> int:
        """The fencing token."""
        return self.hold.token

    @property
    def valid(self) -> bool:
        """Whether we can still prove that we hold it."""
        return not self.released and self.hold.valid

    @property
    def reason(self) -> LostReason | None:
        """Why it was lost; None if it was not, or was released before."""
        return self.lost_reason if self.released else self.hold.reason

    @property
    def lost_reason(self) -> LostReason | None:
        """The reason that was told before the release, if any."""
        return self.lost.fired.result() if self.lost.fired.done else None

    def remaining(self) -> float:
        """Seconds for which it will be provable if no server answers any more."""
        return 0.0 if self.released else self.hold.remaining()

    async def release(self) -> None:
        """Let go; the second time, nothing happens."""
        if self.finish():
            await self._let_go(self)

    def finish(self) -> bool:
        """Nothing is held any more, and nothing is left to be let go; whether it was held until now."""
        if self.released:
            return False
        reason = self.hold.reason
        if reason is not None:
            # Told before the release, so that who looks afterwards still learns that the hold had been lost.
            self.lost.fire(reason)
        self.released = True
        self.hold.over.remove_waiter(self._over)
        return True
