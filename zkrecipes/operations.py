"""The client's typed operations, once for threads and asyncio. Driver-free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar, final

from zkrecipes.core import DEFAULT, Core, DefaultTimeout
from zkrecipes.errors import ClosedError, NodeExistsError, NodeNotFoundError
from zkrecipes.paths import ancestors, join, validate_path
from zkrecipes.port import (
    Acl,
    Check,
    Children,
    Create,
    Created,
    Delete,
    Exists,
    Get,
    Kind,
    Multi,
    Set,
    Stat,
    Sync,
    acl_tuple,
)
from zkrecipes.sizes import check_version
from zkrecipes.timing import Timeout

if TYPE_CHECKING:
    from zkrecipes.handle import HandleState

__all__ = ["Node", "Operations", "Plan"]

T = TypeVar("T")


@final
@dataclass(frozen=True, slots=True)
class Node(Generic[T]):
    """A node as it was read.

    Attributes:
        path: Its path, below the client's namespace.
        value: Its data.
        stat: Its metadata.
    """

    path: str
    value: T
    stat: Stat


def checked_data(data: bytes) -> bytes:
    """Check a node's data.

    Raises:
        TypeError: It is no bytes.
    """
    if not isinstance(data, bytes | bytearray | memoryview):
        message = f"data must be bytes, not {type(data).__name__}; encode it first"
        raise TypeError(message)
    return bytes(data)


def checked_kind(kind: Kind) -> Kind:
    """Check a node's kind.

    Raises:
        TypeError: It is no Kind.
    """
    if not isinstance(kind, Kind):
        message = f"kind must be a zkrecipes.Kind, such as Kind.EPHEMERAL, not {kind!r}"
        raise TypeError(message)
    return kind


@final
class Operations:
    """One method an operation; all of them are algorithms."""

    def __init__(self, core: Core) -> None:
        self.core = core

    def full(self, path: str) -> str:
        """The full path; the namespace's root is allowed."""
        if path == "/":
            return self.core.namespace or "/"
        return join(self.core.namespace, validate_path(path))

    def short(self, path: str) -> str:
        """The path below the namespace."""
        return path[len(self.core.namespace) :] or "/"

    async def create(
        self,
        path: str,
        data: bytes = b"",
        *,
        kind: Kind = Kind.PERSISTENT,
        sequential: bool = False,
        parents: bool = False,
        acl: Sequence[Acl] | None = None,
        timeout: Timeout | DefaultTimeout = DEFAULT,
    ) -> str:
        """Create a node and return its path."""
        deadline = self.core.deadline(timeout)
        access = self.core.nodes.acl if acl is None else acl_tuple(acl)
        full = self.full(path)
        request = Create(full, checked_data(data), checked_kind(kind), sequential, access)
        try:
            made: Created = await self.core.ask(request, deadline, path)
        except NodeNotFoundError:
            if not parents and self.core.namespace != full.rpartition("/")[0]:
                raise
            for parent in ancestors(full)[:-1]:
                try:
                    await self.core.ask(Create(parent, b"", acl=access), deadline, path)
                except NodeExistsError:
                    continue
            made = await self.core.ask(request, deadline, path)
        return self.short(made.path)

    async def get(self, path: str, *, timeout: Timeout | DefaultTimeout = DEFAULT) -> Node[bytes]:
        """Read a node."""
        data, stat = await self.core.ask(Get(self.full(path)), self.core.deadline(timeout), path)
        return Node(path, data, stat)

    async def exists(self, path: str, *, timeout: Timeout | DefaultTimeout = DEFAULT) -> Stat | None:
        """A node's metadata, or None."""
        stat: Stat | None = await self.core.ask(Exists(self.full(path)), self.core.deadline(timeout), path)
        return stat

    async def children(self, path: str, *, timeout: Timeout | DefaultTimeout = DEFAULT) -> list[str]:
        """The names of a node's children, sorted."""
        return sorted(await self.core.ask(Children(self.full(path)), self.core.deadline(timeout), path))

    async def set(
        self, path: str, data: bytes, *, version: int = -1, timeout: Timeout | DefaultTimeout = DEFAULT
    ) -> Stat:
        """Replace a node's data."""
        request = Set(self.full(path), checked_data(data), check_version(version))
        stat: Stat = await self.core.ask(request, self.core.deadline(timeout), path)
        return stat

    async def delete(self, path: str, *, version: int = -1, timeout: Timeout | DefaultTimeout = DEFAULT) -> None:
        """Delete a node."""
        await self.core.ask(Delete(self.full(path), check_version(version)), self.core.deadline(timeout), path)

    async def sync(self, path: str = "/", *, timeout: Timeout | DefaultTimeout = DEFAULT) -> None:
        """Bring the connected server up to the leader."""
        await self.core.ask(Sync(self.full(path)), self.core.deadline(timeout), path)

    async def commit(self, plan: Plan, *, timeout: Timeout | DefaultTimeout = DEFAULT) -> list[Any]:
        """Apply a plan, all or nothing."""
        plan.close()
        deadline = self.core.deadline(timeout)
        await self.core.session.ready(deadline.at)
        for handle in plan.guards:
            # Looked at again: the hold may have ended since guard() was called.
            handle.check_held()
        if not plan.operations:
            return []
        answers = await self.core.ask(Multi(tuple(plan.operations)), deadline, plan.label)
        return [self.short(answer.path) if isinstance(answer, Created) else answer for answer in answers]


@final
class Plan:
    """The operations of one transaction, in order. Not for use by several threads at once."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations
        self.operations: list[Create | Set | Delete | Check] = []
        self.guards: list[HandleState] = []
        self._closed = False

    @property
    def label(self) -> str:
        """What messages call it."""
        return f"a transaction of {len(self.operations)} operations"

    def close(self) -> None:
        """No operation can be added, and it cannot be committed, a second time."""
        if self._closed:
            message = "this transaction has been committed or given up; make a new one"
            raise ClosedError(message)
        self._closed = True

    def add(self, operation: Create | Set | Delete | Check) -> None:
        """Add one."""
        if self._closed:
            message = "this transaction has been committed or given up; make a new one"
            raise ClosedError(message)
        self.operations.append(operation)

    def create(
        self,
        path: str,
        data: bytes = b"",
        *,
        kind: Kind = Kind.PERSISTENT,
        sequential: bool = False,
        acl: Sequence[Acl] | None = None,
    ) -> None:
        """Create a node; the result is its path."""
        access = self._operations.core.nodes.acl if acl is None else acl_tuple(acl)
        self.add(Create(self._operations.full(path), checked_data(data), checked_kind(kind), sequential, access))

    def set(self, path: str, data: bytes, *, version: int = -1) -> None:
        """Replace a node's data; the result is its Stat."""
        self.add(Set(self._operations.full(path), checked_data(data), check_version(version)))

    def delete(self, path: str, *, version: int = -1) -> None:
        """Delete a node; the result is None."""
        self.add(Delete(self._operations.full(path), check_version(version)))

    def check(self, path: str, *, version: int = -1) -> None:
        """Refuse the whole transaction unless the node exists in this version (-1: any)."""
        self.add(Check(self._operations.full(path), check_version(version)))

    def guard(self, handle: HandleState, path: str, version: int) -> None:
        """Refuse the whole transaction unless the handle's node exists."""
        self.add(Check(path, version))
        self.guards.append(handle)
