"""One schedule: threads of a few clients count, and draw identifiers, while things go wrong. The seed decides all."""

from __future__ import annotations

import gc
import math
from collections.abc import Coroutine
from typing import Any, Final, final

from zkrecipes.codec import IntCodec
from zkrecipes.counter import CounterRecipe
from zkrecipes.errors import AcquireTimeoutError, ClosedError, ConflictError, OutcomeUnknownError, UnavailableError
from zkrecipes.flow import Algorithm, Wait, first_of
from zkrecipes.identifiers import source_of
from zkrecipes.marks import marks_of
from zkrecipes.patience import ONE_FLIGHT
from zkrecipes.port import Multi, Request, Set
from zkrecipes.scripts import run_script_async
from zkrecipes.shared_value import SharedValueRecipe
from zkrecipes.testing.simulation.checks import Ledger, ThirdParty
from zkrecipes.testing.simulation.client import SimulatedClient
from zkrecipes.testing.simulation.ensemble import Ensemble
from zkrecipes.testing.simulation.faults import Faults
from zkrecipes.testing.simulation.server import Txn
from zkrecipes.testing.simulation.sums import Once, Sums
from zkrecipes.testing.simulation.tasks import Task
from zkrecipes.testing.simulation.world import Violation, World

__all__ = ["Counting"]

COUNTER: Final = "/counters/orders"
VALUE: Final = "/counters/value"
PLAIN: Final = "/counters/plain"
IDENTIFIERS: Final = "/counters/identifiers"
LATE: Final = 0.2
"""Seconds by which a call may outlive its deadline."""


class Interrupt(BaseException):
    """Stands for KeyboardInterrupt."""


@final
class Counting:
    """One schedule.

    Args:
        seed: Decides everything.
        quiet: Without faults.
    """

    kind = "counter"

    def __init__(self, seed: int, *, quiet: bool = False) -> None:
        self.world = world = World(seed)
        chance = world.chance
        self.timeout = 4.0
        tick = (2.0, 1.0, 0.8)[int(chance() * 3)]
        size = (1, 3, 3, 5)[int(chance() * 4)]
        delay = (0.0005, 0.002, 0.002, 0.01)[int(chance() * 4)]
        self.ensemble = Ensemble(world, size, tick=tick, sync_limit=2 if chance() < 0.5 else 5, delay=delay / 2)
        self.clients = [
            SimulatedClient(
                self.ensemble, f"client{number}", timeout=self.timeout, delay=delay, rate=world.uniform(0.99, 1.01)
            )
            for number in range(1, 3 + int(chance() * 2))
        ]
        self.pace = (0.1, 0.4, 1.0)[int(chance() * 3)]
        self.end = 8.0
        self.block = (1, 3, 8)[int(chance() * 3)]
        self.counter = Sums(world, COUNTER)
        self.value = Sums(world, VALUE)
        self.plain = Once(world, PLAIN)
        self.identifiers: dict[int, str] = {}
        self.marks = Ledger(world, "/counters/", self.clients)
        starved = chance() < 0.15
        for client in self.clients:
            client.process.starved = 0.01 if starved else 0.0
            client.runtime.on_failure = self._failed
        threads = 2 + int(chance() * 2)
        self.users = [_User(self, client, number) for client in self.clients for number in range(1, 1 + threads)]
        self._faults = Faults(
            self.ensemble, self.clients, ThirdParty(), prefix="/counters/", unit=self.timeout, end=self.end
        )
        if not quiet:
            self._faults.plan(2 + int(chance() * 6), third_party=chance() < 0.25, calls=self._hurt)
            for _ in range(int(chance() * 4)):
                world.at(world.uniform(0.2, self.end * 0.75), self._faults.lose_reply, Set)
            if chance() < 0.3:
                world.at(world.uniform(0.2, self.end * 0.25), self._lose_session)
        self.ensemble.on_commit = self._committed
        world.note("world", "counter, %d servers, tick %.1f s, delay %.4f s", size, tick, delay)

    @property
    def turns(self) -> int:
        """How often something was counted."""
        return self.counter.count + self.value.count

    def _committed(self, txn: Txn) -> None:
        for ledger in (self.counter, self.value, self.plain, self.marks):
            ledger.committed(txn)

    def _failed(self, name: str, error: BaseException) -> None:
        if isinstance(error, Violation):
            raise error
        message = f"the background task {name!r} failed: {error!r}"
        raise Violation(message, self.world.seed) from error

    def _lose_session(self) -> None:
        """The reply to a client's next write is lost, and then nothing is heard until its session has ended."""
        client = self.clients[int(self.world.chance() * len(self.clients))]

        def lose(request: Request) -> bool:
            if not isinstance(request, Multi):
                return False
            client.isolate(1.4 * self.timeout)
            return True

        client.transport.lose = lose

    def _hurt(self, client: SimulatedClient) -> None:
        busy = [user for user in self.users if user.client is client and user.task is not None]
        if busy:
            busy[int(self.world.chance() * len(busy))].hurt()

    def play(self) -> None:
        """Run the schedule.

        Raises:
            Violation: A promise was broken.
        """
        try:
            self._play()
        finally:
            for client in self.clients:
                client.end()

    def _play(self) -> None:
        world = self.world
        for user in self.users:
            user.next()
        world.run(self.end + 1.0)
        gc.collect()  # calls that were forgotten while their requests were on their way
        limit = self.end + 6 * self.timeout
        world.run(limit, stop=self._all_done)
        waiting = [user.name for user in self.users if user.task is not None and user.client.process.alive]
        if waiting:
            message = f"{', '.join(waiting)} still waits {limit - self.end:.0f} s after everything works again"
            raise Violation(message, world.seed)
        world.run(world.now + 7.0, stop=lambda: not self._unaccounted())
        if left := self._unaccounted():
            message = f"marks that nobody uses are left: {', '.join(left)}"
            raise Violation(message, world.seed)
        world.run(world.now + 4 * self.timeout, stop=lambda: not self._of_the_dead())
        if left := self._of_the_dead():
            message = f"marks are left of sessions that nobody has: {', '.join(left)}"
            raise Violation(message, world.seed)

    def _all_done(self) -> bool:
        return all(user.task is None or not user.client.process.alive for user in self.users)

    def _unaccounted(self) -> list[str]:
        """Marks of sessions that live, which are in no pool."""
        used: dict[str, None] = {}
        for client in self.clients:
            if client.process.alive:
                for path in (COUNTER, VALUE, PLAIN):
                    used.update(dict.fromkeys(marks_of(client.core, path, path).idle))
        return [path for path in self.marks.left(alive=True) if path not in used]

    def _of_the_dead(self) -> list[str]:
        living = self.marks.left(alive=True)
        return [path for path in self.marks.left(alive=False) if path not in living]

    def drawn(self, client: SimulatedClient, identifier: int) -> None:
        """Somebody was given an identifier."""
        if identifier in self.identifiers:
            message = f"identifier {identifier} of {client.name} was given to {self.identifiers[identifier]} before"
            raise Violation(message, self.world.seed)
        self.identifiers[identifier] = client.name


