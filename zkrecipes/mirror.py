"""A part of the server's tree, kept equal in memory. Driver-free.

Promises: the newest state is always reached; what is known of a node never goes backwards; a node that was made again
(another czxid) is known as another one, also when that happened while nobody was connected.

Does not promise: each state in between. A watch says "look again", and what is read then may be several changes later.

How: arm first, then read, so that what changes behind the reading is told. What is told marks nodes *dirty*; these are
read again, also those that are told while they are being read. Answers are taken in the order of the requests, which is
the server's. After each connection everything is armed and read anew: the server has forgotten its watches. zxids
decide what is new; `version` and `cversion` start again with each node and may be equal for different ones.

Source: Curator's CuratorCache (watch first, then read). We differ: czxid and mzxid are compared where it compares
versions; nodes are read by the hundred; what may not be read is polled, since no watch tells of a changed ACL.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, final

from zkrecipes.admission import Admission, Judge
from zkrecipes.calls import Call, Unsettled
from zkrecipes.core import Core
from zkrecipes.errors import ClosedError, NodeNotFoundError, ZkRecipesError
from zkrecipes.flow import Pending, first_of
from zkrecipes.known import Known, Seen, parent_of
from zkrecipes.port import Children, Exists, Get, NodeEvent, Request, Stat
from zkrecipes.reading import WINDOW, Again, Reader
from zkrecipes.rounds import Rounds
from zkrecipes.scope import Scope
from zkrecipes.timing import NEVER, Deadline
from zkrecipes.watching import follow, forget, unfollow

__all__ = ["Mirror", "Seen"]

DATA: Final = 1
LIST: Final = 2
DEEP: Final = 4
"""With LIST: every child is looked at again, not only the new ones."""
ALL: Final = DATA | LIST | DEEP


@final
class Mirror:
    """Keeps `nodes` equal to what is in scope on the server. All under the step lock.

    Args:
        core: The client's.
        scope: Which nodes.
        data: Whether the nodes' data is wanted.
        persistent: Whether to use persistent recursive watches, where the server has them; one-shot ones otherwise.
        judge: Which nodes are wanted; what is below the others is not, either.
        audit: Seconds between two looks at everything, whether or not something was told (rounds.py).
        label: What errors call it.

    Attributes:
        nodes: What is known, by full path, in no order.
        refused: Nodes that may not be read, and why. What was known of them before stays in `nodes`.
        initialized: Whether it has been fresh once.
        version: Counts changes.
        changed: Done at the next change of anything above; another one each time.
        observers: Called with the path of each node that has changed, and with None when something else has.
    """

    def __init__(
        self,
        core: Core,
        scope: Scope,
        *,
        data: bool = True,
        persistent: bool = True,
        judge: Judge | None = None,
        audit: float | None = None,
        label: str = "",
    ) -> None:
        self.scope = scope
        self._known = Known(self._tell)
        self.nodes: dict[str, Seen] = self._known.nodes
        self.initialized = False
        self._fresh = False
        self._connection: Pending[None] = Pending.of(None)
        self.version = 0
        self.changed: Pending[None] = Pending()
        self.observers: list[Callable[[str | None], None]] = []
        self.closed: Pending[None] = Pending()
        self.label = label
        self._session = core.session
        self._runtime = core.runtime
        self._data = data
        self._persistent = persistent
        self._admission = None if judge is None else Admission(judge, scope)
        self._recursive = False
        self._absent: dict[str, None] = {}
        self._dirty: dict[str, int] = {}
        self._woken: Pending[None] = Pending()
        self._calls: dict[tuple[str, int], Call[Any]] = {}
        self._reader = Reader(core.session, self.closed)
        self._rounds = Rounds(core.runtime, audit)
        self.refused = self._rounds.denied
        self._kept: Pending[None] | None = None

    @property
    def fresh(self) -> bool:
        """Whether everything has been read in this connection, and is watched."""
        return self._fresh and not self._connection.done

    async def start(self, deadline: Deadline) -> None:
        """Begin, and wait until the first state is complete; UnavailableError if no server answers in time.

        May be called again, and goes on trying until it is closed.
        """
        session = self._session
        if self._kept is None:
            session.check_open(self.label)
            self._kept = self._runtime.spawn(self._keep(), f"mirror of {self.label}")
        while not self.initialized:
            session.check_open(self.label)
            if self._kept.done:
                self._kept.result()  # where it has failed, its error
                message = f"the listener of {self.label} was closed before its first state was complete"
                raise ClosedError(message, path=self.label)
            if deadline.passed(self._runtime.now()):
                raise session.unavailable(self.label)
            await first_of(self.changed, session.changed, self._kept, until=deadline.at)

    def descendants(self, path: str) -> list[str]:
        """What is known below a node."""
        return self._known.descendants(path)

    def awaits_parent(self, path: str) -> bool:
        """Whether a node was read before its parent, which must be there, too."""
        parent = parent_of(path)
        return parent not in self.nodes and parent not in self.refused and self.scope.covers(parent)

    async def close(self, seconds: float) -> None:
        """End it, here and on the server; what takes longer than so many seconds is done in the background."""
        self.closed.resolve(None)
        until = self._runtime.now() + seconds
        while self._kept is not None and not self._kept.done and self._runtime.now() < until:
            await first_of(self._kept, until=until)

    async def _keep(self) -> None:
        session = self._session
        try:
            while not self.closed.done and not session.closed and session.fatal is None:
                if not session.usable:
                    self._set_fresh(fresh=False)
                    await first_of(session.changed, self.closed)
                    continue
                broken = session.broken
                try:
                    await self._resync()
                    await self._follow(broken)
                except Again:
                    continue
                except Unsettled:
                    # Not in a circle: a server that is only slow is given time, and then asked for everything again.
                    self._set_fresh(fresh=False)
                    until = self._runtime.now() + session.timeout / 6
                    await first_of(broken, session.changed, self.closed, until=until)
        finally:
            self._set_fresh(fresh=False)
        await self._take_watches_off()

    async def _take_watches_off(self) -> None:
        session = self._session
        while not (session.usable or session.broken.done or session.closed):
            await first_of(session.changed, session.broken)  # only silent so far: the server's watches may live on
        for root in self.scope.roots:
            unfollow(session, root, self._told)
        calls, self._calls = self._calls, {}
        for number, call in enumerate(calls.values(), start=1):
            forget(session, call)
            if number % WINDOW == 0 and session.usable:
                try:
                    await session.result(session.call(Exists("/")), NEVER)
                except Unsettled:
                    return  # the connection has ended, and the watches with it

    async def _resync(self) -> None:
        """Arm, then read everything."""
        session = self._session
        # Before arming: whatever is told from here on comes behind what is read below, and is looked at after it.
        self._dirty.clear()
        for call in self._calls.values():
            self._session.watches.forget(call)  # on the same connection, if it was only silent, they wait still
        self._calls.clear()
        self._recursive = self._persistent and session.watches.recursive
        if self._recursive:
            for arm in [follow(session, root, self._told) for root in self.scope.roots]:
                try:
                    await session.result(arm, NEVER, self.closed)
                except ZkRecipesError:
                    self._recursive = False
        if not self._recursive:
            for root in self.scope.roots:
                unfollow(session, root, self._told)
        await self._look(dict.fromkeys(self.scope.roots, ALL))

    async def _follow(self, broken: Pending[None]) -> None:
        """Look again at what is told, until the connection ends."""
        session = self._session
        # Even if something is dirty already: where writers never rest, that is always so.
        self._connection = broken
        self._set_fresh(fresh=True)
        self._rounds.audited(len(self.nodes))
        while not self.closed.done:
            if broken.done or not session.usable:
                self._set_fresh(fresh=False)
                return
            audit = self._rounds.audit_due()
            if audit or self._rounds.poll_due():
                for path in self.scope.roots if audit else self.refused:
                    self._mark(path, ALL)
                if audit:
                    self._rounds.audited(len(self.nodes))
            if self._dirty:
                dirty, self._dirty = self._dirty, {}
                await self._look(dirty)
                continue
            self._woken = Pending()
            await first_of(self._woken, broken, session.changed, self.closed, until=self._rounds.at)

    def _set_fresh(self, *, fresh: bool) -> None:
        if fresh and not self.initialized:
            self.initialized = True
            self._fresh = True
            self._tell(None)
        elif fresh is not self._fresh:
            self._fresh = fresh
            self._tell(None)

    def _told(self, path: str, _event: NodeEvent) -> None:
        # Also for a deleted node: it may have come back since, and an answer under way may still show the old one.
        if self.scope.covers(path):
            self._mark(path, DATA)

    def _mark(self, path: str, flags: int) -> None:
        self._dirty[path] = self._dirty.get(path, 0) | flags
        self._woken.resolve(None)

    def _watched(self, call: Call[Any], path: str, flag: int) -> None:
        """The answer of a call that has set a one-shot watch is in."""
        watch = call.watch
        if watch is None:
            return
        older = self._calls.get((path, flag))
        self._calls[path, flag] = call
        if older is not None:
            self._session.watches.forget(older)

        def fired() -> None:
            if self._calls.get((path, flag)) is call:
                del self._calls[path, flag]
                self._mark(path, flag)

        watch.add_waiter(fired)

    async def _look(self, wanted: dict[str, int]) -> None:
        """Read nodes again, and what is found to be new below them."""
        while wanted:
            if self._admission is not None:
                wanted = await self._admission.admitted(wanted, len(self.nodes), self.closed)
            # Parents first: a node made again is known as such before its children are looked at.
            paths = sorted(wanted) if len(wanted) > 1 else list(wanted)
            more: dict[str, int] = {}
            if self._recursive:
                await self._look_behind(paths, wanted, more)
            else:
                await self._look_and_arm(paths, wanted, more)
            wanted = more

    async def _look_behind(self, paths: list[str], wanted: dict[str, int], more: dict[str, int]) -> None:
        """Read behind an armed persistent watch: many at once, and children only of nodes that have some."""
        parents: list[str] = []

        def take(path: str, answer: Any) -> None:
            stat = self._saw(path, answer)
            if stat is not None and wanted[path] & LIST and self.scope.lists(path):
                if stat.children_count:
                    parents.append(path)
                else:
                    self._listed(path, [], DEEP, more)

        await self._reader.read([self._data_request(path, watch=False) for path in paths], take)
        await self._reader.read(
            [Children(path) for path in parents], lambda path, names: self._listed(path, names, DEEP, more)
        )

    async def _look_and_arm(self, paths: list[str], wanted: dict[str, int], more: dict[str, int]) -> None:
        """Read with one-shot watches, each armed by the request that reads."""
        requests: list[Request] = []
        for path in paths:
            if wanted[path] & DATA:
                requests.append(Exists(path, watch=True) if path in self._absent else self._data_request(path))
            if wanted[path] & LIST and self.scope.lists(path) and path not in self._absent:
                requests.append(Children(path, watch=True))

        def take(call: Call[Any], answer: Any) -> None:
            request = call.request
            if isinstance(request, Children):
                if isinstance(answer, list):
                    self._watched(call, request.path, LIST)
                self._listed(request.path, answer, wanted[request.path], more)
            elif isinstance(request, Get | Exists):
                self._took(call, request, answer, wanted[request.path], more)

        await self._reader.ask(requests, take)

    def _took(self, call: Call[Any], request: Get | Exists, answer: Any, flags: int, more: dict[str, int]) -> None:
        path = request.path
        if isinstance(request, Exists) and self._data:
            # Asked only of a root that was absent: it says when that comes.
            if answer is None:
                self._watched(call, path, DATA)
            elif isinstance(answer, Stat):
                self._watched(call, path, DATA)
                self._absent.pop(path, None)
                more[path] = ALL
            else:
                self._saw(path, answer)
            return
        stat = self._saw(path, answer)
        if stat is not None or (answer is None and path in self.scope.roots):
            self._watched(call, path, DATA)
        elif answer is None:
            # Looking for a node that is not there has set a watch, too.
            forget(self._session, call)
        elif path in self.scope.roots and path not in self.refused:
            # No watch is set by reading a node that is not there. Below a root, its parent's list tells of it.
            self._absent[path] = None
            more[path] = ALL
        if stat is not None and not flags & LIST and self.scope.lists(path) and (path, LIST) not in self._calls:
            # It was not there before, so its children are not watched yet.
            more[path] = more.get(path, 0) | LIST

    def _data_request(self, path: str, *, watch: bool = True) -> Get | Exists:
        return Get(path, watch) if self._data else Exists(path, watch)

    def _saw(self, path: str, answer: Any) -> Stat | None:
        """Take what was read of a node: its metadata, or None if there is none to be had."""
        if isinstance(answer, Stat):
            answer = (b"", answer)
        if isinstance(answer, NodeNotFoundError) or answer is None:
            self._allowed(path)
            self._drop([path, *self._known.descendants(path)])
            return None
        if isinstance(answer, ZkRecipesError):
            self._refuse(path, answer)
            return None
        data, stat = answer
        if self._data or not self.scope.lists(path):
            # To ask for metadata alone needs no permission, and so proves none: a list of children does.
            self._allowed(path)
        self._known.keep(path, data, stat)
        return stat  # type: ignore[no-any-return]  # as the port says

    def _listed(self, path: str, names: Any, flags: int, more: dict[str, int]) -> None:
        """Take a list of children."""
        if isinstance(names, NodeNotFoundError):
            return  # it went in between; its own watch tells
        if isinstance(names, ZkRecipesError):
            self._refuse(path, names)
            return
        self._allowed(path)
        prefix = "/" if path == "/" else f"{path}/"
        listed = {f"{prefix}{name}": ALL for name in names}
        for child in [child for child in self._known.children(path) if child not in listed]:
            self._drop([child, *self._known.descendants(child)])
        for child in listed:
            if flags & DEEP or child not in self.nodes:
                more[child] = ALL

    def _drop(self, paths: list[str]) -> None:
        for path in paths:
            # Their watches have fired, or are about to: what comes back is told by the watch on its parent, or root.
            for flag in (LIST, DATA):
                if (call := self._calls.pop((path, flag), None)) is not None:
                    self._session.watches.forget(call)
            if self._admission is not None:
                self._admission.forget(path)
            self._rounds.allow(path)
        self._known.drop(paths)

    def _refuse(self, path: str, error: ZkRecipesError) -> None:
        if self._rounds.deny(path, error):
            self._tell(None)

    def _allowed(self, path: str) -> None:
        if self._rounds.allow(path):
            self._tell(None)

    def _tell(self, path: str | None) -> None:
        self.version += 1
        changed, self.changed = self.changed, Pending()
        for observer in tuple(self.observers):
            observer(path)
        changed.resolve(None)
