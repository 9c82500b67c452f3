"""The nodes that are known of a part of the tree. Driver-free."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

from zkrecipes.port import Stat

__all__ = ["Known", "Seen", "parent_of"]


@final
class Seen:
    """One node as it was read.

    Attributes:
        data: Its bytes; empty where data is not wanted.
        stat: Its metadata, from the same reading.
        decoded: For whoever decodes it: the outcome, so that it is done once.
    """

    __slots__ = ("data", "decoded", "stat")

    def __init__(self, data: bytes, stat: Stat) -> None:
        self.data = data
        self.stat = stat
        self.decoded: Any = None


@final
class Known:
    """Nodes by path. What is known of one never goes backwards.

    Args:
        tell: Called with the path of each node that has changed, or gone.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self.nodes: dict[str, Seen] = {}
        self._below: dict[str, dict[str, None]] = {}
        self._tell = tell

    def keep(self, path: str, data: bytes, stat: Stat) -> None:
        """A node was read."""
        old = self.nodes.get(path)
        if old is not None:
            if (stat.czxid, stat.mzxid) <= (old.stat.czxid, old.stat.mzxid):
                return  # nothing new; or older, from a server that lags
            if old.stat.czxid != stat.czxid:
                # Another node: what stood below the one before was deleted before that could be.
                self.drop([each for each in self.descendants(path) if self.nodes[each].stat.czxid < stat.czxid])
        self.nodes[path] = Seen(data, stat)
        if path != "/":
            self._below.setdefault(parent_of(path), {})[path] = None
        self._tell(path)

    def children(self, path: str) -> list[str]:
        """The known children of a node."""
        return list(self._below.get(path, ()))

    def descendants(self, path: str) -> list[str]:
        """All that is known below a node, parents before children."""
        found = self.children(path)
        for each in found:
            found += self._below.get(each, ())
        return found

    def drop(self, paths: list[str]) -> None:
        """These are gone, given with parents before children."""
        for path in reversed(paths):
            # Not if something newer stands below it, whose parent, made again, has not been read yet.
            if not self._below.get(path, True):
                del self._below[path]
            if self.nodes.pop(path, None) is not None:
                self._below.get(parent_of(path), {}).pop(path, None)
                self._tell(path)


def parent_of(path: str) -> str:
    """The path of a node's parent."""
    return path.rpartition("/")[0] or "/"
