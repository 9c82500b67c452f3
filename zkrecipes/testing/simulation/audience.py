"""Those who listen to a tree: mirrors and their consumers, waiters on single nodes; and whether what they hear is true.

A consumer replays what it is told, as a user's program would, and complains at once of what cannot be; at the end, when
all is quiet, its map must equal the tree.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, final

from zkrecipes.calls import Call, Unsettled
from zkrecipes.changes import Change, Consumer, EventKind, RawChange
from zkrecipes.codec import BytesCodec
from zkrecipes.errors import ClosedError, NodeNotFoundError, UnavailableError
from zkrecipes.flow import Pending, first_of
from zkrecipes.known import Seen
from zkrecipes.listening import ListenerState
from zkrecipes.port import Children, Exists, Get, Stat
from zkrecipes.scope import Scope
from zkrecipes.testing.simulation.client import SimulatedClient
from zkrecipes.testing.simulation.garden import PATHS
from zkrecipes.testing.simulation.tasks import Task
from zkrecipes.testing.simulation.tree import parent_of
from zkrecipes.testing.simulation.world import Violation

if TYPE_CHECKING:
    from zkrecipes.testing.simulation.listening import Listening

__all__ = ["Follower", "Listener", "Waiter"]

State = dict[str, tuple[int, int, bytes]]
"""czxid, mzxid and data of each node."""


@final
class Follower:
    """One consumer: it takes changes when it comes to it, and replays them."""

    def __init__(self, listener: Listener, name: str, pace: float) -> None:
        self.listener = listener
        self.name = name
        self.map: dict[str, Seen] = {}
        self._newest: dict[str, tuple[int, int]] = {}
        self._pace = pace
        self.consumer: Consumer = listener.state.consumer()
        self.task: Task[None] = listener.contest.start(listener.client, self._follow(), name)

    async def _follow(self) -> None:
        listener, now = self.listener, self.listener.client.process.now
        while not listener.mirror.closed.done:
            await first_of(self.consumer.woken, listener.mirror.closed)
            if self._pace:
                await first_of(listener.mirror.closed, until=now() + self._pace * listener.world.chance())
            if listener.mirror.closed.done:
                return
            for change in self.consumer.take():
                listener.contest.turns += 1
                self._check(change)

    def _check(self, change: RawChange) -> None:
        path, known, new = change.path, self.map.get(change.path), change.new
        self.listener.world.note(self.name, "is told %s %s", change.kind.value, path)
        if change.kind is EventKind.CREATED:
            if known is not None or change.old is not None or new is None:
                self._complain(change, "though it was there")
        elif known is None:
            self._complain(change, "though it was not there")
        elif change.old is None or change.old.data != known.data:
            self._complain(change, "with another old value than it was told before")
        if new is None:
            self._check_deleted(change)
            del self.map[path]
        else:
            self._check_new(change, known, new)
            self.map[path] = new

    def _check_deleted(self, change: RawChange) -> None:
        below = [other for other in self.map if other.startswith(f"{change.path}/")]
        if below and self.listener.scope.depth != 0:  # single nodes have nothing to do with one another
            self._complain(change, f"before {below[0]}, which is below it")

    def _check_new(self, change: RawChange, known: Seen | None, new: Seen) -> None:
        path, stat, listener = change.path, new.stat, self.listener
        now, newest = (stat.czxid, stat.mzxid), self._newest.get(path, (-1, -1))
        if now < newest or (now == newest and known is not None):
            self._complain(change, "older than what it was told before")
        self._newest[path] = now
        if known is not None and known.stat.czxid != stat.czxid:
            self._complain(change, "though it is another node than before")
        if known is not None and listener.data and known.data == new.data:
            self._complain(change, "though its data is the same")
        if listener.data and not listener.contest.chronicle.knows(path, stat.czxid, stat.mzxid, new.data):
            self._complain(change, "as it has never been")
        if not listener.scope.covers(path) or not listener.scope.shows(path):
            self._complain(change, "out of its scope")
        parent = parent_of(path)
        needed = path != parent and listener.scope.depth != 0 and listener.scope.covers(parent)
        if needed and listener.scope.shows(parent) and parent not in self.map:
            self._complain(change, "without its parent")

    def state(self) -> State:
        """What it has been told, in sum."""
        return self.listener.state_of(self.map)

    def _complain(self, change: RawChange, what: str) -> None:
        message = f"{self.name} ({self.listener.describe()}) was told {change.kind.name} of {change.path} {what}"
        raise Violation(message, self.listener.world.seed)


@final
class Callbacks:
    """What a user's callbacks hear: they replay it, too, and look at the order of the states."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._map: dict[str, bytes | None] = {}
        self.states: list[str] = []
        for kind, callback in (
            (EventKind.CREATED, self._created),
            (EventKind.CHANGED, self._changed),
            (EventKind.DELETED, self._deleted),
        ):
            listener.state.register(kind, callback)
        for mark in ("initialized", "stale", "fresh"):
            listener.state.register(mark, functools.partial(self._marked, mark))

    def _created(self, change: Change[bytes]) -> None:
        if change.path in self._map or change.old is not None:
            self._complain(f"CREATED of {change.path}, which was there")
        self._map[change.path] = change.new

    def _changed(self, change: Change[bytes]) -> None:
        if self._map.get(change.path, b"absent") != change.old:
            self._complain(f"CHANGED of {change.path} with another old value than it was told before")
        self._map[change.path] = change.new

    def _deleted(self, change: Change[bytes]) -> None:
        if self._map.pop(change.path, b"absent") != change.old:
            self._complain(f"DELETED of {change.path} with another old value than it was told before")

    def _marked(self, mark: str) -> None:
        before = self.states[-1] if self.states else ""
        self._listener.world.note(self._listener.name, "tells %s", mark)
        allowed = {"initialized": ("",), "stale": ("initialized", "fresh"), "fresh": ("stale",)}
        if before not in allowed[mark]:
            self._complain(f"{mark} after {before or 'nothing'}")
        self.states.append(mark)

    def trouble(self, shown: State) -> str:
        """What they have not been told when everything is quiet."""
        expected = {path: state[2] if self._listener.data else None for path, state in shown.items()}
        if self._map != expected:
            return f"its callbacks have heard of {self._map}, not of {expected}"
        if not self.states or self.states[-1] == "stale":
            return f"its callbacks have heard of the states {self.states}, but it is fresh"
        return ""

    def _complain(self, what: str) -> None:
        # What a callback raises is caught by the listener.
        self._listener.contest.complaint = f"a callback of {self._listener.name} was told {what}"


