"""Protected create, parents, and the reaper. Driver-free.

Promises: a create whose reply is lost is looked up by its GUID, never repeated blindly; whatever an attempt may have
made is removed while its session lives, even if the caller was interrupted, cancelled, collected or crashed half way.

Source: Curator's protected create (CreateBuilderImpl, `_c_<guid>-`). We differ: "it was never made" is believed only
behind a committed write, since a server that lags can hide a node; and an attempt is registered before it is sent.
"""

from __future__ import annotations

import logging
import math
import weakref
from collections import deque
from typing import Protocol, final

from zkrecipes.calls import Call, Unsettled
from zkrecipes.errors import NodeNotFoundError, ZkRecipesError
from zkrecipes.flow import Pending, first_of
from zkrecipes.hold import Grip, Hold
from zkrecipes.paths import ancestors
from zkrecipes.port import OPEN_ACL, Acl, Check, Children, Create, Delete, Kind, Multi, Stat
from zkrecipes.session import Session

__all__ = ["Attempt", "Dropped", "Nodes"]

logger = logging.getLogger("zkrecipes.nodes")

SWEEP = 0.25
"""Seconds between two looks for what was collected, at most."""


MAX_SEEN = 10_000


class Dropped(Protocol):
    """What lost its owner, and has an end that must still come."""

    async def release(self) -> None:
        """Bring it to its end, in the background."""
        ...


@final
class _Trace:
    """What the reaper needs to find and remove what an attempt may have made."""

    __slots__ = ("parent", "path", "prefix", "session_id", "settled")

    def __init__(self, session_id: int, parent: str, prefix: str, path: str | None) -> None:
        self.session_id = session_id
        self.parent = parent
        self.prefix = prefix
        self.path = path
        self.settled = False


@final
class Attempt:
    """A node that we are about to make, or have made and must not leave behind.

    Whoever holds it settles it, or leaves it to the reaper. If it is collected unsettled, the reaper has it, too.
    """

    __slots__ = ("__weakref__", "trace")

    def __init__(self, trace: _Trace) -> None:
        self.trace = trace

    @property
    def session_id(self) -> int:
        """The session in which the node is made."""
        return self.trace.session_id

    @property
    def path(self) -> str | None:
        """The full path, once it is known."""
        return self.trace.path

    @path.setter
    def path(self, path: str) -> None:
        self.trace.path = path

    @property
    def name(self) -> str:
        """The last component of the path, which is known."""
        return (self.trace.path or "").rpartition("/")[2]

    def settle(self) -> None:
        """Nothing is left of it, or somebody else answers for it now."""
        self.trace.settled = True


