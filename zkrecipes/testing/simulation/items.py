"""What was queued: every item, claim and dead letter that was ever committed, and whether it may be so."""

from __future__ import annotations

from typing import Final, NoReturn, final

from zkrecipes.errors import DecodeError
from zkrecipes.queue_curator_layout import CURATOR_LAYOUTS, parse_item, read_items
from zkrecipes.queue_layout import Record, read_record
from zkrecipes.testing.simulation.server import Txn
from zkrecipes.testing.simulation.tree import Change
from zkrecipes.testing.simulation.world import Violation, World

__all__ = ["PATH", "Items"]

PATH: Final = "/queue"

SLACK: Final = 2
"""Milliseconds by which a due time may be missed: times are whole ones."""


@final
class Items:
    """Everything that was committed.

    Attributes:
        stands: Where each item stands now, by its identifier.
        gone: Items that were acknowledged.
        dead: Items that are dead letters.
    """

    def __init__(self, world: World, layout: str) -> None:
        self._world = world
        self._curator = next((kind for kind in CURATOR_LAYOUTS if kind == layout), None)
        self.stands: dict[str, str] = {}
        self.gone: dict[str, None] = {}
        self.dead: dict[str, None] = {}
        self._made: dict[str, int] = {}
        self._records: dict[str, Record] = {}
        self._over: dict[str, None] = {}
        self._acks: dict[str, int] = {}
        self._heads: dict[str, int] = {}

    # --- what callers were told ---------------------------------------------------------------------------------------

    def failed(self, item: str) -> None:
        """Its producer was told that it is not stored, and will not be."""
        self._over[item] = None
        if item in self.stands or item in self.gone or item in self.dead:
            self._complain(f"{item} was stored, though its producer was told that it was not")

    def told(self, item: str) -> None:
        """Its producer was told that it is stored."""
        if item not in self.stands and item not in self.gone and item not in self.dead:
            self._complain(f"{item} was said to be stored, and is nowhere")

    def acknowledging(self, item: str) -> None:
        """A consumer begins to acknowledge it."""
        self._acks[item] = self._acks.get(item, 0) + 1

    def not_acknowledged(self, item: str) -> None:
        """A consumer was told that its acknowledgement does not count."""
        self._acks[item] -= 1

    def acknowledged(self, item: str) -> None:
        """A consumer was told that its acknowledgement counts."""
        if item not in self.gone:
            self._complain(f"{item} was said to be acknowledged, and stands at {self.stands.get(item)}")

    def handed_out(self, item: str) -> None:
        """A consumer has a valid claim on it."""
        if item in self.gone:
            self._complain(f"{item} was handed out after it was acknowledged")
        if item not in self.stands:
            self._complain(f"{item} was handed out, and is not in the queue")

    # --- what was committed -------------------------------------------------------------------------------------------

    def committed(self, txn: Txn) -> None:
        """A transaction has been committed."""
        deleted: list[str] = []
        created: list[tuple[str, str]] = []
        buried: list[str] = []
        for change in txn.changes:
            kind = _kind(change.path) if self._curator is None else _curator_kind(change.path)
            if kind == "head" and change.kind in {"create", "set"}:
                self._heads[change.path.removesuffix("/head")] = int(change.data)
            elif kind == "item" and change.kind == "delete":
                deleted.append(change.path)
            elif kind == "item" and change.kind == "create":
                record = self._record(change, txn.time)
                created.append((record.id, change.path))
                self._made[change.path] = txn.time
                self._records[change.path] = record
            elif kind == "item" and change.kind == "set":
                self._set(change, txn)
            elif kind == "dead" and change.kind == "create":
                buried.append(self._letter(change).id)
        for path in deleted:
            self._deleted(path, moved=[item for item, _ in created], buried=buried)
        for item, path in created:
            self._created(item, path)

    def _created(self, item: str, path: str) -> None:
        if item in self._over:
            self._complain(f"{item} was stored after its producer was told that it would not be")
        if item in self.gone:
            self._complain(f"{item} is back, though it was acknowledged")
        if item in self.stands:
            self._complain(f"{item} stands twice: at {self.stands[item]} and {path}")
        self.stands[item] = path
        if self._curator is not None:
            return
        lane, shelf, _ = path.rsplit("/", 2)
        if int(shelf[1:]) != self._heads[lane]:
            self._complain(f"{item} was put into {shelf} of {lane}, though {self._heads[lane]} is the head")

    def _deleted(self, path: str, *, moved: list[str], buried: list[str]) -> None:
        record = self._records.pop(path)
        del self.stands[record.id]
        if record.id in moved:
            return
        if record.id in buried:
            self.dead[record.id] = None
            return
        if self._acks.get(record.id, 0) <= 0:
            self._complain(f"{record.id} was deleted, though nobody is acknowledging it")
        self.gone[record.id] = None

    def _set(self, change: Change, txn: Txn) -> None:
        before = self._records[change.path]
        record = self._records[change.path] = self._record(change, self._made[change.path])
        if record.id != before.id or record.payload != before.payload or record.priority != before.priority:
            self._complain(f"{before.id} was changed: {record}")
        if record.attempts > before.attempts and txn.time + SLACK < self._made[change.path] + before.delay:
            self._complain(f"{record.id} was claimed {self._made[change.path] + before.delay - txn.time} ms too early")

    def _record(self, change: Change, made: int) -> Record:
        if self._curator is None:
            return self._letter(change)
        name = parse_item(self._curator, change.path.rpartition("/")[2])
        try:
            if name is None:
                self._complain(f"{change.path} is no name of {self._curator}")
            return read_items(change.data, name, made, change.path)
        except DecodeError as error:
            message = f"what was written cannot be read: {error}"
            raise Violation(message, self._world.seed) from error

    def _letter(self, change: Change) -> Record:
        try:
            return read_record(change.data, change.path)
        except DecodeError as error:
            message = f"what was written cannot be read: {error}"
            raise Violation(message, self._world.seed) from error

    def _complain(self, what: str) -> NoReturn:
        raise Violation(what, self._world.seed)


def _kind(path: str) -> str:
    parts = path.removeprefix(f"{PATH}/").split("/")
    if parts[0] == "dead" and len(parts) == 2:
        return "dead"
    if parts[0] in {"lanes", "delayed"} and parts[-1] == "head":
        return "head"
    if parts[0] in {"lanes", "delayed"} and len(parts) == 4 and parts[2].startswith("s"):
        return "item"
    return ""


def _curator_kind(path: str) -> str:
    if path.startswith(f"{PATH}-locks/zkrecipes/dead/"):
        return "dead"
    return "item" if path.startswith(f"{PATH}/queue-") else ""