@final
class Listener:
    """A listener with its consumers, and callbacks."""

    def __init__(self, contest: Listening, client: SimulatedClient, name: str) -> None:
        self.contest = contest
        self.world = world = contest.world
        self.client = client
        self.name = name
        chance = world.chance
        self.scope = self._draw_scope()
        self.data = chance() < 0.8
        self.persistent = chance() < 0.65
        self.excludes = "b" if chance() < 0.2 and len(self.scope.roots) == 1 else ""
        self.state: ListenerState[bytes] = ListenerState(
            client.core,
            self.scope,
            BytesCodec() if self.data else None,
            persistent=self.persistent,
            include=(lambda path: not path.endswith(self.excludes)) if self.excludes else None,
            label=name,
        )
        self.mirror = self.state.mirror
        self.ending: Task[None] | None = None
        self._fresh_in: object = None
        self._newest: dict[str, tuple[int, int]] = {}
        self.mirror.observers.append(self._observe)
        self.callbacks = Callbacks(self)
        paces = (0.0, 0.0, 0.3, 3.0)
        count = int(chance() * 3)
        self.followers = [Follower(self, f"{name}.{n}", paces[int(chance() * 4)]) for n in range(1, count + 1)]
        self.task: Task[None] = contest.start(client, self._start(), name)
        world.note(name, "is a listener of %s", self.describe())

    def _draw_scope(self) -> Scope:
        chance = self.world.chance

        def pick(paths: tuple[str, ...]) -> str:
            return paths[int(chance() * len(paths))]

        match int(chance() * 4):
            case 0:
                return Scope(tuple(dict.fromkeys(pick(PATHS) for _ in range(1 + int(chance() * 3)))), depth=0)
            case 1:
                return Scope((pick(("/t", "/t/a", "/")),), depth=1, shows_roots=False)
            case _:
                roots = [pick(("/t", "/t", "/t/a", "/t/b", "/")) for _ in range(1 + int(chance() * 2))]
                return Scope(tuple(dict.fromkeys(roots)), depth=(None, None, 1, 2)[int(chance() * 4)])

    def describe(self) -> str:
        """What it looks at, and how."""
        how = "persistent" if self.persistent else "one-shot"
        data = "" if self.data else ", without data"
        without = f", without {self.excludes}" if self.excludes else ""
        return f"{' '.join(self.scope.roots)} to depth {self.scope.depth} ({how}{data}{without})"

    async def _start(self) -> None:
        await self.client.session.ready(math.inf)
        timeout = None if self.world.chance() < 0.8 else 1.0
        try:
            await self.state.start(timeout)
        except UnavailableError as error:
            if timeout is None:
                self._complain(f"its start would wait for ever and got {error!r}")
            self.close()
        except ClosedError:
            if not self.mirror.closed.done:
                raise
        else:
            if not self.mirror.initialized:
                self._complain("start has returned before the first state was complete")

    def _observe(self, path: str | None) -> None:
        if path is None:
            self.world.note(self.name, "is %s", "fresh" if self.mirror.fresh else "stale")
            if self.mirror.fresh:
                self._became_fresh()
            return
        seen = self.mirror.nodes.get(path)
        if seen is not None:
            if (seen.stat.czxid, seen.stat.mzxid) <= self._newest.get(path, (-1, -1)):
                self._complain(f"what is known of {path} went backwards")
            self._newest[path] = (seen.stat.czxid, seen.stat.mzxid)

    def _became_fresh(self) -> None:
        self._fresh_in = self.client.session.broken
        if not self.mirror.initialized:
            self._complain("it is fresh and was never initialized")
        transport = self.client.transport
        if transport.wire is None:
            return
        # What has not changed since the connection began cannot be unknown to who has read everything in it.
        server, known = transport.wire.server, self.mirror.nodes
        for path in self.expected():
            node = server.tree.nodes.get(path)
            if node is not None and node.mzxid <= transport.began_at:
                seen = known.get(path)
                if seen is None or (seen.stat.czxid, seen.stat.mzxid) != (node.czxid, node.mzxid):
                    self._complain(f"it says that it is fresh, and does not know {path} as it has been for long")

    def check(self) -> None:
        """At every instant: who says that it is fresh has read everything in this very connection."""
        if self._fresh_in is not self.client.session.broken and self.state.fresh:
            self._complain("it says that it is fresh, and has read nothing since it was connected again")

    # --- at the end ---------------------------------------------------------------------------------------------------

    def state_of(self, nodes: dict[str, Seen]) -> State:
        """A map of nodes without what may differ: a mirror does not look again when only children have changed."""
        return {path: (seen.stat.czxid, seen.stat.mzxid, seen.data) for path, seen in sorted(nodes.items())}

    def expected(self) -> State:
        """What is in its scope now."""
        nodes = self.contest.ensemble.tree.nodes
        return {
            path: (node.czxid, node.mzxid, node.data if self.data else b"")
            for path, node in sorted(nodes.items())
            if self.scope.covers(path) and not self._excluded(path)
        }

    def _excluded(self, path: str) -> bool:
        # Whoever is left out is left out with all that is below; the topmost root always belongs to it.
        return bool(self.excludes) and any(each.endswith(self.excludes) for each in self.scope.chain(path))

    def trouble(self) -> str:
        """What is not as it must be when everything is quiet; empty if nothing."""
        expected, mirrored = self.expected(), self.state_of(self.mirror.nodes)
        if mirrored != expected:
            return f"its mirror is {_differ(mirrored, expected)}"
        if not self.mirror.fresh:
            return "it is not fresh"
        shown = {path: state for path, state in expected.items() if self.scope.shows(path)}
        for follower in self.followers:
            told = follower.state()
            if {path: (state[0], state[2]) for path, state in told.items()} != {
                path: (state[0], state[2]) for path, state in shown.items()
            }:
                return f"{follower.name} has been told of {_differ(told, shown)}"
        return self.callbacks.trouble(shown)

    def close(self) -> None:
        """End it."""
        if self.ending is None:
            self.world.note(self.name, "is closed")
            for follower in self.followers:
                follower.consumer.close()
            self.ending = self.contest.start(self.client, self.state.close(), f"end of {self.name}")

    def _complain(self, what: str) -> None:
        message = f"{self.name} ({self.describe()}): {what}"
        raise Violation(message, self.world.seed)


