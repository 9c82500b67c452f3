"""How a counter's number is stored. Pure.

    int64   8 bytes, big-endian, signed    Curator's DistributedAtomicLong
    int32   4 bytes, big-endian, signed    Curator's DistributedAtomicInteger, SharedCount; kazoo with support_curator
    text    decimal digits                 kazoo's Counter; unbounded, up to 4000 digits

Empty data is 0 in all of them: Curator and kazoo take it so.
"""

from __future__ import annotations

from typing import Final, Protocol, final

from zkrecipes.codec import IntCodec
from zkrecipes.errors import CounterOverflowError, DecodeError

__all__ = ["BEFORE_ANY", "LAYOUTS", "CounterLayout", "fits", "layout_of", "next_version", "overflow", "whole"]


BEFORE_ANY: Final = -2
"""The version before -1."""


class CounterLayout(Protocol):
    """One way to store a number: a codec with limits."""

    @property
    def name(self) -> str:
        """What users call it."""
        ...

    @property
    def low(self) -> int:
        """The least number that it holds."""
        ...

    @property
    def high(self) -> int:
        """The greatest number that it holds."""
        ...

    def encode(self, value: int) -> bytes:
        """The bytes of a number within the limits."""
        ...

    def decode(self, raw: bytes) -> int:
        """The number.

        Raises:
            DecodeError: It is none.
        """
        ...


@final
class _Fixed:
    """So many bytes, big-endian, signed."""

    def __init__(self, size: int) -> None:
        self.name = f"int{8 * size}"
        self.high = 2 ** (8 * size - 1) - 1
        self.low = -self.high - 1
        self._size = size

    def encode(self, value: int) -> bytes:
        """The bytes of a number within the limits."""
        return value.to_bytes(self._size, "big", signed=True)

    def decode(self, raw: bytes) -> int:
        """The number.

        Raises:
            DecodeError: It has another number of bytes.
        """
        if len(raw) not in {0, self._size}:
            other = {4: "int32", 8: "int64"}.get(len(raw), "text" if raw.isdigit() else None)
            hint = f'; layout "{other}" reads it' if other is not None else ""
            message = f"not the {self._size} bytes of layout {self.name}, but {raw[:40]!r}{hint}"
            raise DecodeError(message, raw=raw)
        return int.from_bytes(raw, "big", signed=True)

    def __repr__(self) -> str:
        return f"layout {self.name!r}"


@final
class _Text:
    """Decimal digits."""

    name = "text"
    # int() and str() take no more digits from anybody, so that nobody can stop a process by a long number.
    high = 10**4000 - 1
    low = -high

    def __init__(self) -> None:
        self._codec = IntCodec()

    def encode(self, value: int) -> bytes:
        """The bytes of a number within the limits."""
        return self._codec.encode(value)

    def decode(self, raw: bytes) -> int:
        """The number.

        Raises:
            DecodeError: It is no decimal number.
        """
        return self._codec.decode(raw) if raw else 0

    def __repr__(self) -> str:
        return "layout 'text'"


LAYOUTS: Final[dict[str, CounterLayout]] = {"int64": _Fixed(8), "int32": _Fixed(4), "text": _Text()}


def layout_of(name: str) -> CounterLayout:
    """The layout of a name.

    Raises:
        ValueError: There is none.
    """
    if name not in LAYOUTS:
        message = f"layout must be one of {', '.join(map(repr, LAYOUTS))}, not {name!r}"
        raise ValueError(message)
    return LAYOUTS[name]


def whole(value: int, name: str) -> int:
    """Check a number that the user gives.

    Raises:
        TypeError: It is no int.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        message = f"{name} must be an int, not {type(value).__name__}"
        raise TypeError(message)
    return value


def fits(layout: CounterLayout, value: int) -> bool:
    """Whether the layout holds a number."""
    return layout.low <= value <= layout.high


def overflow(layout: CounterLayout, value: int, path: str) -> CounterOverflowError:
    """The error for a number that the layout does not hold."""
    where = "above" if value > layout.high else "below"
    limit = layout.high if value > layout.high else layout.low
    if layout.name == "text":
        message = f"the counter {path} would have more than 4000 digits; nothing was written"
    else:
        message = (
            f"the counter {path} would be {value}, which is {where} {limit}, the limit of layout {layout.name!r}; "
            'nothing was written. Layout "text" has no such limit'
        )
    return CounterOverflowError(message, path=path, value=value, low=layout.low, high=layout.high)


def next_version(version: int) -> int:
    """The version after a set of ours: the server counts in 32 bits and goes round, and we jump over -1.

    Whoever names -1 says "any version": who counts with a check must never see it.
    """
    if version == BEFORE_ANY:
        return 0
    return version + 1 if version < 2**31 - 1 else -(2**31)
