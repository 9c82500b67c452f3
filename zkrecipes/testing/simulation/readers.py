"""A service with a configuration, which says when what is in force cannot be."""

from __future__ import annotations

import json
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Final, TypeVar, final

from pydantic import BaseModel, ConfigDict

from zkrecipes.config_apply import Builder, InForce, Origin
from zkrecipes.config_callbacks import ConfigChange
from zkrecipes.config_draft import Drafts
from zkrecipes.config_releases import Publisher, Script
from zkrecipes.config_state import ConfigState, Wishes
from zkrecipes.config_types import Instance
from zkrecipes.errors import VetoError
from zkrecipes.flow import Wait
from zkrecipes.testing.simulation.client import SimulatedClient
from zkrecipes.testing.simulation.register import PATH
from zkrecipes.testing.simulation.world import Violation

if TYPE_CHECKING:
    from zkrecipes.testing.simulation.rollouts import Rollouts

__all__ = ["Numbers", "Reader", "make_publisher", "played"]

T = TypeVar("T")

FIRST: Final = 2.0
"""Seconds that a start may take before the defaults stand in."""


class Numbers(BaseModel):
    """Two fields that are always equal, but for who sees half of a release."""

    model_config = ConfigDict(frozen=True)

    number: int = 0
    twin: int = 0


def make_publisher(contest: Rollouts, client: SimulatedClient) -> Publisher[Numbers]:
    """The verbs, as one process has them."""
    drafts = Drafts(PATH, Numbers, "json", tree=contest.tree)
    return Publisher(
        client.core, drafts, keep=contest.keep, clock=lambda: "now", host="here", tree=contest.tree, who=client.name
    )


async def played(script: Script[T]) -> T:
    """A script as one algorithm: in the simulation nothing blocks."""
    answer: Any = None
    error: Exception | None = None
    while True:
        try:
            step = script.send(answer) if error is None else script.throw(error)
        except StopIteration as stop:
            result: T = stop.value
            return result
        answer, error = None, None
        try:
            answer = step() if callable(step) else await step
        except Exception as raised:  # noqa: BLE001 - it belongs to the script
            error = raised