@final
class Waiter:
    """Something else in the same client that waits for single nodes with one-shot watches, as recipes do."""

    def __init__(self, contest: Listening, client: SimulatedClient, name: str) -> None:
        self._contest = contest
        self.client = client
        self.name = name
        self._call: Call[object] | None = None
        self._read: object = None
        self.task: Task[None] = contest.start(client, self._wait(), name)

    async def _wait(self) -> None:
        session, chance = self.client.session, self._contest.world.chance
        while not session.closed:
            await session.ready(math.inf)
            kind: type[Get | Exists | Children] = (Get, Exists, Children)[int(chance() * 3)]
            self._call = call = session.call(kind(("/", "/t", "/t/a", "/t/b")[int(chance() * 4)], watch=True))
            try:
                self._read = _essence(await session.result(call, math.inf))
            except NodeNotFoundError:
                self._read = None
                if not isinstance(call.request, Exists):
                    self._call = None
            except Unsettled:
                self._call = None
            watch = Pending.of(None) if self._call is None or call.watch is None else call.watch
            if self._call is None:
                await first_of(until=self.client.process.now() + 0.3)
            await first_of(watch)

    def trouble(self) -> str:
        """Whether it waits for something that has happened."""
        call = self._call
        if call is None or call.watch is None or call.watch.done or not call.done or call.failed:
            return ""
        request = call.request
        assert isinstance(request, Get | Exists | Children)
        node = self._contest.ensemble.tree.nodes.get(request.path)
        if node is None:
            now: object = None
        else:
            now = sorted(node.children) if isinstance(request, Children) else (node.czxid, node.mzxid)
        if now != self._read:
            return f"it waits for {request.path} to change ({type(request).__name__}), which has changed long ago"
        return ""


def _essence(answer: object) -> object:
    if answer is None:
        return None
    if isinstance(answer, list):
        return sorted(answer)
    if isinstance(answer, Stat):
        return (answer.czxid, answer.mzxid)
    return _essence(answer[1]) if isinstance(answer, tuple) else answer


def _differ(one: State, other: State) -> str:
    paths = sorted(path for path in {*one, *other} if one.get(path) != other.get(path))
    return "; ".join(f"{path} as {_tell(one.get(path))}, which is {_tell(other.get(path))}" for path in paths)


def _tell(state: tuple[int, int, bytes] | None) -> str:
    return "absent" if state is None else f"{state[2]!r} (czxid {state[0]:#x}, mzxid {state[1]:#x})"
