"""The same client and recipes for asyncio: `async with`, `await`, `async for`. Everything else is in zkrecipes."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from zkrecipes.aio.client import Client, Transaction, connect
from zkrecipes.aio.counter import Counter, IdGenerator, SharedValue
from zkrecipes.aio.election import Election, Leadership, Observation
from zkrecipes.aio.handle import Handle, Opening, Signal
from zkrecipes.aio.listener import Changes, ChildrenListener, NodeListener, TreeListener
from zkrecipes.aio.lock import Lock, LockHandle, RLock
from zkrecipes.aio.pubsub import LatestTopic, Message, Subscription, Topic
from zkrecipes.aio.queue import Claim, ClaimBatch, Consumer, Queue

if TYPE_CHECKING:
    from zkrecipes.aio.config import Config, ConfigReleases

__all__ = [
    "Changes",
    "ChildrenListener",
    "Claim",
    "ClaimBatch",
    "Client",
    "Config",
    "ConfigReleases",
    "Consumer",
    "Counter",
    "Election",
    "Handle",
    "IdGenerator",
    "LatestTopic",
    "Leadership",
    "Lock",
    "LockHandle",
    "Message",
    "NodeListener",
    "Observation",
    "Opening",
    "Queue",
    "RLock",
    "SharedValue",
    "Signal",
    "Subscription",
    "Topic",
    "Transaction",
    "TreeListener",
    "connect",
]

# Brings in pydantic, which who has no configuration does not need.
_LATER = dict.fromkeys(("Config", "ConfigReleases"), "zkrecipes.aio.config")


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    value = globals()[name] = getattr(import_module(_LATER[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
