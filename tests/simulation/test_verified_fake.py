"""The simulated server against a real one: the same random operations, drawn from a seed, must be answered alike.

Compared are results, errors, the refused operation of a transaction, the names of sequential nodes, every number of a
stat that does not depend on time, the order in which czxid, mzxid and pzxid rise, and every event of a watch: one-shot
and persistent ones, also where both are on the same node. The stats that transactions answer have a test of their own.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import pytest

import zkrecipes
from zkrecipes.calls import Call
from zkrecipes.errors import (
    ConflictError,
    NodeExistsError,
    NodeNotFoundError,
    NotEmptyError,
    TransactionError,
    ZkRecipesError,
)
from zkrecipes.port import (
    AddWatch,
    Check,
    Children,
    Code,
    Create,
    Created,
    Delete,
    Exists,
    Get,
    Kind,
    Multi,
    NodeEvent,
    ReadMany,
    RemoveWatches,
    Request,
    Set,
    Stat,
    Sync,
    WatchKind,
)
from zkrecipes.session import Session
from zkrecipes.testing import Server
from zkrecipes.testing.simulation import Simulation

LIMIT = 10.0
STEPS = 200

NAMES = ("a", "b", "c", "n-")


class Step(NamedTuple):
    """One request, and what came of it."""

    request: Request
    answer: object
    events: tuple[tuple[str, NodeEvent], ...]
    """What watches have told by now, since the step before, in order."""


class Told:
    """In place of a session's watches: takes down all that the server tells, and keeps no watch from being set."""

    def __init__(self) -> None:
        self.events: list[tuple[str, NodeEvent]] = []

    def asked(self, call: Call[Any]) -> None:
        pass

    def answered(self, call: Call[Any], *, found: bool) -> None:
        pass

    def refused(self, request: Request) -> None:
        pass

    def ended(self) -> None:
        pass

    def notified(self, path: str, event: NodeEvent) -> None:
        self.events.append((path, event))


