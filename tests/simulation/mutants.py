"""Mutants: each takes one safeguard away, and names the promise that it breaks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import zkrecipes.contention as contention_module
import zkrecipes.line as line_module
import zkrecipes.session as session_module
from tests.simulation import directed
from zkrecipes.calls import Call, Unsettled
from zkrecipes.contention import _Visit
from zkrecipes.errors import NodeNotFoundError
from zkrecipes.flow import Pending, first_of
from zkrecipes.heartbeat import Heartbeat
from zkrecipes.hold import Hold
from zkrecipes.layouts import Member
from zkrecipes.leadership import Term
from zkrecipes.lease import Lease, Stamp
from zkrecipes.line import Acquired, Gone
from zkrecipes.nodes import Attempt, Nodes
from zkrecipes.patience import check_cancelled
from zkrecipes.port import Check, Children, Delete, Get, Multi, Request, Sync, is_write
from zkrecipes.session import Session
from zkrecipes.watches import Watches


@dataclass(frozen=True)
class Mutant:
    """One safeguard less.

    Attributes:
        name: What was taken away.
        breaks: What the simulation must complain of: a regular expression.
        kind: The schedules that find it.
        directed: The directed schedule that finds it where chance would take too long; None for contests.
        apply: Takes it away, for a while.
    """

    name: str
    breaks: str
    kind: str
    directed: directed.Schedule | None
    apply: Callable[[], AbstractContextManager[Any]]


MUTANTS: list[Mutant] = []

LEFTOVER = "left on the servers|still waits|appeared after|still there"


def mutant(
    breaks: str, kind: str = "lock", directed: directed.Schedule | None = None
) -> Callable[[Callable[[], Iterator[None]]], Callable[[], Iterator[None]]]:
    def register(function: Callable[[], Iterator[None]]) -> Callable[[], Iterator[None]]:
        name = function.__name__.replace("_", " ")
        MUTANTS.append(Mutant(name, breaks, kind, directed, contextmanager(function)))
        return function

    return register


def _patched(target: object, name: str, value: object) -> AbstractContextManager[object]:
    return patch.object(target, name, value)


# --- the lease --------------------------------------------------------------------------------------------------------


@mutant("two valid handles", directed=directed.leader_frozen_between_pings)
def lease_renewed_by_any_answer() -> Iterator[None]:
    def answered(self: Lease, stamp: Stamp, _now: float, *, committed: bool) -> None:
        if stamp.write and self._writes:
            self._writes.popleft()
        self.heard = max(self.heard, stamp.sent)
        self.until = max(self.until, stamp.sent + self.timeout - self.drift)

    with _patched(Lease, "answered", answered):
        yield


@mutant("two valid handles", directed=directed.holder_with_a_deposed_leader)
def lease_renewed_by_sync() -> Iterator[None]:
    def confirm(self: Heartbeat, holds: list[Hold]) -> None:
        if holds and self._session.usable:
            self._session.call(Sync())

    def counts(request: Request) -> bool:
        return isinstance(request, Sync) or is_write(request)

    def answered(self: Lease, stamp: Stamp, now: float, *, committed: bool) -> None:
        self._note(stamp.sent, now)
        if committed:
            self.until = max(self.until, stamp.sent + self.timeout - self.drift)

    with (
        _patched(Heartbeat, "_confirm", confirm),
        _patched(session_module, "is_write", counts),
        _patched(Lease, "answered", answered),
    ):
        yield


@mutant("two valid handles", directed=directed.leader_frozen_between_pings)
def lease_counts_from_the_write_itself() -> Iterator[None]:
    def extend(self: Lease, limit: float) -> None:
        # The write's own moment instead of a request answered a margin before it.
        self.until = max(self.until, limit + self.margin + self.timeout - self.margin - self.drift)

    with _patched(Lease, "_extend", extend):
        yield


@mutant("two valid handles", directed=directed.leader_frozen_between_pings)
def lease_without_its_margin() -> Iterator[None]:
    def extend(self: Lease, limit: float) -> None:
        for sent, answered in self._answered:
            if answered <= limit:
                self.until = max(self.until, sent + self.timeout - self.drift)

    with _patched(Lease, "_extend", extend):
        yield


@mutant("two valid handles", directed=directed.holder_cut_from_a_deposed_leader)
def session_taken_up_again_counts_as_a_committed_write() -> Iterator[None]:
    def resumed(self: Lease, since: float | None, _now: float) -> None:
        self.disconnected()
        if since is not None:
            self.until = max(self.until, since + self.timeout)

    with _patched(Lease, "resumed", resumed):
        yield


@mutant("came back to life")
def late_answer_revives() -> Iterator[None]:
    with _patched(Session, "latch", lambda _self, _now: None):
        yield


@mutant("two valid handles")
def valid_is_decided_by_the_engine() -> Iterator[None]:
    with _patched(Hold, "reason", property(lambda self: self.ended)):
        yield


@mutant("which it could not prove")
def lease_not_confirmed_after_a_long_wait() -> Iterator[None]:
    with _patched(_Visit, "_provable", lambda _self: True):
        yield


# --- requests and their outcome ---------------------------------------------------------------------------------------


@mutant(LEFTOVER)
def guid_is_not_looked_up() -> Iterator[None]:
    async def find(_self: Nodes, _attempt: Attempt, _until: float, _stop: object = None) -> None:
        return None

    with _patched(Nodes, "find", find):
        yield


@mutant(LEFTOVER)
def absent_is_believed_without_a_write() -> Iterator[None]:
    async def find(self: Nodes, attempt: Attempt, until: float, stop: Pending[None] | None = None) -> str | None:
        try:
            names = await self.session.result(self.session.call(Children(attempt.trace.parent)), until, stop)
        except NodeNotFoundError:
            return None
        for name in names:
            if name.startswith(attempt.trace.prefix):
                attempt.path = f"{attempt.trace.parent}/{name}"
                return str(name)
        return None

    with _patched(Nodes, "find", find):
        yield


@mutant(LEFTOVER)
def create_is_repeated_blindly() -> Iterator[None]:
    async def look_up(self: _Visit) -> list[str]:
        await self._reconnected()
        if self.session.id != self.attempt.session_id:
            return []
        return await self._join()

    with _patched(_Visit, "_look_up", look_up):
        yield


@mutant(LEFTOVER)
def withdrawn_calls_are_written_later() -> Iterator[None]:
    def may_write(self: Session, call: Call[Any]) -> bool:
        call.stamp = self._lease.written(self.runtime.now(), write=is_write(call.request))
        return True

    with _patched(Session, "may_write", may_write):
        yield


@mutant(LEFTOVER)
def no_reaper() -> Iterator[None]:
    with _patched(Nodes, "_reap", lambda _self, _trace: Pending.of(None)):
        yield


@mutant(LEFTOVER)
def collected_calls_are_not_swept() -> Iterator[None]:
    async def sweep(_self: Nodes) -> None:
        await first_of()

    with _patched(Nodes, "sweep", sweep):
        yield


@mutant(LEFTOVER)
def lost_reply_of_the_delete_means_done() -> Iterator[None]:
    async def release(self: Nodes, hold: Hold, seconds: float) -> None:
        hold.released = True
        self.session.drop_hold(hold)
        if self.session.usable:
            try:
                await self.session.result(self.session.call(Delete(hold.path)), self.runtime.now() + seconds)
            except Unsettled:
                return

    with _patched(Nodes, "release", release):
        yield


@mutant("acquire took")
def removal_is_waited_for_without_a_limit() -> Iterator[None]:
    with _patched(contention_module, "TIDY_AFTER_DEADLINE", 1e6):
        yield


@mutant("the cancelled wait ends", directed=directed.cancelled_while_the_only_server_is_silent)
def cancellation_is_seen_only_between_answers() -> Iterator[None]:
    original = Session.result

    async def result(self: Session, call: Call[Any], until: float, _stop: object = None) -> Any:
        return await original(self, call, until)

    with _patched(Session, "result", result):
        yield


# --- the line ---------------------------------------------------------------------------------------------------------


@mutant("two valid handles|given out before")
def line_is_not_listed_again_after_a_wake_up() -> Iterator[None]:
    original = _Visit._wait_for

    async def wait_for(self: _Visit, name: str) -> list[str]:
        await original(self, name)
        return [self.attempt.name]

    with _patched(_Visit, "_wait_for", wait_for):
        yield


@mutant("still waits")
def watches_do_not_end_with_the_connection() -> Iterator[None]:
    async def wait_for(self: _Visit, name: str) -> list[str]:
        before = self.session.call(Get(f"{self.place.path}/{name}", watch=True))
        watch = before.watch or before
        while not watch.done and not self.late:
            await first_of(watch, self.patience.cancelled, until=self.patience.deadline.at)
            check_cancelled(self.place, self.patience)
        return await self._list()

    with _patched(Watches, "ended", lambda _self: None), _patched(_Visit, "_wait_for", wait_for):
        yield


@mutant("given out before")
def token_from_the_sequence_number() -> Iterator[None]:
    original = _Visit._take

    def take(self: _Visit) -> Hold:
        hold = original(self)
        hold.token = int(self.attempt.name[-10:])
        return hold

    with _patched(_Visit, "_take", take):
        yield


@mutant("given out before", directed=directed.session_ends_while_the_thread_starves)
def no_owner_check() -> Iterator[None]:
    with _patched(Attempt, "session_id", property(_always_the_same)):
        yield


def _always_the_same(attempt: Attempt) -> Any:
    class Same(int):
        def __eq__(self, _other: object) -> bool:
            return True

        def __ne__(self, _other: object) -> bool:
            return False

        __hash__ = int.__hash__

    return Same(attempt.trace.session_id)


@mutant("two valid handles|given out before", directed=directed.numbers_wrap)
def numbers_are_believed_after_they_wrapped() -> Iterator[None]:
    original = line_module.decide

    def decide(me: str, line: Sequence[Member], *args: Any) -> Any:
        numbered = sorted(line, key=lambda member: (member.number, member.name))
        return original(me, [each._replace(number=place) for place, each in enumerate(numbered)], *args)

    with _patched(contention_module, "decide", decide):
        yield


@mutant("two valid handles|given out before")
def first_listing_is_believed_in_any_state() -> Iterator[None]:
    async def decide(self: _Visit, names: list[str]) -> Any:
        # As if whoever finds its own node in the line were first: the order is not looked at.
        return Acquired() if self.attempt.name in names else Gone()

    with _patched(_Visit, "_decide", decide):
        yield


@mutant("still believes", directed=directed.third_party_deletes_the_node)
def heartbeat_without_checks_and_watch() -> Iterator[None]:
    def confirm(self: Heartbeat, holds: list[Hold]) -> None:
        if holds and self._session.usable:
            self._session.call(Multi((Check("/"),)))

    with _patched(Heartbeat, "_confirm", confirm), _patched(Heartbeat, "_watch_hold", lambda _self, _hold: None):
        yield


# --- election ---------------------------------------------------------------------------------------------------------


@mutant("two pieces of work", "election")
def work_is_stopped_when_the_lease_has_ended() -> Iterator[None]:
    original = Term.__init__

    def init(self: Term, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        self.told_grace = self.grace  # type: ignore[attr-defined]

    def out_of_time(self: Term) -> bool:
        return self.grip.remaining() <= 0

    with _patched(Term, "__init__", init), _patched(Term, "out_of_time", property(out_of_time)):
        yield
