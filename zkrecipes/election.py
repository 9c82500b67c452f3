"""Leader election: one participant leads until it resigns, stops, or can no longer prove that it leads.

Promises: at no instant can two participants prove that they lead (third-party removal of nodes apart: `guard` covers
that); work is told to stop before its lease ends, by `stop_grace`; `run` never leaves a term before the work has ended,
and gives the node up only then; first come, first served.

Does not promise: that work which ignores `should_stop` stops. Threads cannot be killed; guard its writes.

Nodes: `<path>/_c_<guid>-latch-<number>` (layout "latch", Curator's LeaderLatch), `<path>/_c_<guid>-lock-<number>`
("selector", Curator's LeaderSelector) or `<path>/<guid>__lock__<number>` ("kazoo"), ephemeral, sequential, the identity
in UTF-8 as data. What a leader proclaims is in `<path>-proclaimed`: "1 <token>", a line feed, the data.

Source: ZooKeeper's election recipe, Curator's LeaderLatch and LeaderSelector. We differ: a leader knows from its own
clock when it must stop; after a suspension the next term has a new node and a new token.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Final, Literal, Self, final

from zkrecipes.contention import TIDY_AFTER_DEADLINE, enter
from zkrecipes.core import DEFAULT, Core, DefaultTimeout, identity_bytes
from zkrecipes.errors import AcquireTimeoutError, CancelledError, ClosedError, LeadershipLostError, UnavailableError
from zkrecipes.flow import Pending, first_of
from zkrecipes.handle import core_of
from zkrecipes.hold import Grip
from zkrecipes.layouts import CURATOR_LATCH, CURATOR_LOCK, KAZOO_LOCK, Layout
from zkrecipes.leadership import Leadership, OnSuspended, StopReason, Term, checked_grace
from zkrecipes.lock import RELEASE_LIMIT, Cancel
from zkrecipes.onlooker import NOTHING, Nothing, Onlooker
from zkrecipes.operations import checked_data
from zkrecipes.patience import Patience, Place
from zkrecipes.survey import Contender
from zkrecipes.timing import NEVER, Timeout

if TYPE_CHECKING:
    from zkrecipes.client import Client

__all__ = ["Election", "ElectionRecipe", "Leadership", "Observation", "StopReason"]

ElectionLayout = Literal["latch", "selector", "kazoo"]

LAYOUTS: Final[dict[str, Layout]] = {"latch": CURATOR_LATCH, "selector": CURATOR_LOCK, "kazoo": KAZOO_LOCK}


@final
class ElectionRecipe(Onlooker):
    """The algorithms, for every driver. Arguments as of Election."""

    def __init__(
        self,
        core: Core,
        path: str,
        *,
        identity: str | None,
        data: bytes,
        layout: str,
        on_suspended: str,
        stop_grace: Timeout,
    ) -> None:
        if layout not in LAYOUTS:
            message = f"layout must be one of {', '.join(map(repr, LAYOUTS))}, not {layout!r}"
            raise ValueError(message)
        if on_suspended not in {"stop", "keep_until_deadline"}:
            message = f"on_suspended must be 'stop' or 'keep_until_deadline', not {on_suspended!r}"
            raise ValueError(message)
        checked_grace(core, stop_grace)
        place = Place(core.path(path), path, LAYOUTS[layout], identity_bytes(identity, core.identity))
        super().__init__(core, place)
        self._data = checked_data(data)
        self._on_suspended: OnSuspended = "stop" if on_suspended == "stop" else "keep_until_deadline"
        self._stop_grace = stop_grace

    async def campaign(self, timeout: Timeout, cancelled: Pending[None] | None = None) -> Term:
        """Wait in line until we lead."""
        core = self.core
        patience = Patience.of(timeout, core.runtime.now(), cancelled)
        hold = await enter(core.nodes, self.place, patience)
        grip = Grip(core.runtime, hold, self._let_go)
        try:
            term = Term(core, grip, checked_grace(core, self._stop_grace), self._on_suspended, cancelled)
            if self._data:
                left = patience.deadline.remaining(core.runtime.now())
                await term.proclaim(self._data, left if left < NEVER else DEFAULT)
                self._check_led(grip)
        except GeneratorExit:
            core.nodes.dropped.append(grip)  # collected half way: nothing can be awaited, and no lock be taken
            raise
        except BaseException as error:
            if isinstance(error, UnavailableError | AcquireTimeoutError):
                error.left_behind = True  # for the little while until the node is deleted
            late = patience.deadline.passed(core.runtime.now())
            until = core.runtime.now() + (TIDY_AFTER_DEADLINE if late else RELEASE_LIMIT)
            await first_of(core.runtime.spawn(grip.release(), "give a term up"), until=until)
            raise
        return term

    def _check_led(self, grip: Grip) -> None:
        reason = grip.reason
        if reason is not None:
            message = f"the leadership {self.label} was lost while its data was published: {reason.value}"
            raise LeadershipLostError(message, path=self.label, reason=reason)

    async def try_campaign(self, timeout: Timeout) -> Term | None:
        """Like campaign, but None when somebody else leads."""
        try:
            return await self.campaign(timeout)
        except AcquireTimeoutError:
            return None

    async def _let_go(self, grip: Grip) -> None:
        await self.core.nodes.release(grip.hold, RELEASE_LIMIT)


# --- threads ----------------------------------------------------------------------------------------------------------


@final
class Election:
    """One office that one participant at a time holds, over all processes.

    An immutable description: it does nothing until it campaigns.

    Args:
        client: From `connect`.
        path: The election's path; nothing but participants may be below it.
        identity: What others see as our name; "host:pid" by default.
        data: Proclaimed at the beginning of each term, unless empty.
        layout: "latch" or "selector" stand for election with Curator's classes of that name, "kazoo" with kazoo's.
        on_suspended: "stop" ends a term as soon as the connection is suspended; "keep_until_deadline" lets it go on
            while the lease lasts.
        stop_grace: How long before the lease's end the work is told to stop, in seconds; an eighth of the session
            timeout by default, and at most about a fifth.

    Raises:
        ValueError: An argument is not valid.
    """

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
            core_of(client, aio=False),
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

    def campaign(self, timeout: Timeout = None, *, cancel: Cancel | None = None) -> Leadership:
        """Wait until we lead.

        Args:
            timeout: Longest wait in seconds, an outage included; None for ever, 0 never waits in line.
            cancel: Ends the wait from another thread.

        Raises:
            AcquireTimeoutError: Others led until the timeout.
            UnavailableError: No server answered before the timeout.
            CancelledError: The wait was cancelled.
            ForeignNodeError: The path holds nodes of another recipe or layout.
        """
        runtime = self._client.core.runtime
        if cancel is None:
            return self._client.run(self._campaign(timeout))
        cancelled = cancel.begin(runtime)
        try:
            return self._client.run(self._campaign(timeout, cancelled))
        finally:
            cancel.end(runtime, cancelled)

    def try_campaign(self, timeout: Timeout = 0) -> Leadership | None:
        """Like campaign, but return None when others lead. An outage raises UnavailableError."""
        return self._client.run(self._try_campaign(timeout))

    # The handle is made within the last step, so that no interrupt can part it from what was won.
    async def _campaign(self, timeout: Timeout, cancelled: Pending[None] | None = None) -> Leadership:
        return self._leadership(await self._recipe.campaign(timeout, cancelled))

    async def _try_campaign(self, timeout: Timeout) -> Leadership | None:
        term = await self._recipe.try_campaign(timeout)
        return None if term is None else self._leadership(term)

    def run(
        self, work: Callable[[Leadership], object], *, terms: int | None = None, cancel: Cancel | None = None
    ) -> None:
        """Call `work(leadership)` each time we lead, in the calling thread.

        When `work` returns, the term ends, and we stand for election again. An exception resigns and propagates, but
        for the LeadershipLostError of the leadership itself, which just ends the term. The node is given up only after
        `work` has ended; until the lease ends nobody else can lead, so end within `stop_grace` of `should_stop`.

        Args:
            work: Polls `leadership.should_stop`, or waits for it.
            terms: Return after so many; None for ever.
            cancel: Makes `run` return: at once while waiting; while leading, `should_stop` is set (RESIGNED), and `run`
                returns when `work` has ended.

        Raises:
            ClosedError: The client was closed.
        """
        runtime = self._client.core.runtime
        until_cancelled = Cancel() if cancel is None else cancel
        cancelled = until_cancelled.begin(runtime)
        try:
            led = 0
            while (terms is None or led < terms) and not until_cancelled.cancelled:
                try:
                    leadership = self._client.run(self._campaign(None, cancelled))
                except CancelledError:
                    return
                self._lead(work, leadership)
                led += 1
        finally:
            until_cancelled.end(runtime, cancelled)

    @staticmethod
    def _lead(work: Callable[[Leadership], object], leadership: Leadership) -> None:
        try:
            work(leadership)
        except LeadershipLostError:
            if not leadership.lost.is_set():
                raise
        finally:
            leadership.release()

    def leader(self, *, timeout: Timeout | DefaultTimeout = DEFAULT) -> Contender | None:
        """Who leads, with what it has proclaimed; None if nobody does. It may have changed when you read it."""
        return self._client.run(self._recipe.leader(timeout))

    def participants(self, *, timeout: Timeout | DefaultTimeout = DEFAULT) -> list[Contender]:
        """The leader, then who waits, in order."""
        return self._client.run(self._recipe.participants(timeout))

    def observe(self) -> Observation:
        """Iterate over the leaders, the present one first; None while nobody leads.

        The newest state is always reached; terms in between may be skipped.
        """
        return Observation(self._client, self._recipe)

    def _leadership(self, term: Term) -> Leadership:
        return Leadership(self._client, term, self._recipe.label)

    def __repr__(self) -> str:
        return f"<Election {self.path} layout={self._recipe.place.layout.name}>"


@final
class Observation:
    """Iterates over leaders. Blocks until there is another one; ends when it is closed."""

    def __init__(self, client: Client, recipe: ElectionRecipe) -> None:
        self._client = client
        self._recipe = recipe
        self._closed: Pending[None] = Pending()
        self._last: Contender | Nothing | None = NOTHING

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Contender | None:
        try:
            leader = self._client.run(self._recipe.next_leader(self._last, self._closed))
        except ClosedError:
            raise StopIteration from None
        self._last = leader
        return leader

    def close(self) -> None:
        """End the iteration, from any thread. Idempotent."""
        with self._client.core.runtime.lock:
            self._closed.resolve(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
