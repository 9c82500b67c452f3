"""Counter: one number that all processes count with. SharedValue and IdGenerator are to be had from here, too.

Promises: an add that returns was counted once, through lost replies and reconnects; one that raises UnavailableError
was not counted and never will be; what cannot be settled is an OutcomeUnknownError, never a silent double. Adds of all
threads or tasks of one client travel together in one write, in the order in which they came, each with the value after
its own; no caller starves. A call ends by its timeout, an outage included.

Does not promise: that an add which was interrupted or cancelled was not counted; that `value()` is the newest (a server
may lag behind its leader); that a counter survives somebody who deletes its node: it begins again at 0.

Nodes: `<path>`, persistent, holds the number: 8 bytes (layout "int64", Curator's DistributedAtomicLong), 4 bytes
("int32", Curator's DistributedAtomicInteger and SharedCount), or decimal text ("text", kazoo's Counter). Below it,
`_mark_<guid>`, ephemeral, one for each client that writes, and each write at once. Parents are made as persistent
nodes.

Source: Curator's DistributedAtomicLong, which counts twice when a reply is lost. We differ: each write sets a mark in
the same transaction, by which it is recognised (marks.py); adds are combined (counter_line.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, final

from zkrecipes.cell import Cell, Reading, begin
from zkrecipes.codec import decoded
from zkrecipes.core import DEFAULT, Core, DefaultTimeout
from zkrecipes.counter_layouts import fits, layout_of, overflow, whole
from zkrecipes.counter_line import CounterLine
from zkrecipes.errors import ConflictError
from zkrecipes.handle import core_of
from zkrecipes.hold import Registration
from zkrecipes.identifiers import IdGenerator
from zkrecipes.shared_value import SharedValue, Versioned
from zkrecipes.timing import Deadline, Timeout
from zkrecipes.value_changes import ValueChange, ValueChanges

if TYPE_CHECKING:
    from zkrecipes.client import Client

__all__ = ["Counter", "CounterRecipe", "IdGenerator", "SharedValue", "ValueChange", "Versioned"]

CounterLayoutName = Literal["int64", "int32", "text"]


@final
class CounterRecipe:
    """The algorithms, for every driver.

    Args:
        core: The client's core.
        path: The counter's path.
        layout: How the number is stored.
    """

    def __init__(self, core: Core, path: str, *, layout: str) -> None:
        self.layout = layout_of(layout)
        self.core = core
        self.label = path
        self._path = core.path(path)
        self.changes: ValueChanges[int] = ValueChanges(core, path, self.layout, 0)

    async def add(self, amount: int, timeout: Timeout | DefaultTimeout) -> int:
        """Add, and return the value after."""
        whole(amount, "n")
        return await self._line().add(amount, begin(self.core, timeout, self.label))

    async def value(self, timeout: Timeout | DefaultTimeout) -> int:
        """The number; 0 if there is no node."""
        return self._number(await self._cell().read(begin(self.core, timeout, self.label)))

    async def set(self, value: int, timeout: Timeout | DefaultTimeout) -> None:
        """Replace the number, whatever it is."""
        self._check(value, "value")
        try:
            await self._cell().put(self.layout.encode(value), begin(self.core, timeout, self.label))
        finally:
            self._line().forget()

    async def compare_and_set(self, expected: int, new: int, timeout: Timeout | DefaultTimeout) -> None:
        """Replace the number if it is the expected one."""
        whole(expected, "expected")
        self._check(new, "new")
        deadline = begin(self.core, timeout, self.label)
        while True:
            reading = await self._expected(expected, deadline)
            if await self._cell().replace(reading, self.layout.encode(new), deadline):
                self._line().forget()
                return

    async def _expected(self, expected: int, deadline: Deadline) -> Reading:
        """What is there, with the expected number in it."""
        cell = self._cell()
        reading = await cell.obtain(deadline)
        if self._number(reading) == expected:
            return reading
        # Only what the leader has now can refuse anybody.
        newest = await cell.read(deadline, newest=True) or await cell.obtain(deadline)
        actual = self._number(newest)
        if actual != expected:
            message = f"the counter {self.label} is {actual}, not {expected}; nothing was written"
            raise ConflictError(message, path=self.label, expected=expected, actual=actual)
        return newest

    def _number(self, reading: Reading | None) -> int:
        return 0 if reading is None else decoded(self.layout, reading.data, self.label)

    def _check(self, value: int, name: str) -> None:
        if not fits(self.layout, whole(value, name)):
            raise overflow(self.layout, value, self.label)

    # Of one client, all objects of one path and layout share them. Asked for under the step lock.

    def _cell(self) -> Cell:
        key = ("cell", self._path, self.layout.name)
        cell = self.core.shared.get(key)
        if cell is None:
            cell = self.core.shared[key] = Cell(self.core, self._path, self.label, self.layout.encode(0))
        assert isinstance(cell, Cell)
        return cell

    def _line(self) -> CounterLine:
        key = ("counter", self._path, self.layout.name)
        line = self.core.shared.get(key)
        if line is None:
            line = self.core.shared[key] = CounterLine(self.core, self._cell(), self.layout)
        assert isinstance(line, CounterLine)
        return line


# --- threads ----------------------------------------------------------------------------------------------------------


@final
class Counter:
    """A number that all processes count with.

    An immutable description: it does nothing until it is used, and threads may share it.

    Args:
        client: From `connect`.
        path: The counter's node, below the client's namespace. It, and its parents, are made by the first add.
        layout: "int64" is Curator's DistributedAtomicLong; "int32" is Curator's DistributedAtomicInteger and
            SharedCount; "text" is kazoo's Counter, and has no limit.

    Raises:
        ValueError: The path or layout is not valid.
    """

    def __init__(self, client: Client, path: str, *, layout: CounterLayoutName = "int64") -> None:
        self._client = client
        self._recipe = CounterRecipe(core_of(client, aio=False), path, layout=layout)

    @property
    def path(self) -> str:
        """The counter's path, below the client's namespace."""
        return self._recipe.label

    def add(self, n: int = 1, *, timeout: Timeout | DefaultTimeout = DEFAULT) -> int:
        """Add `n`, which may be negative, and return the value after. Counted exactly once.

        Raises:
            CounterOverflowError: The layout does not hold the sum; nothing was written.
            DecodeError: The node holds no number.
            UnavailableError: No server answered in time; it was not counted, and never will be.
            OutcomeUnknownError: It was sent, and could not be settled: it may have been counted.
            AccessDeniedError: The ACL forbids it.
        """
        return self._client.run(self._recipe.add(n, timeout))

    def value(self, *, timeout: Timeout | DefaultTimeout = DEFAULT) -> int:
        """The number; 0 if there is no node yet. A server may lag behind its leader: `client.sync()` first, if needed.

        Raises:
            DecodeError: The node holds no number.
            UnavailableError: No server answered in time.
        """
        return self._client.run(self._recipe.value(timeout))

    def set(self, value: int, *, timeout: Timeout | DefaultTimeout = DEFAULT) -> None:
        """Replace the number, whatever is there, also what is no number.

        Raises:
            CounterOverflowError: The layout does not hold it; nothing was written.
            UnavailableError: No server answered in time; nothing was written.
            OutcomeUnknownError: It was sent, and could not be settled.
        """
        self._client.run(self._recipe.set(value, timeout))

    def compare_and_set(self, expected: int, new: int, *, timeout: Timeout | DefaultTimeout = DEFAULT) -> None:
        """Replace the number if it is `expected`. Where there is no node, it is 0.

        Raises:
            ConflictError: It is another one, which is told; nothing was written.
            CounterOverflowError: The layout does not hold `new`; nothing was written.
            DecodeError: The node holds no number.
            UnavailableError: No server answered in time; nothing was written.
            OutcomeUnknownError: It was sent, and could not be settled.
        """
        self._client.run(self._recipe.compare_and_set(expected, new, timeout))

    def on_change(self, callback: Callable[[ValueChange[int]], object]) -> Registration:
        """Call `callback(change)` when the number has changed, on the dispatcher. The state at the start is not told.

        Changes that follow one another quickly are told as one.
        """
        return self._recipe.changes.register(callback)

    def __repr__(self) -> str:
        return f"<Counter {self.path} layout={self._recipe.layout.name}>"
