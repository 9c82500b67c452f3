"""Lock and RLock, for asyncio. The algorithm, and what is promised, are in zkrecipes.lock."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, final

from zkrecipes.aio.handle import Handle, Opening
from zkrecipes.core import DEFAULT, DefaultTimeout
from zkrecipes.errors import LockLostError
from zkrecipes.handle import core_of
from zkrecipes.handoff import LocalHandoff
from zkrecipes.hold import Grip
from zkrecipes.lock import Cancel, LockLayout, LockRecipe
from zkrecipes.survey import Contender
from zkrecipes.timing import Timeout

if TYPE_CHECKING:
    from zkrecipes.aio.client import Client

__all__ = ["Lock", "LockHandle", "RLock"]


@final
class LockHandle(Handle):
    """A held lock."""

    _lost_error = LockLostError
    _what = "lock"


class _TaskLock:
    """What Lock and RLock share."""

    def __init__(self, client: Client, recipe: LockRecipe) -> None:
        self._client = client
        self._recipe = recipe
        self._entered: dict[int, list[LockHandle]] = {}

    @property
    def path(self) -> str:
        """The lock's path, below the client's namespace."""
        return self._recipe.label

    def acquire(self, timeout: Timeout = None, *, cancel: Cancel | None = None) -> Opening[LockHandle]:
        """Wait in line: `held = await lock.acquire()`, or `async with lock.acquire() as held`.

        Cancelling the task ends the wait and leaves nothing behind. Arguments and errors as of zkrecipes.Lock.acquire.
        """

        async def begin() -> LockHandle:
            return await self._client.run(self._acquire(timeout, cancel))

        return Opening(begin)

    async def try_acquire(self, timeout: Timeout = 0) -> LockHandle | None:
        """Like acquire, but return None when others hold it. An outage raises UnavailableError."""
        return await self._client.run(self._try_acquire(timeout))

    # The handle is made within the last step, so that no interrupt can part it from what was acquired.
    async def _acquire(self, timeout: Timeout, cancel: Cancel | None) -> LockHandle:
        return self._handle(await self._recipe.acquire(timeout, cancel))

    async def _try_acquire(self, timeout: Timeout) -> LockHandle | None:
        grip = await self._recipe.try_acquire(timeout)
        return None if grip is None else self._handle(grip)

    async def contenders(self, *, timeout: Timeout | DefaultTimeout = DEFAULT) -> list[Contender]:
        """Who holds it, then who waits, in order."""
        return await self._client.run(self._recipe.contenders(timeout))

    async def break_(self, *, timeout: Timeout | DefaultTimeout = DEFAULT) -> Contender | None:
        """Delete the holder's node, whoever it is, and return who held it; None if nobody did."""
        return await self._client.run(self._recipe.break_(timeout))

    def _handle(self, grip: Grip) -> LockHandle:
        return LockHandle(self._client, grip, self._recipe.label)

    async def __aenter__(self) -> LockHandle:
        handle = await self.acquire()
        self._entered.setdefault(self._client.core.runtime.owner(), []).append(handle)
        return handle

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        owner = self._client.core.runtime.owner()
        handles = self._entered[owner]
        handle = handles.pop()
        if not handles:
            del self._entered[owner]
        await handle.__aexit__(kind, error, traceback)

    def __repr__(self) -> str:
        return f"<aio.{type(self).__name__} {self.path} layout={self._recipe.place.layout.name}>"


@final
class Lock(_TaskLock):
    """A lock that one holder at a time has, over all tasks and processes. Not re-entrant.

    Arguments as of zkrecipes.Lock.
    """

    def __init__(
        self,
        client: Client,
        path: str,
        *,
        identity: str | None = None,
        layout: LockLayout = "curator",
        local_handoff: LocalHandoff | None = None,
    ) -> None:
        recipe = LockRecipe(
            core_of(client, aio=True), path, identity=identity, layout=layout, local_handoff=local_handoff
        )
        super().__init__(client, recipe)


@final
class RLock(_TaskLock):
    """A lock that the task which holds it may acquire again, without a request. Arguments as of zkrecipes.RLock."""

    def __init__(
        self, client: Client, path: str, *, identity: str | None = None, layout: LockLayout = "curator"
    ) -> None:
        super().__init__(
            client, LockRecipe(core_of(client, aio=True), path, identity=identity, layout=layout, reentrant=True)
        )
