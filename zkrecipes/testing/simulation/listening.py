"""One schedule: a few change a small tree while many listen to it and things go wrong. The seed decides everything."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Final, final

from zkrecipes.flow import Wait
from zkrecipes.testing.simulation.audience import Listener, Waiter
from zkrecipes.testing.simulation.checks import ThirdParty
from zkrecipes.testing.simulation.client import SimulatedClient
from zkrecipes.testing.simulation.ensemble import Ensemble
from zkrecipes.testing.simulation.faults import Faults
from zkrecipes.testing.simulation.garden import ROOT, Chronicle, Gardener
from zkrecipes.testing.simulation.server import Txn
from zkrecipes.testing.simulation.tasks import Task
from zkrecipes.testing.simulation.world import Violation, World

__all__ = ["Listening"]

QUIET: Final = 2.0
"""Seconds after the last fault and the last change within which everybody must know everything."""

CALM: Final = 3.0
"""For so long after the last fault it is written to: what is lost now is not made good by a new connection."""


@final
class Listening:
    """One schedule.

    Args:
        seed: Decides everything.
        quiet: Without faults.
    """

    kind = "listener"

    def __init__(self, seed: int, *, quiet: bool = False) -> None:
        self.world = world = World(seed)
        chance = world.chance
        self.timeout = 4.0
        tick = (2.0, 1.0, 0.8)[int(chance() * 3)]
        size = (1, 3, 3, 5)[int(chance() * 4)]
        delay = (0.0005, 0.002, 0.01)[int(chance() * 3)]
        self.old_servers = chance() < 0.15
        self.ensemble = Ensemble(
            world,
            size,
            tick=tick,
            sync_limit=2 if chance() < 0.5 else 5,
            delay=delay / 2,
            old_servers=self.old_servers,
        )
        self.pace = (0.1, 0.3, 1.5)[int(chance() * 3)]
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
        self.chronicle = Chronicle(world)
        self.ensemble.on_commit = self._committed
        if chance() < 0.7:
            self.ensemble.plant(ROOT)
        self.turns = 0
        self.complaint = ""
        self.listeners: list[Listener] = []
        self._waiters: list[Waiter] = []
        self._faults = Faults(
            self.ensemble, self.clients, ThirdParty(), prefix=ROOT, unit=self.timeout, end=self.healed
        )
        if not quiet:
            self._faults.plan(2 + int(chance() * 6), third_party=chance() < 0.3, calls=self._exchange)
        for client in self.clients:
            client.runtime.on_failure = self._failed
        world.after_event = self._check
        how = "old servers" if self.old_servers else "servers"
        world.note("world", "listener, %d %s, tick %.1f s, delay %.4f s", size, how, tick, delay)

    def _committed(self, txn: Txn) -> None:
        self.chronicle.committed(txn)

    def _check(self) -> None:
        if self.complaint:
            raise Violation(self.complaint, self.world.seed)
        for each in self.listeners:
            if each.client.process.alive and each.ending is None:
                each.check()

    def _failed(self, name: str, error: BaseException) -> None:
        message = f"{name!r} failed: {error!r}"
        raise Violation(message, self.world.seed) from error

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

    def _exchange(self, client: SimulatedClient) -> None:
        """One listener of this client ends, another one begins."""
        mine = [each for each in self.listeners if each.client is client and each.ending is None]
        if mine:
            mine[int(self.world.chance() * len(mine))].close()
        self._listen(client)

    def _listen(self, client: SimulatedClient) -> None:
        if client.process.alive:
            self.listeners.append(Listener(self, client, f"listener{len(self.listeners) + 1}"))

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
        for number in range(2 + int(chance() * 3)):
            Gardener(self, self.clients[number % len(self.clients)], number + 1)
        for client in self.clients:
            if chance() < 0.5:
                self._waiters.append(Waiter(self, client, f"{client.name}.waiter"))
            for _ in range(1 + int(chance() * 2)):
                late = chance() < 0.3
                world.at(world.uniform(0.0, self.end) if late else 0.0, self._listen, client)
            if chance() < 0.4:
                world.at(world.uniform(0.0, self.end), self._exchange, client)
        world.run(self.end)
        self._wait_for_quiet()
        self._expect(QUIET + (8.0 if self._starved else 0.0) + 3.0)
        self._expect_silence()
        self._close()

    def _alive(self) -> list[Listener]:
        return [each for each in self.listeners if each.client.process.alive]

    def _wait_for_quiet(self) -> None:
        """Sessions of dead clients end, everybody is connected, nothing changes any more."""
        world = self.world
        world.run(world.now + 4.0 * self.timeout, stop=self._settled)
        if not self._settled():
            message = f"somebody is not connected {4.0 * self.timeout:.0f} s after everything works again"
            raise Violation(message, world.seed)

    def _settled(self) -> bool:
        sessions = [client.transport.session_id for client in self.clients if client.process.alive]
        left = [node for node in self.ensemble.tree.nodes.values() if node.owner and node.owner not in sessions]
        return not left and all(client.session.usable for client in self.clients if client.process.alive)

    def _expect(self, seconds: float) -> None:
        """Everybody knows everything, within some seconds."""
        world = self.world
        world.run(world.now + seconds, stop=lambda: not self._troubled())
        for who, trouble in self._troubled():
            message = f"{who}: {trouble}, {seconds:.0f} s after the last change"
            raise Violation(message, world.seed)

    def _troubled(self) -> list[tuple[str, str]]:
        found = [(f"{each.name} ({each.describe()})", each.trouble()) for each in self._alive() if each.ending is None]
        found += [(each.name, each.trouble()) for each in self._waiters if each.client.process.alive]
        return [each for each in found if each[1]]

    def _expect_silence(self) -> None:
        """Who knows everything asks for nothing."""
        world, seconds = self.world, 2.0
        world.run(world.now + (4.0 if self._starved else 0.5))
        before = [client.transport.sent for client in self.clients]
        world.run(world.now + seconds)
        for client, sent in zip(self.clients, before, strict=True):
            asked = client.transport.sent - sent
            beats = seconds / (self.timeout / 6) + 2
            waiters = sum(1 for each in self._waiters if each.client is client)
            if asked > beats + waiters * (seconds / 0.3 + 1):
                message = f"{client.name} sent {asked} requests in {seconds:.0f} s while nothing happened"
                raise Violation(message, world.seed)

    def _close(self) -> None:
        """Nothing is left when all are closed, here and on the servers."""
        world = self.world
        for each in self._alive():
            each.close()
        for waiter in self._waiters:
            waiter.task.abandon()
        limit = world.now + 3.0 + (8.0 if self._starved else 0.0)
        world.run(limit, stop=lambda: all(each.ending is not None and each.ending.done.done for each in self._alive()))
        world.run(world.now + (5.0 if self._starved else 1.0))
        for each in self._alive():
            if each.ending is None or not each.ending.done.done or each.ending.done.failed:
                message = f"{each.name} was not closed"
                raise Violation(message, world.seed)
        for client in self.clients:
            if client.process.alive and not any(waiter.client is client for waiter in self._waiters):
                self._look_for_leftovers(client)

    def _look_for_leftovers(self, client: SimulatedClient) -> None:
        watches = client.session.watches
        left = [name for name in ("_waiting", "_asked", "_feeds", "_armed") if getattr(watches, name)]
        wire = client.transport.wire
        tree = self.ensemble.tree
        # A watch on a node that is not there may stay: some read had set it, and another one was still on its way.
        on_server = (
            [] if wire is None else [path for path in wire.server.watchers.of(wire.connection) if path in tree.nodes]
        )
        if left or (on_server and watches.removable):
            message = (
                f"{client.name} still has {', '.join(left) or 'nothing'}, and watches {on_server}, when all is closed"
            )
            raise Violation(message, self.world.seed)
