"""The errors, as a tree.

ZkRecipesError
├── AcquireTimeoutError (also TimeoutError)   somebody else held it until the deadline
│   └── SubscriptionBusyError                 another reader has this durable subscription
├── UnavailableError (also TimeoutError)      no server answered in time; nothing was applied, now or later
├── OutcomeUnknownError                       a write was sent and could not be settled in time
├── LostError                                 a hold ended before it was released
│   ├── LockLostError
│   ├── LeadershipLostError
│   ├── ClaimLostError
│   └── MembershipLostError
├── ConflictError                             a version or value differs from the expected one
├── NodeNotFoundError · NodeExistsError · NotEmptyError
├── AccessDeniedError · AuthenticationError
├── TransactionError                          one operation of a transaction was refused, so none was applied
├── CancelledError                            the wait was cancelled from another thread
├── ForeignNodeError                          the path holds nodes that another recipe made
├── DecodeError · PayloadTooLargeError
├── CounterOverflowError (also OverflowError) the counter's layout does not hold the number; nothing was written
├── QueueFullError                            the queue holds as many items as it may
├── ConfigRejectedError                       a configuration document does not parse or validate
├── GapError                                  messages were removed before they were read
├── VetoError                                 raised by a callback that does not agree to a change
└── ClosedError · ForkedError                 used after close, or in a forked child

Every error carries the path, says what to do, can be pickled, and chains its cause. Bad arguments are
ValueError or TypeError. No error of kazoo escapes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zkrecipes.config_model import FieldError
    from zkrecipes.handle import LostReason
    from zkrecipes.topic_layout import Position

__all__ = [
    "AccessDeniedError",
    "AcquireTimeoutError",
    "AuthenticationError",
    "CancelledError",
    "ClaimLostError",
    "ClosedError",
    "ConfigRejectedError",
    "ConflictError",
    "CounterOverflowError",
    "DecodeError",
    "ForeignNodeError",
    "ForkedError",
    "GapError",
    "LeadershipLostError",
    "LockLostError",
    "LostError",
    "MembershipLostError",
    "NodeExistsError",
    "NodeNotFoundError",
    "NotEmptyError",
    "OutcomeUnknownError",
    "PayloadTooLargeError",
    "QueueFullError",
    "SubscriptionBusyError",
    "TransactionError",
    "UnavailableError",
    "VetoError",
    "ZkRecipesError",
]


class ZkRecipesError(Exception):
    """Base of all errors of this package.

    Attributes:
        path: The path that the call was about, as the caller wrote it; empty where there is none.
    """

    def __init__(self, message: str, *, path: str = "") -> None:
        super().__init__(message)
        self.path = path


class AcquireTimeoutError(ZkRecipesError, TimeoutError):
    """It could not be had until the deadline: somebody else held it, or what was waited for did not come.

    Attributes:
        timeout: The timeout of the call, in seconds.
        left_behind: True if the server did not confirm in time that our place in the line is gone. It is then
            removed in the background as soon as the server answers.
    """

    def __init__(
        self,
        message: str,
        *,
        path: str = "",
        timeout: float = 0.0,
        left_behind: bool = False,
    ) -> None:
        super().__init__(message, path=path)
        self.timeout = timeout
        self.left_behind = left_behind


class UnavailableError(ZkRecipesError, TimeoutError):
    """No server answered before the deadline. Nothing was applied, and nothing will be later.

    Attributes:
        left_behind: Of an acquire: True if a place in the line may have been made, whose removal the server could not
            confirm in time. It holds nothing for us, and is removed as soon as the server answers.
    """

    def __init__(self, message: str, *, path: str = "", left_behind: bool = False) -> None:
        super().__init__(message, path=path)
        self.left_behind = left_behind


class OutcomeUnknownError(ZkRecipesError):
    """A write was sent, its reply was lost, and it could not be settled by the deadline.

    It may have been applied. Read the node before you decide to write again.
    """


class LostError(ZkRecipesError):
    """A hold ended before it was released.

    Attributes:
        reason: Why it ended.
    """

    def __init__(self, message: str, *, path: str = "", reason: LostReason | None = None) -> None:
        super().__init__(message, path=path)
        self.reason = reason


class LockLostError(LostError):
    """The lock was lost while it was held."""


class LeadershipLostError(LostError):
    """The leadership was lost before it was resigned."""


class ClaimLostError(LostError):
    """The claim on a queue item was lost before it was acknowledged."""


class MembershipLostError(LostError):
    """The membership of a group was lost before it was left."""


class ConflictError(ZkRecipesError):
    """The node is not in the expected state; read it again and decide again.

    Attributes:
        expected: What the caller expected (a version or a value).
        actual: What was found, or None where the server does not say.
    """

    def __init__(self, message: str, *, path: str = "", expected: object = None, actual: object = None) -> None:
        super().__init__(message, path=path)
        self.expected = expected
        self.actual = actual


class NodeNotFoundError(ZkRecipesError):
    """The node, or the parent of a node to be created, does not exist."""


class NodeExistsError(ZkRecipesError):
    """The node to be created exists already."""


class NotEmptyError(ZkRecipesError):
    """The node to be deleted has children."""


class AccessDeniedError(ZkRecipesError):
    """The ACL of the node does not allow this; see the page on required ACLs."""


class AuthenticationError(ZkRecipesError):
    """The server refused our credentials, or we refused the server's certificate."""


