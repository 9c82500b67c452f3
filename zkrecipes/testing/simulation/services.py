"""Services that run on a configuration, and publishers that change it."""

from __future__ import annotations

import math
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Final, TypeVar, final

from pydantic import BaseModel, ConfigDict, field_validator

from zkrecipes.config_apply import Builder, InForce, Origin
from zkrecipes.config_callbacks import ConfigChange
from zkrecipes.config_draft import Drafts
from zkrecipes.config_force import Freshness
from zkrecipes.config_releases import Publisher, Script
from zkrecipes.config_state import ConfigState, Wishes
from zkrecipes.config_types import Canary, Instance, Release, selects
from zkrecipes.errors import (
    ClosedError,
    ConfigRejectedError,
    ConflictError,
    NodeNotFoundError,
    OutcomeUnknownError,
    UnavailableError,
    VetoError,
)
from zkrecipes.flow import Wait, first_of
from zkrecipes.known import Seen
from zkrecipes.port import Set
from zkrecipes.testing.simulation.client import SimulatedClient
from zkrecipes.testing.simulation.releases import PLACES, number_of
from zkrecipes.testing.simulation.tasks import Task
from zkrecipes.testing.simulation.world import Violation

if TYPE_CHECKING:
    from zkrecipes.testing.simulation.configuring import Configuring

__all__ = ["Operator", "Service", "Settings", "follow_script"]

T = TypeVar("T")

LATE: Final = 0.3
INVALID, VETOED = 7, 5


class Settings(BaseModel):
    """What is configured."""

    model_config = ConfigDict(frozen=True)

    number: int

    @field_validator("number")
    @classmethod
    def _is_valid(cls, number: int) -> int:
        if number % INVALID == 0:
            message = f"must not be a multiple of {INVALID}"
            raise ValueError(message)
        return number


async def follow_script(script: Script[T], client: SimulatedClient) -> T:
    """Run a script as the drivers do: its algorithms are stepped, and time may pass in between."""
    answer: Any = None
    error: BaseException | None = None
    chance, process = client.world.chance, client.process
    while True:
        try:
            step = script.send(answer) if error is None else script.throw(error)
        except StopIteration as stop:
            result: T = stop.value
            return result
        answer, error = None, None
        try:
            if chance() < 0.3:
                await first_of(until=process.now() + 0.002 * chance())
        except BaseException:
            if isinstance(step, Coroutine):
                step.close()
            raise
        try:
            answer = step() if callable(step) else await step
        except GeneratorExit:
            raise
        except BaseException as raised:  # noqa: BLE001 - it belongs to the script
            error = raised


def _publisher(contest: Configuring, client: SimulatedClient, who: str) -> Publisher[Settings]:
    def clock() -> str:
        return f"{contest.world.now:.3f}"

    drafts = Drafts(PLACES.document, Settings, "json")
    return Publisher(client.core, drafts, keep=contest.keep, clock=clock, host="simulated", who=who)


