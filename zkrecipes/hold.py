"""What is held on the server, and how its end is told. Driver-free; the public face is handle.py."""

from __future__ import annotations

import logging
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Generic, TypeVar, final

from zkrecipes.flow import Pending
from zkrecipes.port import Runtime

if TYPE_CHECKING:
    from zkrecipes.lease import Lease

__all__ = ["Hold", "LostReason", "Registration", "SignalState"]

logger = logging.getLogger("zkrecipes.hold")


@final
class LostReason(Enum):
    """Why a hold ended before it was released."""

    EXPIRED = "the server ended the session"
    UNREACHABLE = "no proof of the session could be had from the servers in time"
    NODE_DELETED = "somebody deleted the node"
    CLOSED = "the client was closed"
    FORKED = "this process is a fork of the one that holds it"


R = TypeVar("R")


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
    """A signal that fires at most once, with a reason. Fired under the step lock."""

    __slots__ = ("_callbacks", "_runtime", "fired", "reason")

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.reason: R | None = None
        self.fired: Pending[R] = Pending()
        self._callbacks: list[Callable[[R], None]] = []

    def fire(self, reason: R) -> None:
        """Fire, unless it has."""
        if self.reason is None:
            self.reason = reason
            callbacks, self._callbacks = self._callbacks, []
            for callback in callbacks:
                self._dispatch(callback, reason)
            self.fired.resolve(reason)

    def on_set(self, callback: Callable[[R], None]) -> Registration:
        """Call `callback(reason)` when it fires; at once, if it has."""
        with self._runtime.lock:
            if self.reason is not None:
                self._dispatch(callback, self.reason)
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
        lost: Fires once when the hold ends otherwise than by release.
        born: When it was won.
        watched: Whether a watch stands on the node.
    """

    __slots__ = (
        "_lease",
        "_runtime",
        "born",
        "ended",
        "lost",
        "path",
        "released",
        "session_id",
        "token",
        "version",
        "watched",
    )

    def __init__(self, runtime: Runtime, lease: Lease, session_id: int, path: str, token: int, version: int = -1) -> None:
        self._runtime = runtime
        self._lease = lease
        self.session_id = session_id
        self.path = path
        self.token = token
        self.version = version
        self.born = runtime.now()
        self.lost: SignalState[LostReason] = SignalState(runtime)
        self.ended: LostReason | None = None
        self.released = False
        self.watched = False

    @property
    def valid(self) -> bool:
        """Whether we can still prove that we hold it; decided by the clock, now."""
        return not self.released and self.reason is None

    def remaining(self) -> float:
        """Seconds for which that will be provable if no server answers any more; 0.0 if it is not."""
        return max(0.0, self._lease.until - self._runtime.now()) if self.valid else 0.0

    @property
    def reason(self) -> LostReason | None:
        """Why it has ended, by the clock and the process id, before any signal; None while it has not."""
        if self.ended is None and not self.released:
            if self._runtime.forked():
                # The child may not take the parent's lock, which some thread of the parent may have held at the fork.
                self.ended = LostReason.FORKED
            elif self._runtime.now() >= self._lease.until:
                # Latch: a reader who has once seen it end makes sure that no later answer can revive it.
                self.ended = LostReason.UNREACHABLE
        return self.ended

    def lapse(self) -> bool:
        """Fire the signal if it has ended; whether it has. Under the step lock."""
        reason = self.reason
        if reason is not None and not self.released:
            self.lost.fire(reason)
            return True
        return self.released

    def end(self, reason: LostReason) -> None:
        """End it for `reason`, unless it has been released or has ended. Under the step lock."""
        if not self.released:
            if self.ended is None:
                self.ended = reason
                logger.warning("Lost %s (token %d): %s", self.path, self.token, reason.value)
            self.lost.fire(self.ended)
