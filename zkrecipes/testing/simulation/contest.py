"""One schedule: a few clients contend for a lock or an office while things go wrong. The seed decides everything."""

from __future__ import annotations

import gc
import math
from collections.abc import Coroutine
from typing import Final, Literal, final

from zkrecipes.election import ElectionRecipe
from zkrecipes.errors import AcquireTimeoutError, CancelledError, UnavailableError
from zkrecipes.flow import Wait, first_of
from zkrecipes.handoff import LocalHandoff
from zkrecipes.hold import Grip
from zkrecipes.leadership import Term, largest_grace
from zkrecipes.lock import RELEASE_LIMIT, Cancel, LockRecipe
from zkrecipes.testing.simulation.checks import Exclusion, Ledger, ThirdParty
from zkrecipes.testing.simulation.client import SimulatedClient
from zkrecipes.testing.simulation.ensemble import Ensemble
from zkrecipes.testing.simulation.faults import Faults
from zkrecipes.testing.simulation.server import Txn
from zkrecipes.testing.simulation.tasks import Task
from zkrecipes.testing.simulation.world import Violation, World

__all__ = ["Contest", "Kind"]

Kind = Literal["lock", "election"]

PATH: Final = "/line"
LATE: Final = 0.2
"""Seconds by which a call may outlive its deadline."""


class Interrupt(BaseException):
    """Stands for KeyboardInterrupt."""


@final
class _User:
    """A thread of a client's that contends again and again."""

    def __init__(self, contest: Contest, client: SimulatedClient, number: int) -> None:
        self.contest = contest
        self.client = client
        self.name = f"{client.name}.{number}"
        self.turns = 0
        self.task: Task[None] | None = None
        self.acquiring = False
        self.cancel = Cancel()
        self.hurt_at: float | None = None

    def next(self) -> None:
        """Begin the next turn, or stop."""
        self.task = None
        self.acquiring = False
        self.hurt_at = None
        world = self.contest.world
        if world.now < self.contest.end and self.client.process.alive:
            self.turns += 1
            self.cancel = Cancel()
            self.task = task = self.client.runtime.start(self._turn(f"{self.name}-{self.turns}".encode()), self.name)
            task.done.add_waiter(lambda: self._ended(task))

    def _ended(self, task: Task[None]) -> None:
        error = task.done.error
        if error is not None and not isinstance(error, Interrupt):
            message = f"{self.name} got an error that it should not get: {error!r}"
            raise Violation(message, self.contest.world.seed) from error
        self.next()

    def hurt(self) -> None:
        """Interrupt, cancel or abandon what it is doing."""
        world = self.contest.world
        if self.task is None:
            return
        choice = world.chance()
        if choice < 0.3 and self.acquiring:
            world.note(self.name, "is forgotten")
            contest = self.contest
            contest.forgotten += 1
            self.task.abandon()
            # The automatic collection is off while schedules run, so that a seed always replays alike.
            gc.collect()
            self.client.process.later(0.01, self.next)
        elif choice < 0.6 and self.acquiring:
            world.note(self.name, "is cancelled")
            self.hurt_at = world.now
            self.cancel.cancel()
        else:
            world.note(self.name, "is interrupted")
            self.hurt_at = world.now
            self.task.interrupt(Interrupt())
            if choice > 0.9:
                self.client.process.later(0.01 * world.chance(), self._again, self.task)

    def _again(self, task: Task[None]) -> None:
        if self.task is task:
            task.interrupt(Interrupt())

    async def _turn(self, identity: bytes) -> None:
        contest = self.contest
        await _pause(self, min(contest.pace, 2.0) * contest.world.chance())
        if contest.kind == "election":
            await self.client.session.ready(math.inf)
        timeout = contest.draw_timeout()
        began, freezes = self.client.process.now(), self.client.process.freezes
        contest.world.note(self.name, "wants it within %s s", timeout)
        self.acquiring = True
        try:
            grip: Grip | Term = await contest.acquire(self.client, identity.decode(), timeout, self.cancel)
        except (AcquireTimeoutError, UnavailableError) as error:
            contest.world.note(self.name, "gives up: %s, left behind: %s", error, error.left_behind)
            if not error.left_behind:
                contest.ledger.finish(identity)
            if timeout is None:
                message = f"{self.name} would wait for ever and got {error!r}"
                raise Violation(message, contest.world.seed) from error
            return
        except CancelledError:
            if not self.cancel.cancelled:
                raise
            return
        finally:
            self.acquiring = False
            self._check_time(began, freezes, math.inf if timeout is None else max(timeout, LATE), "acquire")
        if isinstance(grip, Term):
            await self._lead(grip)
        else:
            await self._hold(grip)

    def _check_time(self, began: float, freezes: int, allowed: float, what: str) -> None:
        process, world = self.client.process, self.contest.world
        if freezes != process.freezes or not process.alive:
            return
        took = process.now() - began
        if self.hurt_at is not None:
            # Who cancels or interrupts a call gives it a second to clean up, whatever its deadline.
            took, allowed, what = world.now - self.hurt_at, 1.0, f"{what}, after it was cancelled,"
        if took > allowed + LATE:
            message = f"{self.name}: {what} took {took:.3f} s, {allowed:.3f} s were allowed"
            raise Violation(message, world.seed)

    async def _hold(self, grip: Grip) -> None:
        contest = self.contest
        contest.exclusion.won(self.client, grip)
        try:
            for _ in range(3):
                await _pause(self, contest.pace * contest.world.chance() / 3)
                if contest.world.chance() < 0.3 and not grip.valid:
                    contest.world.note(self.name, "sees that it is lost: %s", grip.reason)
                    break
        except GeneratorExit:
            raise  # the process has crashed: nothing is cleaned up
        except BaseException:
            await self._release(grip.release(), grip)
            raise
        await self._release(grip.release(), grip)

    async def _lead(self, term: Term) -> None:
        contest = self.contest
        contest.exclusion.won(self.client, term.grip)
        ends = contest.world.now + 2 * contest.pace * contest.world.chance()
        try:
            while contest.world.now < ends and term.should_stop.reason is None:
                part = 0.95 * term.grace * contest.world.chance()
                contest.exclusion.works(term.grip, part / self.client.process.rate)
                await _pause(self, part)
            contest.world.note(self.name, "stops leading: %s", term.should_stop.reason)
        except GeneratorExit:
            raise
        except BaseException:
            await self._release(term.resign(), term.grip)
            raise
        await self._release(term.resign(), term.grip)

    async def _release(self, release: Coroutine[Wait, None, None], grip: Grip) -> None:
        contest, self.hurt_at = self.contest, None
        contest.world.note(self.name, "releases")
        contest.exclusion.works(grip, 0.0)
        began, freezes = self.client.process.now(), self.client.process.freezes
        try:
            await release
        finally:
            contest.exclusion.over(grip)
        self._check_time(began, freezes, RELEASE_LIMIT, "release")


