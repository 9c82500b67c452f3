"""The session: requests on their way, the lease, the states, and the heartbeat. Driver-free; under the step lock.

Promises: a request is handed to the transport only while connected, in one session, and never more than 128 unanswered;
what was given up before it was written is never written; holds end as soon as the lease clock or the server says so,
are told once each, and never come back.

Source: the lease rule is explained in lease.py; states follow Curator's (CONNECTED, SUSPENDED, LOST), but LOST comes
from our own clock, not only from a server that answers again.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from zkrecipes.calls import Call, Unsettled
from zkrecipes.errors import ClosedError, ForkedError, UnavailableError
from zkrecipes.flow import Pending, first_of
from zkrecipes.hold import Hold, LostReason, Registration, checked_callback
from zkrecipes.lease import Lease
from zkrecipes.observe import Observations
from zkrecipes.port import Code, NodeEvent, Request, Runtime, State, Transport, is_write
from zkrecipes.refusals import refusal_error
from zkrecipes.sizes import check_size
from zkrecipes.watches import Watches

__all__ = ["Session"]

T = TypeVar("T")

logger = logging.getLogger("zkrecipes.session")


class Session:
    """One client's session, and the port through which algorithms talk to the server.

    Args:
        runtime: Time, chance and tasks.
        server_tick: The server's tickTime in seconds, if known: half of it then replaces T/4 as the lease's margin.
        drift: The largest difference in speed between our clock and the server's, as a part of 1.
    """

    MAX_UNANSWERED = 128
    EARLY_BEAT = 0.3  # of the session timeout

    def __init__(self, runtime: Runtime, *, server_tick: float | None = None, drift: float = 0.01) -> None:
        self.runtime = runtime
        self.transport: Transport | None = None
        self.namespace = ""
        self.observations: Observations | None = None
        self.id = 0
        self.timeout = 0.0
        self.state = State.LOST
        self.closed = False
        self.fatal: BaseException | None = None
        self.suspensions = 0
        self.changed: Pending[None] = Pending()
        self.kicked: Pending[None] = Pending()
        self.holds: dict[str, Hold] = {}
        self.on_given_up: Callable[[Hold], None] = lambda _hold: None
        self._server_tick = server_tick
        self.drift = drift
        self._lease = self._new_lease(0.0)
        self.linked = False
        self.silent = False
        self.dropping = False
        self.unproven = False
        self.unconfirmed = False
        self.doubts = 0
        self.unanswered: deque[Call[Any]] = deque()
        self._backlog: deque[Call[Any]] = deque()
        self.watches = Watches()
        self.broken: Pending[None] = Pending.of(None)
        """Done when the present connection has ended; another one for each connection."""
        self._listeners: list[Callable[[State], None]] = []
        self.next_beat = math.inf

    # --- for algorithms -------------------------------------------------------------------------------------------

    @property
    def usable(self) -> bool:
        """Whether a request can be handed over now."""
        return self.linked and not self.silent and not self.closed

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

    def call(self, request: Request, session_id: int | None = None) -> Call[Any]:
        """Start a request. It fails with Unsettled if the answer does not come on this connection.

        Args:
            request: What is asked.
            session_id: The only session in which it makes sense; the present one where None.

        Raises:
            PayloadTooLargeError: The server would drop the connection, under every recipe of the process.
        """
        self.check_open()
        check_size(request, self.namespace)
        call: Call[Any] = Call(request, self.id, self.runtime.now())
        if not self.usable or session_id not in {None, self.id}:
            call.fail(Unsettled(written=False))
            return call
        self.watches.asked(call)
        if len(self.unanswered) < self.MAX_UNANSWERED and not self._backlog:
            self._hand_over(call)
        else:
            self._backlog.append(call)
        return call

    async def result(self, call: Call[T], until: float, stop: Pending[None] | None = None) -> T:
        """The answer of a call; Unsettled if it does not come by `until`, or before `stop` is done.

        What was not written by then never is.
        """
        pendings: tuple[Pending[Any], ...] = (call,) if stop is None else (call, stop)
        while not call.done:
            await first_of(*pendings, until=until)
            if not call.done and (self.runtime.now() >= until or (stop is not None and stop.done)):
                self.withdraw(call)
        return call.result()

    def withdraw(self, call: Call[Any]) -> None:
        """Give a call up. If it was not written yet, it never will be."""
        if not call.done:
            call.withdrawn = call.stamp is None
            self._fail(call, Unsettled(written=call.stamp is not None))

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
        hold = Hold(self.runtime, self._lease, self.id, path, token, version=version)
        self.holds[path] = hold
        if self.observations is not None:
            self.observations.hold(hold)
        if self._lease.until - hold.born < self.EARLY_BEAT * self.timeout:
            # A beat comes within T/6 by itself, which after a long wait in line may be later than the lease's end.
            self.next_beat = hold.born
            self.kicked.resolve(None)
        return hold

    def drop_hold(self, hold: Hold) -> None:
        """Forget a hold that is released, or given up."""
        if self.holds.get(hold.path) is hold:
            del self.holds[hold.path]

    def on_state(self, callback: Callable[[State], None]) -> Registration:
        """Tell `callback` each change of state, once each and in order, on the dispatcher."""
        checked_callback(callback)
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
        if call.withdrawn or call.done or call.session_id != self.id or not self.linked or self.runtime.forked():
            return False
        call.stamp = self._lease.written(self.runtime.now(), write=is_write(call.request))
        return True

    def answered(self, call: Call[Any], result: Any) -> None:
        """The server has done it."""
        self._settle(call, committed=is_write(call.request))
        unneeded = self.watches.answered(call, found=result is not None)
        if self.observations is not None and not call.done:
            self.observations.request(call, "ok")
        call.resolve(result)
        if unneeded is not None and self.usable and self.watches.removable:
            self.call(unneeded)
        self._pump()

    def refused(self, call: Call[Any], code: int, index: int = -1) -> None:
        """The server has refused it."""
        self._settle(call, committed=False)
        self.watches.refused(call.request)
        if code == Code.UNIMPLEMENTED:
            self.watches.unsupported(call.request)
        self._fail(call, refusal_error(call.request, code, index, self.namespace))
        self._pump()

    def dropped(self, call: Call[Any]) -> None:
        """The connection ended before the answer came."""
        if call in self.unanswered:
            self.unanswered.remove(call)
        self._fail(call, Unsettled(written=call.stamp is not None))

    def connected(self, session_id: int, timeout: float, since: float | None) -> None:
        """A handshake was answered."""
        now = self.runtime.now()
        self.latch(now)
        if session_id != self.id:
            self._end_all(LostReason.EXPIRED)
            self.id = session_id
            self.timeout = timeout
            self._lease = self._new_lease(timeout)
            if since is not None:
                self._lease.started(since, now)
        else:
            self._lease.resumed(since, now)
            # A server that is just ending the session may answer the handshake, and then say nothing more.
            self.unproven = True
            # The handshake proves nothing to the lease: what is held is uncertain until a write is answered.
            self.unconfirmed = bool(self.holds)
        self.linked = True
        self.broken = Pending()
        self.silent = False
        self.dropping = False
        # What is held must be confirmed by a write at once: the handshake alone proves nothing to the lease.
        self.next_beat = now
        self.enter(State.CONNECTED)

    def disconnected(self) -> None:
        """The connection ended."""
        if self.linked:
            self.linked = False
            self._lease.disconnected()
            while self.unanswered:
                self.dropped(self.unanswered[0])
            self._fail_backlog()
            self.watches.ended()
            self.broken.resolve(None)
            self.enter(State.SUSPENDED)

    def expired(self) -> None:
        """A server said that the session is over."""
        self.disconnected()
        self._end_all(LostReason.EXPIRED)
        self.id = 0
        self.enter(State.LOST)

    def failed(self, error: BaseException) -> None:
        """There will be no connection any more."""
        self.fatal = error
        self.expired()
        self._tell_changed()

    def notified(self, path: str, event: NodeEvent) -> None:
        """A watch has told something of a node."""
        self.watches.notified(path, event)

    def close(self) -> None:
        """End everything: holds (reason CLOSED), waiting algorithms, requests."""
        if not self.closed:
            self.closed = True
            self._end_all(LostReason.CLOSED)
            self.linked = False
            while self.unanswered:
                self.dropped(self.unanswered[0])
            self._fail_backlog()
            self.watches.ended()
            self.broken.resolve(None)
            self.enter(State.LOST)

    # --- requests -----------------------------------------------------------------------------------------------------

    def _hand_over(self, call: Call[Any]) -> None:
        if self.transport is None:
            raise RuntimeError
        self.unanswered.append(call)
        try:
            self.transport.send(call)
        except BaseException:
            # It cannot be written as it is; nobody must wait for its answer.
            self.unanswered.remove(call)
            raise

    def _settle(self, call: Call[Any], *, committed: bool) -> None:
        now = self.runtime.now()
        # An answer that comes after the lease has run out ends all holds before it can extend it: nothing is revived.
        self.latch(now)
        if self.unanswered and self.unanswered[0] is call:
            self.unanswered.popleft()
        elif call in self.unanswered:
            self.unanswered.remove(call)
        if call.stamp is not None and call.session_id == self.id:
            self._lease.answered(call.stamp, now, committed=committed)
        self.unproven = False
        self.doubts = 0
        if committed:
            self.unconfirmed = False
        if self.linked and not self.dropping and (self.silent or self.state is not State.CONNECTED):
            # A server that was only slow, or a process that was frozen for longer than the lease, but not the session.
            self.silent = False
            self.enter(State.CONNECTED)

    def _fail(self, call: Call[Any], error: Exception) -> None:
        if self.observations is not None and not call.done:
            outcome = "unanswered" if isinstance(error, Unsettled) else type(error).__name__
            self.observations.request(call, outcome)
        call.fail(error)

    def _pump(self) -> None:
        while self._backlog and self.usable and len(self.unanswered) < self.MAX_UNANSWERED:
            call = self._backlog.popleft()
            if not call.done:
                self._hand_over(call)

    def _fail_backlog(self) -> None:
        backlog, self._backlog = self._backlog, deque()
        for call in backlog:
            call.fail(Unsettled(written=False))

    # --- states -------------------------------------------------------------------------------------------------------

    def _new_lease(self, timeout: float) -> Lease:
        margin = timeout / 4 if self._server_tick is None else min(self._server_tick / 2, timeout / 4)
        return Lease(timeout, margin, self.drift)

    def enter(self, state: State) -> None:
        """Tell listeners, and whoever waits for a change."""
        if state is self.state or (state is State.SUSPENDED and self.state is State.LOST):
            # LOST stays LOST until there is a connection again, and listeners hear each state once.
            self._tell_changed()
            return
        self.state = state
        self.suspensions += state is State.SUSPENDED
        expected = state is State.CONNECTED or self.closed
        logger.log(logging.INFO if expected else logging.WARNING, "Session %#x is %s", self.id, state.value)
        if self.observations is not None:
            self.observations.state(state)
        for listener in self._listeners:
            self.runtime.dispatch(listener, partial(listener, state))
        self._tell_changed()

    def _tell_changed(self) -> None:
        changed, self.changed = self.changed, Pending()
        changed.resolve(None)

    def latch(self, now: float) -> None:
        """End what the clock has ended, before anything else is done."""
        if self.holds and now >= self._lease.until:
            for hold in list(self.holds.values()):
                self.give_up(hold, LostReason.UNREACHABLE)
            self.enter(State.LOST)
        elif self.state is State.SUSPENDED and now >= max(self._lease.until, self._lease.heard + self.timeout):
            self.enter(State.LOST)

    def give_up(self, hold: Hold, reason: LostReason) -> None:
        """End a hold that is lost."""
        self._end(hold, reason)
        if reason is LostReason.UNREACHABLE:
            # The session may turn out to be alive; then the node must not stay.
            self.on_given_up(hold)

    def _end_all(self, reason: LostReason) -> None:
        for hold in list(self.holds.values()):
            self._end(hold, reason)

    def _end(self, hold: Hold, reason: LostReason) -> None:
        self.drop_hold(hold)
        hold.end(reason)
        if self.observations is not None:
            self.observations.hold(hold, hold.ended)