class Recorder:
    """Sends the requests of a seed through a session, and writes down what is answered.

    The requests are drawn from what the answers so far have told (nodes and versions), so they are the same wherever
    the answers are.
    """

    def __init__(self, session: Session, root: str, seed: int) -> None:
        self.session = session
        self.root = root
        self.random = random.Random(seed)
        self.known: dict[str, int] = {"": 0}  # path below the root: newest version seen
        self.containers: set[str] = set()
        self.zxids: list[tuple[int, str, Stat]] = []
        self.watched: list[str] = []
        self.steps: list[Step] = []
        self.stats_in_transactions = False

    async def play(self, steps: int) -> None:
        watches, told = self.session.watches, Told()
        self.session.watches = told  # type: ignore[assignment]  # the session's is final; this one only listens
        try:
            await self._play(steps, told)
        finally:
            self.session.watches = watches

    async def _play(self, steps: int, told: Told) -> None:
        await self.session.ready(self.session.runtime.now() + LIMIT)
        await self.ask(Create(self.root))
        for _ in range(steps):
            request = self.draw()
            answer = await self.told(request)
            # A watch's event comes before the answer of whatever the same connection asks next.
            await self.ask(Sync("/"))
            events = [(path.removeprefix(self.root), event) for path, event in told.events]
            told.events.clear()
            self.steps.append(Step(request, answer, tuple(events)))

    async def transact(self) -> list[object]:
        """What transactions answer in which one operation changes what another has answered."""
        self.stats_in_transactions = True
        await self.session.ready(math.inf)
        await self.ask(Create(self.root))
        path = f"{self.root}/a"
        transactions: list[tuple[Create | Set | Delete | Check, ...]] = [
            (Create(path), Check(path), Create(f"{self.root}/b", kind=Kind.CONTAINER)),
            (Set(path, b"x"), Create(f"{path}/c")),
            (Set(f"{path}/c", b"xx"), Delete(f"{path}/c")),
            (Create(f"{path}/d"), Delete(f"{path}/d")),
        ]
        return [await self.told(Multi(operations)) for operations in transactions]

    async def ask(self, request: Request) -> Any:
        return await self.session.result(self.session.call(request), self.session.runtime.now() + LIMIT)

    async def told(self, request: Request) -> object:
        call: Call[Any] = self.session.call(request)
        try:
            result = await self.session.result(call, self.session.runtime.now() + LIMIT)
        except TransactionError as error:
            return (type(error), error.index, type(error.__cause__))
        except ZkRecipesError as error:
            return (type(error), str(error).replace(self.root, "ROOT"))
        self._learn(request, result)
        if isinstance(request, Multi) and not self.stats_in_transactions:
            return [each.path.removeprefix(self.root) if isinstance(each, Created) else each is None for each in result]
        return self.plain(result)

    def _learn(self, request: object, result: Any) -> None:
        match request:
            case Multi():
                for operation, each in zip(request.operations, result, strict=True):
                    self._learn(operation, each)
            case Create():
                path = result.path.removeprefix(self.root)
                self.known[path] = 0
                if request.kind is Kind.CONTAINER:
                    self.containers.add(path)
            case Delete():
                path = request.path.removeprefix(self.root)
                self.known.pop(path, None)
                self.containers.discard(path)
            case AddWatch():
                self.watched.append(request.path.removeprefix(self.root))
            case Set() | Get():
                stat = result if isinstance(request, Set) else result[1]
                self.known[request.path.removeprefix(self.root)] = stat.version

    def plain(self, result: Any) -> object:
        """Without what depends on time and place; zxids are kept apart, for their order."""
        match result:
            case Stat():
                self.zxids.append((len(self.steps), f"stat {len(self.zxids)}", result))
                return {
                    "version": result.version,
                    "cversion": result.cversion,
                    "aversion": result.aversion,
                    "owner": "mine" if result.ephemeral_owner == self.session.id else result.ephemeral_owner,
                    "data_length": result.data_length,
                    "children_count": result.children_count,
                }
            case Created():
                return ("created", result.path.removeprefix(self.root), self.plain(result.stat))
            case tuple():
                return tuple(self.plain(each) for each in result)
            case list():
                return sorted(result)
            case _:
                return result

    def order(self) -> list[tuple[int, str, int]]:
        """Each zxid that was told, as its place among all of them."""
        told = [(step, f"{name} {field}", getattr(stat, field)) for step, name, stat in self.zxids for field in FIELDS]
        rank = {zxid: place for place, zxid in enumerate(sorted({zxid for _, _, zxid in told}))}
        return [(step, name, rank[zxid]) for step, name, zxid in told]

    # --- what is asked ------------------------------------------------------------------------------------------------

    def draw(self) -> Request:
        choice = self.random.random()
        if choice < 0.04:
            return AddWatch(self._path())
        if choice < 0.07:
            path = f"{self.root}{self.random.choice(self.watched)}" if self.watched else self._path()
            return RemoveWatches(path, self.random.choice(tuple(WatchKind)))
        if choice < 0.1:
            reads = (self.random.choice((Get, Children))(self._path()) for _ in range(self.random.randint(1, 4)))
            return ReadMany(tuple(reads))
        if choice < 0.25:
            return self._multi()
        if choice < 0.6:
            return self._write()
        path, watch = self._path(), self.random.random() < 0.5
        kind: type[Get | Exists | Children] = self.random.choice((Get, Exists, Children))
        return kind(path, watch)

    def _path(self) -> str:
        """Mostly a node that is there, sometimes one that may not be."""
        path = self.random.choice(sorted(self.known))
        if self.random.random() < 0.4:
            path = f"{path}/{self.random.choice(NAMES)}"
        return f"{self.root}{path}"

    def _version(self, path: str) -> int:
        return self.random.choice((-1, self.known.get(path.removeprefix(self.root), 0), self.random.randrange(4)))

    def _multi(self) -> Multi:
        operations: list[Create | Set | Delete | Check] = []
        for _ in range(self.random.randint(1, 4)):
            path = self._path()
            operations.append(Check(path, self._version(path)) if self.random.random() < 0.3 else self._write())
        return Multi(tuple(operations))

    def _write(self) -> Create | Set | Delete:
        choice = self.random.random()
        if choice < 0.5:
            # Not below containers: a real server might remove one that has become empty, at any time.
            parents = sorted(self.known.keys() - self.containers)
            missing = "/missing" if self.random.random() < 0.1 else ""
            path = f"{self.root}{self.random.choice(parents)}{missing}/{self.random.choice(NAMES)}"
            kind = self.random.choice((Kind.PERSISTENT, Kind.PERSISTENT, Kind.EPHEMERAL, Kind.CONTAINER))
            sequential = kind is not Kind.CONTAINER and self.random.random() < 0.4
            return Create(path, self._data(), kind, sequential)
        path = self._path()
        if path == self.root:
            path += "/a"
        if choice < 0.75:
            return Set(path, self._data(), self._version(path))
        return Delete(path, self._version(path))

    def _data(self) -> bytes:
        return b"x" * self.random.randrange(5)


