"""Those who look on while others contend: they must see what is true, and never wait for ever."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, final

from zkrecipes.election import ElectionRecipe
from zkrecipes.errors import ClosedError, UnavailableError
from zkrecipes.flow import Pending, first_of
from zkrecipes.lock import LockRecipe
from zkrecipes.onlooker import NOTHING, Nothing
from zkrecipes.survey import Contender
from zkrecipes.testing.simulation.client import SimulatedClient
from zkrecipes.testing.simulation.tasks import Task
from zkrecipes.testing.simulation.world import Violation

if TYPE_CHECKING:
    from zkrecipes.testing.simulation.contest import Contest

__all__ = ["Observer", "Surveyor"]

PATIENCE = 2.0
LATE = 0.2


@final
class Surveyor:
    """Lists the line now and then."""

    def __init__(
        self, contest: Contest, client: SimulatedClient, recipe: Callable[[], LockRecipe | ElectionRecipe]
    ) -> None:
        self._contest = contest
        self.client = client
        self._recipe = recipe
        self.task: Task[None] = client.runtime.start(self._look_on(), "surveyor")

    async def _look_on(self) -> None:
        contest, process = self._contest, self.client.process
        await self.client.session.ready(math.inf)
        recipe = self._recipe()
        while contest.world.now < contest.end:
            await first_of(until=process.now() + 2.0 * contest.world.chance())
            began, freezes = process.now(), process.freezes
            listed = recipe.contenders if isinstance(recipe, LockRecipe) else recipe.participants
            try:
                line = await listed(PATIENCE)
            except UnavailableError:
                line = []
            took = process.now() - began
            if took > PATIENCE + LATE and process.freezes == freezes:
                message = f"a listing of the line took {took:.3f} s, {PATIENCE:.3f} s were allowed"
                raise Violation(message, contest.world.seed)
            tokens = [contender.token for contender in line]
            contest.world.note(self.client.name, "sees %d in the line", len(tokens))
            if tokens != sorted(tokens) or any(contender.holder != (not place) for place, contender in enumerate(line)):
                message = f"a listing of the line is not in order: {line!r}"
                raise Violation(message, contest.world.seed)

    @property
    def caught_up(self) -> bool:
        """Whether it has ended, as it does by itself."""
        return self.task.done.done

    def close(self) -> None:
        """Nothing to do."""


@final
class Observer:
    """Follows who leads."""

    def __init__(self, contest: Contest, client: SimulatedClient, recipe: Callable[[], ElectionRecipe]) -> None:
        self._contest = contest
        self.client = client
        self._recipe = recipe
        self._closed: Pending[None] = Pending()
        self.seen: Contender | Nothing | None = NOTHING
        self.task: Task[None] = client.runtime.start(self._follow(), "observer")

    async def _follow(self) -> None:
        newest = 0
        await self.client.session.ready(math.inf)
        recipe = self._recipe()
        while True:
            try:
                self.seen = await recipe.next_leader(self.seen, self._closed)
            except ClosedError:
                return
            if self.seen is not None and not isinstance(self.seen, Nothing):
                self._contest.world.note(self.client.name, "sees %s lead", self.seen.identity)
                if self.seen.token < newest:
                    message = f"an observer saw token {self.seen.token:#x} after {newest:#x}"
                    raise Violation(message, self._contest.world.seed)
                newest = self.seen.token

    @property
    def caught_up(self) -> bool:
        """Whether it has seen that nobody leads any more, which is so when all is done."""
        return self.seen is None

    def close(self) -> None:
        """End the observation."""
        self._closed.resolve(None)
