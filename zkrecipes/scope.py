"""Which part of the tree a listener looks at. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

__all__ = ["Scope"]


@final
@dataclass(frozen=True)
class Scope:
    """Roots, and what stands below them to some depth. Full paths.

    Attributes:
        roots: Where it begins; each may be absent.
        depth: How many levels below a root belong to it: 0 for the roots alone, None for all.
        shows_roots: Whether the roots themselves are shown, or only what stands below them.
    """

    roots: tuple[str, ...]
    depth: int | None = None
    shows_roots: bool = True

    def covers(self, path: str) -> bool:
        """Whether a node belongs to it."""
        return any(self._level(root, path) is not None for root in self.roots)

    def lists(self, path: str) -> bool:
        """Whether a node's children belong to it."""
        levels = [level for root in self.roots if (level := self._level(root, path)) is not None]
        return bool(levels) and (self.depth is None or min(levels) < self.depth)

    def shows(self, path: str) -> bool:
        """Whether a node that belongs to it is shown."""
        return self.shows_roots or path not in self.roots

    def chain(self, path: str) -> list[str]:
        """The node and its ancestors below the nearest root, from the top: a root is wanted, whatever is above it."""
        roots = [root for root in self.roots if self._level(root, path) is not None]
        top = max(roots, key=len, default=path)
        found = []
        while len(path) > len(top) and path != "/":
            found.append(path)
            path = path.rpartition("/")[0] or "/"
        return found[::-1]

    def _level(self, root: str, path: str) -> int | None:
        if path == root:
            return 0
        prefix = "/" if root == "/" else f"{root}/"
        if not path.startswith(prefix):
            return None
        level = path.count("/", len(prefix)) + 1
        return level if self.depth is None or level <= self.depth else None
