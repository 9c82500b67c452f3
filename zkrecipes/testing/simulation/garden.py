"""A small tree that many change at random, and what it has ever looked like."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, final

from zkrecipes.calls import Unsettled
from zkrecipes.errors import ClosedError, ZkRecipesError
from zkrecipes.flow import first_of
from zkrecipes.port import Check, Create, Delete, Kind, Multi, Request, Set
from zkrecipes.testing.simulation.client import SimulatedClient
from zkrecipes.testing.simulation.server import Txn
from zkrecipes.testing.simulation.tasks import Task
from zkrecipes.testing.simulation.tree import Tree
from zkrecipes.testing.simulation.world import World

if TYPE_CHECKING:
    from zkrecipes.testing.simulation.listening import Listening

__all__ = ["PATHS", "ROOT", "Chronicle", "Gardener"]

ROOT: Final = "/t"
NAMES: Final = ("a", "b")
PATHS: Final = (
    ROOT,
    *(f"{ROOT}/{one}" for one in NAMES),
    *(f"{ROOT}/{one}/{other}" for one in NAMES for other in NAMES),
    f"{ROOT}/a/a/a",
)
"""Every node that may be there: few, so that the same ones come and go again and again."""

CONTENTS: Final = (b"", b"x", b"y")
PATIENCE: Final = 2.0


@final
class Chronicle:
    """Every state that each node has had.

    Attributes:
        changes: How many changes there were.
        last: When the last was.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._states: dict[tuple[str, int, int], bytes] = {}
        self._current: dict[str, int] = {}
        self.changes = 0
        self.last = 0.0

    def committed(self, txn: Txn) -> None:
        """A transaction has been committed."""
        for change in txn.changes:
            if change.kind == "check":
                continue
            self.changes += 1
            self.last = self._world.now
            if change.kind == "create":
                self._current[change.path] = txn.zxid
            if change.kind == "delete":
                self._current.pop(change.path, None)
            else:
                # Within one transaction the last counts: nobody sees what was before it.
                self._states[change.path, self._current.get(change.path, 0), txn.zxid] = change.data

    def knows(self, path: str, czxid: int, mzxid: int, data: bytes) -> bool:
        """Whether this node has ever been like that."""
        planted = czxid == mzxid == 0 and not data
        return planted or self._states.get((path, czxid, mzxid)) == data


@final
class Gardener:
    """Changes the tree now and then, as somebody who reads nothing before."""

    def __init__(self, contest: Listening, client: SimulatedClient, number: int) -> None:
        self._contest = contest
        self._world = contest.world
        self.client = client
        self.task: Task[None] = contest.start(client, self._work(), f"gardener {number}")

    async def _work(self) -> None:
        contest, session = self._contest, self.client.session
        now = self.client.process.now
        while contest.world.now < contest.end:
            await first_of(until=now() + contest.pace * contest.world.chance())
            if contest.world.now >= contest.end:
                return
            try:
                await session.ready(math.inf)
                await session.result(session.call(self._draw()), now() + PATIENCE)
            except (Unsettled, ClosedError):
                continue
            except ZkRecipesError:
                continue  # as it happens when one does not look first

    def _pick(self, things: tuple[str, ...]) -> str:
        return things[int(self._world.chance() * len(things))]

    def _content(self) -> bytes:
        return CONTENTS[int(self._world.chance() * len(CONTENTS))]

    def _draw(self) -> Request:
        # What it takes to be there is what one server has now; that may be over when the request arrives.
        tree, choice = self._contest.ensemble.tree, self._world.chance()
        there = tuple(path for path in PATHS if path in tree.nodes)
        missing = tuple(path for path in PATHS if path not in tree.nodes)
        if missing and (choice < 0.35 or not there):
            kind = Kind.EPHEMERAL if self._world.chance() < 0.2 else Kind.PERSISTENT
            return Create(self._pick(missing), self._content(), kind)
        path = self._pick(there)
        if choice < 0.55:
            return Set(path, self._content())
        if choice < 0.65:
            return Set(path, tree.nodes[path].data)
        if choice < 0.8:
            return Delete(path)
        return self._replant(tree, path) if choice < 0.95 else self._uproot(tree, path)

    def _replant(self, tree: Tree, path: str) -> Multi:
        """Deleted and made again at once, with all that is below it, perhaps the same in everything but the zxids."""
        below = [each for each in PATHS if each in tree.nodes and (each == path or each.startswith(f"{path}/"))]
        kept = [each for each in below if each == path or self._world.chance() < 0.7]
        kept = [each for each in kept if all(up not in below or up in kept for up in _ancestors(each))]
        operations: list[Create | Set | Delete | Check] = [Delete(each) for each in sorted(below, reverse=True)]
        for each in kept:
            node = tree.nodes[each]
            data = node.data if self._world.chance() < 0.7 else self._content()
            operations.append(Create(each, data))
            operations += [Set(each, data)] * min(node.version, 3)
        return Multi(tuple(operations))

    def _uproot(self, tree: Tree, path: str) -> Multi:
        """A whole subtree goes at once."""
        below = sorted(each for each in tree.nodes if each == path or each.startswith(f"{path}/"))
        return Multi(tuple(Delete(each) for each in reversed(below)))


def _ancestors(path: str) -> list[str]:
    found = []
    while path != "/":
        path = path.rpartition("/")[0] or "/"
        found.append(path)
    return found
