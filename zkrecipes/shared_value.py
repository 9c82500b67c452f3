"""SharedValue: one value that all processes see, replaced with a check that nobody else has meanwhile.

Promises: a write that returns was applied once; `compare_and_set` and `update` replace only what the caller has seen;
what cannot be settled is an OutcomeUnknownError. A call ends by its timeout, an outage included.

Does not promise: that `get` is the newest (a server may lag behind its leader); that somebody who deletes the node and
makes another one at the very moment of a write is noticed.

Nodes: `<path>`, persistent, holds what the codec gives, as Curator's SharedValue; below it, marks as a Counter's. The
first one who reads or writes makes it, with his `initial`.

Source: Curator's SharedValue. We differ: lost replies are settled (cell.py), and nothing is watched unless asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, cast, final

from typing_extensions import TypeVar

from zkrecipes.cell import Cell, Reading, begin, same
from zkrecipes.codec import BytesCodec, Codec, decoded, encoded
from zkrecipes.core import DEFAULT, Core, DefaultTimeout
from zkrecipes.counter_layouts import next_version
from zkrecipes.errors import AcquireTimeoutError, ConflictError
from zkrecipes.handle import core_of
from zkrecipes.hold import Registration
from zkrecipes.scripts import Script, run_script
from zkrecipes.timing import Timeout
from zkrecipes.value_changes import ValueChange, ValueChanges

if TYPE_CHECKING:
    from zkrecipes.client import Client

__all__ = ["SharedValue", "SharedValueRecipe", "Versioned"]

T = TypeVar("T", default=bytes)


@final
@dataclass(frozen=True, slots=True)
class Versioned(Generic[T]):
    """A value, and which one it is.

    Attributes:
        value: The value.
        version: The node's version with it.
        czxid: Of the node: one that was deleted and made again has the same versions, but another czxid.
    """

    value: T
    version: int
    czxid: int


@final
class SharedValueRecipe(Generic[T]):
    """The algorithms, for every driver: scripts, as the codec and update functions must not run under the step lock.

    Args:
        core: The client's core.
        path: The value's path.
        codec: How values are stored.
        initial: What the node is made with.
    """

    def __init__(self, core: Core, path: str, codec: Codec[T] | None, initial: T) -> None:
        if codec is None:
            codec = cast("Codec[T]", BytesCodec())
        if isinstance(codec, type) or not callable(getattr(codec, "encode", None)):
            message = f"codec must have encode and decode, such as zkrecipes.TextCodec(), not {codec!r}"
            raise TypeError(message)
        self.core = core
        self.label = path
        self._codec = codec
        self._cell = Cell(core, core.path(path), path, encoded(codec, initial, path))
        self.changes: ValueChanges[T | None] = ValueChanges(core, path, cast("Codec[T | None]", codec), None)

    def get(self, timeout: Timeout | DefaultTimeout) -> Script[Versioned[T]]:
        """The value; its node is made where it is missing."""
        reading: Reading = yield self._cell.obtain(begin(self.core, timeout, self.label))
        return self._versioned(reading)

    def set(self, value: T, timeout: Timeout | DefaultTimeout) -> Script[None]:
        """Replace the value, whatever it is."""
        raw = encoded(self._codec, value, self.label)
        yield self._cell.put(raw, begin(self.core, timeout, self.label))

    def compare_and_set(
        self, expected: Versioned[T], value: T, timeout: Timeout | DefaultTimeout
    ) -> Script[Versioned[T]]:
        """Replace the value if it is the expected one."""
        if not isinstance(expected, Versioned):
            message = f"expected must be what get() has returned, not {type(expected).__name__}"
            raise TypeError(message)
        deadline = begin(self.core, timeout, self.label)
        raw = encoded(self._codec, value, self.label)
        wanted = Reading(b"", expected.version, expected.czxid)
        reading: Reading | None = yield self._cell.read(deadline)
        if not same(wanted, reading):
            # Only what the leader has now can refuse anybody.
            reading = yield self._cell.read(deadline, newest=True)
        if same(wanted, reading) and (yield self._cell.replace(wanted, raw, deadline)):
            return Versioned(value, next_version(expected.version), expected.czxid)
        reading = yield self._cell.read(deadline, newest=True)
        actual = None if reading is None else self._versioned(reading)
        message = f"{self.label} has been changed since it was read; nothing was written"
        raise ConflictError(message, path=self.label, expected=expected, actual=actual)

    def update(self, function: Callable[[T], T], timeout: Timeout | DefaultTimeout) -> Script[Versioned[T]]:
        """Replace the value by what `function(value)` gives; it is called again when somebody was faster."""
        if not callable(function):
            message = f"function must be callable with a value, not {type(function).__name__}"
            raise TypeError(message)
        deadline = begin(self.core, timeout, self.label)
        while True:
            reading: Reading = yield self._cell.obtain(deadline)
            value = function(self._versioned(reading).value)
            raw = encoded(self._codec, value, self.label)
            if (yield self._cell.replace(reading, raw, deadline)):
                return Versioned(value, next_version(reading.version), reading.czxid)
            if deadline.passed(self.core.runtime.now()):
                message = f"{self.label} was changed by others each time until the timeout; nothing was written"
                raise AcquireTimeoutError(message, path=self.label, timeout=deadline.timeout)

    def _versioned(self, reading: Reading) -> Versioned[T]:
        return Versioned(decoded(self._codec, reading.data, self.label), reading.version, reading.czxid)


# --- threads ----------------------------------------------------------------------------------------------------------


@final
class SharedValue(Generic[T]):
    """A value that all processes see.

    An immutable description: it does nothing until it is used, and threads may share it.

    Args:
        client: From `connect`.
        path: The value's node, below the client's namespace.
        codec: How values are stored; bytes as they are by default.
        initial: What the node is made with, by the first one who reads or writes.

    Raises:
        ValueError: The path is not valid, or the codec does not take `initial`.
        TypeError: An argument is of the wrong type.
    """

    def __init__(self, client: Client, path: str, *, initial: T, codec: Codec[T] | None = None) -> None:
        self._client = client
        self._recipe = SharedValueRecipe(core_of(client, aio=False), path, codec, initial)

    @property
    def path(self) -> str:
        """The value's path, below the client's namespace."""
        return self._recipe.label

    def get(self, *, timeout: Timeout | DefaultTimeout = DEFAULT) -> Versioned[T]:
        """The value, and which version it is. Its node is made, with `initial`, where it is missing.

        Raises:
            DecodeError: What is there does not decode.
            UnavailableError: No server answered in time.
        """
        return run_script(self._client.run, self._recipe.get(timeout))

    def set(self, value: T, *, timeout: Timeout | DefaultTimeout = DEFAULT) -> None:
        """Replace the value, whatever is there.

        Raises:
            PayloadTooLargeError: It is too large; nothing was sent.
            UnavailableError: No server answered in time; nothing was written.
            OutcomeUnknownError: It was sent, and could not be settled.
        """
        run_script(self._client.run, self._recipe.set(value, timeout))

    def compare_and_set(
        self, expected: Versioned[T], value: T, *, timeout: Timeout | DefaultTimeout = DEFAULT
    ) -> Versioned[T]:
        """Replace the value if it still is what was read, and return it with its version.

        Raises:
            ConflictError: It has been changed since; `actual` is what it is now. Nothing was written.
            UnavailableError: No server answered in time; nothing was written.
            OutcomeUnknownError: It was sent, and could not be settled.
        """
        return run_script(self._client.run, self._recipe.compare_and_set(expected, value, timeout))

    def update(self, function: Callable[[T], T], *, timeout: Timeout | DefaultTimeout = DEFAULT) -> Versioned[T]:
        """Replace the value by what `function(value)` gives, and return it with its version.

        The function runs in this thread, and again when somebody was faster: it must have no effect of its own. What it
        raises ends the call, and nothing is written.

        Raises:
            AcquireTimeoutError: Others were faster each time until the timeout; nothing was written.
            UnavailableError: No server answered in time; nothing was written.
            OutcomeUnknownError: It was sent, and could not be settled.
        """
        return run_script(self._client.run, self._recipe.update(function, timeout))

    def on_change(self, callback: Callable[[ValueChange[T | None]], object]) -> Registration:
        """Call `callback(change)` when the value has changed, on the dispatcher. The state at the start is not told.

        Changes that follow one another quickly are told as one.
        """
        return self._recipe.changes.register(callback)

    def __repr__(self) -> str:
        return f"<SharedValue {self.path}>"
