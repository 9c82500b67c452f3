"""The adds of one client to one counter: those that wait travel together, in one write. Driver-free.

Promises: each add is applied once, in the order in which they came; each is told the value after its own; each ends by
its own deadline: withdrawn while it is not under way (nothing was applied), unknown if it is. One write is under way at
a time. The one who leads writes for all that wait, in his own thread, and hands on when his own add is done; if he is
interrupted or his time is over, what is under way goes on in the background, and the others lose nothing.

Source: flat combining (Hendler, Incze, Shavit, Tzafrir 2010).
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final, final

from zkrecipes.calls import Call, Unsettled
from zkrecipes.carry import Carried
from zkrecipes.cell import Cell, Outcome, Reading
from zkrecipes.codec import decoded
from zkrecipes.core import Core
from zkrecipes.counter_layouts import CounterLayout, fits, next_version, overflow
from zkrecipes.errors import OutcomeUnknownError, ZkRecipesError
from zkrecipes.flow import Pending, first_of
from zkrecipes.port import Get
from zkrecipes.timing import Deadline

__all__ = ["CounterLine"]

BATCH: Final = 1024
"""Adds that travel together, at most."""

WARY: Final = 8
"""After a conflict, so many writes are sent with a read behind them: a loser then knows the newest value at once."""

TRIES: Final = 1
"""Conflicts in a row that are met at once, with the newest value, before one stands back."""

STAND_BACK: Final = 8.0
"""How long one stands back, in flights."""

LONGEST_PAUSE: Final = 0.1
"""How long one stands back, in seconds, at most."""


@final
class _Add:
    """One add that waits, or is under way.

    Attributes:
        done: The value after it.
        turn: Done when it leads.
        taken: Whether it is under way.
        given_up: Whether nobody waits for it any more. Set from anywhere.
    """

    __slots__ = ("after", "amount", "deadline", "done", "given_up", "taken", "turn")

    def __init__(self, amount: int, deadline: Deadline) -> None:
        self.amount = amount
        self.deadline = deadline
        self.after = 0
        self.done: Pending[int] = Pending()
        self.turn: Pending[None] = Pending()
        self.taken = False
        self.given_up = False


@final
class CounterLine:
    """The line of one client for one counter.

    Args:
        core: The client's.
        cell: The counter's node.
        layout: How the number is stored.
    """

    def __init__(self, core: Core, cell: Cell, layout: CounterLayout) -> None:
        self._core = core
        self._cell = cell
        self._layout = layout
        self._waiting: deque[_Add] = deque()
        self._led = False
        self._known: tuple[int, Reading] | None = None
        self._known_in = 0
        self._wary = 0
        self._conflicts = 0
        self._pauses = 0
        self._flight = 0.001
        self._attempts = 0
        self._began = 0.0

    async def add(self, amount: int, deadline: Deadline) -> int:
        """Add, and return the value after.

        Raises:
            CounterOverflowError: The layout does not hold the sum.
            DecodeError: The node holds no number.
            UnavailableError: The time was over before it was sent; nothing was applied, and nothing will be.
            OutcomeUnknownError: It was sent, and could not be settled in time.
        """
        self._core.session.check_open(self._cell.label)
        add = _Add(amount, deadline)
        self._waiting.append(add)
        try:
            await Carried(self._core, self._stand(add), deadline.at, f"add at {self._cell.label}")
        except GeneratorExit:
            add.given_up = True  # collected, in whatever thread
            raise
        except BaseException:
            self._give_up(add)
            raise
        if not add.done.done:
            if add.taken:
                add.given_up = True
                raise self._unknown()
            self._give_up(add)
        return add.done.result()

    def forget(self) -> None:
        """Somebody has written otherwise: the next write reads first."""
        self._known = None

    def _give_up(self, add: _Add) -> None:
        add.given_up = True
        if not add.taken and not add.done.done:
            self._waiting.remove(add)
            add.done.fail(self._core.session.unavailable(self._cell.label))

    async def _stand(self, add: _Add) -> None:
        """Wait in the line until it is done, or until it leads."""
        if self._led:
            await first_of(add.done, add.turn)
            if not add.turn.done:
                return
        self._led = True
        try:
            while not add.done.done:
                await self._round()
        finally:
            self._hand_on()

    def _hand_on(self) -> None:
        while self._waiting and self._waiting[0].given_up:
            self._drop(self._waiting.popleft())
        if self._waiting:
            self._waiting[0].turn.resolve(None)
        else:
            self._led = False

    def _drop(self, add: _Add) -> None:
        add.done.fail(self._core.session.unavailable(self._cell.label))

    # --- one write --------------------------------------------------------------------------------------------------

    async def _round(self) -> None:
        """One write for those that wait, or what must come before it."""
        concerned = list(self._waiting)
        latest = max((add.deadline for add in concerned), key=lambda deadline: deadline.at)
        try:
            if self._attempts:
                await self._core.again(self._attempts, self._began, latest, self._cell.label)
            await self._core.session.ready(latest.at, self._cell.label)
            fresh = False
            while (
                self._known is None
                or self._known_in != self._core.session.id
                or (not fresh and not self._all_fit(self._known[0]))
            ):
                # Only what the server has now can refuse anybody.
                await self._read(latest)
                fresh = True
                # The connection may have ended: nothing must be taken that cannot be sent at once.
                await self._core.session.ready(latest.at, self._cell.label)
            await self._write(*self._known)
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody must wait for ever
            self._attempts = 0
            for add in concerned:
                if add in self._waiting:
                    self._waiting.remove(add)
                add.done.fail(error)

    async def _read(self, deadline: Deadline) -> None:
        self._known_in = self._core.session.id
        self._known = self._number(await self._cell.obtain(deadline))

    def _number(self, reading: Reading) -> tuple[int, Reading]:
        return decoded(self._layout, reading.data, self._cell.label), reading

    def _all_fit(self, value: int) -> bool:
        for add in self._waiting:
            value += add.amount
            if not fits(self._layout, value):
                return False
        return True

    def _take(self, value: int) -> list[_Add]:
        """Those whose turn it is, with the value after each. Who does not fit is refused."""
        batch: list[_Add] = []
        while self._waiting and len(batch) < BATCH:
            add = self._waiting.popleft()
            if add.given_up:
                self._drop(add)
            elif not fits(self._layout, value + add.amount):
                add.done.fail(overflow(self._layout, value + add.amount, self._cell.label))
            else:
                value += add.amount
                add.after = value
                add.taken = True
                batch.append(add)
        return batch

    async def _write(self, value: int, reading: Reading) -> None:
        batch = self._take(value)
        if not batch:
            return
        total = batch[-1].after
        data = self._layout.encode(total)
        latest = max((add.deadline for add in batch), key=lambda deadline: deadline.at)
        looks: list[Call[Any]] = []

        def look() -> None:
            looks.append(self._core.session.call(Get(self._cell.path)))

        self._known = None
        now = self._core.runtime.now
        sent = now()
        try:
            outcome = await self._cell.swap(reading, data, latest, look if self._wary else None)
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody must wait for ever
            self._attempts = 0
            for add in batch:
                add.done.fail(error)
            return
        self._flight += (now() - sent - self._flight) / 8
        if outcome is Outcome.DONE:
            self._attempts = self._conflicts = self._pauses = 0
            self._wary = max(0, self._wary - 1)
            self._known = total, Reading(data, next_version(reading.version), reading.czxid)
            for add in batch:
                add.done.resolve(add.after)
            return
        for add in reversed(batch):
            add.taken = False
            self._waiting.appendleft(add)
        if outcome is Outcome.STALE:
            await self._late(looks, latest)
            return
        if not self._attempts:
            self._began = now()
        self._attempts += 1

    async def _late(self, looks: list[Call[Any]], deadline: Deadline) -> None:
        """Somebody was faster."""
        self._wary = WARY
        self._conflicts += 1
        if self._conflicts <= TRIES + self._pauses:
            for look in looks:
                await self._learn(look, deadline)
            return
        # Nobody gains if all go on. Who stands back lets another one write at full speed for a while, and collects what
        # comes meanwhile; then he tries again, each time more stubbornly.
        self._conflicts = 0
        self._pauses += 1
        runtime = self._core.runtime
        pause = self._flight * STAND_BACK * (0.5 + runtime.random())
        await first_of(until=runtime.now() + min(pause, LONGEST_PAUSE))

    async def _learn(self, look: Call[Any], deadline: Deadline) -> None:
        """What was read behind a write that came too late."""
        try:
            data, stat = await self._core.session.result(look, deadline.at)
        except (Unsettled, ZkRecipesError):
            return  # it is read again
        self._known = self._number(Reading(data, stat.version, stat.czxid))

    def _unknown(self) -> OutcomeUnknownError:
        message = (
            f"an add to the counter {self._cell.label} was sent, and the time was over before it was settled: it may "
            "have been applied. Read the counter before you add again"
        )
        return OutcomeUnknownError(message, path=self._cell.label)