@final
class Reader:
    """One service.

    Attributes:
        vetoes: Numbers divisible by this are vetoed; 0 for none.
    """

    def __init__(self, contest: Rollouts, client: SimulatedClient, name: str, vetoes: int) -> None:
        self._contest = contest
        self.client = client
        self.name = name
        self.vetoes = vetoes
        self._seen: InForce[Numbers] | None = None
        self._before: InForce[Numbers] | None = None
        self._told: Numbers | None = None
        self._complaint = ""
        publisher = make_publisher(contest, client)
        builder = Builder(publisher.drafts, Instance(name))
        wishes = Wishes((), None, defaults=True, background=lambda work: client.runtime.dispatch(work, work))
        self.state: ConfigState[Numbers] = ConfigState(client.core, publisher, builder, wishes, lambda: "now")
        self.state.callbacks.on_prepare(self._prepare)
        self.state.callbacks.on_change(None)(self._changed)
        contest.start(client, self._start(), f"{name} starts")

    async def _start(self) -> None:
        await played(self.state.start(FIRST))

    def close(self) -> Coroutine[Wait, None, None]:
        """End it."""
        return played(self.state.close())

    def _prepare(self, change: ConfigChange[Numbers]) -> None:
        in_force = self.state.in_force
        if in_force is not None and in_force.model == change.new:
            self._note(f"{change.new.number} is in force before it was asked for")
        if self.vetoes and change.new.number % self.vetoes == 0:
            message = "not with me"
            raise VetoError(message)

    def _changed(self, change: ConfigChange[Numbers]) -> None:
        if change.old == change.new:
            self._note("was told of a change that is none")
        if self._told is not None and change.old != self._told:
            self._note(f"was told of a change from {change.old.number}, and the last was to {self._told.number}")
        if self.state.in_force is None or self.state.in_force.model != change.new:
            self._note(f"was told of {change.new.number} before it is in force")
        self._told = change.new

    def check(self) -> None:
        """What is in force can be; looked at after each event."""
        if self._complaint:
            self._complain(self._complaint)
        new, old = self.state.in_force, self._seen
        if new is None or new is old:
            return
        self._seen = new
        if new.rollout is not None and (old is None or old.rollout is None):
            self._before = old
        self._contest.turns += 1
        if new.model.twin != new.model.number:
            self._complain(f"sees half of a release: {new.model!r}")
        if new.origin is Origin.NODE:
            self._check_known(new)
            if old is not None and old.origin is Origin.NODE:
                self._check_step(old, new)

    def _check_known(self, new: InForce[Numbers]) -> None:
        register, number = self._contest.register, new.model.number
        if new.rollout is None:
            if register.numbers.get(new.version) != number:
                self._complain(f"has {number} for version {new.version}, which is {register.numbers.get(new.version)}")
            return
        trial = register.trials[new.rollout.id]
        if (trial.number, trial.base) != (number, new.version):
            self._complain(f"has {number} for a canary of {trial.number} on version {trial.base}")

    def _check_step(self, old: InForce[Numbers], new: InForce[Numbers]) -> None:
        number = new.model.number
        if new is self._before and old.rollout is not None and self.state.rejection is not None:
            return  # what it was to replace is refused
        if new.version < old.version:
            self._complain(f"went back from version {old.version} to {new.version}")
        if self.vetoes and number % self.vetoes == 0 and number != old.model.number:
            self._complain(f"has {number} in force, which it has vetoed")
        promoted = old.rollout is not None and self._contest.register.trials[old.rollout.id].end == "promoted"
        if promoted and new.rollout is None and new.version == old.version:
            self._complain(f"went back to version {new.version} from a canary that was promoted")

    def trouble(self) -> str:
        """Why it is not as it must be when nothing has changed for a while; empty if it is."""
        in_force, register, state = self.state.in_force, self._contest.register, self.state
        if in_force is None:
            return "has nothing in force"
        if register.version < 0:
            return ""
        if register.running:
            trial = register.trials[register.running]
            if in_force.rollout is None or in_force.rollout.id != register.running:
                return f"does not run the canary of {trial.number}"
        elif state.rejection is not None:
            vetoed = self.vetoes and register.number % self.vetoes == 0
            return self._stays_in_canary(in_force) if vetoed else f"refuses {register.number}"
        elif (in_force.version, in_force.model.number) != (register.version, register.number):
            return f"has version {in_force.version}, and there is {register.version}"
        if state.freshness().value != "fresh":
            return f"is {state.freshness().value}"
        return self._reported()

    def _stays_in_canary(self, in_force: InForce[Numbers]) -> str:
        before = self._before
        if in_force.rollout is None or before is None or (self.vetoes and before.model.number % self.vetoes == 0):
            return ""
        return f"runs the canary {in_force.rollout.id}, which has ended"

    def _reported(self) -> str:
        tree = self._contest.ensemble.tree
        parent = f"{PATH}-instances/"
        mine = [
            (node.owner, json.loads(node.data))
            for path, node in tree.nodes.items()
            if path.startswith(f"{parent}{self.name}@")
        ]
        in_force = self.state.in_force
        assert in_force is not None
        canary = None if in_force.rollout is None else in_force.rollout.id
        expected = (self.client.session.id, in_force.version, self.state.rejection is None)
        found = [(owner, entry["version"], entry["accepted"]) for owner, entry in mine]
        if found != [expected] or (expected[2] and mine[0][1]["canary"] != canary):
            return f"has reported {found}, not {expected}"
        return ""

    def _note(self, message: str) -> None:
        """In a callback: what it raises is caught and logged."""
        self._complaint = self._complaint or message

    def _complain(self, message: str) -> None:
        complaint = f"{self.name} {message}"
        raise Violation(complaint, self._contest.world.seed)