@final
class Service:
    """One instance of a service. Some veto what others take."""

    def __init__(self, contest: Configuring, client: SimulatedClient, name: str) -> None:
        self.contest = contest
        self.client = client
        self.name = name
        chance = contest.world.chance
        self.vetoes = chance() < 0.4
        self.instance = Instance(name, {"zone": "a" if chance() < 0.5 else "b"})
        publisher = _publisher(contest, client, name)
        wishes = Wishes((), None, chance() < 0.3, lambda what: client.runtime.dispatch(contest, what))
        self.state: ConfigState[Settings] = ConfigState(
            client.core, publisher, Builder(publisher.drafts, self.instance), wishes, lambda: "now"
        )
        self._last: InForce[Settings] | None = None
        self._before: InForce[Settings] | None = None
        self._newest = (-1, -1)
        self._prepared: Settings | None = None
        self._told: Settings | None = None
        self.state.callbacks.on_prepare(self._prepare)
        self.state.callbacks.on_change(None)(self._changed)
        self.started = False
        self.closing: Task[None] | None = None
        self.task: Task[None] = contest.start(client, self._start(), name)

    async def _start(self) -> None:
        now = self.client.process.now
        while not self.state.closed:
            await self.client.session.ready(math.inf)
            try:
                await follow_script(self.state.start(4.0), self.client)
            except (UnavailableError, ConfigRejectedError) as error:
                self.contest.world.note(self.name, "could not start: %s", error)
                await first_of(until=now() + 0.3)
            except ClosedError:
                return
            else:
                self.started = True
                return

    # --- callbacks, on the dispatcher ---------------------------------------------------------------------------------

    def _prepare(self, change: ConfigChange[Settings]) -> None:
        self._prepared = change.new
        in_force = self.state.in_force
        if in_force is None or in_force.model is not change.old:
            self._complain(f"it was asked about {change.new!r} when {change.old!r} was not in force (any more)")
        if self.vetoes and change.new.number % VETOED == 0:
            message = "not here"
            raise VetoError(message)

    def _changed(self, change: ConfigChange[Settings]) -> None:
        in_force = self.state.in_force
        if in_force is None or in_force.model is not change.new:
            self._complain(f"it was told of {change.new!r}, which is not in force")
        if change.old == change.new or (self._told is not None and self._told != change.old):
            self._complain(f"it was told a change from {change.old!r} to {change.new!r} after {self._told!r}")
        self._told = change.new

    # --- at every instant ---------------------------------------------------------------------------------------------

    def check(self) -> None:
        """What is in force may be in force."""
        new = self.state.in_force
        if new is None or new is self._last:
            return
        old, self._last = self._last, new
        if new.rollout is not None and (old is None or old.rollout is None):
            self._before = old
        if new is self._before and self.state.rejection is not None and new.look.document is not None:
            # Back from a canary, since what that was to replace is refused.
            self._newest = (new.look.document.stat.czxid, new.look.document.stat.mzxid)
        self.contest.world.note(self.name, "runs %d (version %d)", new.model.number, new.version)
        self.contest.turns += 1
        number = new.model.number
        if number % INVALID == 0:
            self._complain(f"it runs {number}, which is not valid")
        if old is not None and new.model != old.model and self.vetoes and number % VETOED == 0:
            self._complain(f"it runs {number}, which it has vetoed")
        if old is not None and new.model != old.model and self._prepared is not new.model:
            self._complain(f"it runs {number}, about which its callbacks were not asked")
        if new.origin is Origin.NODE and new.look.document is not None:
            self._check_document(new, new.look.document)

    def _check_document(self, new: InForce[Settings], document: Seen) -> None:
        stat, number, ledger = document.stat, new.model.number, self.contest.ledger
        known = ledger.documents.get(stat.mzxid)
        if known is None or (known.czxid, known.version, known.data) != (stat.czxid, stat.version, document.data):
            self._complain(f"it runs version {stat.version}, which has never been like that")
        if (stat.czxid, stat.mzxid) < self._newest:
            self._complain(f"it runs version {stat.version} after a newer one")
        self._newest = (stat.czxid, stat.mzxid)
        if new.rollout is None:
            if number != number_of(document.data):
                self._complain(f"it runs {number}, which is not what version {stat.version} says")
        elif new.rollout.id not in ledger.canaries or not selects(new.rollout.selector, self.instance):
            self._complain(f"it runs the canary {new.rollout.id}, which is not for it")
        elif number != number_of(new.rollout.document):
            self._complain(f"it runs {number}, which is not what the canary {new.rollout.id} says")

    # --- at the end ---------------------------------------------------------------------------------------------------

    def accepts(self, document: bytes) -> bool:
        """Whether it would put a document in force."""
        number = number_of(document)
        in_force = self.state.in_force
        if number is None or number % INVALID == 0:
            return False
        first = in_force is None or in_force.model.number == number
        return first or not (self.vetoes and number % VETOED == 0)

    def trouble(self) -> str:
        """What is not as it must be when everything is quiet and no canary runs; empty if nothing."""
        document, in_force = self.contest.ledger.now, self.state.in_force
        if document is None:
            return "the document is gone"
        if not self.accepts(document.data):
            return self._trouble_refused(in_force)
        if in_force is None or in_force.look.document is None or in_force.origin is not Origin.NODE:
            return "it runs nothing from its node"
        runs = in_force.look.document.stat
        if (runs.czxid, runs.mzxid) != (document.czxid, document.mzxid) or in_force.rollout is not None:
            return f"it runs version {runs.version} ({in_force.model!r}), the newest is {document.version}"
        if self.state.rejection is not None or self.state.freshness() is not Freshness.FRESH:
            return f"it is {self.state.freshness().value}, and rejects {self.state.rejection}"
        return ""

    def _trouble_refused(self, in_force: InForce[Settings] | None) -> str:
        if in_force is not None and self.started and self.state.rejection is None:
            return "it does not say that the newest document is refused"
        before = self._before
        if in_force is None or in_force.rollout is None or before is None:
            return ""
        if self.vetoes and before.model.number % VETOED == 0:
            return ""
        return f"it runs the canary {in_force.rollout.id}, which has ended"

    def refuses_canary(self) -> bool:
        """Whether the canary that runs is for it, and cannot be."""
        canary, now = self.contest.ledger.canary, self.contest.ledger.now
        if canary is None or now is None or (canary.base, canary.base_czxid) != (now.version, now.czxid):
            return False
        return self.started and selects(canary.selector, self.instance) and not self.accepts(canary.document)

    def close(self) -> None:
        """End it."""
        self.closing = self.contest.start(
            self.client, follow_script(self.state.close(), self.client), f"end of {self.name}"
        )

    def _complain(self, what: str) -> None:
        # Callbacks are called within try and except.
        self.contest.complaint = self.contest.complaint or f"{self.name}: {what}"