FIELDS = ("czxid", "mzxid", "pzxid")

REFUSALS: dict[type, tuple[type, ...]] = {
    Create: (NodeNotFoundError, NodeExistsError, ZkRecipesError),  # the last: below an ephemeral node
    Set: (NodeNotFoundError, ConflictError),
    Delete: (NodeNotFoundError, ConflictError, NotEmptyError),
    Get: (NodeNotFoundError,),
    Exists: (),
    Children: (NodeNotFoundError,),
    AddWatch: (),
    RemoveWatches: (ZkRecipesError,),
    ReadMany: (),
    Multi: (TransactionError,),
}


def simulated(seed: int) -> Recorder:
    with Simulation(seed, servers=1) as sim:
        client = sim.client()
        recorder = Recorder(client.session, "/verified", seed)
        task = sim.start(client, recorder.play(STEPS))
        sim.run_until(lambda: task.done.done, 600.0, "all requests are answered")
        task.done.result()
    return recorder


@pytest.fixture(scope="module")
def client(zkr_server: Server) -> Iterator[zkrecipes.Client]:
    with zkrecipes.connect(zkr_server.hosts) as client:
        yield client


@pytest.mark.parametrize("seed", range(10))
def test_the_simulated_server_answers_as_a_real_one(client: zkrecipes.Client, zkr_namespace: str, seed: int) -> None:
    real = Recorder(client.core.session, f"{zkr_namespace}/verified", seed)
    client.run(real.play(STEPS))
    fake = simulated(seed)
    for number, (one, other) in enumerate(zip(real.steps, fake.steps, strict=True)):
        asked = _below(one.request, real.root)
        assert asked == _below(other.request, fake.root), f"step {number}: they were asked different things"
        assert other.answer == one.answer, f"step {number}, {asked}: simulated == real"
        assert other.events == one.events, f"step {number}, {asked}: events of watches, simulated == real"
    assert fake.order() == real.order()


def test_stats_in_transactions_are_told_as_by_a_real_server(client: zkrecipes.Client, zkr_namespace: str) -> None:
    real = Recorder(client.core.session, f"{zkr_namespace}/verified", 0)
    expected = client.run(real.transact())
    with Simulation(0, servers=1) as sim:
        fake = sim.client()
        task = sim.start(fake, Recorder(fake.session, "/verified", 0).transact())
        sim.run_until(lambda: task.done.done, 60.0, "all requests are answered")
        assert task.done.result() == expected


def test_the_operations_come_to_every_kind_of_answer() -> None:
    """Without it, the comparison could be one of empty lists."""
    seen: set[object] = set()
    for seed in range(10):
        for request, answer, events in simulated(seed).steps:
            error = isinstance(answer, tuple) and isinstance(answer[0], type)
            seen.add((type(request), answer[0] if isinstance(answer, tuple) and error else "answered"))
            seen.update(event for _, event in events)
            if isinstance(request, ReadMany) and isinstance(answer, tuple):
                seen.update(
                    ("read refused", type(read))
                    for read, each in zip(request.reads, answer, strict=True)
                    if each == (Code.NO_NODE,)
                )
            if isinstance(answer, tuple) and answer[0] is TransactionError:
                seen.add(("index", answer[1]))
                seen.add(("cause", answer[2]))
    expected: set[object] = {*NodeEvent, *(("index", place) for place in range(4))}
    expected |= {("read refused", Get), ("read refused", Children)}
    for kind, errors in REFUSALS.items():
        expected |= {(kind, "answered"), *((kind, error) for error in errors)}
    expected |= {("cause", error) for error in (ConflictError, *REFUSALS[Create], NotEmptyError)}
    assert expected <= seen


def _below(request: Any, root: str) -> Any:
    if isinstance(request, Multi):
        return Multi(tuple(_below(each, root) for each in request.operations))
    if isinstance(request, ReadMany):
        return ReadMany(tuple(_below(each, root) for each in request.reads))
    return replace(request, path=request.path.removeprefix(root))