async def _pause(user: _User, seconds: float) -> None:
    now = user.client.process.now
    until = now() + seconds
    while now() < until:
        await first_of(until=until)


@final
class Contest:
    """One schedule.

    Args:
        seed: Decides everything.
        kind: What the clients contend for.
        quiet: Without faults.
        siege: Whether somebody holds nearly all the time while servers freeze and lose each other, which is hard on the
            lease; drawn if None.
    """

    def __init__(self, seed: int, kind: Kind = "lock", *, quiet: bool = False, siege: bool | None = None) -> None:
        self.world = world = World(seed)
        self.kind = kind
        chance = world.chance
        self.timeout = 4.0
        tick = (2.0, 2.0, 1.0, 0.8)[int(chance() * 4)]
        size = (1, 3, 3, 3, 5)[int(chance() * 5)]
        delay = (0.0005, 0.002, 0.002, 0.01)[int(chance() * 4)]
        interval = (0.0, 0.0, 0.3, 2.0)[int(chance() * 4)]
        self.ensemble = Ensemble(
            world,
            size,
            tick=tick,
            sync_limit=2 if chance() < 0.5 else 5,
            delay=delay / 2,
            container_interval=interval,
        )
        told = tick if chance() < 0.3 else None
        self.clients = [
            SimulatedClient(
                self.ensemble,
                f"client{number}",
                timeout=self.timeout,
                delay=delay,
                rate=world.uniform(0.99, 1.01),
                server_tick=told,
            )
            for number in range(1, 3 + int(chance() * 2))
        ]
        drawn = chance() < 0.25
        self.siege = drawn if siege is None else siege
        self.pace = 12.0 if self.siege else (0.1, 0.5, 2.0)[int(chance() * 3)]
        self.end = 20.0 if self.siege else 10.0
        starved = chance() < 0.2
        for client in self.clients:
            client.process.starved = 0.01 if starved else 0.0
        self.third_party = ThirdParty()
        self.exclusion = Exclusion(world, self.third_party)
        self.ledger = Ledger(world, f"{PATH}/")
        self._layout = self._draw_layout()
        self._handoff = LocalHandoff(max_turns=3) if kind == "lock" and chance() < 0.15 else None
        self._suspended = "stop" if chance() < 0.5 else "keep_until_deadline"
        self._grace = chance() if chance() < 0.5 else 0.0
        users = 2 if self._handoff is not None or chance() < 0.2 else 1
        self.users = [_User(self, client, number) for client in self.clients for number in range(1, 1 + users)]
        self._faults = Faults(
            self.ensemble, self.clients, self.third_party, prefix=f"{PATH}/", unit=self.timeout, end=self.end
        )
        if not quiet:
            count = 2 + int(chance() * (8 if self.siege else 6))
            self._faults.plan(count, third_party=chance() < 0.15, servers_only=self.siege, calls=self._hurt)
        self.forgotten = 0
        self.ensemble.on_commit = self._committed
        world.after_event = self.exclusion.check
        for client in self.clients:
            client.runtime.on_failure = self._failed
        world.note("world", "%s, %d servers, tick %.1f s, %s, delay %.4f s", kind, size, tick, self._layout, delay)

    def _draw_layout(self) -> str:
        layouts = ("curator", "curator", "kazoo") if self.kind == "lock" else ("latch", "selector", "kazoo")
        return layouts[int(self.world.chance() * len(layouts))]

    def draw_timeout(self) -> float | None:
        """How long a user waits."""
        choice = self.world.chance()
        if choice < 0.45 or self.siege:
            return None
        return 0.0 if choice < 0.55 else self.world.uniform(0.05, 1.2 * self.timeout)

    async def acquire(
        self, client: SimulatedClient, identity: str, timeout: float | None, cancel: Cancel
    ) -> Grip | Term:
        """What the contest is about."""
        if self.kind == "lock":
            recipe = LockRecipe(client.core, PATH, identity=identity, layout=self._layout, local_handoff=self._handoff)
            return await recipe.acquire(timeout, cancel)
        election = ElectionRecipe(
            client.core,
            PATH,
            identity=identity,
            data=b"",
            layout=self._layout,
            on_suspended=self._suspended,
            stop_grace=None if self._grace == 0 else self._grace * largest_grace(client.core),
        )
        cancelled = cancel.begin(client.runtime)
        try:
            return await election.campaign(timeout, cancelled)
        finally:
            cancel.end(client.runtime, cancelled)

    def _hurt(self, client: SimulatedClient) -> None:
        busy = [user for user in self.users if user.client is client and user.task is not None]
        if busy:
            busy[int(self.world.chance() * len(busy))].hurt()

    def _committed(self, txn: Txn) -> None:
        self.ledger.committed(txn)

    def _failed(self, name: str, error: BaseException) -> None:
        message = f"the background task {name!r} failed: {error!r}"
        raise Violation(message, self.world.seed) from error

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
        for user in self.users:
            user.next()
        world = self.world
        world.run(self.end + 1.0)
        if self.forgotten:
            # Requests that were still on their way have kept the forgotten calls in memory until now.
            gc.collect()
        limit = self.end + 12 * self.timeout + 4 * self.pace * len(self.users)
        world.run(limit, stop=self._all_done)
        waiting = [user.name for user in self.users if user.task is not None and user.client.process.alive]
        if waiting:
            message = f"{', '.join(waiting)} still waits {limit - self.end:.0f} s after everything works again"
            raise Violation(message, world.seed)
        # What the reaper has still to do, and sessions of crashed clients.
        dead = [client for client in self.clients if not client.process.alive]
        world.run(world.now + (4 * self.timeout if dead else self.timeout), stop=lambda: not self.ledger.left())
        left = self.ledger.left()
        if left:
            message = f"left on the servers when all was done: {', '.join(left)}"
            raise Violation(message, world.seed)

    def _all_done(self) -> bool:
        return all(user.task is None or not user.client.process.alive for user in self.users)
