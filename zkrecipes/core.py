"""What every recipe takes from its client, whichever driver runs it. Driver-free."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, final

from zkrecipes.calls import Unsettled
from zkrecipes.errors import OutcomeUnknownError, PayloadTooLargeError
from zkrecipes.flow import first_of
from zkrecipes.nodes import Nodes
from zkrecipes.paths import join, validate_path
from zkrecipes.port import Request, is_write
from zkrecipes.server_time import ServerTime
from zkrecipes.session import Session
from zkrecipes.timing import Deadline, Timeout, to_seconds

__all__ = ["Core", "identity_bytes"]

T = TypeVar("T")

MAX_IDENTITY = 64 * 1024


@final
class Core:
    """One client's session and settings.

    Args:
        nodes: The node operations, on the client's session.
        namespace: Put before every path.
        identity: What our contenders are called unless the user says otherwise.
        default_timeout: For verbs that do not wait by nature, in seconds.
        pause: Seconds before the n-th repetition of a request that was never written; None ends the repetitions.
    """

    def __init__(
        self,
        nodes: Nodes,
        *,
        namespace: str = "",
        identity: str = "",
        default_timeout: float = 30.0,
        pause: Callable[[int, float], float | None] = lambda _attempt, _elapsed: 0.0,
    ) -> None:
        self.nodes = nodes
        self.session: Session = nodes.session
        self.runtime = nodes.runtime
        self.namespace = self.session.namespace = namespace
        self.identity = identity
        self.default_timeout = default_timeout
        self.server_time = ServerTime(self.runtime.now, self.session.drift)
        self.shared: dict[object, Any] = {}
        """What recipe objects of one client share: local lines, re-entrant holds. Under the step lock."""
        self._pause = pause

    def path(self, path: str) -> str:
        """Check a recipe's path and return the full path on the server."""
        return join(self.namespace, validate_path(path))

    def deadline(self, timeout: Timeout | DefaultTimeout) -> Deadline:
        """The deadline of a call, made once at the boundary."""
        seconds = self.default_timeout if isinstance(timeout, DefaultTimeout) else to_seconds(timeout)
        return Deadline.after(seconds, self.runtime.now())

    async def ask(self, request: Request, deadline: Deadline, label: str) -> Any:
        """Send one request, again while it is certain that it was not applied, until the deadline.

        Raises:
            UnavailableError: No server answered; nothing was applied.
            OutcomeUnknownError: A write was sent, and its reply was lost.
        """
        session = self.session
        began, attempts = self.runtime.now(), 0
        until = deadline.at
        while True:
            await session.ready(until, label)
            try:
                return await session.result(session.call(request), until)
            except Unsettled as lost:
                if lost.written and is_write(request):
                    raise outcome_unknown(request, label) from lost
            attempts += 1
            await self.again(attempts, began, deadline, label)

    async def again(self, attempts: int, began: float, deadline: Deadline, label: str) -> None:
        """Pause before something is sent again that was certainly not applied, as the user's `retry` says.

        Raises:
            UnavailableError: The user wants no more repetitions, or there is no time for one.
        """
        now = self.runtime.now
        pause = self._pause(attempts, now() - began)
        if pause is None or deadline.passed(now() + pause):
            raise self.session.unavailable(label)
        if pause > 0:
            await first_of(until=now() + pause)


@final
class DefaultTimeout:
    """The type of DEFAULT: the client's default timeout."""

    def __repr__(self) -> str:
        return "the client's default_timeout"


DEFAULT = DefaultTimeout()


def outcome_unknown(request: Request, label: str) -> OutcomeUnknownError:
    """The error for a write that was sent, and whose reply was lost."""
    verb = type(request).__name__.lower()
    message = f"the reply to {verb} {label} was lost: it may have been applied. Read it before you write again"
    return OutcomeUnknownError(message, path=label)


def identity_bytes(identity: str | None, default: str) -> bytes:
    """Check an identity and encode it.

    Raises:
        TypeError: It is no text.
        ValueError: It is longer than 64 KiB, or cannot be encoded.
    """
    if identity is None:
        identity = default
    if not isinstance(identity, str):
        message = f"identity must be a str, not {type(identity).__name__}"
        raise TypeError(message)
    try:
        data = identity.encode()
    except UnicodeEncodeError as error:
        message = "identity must be text that UTF-8 can encode, without lone surrogates"
        raise ValueError(message) from error
    if len(data) > MAX_IDENTITY:
        message = (
            f"identity has {len(data)} bytes; every listing of contenders carries it: keep it under {MAX_IDENTITY}"
        )
        raise PayloadTooLargeError(message, size=len(data), limit=MAX_IDENTITY)
    return data
