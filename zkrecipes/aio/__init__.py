"""The same client and recipes for asyncio: `async with`, `await`, `async for`. Everything else is in zkrecipes."""

from zkrecipes.aio.client import Client, Transaction, connect
from zkrecipes.aio.election import Election, Leadership, Observation
from zkrecipes.aio.handle import Handle, Opening, Signal
from zkrecipes.aio.listener import Changes, ChildrenListener, NodeListener, TreeListener
from zkrecipes.aio.lock import Lock, LockHandle, RLock

__all__ = [
    "Changes",
    "ChildrenListener",
    "Client",
    "Election",
    "Handle",
    "Leadership",
    "Lock",
    "LockHandle",
    "NodeListener",
    "Observation",
    "Opening",
    "RLock",
    "Signal",
    "Transaction",
    "TreeListener",
    "connect",
]
