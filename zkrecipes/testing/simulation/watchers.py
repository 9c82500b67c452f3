"""The watches of one server's clients, with ZooKeeper's rules.

As in the servers' own WatchManager (3.6 to 3.8): data watches and child watches are two tables, and each keeps *one
mode* for each connection and node. A one-shot watch on exactly the node of a recursive one takes its place in that
table, and fires once (ZOOKEEPER-4466). A recursive watch stands in both; it tells no changed lists of children. Whoever
several watches would tell the same event hears it once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from zkrecipes.port import NodeEvent, WatchKind
from zkrecipes.testing.simulation.tree import Change, parent_of

if TYPE_CHECKING:
    from zkrecipes.testing.simulation.server import ServerConnection

__all__ = ["Watchers"]

EVENTS: Final = {"create": NodeEvent.CREATED, "delete": NodeEvent.DELETED, "set": NodeEvent.CHANGED}

Told = dict["ServerConnection", None]


@final
class _Table:
    """One kind of watch: who watches which node, and whether all below it, too."""

    def __init__(self) -> None:
        self._modes: dict[str, dict[ServerConnection, bool]] = {}
        self._paths: dict[ServerConnection, dict[str, None]] = {}
        self._recursive = 0

    def add(self, path: str, connection: ServerConnection, *, recursive: bool) -> None:
        modes = self._modes.setdefault(path, {})
        self._recursive += recursive - modes.get(connection, False)
        modes[connection] = recursive
        self._paths.setdefault(connection, {})[path] = None

    def remove(self, path: str, connection: ServerConnection) -> bool:
        modes = self._modes.get(path, {})
        if connection not in modes:
            return False
        self._recursive -= modes.pop(connection)
        if not modes:
            del self._modes[path]
        paths = self._paths[connection]
        del paths[path]
        if not paths:
            del self._paths[connection]
        return True

    def forget(self, connection: ServerConnection) -> None:
        for path in list(self._paths.get(connection, ())):
            self.remove(path, connection)

    def clear(self) -> None:
        self._modes, self._paths, self._recursive = {}, {}, 0

    def trigger(self, path: str, event: NodeEvent, told: Told) -> Told:
        """Tell whoever watches, except those that were told; who was told now."""
        watching: Told = {}
        for connection, recursive in list(self._modes.get(path, {}).items()):
            if not recursive:
                self.remove(path, connection)
                watching[connection] = None
        if self._recursive and event is not NodeEvent.CHILDREN:
            self._look_above(path, watching)
        for connection in watching:
            if connection not in told and connection.alive:
                connection.to_client.send(connection.client.notified, path, event)
        return watching

    def _look_above(self, path: str, watching: Told) -> None:
        while True:
            for connection, recursive in self._modes.get(path, {}).items():
                if recursive:
                    watching[connection] = None
            if path == "/":
                return
            path = parent_of(path)

    def count(self, connection: ServerConnection) -> list[str]:
        return list(self._paths.get(connection, ()))


@final
class Watchers:
    """Both tables."""

    def __init__(self) -> None:
        self._data = _Table()
        self._children = _Table()

    def once(self, path: str, connection: ServerConnection, *, children: bool) -> None:
        """A one-shot watch, as a read sets it."""
        (self._children if children else self._data).add(path, connection, recursive=False)

    def always(self, path: str, connection: ServerConnection) -> None:
        """A persistent watch on a node and everything below it."""
        self._data.add(path, connection, recursive=True)
        self._children.add(path, connection, recursive=True)

    def remove(self, path: str, connection: ServerConnection, kind: WatchKind) -> bool:
        """End the watches on exactly this node, of whatever mode; whether there was one."""
        found = kind is not WatchKind.DATA and self._children.remove(path, connection)
        return (kind is not WatchKind.CHILDREN and self._data.remove(path, connection)) or found

    def fire(self, change: Change) -> None:
        """A change was applied."""
        event = EVENTS.get(change.kind)
        if event is None:
            return
        told = self._data.trigger(change.path, event, {})
        if event is NodeEvent.DELETED:
            self._children.trigger(change.path, event, told)
        if event is not NodeEvent.CHANGED:
            self._children.trigger(parent_of(change.path), NodeEvent.CHILDREN, {})

    def of(self, connection: ServerConnection) -> list[str]:
        """The nodes that a connection watches, for checks."""
        return sorted({*self._data.count(connection), *self._children.count(connection)})

    def forget(self, connection: ServerConnection) -> None:
        """A connection has ended."""
        self._data.forget(connection)
        self._children.forget(connection)

    def clear(self) -> None:
        """All connections have ended."""
        self._data.clear()
        self._children.clear()
