"""One schedule: a few clients contend for a lock or an office while things go wrong. The seed decides everything."""

from __future__ import annotations

import gc
from typing import Final, Literal, final

from zkrecipes.election import ElectionRecipe
from zkrecipes.handoff import LocalHandoff
from zkrecipes.hold import Grip
from zkrecipes.leadership import Term, largest_grace
from zkrecipes.lock import Cancel, LockRecipe
from zkrecipes.testing.simulation.bystanders import Observer, Surveyor
from zkrecipes.testing.simulation.checks import Exclusion, Ledger, ThirdParty
from zkrecipes.testing.simulation.client import SimulatedClient
from zkrecipes.testing.simulation.ensemble import Ensemble
from zkrecipes.testing.simulation.faults import Faults
from zkrecipes.testing.simulation.server import Txn
from zkrecipes.testing.simulation.users import User
from zkrecipes.testing.simulation.world import Violation, World
from zkrecipes.testing.simulation.writers import DATA, GUARDED, Writer, Writes

__all__ = ["Contest", "Kind"]

Kind = Literal["lock", "election"]

PATH: Final = "/line"


@final
class Contest:
    """One schedule.

    Args:
        seed: Decides everything.
        kind: What the clients contend for.
        quiet: Without faults.
        siege: Whether somebody holds nearly all the time while servers freeze and lose each other, which is hard on the
            lease; drawn if None.
    """

    def __init__(self, seed: int, kind: Kind = "lock", *, quiet: bool = False, siege: bool | None = None) -> None:
        self.world = world = World(seed)
        self.kind = kind
        chance = world.chance
        self.timeout = 4.0
        tick = (2.0, 2.0, 1.0, 0.8)[int(chance() * 4)]
        size = (1, 3, 3, 3, 5)[int(chance() * 5)]
        delay = (0.0005, 0.002, 0.002, 0.01)[int(chance() * 4)]
        interval = (0.0, 0.0, 0.3, 2.0)[int(chance() * 4)]
        self.ensemble = Ensemble(
            world,
            size,
            tick=tick,
            sync_limit=2 if chance() < 0.5 else 5,
            delay=delay / 2,
            container_interval=interval,
        )
        told = tick if chance() < 0.3 else None
        self.clients = [
            SimulatedClient(
                self.ensemble,
                f"client{number}",
                timeout=self.timeout,
                delay=delay,
                rate=world.uniform(0.99, 1.01),
                server_tick=told,
            )
            for number in range(1, 3 + int(chance() * 2))
        ]
        drawn = chance() < 0.25
        self.siege = drawn if siege is None else siege
        self.pace = 12.0 if self.siege else (0.1, 0.5, 2.0)[int(chance() * 3)]
        self.end = 20.0 if self.siege else 10.0
        self._starved = chance() < 0.2
        for client in self.clients:
            client.process.starved = 0.01 if self._starved else 0.0
        self.third_party = ThirdParty()
        self.exclusion = Exclusion(world, self.third_party)
        self.ledger = Ledger(world, f"{PATH}/", self.clients)
        self.writes = Writes(world)
        for path in (DATA, GUARDED):
            self.ensemble.plant(path)
        self._layout = self._draw_layout()
        self._handoff = LocalHandoff(max_turns=3) if kind == "lock" and chance() < 0.15 else None
        self._suspended = "stop" if chance() < 0.5 else "keep_until_deadline"
        self.reentrant = kind == "lock" and self._handoff is None and chance() < 0.15
        self.proclaims = kind == "election" and chance() < 0.3
        self._grace = chance() if chance() < 0.5 else 0.0
        users = 2 if self._handoff is not None or chance() < 0.2 else 1
        self.users = [User(self, client, number) for client in self.clients for number in range(1, 1 + users)]
        self._bystanders: list[Surveyor | Observer | Writer] = []
        self.guards = chance() < 0.25
        if chance() < 0.25:
            self._add_bystanders()
        self._faults = Faults(
            self.ensemble, self.clients, self.third_party, prefix=f"{PATH}/", unit=self.timeout, end=self.end
        )
        if not quiet:
            count = 2 + int(chance() * (8 if self.siege else 6))
            self._faults.plan(count, third_party=chance() < 0.15, servers_only=self.siege, calls=self._hurt)
        self.forgotten = 0
        self.ensemble.on_commit = self._committed
        world.after_event = self.exclusion.check
        for client in self.clients:
            client.runtime.on_failure = self._failed
        world.note("world", "%s, %d servers, tick %.1f s, %s, delay %.4f s", kind, size, tick, self._layout, delay)

    def _draw_layout(self) -> str:
        layouts = ("curator", "curator", "kazoo") if self.kind == "lock" else ("latch", "selector", "kazoo")
        return layouts[int(self.world.chance() * len(layouts))]

    def draw_timeout(self) -> float | None:
        """How long a user waits."""
        choice = self.world.chance()
        if choice < 0.45 or self.siege:
            return None
        return 0.0 if choice < 0.55 else self.world.uniform(0.05, 1.2 * self.timeout)

    @property
    def turns(self) -> int:
        """How often it was won."""
        return self.exclusion.takeovers

    async def acquire(
        self, client: SimulatedClient, identity: str, timeout: float | None, cancel: Cancel
    ) -> Grip | Term:
        """What the contest is about."""
        if self.kind == "lock":
            return await self._lock(client, identity).acquire(timeout, cancel)
        election = self._election(client, identity)
        cancelled = cancel.begin(client.runtime)
        try:
            return await election.campaign(timeout, cancelled)
        finally:
            cancel.end(client.runtime, cancelled)

    def _lock(self, client: SimulatedClient, identity: str) -> LockRecipe:
        return LockRecipe(
            client.core,
            PATH,
            identity=identity,
            layout=self._layout,
            local_handoff=self._handoff,
            reentrant=self.reentrant,
        )

    def _election(self, client: SimulatedClient, identity: str) -> ElectionRecipe:
        return ElectionRecipe(
            client.core,
            PATH,
            identity=identity,
            data=identity.encode() if self.proclaims else b"",
            layout=self._layout,
            on_suspended=self._suspended,
            stop_grace=None if self._grace == 0 else self._grace * largest_grace(client.core),
        )

    def _add_bystanders(self) -> None:
        client = SimulatedClient(self.ensemble, "bystander", timeout=self.timeout)
        self.clients.append(client)
        if self.kind == "lock":
            self._bystanders = [
                Surveyor(self, client, lambda: self._lock(client, "bystander")),
                Writer(self, client),
            ]
        else:
            self._bystanders = [
                Surveyor(self, client, lambda: self._election(client, "bystander")),
                Observer(self, client, lambda: self._election(client, "bystander")),
            ]

    def _hurt(self, client: SimulatedClient) -> None:
        busy = [user for user in self.users if user.client is client and user.task is not None]
        if busy:
            busy[int(self.world.chance() * len(busy))].hurt()

    def _committed(self, txn: Txn) -> None:
        self.ledger.committed(txn)
        self.writes.committed(txn)

    def _failed(self, name: str, error: BaseException) -> None:
        message = f"the background task {name!r} failed: {error!r}"
        raise Violation(message, self.world.seed) from error

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
        for user in self.users:
            user.next()
        world = self.world
        world.run(self.end + 1.0)
        if self.forgotten:
            # Requests that were still on their way have kept the forgotten calls in memory until now.
            gc.collect()
        limit = self.end + 12 * self.timeout + 4 * self.pace * len(self.users)
        world.run(limit, stop=self._all_done)
        waiting = [user.name for user in self.users if user.task is not None and user.client.process.alive]
        if waiting:
            message = f"{', '.join(waiting)} still waits {limit - self.end:.0f} s after everything works again"
            raise Violation(message, world.seed)
        # What the reaper (whose thread may starve) has still to do; then the sessions that nobody has any more.
        world.run(world.now + (7.0 if self._starved else 1.0), stop=lambda: not self.ledger.left(alive=True))
        left = self.ledger.left(alive=True)
        if not left:
            world.run(world.now + 4 * self.timeout, stop=lambda: not self.ledger.left(alive=False))
            left = self.ledger.left(alive=False)
        if left:
            message = f"left on the servers when all was done: {', '.join(left)}"
            raise Violation(message, world.seed)
        self._dismiss_bystanders()

    def _dismiss_bystanders(self) -> None:
        world = self.world
        present = [each for each in self._bystanders if each.client.process.alive]
        world.run(world.now + self.timeout, stop=lambda: all(each.caught_up for each in present))
        for each in present:
            if not each.caught_up:
                message = f"{each.task.name} has not seen that all was over"
                raise Violation(message, world.seed)
            each.close()
        world.run(world.now + 1.0, stop=lambda: all(each.task.done.done for each in present))
        for each in present:
            if not each.task.done.done or each.task.done.error is not None:
                message = f"{each.task.name} did not end well: {each.task.done.error!r}"
                raise Violation(message, world.seed)

    def _all_done(self) -> bool:
        return all(user.task is None or not user.client.process.alive for user in self.users)
