"""Algorithms that outlast the one who awaits them. Driver-free.

What several callers depend on is stepped in the thread of one of them, which saves a change of threads. If he is
interrupted or cancelled, or his time is over, it goes on as a background task, from where it stands: nothing is thrown
into it, so the others lose nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Generator
from typing import final

from zkrecipes.core import Core
from zkrecipes.errors import ZkRecipesError
from zkrecipes.flow import Algorithm, Wait, first_of
from zkrecipes.timing import NEVER

__all__ = ["Carried"]

logger = logging.getLogger("zkrecipes.carry")


@final
class Carried:
    """Awaits an algorithm, for a while. Gives True if it has returned, False if it goes on in the background.

    Args:
        core: The client's.
        algorithm: What must go on. Its outcome is told to others by other means.
        until: When the one who awaits it has no more time.
        name: Of the background task.
    """

    __slots__ = ("_algorithm", "_core", "_name", "_until", "_wait")

    def __init__(self, core: Core, algorithm: Algorithm[None], until: float, name: str) -> None:
        self._core = core
        self._algorithm = algorithm
        self._until = until
        self._name = name
        self._wait: Wait | None = None

    def __await__(self) -> Generator[Wait, None, bool]:
        now = self._core.runtime.now
        while True:
            try:
                wait = self._wait = self._algorithm.send(None)
            except StopIteration:
                return True
            try:
                yield Wait(wait.pendings, min(wait.until, self._until))
            except GeneratorExit:
                # Collected, in whatever thread, perhaps without the step lock: the sweep goes on with it.
                self._core.nodes.dropped.append(self)
                raise
            except BaseException:
                self._go_on()
                raise
            if now() >= self._until and not any(pending.done for pending in wait.pendings):
                self._go_on()
                return False

    def _go_on(self) -> None:
        self._core.runtime.spawn(self.release(), self._name)

    async def release(self) -> None:
        """Bring it to its end."""
        try:
            if self._wait is not None:
                await first_of(*self._wait.pendings, until=self._wait.until)
            self._until = NEVER
            await self
        except ZkRecipesError as error:
            logger.debug("%s ended in the background: %s", self._name, error)