@final
class _User:
    """A thread of a client's that counts again and again, and says when a call has not told the truth."""

    def __init__(self, play: Counting, client: SimulatedClient, number: int) -> None:
        self._play = play
        self.client = client
        self.name = f"{client.name}.{number}"
        self.task: Task[None] | None = None
        self._greatest = 0
        self._mine = 0
        self._hurt = False

    def next(self) -> None:
        """Begin the next turn, or stop."""
        self.task = None
        self._hurt = False
        play = self._play
        if play.world.now < play.end and self.client.process.alive:
            self.task = task = self.client.runtime.start(self._turn(), self.name)
            task.done.add_waiter(lambda: self._ended(task))

    def _ended(self, task: Task[None]) -> None:
        error = task.done.error
        if isinstance(error, Violation):
            raise error
        if error is not None and not isinstance(error, Interrupt):
            message = f"{self.name} got an error that it should not get: {error!r}"
            raise Violation(message, self._play.world.seed) from error
        self.next()

    def hurt(self) -> None:
        """Interrupt or abandon what it is doing."""
        if self.task is None:
            return
        self._hurt = True
        if self._play.world.chance() < 0.4:
            self._play.world.note(self.name, "is forgotten")
            self.task.abandon()
            gc.collect()
            self.client.process.later(0.01, self.next)
        else:
            self._play.world.note(self.name, "is interrupted")
            self.task.interrupt(Interrupt())

    async def _turn(self) -> None:
        play, process = self._play, self.client.process
        until = process.now() + play.pace * play.world.chance()
        while process.now() < until:
            await first_of(until=until)
        timeout = (
            None
            if play.world.chance() < 0.3
            else 0.0
            if play.world.chance() < 0.05
            else play.world.uniform(0.02, 1.2 * play.timeout)
        )
        began, freezes = process.now(), process.freezes
        choice = play.world.chance()
        if choice < 0.55:
            await self._add(timeout)
        elif choice < 0.65:
            await self._compare_and_set(timeout)
        elif choice < 0.75:
            await self._update(timeout)
        elif choice < 0.85:
            await self._set(timeout)
        elif choice < 0.9:
            await self._look(timeout)
        else:
            await self._draw(timeout)
            return  # several calls, each timed
        self._check_time(began, freezes, timeout)

    def _check_time(self, began: float, freezes: int, timeout: float | None) -> None:
        play, process = self._play, self.client.process
        took = process.now() - began
        allowed = math.inf if timeout is None else (timeout or 2 * ONE_FLIGHT) + LATE
        if took > allowed and process.freezes == freezes and not self._hurt:
            message = f"{self.name}: a call took {took:.3f} s, {allowed:.3f} s were allowed"
            raise Violation(message, play.world.seed)

    def _draw_timeout(self) -> float | None:
        chance = self._play.world.chance()
        if chance < 0.3:
            return None
        return 0.0 if chance < 0.35 else self._play.world.uniform(0.02, 1.2 * self._play.timeout)

    async def _judged(self, sums: Sums, amount: int, call: Coroutine[Wait, None, int]) -> None:
        """Do an add, and see whether what the caller is told is true."""
        before, world = sums.acknowledged, self._play.world
        world.note(self.name, "adds %#x to %s", amount, sums.path)
        try:
            value = await call
        except OutcomeUnknownError:
            world.note(self.name, "does not know whether %#x was counted", amount)
        except (UnavailableError, ConflictError, AcquireTimeoutError) as error:
            world.note(self.name, "has not counted %#x: %s", amount, error)
            sums.failed(amount)
        else:
            world.note(self.name, "has counted %#x, and is told %#x", amount, value)
            sums.done(amount, before, value)
            if sums is self._play.counter:
                self._mine |= amount

    def _counter(self) -> CounterRecipe:
        return CounterRecipe(self.client.core, COUNTER, layout="text")

    async def _add(self, timeout: float | None) -> None:
        sums = self._play.counter
        amount = sums.new()
        await self._judged(sums, amount, self._counter().add(amount, timeout))

    async def _compare_and_set(self, timeout: float | None) -> None:
        counter, sums = self._counter(), self._play.counter
        began = self.client.process.now()
        try:
            value = await counter.value(timeout)
        except UnavailableError:
            return
        if timeout is not None:
            timeout = timeout and max(0.001, timeout - (self.client.process.now() - began))
        amount = sums.new()

        async def call() -> int:
            await counter.compare_and_set(value, value + amount, timeout)
            return value + amount

        await self._judged(sums, amount, call())

    async def _update(self, timeout: float | None) -> None:
        sums = self._play.value
        amount = sums.new()
        value: SharedValueRecipe[int] = SharedValueRecipe(self.client.core, VALUE, IntCodec(), 0)

        async def step(algorithm: Algorithm[Any]) -> Any:
            return await algorithm

        async def call() -> int:
            updated = await run_script_async(step, value.update(lambda number: number + amount, timeout))
            return updated.value

        await self._judged(sums, amount, call())

    async def _set(self, timeout: float | None) -> None:
        play = self._play
        value = play.plain.new()
        try:
            await CounterRecipe(self.client.core, PLAIN, layout="text").set(value, timeout)
        except OutcomeUnknownError:
            play.world.note(self.name, "does not know whether %d was set", value)
        except UnavailableError:
            play.plain.failed(value)
        else:
            play.plain.done(value)

    async def _look(self, timeout: float | None) -> None:
        mine = self._mine
        try:
            value = await self._counter().value(timeout)
        except UnavailableError:
            return
        self._play.counter.seen(mine, value)

    async def _draw(self, timeout: float | None) -> None:
        play, core = self._play, self.client.core
        source = source_of(core, IDENTIFIERS, play.block)
        for _ in range(1 + int(play.world.chance() * 12)):
            start, freezes = self.client.process.now(), self.client.process.freezes
            began, until = self._greatest, start + (timeout or 0.0)
            try:
                identifier = source.draw()
                if identifier is None:
                    identifier = await source.wait(timeout)
            except (UnavailableError, ClosedError):
                return
            finally:
                self._check_time(start, freezes, timeout)
            play.drawn(self.client, identifier)
            if identifier <= began:
                message = f"{self.name} was given {identifier} after {began}"
                raise Violation(message, play.world.seed)
            self._greatest = identifier
            timeout = timeout and max(0.001, until - self.client.process.now())
