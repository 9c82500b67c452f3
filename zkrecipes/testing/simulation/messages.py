"""What was published: every message, low-water and position that was ever committed, and whether it may be so."""

from __future__ import annotations

from typing import Final, final

from zkrecipes.testing.simulation.server import Txn
from zkrecipes.testing.simulation.tree import Change
from zkrecipes.testing.simulation.world import Violation, World
from zkrecipes.topic_layout import (
    FIRST,
    Position,
    Record,
    Stored,
    TopicPlaces,
    message_index,
    parse_low,
    segment_number,
)

__all__ = ["PLACES", "Messages"]

PLACES: Final = TopicPlaces("/topic")


@final
class Messages:
    """Everything that was committed.

    Args:
        world: For the seed.
        protects: Whether nothing is removed that a durable subscription has not acknowledged.

    Attributes:
        order: The positions of all messages, in order.
        payloads: What they hold.
        low: The low-water.
        stored: The position of each durable subscription.
    """

    def __init__(self, world: World, *, protects: bool) -> None:
        self._world = world
        self._protects = protects
        self.order: list[Position] = []
        self.rank: dict[Position, int] = {}
        self.payloads: dict[Position, str] = {}
        self.places: dict[str, Position] = {}
        self.low = FIRST
        self.head = 0
        self.stored: dict[str, Position] = {}
        self._over: dict[str, None] = {}

    def failed(self, payload: str) -> None:
        """Its publisher was told that it is not stored, and will not be."""
        self._over[payload] = None
        if payload in self.places:
            self._complain(f"{payload} was stored, though its publisher was told that it was not")

    def told(self, payload: str, position: Position) -> None:
        """Its publisher was told where it stands."""
        if self.places.get(payload) != position:
            self._complain(f"{payload} was said to stand at {position}, but stands at {self.places.get(payload)}")

    def committed(self, txn: Txn) -> None:
        """A transaction has been committed."""
        deleted: list[Position] = []
        for change in txn.changes:
            if change.path == PLACES.low and change.kind in {"set", "create"}:
                self._raise_low(change)
            elif change.path == PLACES.head and change.kind == "set":
                self._roll(int(change.data))
            elif change.path.startswith(f"{PLACES.subs}/") and change.path.count("/") == 3:
                self._store(change)
            else:
                position = _position(change.path)
                if position is not None and change.kind == "create":
                    self._message(position, change)
                elif position is not None and change.kind == "delete":
                    deleted.append(position)
        for position in deleted:
            self._removed(position)

    def _message(self, position: Position, change: Change) -> None:
        payload = Record.decode(change.data, change.path).payload.decode()
        last = self.order[-1] if self.order else None
        if position.segment != self.head:
            self._complain(f"{payload} was written to segment {position.segment}, though {self.head} is the head")
        expected = 0 if last is None or last.segment != position.segment else last.index + 1
        if position.index != expected:
            self._complain(f"{payload} has number {position}, after {last}: a gap")
        if payload in self.places:
            self._complain(f"{payload} was stored twice, at {self.places[payload]} and {position}")
        if payload in self._over:
            self._complain(f"{payload} was stored after its publisher was told that it would not be")
        self.rank[position] = len(self.order)
        self.order.append(position)
        self.payloads[position] = payload
        self.places[payload] = position

    def _roll(self, head: int) -> None:
        if head != self.head + 1:
            self._complain(f"the head went from segment {self.head} to {head}")
        self.head = head

    def _raise_low(self, change: Change) -> None:
        low = parse_low(change.data, change.path).position
        if low < self.low:
            self._complain(f"the low-water fell from {self.low} to {low}")
        self.low = low

    def _removed(self, position: Position) -> None:
        if not position < self.low:
            self._complain(f"{position} was removed, and the low-water {self.low} does not tell")
        if self._protects:
            for name, stored in self.stored.items():
                if not position < stored:
                    self._complain(f"{position} was removed, and {name} has acknowledged only up to {stored}")

    def _store(self, change: Change) -> None:
        if change.kind == "delete" or not change.data:
            return
        name = change.path.rpartition("/")[2]
        position = Stored.decode(change.data, change.path).position
        if position < self.stored.get(name, FIRST):
            self._complain(f"the position of {name} went back from {self.stored[name]} to {position}")
        self.stored[name] = position

    def first_at(self, position: Position) -> int:
        """The rank of the first message at or behind a position."""
        return next((rank for rank, each in enumerate(self.order) if each >= position), len(self.order))

    def _complain(self, what: str) -> None:
        raise Violation(what, self._world.seed)


def _position(path: str) -> Position | None:
    parts = path.removeprefix(f"{PLACES.root}/").split("/")
    if len(parts) != 2:
        return None
    segment, index = segment_number(parts[0]), message_index(parts[1])
    return None if segment is None or index is None else Position(segment, index)
