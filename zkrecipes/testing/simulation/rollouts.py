"""One schedule: several publish, try out, promote, abort and roll back a configuration that others have in force.

The seed decides everything. What is promised: document and record change together; a call tells the truth about what
became of its release; nothing is released twice, nor while a canary runs; a canary is ended only by who means it; a
reader never sees half of a release, never goes back, and never has in force what it has vetoed; each reader reaches
the newest state when things work again, and reports it.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Final, final

from zkrecipes.config_types import Canary, Release
from zkrecipes.errors import ClosedError, ConflictError, NodeNotFoundError, OutcomeUnknownError, UnavailableError
from zkrecipes.flow import Wait, first_of
from zkrecipes.testing.simulation.checks import ThirdParty
from zkrecipes.testing.simulation.client import SimulatedClient
from zkrecipes.testing.simulation.ensemble import Ensemble
from zkrecipes.testing.simulation.faults import Faults
from zkrecipes.testing.simulation.readers import Numbers, Reader, make_publisher, played
from zkrecipes.testing.simulation.register import PATH, Register
from zkrecipes.testing.simulation.tasks import Task
from zkrecipes.testing.simulation.world import Violation, World

__all__ = ["Rollouts"]

CALM: Final = 2.0
"""For so long after the last fault it is published."""

LATE: Final = 0.2
"""Seconds by which a call may outlive its deadline."""


@final
class Rollouts:
    """One schedule.

    Args:
        seed: Decides everything.
        quiet: Without faults.
    """

    kind = "config"

    def __init__(self, seed: int, *, quiet: bool = False) -> None:
        self.world = world = World(seed)
        chance = world.chance
        self.timeout = 4.0
        size = (1, 3, 3, 5)[int(chance() * 4)]
        delay = (0.0005, 0.002, 0.01)[int(chance() * 3)]
        self.ensemble = Ensemble(
            world, size, tick=(2.0, 1.0)[int(chance() * 2)], sync_limit=2 if chance() < 0.5 else 5, delay=delay / 2,
            old_servers=chance() < 0.15,
        )  # fmt: skip
        self.tree = chance() < 0.3
        self.habit = ("mixed", "mixed", "mixed", "trials", "stream")[int(chance() * 5)]
        self.keep = 1 if self.habit == "stream" else (2, 50)[int(chance() * 2)]
        self.pace = (0.3, 0.7, 2.0)[int(chance() * 3)] if self.habit == "mixed" else 0.2
        self.healed = 8.0
        self.end = self.healed + CALM
        self.clients = [
            SimulatedClient(
                self.ensemble, f"client{number}", timeout=self.timeout, delay=delay, rate=world.uniform(0.99, 1.01)
            )
            for number in range(1, 3 + int(chance() * 2))
        ]
        self.register = Register(world, tree=self.tree)
        self.ensemble.on_commit = self.register.committed
        self.ensemble.plant("/app")
        self.turns = 0
        self._shy = {"mixed": 0.4, "trials": 0.9, "stream": 0.0}[self.habit]
        self.readers: list[Reader] = []
        self._number = 0
        self._faults = Faults(
            self.ensemble, self.clients, ThirdParty(), prefix=PATH, unit=self.timeout, end=self.healed
        )
        if not quiet:
            self._faults.plan(2 + int(chance() * 6), calls=lambda _client: None)
        for client in self.clients:
            client.runtime.on_failure = self._failed
        world.after_event = self._check
        world.note(
            "world",
            "config, %d servers, delay %.4f s, %s, %s",
            size,
            delay,
            self.habit,
            "tree" if self.tree else "document",
        )

    def _failed(self, name: str, error: BaseException) -> None:
        if isinstance(error, Violation):
            raise error
        message = f"{name!r} failed: {error!r}"
        raise Violation(message, self.world.seed) from error

    def start(self, client: SimulatedClient, algorithm: Coroutine[Wait, None, None], name: str) -> Task[None]:
        """Begin something that must end well, if it ends."""
        task = client.runtime.start(algorithm, name)

        def ended() -> None:
            error = task.done.error
            if error is not None and not (isinstance(error, ClosedError) and client.session.closed):
                self._failed(name, error)

        task.done.add_waiter(ended)
        return task

    def _check(self) -> None:
        for reader in self.readers:
            if reader.client.process.alive:
                reader.check()

    # --- publishers ---------------------------------------------------------------------------------------------------

    async def _publish(self, client: SimulatedClient) -> None:
        world, now = self.world, client.process.now
        publisher = make_publisher(self, client)
        while world.now < self.end:
            await first_of(until=now() + self.pace * world.chance())
            if world.now >= self.end:
                return
            timeout = world.uniform(0.5, 5.0)
            choice = world.chance()
            if self.habit == "trials" and 0.5 <= choice < 0.8:
                choice = 0.8  # what is begun is ended soon, by several at once
            if choice < 0.5 or self.habit == "stream":
                self._number += 1
                number = self._number
                expected = None if world.chance() < 0.5 else self.register.version
                canary = Canary(percent=100) if world.chance() < self._shy and self.register.version >= 0 else None
                script = publisher.publish(
                    Numbers(number=number, twin=number), expected=expected, canary=canary, timeout=timeout
                )
                await self._judge(client, played(script), timeout, number, canary=canary, expected=expected)
            elif choice < 0.7:
                await self._judge(client, played(publisher.promote(timeout=timeout)), timeout)
            elif choice < 0.85:
                await self._judge(client, played(publisher.abort(reason="chance", timeout=timeout)), timeout)
            elif self.register.version >= 0:
                to = int(world.chance() * (self.register.version + 1))
                await self._judge(client, played(publisher.rollback(to, timeout=timeout)), timeout)

    async def _judge(
        self,
        client: SimulatedClient,
        call: Coroutine[Wait, None, Release | None],
        timeout: float,
        number: int = 0,
        *,
        canary: Canary | None = None,
        expected: int | None = None,
    ) -> None:
        """See whether what the caller is told is true."""
        register, began, freezes = self.register, client.process.now(), client.process.freezes
        try:
            release = await call
        except OutcomeUnknownError:
            self.world.note(client.name, "does not know whether %d was published", number)
        except (UnavailableError, ConflictError, NodeNotFoundError) as error:
            self.world.note(client.name, "has not published %d: %s", number, type(error).__name__)
            if number:
                if register.released.get(number) or any(each.number == number for each in register.trials.values()):
                    self._complain(f"{number} was published, though its call has failed with {error!r}")
                register.over[number] = None
        else:
            if release is not None and canary is not None and release.id not in register.trials:
                self._complain(f"the canary of {number} has not begun, though its call has succeeded")
            if release is not None and canary is None and register.ids.get(release.id) != release.version:
                self._complain(f"version {release.version} was not published, though its call has succeeded")
            if release is not None and expected is not None and release.base not in {expected, None}:
                self._complain(f"{number} replaced version {release.base}, and {expected} was expected")
            self.turns += release is not None
        took = client.process.now() - began
        if took > timeout + LATE and client.process.freezes == freezes:
            self._complain(f"a call took {took:.2f} s, with a timeout of {timeout:.2f} s")

    def _complain(self, message: str) -> None:
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
        for client in self.clients:
            self.start(client, self._publish(client), f"{client.name} publishes")
            for _ in range(1 + int(chance() * 2)):
                world.at(world.uniform(0.0, 3.0) if chance() < 0.5 else 0.0, self._read, client)
        world.run(self.end)
        world.run(world.now + 6.0 * self.timeout, stop=self._settled)
        if not self._settled():
            self._complain(f"somebody is not connected {6.0 * self.timeout:.0f} s after everything works again")
        limit = 40.0 if any(client.process.starved for client in self.clients) else 35.0
        world.run(world.now + limit, stop=lambda: not self._troubled())
        for trouble in self._troubled():
            self._complain(f"{trouble}, {limit:.0f} s after the last change")
        self._close()

    def _read(self, client: SimulatedClient) -> None:
        if client.process.alive:
            vetoes = 5 if self.world.chance() < 0.3 else 0
            self.readers.append(Reader(self, client, f"reader{len(self.readers) + 1}", vetoes))

    def _settled(self) -> bool:
        sessions = [client.transport.session_id for client in self.clients if client.process.alive]
        left = [node for node in self.ensemble.tree.nodes.values() if node.owner and node.owner not in sessions]
        return not left and all(client.session.usable for client in self.clients if client.process.alive)

    def _alive(self) -> list[Reader]:
        return [reader for reader in self.readers if reader.client.process.alive]

    def _troubled(self) -> list[str]:
        return [f"{each.name} {trouble}" for each in self._alive() if (trouble := each.trouble())]

    def _close(self) -> None:
        """Nothing is left on the servers when all are closed."""
        world = self.world
        for reader in self._alive():
            self.start(reader.client, reader.close(), f"{reader.name} closes")
        prefix = f"{PATH}-instances/"
        world.run(world.now + 5.0, stop=lambda: not any(path.startswith(prefix) for path in self.ensemble.tree.nodes))
        left = sorted(path for path in self.ensemble.tree.nodes if path.startswith(prefix))
        if left:
            self._complain(f"left on the servers: {left}")
