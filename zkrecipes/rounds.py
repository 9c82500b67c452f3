"""When to look again though no watch has told anything. Driver-free.

Two reasons. No watch tells of a changed ACL, so what may not be read is asked for again and again. And a server tells
nothing of a node to who may not read it at that moment (3.8.4, 3.9.2 and later), yet takes the watch off: whoever gets
the permission back would hear nothing of that node any more. So now and then everything is looked at again.
"""

from __future__ import annotations

from typing import Final, final

from zkrecipes.errors import ZkRecipesError
from zkrecipes.port import Runtime
from zkrecipes.timing import NEVER

__all__ = ["AUDIT", "Rounds"]

POLL, LONGEST_POLL = 1.0, 30.0

AUDIT: Final = 60.0
"""Seconds between two looks at everything, for each thousand nodes."""


@final
class Rounds:
    """The next times to look, for one mirror.

    Args:
        runtime: For clock and chance.
        audit: Seconds between two looks at everything, about; AUDIT where None.

    Attributes:
        denied: Nodes that may not be read, and why.
    """

    def __init__(self, runtime: Runtime, audit: float | None = None) -> None:
        self.denied: dict[str, ZkRecipesError] = {}
        self._runtime = runtime
        self._audit = AUDIT if audit is None else audit
        self._audit_at = NEVER
        self._poll = POLL
        self._poll_at = NEVER

    @property
    def at(self) -> float:
        """The next time at which something is due."""
        return min(self._audit_at, self._poll_at)

    def audited(self, nodes: int) -> None:
        """Everything has been looked at."""
        # By chance a little earlier or later: a thousand services that were started together shall not ask together.
        seconds = self._audit * max(1.0, nodes / 1000) * (0.75 + 0.5 * self._runtime.random())
        self._audit_at = self._runtime.now() + seconds

    def audit_due(self) -> bool:
        """Whether to look at everything."""
        return self._runtime.now() >= self._audit_at

    def deny(self, path: str, error: ZkRecipesError) -> bool:
        """A node may not be read; whether that is news."""
        news = path not in self.denied
        self.denied[path] = error
        if news:
            self._poll = POLL
            self._poll_at = self._runtime.now() + self._poll
        return news

    def allow(self, path: str) -> bool:
        """A node may be read, or is gone; whether that is news."""
        news = self.denied.pop(path, None) is not None
        if not self.denied:
            self._poll_at = NEVER
        return news

    def poll_due(self) -> bool:
        """Whether to ask for what may not be read; more and more rarely."""
        due = self._runtime.now() >= self._poll_at
        if due:
            self._poll = min(self._poll * 2, LONGEST_POLL)
            self._poll_at = self._runtime.now() + self._poll
        return due
