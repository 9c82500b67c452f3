"""One request on its way, and how it may end without an answer. Driver-free."""

from __future__ import annotations

from typing import TypeVar

from zkrecipes.flow import Pending
from zkrecipes.lease import Stamp
from zkrecipes.port import Request

__all__ = ["Call", "Unsettled"]

T = TypeVar("T")


class Unsettled(Exception):  # noqa: N818 - it is no error for a user; each caller decides what follows from it
    """A request ended without an answer.

    Attributes:
        written: Whether it may have reached a server.
    """

    def __init__(self, *, written: bool) -> None:
        super().__init__("a request ended without an answer")
        self.written = written


class Call(Pending[T]):
    """One request on its way.

    Attributes:
        request: What was asked.
        session_id: The only session in which it may be written.
        handed: When it was handed to the transport, or put in line for it.
        stamp: Set when it was written.
        withdrawn: Given up before it was written: it never will be.
        watch: If the request asked for one: resolved when the node changes, the connection ends, or no watch could be
            set. In each case: look again. Who waits for this need not wait for the answer first.
    """

    __slots__ = ("handed", "request", "session_id", "stamp", "watch", "withdrawn")

    def __init__(self, request: Request, session_id: int, handed: float) -> None:
        super().__init__()
        self.request = request
        self.session_id = session_id
        self.handed = handed
        self.stamp: Stamp | None = None
        self.withdrawn = False
        self.watch: Pending[None] | None = Pending() if getattr(request, "watch", False) else None

    def fail(self, error: BaseException) -> None:
        """Set an error as the result, unless there is one."""
        super().fail(error)
        if self.watch is not None:
            self.watch.resolve(None)
