"""The tree of nodes of one server: reads, the checks of the leader, and the changes that everybody applies.

As in ZooKeeper the leader checks a request against its newest state and turns it into *changes* that cannot fail; every
server applies the same changes in the same order, each at its own time.
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple, final

from zkrecipes.port import Check, Code, Create, Created, Delete, Kind, Multi, Set, Stat

__all__ = ["Change", "Node", "Refusal", "Tree", "parent_of"]

INT32_MAX = 2**31 - 1


def int32(value: int) -> int:
    """Java's int: 32 bits, wrapping to negative."""
    return (value + 2**31) % 2**32 - 2**31


def parent_of(path: str) -> str:
    """The path of a node's parent."""
    return path.rpartition("/")[0] or "/"


class Refusal(Exception):  # noqa: N818 - an answer of the server, not a failure of the program
    """The leader refuses a request.

    Attributes:
        code: ZooKeeper's error code.
        index: The operation of a multi that was refused, -1 otherwise.
    """

    def __init__(self, code: int, index: int = -1) -> None:
        super().__init__(code, index)
        self.code = code
        self.index = index


@final
class Node:
    """One node."""

    __slots__ = (
        "children",
        "container",
        "creates",
        "ctime",
        "czxid",
        "data",
        "mtime",
        "mzxid",
        "owner",
        "pzxid",
        "version",
    )

    def __init__(self, data: bytes, zxid: int, time: int, owner: int, *, container: bool) -> None:
        self.data = data
        self.czxid = self.mzxid = self.pzxid = zxid
        self.ctime = self.mtime = time
        self.version = 0
        self.creates = 0  # the sequence number of the next child
        self.owner = owner
        self.container = container
        self.children: dict[str, None] = {}

    def stat(self) -> Stat:
        """What a client is told."""
        # Servers keep the number of creates and tell that of creates and deletes.
        cversion = int32(self.creates * 2 - len(self.children))
        return Stat(
            self.czxid,
            self.mzxid,
            self.ctime,
            self.mtime,
            self.version,
            cversion,
            0,
            self.owner,
            len(self.data),
            len(self.children),
            self.pzxid,
        )


@final
class Change(NamedTuple):
    """One change to the tree: "create", "set", "delete" or "check"."""

    kind: str
    path: str
    data: bytes = b""
    number: int = 0
    """create: how many children the parent has had by now; set: the new version."""
    owner: int = 0
    container: bool = False


