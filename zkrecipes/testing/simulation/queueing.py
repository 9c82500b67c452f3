"""One schedule: some put items, some take them, while things go wrong. The seed decides all."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import final

from zkrecipes.flow import Wait
from zkrecipes.queue_parts import LAYOUTS, Layout
from zkrecipes.queue_recipe import QueueRecipe
from zkrecipes.testing.simulation.checks import ThirdParty
from zkrecipes.testing.simulation.client import SimulatedClient
from zkrecipes.testing.simulation.ensemble import Ensemble
from zkrecipes.testing.simulation.faults import Faults
from zkrecipes.testing.simulation.items import PATH, Items
from zkrecipes.testing.simulation.tasks import Task
from zkrecipes.testing.simulation.workers import Consumer, Producer
from zkrecipes.testing.simulation.world import Violation, World

__all__ = ["Queueing"]


@final
class Queueing:
    """One schedule.

    Args:
        seed: Decides everything.
        quiet: Without faults.
    """

    kind = "queue"

    def __init__(self, seed: int, *, quiet: bool = False) -> None:
        self.world = world = World(seed)
        chance = world.chance
        self.timeout = 4.0
        tick = (2.0, 1.0, 0.8)[int(chance() * 3)]
        size = (1, 3, 3, 5)[int(chance() * 4)]
        delay = (0.0005, 0.002, 0.01)[int(chance() * 3)]
        self.ensemble = Ensemble(
            world,
            size,
            tick=tick,
            sync_limit=2 if chance() < 0.5 else 5,
            delay=delay / 2,
            old_servers=chance() < 0.15,
        )
        self.pace = (0.1, 0.3, 1.0)[int(chance() * 3)]
        self.segment_size = (2, 3, 8)[int(chance() * 3)]
        self.max_attempts = 2 if chance() < 0.4 else None
        self.visibility = 0.3 + 1.5 * chance() if chance() < 0.3 else None
        self.end = 6.0
        self.clients = [
            SimulatedClient(
                self.ensemble, f"client{number}", timeout=self.timeout, delay=delay, rate=world.uniform(0.99, 1.01)
            )
            for number in range(1, 3 + int(chance() * 2))
        ]
        self.starved = chance() < 0.1
        for client in self.clients:
            client.process.starved = 0.01 if self.starved else 0.0
            client.runtime.on_failure = self.failed
        self.layout: Layout = LAYOUTS[1 + int(chance() * 3)] if chance() < 0.3 else "segments"
        self.items = Items(world, self.layout)
        self.ensemble.on_commit = self.items.committed
        self.producers: list[Producer] = []
        self.consumers: list[Consumer] = []
        self._third_party = ThirdParty()
        self._faults = Faults(
            self.ensemble, self.clients, self._third_party, prefix="/nobody", unit=self.timeout, end=self.end
        )
        if not quiet:
            self._faults.plan(2 + int(chance() * 6), third_party=chance() < 0.3, calls=self._hurt)
        world.after_event = self._check
        world.note("world", "queue, %d servers, tick %.1f s, %s of %d", size, tick, self.layout, self.segment_size)

    @property
    def turns(self) -> int:
        """How many items were handed out."""
        return sum(consumer.handed for consumer in self.consumers)

    def queue(self, client: SimulatedClient) -> QueueRecipe:
        """The queue, as a client sees it."""
        return QueueRecipe(
            client.core,
            PATH,
            layout=self.layout,
            max_attempts=self.max_attempts,
            segment_size=self.segment_size,
            visibility=self.visibility,
        )

    def start(self, client: SimulatedClient, algorithm: Coroutine[Wait, None, None], name: str) -> Task[None]:
        """Begin something that must end well, if it ends."""
        task = client.runtime.start(algorithm, name)

        def ended() -> None:
            error = task.done.error
            if isinstance(error, Violation):
                raise error
            if isinstance(error, Exception):
                self.failed(name, error)

        task.done.add_waiter(ended)
        return task

    def failed(self, name: str, error: BaseException) -> None:
        """A task failed that must not."""
        message = f"{name!r} failed: {error!r}"
        raise Violation(message, self.world.seed) from error

    def touched(self, client: SimulatedClient) -> bool:
        """Whether somebody else has ended its session, which nobody can foresee."""
        return client.session.id in self._third_party.sessions

    def _hurt(self, client: SimulatedClient) -> None:
        busy = [each for each in (*self.producers, *self.consumers) if each.client is client and each.can_be_hurt]
        if busy:
            busy[int(self.world.chance() * len(busy))].hurt()

    def _check(self) -> None:
        holders: dict[str, Consumer] = {}
        for consumer in self.consumers:
            if self.touched(consumer.client) or not consumer.client.process.alive:
                continue
            for item in consumer.valid():
                if item not in self.items.stands:
                    what = "acknowledged" if item in self.items.gone else "made a dead letter"
                    message = f"{consumer.name} has a valid claim on {item}, which somebody else has {what}"
                    raise Violation(message, self.world.seed)
                other = holders.setdefault(item, consumer)
                if other is not consumer:
                    message = f"two valid claims on {item}: {other.name} and {consumer.name}"
                    raise Violation(message, self.world.seed)

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
        world = self.world
        for number, client in enumerate(self.clients, start=1):
            self.producers.append(Producer(self, client, f"producer{number}"))
            for turn in range(1 if world.chance() < 0.6 else 2):
                self.consumers.append(Consumer(self, client, f"consumer{number}.{turn}"))
        limit = self.end + 8 * self.timeout + (16.0 if self.starved else 0.0)
        world.run(self.end)
        world.run(limit, stop=self._empty)
        if not self._empty():
            message = f"still in the queue {limit - self.end:.0f} s after everything works again: {self.items.stands}"
            raise Violation(message, world.seed)
        for consumer in self.consumers:
            consumer.stop()
        world.run(world.now + 4.0 + (8.0 if self.starved else 0.0), stop=lambda: not self._left())
        left_over = self._left()
        if left_over:
            message = f"left when all was done: {', '.join(left_over)}"
            raise Violation(message, world.seed)

    def _empty(self) -> bool:
        working = [each for each in self.producers if each.client.process.alive and not each.task.done.done]
        return not working and not self.items.stands

    def _left(self) -> list[str]:
        left = [path for path, node in self.ensemble.tree.nodes.items() if node.owner and "/marks/" not in path]
        left += [each.name for each in self.consumers if each.client.process.alive and not each.task.done.done]
        return left
