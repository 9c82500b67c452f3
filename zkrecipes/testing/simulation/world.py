"""Virtual time, a seeded scheduler, and the trace.

One `random.Random` decides everything that chance decides: delays, and with them the order of events, and faults. A
seed therefore replays its schedule exactly, as long as nothing iterates over a set or depends on addresses.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable
from typing import Any, Final, final

from zkrecipes.port import (
    AddWatch,
    Check,
    Children,
    Create,
    Created,
    Delete,
    Exists,
    Get,
    Multi,
    ReadMany,
    Refused,
    RemoveWatches,
    Set,
    Stat,
    Sync,
)

__all__ = ["Channel", "Gate", "Pausable", "Violation", "World", "describe"]


class Violation(AssertionError):  # noqa: N818 - it is a finding, not a failure of the program that looks for it
    """A promise was broken in a simulated schedule.

    Attributes:
        seed: Replays the schedule.
        what: The promise, in a sentence.
    """

    def __init__(self, what: str, seed: int = 0, trace: str = "") -> None:
        super().__init__(f"seed {seed}: {what}\n{trace}" if trace else what)
        self.seed = seed
        self.what = what


ROUNDS: Final = 100_000
"""Looks at a clock within one event, after which something goes round for ever: time stands still meanwhile."""


@final
class World:
    """Virtual time and what happens in it.

    Attributes:
        now: True time in seconds, which no part of the simulated system can read; each has a clock of its own.
        random: Decides everything.
        after_event: Called after each event, to look for broken promises.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.now = 0.0
        self.random = random.Random(seed)
        self.chance = self.random.random
        self.events = 0
        self._looks = 0
        self.after_event: Callable[[], None] | None = None
        self._queue: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = itertools.count()
        self._trace: list[tuple[float, str, str, tuple[object, ...]]] = []

    def at(self, delay: float, what: Callable[..., None], *args: Any) -> None:
        """Call `what(*args)` after `delay` seconds."""
        heapq.heappush(self._queue, (self.now + delay, next(self._order), what, args))

    def run(self, until: float, stop: Callable[[], bool] | None = None) -> None:
        """Let things happen until a time, or until `stop()` is true."""
        queue, pop = self._queue, heapq.heappop
        while queue and queue[0][0] <= until:
            if stop is not None and stop():
                return
            self.now, _, what, args = pop(queue)
            self.events += 1
            self._looks = 0
            what(*args)
            if self.after_event is not None:
                self.after_event()
        if not queue or queue[0][0] > until:
            self.now = max(self.now, until)

    def looked(self, who: str) -> None:
        """Somebody has looked at a clock, or whether the client is still of use.

        Raises:
            Violation: It does nothing else any more: it waits for something without giving others their turn.
        """
        self._looks += 1
        if self._looks > ROUNDS:
            self._looks = 0
            message = f"{who} goes round for ever, without waiting"
            raise Violation(message, self.seed)

    def note(self, who: str, text: str, *args: object) -> None:
        """Enter something into the trace; `text` is formatted with %, and only if the trace is read."""
        self._trace.append((self.now, who, text, args))

    def trace(self, last: int | None = None) -> str:
        """The trace, for a person to read: virtual time, who, what."""
        lines = self._trace if last is None else self._trace[-last:]
        return "\n".join(f"{now:10.4f}  {who:<10} {_fill(text, args)}" for now, who, text, args in lines)

    def uniform(self, low: float, high: float) -> float:
        """A number between two others."""
        return low + (high - low) * self.chance()


class Pausable:
    """Something that can be frozen: a process that got SIGSTOP. What reaches it meanwhile waits.

    Attributes:
        frozen_until: When it goes on, in true time.
        wake_spread: What was due meanwhile happens within so many seconds after it wakes, in any order.
    """

    frozen_until = 0.0
    wake_spread = 0.05


@final
class Gate:
    """One direction between two machines. While it is shut, what is sent waits (TCP sends it again)."""

    __slots__ = ("shut_until",)

    def __init__(self) -> None:
        self.shut_until = 0.0


@final
class Channel:
    """One direction of a connection: first in, first out, with delays.

    Args:
        world: For time and chance.
        gate: The direction's gate.
        receiver: Whoever may be frozen.
        delay: Typical delay in seconds; one message in fifty takes up to twenty times as long.
    """

    __slots__ = ("_delay", "_gate", "_last", "_messages", "_receiver", "_world", "open")

    def __init__(self, world: World, gate: Gate, receiver: Pausable, delay: float) -> None:
        self._world = world
        self._gate = gate
        self._receiver = receiver
        self._delay = delay
        self._last = 0.0
        self._messages: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self.open = True

    def send(self, handler: Callable[..., None], *args: Any) -> None:
        """Have `handler(*args)` called at the other end."""
        world = self._world
        part = world.chance()
        delay = self._delay * (0.1 + part if part < 0.98 else 1.0 + (part - 0.98) * 1000.0)
        self._last = due = max(world.now + delay, self._last)
        self._messages.append((handler, args))
        world.at(due - world.now, self._deliver)

    def _deliver(self) -> None:
        # Each message has one event, and each event delivers the oldest message: order is kept whatever is postponed.
        world = self._world
        blocked = self._gate.shut_until
        if world.now < blocked:
            world.at(blocked - world.now + 0.01 * world.chance(), self._deliver)
        elif world.now < self._receiver.frozen_until:
            wait = self._receiver.frozen_until - world.now
            world.at(wait + self._receiver.wake_spread * world.chance(), self._deliver)
        else:
            handler, args = self._messages.popleft()
            if self.open:
                handler(*args)

    def drop_all(self) -> None:
        """Whatever is on its way never arrives."""
        self.open = False


def _fill(text: str, args: tuple[object, ...]) -> str:
    return text % tuple(arg if isinstance(arg, int | float | str) else describe(arg) for arg in args) if args else text


def describe(thing: object) -> str:
    """A request or an answer, in a few words."""
    match thing:
        case Stat():
            return f"stat(czxid {thing.czxid:#x}, version {thing.version}, owner {thing.ephemeral_owner:#x})"
        case Created():
            return f"created {thing.path}" + ("" if thing.stat is None else f" (czxid {thing.stat.czxid:#x})")
        case Multi():
            return f"multi[{', '.join(describe(operation) for operation in thing.operations)}]"
        case Create():
            return f"create {thing.path}{'#' if thing.sequential else ''} ({thing.kind.value}, {thing.data!r})"
        case Check() | Delete() | Set():
            version = "" if thing.version == -1 else f" at version {thing.version}"
            return f"{type(thing).__name__.lower()} {thing.path}{version}"
        case Get() | Exists() | Children():
            return f"{type(thing).__name__.lower()} {thing.path}{' and watch' if thing.watch else ''}"
        case tuple() | list() if not isinstance(thing, Refused):
            return f"[{', '.join(describe(each) for each in thing)}]"
        case _:
            return _describe_rare(thing)


def _describe_rare(thing: object) -> str:
    match thing:
        case Sync():
            return "sync"
        case ReadMany():
            return f"reads[{', '.join(describe(read) for read in thing.reads)}]"
        case AddWatch():
            return f"watch {thing.path} and all below"
        case RemoveWatches():
            return f"watch {thing.path} no more ({thing.kind.name.lower()})"
        case Refused():
            return f"refused ({thing.code})"
        case _:
            return str(thing)
