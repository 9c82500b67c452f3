"""Who puts and who takes; each says when a call has not told the truth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from zkrecipes.errors import AcquireTimeoutError, ClaimLostError, ClosedError, OutcomeUnknownError, UnavailableError
from zkrecipes.handle import HandleState
from zkrecipes.queue_claim import Held
from zkrecipes.testing.simulation.actors import Actor
from zkrecipes.testing.simulation.client import SimulatedClient
from zkrecipes.testing.simulation.users import Interrupt

if TYPE_CHECKING:
    from zkrecipes.testing.simulation.queueing import Queueing

__all__ = ["Consumer", "Producer"]

SPARE: Final = 0.2


@final
class Producer(Actor["Queueing"]):
    """Puts items."""

    def __init__(self, play: Queueing, client: SimulatedClient, name: str) -> None:
        super().__init__(play, client, name)
        self._queue = play.queue(client)
        self._items = play.items
        self.task = play.start(client, self._work(), name)

    async def _work(self) -> None:
        play, chance = self.play, self.play.world.chance
        while play.world.now < play.end:
            await self.pause(2 * play.pace * chance())
            await self._put()

    async def _put(self) -> None:
        process, chance = self.client.process, self.play.world.chance
        timeout = 5.0 if chance() < 0.7 else 0.05 + chance()
        count = 3 if chance() < 0.2 else 1
        delay = 1.5 * chance() if chance() < 0.2 else 0.0
        priority = int(3 * chance()) - 1
        layout = self.play.layout
        records = self._queue.records(
            [b"x"] * count,
            priority if layout in {"segments", "curator-priority"} else 0,
            delay if layout in {"segments", "curator-delay"} else 0.0,
            None,
        )
        began, freezes = process.now(), process.freezes
        self.calling = True
        try:
            stored = await self._queue.put(records, None, timeout)
        except UnavailableError:
            for record in records:
                self._items.failed(record.id)
            return
        except (OutcomeUnknownError, Interrupt):
            return
        finally:
            self.calling = False
            self.check_time(began, freezes, timeout, "put")
        for item in stored:
            if not item.startswith("zxid-"):  # its name was not known any more when the reply was found to be lost
                self._items.told(item)


@final
class Consumer(Actor["Queueing"]):
    """Takes items, and acknowledges them, gives them back, or forgets them."""

    def __init__(self, play: Queueing, client: SimulatedClient, name: str) -> None:
        super().__init__(play, client, name)
        self.handed = 0
        self._queue = play.queue(client)
        self._items = play.items
        self._touched = play.touched
        self._held: list[Held] = []
        self._ending: list[Held] = []
        self._handles: list[HandleState] = []
        self._stopped = False
        self.task = play.start(client, self._work(), name)

    def stop(self) -> None:
        """End it."""
        self._stopped = True

    def valid(self) -> list[str]:
        """The items on which it has a valid claim, and is not acknowledging at this moment."""
        return [held.record.id for held in self._held if held.grip.valid and held not in self._ending]

    async def _work(self) -> None:
        play, chance = self.play, self.play.world.chance
        while not self._stopped:
            timeout = 0.0 if chance() < 0.1 else 0.2 + 2.0 * chance()
            held = await self._take(1 + int(3 * chance()), timeout)
            self._held = held
            # As the shells do: whoever forgets a handle has its claim given back.
            self._handles = [HandleState(self.client.core, each.grip, "/queue") for each in held]
            for each in held:
                self.handed += 1
                if each.grip.valid and not self._touched(self.client):
                    self._items.handed_out(each.record.id)
            if play.world.now < play.end:
                await self.pause(play.pace * chance())
                if chance() < 0.05:
                    play.world.note(self.name, "forgets what it has claimed")
                    self._held, self._handles = [], []
                    continue
            try:
                await self._finish(held)
            finally:
                self._held, self._handles = [], []

    async def _take(self, want: int, timeout: float) -> list[Held]:
        process = self.client.process
        began, freezes = process.now(), process.freezes
        self.calling = True
        try:
            return await self._queue.take(want, timeout)
        except (AcquireTimeoutError, UnavailableError, Interrupt):
            return []
        finally:
            self.calling = False
            self.check_time(began, freezes, max(timeout, SPARE), "take")

    async def _finish(self, held: list[Held]) -> None:
        chance, done = self.play.world.chance, self.play.world.now > self.play.end
        if len(held) > 1 and chance() < 0.4:
            await self._acknowledge(held)
            return
        for each in held:
            if self.play.visibility is not None and not done and chance() < 0.2:
                await self._extend(each)
            choice = 0.0 if done else chance()
            if choice < 0.7:
                await self._acknowledge([each])
            elif choice < 0.85:
                delay = 0.0 if choice < 0.8 else 0.8 * chance()
                await self._give_up(each, delay if self.play.layout in {"segments", "curator-delay"} else 0.0)
            else:
                await each.grip.release()
            await self.pause(0.2 * self.play.pace * chance())

    async def _acknowledge(self, held: list[Held]) -> None:
        process = self.client.process
        timeout = 3.0
        began, freezes = process.now(), process.freezes
        for each in held:
            self._items.acknowledging(each.record.id)
        self._ending = held
        self.calling = True
        try:
            results = await self._queue.acknowledge_all(held, timeout)
        except Interrupt:
            return
        finally:
            self.calling = False
            self._ending = []
            self.check_time(began, freezes, timeout, "acknowledge")
        for each, error in zip(held, results, strict=True):
            if error is None:
                self._items.acknowledged(each.record.id)
            elif isinstance(error, ClaimLostError | UnavailableError | ClosedError):
                self._items.not_acknowledged(each.record.id)
                await each.grip.release()
            elif not isinstance(error, OutcomeUnknownError):
                raise error

    async def _extend(self, held: Held) -> None:
        process = self.client.process
        timeout = 3.0
        began, freezes = process.now(), process.freezes
        self.calling = True
        try:
            await self._queue.extend(held, 0.3 + self.play.world.chance(), timeout)
        except (ClaimLostError, ClosedError, OutcomeUnknownError, UnavailableError, Interrupt):
            return
        finally:
            self.calling = False
            self.check_time(began, freezes, timeout, "extend")

    async def _give_up(self, held: Held, delay: float) -> None:
        process = self.client.process
        timeout = 3.0
        began, freezes = process.now(), process.freezes
        self.calling = True
        try:
            await self._queue.give_up(held, delay, "does not want it", timeout)
        except UnavailableError:
            await held.grip.release()
        except (ClaimLostError, ClosedError, OutcomeUnknownError, Interrupt):
            return
        finally:
            self.calling = False
            self.check_time(began, freezes, timeout, "give up")
