"""What was counted: each add has a digit of its own, in base 4.

So the number tells which were applied, and how often.
"""

from __future__ import annotations

from typing import Final, final

from zkrecipes.testing.simulation.server import Txn
from zkrecipes.testing.simulation.world import Violation, World

__all__ = ["Once", "Sums"]

DIGITS: Final = 4096
TOO_MANY: Final = int("10" * DIGITS, 2)
"""The bits that are set where a digit is 2 or 3."""


@final
class Sums:
    """The adds to one node that holds decimal text.

    Args:
        world: For the trace.
        path: The node.
    """

    def __init__(self, world: World, path: str) -> None:
        self._world = world
        self.path = path
        self.applied = 0
        self.acknowledged = 0
        self._over = 0
        self._count = 0
        self._values: dict[int, None] = {}

    @property
    def count(self) -> int:
        """How many adds there were."""
        return self._count

    def new(self) -> int:
        """The amount of an add."""
        self._count += 1
        return 1 << 2 * (self._count - 1)

    def committed(self, txn: Txn) -> None:
        """A transaction has been committed."""
        for change in txn.changes:
            if change.path == self.path and change.kind in {"create", "set"}:
                self._check(int(change.data or b"0"))
            elif change.path == self.path and change.kind == "delete":
                self._complain("somebody has deleted it")

    def _check(self, value: int) -> None:
        if value < 0 or self.applied & ~value:
            # A digit that is 2 has lost its lower bit, too.
            self._complain("an add was counted twice" if value & TOO_MANY else "an add that was counted is lost")
        if value & TOO_MANY:
            self._complain("an add was counted twice")
        if value & self._over:
            self._complain("an add was counted, though its call had said that it was not, and never would be")
        self.applied = value

    def done(self, amount: int, before: int, value: int) -> None:
        """A call has ended well.

        Args:
            amount: Of the add.
            before: What was acknowledged when the call began.
            value: What it was told.
        """
        if not self.applied & amount:
            self._complain("an add was acknowledged, and not counted")
        if not value & amount or before & ~value or value & ~self.applied:
            self._complain(f"an add was told a value that never was: {value:#x}, of {self.applied:#x}")
        if value in self._values:
            self._complain("two adds were told the same value")
        self._values[value] = None
        self.acknowledged |= amount

    def failed(self, amount: int) -> None:
        """A call has ended, and said that nothing was counted, and nothing will be."""
        if self.applied & amount:
            self._complain("an add was counted, though its call has failed")
        self._over |= amount

    def seen(self, before: int, value: int) -> None:
        """Somebody has read it.

        Args:
            before: What was acknowledged to the same client when the call began.
            value: What was read.
        """
        if before & ~value or value & ~self.applied:
            self._complain(f"what was read never was, or is older than what the reader has counted: {value:#x}")

    def _complain(self, what: str) -> None:
        message = f"{self.path}: {what}"
        raise Violation(message, self._world.seed)


@final
class Once:
    """Values that are set, each by one call: applied once, or never, as the call has said."""

    def __init__(self, world: World, path: str) -> None:
        self._world = world
        self._path = path
        self._applied: dict[int, int] = {}
        self._over: dict[int, None] = {}
        self._count = 0

    def new(self) -> int:
        """A value that nobody else sets."""
        self._count += 1
        return self._count

    def committed(self, txn: Txn) -> None:
        """A transaction has been committed."""
        for change in txn.changes:
            if change.path == self._path and change.kind == "set":
                value = int(change.data)
                self._applied[value] = self._applied.get(value, 0) + 1
                if self._applied[value] > 1:
                    self._complain(f"{value} was set twice")
                if value in self._over:
                    self._complain(f"{value} was set, though its call had said that it never would be")

    def done(self, value: int) -> None:
        """A call has ended well."""
        if value not in self._applied:
            self._complain(f"{value} was acknowledged, and not set")

    def failed(self, value: int) -> None:
        """A call has ended, and said that nothing was set, and nothing will be."""
        if value in self._applied:
            self._complain(f"{value} was set, though its call has failed")
        self._over[value] = None

    def _complain(self, what: str) -> None:
        message = f"{self._path}: {what}"
        raise Violation(message, self._world.seed)
