"""What has become of a configuration on the servers: every release, every canary, and whether the writes fit."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final, final

from zkrecipes.config_records import decode_canary, decode_record
from zkrecipes.config_types import Places, version_of
from zkrecipes.testing.simulation.server import Txn
from zkrecipes.testing.simulation.world import Violation, World

__all__ = ["PATH", "Register", "Trial"]

PATH: Final = "/app/config"


@final
@dataclass
class Trial:
    """A canary, as the servers have known it.

    Attributes:
        number: What it would change the configuration to.
        base: The version that it was to replace.
        end: "" while it runs, then "promoted" or "aborted".
    """

    number: int
    base: int
    end: str = ""


@final
class Register:
    """Looks at every committed transaction.

    Attributes:
        numbers: What each version of the configuration said.
        released: How often each number was released otherwise than by a roll-back.
        ids: The version of each record.
        trials: Every canary, by id.
        running: The id of the canary that runs.
        version: Of the document; -1 if there is none.
        over: Numbers whose calls have said that they were not published.
    """

    def __init__(self, world: World, *, tree: bool) -> None:
        self._world = world
        self._tree = tree
        self._places = Places(PATH)
        self._nodes: dict[str, bytes] = {}
        self._versions: dict[str, int] = {}
        self.numbers: dict[int, int] = {}
        self.released: dict[int, int] = {}
        self.ids: dict[str, int] = {}
        self.trials: dict[str, Trial] = {}
        self.running = ""
        self.version = -1
        self.over: dict[int, None] = {}
        self.last = 0.0

    @property
    def number(self) -> int:
        """What the newest version says."""
        return self.numbers[self.version]

    def committed(self, txn: Txn) -> None:
        """A transaction has been committed."""
        before = self._nodes.get(self._places.canary)
        documents, records, marks = 0, [], {}
        touched = False
        for change in txn.changes:
            if change.kind == "check":
                continue
            path = change.path
            if path == PATH or path.startswith((f"{PATH}/", self._places.releases, self._places.canary)):
                self.last = self._world.now
            if change.kind == "delete":
                self._nodes.pop(path, None)
            else:
                self._versions[path] = 0 if change.kind == "create" else self._versions.get(path, 0) + 1
                self._nodes[path] = change.data
            documents += path == PATH
            touched = touched or path.startswith(f"{PATH}/")
            name = path.rpartition("/")[2]
            if path.startswith(f"{self._places.releases}/") and change.kind != "delete":
                if version_of(name) is not None and "-found-" not in name:
                    records.append(path)
                elif name.startswith("canary-"):
                    marks[name[18:]] = change.kind
        if documents or touched or records:
            self._release(documents, records, before, marks)
        self._trial(before, marks)

    def _release(self, documents: int, records: list[str], before: bytes | None, marks: dict[str, str]) -> None:
        if documents != 1 or len(records) != 1:
            self._complain(f"{documents} documents and {len(records)} records were written together")
        self.version = self._versions[PATH]
        release, raw = decode_record(self._nodes[records[0]], records[0])
        if release.version != self.version:
            self._complain(f"the record of version {self.version} says {release.version}")
        number = int(json.loads(raw)["number"])
        stored = self._stored()
        if stored != (number, number):
            self._complain(f"version {self.version} is {stored}, and its record says {number}")
        self.numbers[self.version] = number
        self.ids[release.id] = self.version
        if release.source != "rollback":
            self.released[number] = self.released.get(number, 0) + 1
            if self.released[number] > 1:
                self._complain(f"{number} was released twice")
            if number in self.over:
                self._complain(f"{number} was released after its call had said that it would not be")
        if before is not None and (release.source != "promote" or not marks):
            self._complain(f"version {self.version} was released while a canary runs")

    def _stored(self) -> tuple[int, int]:
        if self._tree:
            return int(self._nodes[f"{PATH}/number"]), int(self._nodes[f"{PATH}/twin"])
        document = json.loads(self._nodes[PATH])
        return int(document["number"]), int(document["twin"])

    def _trial(self, before: bytes | None, marks: dict[str, str]) -> None:
        after = self._nodes.get(self._places.canary)
        if before == after:
            return
        if before is not None:
            old = decode_canary(before, PATH)
            if marks != {old.id: "set"}:
                self._complain(f"the canary {old.id} was ended by who meant another one: {marks}")
            mark = self._nodes[f"{self._places.releases}/canary-{old.base:010d}-{old.id}"]
            self.trials[old.id].end = "promoted" if mark == b"promoted" else "aborted"
            self.running = ""
        if after is not None:
            new = decode_canary(after, PATH)
            number = int(json.loads(new.document)["number"])
            self.trials[new.id] = Trial(number, new.base)
            self.running = new.id
            if number in self.over:
                self._complain(f"the canary of {number} began after its call had said that it would not")
            if new.base != self.version:
                self._complain(f"a canary on version {new.base} began, and there is {self.version}")

    def _complain(self, message: str) -> None:
        raise Violation(message, self._world.seed)
