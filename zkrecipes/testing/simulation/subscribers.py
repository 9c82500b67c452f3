"""Who publishes, who reads, and who trims; each says when a call has not told the truth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from zkrecipes.errors import (
    AcquireTimeoutError,
    CancelledError,
    ClaimLostError,
    ClosedError,
    OutcomeUnknownError,
    UnavailableError,
)
from zkrecipes.testing.simulation.actors import Actor
from zkrecipes.testing.simulation.client import SimulatedClient
from zkrecipes.testing.simulation.users import Interrupt
from zkrecipes.timing import Deadline
from zkrecipes.topic_follow import Hole
from zkrecipes.topic_layout import Position, Record
from zkrecipes.topic_subscription import Given, SubscriptionState

if TYPE_CHECKING:
    from zkrecipes.testing.simulation.publishing import Publishing

__all__ = ["Publisher", "Reader", "Trimming"]

REMOVAL: Final = 0.2
"""What a call takes beyond its timeout to take back its place in a line."""


@final
class Publisher(Actor["Publishing"]):
    """Publishes messages, each with a payload of its own."""

    def __init__(self, play: Publishing, client: SimulatedClient, name: str, *, last: bool = False) -> None:
        super().__init__(play, client, name)
        self.topic = play.topic(client)
        self.task = play.start(client, self._publish_last() if last else self._work(), name)

    async def _publish_last(self) -> None:
        while not await self._publish([f"last{self.play.number}"], None):
            self.play.number += 1

    async def _work(self) -> None:
        play, chance = self.play, self.play.world.chance
        while play.world.now < play.end:
            await self.pause(2 * play.pace * chance())
            count = 3 if chance() < 0.15 and play.segment_size >= 3 else 1
            payloads = []
            for _ in range(count):
                play.number += 1
                payloads.append(f"m{play.number}")
            with_id = count == 1 and chance() < 0.2
            while not await self._publish(payloads, payloads[0] if with_id else None):
                if not with_id or play.world.now > play.end:
                    break

    async def _publish(self, payloads: list[str], message_id: str | None) -> bool:
        """Publish; False if nobody can tell whether it was stored."""
        play, process = self.play, self.client.process
        timeout = 5.0 if play.world.chance() < 0.7 else 0.05 + play.world.chance()
        records = [self.topic.record(each.encode(), message_id=message_id) for each in payloads]
        began, freezes = process.now(), process.freezes
        self.calling = True
        try:
            positions = await self.topic.publish(records, message_id, timeout)
        except UnavailableError:
            if message_id is None:
                for payload in payloads:
                    play.messages.failed(payload)
            return not payloads[0].startswith("last")
        except (OutcomeUnknownError, Interrupt):
            return False
        finally:
            self.calling = False
            self.check_time(began, freezes, timeout, "publish")
        for payload, position in zip(payloads, positions, strict=True):
            play.messages.told(payload, position)
        return True


@final
class Trimming(Actor["Publishing"]):
    """Removes old messages now and then."""

    def __init__(self, play: Publishing, client: SimulatedClient) -> None:
        super().__init__(play, client, "trimmer")
        self.topic = play.topic(client)
        self.task = play.start(client, self._work(), self.name)

    async def _work(self) -> None:
        play = self.play
        while play.world.now < play.end:
            await self.pause(2.0 * play.world.chance())
            try:
                await self.topic.trim(None, int(6 * play.world.chance()), 2.0)
            except (UnavailableError, OutcomeUnknownError, AcquireTimeoutError):
                continue


@final
class Reader(Actor["Publishing"]):
    """Reads a subscription, and acknowledges some of it; opens it again when it was closed or given up."""

    def __init__(
        self, play: Publishing, client: SimulatedClient, subscription: str, number: int, *, durable: bool = True
    ) -> None:
        super().__init__(play, client, f"{subscription}{number}")
        self.subscription = subscription
        self.durable = durable
        self.state: SubscriptionState | None = None
        self.handed = 0
        self.last: Position | None = None
        self.expects = False
        self._term = -1
        self._next: int | None = None
        self._hole: Hole | None = None
        self._closing = False
        self._topic = play.topic(client)
        chance = play.world.chance
        self._by_itself = chance() < 0.3
        self._gives_up = chance() < 0.3
        self._seeks = durable and not self._by_itself and chance() < 0.3
        self._seeking = False
        self.task = play.start(client, self._work(), self.name)

    @property
    def ended(self) -> bool:
        """Whether it has come to its end."""
        return self.task.done.done

    def close(self) -> None:
        """Let it end."""
        self._closing = True
        state = self.state
        if state is not None:
            self.play.start(self.client, state.close(), f"close {self.name}")

    async def _work(self) -> None:
        chance = self.play.world.chance
        while not self._closing:
            await self.pause(0.3 * chance())
            state = self._topic.subscription(
                self.subscription,
                "earliest",
                durable=self.durable,
                ack_every=1 + int(3 * chance()) if self._by_itself else None,
                ack_interval=None,
            )
            self.state = state
            self._term = -1
            try:
                await self._open(state)
                await self._read(state)
            except (AcquireTimeoutError, UnavailableError, OutcomeUnknownError, ClaimLostError, CancelledError):
                pass  # once more
            except ClosedError:
                if not state.closed.done:
                    raise
            except Interrupt:
                pass
            finally:
                self.expects = False
            await state.close()

    async def _open(self, state: SubscriptionState) -> None:
        process = self.client.process
        timeout = 0.5 + 3.0 * self.play.world.chance()
        began, freezes = process.now(), process.freezes
        self.calling = True
        try:
            await state.open(Deadline.after(timeout, process.now()))
        finally:
            self.calling = False
            self.check_time(began, freezes, timeout + REMOVAL, "subscribe")
        self.expects = True

    async def _read(self, state: SubscriptionState) -> None:
        play, process, chance = self.play, self.client.process, self.play.world.chance
        while not self._closing and not state.closed.done:
            timeout = 0.2 + 2.0 * chance()
            self._maybe_skip(state)
            began, freezes = process.now(), process.freezes
            self.calling = True
            try:
                given = await state.peek(Deadline.after(timeout, process.now()))
            except (UnavailableError, AcquireTimeoutError):
                continue
            except Interrupt:
                continue
            finally:
                self.calling = False
                self.check_time(began, freezes, timeout + REMOVAL, "receive")
            if given.gap is not None:
                self._see_gap(given)
                state.taken(given, gap=True)
            if given.found is None:
                continue
            self._hand_out(state, given)
            state.taken(given, gap=False)
            done = play.world.now > play.end
            if not done:
                await self.pause(play.pace * chance())
            while done and self._seeking:
                await self.pause(play.pace)
            if not self._seeking and (done or (not self._by_itself and chance() < 0.6)):
                await self._acknowledge(state, given)
            if self._gives_up and not done and chance() < 0.05:
                return

    def _maybe_skip(self, state: SubscriptionState) -> None:
        play = self.play
        if self._seeks and not self._seeking and play.world.chance() < 0.1 and play.world.now < play.end:
            self._seeking = True
            play.start(self.client, self._skip(state), f"skip {self.name}")

    async def _skip(self, state: SubscriptionState) -> None:
        """Seek forwards while the reader reads, as another thread may; nothing is acknowledged meanwhile."""
        play, chance = self.play, self.play.world.chance
        try:
            await self.pause(play.pace * chance())
            # Not from the last that was handed out: one that was sought before may lie further on.
            ahead = [each for each in play.messages.order[-5:] if each > state.position]
            # Nor while it is lost: whoever has it meanwhile may come further, and this would lead back.
            if ahead and state.owned:
                deadline = Deadline.after(3.0, self.client.process.now())
                await state.seek(ahead[int(chance() * len(ahead))], deadline)
        except OutcomeUnknownError:
            await state.close()  # it may still be written, behind what would be acknowledged then
        except (ClaimLostError, ClosedError, UnavailableError, AcquireTimeoutError, CancelledError, Interrupt):
            pass
        finally:
            self._seeking = False

    def _see_gap(self, given: Given) -> None:
        hole = given.gap
        assert hole is not None
        if hole.resumed > self.play.messages.low:
            message = f"a gap up to {hole.resumed}, but the low-water is {self.play.messages.low}"
            raise self.complain(message)
        if self.play.protects and self.durable and self.subscription in self.play.messages.stored:
            message = f"a gap from {hole.first}, though nothing is removed that was not acknowledged"
            raise self.complain(message)
        if self._term == given.term:
            self._next = self.play.messages.first_at(hole.resumed)
        self._hole = hole

    def _hand_out(self, state: SubscriptionState, given: Given) -> None:
        """What is handed out follows what was handed out before; the first is what is not acknowledged."""
        found, messages = given.found, self.play.messages
        assert found is not None
        assert isinstance(found.data, bytes)
        payload = Record.decode(found.data, "").payload.decode()
        if messages.payloads.get(found.position) != payload:
            message = f"{payload} was handed out at {found.position}, where {messages.payloads.get(found.position)} is"
            raise self.complain(message)
        rank = messages.rank[found.position]
        if given.term != self._term:
            # Another ownership: it begins at the stored position, as it was when it was taken up.
            self._term = given.term
            # While somebody seeks, the new position may be stored, and what was read before still be handed out.
            if self.durable and not self._seeking and not self.play.touched(self.client):
                self._begin(state, rank, found.position)
        elif self._next is not None and rank != self._next:
            message = f"handed out {found.position}, though {messages.order[self._next]} comes next"
            raise self.complain(message)
        self._next = rank + 1
        self._hole = None
        self.handed += 1
        self.last = found.position

    def _begin(self, state: SubscriptionState, rank: int, position: Position) -> None:
        messages = self.play.messages
        # As it is on the servers: nobody else can have written it while we own it.
        stored = messages.stored[self.subscription] if state.owned else state.stored
        first = messages.first_at(stored)
        if rank < first:
            message = f"handed out {position} again, though {stored} is stored"
            raise self.complain(message)
        if rank > first and (self._hole is None or messages.first_at(self._hole.resumed) != rank):
            message = f"began at {position}, though {stored} is stored: messages are missing"
            raise self.complain(message)

    async def _acknowledge(self, state: SubscriptionState, given: Given) -> None:
        process = self.client.process
        assert given.found is not None
        position = given.found.position
        timeout = 3.0
        began, freezes = process.now(), process.freezes
        self.calling = True
        try:
            await state.ack(position, given.term, Deadline.after(timeout, process.now()))
        except (ClaimLostError, OutcomeUnknownError, UnavailableError, Interrupt):
            return
        finally:
            self.calling = False
            self.check_time(began, freezes, timeout, "ack")
        if self.durable and not self.play.messages.stored[self.subscription] > position:
            message = f"{position} was acknowledged, and {self.play.messages.stored[self.subscription]} is stored"
            raise self.complain(message)