@final
class Tree:
    """Nodes and sessions at one point of the history."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {"/": Node(b"", 0, 0, 0, container=False)}
        self.sessions: dict[int, float] = {}
        self.ephemerals: dict[int, dict[str, None]] = {}

    def copy(self) -> Tree:
        """An independent copy."""
        return copy.deepcopy(self)

    def owned_by(self, session: int) -> list[str]:
        """The ephemeral nodes of a session."""
        return list(self.ephemerals.get(session, ()))

    # --- the leader's checks ------------------------------------------------------------------------------------------

    def plan(self, request: Create | Set | Delete | Check | Multi, session: int) -> tuple[Change, ...]:
        """Check a write, and return its changes, which are applied to this tree: later checks see them.

        Raises:
            Refusal: Nothing was changed.
        """
        if not isinstance(request, Multi):
            change = self._plan_one(request, session)
            self.apply(change, 0, 0)
            return (change,)
        undo: list[tuple[str, Node | None]] = []
        changes: list[Change] = []
        for index, operation in enumerate(request.operations):
            if not isinstance(operation, Check):
                paths = (parent_of(operation.path), operation.path)
                undo.extend((path, copy.deepcopy(self.nodes.get(path))) for path in paths)
            try:
                change = self._plan_one(operation, session)
                if change.kind == "create" and isinstance(operation, Create) and operation.sequential:
                    undo.append((change.path, None))
                changes.append(change)
                self.apply(change, 0, 0)
            except Refusal as refusal:
                for path, node in reversed(undo):
                    self._restore(path, node)
                raise Refusal(refusal.code, index) from None
        return tuple(changes)

    def _restore(self, path: str, node: Node | None) -> None:
        gone = self.nodes.pop(path, None)
        if gone is not None and gone.owner:
            self.ephemerals[gone.owner].pop(path, None)
        if node is not None:
            self.nodes[path] = node
            if node.owner:
                self.ephemerals.setdefault(node.owner, {})[path] = None

    def _plan_one(self, request: Create | Set | Delete | Check, session: int) -> Change:
        if isinstance(request, Create):
            return self._plan_create(request, session)
        node = self.nodes.get(request.path)
        if node is None:
            raise Refusal(Code.NO_NODE)
        if isinstance(request, Delete) and request.path == "/":
            raise Refusal(Code.BAD_ARGUMENTS)
        if request.version not in {-1, node.version}:
            raise Refusal(Code.BAD_VERSION)
        if isinstance(request, Set):
            return Change("set", request.path, request.data, int32(node.version + 1))
        if isinstance(request, Delete):
            if node.children:
                raise Refusal(Code.NOT_EMPTY)
            return Change("delete", request.path)
        return Change("check", request.path)

    def _plan_create(self, request: Create, session: int) -> Change:
        parent = self.nodes.get(parent_of(request.path))
        if parent is None:
            raise Refusal(Code.NO_NODE)
        path = f"{request.path}{parent.creates:010d}" if request.sequential else request.path
        if path in self.nodes:
            raise Refusal(Code.NODE_EXISTS)
        if parent.owner:
            raise Refusal(Code.NO_CHILDREN_FOR_EPHEMERALS)
        owner = session if request.kind is Kind.EPHEMERAL else 0
        container = request.kind is Kind.CONTAINER
        return Change("create", path, request.data, int32(parent.creates + 1), owner, container)

    # --- changes ------------------------------------------------------------------------------------------------------

    def apply(self, change: Change, zxid: int, time: int, *, planning: bool = True) -> None:
        """Carry a change out.

        Args:
            change: Checked by the leader.
            zxid: Of the transaction.
            time: The leader's, in milliseconds.
            planning: As the leader does in advance: a parent's count then follows every create, also where it wraps.
        """
        if change.kind == "create":
            self._create(change, zxid, time, planning=planning)
        elif change.kind == "set":
            node = self.nodes[change.path]
            node.data, node.version, node.mzxid, node.mtime = change.data, change.number, zxid, time
        elif change.kind == "delete":
            self._delete(change.path, zxid)

    def _create(self, change: Change, zxid: int, time: int, *, planning: bool) -> None:
        parent_path, _, name = change.path.rpartition("/")
        parent = self.nodes[parent_path or "/"]
        parent.children[name] = None
        # A server's tree never counts backwards: after 2147483647 the leader's own record wraps, the tree's stays
        # there.
        if planning or change.number > parent.creates:
            parent.creates = change.number
            parent.pzxid = zxid
        self.nodes[change.path] = Node(change.data, zxid, time, change.owner, container=change.container)
        if change.owner:
            self.ephemerals.setdefault(change.owner, {})[change.path] = None

    def _delete(self, path: str, zxid: int) -> None:
        node = self.nodes.pop(path, None)
        if node is None:
            return
        parent_path, _, name = path.rpartition("/")
        parent = self.nodes[parent_path or "/"]
        del parent.children[name]
        parent.pzxid = max(parent.pzxid, zxid)
        if node.owner:
            self.ephemerals[node.owner].pop(path, None)

    # --- answers ------------------------------------------------------------------------------------------------------

    def answer(self, change: Change, *, alone: bool) -> Any:
        """What the client is told about a change that has just been applied here.

        Args:
            change: What was applied.
            alone: Whether it is no part of a transaction. In those, only a container's create is answered with a stat.
        """
        if change.kind == "create":
            return Created(change.path, self.nodes[change.path].stat() if alone or change.container else None)
        if change.kind == "set":
            return self.nodes[change.path].stat()
        return None
