"""Counter, SharedValue and IdGenerator, for asyncio. The algorithms, and what is promised, are in zkrecipes.counter."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, Self, final

from typing_extensions import TypeVar

from zkrecipes.codec import Codec
from zkrecipes.core import DEFAULT, DefaultTimeout
from zkrecipes.counter import CounterLayoutName, CounterRecipe
from zkrecipes.handle import core_of
from zkrecipes.hold import Registration
from zkrecipes.identifiers import source_of
from zkrecipes.scripts import run_script_async
from zkrecipes.shared_value import SharedValueRecipe, Versioned
from zkrecipes.timing import Timeout
from zkrecipes.value_changes import ValueChange

if TYPE_CHECKING:
    from zkrecipes.aio.client import Client

__all__ = ["Counter", "IdGenerator", "SharedValue"]

T = TypeVar("T", default=bytes)


@final
class Counter:
    """A number that all processes count with. Arguments as of zkrecipes.Counter."""

    def __init__(self, client: Client, path: str, *, layout: CounterLayoutName = "int64") -> None:
        self._client = client
        self._recipe = CounterRecipe(core_of(client, aio=True), path, layout=layout)

    @property
    def path(self) -> str:
        """The counter's path, below the client's namespace."""
        return self._recipe.label

    async def add(self, n: int = 1, *, timeout: Timeout | DefaultTimeout = DEFAULT) -> int:
        """Add `n`, and return the value after. Counted exactly once. Errors as of zkrecipes.Counter.add.

        If the task is cancelled, it may have been counted.
        """
        return await self._client.run(self._recipe.add(n, timeout))

    async def value(self, *, timeout: Timeout | DefaultTimeout = DEFAULT) -> int:
        """The number; 0 if there is no node yet."""
        return await self._client.run(self._recipe.value(timeout))

    async def set(self, value: int, *, timeout: Timeout | DefaultTimeout = DEFAULT) -> None:
        """Replace the number, whatever is there."""
        await self._client.run(self._recipe.set(value, timeout))

    async def compare_and_set(self, expected: int, new: int, *, timeout: Timeout | DefaultTimeout = DEFAULT) -> None:
        """Replace the number if it is `expected`; otherwise ConflictError."""
        await self._client.run(self._recipe.compare_and_set(expected, new, timeout))

    def on_change(self, callback: Callable[[ValueChange[int]], object]) -> Registration:
        """Call `callback(change)` when the number has changed, on the event loop. The first state is not told."""
        return self._recipe.changes.register(callback)

    def __repr__(self) -> str:
        return f"<aio.Counter {self.path} layout={self._recipe.layout.name}>"


@final
class SharedValue(Generic[T]):
    """A value that all processes see. Arguments as of zkrecipes.SharedValue."""

    def __init__(self, client: Client, path: str, *, initial: T, codec: Codec[T] | None = None) -> None:
        self._client = client
        self._recipe = SharedValueRecipe(core_of(client, aio=True), path, codec, initial)

    @property
    def path(self) -> str:
        """The value's path, below the client's namespace."""
        return self._recipe.label

    async def get(self, *, timeout: Timeout | DefaultTimeout = DEFAULT) -> Versioned[T]:
        """The value, and which version it is."""
        return await run_script_async(self._client.run, self._recipe.get(timeout))

    async def set(self, value: T, *, timeout: Timeout | DefaultTimeout = DEFAULT) -> None:
        """Replace the value, whatever is there."""
        await run_script_async(self._client.run, self._recipe.set(value, timeout))

    async def compare_and_set(
        self, expected: Versioned[T], value: T, *, timeout: Timeout | DefaultTimeout = DEFAULT
    ) -> Versioned[T]:
        """Replace the value if it still is what was read; otherwise ConflictError."""
        return await run_script_async(self._client.run, self._recipe.compare_and_set(expected, value, timeout))

    async def update(self, function: Callable[[T], T], *, timeout: Timeout | DefaultTimeout = DEFAULT) -> Versioned[T]:
        """Replace the value by what `function(value)` gives; it runs on the event loop, and may be called again."""
        return await run_script_async(self._client.run, self._recipe.update(function, timeout))

    def on_change(self, callback: Callable[[ValueChange[T | None]], object]) -> Registration:
        """Call `callback(change)` when the value has changed, on the event loop. The first state is not told."""
        return self._recipe.changes.register(callback)

    def __repr__(self) -> str:
        return f"<aio.SharedValue {self.path}>"


@final
class IdGenerator:
    """Whole numbers of which no two are the same, over all processes. Arguments as of zkrecipes.IdGenerator."""

    def __init__(self, client: Client, path: str, *, block: int = 1000) -> None:
        self._client = client
        self._path = path
        self._source = source_of(core_of(client, aio=True), path, block)

    @property
    def path(self) -> str:
        """The path, below the client's namespace."""
        return self._path

    async def next(self, *, timeout: Timeout | DefaultTimeout = DEFAULT) -> int:
        """The next identifier. Errors as of zkrecipes.IdGenerator.next."""
        identifier = self._source.draw()
        if identifier is None:
            identifier = await self._client.run(self._source.wait(timeout))
        return identifier

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> int:
        return await self.next()

    def __repr__(self) -> str:
        return f"<aio.IdGenerator {self.path}>"
