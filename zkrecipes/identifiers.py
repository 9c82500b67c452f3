"""IdGenerator: whole numbers of which no two are the same, over all processes, from blocks that are reserved ahead.

Promises: never the same identifier twice, whatever fails; identifiers of one client rise, also over its threads: a call
that begins after another has returned gives a greater one. A call ends by its timeout, an outage included; what is left
of a block is given out during an outage.

Does not promise: that there are no gaps. What is left of a block when a process ends, and a block whose reservation got
no reply, are never given out. Between processes there is no order. Whoever sets the node back, or deletes it, makes
identifiers come again; a process that has seen greater ones refuses.

Nodes: `<path>`, persistent, the greatest identifier that is reserved, in 8 bytes, big-endian, as Curator's
DistributedAtomicLong.

Source: Curator's CachedAtomicLong. We differ: threads may share it, blocks are fetched before they are needed, and a
lost reply does no harm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Self, final

from zkrecipes.cell import Cell, begin
from zkrecipes.codec import decoded
from zkrecipes.core import DEFAULT, Core, DefaultTimeout
from zkrecipes.counter_layouts import LAYOUTS, overflow, whole
from zkrecipes.errors import ConflictError, ForeignNodeError, NodeNotFoundError, OutcomeUnknownError, ZkRecipesError
from zkrecipes.flow import Pending, first_of
from zkrecipes.handle import core_of
from zkrecipes.port import Set
from zkrecipes.timing import NEVER, Deadline, Timeout

if TYPE_CHECKING:
    from zkrecipes.client import Client

__all__ = ["IdGenerator", "IdSource"]

LAYOUT: Final = LAYOUTS["int64"]

MAX_BLOCK: Final = 2**31


@final
class _Block:
    """Identifiers that are reserved for us.

    Attributes:
        ids: Those that were not given out. Taking one is atomic in the interpreter: one call of C.
        low: From this one on, the next block is asked for; above all of them once it was.
    """

    __slots__ = ("ids", "low")

    def __init__(self, first: int, after: int) -> None:
        self.ids = iter(range(first, after))
        self.low = (first + after) // 2


@final
class IdSource:
    """The identifiers of one client from one path.

    Args:
        core: The client's.
        cell: The node.
        size: How many are reserved at once.
    """

    def __init__(self, core: Core, cell: Cell, size: int) -> None:
        self._core = core
        self._session = core.session
        self._forked = core.runtime.forked
        self._cell = cell
        self._size = size
        self._block = _Block(0, 0)
        self._next: _Block | None = None
        self._coming: Pending[None] | None = None
        self._greatest = LAYOUT.low
        self._known: tuple[int, int] | None = None

    def draw(self) -> int | None:
        """The next identifier, if there is one at hand. From any thread, without the step lock.

        A later block is put in place only when the one before is used up, so nobody gets a smaller one afterwards.
        """
        if self._session.closed or self._forked():
            self._session.check_open(self._cell.label)
        block = self._block
        for identifier in block.ids:
            if identifier >= block.low:
                self._foresee(block)
            return identifier
        return None

    def _foresee(self, block: _Block) -> None:
        with self._core.runtime.lock:
            block.low = LAYOUT.high + 1
            if self._next is None:
                self._fetch()

    async def wait(self, timeout: Timeout | DefaultTimeout) -> int:
        """The next identifier, when there is one."""
        deadline = begin(self._core, timeout, self._cell.label)
        while True:
            self._session.check_open(self._cell.label)
            identifier = self.draw()
            if identifier is not None:
                return identifier
            if self._next is not None:
                self._block, self._next = self._next, None
                continue
            coming = self._fetch()
            await first_of(coming, until=deadline.at)
            if coming.done:
                coming.result()
            elif deadline.passed(self._core.runtime.now()):
                raise self._session.unavailable(self._cell.label)

    def _fetch(self) -> Pending[None]:
        """Reserve a block in the background, unless that is under way. It is of use whoever still waits for it."""
        if self._coming is None:
            self._coming = Pending()
            self._core.runtime.spawn(self._reserve(self._coming), f"reserve identifiers at {self._cell.label}")
        return self._coming

    async def _reserve(self, coming: Pending[None]) -> None:
        try:
            while not await self._try():
                pass
        except ZkRecipesError as error:
            self._coming = None
            coming.fail(error)
        else:
            self._coming = None
            coming.resolve(None)

    async def _try(self) -> bool:
        """Reserve one block; False if somebody else was faster, or nobody knows: the numbers are left out then."""
        deadline = Deadline(NEVER, NEVER)
        label = self._cell.label
        if self._known is None:
            reading = await self._cell.obtain(deadline)
            self._known = decoded(LAYOUT, reading.data, label), reading.version
        (value, version), self._known = self._known, None
        if value < self._greatest:
            message = f"{label} was set back to {value}, after {self._greatest}: identifiers would come again"
            raise ForeignNodeError(message, path=label)
        last = value + self._size
        if last > LAYOUT.high:
            raise overflow(LAYOUT, last, label)
        try:
            stat = await self._core.ask(Set(self._cell.path, LAYOUT.encode(last), version), deadline, label)
        except (ConflictError, NodeNotFoundError, OutcomeUnknownError):
            return False
        self._known = last, stat.version
        self._greatest = last
        self._next = _Block(value + 1, last + 1)
        return True


def source_of(core: Core, path: str, block: int) -> IdSource:
    """The identifiers of a client from a path: the same for all its objects with the same block.

    Raises:
        ValueError: The path or block is not valid.
    """
    if not 1 <= whole(block, "block") <= MAX_BLOCK:
        message = f"block must be from 1 to {MAX_BLOCK}, not {block}"
        raise ValueError(message)
    full = core.path(path)
    core.session.check_open(path)
    key = ("identifiers", full, block)
    with core.runtime.lock:
        source = core.shared.get(key)
        if source is None:
            source = core.shared[key] = IdSource(core, Cell(core, full, path, LAYOUT.encode(0)), block)
    assert isinstance(source, IdSource)
    return source


# --- threads ----------------------------------------------------------------------------------------------------------


@final
class IdGenerator:
    """Whole numbers of which no two are the same, over all processes: 1, 2, 3, … with gaps.

    Threads may share it. Nothing is sent until the first one is asked for.

    Args:
        client: From `connect`.
        path: The node, below the client's namespace. It, and its parents, are made by the first use.
        block: How many are reserved by one write. A process that ends leaves a gap of up to twice as many.

    Raises:
        ValueError: The path or block is not valid.
    """

    def __init__(self, client: Client, path: str, *, block: int = 1000) -> None:
        self._client = client
        self._path = path
        self._source = source_of(core_of(client, aio=False), path, block)

    @property
    def path(self) -> str:
        """The path, below the client's namespace."""
        return self._path

    def next(self, *, timeout: Timeout | DefaultTimeout = DEFAULT) -> int:
        """The next identifier. It mostly comes from memory, and needs no server then.

        Raises:
            UnavailableError: None is left, and no server answered in time.
            CounterOverflowError: All of 63 bits are used up.
            DecodeError: The node holds no number.
            ForeignNodeError: Somebody has set the node back.
        """
        identifier = self._source.draw()
        return self._wait(timeout) if identifier is None else identifier

    def _wait(self, timeout: Timeout | DefaultTimeout) -> int:
        return self._client.run(self._source.wait(timeout))

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> int:
        return self.next()

    def __repr__(self) -> str:
        return f"<IdGenerator {self.path}>"
