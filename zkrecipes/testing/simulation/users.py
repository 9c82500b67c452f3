"""A thread of a client's that contends again and again, and says when a call has not told the truth."""

from __future__ import annotations

import gc
import math
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Final, final

from zkrecipes.errors import (
    AcquireTimeoutError,
    CancelledError,
    ClosedError,
    LeadershipLostError,
    LockLostError,
    OutcomeUnknownError,
    UnavailableError,
)
from zkrecipes.flow import Wait, first_of
from zkrecipes.handle import HandleState
from zkrecipes.hold import Grip
from zkrecipes.leadership import Term
from zkrecipes.lock import RELEASE_LIMIT, Cancel
from zkrecipes.testing.simulation.client import SimulatedClient
from zkrecipes.testing.simulation.tasks import Task
from zkrecipes.testing.simulation.world import Violation
from zkrecipes.testing.simulation.writers import write_guarded

if TYPE_CHECKING:
    from zkrecipes.testing.simulation.contest import Contest

__all__ = ["User"]

LATE: Final = 0.2
"""Seconds by which a call may outlive its deadline."""


class Interrupt(BaseException):
    """Stands for KeyboardInterrupt."""


@final
class User:
    """A thread of a client's that contends again and again."""

    def __init__(self, contest: Contest, client: SimulatedClient, number: int) -> None:
        self.contest = contest
        self.client = client
        self.name = f"{client.name}.{number}"
        self.turns = 0
        self.task: Task[None] | None = None
        self.acquiring = False
        self.holding = False
        self.cancel = Cancel()
        self.hurt_at: float | None = None
        self.identity = b""

    def next(self) -> None:
        """Begin the next turn, or stop."""
        self.task = None
        self.acquiring = False
        self.holding = False
        self.hurt_at = None
        world = self.contest.world
        if world.now < self.contest.end and self.client.process.alive and not self.client.session.closed:
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
        if choice < 0.3 and (self.acquiring or self.holding):
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
        grip = await self._acquire(identity, timeout, began, freezes)
        self.holding = True
        if isinstance(grip, Term):
            await self._lead(grip)
        elif grip is not None:
            self.identity = identity
            await self._hold(grip)

    async def _acquire(self, identity: bytes, timeout: float | None, began: float, freezes: int) -> Grip | Term | None:
        contest, session = self.contest, self.client.session
        self.acquiring = True
        try:
            return await contest.acquire(self.client, identity.decode(), timeout, self.cancel)
        except (AcquireTimeoutError, UnavailableError) as error:
            self._gave_up(identity, timeout, error)
        except (LeadershipLostError, OutcomeUnknownError):
            if not contest.proclaims:
                raise
            # The leadership was won, and lost before its data was published.
        except (CancelledError, ClosedError) as error:
            if not (session.closed if isinstance(error, ClosedError) else self.cancel.cancelled):
                raise
        finally:
            self.acquiring = False
            self._check_time(began, freezes, math.inf if timeout is None else max(timeout, LATE), "acquire")
        return None

    def _gave_up(self, identity: bytes, timeout: float | None, error: AcquireTimeoutError | UnavailableError) -> None:
        contest = self.contest
        contest.world.note(self.name, "gives up: %s, left behind: %s", error, error.left_behind)
        if not error.left_behind:
            contest.ledger.finish(identity)
        if timeout is None:
            message = f"{self.name} would wait for ever and got {error!r}"
            raise Violation(message, contest.world.seed) from error

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
        # Whoever drops this unreleased (as `hurt` does) has it released by the sweep.
        handle = HandleState(self.client.core, grip, "/line")
        try:
            for _ in range(3):
                await _pause(self, contest.pace * contest.world.chance() / 3)
                if contest.reentrant:
                    await self._enter_again(grip)
                if contest.guards:
                    await write_guarded(contest, self.client, handle)
                if contest.world.chance() < 0.3 and not grip.valid:
                    contest.world.note(self.name, "sees that it is lost: %s", grip.reason)
                    break
        except GeneratorExit:
            raise  # the process has crashed: nothing is cleaned up
        except BaseException:
            await self._release(grip.release(), grip)
            raise
        await self._release(grip.release(), grip)

    async def _enter_again(self, grip: Grip) -> None:
        try:
            inner = await self.contest.acquire(self.client, self.identity.decode(), 0.0, self.cancel)
        except (LockLostError, ClosedError, CancelledError):
            return
        if not isinstance(inner, Grip) or inner.hold is not grip.hold or not grip.valid:
            message = f"{self.name} acquired again, and did not get what it holds"
            raise Violation(message, self.contest.world.seed)
        await inner.release()

    async def _lead(self, term: Term) -> None:
        contest = self.contest
        # To publish its data a leader needs a while, in which the leadership may end.
        contest.exclusion.won(self.client, term.grip, fresh=not contest.proclaims)
        handle = HandleState(self.client.core, term.grip, "/line")
        ends = contest.world.now + 2 * contest.pace * contest.world.chance()
        try:
            while contest.world.now < ends and term.should_stop.reason is None:
                part = 0.95 * term.grace * contest.world.chance()
                contest.exclusion.works(term.grip, part / self.client.process.rate)
                await _pause(self, part)
                if contest.guards and contest.world.chance() < 0.2:
                    await write_guarded(contest, self.client, handle)
            contest.world.note(self.name, "stops leading: %s", term.should_stop.reason)
        except GeneratorExit:
            contest.exclusion.works(term.grip, 0.0)
            raise
        except BaseException:
            await self._release(term.resign(), term.grip)
            raise
        await self._release(term.resign(), term.grip)

    async def _release(self, release: Coroutine[Wait, None, None], grip: Grip) -> None:
        contest, self.hurt_at, self.holding = self.contest, None, False
        contest.world.note(self.name, "releases")
        contest.exclusion.works(grip, 0.0)
        began, freezes = self.client.process.now(), self.client.process.freezes
        try:
            await release
        finally:
            contest.exclusion.over(grip)
        self._check_time(began, freezes, RELEASE_LIMIT, "release")


async def _pause(user: User, seconds: float) -> None:
    now = user.client.process.now
    until = now() + seconds
    while now() < until:
        await first_of(until=until)