class Nodes:
    """The node operations that recipes stand on: one a client.

    Args:
        session: The client's session.
        acl: For every node and parent that is made.
    """

    def __init__(self, session: Session, acl: tuple[Acl, ...] = OPEN_ACL) -> None:
        self.session = session
        self.runtime = session.runtime
        self.acl = acl
        self._attempts: deque[tuple[weakref.ref[Attempt], _Trace]] = deque()
        self._handles: deque[tuple[weakref.ref[object], Grip]] = deque()
        self.dropped: deque[Dropped] = deque()
        """What nobody can release any more. Appended from anywhere, without the step lock."""
        self._reaping: dict[int, tuple[_Trace, Pending[None]]] = {}
        self._seen: dict[str, bool] = {}
        self._warned: dict[str, bool] = {}
        session.on_given_up = self._remove_given_up

    # --- attempts
    # -------------------------------------------------------------------------------------------------------

    def attempt(self, parent: str, prefix: str, path: str | None = None) -> Attempt:
        """Register a node before its create is sent."""
        trace = _Trace(self.session.id, parent, prefix, path)
        attempt = Attempt(trace)
        # A coroutine that is collected half way, as after a crash of the caller's code, cannot clean up by itself: the
        # sweep does. No finaliser: what a signal handler raises in one is dropped, and with it the rest of it.
        self._attempts.append((weakref.ref(attempt), trace))
        return attempt

    def look_after(self, handle: object, grip: Grip) -> None:
        """Release the grip if its handle is collected unreleased, as after an interrupt just before the assignment."""
        self._handles.append((weakref.ref(handle), grip))

    def leftovers(self) -> list[tuple[str, str, str | None]]:
        """Parent, name without number, and path if known, of all that is, or may be, ours on the server now."""
        traces = [*(trace for _, trace in self._attempts), *(trace for trace, _ in self._reaping.values())]
        open_ = [(trace.parent, trace.prefix, trace.path) for trace in traces if not trace.settled]
        return [*open_, *(("", "", path) for path in self.session.holds)]

    def create(self, attempt: Attempt, data: bytes) -> Call[tuple[str, Stat | None]]:
        """Start the create of an attempt: ephemeral and sequential."""
        path = f"{attempt.trace.parent}/{attempt.trace.prefix}"
        create = Create(path, data, Kind.EPHEMERAL, sequential=True, acl=self.acl)
        # Not in a session that has come since the attempt was registered: the reaper would not look for it there.
        return self.session.call(create, attempt.session_id)

    def create_parents(self, path: str) -> list[Call[object]]:
        """Start the creates of a node and its parents, as containers; which exist already does not matter.

        Those that this client has seen are left out, once: a container may have vanished since.
        """
        wanted = [parent for parent in ancestors(path) if parent == path or not self._seen.pop(parent, False)]
        return [self.session.call(Create(parent, b"", Kind.CONTAINER, acl=self.acl)) for parent in wanted]

    def saw_parents(self, path: str) -> None:
        """A node was made below this path: its parents exist."""
        if len(self._seen) > MAX_SEEN:
            self._seen.clear()
        self._seen.update(dict.fromkeys(ancestors(path)[:-1], True))

    async def find(self, attempt: Attempt, until: float, stop: Pending[None] | None = None) -> str | None:
        """Look up what an attempt has made, after a lost reply; None if it made nothing and never will.

        Raises:
            Unsettled: The connection ended again, or the time came, or `stop` is done.
        """
        # A server that lags, or a deposed leader, may not show the node. It shows everything once it has answered a
        # write of ours, and then a create that is still under way on an old connection is refused by the leader.
        proof = self.session.call(Multi((Check("/"),)))
        listing = self.session.call(Children(attempt.trace.parent))
        try:
            await self.session.result(proof, until, stop)
        except ZkRecipesError:
            logger.debug("The settling write was refused, which settles as well")
        try:
            names: list[str] = await self.session.result(listing, until, stop)
        except NodeNotFoundError:
            names = []
        for name in names:
            if name.startswith(attempt.trace.prefix):
                attempt.path = f"{attempt.trace.parent}/{name}"
                return name
        return None

    def warn_once(self, path: str) -> bool:
        """Whether nobody has been warned about this path before."""
        first = path not in self._warned
        self._warned[path] = True
        return first

    # --- removal
    # --------------------------------------------------------------------------------------------------------

    def remove(self, attempt: Attempt) -> Pending[None]:
        """Remove what an attempt may have made, in the background and to the end. Done when nothing is left."""
        return self._reap(attempt.trace)

    async def remove_within(self, attempt: Attempt, seconds: float) -> bool:
        """Remove it, and wait for that so long at most; whether nothing is left."""
        removed = self.remove(attempt)
        until = self.runtime.now() + seconds
        while not removed.done and self.runtime.now() < until:
            await first_of(removed, until=until)
        return removed.done

    async def release(self, hold: Hold, seconds: float) -> None:
        """Delete the node of a hold; what cannot be deleted within so many seconds is deleted in the background."""
        if hold.released:
            return
        lost = hold.reason
        hold.released = True
        self.session.drop_hold(hold)
        if hold.session_id != self.session.id or self.session.closed:
            return  # it ended with its session
        attempt = self.attempt("", "", hold.path)
        attempt.trace.session_id = hold.session_id
        if lost is None and self.session.usable:
            try:
                await self.session.result(self.session.call(Delete(hold.path)), self.runtime.now() + seconds)
            except NodeNotFoundError:
                attempt.settle()
            except Unsettled:
                self.remove(attempt)
            except BaseException:
                self.remove(attempt)
                raise
            else:
                attempt.settle()
        else:
            self.remove(attempt)

    def _remove_given_up(self, hold: Hold) -> None:
        if hold.undo is not None:
            hold.undo()
            return
        trace = _Trace(hold.session_id, "", "", hold.path)
        self._reap(trace)

    def _reap(self, trace: _Trace) -> Pending[None]:
        if trace.settled or trace.session_id != self.session.id or self.session.closed:
            trace.settled = True
            return Pending.of(None)
        if id(trace) in self._reaping:
            return self._reaping[id(trace)][1]
        removed = self.runtime.spawn(self._remove_to_the_end(trace), f"remove {trace.path or trace.parent}")
        self._reaping[id(trace)] = (trace, removed)
        return removed

    async def sweep(self) -> None:
        """The engine's task: removes what collected attempts have left. Runs until the client is closed."""
        while not self.session.closed:
            for _ in range(len(self._attempts)):
                attempt, trace = self._attempts.popleft()
                if not trace.settled and attempt() is not None:
                    self._attempts.append((attempt, trace))
                elif not trace.settled:
                    self._reap(trace)
            while self.dropped:
                self.runtime.spawn(self.dropped.popleft().release(), "release what was dropped")
            for _ in range(len(self._handles)):
                handle, grip = self._handles.popleft()
                if not grip.released and handle() is not None:
                    self._handles.append((handle, grip))
                elif not grip.released:
                    logger.warning("A handle of %s was dropped without release(); it is released now", grip.hold.path)
                    self.runtime.spawn(grip.release(), "release a dropped handle")
            pause = min(SWEEP, self.session.timeout / 6) or math.inf
            await first_of(self.session.changed, until=self.runtime.now() + pause)

    async def _remove_to_the_end(self, trace: _Trace) -> None:
        try:
            await self._remove(trace)
        finally:
            del self._reaping[id(trace)]

    async def _remove(self, trace: _Trace) -> None:
        attempt = Attempt(trace)
        while not trace.settled:
            try:
                await self.session.ready(math.inf)
            except ZkRecipesError:
                trace.settled = True  # closed, or failed for good: the session takes the node with it
                return
            if self.session.id != trace.session_id:
                trace.settled = True
                return
            try:
                if trace.path is None and await self.find(attempt, math.inf) is None:
                    trace.settled = True
                    return
                if self.session.id == trace.session_id and trace.path is not None:
                    await self.session.result(self.session.call(Delete(trace.path)), math.inf)
                    trace.settled = True
            except NodeNotFoundError:
                trace.settled = True
            except Unsettled:
                # Not while the connection is being lost: ready() waits for the next one.
                await first_of(self.session.changed, until=self.runtime.now() + 0.05)
            except ZkRecipesError as error:
                logger.warning(
                    "Cannot remove %s, which stays until the session ends: %s", trace.path or trace.parent, error
                )
                trace.settled = True
