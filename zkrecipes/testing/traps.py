"""Faults at one chosen request: its reply lost, or the request or the reply held until the test says so.

A trap counts the requests of its kind from the moment it is set, over all connections of its proxy, and acts once, at
the nth.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from enum import Enum
from typing import Final, final

__all__ = ["Gate", "Trap"]

_LIMIT: Final = 5.0


class _Stage(Enum):
    """How far a trap has come."""

    SET = "waiting for its request"
    CAUGHT = "has met its request"
    SPRUNG = "done"


class _Watch:
    """Counting, and waiting for a stage. All changes happen on the proxy's thread."""

    def __init__(self, operations: frozenset[str], nth: int, what: str) -> None:
        if nth < 1:
            message = f"nth must be 1 or more, not {nth!r}"
            raise ValueError(message)
        self._operations = operations
        self._left = nth
        self._what = what
        self._caught = threading.Event()
        self._done = threading.Event()

    def __repr__(self) -> str:
        stage = _Stage.SPRUNG if self._done.is_set() else _Stage.CAUGHT if self._caught.is_set() else _Stage.SET
        return f"<{type(self).__name__}: {self._what}: {stage.value}>"

    @property
    def spent(self) -> bool:
        """Whether it counts no more."""
        return self._left <= 0

    def meets(self, operation: str) -> bool:
        """Count a request; whether it is the one."""
        if self._left <= 0 or operation not in self._operations:
            return False
        self._left -= 1
        return self._left == 0

    def disarm(self) -> None:
        """Count no further request."""
        self._left = 0

    def _await(self, event: threading.Event, limit: float, what: str) -> None:
        if not event.wait(limit):
            message = f"{what} within {limit:g} s: {self!r}"
            raise AssertionError(message)


@final
class Trap(_Watch):
    """A reply that will be lost; from `FaultProxy.drop_reply`."""

    @property
    def fired(self) -> bool:
        """Whether the server has answered, the reply was swallowed and the connection cut."""
        return self._done.is_set()

    def wait(self, timeout: float = _LIMIT) -> None:
        """Wait until it has fired.

        Raises:
            AssertionError: It has not within `timeout` seconds.
        """
        self._await(self._done, timeout, "no reply was dropped")

    def fire(self) -> None:
        """Note that it has happened. For the proxy."""
        self._done.set()


@final
class Gate(_Watch):
    """A request or a reply that is held; from `FaultProxy.hold_request` and `hold_reply`.

    What follows it on the same connection in the same direction waits behind it.
    """

    def __init__(self, operations: frozenset[str], nth: int, what: str, wake: Callable[[], None]) -> None:
        super().__init__(operations, nth, what)
        self._wake = wake
        self.opened = False
        self.dropped = False

    @property
    def held(self) -> bool:
        """Whether its request or reply stands at the gate now."""
        return self._caught.is_set() and not self._done.is_set()

    def wait_held(self, timeout: float = _LIMIT) -> None:
        """Wait until its request or reply stands at the gate.

        Raises:
            AssertionError: It does not within `timeout` seconds.
        """
        self._await(self._caught, timeout, "nothing was held")

    def release(self) -> None:
        """Let it through; or, if nothing has come yet, hold nothing any more. May be called twice."""
        self.disarm()
        self.opened = True
        self._wake()

    def drop(self) -> None:
        """Swallow what is held and cut its connection; it has to be held by now.

        A dropped request never reaches the server, a dropped reply never the client.
        """
        if not self.held:
            message = f"nothing is held, so nothing can be dropped; call wait_held() first: {self!r}"
            raise RuntimeError(message)
        self.dropped = True
        self._wake()
        self._await(self._done, _LIMIT, "the held frame was not dropped")

    def catch(self) -> None:
        """Note that its frame has come. For the proxy."""
        self._caught.set()

    def fire(self) -> None:
        """Note that its frame has been let through or dropped. For the proxy."""
        self._done.set()
