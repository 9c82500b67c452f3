"""The session: requests on their way, the lease, the states, and the heartbeat. Driver-free; under the step lock.

Promises: a request is handed to the transport only while connected, in one session, and never more than 128 unanswered;
what was given up before it was written is never written; holds end as soon as the lease clock or the server says so, are
told once each, and never come back.

Source: the lease rule is explained in lease.py; states follow Curator's (CONNECTED, SUSPENDED, LOST), but LOST comes
from our own clock, not only from a server that answers again.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any, TypeVar, final

from zkrecipes.errors import ClosedError, ForkedError, UnavailableError
from zkrecipes.flow import Pending, first_of
from zkrecipes.hold import Hold, LostReason, Registration
from zkrecipes.lease import Lease, Stamp
from zkrecipes.port import Check, Children, Code, Exists, Get, Multi, Request, Runtime, Transport, is_write
from zkrecipes.refusals import refusal_error

__all__ = ["Call", "Session", "State", "Unsettled"]

T = TypeVar("T")

logger = logging.getLogger("zkrecipes.session")


@final
class State(Enum):
    """The state of a client's session."""

    CONNECTED = "connected"
    SUSPENDED = "suspended"
    """No server answers; what is held is still provable, but uncertain."""
    LOST = "lost"
    """Whatever was held is lost."""


class Unsettled(Exception):  # noqa: N818 - it is no error for a user; each caller decides what follows from it
    """A request ended without an answer.

    Attributes:
        written: Whether it may have reached a server.
    """

    def __init__(self, *, written: bool) -> None:
        super().__init__("a request ended without an answer")
        self.written = written


class Call(Pending[T]):
    """One request on its way.

    Attributes:
        request: What was asked.
        session_id: The only session in which it may be written.
        handed: When it was handed to the transport, or put in line for it.
        stamp: Set when it was written.
        withdrawn: Given up before it was written: it never will be.
        watch: Resolved when the node changes or the connection ends, if the request asked for it: look again.
    """

    __slots__ = ("handed", "request", "session_id", "stamp", "watch", "withdrawn")

    def __init__(self, request: Request, session_id: int, handed: float) -> None:
        super().__init__()
        self.request = request
        self.session_id = session_id
        self.handed = handed
        self.stamp: Stamp | None = None
        self.withdrawn = False
        self.watch: Pending[None] | None = None