@final
class Operator:
    """Publishes, rolls back, rolls out, now and then; and says when it was not told the truth."""

    def __init__(self, contest: Configuring, client: SimulatedClient, name: str) -> None:
        self.contest = contest
        self.client = client
        self.name = name
        self._publisher = _publisher(contest, client, name)
        self._calls = 0
        self.task: Task[None] = contest.start(client, self._work(), name)

    async def _work(self) -> None:
        contest, process, chance = self.contest, self.client.process, self.contest.world.chance
        await self.client.session.ready(math.inf)
        while contest.world.now < contest.end:
            await first_of(until=process.now() + contest.pace * chance())
            if contest.world.now >= contest.end:
                return
            timeout = contest.timeout * (0.1 + chance())
            began, freezes = process.now(), process.freezes
            await self._act(chance(), timeout)
            took = process.now() - began
            if took > timeout + LATE and freezes == process.freezes:
                message = f"{self.name}: a call took {took:.3f} s, {timeout:.3f} s were allowed"
                raise Violation(message, contest.world.seed)

    async def _act(self, choice: float, timeout: float) -> None:
        contest = self.contest
        if choice < 0.45:
            await self.publish(contest.draw_number(), timeout, expected=contest.world.chance() < 0.5)
        elif choice < 0.6:
            labels = {"zone": "a"}
            canary = Canary(labels=labels) if contest.world.chance() < 0.5 else Canary(percent=100.0)
            await self.publish(contest.draw_number(), timeout, canary=canary)
        elif choice < 0.72:
            await self._promote(timeout)
        elif choice < 0.8:
            await self.abort(timeout)
        elif choice < 0.92:
            version = 0 if contest.ledger.now is None else contest.ledger.now.version
            reason = self._reason()
            back = max(0, version - 1 - int(3 * contest.world.chance()))
            await self._judge(reason, self._publisher.rollback(back, reason=reason, timeout=timeout))
        else:
            await self._write_otherwise(timeout)

    def _reason(self) -> str:
        self._calls += 1
        return f"{self.name}, call {self._calls}"

    async def publish(
        self, number: int, timeout: float, *, expected: bool = False, canary: Canary | None = None
    ) -> Release | None:
        """Publish a number; None if it was not, or nobody knows."""
        contest, reason = self.contest, self._reason()
        version = None
        if expected and contest.ledger.now is not None:
            # What somebody has read a while ago, or has guessed.
            version = max(0, contest.ledger.now.version - int(1.5 * contest.world.chance()))
            contest.ledger.expect(reason, version)
        contest.world.note(self.name, "publishes %d (%s)", number, reason)
        script = self._publisher.publish(
            Settings(number=number), reason=reason, expected=version, canary=canary, timeout=timeout
        )
        return await self._judge(reason, script)

    async def _judge(self, reason: str, script: Script[Release]) -> Release | None:
        ledger, note = self.contest.ledger, self.contest.world.note
        try:
            release = await follow_script(script, self.client)
        except OutcomeUnknownError:
            note(self.name, "does not know what became of %s", reason)
        except ClosedError:
            pass
        except (UnavailableError, ConflictError, NodeNotFoundError, ConfigRejectedError) as error:
            note(self.name, "has not released %s: %s", reason, error)
            ledger.finish(reason)
        else:
            note(self.name, "has released %s in version %d", reason, release.version)
            begun = ledger.begun.get(reason)
            done = begun is not None and begun.id == release.id
            if release.source != "canary":
                done = ledger.released.get(reason) == release
            if not done:
                message = f"{reason} was not released, though its call has succeeded: {release!r}"
                raise Violation(message, self.contest.world.seed)
            return release
        return None

    async def _promote(self, timeout: float) -> None:
        before = len(self.contest.ledger.documents)
        if await self._tried(self._publisher.promote(timeout=timeout)) and (
            len(self.contest.ledger.documents) == before
        ):
            message = f"{self.name} has promoted a canary, and nothing was released"
            raise Violation(message, self.contest.world.seed)

    async def abort(self, timeout: float) -> None:
        """End the canary that runs, if one does."""
        ledger = self.contest.ledger
        running = ledger.canary
        ended = await self._tried(self._publisher.abort(reason="enough", timeout=timeout))
        if ended and running is not None and ledger.canary is running:
            message = f"{self.name} has aborted the canary {running.reason}, and it still runs"
            raise Violation(message, self.contest.world.seed)

    async def _tried(self, script: Script[Any]) -> bool:
        try:
            await follow_script(script, self.client)
        except (UnavailableError, ConflictError, NodeNotFoundError, OutcomeUnknownError, ClosedError) as error:
            self.contest.world.note(self.name, "could not: %s", error)
            return False
        return True

    async def _write_otherwise(self, timeout: float) -> None:
        """As another tool does: it writes the node, whatever is there, and perhaps no document."""
        chance = self.contest.world.chance
        number = self.contest.draw_number()
        data = b'{"number": %d}' % number if chance() < 0.6 else b"{not a document %d" % number
        if chance() < 0.2:
            data = b'{"number": %d}' % (INVALID * number)
        core = self.client.core
        await self._asked(core.ask(Set(PLACES.document, data), core.deadline(timeout), PLACES.document))

    async def _asked(self, asking: Coroutine[Wait, None, Any]) -> None:
        try:
            await asking
        except (UnavailableError, OutcomeUnknownError, ClosedError):
            self.contest.world.note(self.name, "does not know whether it was written")
