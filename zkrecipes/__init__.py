"""Coordination recipes for Python services, on ZooKeeper. Start with `connect` and `Lock`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from zkrecipes.codec import BytesCodec, Codec, IntCodec, JsonCodec, TextCodec
from zkrecipes.counter import Counter, IdGenerator, SharedValue, ValueChange, Versioned
from zkrecipes.election import Election, Leadership, Observation, StopReason
from zkrecipes.errors import (
    AccessDeniedError,
    AcquireTimeoutError,
    AuthenticationError,
    CancelledError,
    ClaimLostError,
    ClosedError,
    ConfigRejectedError,
    ConflictError,
    CounterOverflowError,
    DecodeError,
    ForeignNodeError,
    ForkedError,
    GapError,
    LeadershipLostError,
    LockLostError,
    LostError,
    NodeExistsError,
    NodeNotFoundError,
    NotEmptyError,
    OutcomeUnknownError,
    PayloadTooLargeError,
    QueueFullError,
    SubscriptionBusyError,
    TransactionError,
    UnavailableError,
    VetoError,
    ZkRecipesError,
)
from zkrecipes.handle import Handle, HoldState, LostReason, Registration, Signal
from zkrecipes.health import Health
from zkrecipes.listener import Change, Changes, ChildrenListener, EventKind, NodeListener, TreeListener
from zkrecipes.lock import Cancel, Contender, LocalHandoff, Lock, LockHandle, RLock
from zkrecipes.observe import Observer
from zkrecipes.operations import Node
from zkrecipes.port import Acl, Kind, Stat, State
from zkrecipes.pubsub import LatestTopic, Message, Position, Retention, Subscriber, Subscription, Topic
from zkrecipes.queue import Claim, ClaimBatch, Consumer, ItemId, Queue, QueuedItem, QueueStats

if TYPE_CHECKING:
    from zkrecipes.client import Client, Transaction, connect
    from zkrecipes.config import (
        Canary,
        CanaryStatus,
        Config,
        ConfigChange,
        ConfigReleases,
        Difference,
        EndedCanary,
        Env,
        Explained,
        FieldError,
        File,
        Freshness,
        Global,
        Instance,
        InstanceStatus,
        Overrides,
        Rejection,
        Release,
        RolloutStatus,
    )
    from zkrecipes.settings import DigestAuth, Retry, SaslDigest, SaslGssapi, Tls

__all__ = [
    "AccessDeniedError",
    "Acl",
    "AcquireTimeoutError",
    "AuthenticationError",
    "BytesCodec",
    "Canary",
    "CanaryStatus",
    "Cancel",
    "CancelledError",
    "Change",
    "Changes",
    "ChildrenListener",
    "Claim",
    "ClaimBatch",
    "ClaimLostError",
    "Client",
    "ClosedError",
    "Codec",
    "Config",
    "ConfigChange",
    "ConfigRejectedError",
    "ConfigReleases",
    "ConflictError",
    "Consumer",
    "Contender",
    "Counter",
    "CounterOverflowError",
    "DecodeError",
    "Difference",
    "DigestAuth",
    "Election",
    "EndedCanary",
    "Env",
    "EventKind",
    "Explained",
    "FieldError",
    "File",
    "ForeignNodeError",
    "ForkedError",
    "Freshness",
    "GapError",
    "Global",
    "Handle",
    "Health",
    "HoldState",
    "IdGenerator",
    "Instance",
    "InstanceStatus",
    "IntCodec",
    "ItemId",
    "JsonCodec",
    "Kind",
    "LatestTopic",
    "Leadership",
    "LeadershipLostError",
    "LocalHandoff",
    "Lock",
    "LockHandle",
    "LockLostError",
    "LostError",
    "LostReason",
    "Message",
    "Node",
    "NodeExistsError",
    "NodeListener",
    "NodeNotFoundError",
    "NotEmptyError",
    "Observation",
    "Observer",
    "OutcomeUnknownError",
    "Overrides",
    "PayloadTooLargeError",
    "Position",
    "Queue",
    "QueueFullError",
    "QueueStats",
    "QueuedItem",
    "RLock",
    "Registration",
    "Rejection",
    "Release",
    "Retention",
    "Retry",
    "RolloutStatus",
    "SaslDigest",
    "SaslGssapi",
    "SharedValue",
    "Signal",
    "Stat",
    "State",
    "StopReason",
    "Subscriber",
    "Subscription",
    "SubscriptionBusyError",
    "TextCodec",
    "Tls",
    "Topic",
    "Transaction",
    "TransactionError",
    "TreeListener",
    "UnavailableError",
    "ValueChange",
    "Versioned",
    "VetoError",
    "ZkRecipesError",
    "connect",
]

# These bring in kazoo, tenacity and pydantic, which pytest shall not have to load when it only looks for our plugin.
_LATER = {
    **dict.fromkeys(("Client", "Transaction", "connect"), "zkrecipes.client"),
    **dict.fromkeys(
        (
            "Canary",
            "CanaryStatus",
            "Config",
            "ConfigChange",
            "ConfigReleases",
            "Difference",
            "EndedCanary",
            "Env",
            "Explained",
            "FieldError",
            "File",
            "Freshness",
            "Global",
            "Instance",
            "InstanceStatus",
            "Overrides",
            "Rejection",
            "Release",
            "RolloutStatus",
        ),
        "zkrecipes.config",
    ),
    **dict.fromkeys(("DigestAuth", "Retry", "SaslDigest", "SaslGssapi", "Tls"), "zkrecipes.settings"),
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    value = globals()[name] = getattr(import_module(_LATER[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