class Session:
    """One client's session, and the port through which algorithms talk to the server.

    Args:
        runtime: Time, chance and tasks.
        server_tick: The server's tickTime in seconds, if known: half of it then replaces T/4 as the lease's margin.
        drift: The largest difference in speed between our clock and the server's, as a part of 1.
    """

    MAX_UNANSWERED = 128
    CHECKS_IN_ONE_BEAT = 250

    def __init__(self, runtime: Runtime, *, server_tick: float | None = None, drift: float = 0.01) -> None:
        self.runtime = runtime
        self.transport: Transport | None = None
        self.id = 0
        self.timeout = 0.0
        self.state = State.LOST
        self.closed = False
        self.fatal: BaseException | None = None
        self.suspensions = 0
        self.changed: Pending[None] = Pending()
        self.holds: dict[str, Hold] = {}
        self.on_given_up: Callable[[Hold], None] = lambda _hold: None
        self._server_tick = server_tick
        self._drift = drift
        self._lease = self._new_lease(0.0)
        self._linked = False
        self._silent = False
        self._dropping = False
        self._ever_connected = False
        self._unanswered: deque[Call[Any]] = deque()
        self._backlog: deque[Call[Any]] = deque()
        self._watches: dict[tuple[str, bool], Pending[None]] = {}
        self._listeners: list[Callable[[State], None]] = []
        self._next_beat = math.inf

    # --- for algorithms -------------------------------------------------------------------------------------------

    @property
    def usable(self) -> bool:
        """Whether a request can be handed over now."""
        return self._linked and not self._silent and not self.closed

    @property
    def lease(self) -> Lease:
        """The lease of the present session."""
        return self._lease

    def check_open(self, path: str = "") -> None:
        """Raise if the client cannot be used any more."""
        if self.runtime.forked():
            message = "this client belongs to the parent process; make a new one after the fork"
            raise ForkedError(message, path=path)
        if self.closed:
            message = "the client is closed; make a new one with zkrecipes.connect()"
            raise ClosedError(message, path=path)
        if self.fatal is not None:
            raise self.fatal

    def call(self, request: Request) -> Call[Any]:
        """Start a request. It fails with Unsettled if the answer does not come on this connection."""
        self.check_open()
        call: Call[Any] = Call(request, self.id, self.runtime.now())
        if not self.usable:
            call.fail(Unsettled(written=False))
        elif len(self._unanswered) < self.MAX_UNANSWERED and not self._backlog:
            self._hand_over(call)
        else:
            self._backlog.append(call)
        return call

    async def result(self, call: Call[T], until: float) -> T:
        """The answer of a call; Unsettled if it does not come by `until`. What was not written by then never is."""
        while not call.done:
            await first_of(call, until=until)
            if not call.done and self.runtime.now() >= until:
                self.withdraw(call)
        return call.result()

    def withdraw(self, call: Call[Any]) -> None:
        """Give a call up. If it was not written yet, it never will be."""
        if not call.done:
            call.withdrawn = call.stamp is None
            call.fail(Unsettled(written=call.stamp is not None))

    async def ready(self, until: float, path: str = "") -> None:
        """Wait until a request can be handed over.

        Raises:
            UnavailableError: The time came first.
        """
        while True:
            self.check_open(path)
            if self.usable:
                return
            if self.runtime.now() >= until:
                raise self.unavailable(path)
            await first_of(self.changed, until=until)

    def unavailable(self, path: str = "") -> UnavailableError:
        """The error for a deadline that came while no server answered."""
        trouble = self.transport.last_error if self.transport is not None else ""
        message = f"no ZooKeeper server answered in time{f' ({trouble})' if trouble else ''}; nothing was written"
        return UnavailableError(f"{message}. Check the servers, or give a longer timeout", path=path)

    def hold(self, path: str, token: int, version: int = -1) -> Hold:
        """Keep account of a node of ours from now on: heartbeat, loss, close."""
        hold = Hold(self.runtime, self._lease, self.id, path, token, version)
        self.holds[path] = hold
        return hold

    def drop_hold(self, hold: Hold) -> None:
        """Forget a hold that is released, or given up."""
        if self.holds.get(hold.path) is hold:
            del self.holds[hold.path]

    def on_state(self, callback: Callable[[State], None]) -> Registration:
        """Tell `callback` each change of state, once each and in order, on the dispatcher."""
        with self.runtime.lock:
            self._listeners.append(callback)
        return Registration(lambda: self._forget_listener(callback))

    def _forget_listener(self, callback: Callable[[State], None]) -> None:
        with self.runtime.lock:
            if callback in self._listeners:
                self._listeners.remove(callback)

    # --- from the transport -----------------------------------------------------------------------------------------

    def may_write(self, call: Call[Any]) -> bool:
        """Asked on the verge of writing: not what was given up, and nothing in another session than its own."""
        if call.withdrawn or call.done or call.session_id != self.id or not self._linked or self.runtime.forked():
            return False
        call.stamp = self._lease.written(self.runtime.now(), write=is_write(call.request))
        return True

    def answered(self, call: Call[Any], result: Any) -> None:
        """The server has done it."""
        self._settle(call, committed=is_write(call.request))
        self._set_watch(call, found=result is not None)
        call.resolve(result)
        self._pump()

    def refused(self, call: Call[Any], code: int, index: int = -1) -> None:
        """The server has refused it."""
        self._settle(call, committed=False)
        if code == Code.NO_NODE:
            self._set_watch(call, found=False)
        call.fail(refusal_error(call.request, code, index))
        self._pump()

    def dropped(self, call: Call[Any]) -> None:
        """The connection ended before the answer came."""
        if call in self._unanswered:
            self._unanswered.remove(call)
        call.fail(Unsettled(written=call.stamp is not None))

    def connected(self, session_id: int, timeout: float, since: float | None) -> None:
        """A handshake was answered."""
        now = self.runtime.now()
        self._latch(now)
        if session_id != self.id:
            self._end_all(LostReason.EXPIRED)
            self.id = session_id
            self.timeout = timeout
            self._lease = self._new_lease(timeout)
            if since is not None:
                self._lease.started(since, now)
        else:
            self._lease.resumed(since, now)
        self._ever_connected = True
        self._linked = True
        self._silent = False
        self._dropping = False
        # What is held must be confirmed by a write at once: the handshake alone proves nothing to the lease.
        self._next_beat = now
        self._enter(State.CONNECTED)

    def disconnected(self) -> None:
        """The connection ended."""
        if self._linked:
            self._linked = False
            self._lease.disconnected()
            while self._unanswered:
                self.dropped(self._unanswered[0])
            self._fail_backlog()
            self._wake_watches()
            self._enter(State.SUSPENDED)

    def expired(self) -> None:
        """A server said that the session is over."""
        self.disconnected()
        self._end_all(LostReason.EXPIRED)
        self.id = 0
        self._enter(State.LOST)

    def failed(self, error: BaseException) -> None:
        """There will be no connection any more."""
        self.fatal = error
        self.expired()
        self._tell_changed()

    def watch_fired(self, path: str, *, children: bool) -> None:
        """A watch fired: whoever waits looks again."""
        pending = self._watches.pop((path, children), None)
        if pending is not None:
            pending.resolve(None)

    def close(self) -> None:
        """End everything: holds (reason CLOSED), waiting algorithms, requests."""
        if not self.closed:
            self.closed = True
            self._end_all(LostReason.CLOSED)
            self._linked = False
            while self._unanswered:
                self.dropped(self._unanswered[0])
            self._fail_backlog()
            self._wake_watches()
            self._enter(State.LOST)

    # --- requests -----------------------------------------------------------------------------------------------------

    def _hand_over(self, call: Call[Any]) -> None:
        if self.transport is None:
            raise RuntimeError
        self._unanswered.append(call)
        self.transport.send(call)

    def _settle(self, call: Call[Any], *, committed: bool) -> None:
        now = self.runtime.now()
        # An answer that comes after the lease has run out ends all holds before it can extend it: nothing is revived.
        self._latch(now)
        if self._unanswered and self._unanswered[0] is call:
            self._unanswered.popleft()
        elif call in self._unanswered:
            self._unanswered.remove(call)
        if call.stamp is not None and call.session_id == self.id:
            self._lease.answered(call.stamp, now, committed=committed)
        if self._silent and not self._dropping:
            self._silent = False
            self._enter(State.CONNECTED)

    def _pump(self) -> None:
        while self._backlog and self.usable and len(self._unanswered) < self.MAX_UNANSWERED:
            call = self._backlog.popleft()
            if not call.done:
                self._hand_over(call)

    def _fail_backlog(self) -> None:
        backlog, self._backlog = self._backlog, deque()
        for call in backlog:
            call.fail(Unsettled(written=False))

    def _set_watch(self, call: Call[Any], *, found: bool) -> None:
        request = call.request
        if isinstance(request, Get | Children) and request.watch and found:
            call.watch = self._watch(request.path, children=isinstance(request, Children))
        elif isinstance(request, Exists) and request.watch:
            call.watch = self._watch(request.path, children=False)

    def _watch(self, path: str, *, children: bool) -> Pending[None]:
        return self._watches.setdefault((path, children), Pending())

    def _wake_watches(self) -> None:
        watches, self._watches = self._watches, {}
        for pending in watches.values():
            pending.resolve(None)

    # --- states -------------------------------------------------------------------------------------------------------

    def _new_lease(self, timeout: float) -> Lease:
        margin = timeout / 4 if self._server_tick is None else min(self._server_tick / 2, timeout / 4)
        return Lease(timeout, margin, self._drift)

    def _enter(self, state: State) -> None:
        if state is self.state or (state is State.SUSPENDED and self.state is State.LOST):
            # LOST stays LOST until there is a connection again, and listeners hear each state once.
            self._tell_changed()
            return
        self.state = state
        self.suspensions += state is State.SUSPENDED
        expected = state is State.CONNECTED or self.closed
        logger.log(logging.INFO if expected else logging.WARNING, "Session %#x is %s", self.id, state.value)
        for listener in self._listeners:
            self._tell(listener, state)
        self._tell_changed()

    def _tell(self, listener: Callable[[State], None], state: State) -> None:
        self.runtime.dispatch(listener, lambda: listener(state))

    def _tell_changed(self) -> None:
        changed, self.changed = self.changed, Pending()
        changed.resolve(None)

    def _latch(self, now: float) -> None:
        """End what the clock has ended, before anything else is done."""
        if self.holds and now >= self._lease.until:
            for hold in list(self.holds.values()):
                self._give_up(hold, LostReason.UNREACHABLE)
            self._enter(State.LOST)
        elif self.state is State.SUSPENDED and now >= max(self._lease.until, self._lease.heard + self.timeout):
            self._enter(State.LOST)

    def _give_up(self, hold: Hold, reason: LostReason) -> None:
        self.drop_hold(hold)
        hold.end(reason)
        if reason is LostReason.UNREACHABLE:
            # The session may turn out to be alive; then the node must not stay.
            self.on_given_up(hold)

    def _end_all(self, reason: LostReason) -> None:
        for hold in list(self.holds.values()):
            self.drop_hold(hold)
            hold.end(reason)

    # --- heartbeat ----------------------------------------------------------------------------------------------------

    async def keep(self) -> None:
        """The engine's task: heartbeat, the end of leases, silent servers. Runs until the client is closed."""
        while not self.closed:
            now = self.runtime.now()
            self._latch(now)
            self._look_for_silence(now)
            if self.usable and now >= self._next_beat:
                self._beat(now)
            await first_of(self.changed, until=self._next_look(now))

    def _next_look(self, now: float) -> float:
        if not self.timeout:
            return math.inf
        times = [now + self.timeout / 6]
        if self.usable:
            times.append(self._next_beat)
        if self._unanswered:
            age_limits = [limit for limit in self._silence_limits() if self._unanswered[0].handed + limit > now]
            times.extend(self._unanswered[0].handed + limit for limit in age_limits)
        if self.holds:
            times.append(self._lease.until)
        return min(times)

    def _silence_limits(self) -> tuple[float, float]:
        alone = self.transport is None or self.transport.servers <= 1
        # With one server only there is nobody better to ask: a slow one must not get a storm of reconnects.
        return self.timeout / 6, self.timeout / 2 if alone else self.timeout / 6

    def _look_for_silence(self, now: float) -> None:
        if not self._linked or not self._unanswered or self.transport is None:
            return
        silence = now - self._unanswered[0].handed
        uncertain, hopeless = self._silence_limits()
        if silence >= uncertain and not self._silent:
            self._silent = True
            self._enter(State.SUSPENDED)
        if silence >= hopeless and not self._dropping:
            # kazoo notices a silent server only when it has nothing to send.
            self._dropping = True
            logger.warning("No answer for %.2f s: the connection is made anew", silence)
            self.transport.reconnect()

    def _beat(self, now: float) -> None:
        self._next_beat = now + self.timeout / 6
        holds = list(self.holds.values())
        for start in range(0, len(holds), self.CHECKS_IN_ONE_BEAT):
            self._confirm(holds[start : start + self.CHECKS_IN_ONE_BEAT])
        for hold in holds:
            if not hold.watched and now - hold.born > self.timeout / 12:
                self._watch_hold(hold)
        if not holds and not self._unanswered:
            self.call(Exists("/"))

    def _confirm(self, holds: Iterable[Hold]) -> None:
        present = [hold for hold in holds if self.holds.get(hold.path) is hold]
        if present and self.usable:
            call = self.call(Multi(tuple(Check(hold.path, hold.version) for hold in present)))
            call.add_waiter(lambda: self._confirmed(call, present))

    def _confirmed(self, call: Call[Any], holds: list[Hold]) -> None:
        if not call.failed:
            return
        index = getattr(call.error, "index", -1)
        if 0 <= index < len(holds):
            # The failed check names the node that is not there; the others are asked for again at once, since a multi
            # that failed has confirmed none of them.
            hold = holds[index]
            if self.holds.get(hold.path) is hold:
                self._give_up(hold, LostReason.NODE_DELETED)
            self._confirm(holds[:index] + holds[index + 1 :])

    def _watch_hold(self, hold: Hold) -> None:
        """A removal by somebody else is then told at once, not with the next beat."""
        call = self.call(Exists(hold.path, watch=True))
        hold.watched = True

        def set_up() -> None:
            if call.failed or call.watch is None:
                hold.watched = False
            elif call.result() is None:
                self._found_deleted(hold)
            else:
                call.watch.add_waiter(lambda: self._look_at(hold))

        call.add_waiter(set_up)

    def _look_at(self, hold: Hold) -> None:
        # Fired for data that changed, for a removal, and when the connection ended: ask.
        hold.watched = False
        if self.holds.get(hold.path) is hold and self.usable:
            self._watch_hold(hold)

    def _found_deleted(self, hold: Hold) -> None:
        if self.holds.get(hold.path) is hold:
            self._give_up(hold, LostReason.NODE_DELETED)
