"""One schedule: services run on a configuration that operators change while things go wrong. The seed decides all."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Final, final

from zkrecipes.config_records import decode_status
from zkrecipes.flow import Wait
from zkrecipes.testing.simulation.checks import ThirdParty
from zkrecipes.testing.simulation.client import SimulatedClient
from zkrecipes.testing.simulation.ensemble import Ensemble
from zkrecipes.testing.simulation.faults import Faults
from zkrecipes.testing.simulation.releases import PLACES, Ledger
from zkrecipes.testing.simulation.services import INVALID, VETOED, Operator, Service
from zkrecipes.testing.simulation.tasks import Task
from zkrecipes.testing.simulation.world import Violation, World

__all__ = ["Configuring"]

QUIET: Final = 4.0
"""Seconds after the last release within which everybody must run it."""

CALM: Final = 2.0


@final
class Configuring:
    """One schedule.

    Args:
        seed: Decides everything.
        quiet: Without faults.
    """

    kind = "service"

    def __init__(self, seed: int, *, quiet: bool = False) -> None:
        self.world = world = World(seed)
        chance = world.chance
        self.timeout = 4.0
        tick = (2.0, 1.0, 0.8)[int(chance() * 3)]
        size = (1, 3, 3, 5)[int(chance() * 4)]
        delay = (0.0005, 0.002, 0.01)[int(chance() * 3)]
        self.ensemble = Ensemble(world, size, tick=tick, sync_limit=2 if chance() < 0.5 else 5, delay=delay / 2)
        self.pace = (0.1, 0.5, 2.0)[int(chance() * 3)]
        self.keep = (2, 5, 50)[int(chance() * 3)]
        self.healed = 8.0
        self.end = self.healed + CALM
        self.clients = [
            SimulatedClient(
                self.ensemble, f"client{number}", timeout=self.timeout, delay=delay, rate=world.uniform(0.99, 1.01)
            )
            for number in range(1, 3 + int(chance() * 2))
        ]
        self._starved = chance() < 0.15
        for client in self.clients:
            client.process.starved = 0.01 if self._starved else 0.0
            client.runtime.on_failure = self._failed
        self._number = 1
        first = b'{"number": 1}'
        self.ensemble.plant(PLACES.document, first)
        self.ledger = Ledger(world, first)
        self.ensemble.on_commit = self.ledger.committed
        self.turns = 0
        self.complaint = ""
        self.services: list[Service] = []
        self._operators: list[Operator] = []
        self._faults = Faults(
            self.ensemble, self.clients, ThirdParty(), prefix="/nobody", unit=self.timeout, end=self.healed
        )
        if not quiet:
            self._faults.plan(2 + int(chance() * 6), third_party=chance() < 0.3, calls=lambda _client: None)
        world.after_event = self._check
        world.note("world", "service, %d servers, tick %.1f s, delay %.4f s", size, tick, delay)

    def draw_number(self) -> int:
        """A number that was not used yet; some are vetoed, none is invalid."""
        self._number += 1
        while self._number % INVALID == 0:
            self._number += 1
        return self._number

    def start(self, client: SimulatedClient, algorithm: Coroutine[Wait, None, None], name: str) -> Task[None]:
        """Begin something that must end well, if it ends."""
        task = client.runtime.start(algorithm, name)

        def ended() -> None:
            if isinstance(task.done.error, Violation):
                raise task.done.error
            if task.done.error is not None:
                self._failed(name, task.done.error)

        task.done.add_waiter(ended)
        return task

    def _failed(self, name: str, error: BaseException) -> None:
        message = f"{name!r} failed: {error!r}"
        raise Violation(message, self.world.seed) from error

    def _check(self) -> None:
        for service in self.services:
            if service.client.process.alive:
                service.check()
        if self.complaint:
            raise Violation(self.complaint, self.world.seed)

    # --- the play -----------------------------------------------------------------------------------------------------

    def play(self) -> None:
        """Run the schedule.

        Raises:
            Violation: A promise was broken.
        """
        try:
            self._play()
        finally:
            for client in self.clients:
                client.end()

    def _play(self) -> None:
        world, chance = self.world, self.world.chance
        for number, client in enumerate(self.clients, start=1):
            late = world.uniform(0.0, self.end) if chance() < 0.2 else 0.0
            world.at(late, self._serve, client, f"service{number}")
        for number in range(2):
            self._operators.append(Operator(self, self.clients[number], f"operator{number + 1}"))
        world.run(self.end + 2 * self.timeout, stop=self._settled)
        if not self._settled():
            message = f"somebody is not connected, or still publishes, {2 * self.timeout:.0f} s after the end"
            raise Violation(message, world.seed)
        self._expect_refused_canaries_to_end()
        self._release_last()
        self._close()

    def _serve(self, client: SimulatedClient, name: str) -> None:
        if client.process.alive:
            self.services.append(Service(self, client, name))

    def _alive(self) -> list[Service]:
        return [each for each in self.services if each.client.process.alive]

    def _settled(self) -> bool:
        if self.world.now <= self.end:
            return False
        working = [each for each in self._operators if each.client.process.alive and not each.task.done.done]
        return not working and all(client.session.usable for client in self.clients if client.process.alive)

    def _spare(self) -> float:
        return 10.0 if self._starved else 0.0

    def _expect_refused_canaries_to_end(self) -> None:
        world = self.world
        world.run(world.now + QUIET + self._spare(), stop=lambda: not self._refused())
        if self._refused():
            assert self.ledger.canary is not None
            message = f"{self._refused()[0]} refuses the canary {self.ledger.canary.reason}, which still runs"
            raise Violation(message, world.seed)

    def _refused(self) -> list[str]:
        return [each.name for each in self._alive() if each.refuses_canary()]

    def _release_last(self) -> None:
        """No canary, whatever stands there; then a release that everybody takes."""
        client = next(client for client in self.clients if client.process.alive)
        self._do(client, self._end_canary(client))
        if self.ledger.canary is not None:
            message = f"the canary {self.ledger.canary.reason} was aborted, and still runs"
            raise Violation(message, self.world.seed)
        self._expect_all()
        if self.world.chance() < 0.3:
            # Nobody releases anything now: what was said in the old session must be said again by itself.
            self._faults.close_session()
            self.world.run(self.world.now + 1.0)
            self.world.run(self.world.now + 2 * self.timeout, stop=self._settled)
            self._expect_all()
        self._do(client, self._publish_last(client))
        self._expect_all()

    def _do(self, client: SimulatedClient, algorithm: Coroutine[Wait, None, None]) -> None:
        task = self.start(client, algorithm, "the last operator")
        self.world.run(self.world.now + 10.0 + self._spare(), stop=lambda: task.done.done)
        if not task.done.done:
            message = "the last operator gets no answer, though everything works again"
            raise Violation(message, self.world.seed)

    async def _end_canary(self, client: SimulatedClient) -> None:
        operator = Operator(self, client, "last")
        for _ in range(10):
            if self.ledger.canary is None:
                return
            await operator.abort(5.0)

    async def _publish_last(self, client: SimulatedClient) -> None:
        operator = Operator(self, client, "last")
        number = self.draw_number()
        while number % VETOED == 0:
            number = self.draw_number()
        for _ in range(10):
            if await operator.publish(number, 5.0) is not None:
                return
        message = "the last release was not published, though everything works again"
        raise Violation(message, self.world.seed)

    def _expect_all(self) -> None:
        """Everybody runs the newest document, or says that it is refused; and reports so."""
        world = self.world
        limit = QUIET + self._spare()
        world.run(world.now + limit, stop=lambda: not self._troubled())
        for trouble in self._troubled():
            message = f"{trouble}, {limit:.0f} s after the last release"
            raise Violation(message, world.seed)

    def _troubled(self) -> list[str]:
        found = [(each, each.trouble() or self._untrue_report(each)) for each in self._alive()]
        return [f"{each.name}: {trouble}" for each, trouble in found if trouble]

    def _untrue_report(self, service: Service) -> str:
        prefix, session = f"{PLACES.instances}/{service.name}@", service.client.session.id
        nodes = self.ensemble.tree.nodes
        reports = [path for path, node in nodes.items() if path.startswith(prefix) and node.owner == session]
        in_force = service.state.in_force
        if in_force is None:
            return ""
        if len(reports) != 1:
            return f"it has {len(reports)} nodes for what it runs"
        status = decode_status(nodes[reports[0]].data, reports[0])
        accepted = service.state.rejection is None
        if (status.version, status.accepted) != (in_force.version, accepted):
            return f"it reports version {status.version}, accepted: {status.accepted}, but runs {in_force.version}"
        return ""

    def _close(self) -> None:
        """Nothing is left when all are closed."""
        world = self.world
        for each in self._alive():
            each.close()
        done = world.now + 6.0 + self._spare()
        world.run(done, stop=lambda: all(each.closing is not None and each.closing.done.done for each in self._alive()))
        world.run(world.now + 2.0 + self._spare(), stop=lambda: not self._left())
        for left in self._left():
            message = f"left when all is closed: {left}"
            raise Violation(message, world.seed)

    def _left(self) -> list[str]:
        sessions = {each.client.session.id: each for each in self._alive()}
        left = [
            path
            for path, node in self.ensemble.tree.nodes.items()
            if path.startswith(f"{PLACES.instances}/") and node.owner in sessions
        ]
        for each in self._alive():
            if each.closing is None or not each.closing.done.done:
                left.append(f"{each.name}, which was not closed")
            watches = each.client.session.watches
            left += [f"{name} of {each.name}" for name in ("_waiting", "_asked", "_feeds") if getattr(watches, name)]
        return left
