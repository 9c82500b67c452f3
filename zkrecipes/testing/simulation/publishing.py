"""One schedule: some publish, some subscribe, while things go wrong. The seed decides all."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Final, final

from zkrecipes.flow import Wait
from zkrecipes.testing.simulation.checks import ThirdParty
from zkrecipes.testing.simulation.client import SimulatedClient
from zkrecipes.testing.simulation.ensemble import Ensemble
from zkrecipes.testing.simulation.faults import Faults
from zkrecipes.testing.simulation.messages import PLACES, Messages
from zkrecipes.testing.simulation.subscribers import Publisher, Reader, Trimming
from zkrecipes.testing.simulation.tasks import Task
from zkrecipes.testing.simulation.world import Violation, World
from zkrecipes.topic import TopicRecipe
from zkrecipes.topic_retention import Retention

__all__ = ["Publishing"]

NAMES: Final = ("billing", "search")

QUIET: Final = 4.0
"""Seconds within which everybody must have read everything when things work again."""


@final
class Publishing:
    """One schedule.

    Args:
        seed: Decides everything.
        quiet: Without faults.
    """

    kind = "topic"

    def __init__(self, seed: int, *, quiet: bool = False) -> None:
        self.world = world = World(seed)
        chance = world.chance
        self.timeout = 4.0
        tick = (2.0, 1.0, 0.8)[int(chance() * 3)]
        size = (1, 3, 3, 5)[int(chance() * 4)]
        delay = (0.0005, 0.002, 0.01)[int(chance() * 3)]
        old = chance() < 0.15
        self.ensemble = Ensemble(
            world, size, tick=tick, sync_limit=2 if chance() < 0.5 else 5, delay=delay / 2, old_servers=old
        )
        self.pace = (0.1, 0.3, 1.0)[int(chance() * 3)]
        self.segment_size = (2, 3, 8)[int(chance() * 3)]
        self.end = 6.0
        self.protects = chance() < 0.6
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
        self.messages = Messages(world, protects=self.protects)
        self.ensemble.on_commit = self.messages.committed
        self.number = 0
        self.publishers: list[Publisher] = []
        self.readers: list[Reader] = []
        self._third_party = ThirdParty()
        self._faults = Faults(
            self.ensemble, self.clients, self._third_party, prefix="/nobody", unit=self.timeout, end=self.end
        )
        if not quiet:
            self._faults.plan(2 + int(chance() * 6), third_party=chance() < 0.3, calls=self._hurt)
        world.after_event = self._check
        world.note("world", "topic, %d servers, tick %.1f s, segments of %d", size, tick, self.segment_size)

    @property
    def turns(self) -> int:
        """How many messages were handed out."""
        return sum(reader.handed for reader in self.readers)

    def topic(self, client: SimulatedClient) -> TopicRecipe[bytes]:
        """The topic, as a client sees it."""
        return TopicRecipe(
            client.core,
            PLACES.root,
            codec=None,
            retention=Retention(keep_for_durable=self.protects),
            segment_size=self.segment_size,
            max_message=10_000,
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

    def _hurt(self, client: SimulatedClient) -> None:
        busy = [each for each in (*self.publishers, *self.readers) if each.client is client and each.can_be_hurt]
        if busy:
            busy[int(self.world.chance() * len(busy))].hurt()

    def touched(self, client: SimulatedClient) -> bool:
        """Whether somebody else has ended its session, which nobody can foresee."""
        return client.session.id in self._third_party.sessions

    def _check(self) -> None:
        owners: dict[str, Reader] = {}
        for reader in self.readers:
            if self.touched(reader.client):
                continue
            if reader.durable and reader.client.process.alive and reader.state is not None and reader.state.owned:
                other = owners.setdefault(reader.subscription, reader)
                if other is not reader:
                    message = f"two readers own {reader.subscription}: {other.name} and {reader.name}"
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
        world, chance = self.world, self.world.chance
        for number, client in enumerate(self.clients, start=1):
            self.publishers.append(Publisher(self, client, f"publisher{number}"))
            for name in NAMES:
                if chance() < 0.7:
                    self.readers.append(Reader(self, client, name, number))
        self.readers.append(Reader(self, self.clients[0], "onlooker", 0, durable=False))
        trimming = Trimming(self, self.clients[-1]) if chance() < 0.5 else None
        world.run(self.end)
        world.run(self.end + 6 * self.timeout, stop=self._settled)
        if not self._settled():
            message = f"somebody still publishes, or is not connected, {6 * self.timeout:.0f} s after the end"
            raise Violation(message, world.seed)
        del trimming
        self._expect_all()
        self._close()

    def _settled(self) -> bool:
        working = [each for each in self.publishers if each.client.process.alive and not each.task.done.done]
        return not working and all(client.session.usable for client in self.clients if client.process.alive)

    def _spare(self) -> float:
        return 12.0 if self.starved else 0.0

    def _expect_all(self) -> None:
        """Every subscription that has a reader has handed out everything, and acknowledged it in the end."""
        world = self.world
        client = next(client for client in self.clients if client.process.alive)
        here = {each.subscription for each in self.readers if each.client.process.alive}
        for number, name in enumerate(each for each in NAMES if each in self.messages.stored and each not in here):
            self.readers.append(Reader(self, client, name, 10 + number))
        # One more, so that whoever has left the last one unacknowledged has something to acknowledge.
        self.publishers.append(Publisher(self, client, "last", last=True))
        limit = QUIET + 2 * self.timeout + self._spare()
        world.run(world.now + limit, stop=lambda: not self._behind())
        for behind in self._behind():
            message = f"{behind}, {limit:.0f} s after the last message, {len(self.messages.order)} there are"
            raise Violation(message, world.seed)

    def _behind(self) -> list[str]:
        order = self.messages.order
        if not self.publishers[-1].task.done.done:
            return ["the last message was not published"]
        behind = []
        for name in NAMES:
            readers = [each for each in self.readers if each.subscription == name and each.client.process.alive]
            stored = self.messages.stored.get(name)
            # What was removed (where nothing protects it) can be neither read nor acknowledged.
            if readers and (stored is None or max(stored, self.messages.low) <= order[-1]):
                behind.append(f"{name} has acknowledged up to {stored}")
        if order[-1] < self.messages.low:
            return behind
        behind += [
            f"{reader.name} has seen up to {reader.last}"
            for reader in self.readers
            if not reader.durable and reader.client.process.alive and reader.expects and reader.last != order[-1]
        ]
        return behind

    def _close(self) -> None:
        """Nothing is left when all are closed."""
        world = self.world
        present = [each for each in self.readers if each.client.process.alive]
        for reader in present:
            reader.close()
        world.run(world.now + 3.0 + self._spare(), stop=lambda: all(each.ended for each in present))
        for reader in present:
            if not reader.ended:
                message = f"{reader.name} was closed, and does not end"
                raise Violation(message, world.seed)
        world.run(world.now + 2.0 + self._spare(), stop=lambda: not self._left())
        for left in self._left():
            message = f"left when all is closed: {left}"
            raise Violation(message, world.seed)

    def _left(self) -> list[str]:
        alive = [client for client in self.clients if client.process.alive]
        sessions: dict[int, Any] = {client.session.id: client for client in alive}
        left = [
            path
            for path, node in self.ensemble.tree.nodes.items()
            if node.owner in sessions and not path.startswith(f"{PLACES.marks}/")
        ]
        for client in alive:
            watches = client.session.watches
            left += [f"{name} of {client.name}" for name in ("_waiting", "_asked", "_feeds") if getattr(watches, name)]
        return left
