"""Somebody who calls a recipe in a simulated process, and can be interrupted there."""

from __future__ import annotations

from typing import Final, Generic, Protocol, TypeVar

from zkrecipes.flow import first_of
from zkrecipes.testing.simulation.client import SimulatedClient
from zkrecipes.testing.simulation.tasks import Task
from zkrecipes.testing.simulation.users import Interrupt
from zkrecipes.testing.simulation.world import Violation, World

__all__ = ["Actor"]

LATE: Final = 0.3
"""Seconds by which a call may outlive its deadline."""


class Play(Protocol):
    """What an actor knows of its play."""

    @property
    def world(self) -> World:
        """Its time, its chance, its trace."""
        ...


P = TypeVar("P", bound=Play)


class Actor(Generic[P]):
    """One caller.

    Args:
        play: What it is part of.
        client: Its process.
        name: For the trace, and for complaints.
    """

    task: Task[None]

    def __init__(self, play: P, client: SimulatedClient, name: str) -> None:
        self.play = play
        self.client = client
        self.name = name
        self.calling = False
        self.hurt_at: float | None = None

    def complain(self, what: str) -> Violation:
        """The complaint, to be raised."""
        return Violation(f"{self.name}: {what}", self.play.world.seed)

    @property
    def can_be_hurt(self) -> bool:
        """Whether there is a call to interrupt."""
        return self.calling and not self.task.done.done

    def hurt(self) -> None:
        """Interrupt the call."""
        self.play.world.note(self.name, "is interrupted")
        self.hurt_at = self.client.process.now()
        self.task.interrupt(Interrupt())

    async def pause(self, seconds: float) -> None:
        """Let time pass."""
        now = self.client.process.now
        until = now() + seconds
        while now() < until:
            await first_of(until=until)

    def check_time(self, began: float, freezes: int, allowed: float, what: str) -> None:
        """Complain if a call took longer than it may, unless its process was frozen meanwhile."""
        process = self.client.process
        took = process.now() - began
        if self.hurt_at is not None:
            # Who interrupts a call gives it a second to clean up, whatever its deadline.
            took, allowed = process.now() - self.hurt_at, 1.0
            self.hurt_at = None
        if freezes == process.freezes and process.alive and took > allowed + LATE:
            message = f"{what} took {took:.3f} s, {allowed:.3f} s were allowed"
            raise self.complain(message)
