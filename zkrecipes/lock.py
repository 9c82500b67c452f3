"""Mutual exclusion over processes: Lock, and RLock, which its holder may acquire again.

Promises: at no instant can two handles prove that they hold one lock (as long as nobody else deletes lock nodes or
closes
sessions: `guard` covers that); first come, first served between processes; one waiter is woken by one release; a call
ends by its timeout, an outage included; an acquire that fails leaves nothing on the server.

Does not promise: that work begun under the lock stops when the lock is lost. Ask the handle, and guard each write.

Nodes: `<path>/_c_<guid>-lock-<number>` (layout "curator") or `<path>/<guid>__lock__<number>` (layout "kazoo"),
ephemeral, sequential, the identity in UTF-8 as data. The path and its missing parents are made as containers.

Source: ZooKeeper's lock recipe, Curator's InterProcessMutex (with which layout "curator" contends). We differ: create
and list in one flight; handles that know when they are lost; fencing tokens.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Final, Literal, final

from zkrecipes.contention import enter
from zkrecipes.core import DEFAULT, Core, DefaultTimeout, identity_bytes
from zkrecipes.errors import AcquireTimeoutError, LockLostError, NodeNotFoundError, OutcomeUnknownError
from zkrecipes.flow import Pending
from zkrecipes.handle import Handle, core_of
from zkrecipes.handoff import LocalHandoff, LocalLine
from zkrecipes.hold import Grip, Hold
from zkrecipes.layouts import CURATOR_LOCK, KAZOO_LOCK, Layout
from zkrecipes.patience import Patience, Place
from zkrecipes.port import Delete, Runtime
from zkrecipes.survey import Contender, survey
from zkrecipes.timing import Timeout

if TYPE_CHECKING:
    from zkrecipes.client import Client

__all__ = ["Cancel", "Contender", "LocalHandoff", "Lock", "LockHandle", "LockRecipe", "RLock"]

logger = logging.getLogger("zkrecipes.lock")

LockLayout = Literal["curator", "kazoo"]

LAYOUTS: Final[dict[str, Layout]] = {"curator": CURATOR_LOCK, "kazoo": KAZOO_LOCK}

RELEASE_LIMIT: Final = 1.0
"""Seconds for which a release waits for its reply; after that the background goes on with it."""


@final
class Cancel:
    """Cancels waits from another thread: give it to `acquire(cancel=…)`, call `cancel()` at any time.

    It stays cancelled; make a new one for the next wait.
    """

    def __init__(self) -> None:
        self._cancelled = False
        self._waits: list[tuple[Runtime, Pending[None]]] = []

    @property
    def cancelled(self) -> bool:
        """Whether `cancel()` has been called."""
        return self._cancelled

    def cancel(self) -> None:
        """End the waits that use it with CancelledError."""
        self._cancelled = True
        for runtime, pending in tuple(self._waits):
            with runtime.lock:
                pending.resolve(None)

    def begin(self, runtime: Runtime) -> Pending[None]:
        """For recipes: what is done when it is cancelled."""
        pending: Pending[None] = Pending()
        # Appended before the look: a cancel() in between finds it, one before is seen.
        self._waits.append((runtime, pending))
        if self._cancelled:
            pending.resolve(None)
        return pending

    def end(self, runtime: Runtime, pending: Pending[None]) -> None:
        """For recipes: the wait is over."""
        self._waits.remove((runtime, pending))


@final
@dataclass(frozen=True)
class _Shared:
    """A hold that its owner has acquired several times."""

    hold: Hold
    grips: list[Grip]


@final
class LockRecipe:
    """The algorithms, for every driver.

    Args:
        core: The client's core.
        path: The lock's path.
        identity: What others see as our name.
        layout: How contenders are named.
        local_handoff: Limits of the local hand-off; None is off.
        reentrant: Whether the owner (thread or task) may acquire again.
    """

    def __init__(
        self,
        core: Core,
        path: str,
        *,
        identity: str | None,
        layout: str,
        local_handoff: LocalHandoff | None = None,
        reentrant: bool = False,
    ) -> None:
        if layout not in LAYOUTS:
            message = f"layout must be one of {', '.join(map(repr, LAYOUTS))}, not {layout!r}"
            raise ValueError(message)
        if local_handoff is not None and not isinstance(local_handoff, LocalHandoff):
            message = f"local_handoff must be a LocalHandoff or None, not {type(local_handoff).__name__}"
            raise TypeError(message)
        self.core = core
        self.label = path
        self.place = Place(core.path(path), path, LAYOUTS[layout], identity_bytes(identity, core.identity))
        self._local_handoff = local_handoff
        self._reentrant = reentrant

    async def acquire(self, timeout: Timeout, cancel: Cancel | None) -> Grip:
        """Wait in line."""
        runtime = self.core.runtime
        cancelled = None if cancel is None else cancel.begin(runtime)
        try:
            patience = Patience.of(timeout, runtime.now(), cancelled)
            if self._reentrant:
                return await self._acquire_again(patience)
            if self._local_handoff is not None:
                return await self._local_line().acquire(self.place, patience, self._local_handoff)
            return Grip(runtime, await enter(self.core.nodes, self.place, patience), self._let_go)
        finally:
            if cancel is not None and cancelled is not None:
                cancel.end(runtime, cancelled)

    async def try_acquire(self, timeout: Timeout) -> Grip | None:
        """Like acquire, but None when somebody else holds it."""
        try:
            return await self.acquire(timeout, None)
        except AcquireTimeoutError:
            return None

    async def contenders(self, timeout: Timeout | DefaultTimeout) -> list[Contender]:
        """Who holds, then who waits, in order."""
        return await survey(self.core, self.place, self.core.deadline(timeout))

    async def break_(self, timeout: Timeout | DefaultTimeout) -> Contender | None:
        """Delete the holder's node."""
        deadline = self.core.deadline(timeout)
        line = await survey(self.core, self.place, deadline)
        if not line:
            return None
        holder = line[0]
        # The name has a GUID, so the node can only be that holder's: a lost reply may be asked again.
        node = f"{self.place.path}/{holder.node}"
        while True:
            try:
                await self.core.ask(Delete(node), deadline, self.label)
            except NodeNotFoundError:
                break
            except OutcomeUnknownError:
                if deadline.passed(self.core.runtime.now()):
                    raise
            else:
                break
        logger.warning(
            "%s has broken the lock %s of %r (token %d, node %s)",
            self.core.identity,
            self.label,
            holder.identity,
            holder.token,
            holder.node,
        )
        return holder

    def _local_line(self) -> LocalLine:
        key = ("local line", self.place.path, self.place.layout.name)
        line = self.core.shared.get(key)
        if line is None:
            line = self.core.shared[key] = LocalLine(self.core.nodes, self._release)
        assert isinstance(line, LocalLine)
        return line

    async def _release(self, hold: Hold) -> None:
        await self.core.nodes.release(hold, RELEASE_LIMIT)

    async def _let_go(self, grip: Grip) -> None:
        await self._release(grip.hold)

    # --- re-entry
    # -------------------------------------------------------------------------------------------------------

    async def _acquire_again(self, patience: Patience) -> Grip:
        runtime = self.core.runtime
        key = ("re-entrant", self.place.path, self.place.layout.name, runtime.owner())
        shared: _Shared | None = self.core.shared.get(key)
        if shared is None:
            self.core.session.check_open(self.label)
            hold = await enter(self.core.nodes, self.place, patience)
            shared = self.core.shared[key] = _Shared(hold, [])
        elif not shared.hold.valid:
            reason = shared.hold.reason
            why = "released" if reason is None else reason.value
            message = (
                f"the lock {self.label}, which this thread or task holds, was lost ({why}); release its handles first"
            )
            raise LockLostError(message, path=self.label, reason=reason)
        held = shared

        async def let_go(grip: Grip) -> None:
            held.grips.remove(grip)
            if not held.grips:
                if self.core.shared.get(key) is held:
                    del self.core.shared[key]
                await self._release(held.hold)

        grip = Grip(runtime, held.hold, let_go, turn=1 + max((grip.turn for grip in held.grips), default=0))
        held.grips.append(grip)
        return grip