class TransactionError(ZkRecipesError):
    """One operation of a transaction was refused, so none was applied.

    Attributes:
        index: The position of the refused operation in the transaction.
    """

    def __init__(self, message: str, *, path: str = "", index: int = -1) -> None:
        super().__init__(message, path=path)
        self.index = index


class CancelledError(ZkRecipesError):
    """The wait was cancelled from another thread by its `Cancel` object."""


class ForeignNodeError(ZkRecipesError):
    """The path holds nodes that another recipe made, or that another library made in another layout."""


class DecodeError(ZkRecipesError):
    """Bytes on the server are not in the expected format.

    Attributes:
        raw: The bytes.
    """

    def __init__(self, message: str, *, path: str = "", raw: bytes = b"") -> None:
        super().__init__(message, path=path)
        self.raw = raw


class PayloadTooLargeError(ZkRecipesError, ValueError):
    """The data is over the server's size limit and was not sent.

    Attributes:
        size: Size of the request, in bytes.
        limit: The limit, in bytes.
    """

    def __init__(self, message: str, *, path: str = "", size: int = 0, limit: int = 0) -> None:
        super().__init__(message, path=path)
        self.size = size
        self.limit = limit


class CounterOverflowError(ZkRecipesError, OverflowError):
    """The counter's layout does not hold the number, and nothing was written. Layout "text" has no such limit.

    Attributes:
        value: The number that does not fit.
        low: The least that does.
        high: The greatest that does.
    """

    def __init__(self, message: str, *, path: str = "", value: int = 0, low: int = 0, high: int = 0) -> None:
        super().__init__(message, path=path)
        self.value = value
        self.low = low
        self.high = high


class QueueFullError(ZkRecipesError):
    """The queue holds as many items as it may; nothing was stored. Consume faster, put later, or raise `max_size`."""


class ConfigRejectedError(ZkRecipesError):
    """A configuration document does not parse or validate, and nothing was put in force or published.

    Attributes:
        version: Of the document; None if it has none, as before it is published.
        errors: Each field with what is wrong with it. They hold no values, which may be secrets.
    """

    def __init__(
        self, message: str, *, path: str = "", version: int | None = None, errors: tuple[FieldError, ...] = ()
    ) -> None:
        super().__init__(message, path=path)
        self.version = version
        self.errors = errors


class VetoError(ZkRecipesError):
    """Raise it in an `on_prepare` callback to keep the configuration that is in force. The message says why."""


class SubscriptionBusyError(AcquireTimeoutError):
    """Another reader, here or elsewhere, had this durable subscription until the deadline."""


class GapError(ZkRecipesError):
    """Messages that this subscription had not seen were removed by the topic's retention. Told once; then it goes on.

    Attributes:
        first_missing: The position of the first message that is missing.
        resumed_at: The position at which it goes on.
    """

    def __init__(
        self,
        message: str,
        *,
        path: str = "",
        first_missing: Position | None = None,
        resumed_at: Position | None = None,
    ) -> None:
        super().__init__(message, path=path)
        self.first_missing = first_missing
        self.resumed_at = resumed_at


class ClosedError(ZkRecipesError):
    """Used after close or release: an error in the program."""


class ForkedError(ZkRecipesError):
    """Used in a forked child. Make a new client there; a session cannot be shared by two processes."""
