"""Plain and guarded writes, and what became of each: applied once, never, or, where the caller was told so, unknown."""

from __future__ import annotations

import math
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Final, final

from zkrecipes.errors import ClosedError, LostError, OutcomeUnknownError, TransactionError, UnavailableError
from zkrecipes.flow import Wait, first_of
from zkrecipes.handle import HandleState
from zkrecipes.operations import Operations, Plan
from zkrecipes.testing.simulation.client import SimulatedClient
from zkrecipes.testing.simulation.server import Txn
from zkrecipes.testing.simulation.tasks import Task
from zkrecipes.testing.simulation.world import Violation, World

if TYPE_CHECKING:
    from zkrecipes.testing.simulation.contest import Contest

__all__ = ["DATA", "GUARDED", "Writer", "Writes", "write_guarded"]

DATA: Final = "/data"
GUARDED: Final = "/guarded"
LATE: Final = 0.2


@final
class Writes:
    """How often each write was applied. Each writes something of its own."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._applied: dict[bytes, int] = {}
        self._over: dict[bytes, None] = {}
        self._guarded = 0
        self.count = 0

    def committed(self, txn: Txn) -> None:
        """A transaction has been committed."""
        for change in txn.changes:
            if change.kind in {"create", "set"} and change.path.startswith((DATA, GUARDED)):
                self._apply(change.path, change.data)

    def _apply(self, path: str, data: bytes) -> None:
        applied = self._applied[data] = self._applied.get(data, 0) + 1
        if applied > 1:
            self._complain(f"{data!r} was written twice")
        if data in self._over:
            self._complain(f"{data!r} was written after its call had said that it would not be")
        if path == GUARDED:
            token = int(data.partition(b" ")[0])
            if token < self._guarded:
                self._complain(f"a write guarded with token {token:#x} came after one with {self._guarded:#x}")
            self._guarded = token

    async def judge(self, client: SimulatedClient, data: bytes, write: Coroutine[Wait, None, Any]) -> float:
        """Do a write and see whether what the caller is told is true; how long it took."""
        name, began = client.name, client.process.now()
        self.count += 1
        try:
            await write
        except OutcomeUnknownError:
            self._world.note(name, "does not know whether %s was written", repr(data))
        except (UnavailableError, TransactionError, LostError, ClosedError) as error:
            self._world.note(name, "has not written %s: %s", repr(data), error)
            if data in self._applied:
                self._complain(f"{data!r} was written, though its call has failed with {error!r}")
            self._over[data] = None
        else:
            if self._applied.get(data) != 1:
                self._complain(f"{data!r} was not written, though its call has succeeded")
        return client.process.now() - began

    def _complain(self, message: str) -> None:
        raise Violation(message, self._world.seed)


async def write_guarded(contest: Contest, client: SimulatedClient, handle: HandleState) -> None:
    """Write something that the server takes from the holder only."""
    plan = Plan(Operations(client.core))
    data = b"%d %s %d" % (handle.token, client.name.encode(), contest.writes.count)
    try:
        handle._guard(plan)  # noqa: SLF001 - what guard() of threads and asyncio calls
    except (LostError, ClosedError):
        return
    plan.set(GUARDED, data)
    write = Operations(client.core).commit(plan, timeout=contest.timeout / 2)
    await contest.writes.judge(client, data, write)


@final
class Writer:
    """Writes now and then."""

    def __init__(self, contest: Contest, client: SimulatedClient) -> None:
        self._contest = contest
        self.client = client
        self.task: Task[None] = client.runtime.start(self._write(), "writer")

    async def _write(self) -> None:
        contest, process = self._contest, self.client.process
        operations = Operations(self.client.core)
        await self.client.session.ready(math.inf)
        while contest.world.now < contest.end:
            await first_of(until=process.now() + contest.world.chance())
            data = b"%s %d" % (self.client.name.encode(), contest.writes.count)
            timeout, freezes = contest.timeout * contest.world.chance(), process.freezes
            took = await contest.writes.judge(self.client, data, self._draw(operations, data, timeout))
            if took > timeout + LATE and process.freezes == freezes:
                message = f"a write took {took:.3f} s, {timeout:.3f} s were allowed"
                raise Violation(message, contest.world.seed)

    def _draw(self, operations: Operations, data: bytes, timeout: float) -> Coroutine[Wait, None, Any]:
        choice = self._contest.world.chance()
        if choice < 0.4:
            return operations.set(DATA, data, timeout=timeout)
        if choice < 0.7:
            return operations.create(f"{DATA}/n-", data, sequential=True, timeout=timeout)
        plan = Plan(operations)
        plan.check(DATA)
        plan.set(DATA, data)
        return operations.commit(plan, timeout=timeout)

    @property
    def caught_up(self) -> bool:
        """Whether it has ended, as it does by itself."""
        return self.task.done.done

    def close(self) -> None:
        """Nothing to do."""