# --- threads ----------------------------------------------------------------------------------------------------------


@final
class LockHandle(Handle):
    """A held lock."""

    _lost_error = LockLostError
    _what = "lock"


class _ThreadLock:
    """What Lock and RLock share."""

    _recipe: LockRecipe

    def __init__(self, client: Client, recipe: LockRecipe) -> None:
        self._client = client
        self._recipe = recipe
        self._entered: dict[int, list[LockHandle]] = {}

    @property
    def path(self) -> str:
        """The lock's path, below the client's namespace."""
        return self._recipe.label

    def acquire(self, timeout: Timeout = None, *, cancel: Cancel | None = None) -> LockHandle:
        """Wait in line and return a handle to the held lock.

        Args:
            timeout: Longest wait in seconds (or a timedelta), an outage included. None waits for ever; 0 never waits in
                line: one flight, 0.2 s at most, and UnavailableError at once while not connected.
            cancel: Ends the wait from another thread.

        Raises:
            AcquireTimeoutError: Others held it until the timeout.
            UnavailableError: No server answered before the timeout.
            CancelledError: The wait was cancelled.
            ForeignNodeError: The path holds nodes of another recipe or layout.
            AccessDeniedError: The ACL forbids it.
        """
        return self._client.run(self._acquire(timeout, cancel))

    def try_acquire(self, timeout: Timeout = 0) -> LockHandle | None:
        """Like acquire, but return None when others hold it. An outage raises UnavailableError."""
        return self._client.run(self._try_acquire(timeout))

    # The handle is made within the last step, so that no interrupt can part it from what was acquired.
    async def _acquire(self, timeout: Timeout, cancel: Cancel | None) -> LockHandle:
        return self._handle(await self._recipe.acquire(timeout, cancel))

    async def _try_acquire(self, timeout: Timeout) -> LockHandle | None:
        grip = await self._recipe.try_acquire(timeout)
        return None if grip is None else self._handle(grip)

    def contenders(self, *, timeout: Timeout | DefaultTimeout = DEFAULT) -> list[Contender]:
        """Who holds it, then who waits, in order. A look from outside: it may have changed when you read it."""
        return self._client.run(self._recipe.contenders(timeout))

    def break_(self, *, timeout: Timeout | DefaultTimeout = DEFAULT) -> Contender | None:
        """Delete the holder's node, whoever it is, and return who held it; None if nobody did. Logged as a warning.

        The holder learns it soon, but not before its next write: only its guarded writes are refused from now on.
        """
        return self._client.run(self._recipe.break_(timeout))

    def _handle(self, grip: Grip) -> LockHandle:
        return LockHandle(self._client, grip, self._recipe.label)

    def __enter__(self) -> LockHandle:
        # Kept a thread: several threads may be inside `with` of one object, one after another's loss.
        handles = self._entered.setdefault(self._client.core.runtime.owner(), [])
        inside = len(handles)
        try:
            handles.append(self.acquire())
            return handles[inside]
        except BaseException:
            # An interrupt behind the append: the block is not entered, so nobody would take the handle out again.
            while len(handles) > inside:
                handles.pop().release()
            if not handles:
                self._entered.pop(self._client.core.runtime.owner(), None)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        owner = self._client.core.runtime.owner()
        handles = self._entered[owner]
        handle = handles.pop()
        if not handles:
            del self._entered[owner]
        handle.__exit__(kind, error, traceback)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path} layout={self._recipe.place.layout.name}>"


@final
class Lock(_ThreadLock):
    """A lock that one holder at a time has, over all processes. Not re-entrant.

    An immutable description: it does nothing until it is acquired, and threads may share it.

    Args:
        client: From `connect`.
        path: The lock's path; nothing but contenders may be below it.
        identity: What others see as our name; "host:pid" by default.
        layout: "curator" contends with Curator's InterProcessMutex, "kazoo" with kazoo's Lock.
        local_handoff: Lets threads of this process pass the lock on without a request, within its limits. They share
        one
            fencing token then, so leave it off where the server must tell them apart.

    Raises:
        ValueError: The path, identity or layout is not valid.
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
            core_of(client, aio=False), path, identity=identity, layout=layout, local_handoff=local_handoff
        )
        super().__init__(client, recipe)


@final
class RLock(_ThreadLock):
    """A lock that the thread which holds it may acquire again, without a request.

    Each acquire gives a handle, all with the same token; the last release frees the lock. Arguments as of Lock.
    """

    def __init__(
        self, client: Client, path: str, *, identity: str | None = None, layout: LockLayout = "curator"
    ) -> None:
        super().__init__(
            client, LockRecipe(core_of(client, aio=False), path, identity=identity, layout=layout, reentrant=True)
        )
