"""Leader election, for asyncio. The algorithm, and what is promised, are in zkrecipes.election."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, final

from zkrecipes.aio.handle import Handle, Opening, Signal
from zkrecipes.core import DEFAULT, DefaultTimeout
from zkrecipes.election import ElectionLayout, ElectionRecipe
from zkrecipes.errors import CancelledError, ClosedError, LeadershipLostError
from zkrecipes.flow import Pending
from zkrecipes.handle import core_of
from zkrecipes.leadership import LeadershipState, OnSuspended, StopReason, Term
from zkrecipes.lock import Cancel
from zkrecipes.onlooker import NOTHING, Nothing
from zkrecipes.survey import Contender
from zkrecipes.timing import Timeout

if TYPE_CHECKING:
    from zkrecipes.aio.client import Client

__all__ = ["Election", "Leadership", "Observation"]


@final
class Leadership(Handle, LeadershipState):
    """Held while we lead. Leaving its `async with` block resigns.

    Attributes:
        lost: Set when the leadership has ended otherwise than by resigning.
        should_stop: Set when the work must stop: before the lease ends, by the grace; with its reason.
    """

    def __init__(self, client: Client, term: Term, label: str) -> None:
        super().__init__(client, term.grip, label)
        self.term = term
        self.should_stop: Signal[StopReason] = Signal(client, term.should_stop)

    async def proclaim(self, data: bytes, *, timeout: Timeout | DefaultTimeout = DEFAULT) -> None:
        """Publish data as the leader's. Errors as of zkrecipes.Leadership.proclaim."""
        await self._client.run(self.term.proclaim(data, timeout))

    async def resign(self) -> None:
        """Give the leadership up; the same as release()."""
        await self.release()

    async def release(self) -> None:
        """Give the leadership up. Idempotent; never raises for a lost leadership."""
        await self._client.run(self.term.resign())


@final
class Election:
    """One office that one participant at a time holds, over all processes. Arguments as of zkrecipes.Election."""

    def __init__(
        self,
        client: Client,
        path: str,
        *,
        identity: str | None = None,
        data: bytes = b"",
        layout: ElectionLayout = "latch",
        on_suspended: OnSuspended = "stop",
        stop_grace: Timeout = None,
    ) -> None:
        self._client = client
        self._recipe = ElectionRecipe(
            core_of(client, aio=True),
            path,
            identity=identity,
            data=data,
            layout=layout,
            on_suspended=on_suspended,
            stop_grace=stop_grace,
        )

    @property
    def path(self) -> str:
        """The election's path, below the client's namespace."""
        return self._recipe.label

    def campaign(self, timeout: Timeout = None, *, cancel: Cancel | None = None) -> Opening[Leadership]:
        """Wait until we lead: `leadership = await election.campaign()`, or `async with`.

        Cancelling the task ends the wait and leaves nothing behind. Errors as of zkrecipes.Election.campaign.
        """

        async def begin() -> Leadership:
            if cancel is None:
                return await self._client.run(self._campaign(timeout))
            cancelled = cancel.begin(self._client.core.runtime)
            try:
                return await self._client.run(self._campaign(timeout, cancelled))
            finally:
                cancel.end(self._client.core.runtime, cancelled)

        return Opening(begin)

    async def try_campaign(self, timeout: Timeout = 0) -> Leadership | None:
        """Like campaign, but return None when others lead. An outage raises UnavailableError."""
        return await self._client.run(self._try_campaign(timeout))

    # The handle is made within the last step, so that no interrupt can part it from what was won.
    async def _campaign(self, timeout: Timeout, cancelled: Pending[None] | None = None) -> Leadership:
        return self._leadership(await self._recipe.campaign(timeout, cancelled))

    async def _try_campaign(self, timeout: Timeout) -> Leadership | None:
        term = await self._recipe.try_campaign(timeout)
        return None if term is None else self._leadership(term)

    async def run(
        self,
        work: Callable[[Leadership], Coroutine[Any, Any, object]],
        *,
        terms: int | None = None,
        cancel: Cancel | None = None,
    ) -> None:
        """Await `work(leadership)` each time we lead.

        `should_stop` fires in time; work that still runs when the lease ends less the grace is cancelled, and the node
        is given up only after it has ended. Otherwise as zkrecipes.Election.run. Cancelling `run` cancels the work and
        waits for it.
        """
        runtime = self._client.core.runtime
        until_cancelled = Cancel() if cancel is None else cancel
        cancelled = until_cancelled.begin(runtime)
        try:
            led = 0
            while (terms is None or led < terms) and not until_cancelled.cancelled:
                try:
                    leadership = await self._client.run(self._campaign(None, cancelled))
                except CancelledError:
                    return
                await self._lead(work, leadership)
                led += 1
        finally:
            until_cancelled.end(runtime, cancelled)

    async def _lead(self, work: Callable[[Leadership], Coroutine[Any, Any, object]], leadership: Leadership) -> None:
        try:
            task = asyncio.ensure_future(work(leadership))
        except BaseException:
            # It is no coroutine function: it has run, or refused, already.
            await leadership.release()
            raise
        watch = asyncio.ensure_future(self._client.run(leadership.term.running_out()))
        try:
            await asyncio.wait((task, watch), return_when=asyncio.FIRST_COMPLETED)
        finally:
            # Out of time, or `run` itself is cancelled: the node may be given up only after the work has ended.
            out_of_time = not task.done()
            try:
                await _end(task)
            finally:
                watch.cancel()
                await leadership.release()
        try:
            if not (task.cancelled() and out_of_time):
                task.result()
        except LeadershipLostError:
            if not leadership.lost.is_set():
                raise

    async def leader(self, *, timeout: Timeout | DefaultTimeout = DEFAULT) -> Contender | None:
        """Who leads, with what it has proclaimed; None if nobody does."""
        return await self._client.run(self._recipe.leader(timeout))

    async def participants(self, *, timeout: Timeout | DefaultTimeout = DEFAULT) -> list[Contender]:
        """The leader, then who waits, in order."""
        return await self._client.run(self._recipe.participants(timeout))

    def observe(self) -> Observation:
        """Iterate over the leaders with `async for`, the present one first; None while nobody leads."""
        return Observation(self._client, self._recipe)

    def _leadership(self, term: Term) -> Leadership:
        return Leadership(self._client, term, self._recipe.label)

    def __repr__(self) -> str:
        return f"<aio.Election {self.path} layout={self._recipe.place.layout.name}>"


async def _end(task: asyncio.Future[object]) -> None:
    """Cancel a task and wait until it has ended, however often we are cancelled meanwhile."""
    interrupted: asyncio.CancelledError | None = None
    if not task.done():
        task.cancel()
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError as error:
            interrupted = error
    if interrupted is not None:
        raise interrupted


@final
class Observation:
    """Iterates over leaders with `async for`; ends when it is closed."""

    def __init__(self, client: Client, recipe: ElectionRecipe) -> None:
        self._client = client
        self._recipe = recipe
        self._closed: Pending[None] = Pending()
        self._last: Contender | Nothing | None = NOTHING

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Contender | None:
        try:
            leader = await self._client.run(self._recipe.next_leader(self._last, self._closed))
        except ClosedError:
            raise StopAsyncIteration from None
        self._last = leader
        return leader

    def close(self) -> None:
        """End the iteration. Idempotent."""
        with self._client.core.runtime.lock:
            self._closed.resolve(None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
