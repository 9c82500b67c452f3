"""Codecs: how values become a node's bytes, and back. Pure.

A codec is anything with `encode(value) -> bytes` and `decode(raw) -> value`. It may raise whatever it likes: recipes
call `encoded` and `decoded`, by which bytes that cannot be decoded are a DecodeError with the path and the bytes.
Codecs are user code: they run in the caller's thread or on the dispatcher, never under the step lock.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final, Generic, Protocol, TypeVar, final

from zkrecipes.errors import DecodeError

__all__ = ["BytesCodec", "Codec", "IntCodec", "JsonCodec", "TextCodec", "decoded", "encoded", "revealed"]

T = TypeVar("T")
M = TypeVar("M")

_NUMBER: Final = re.compile(rb"-?[0-9]{1,4000}")  # int() would take "1_0" and " 1 ", too

_MASK: Final = "**********"
"""What pydantic writes for a secret that is not empty."""


class Codec(Protocol[T]):
    """How values of one type are stored."""

    def encode(self, value: T) -> bytes:
        """The bytes of a value. Raises whatever fits if it is not of this type."""
        ...

    def decode(self, raw: bytes) -> T:
        """The value of the bytes. Raises if they are not in the format."""
        ...


@final
class BytesCodec:
    """Bytes as they are."""

    def encode(self, value: bytes) -> bytes:
        """The same bytes.

        Raises:
            TypeError: It is no bytes.
        """
        if not isinstance(value, bytes | bytearray | memoryview):
            message = f"value must be bytes, not {type(value).__name__}; choose a codec for other types"
            raise TypeError(message)
        return bytes(value)

    def decode(self, raw: bytes) -> bytes:
        """The same bytes."""
        return raw

    def __repr__(self) -> str:
        return "BytesCodec()"


@final
class TextCodec:
    """Text, in UTF-8."""

    def encode(self, value: str) -> bytes:
        """The text in UTF-8.

        Raises:
            TypeError: It is no text.
            ValueError: It has lone surrogates.
        """
        if not isinstance(value, str):
            message = f"value must be a str, not {type(value).__name__}"
            raise TypeError(message)
        return value.encode()

    def decode(self, raw: bytes) -> str:
        """The text.

        Raises:
            DecodeError: The bytes are not UTF-8.
        """
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            message = f"not UTF-8, at byte {error.start}"
            raise DecodeError(message, raw=raw) from error

    def __repr__(self) -> str:
        return "TextCodec()"


@final
class IntCodec:
    """Whole numbers, as decimal text ("-12")."""

    def encode(self, value: int) -> bytes:
        """The number as text.

        Raises:
            TypeError: It is no int.
        """
        if isinstance(value, bool) or not isinstance(value, int):
            message = f"value must be an int, not {type(value).__name__}"
            raise TypeError(message)
        return b"%d" % value

    def decode(self, raw: bytes) -> int:
        """The number.

        Raises:
            DecodeError: The bytes are no decimal number.
        """
        if not _NUMBER.fullmatch(raw):
            message = f"not a whole number in decimal digits: {raw[:40]!r}"
            raise DecodeError(message, raw=raw)
        return int(raw)

    def __repr__(self) -> str:
        return "IntCodec()"


@final
class JsonCodec(Generic[T]):
    """Values of any type that pydantic knows, as JSON: models, dataclasses, typed dicts, lists, plain types.

    Secrets (SecretStr, SecretBytes) are written in clear: that is what they are stored for.

    Args:
        type_: The type, such as `Order`, `list[int]` or `dict[str, Order]`.

    Raises:
        TypeError: pydantic cannot make anything of it.
    """

    def __init__(self, type_: type[T]) -> None:
        # Not at the top: `import zkrecipes` must stay cheap for whoever uses no JSON.
        from pydantic import TypeAdapter  # noqa: PLC0415
        from pydantic.errors import PydanticUserError  # noqa: PLC0415

        self.type = type_
        try:
            self._adapter: TypeAdapter[T] = TypeAdapter(type_)
        except PydanticUserError as error:
            message = f"JsonCodec needs a type that pydantic can validate, not {type_!r}: {error}"
            raise TypeError(message) from error

    def encode(self, value: T) -> bytes:
        """The value as JSON, validated first.

        Raises:
            ValueError: It is not of the type, or cannot be written as JSON.
        """
        checked = self._adapter.validate_python(value)
        raw = self._adapter.dump_json(checked, by_alias=True, round_trip=True)
        if _MASK.encode() not in raw:
            return raw
        return json.dumps(revealed(self._adapter, checked), ensure_ascii=False, separators=(",", ":")).encode()

    def decode(self, raw: bytes) -> T:
        """The validated value.

        Raises:
            DecodeError: It is no JSON, or not of the type. The message tells where, and no values.
        """
        from pydantic import ValidationError  # noqa: PLC0415

        if not raw:
            message = f"there are no bytes, where the JSON of {self.type!r} is expected"
            raise DecodeError(message, raw=raw)
        try:
            return self._adapter.validate_json(raw)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            where = ".".join(map(str, first["loc"]))
            more = f", and {error.error_count() - 1} more" if error.error_count() > 1 else ""
            message = f"not the JSON of {self.type!r}: {where + ': ' if where else ''}{first['msg']}{more}"
            # Not chained: pydantic's error shows the values, which may be secrets.
            raise DecodeError(message, raw=raw) from None

    def __repr__(self) -> str:
        return f"JsonCodec({getattr(self.type, '__name__', self.type)})"


def revealed(adapter: Any, value: object) -> Any:
    """A value as what JSON knows (dicts, lists, text, numbers), its secrets in clear.

    Args:
        adapter: A pydantic TypeAdapter of the value's type.
        value: What is written.
    """
    # pydantic masks secrets in JSON, and nothing turns that off. In Python's own types it leaves them whole, at the
    # same places: so both are taken, and walked side by side.
    masked = adapter.dump_python(value, mode="json", by_alias=True, round_trip=True, warnings=False)
    return _reveal(masked, adapter.dump_python(value, by_alias=True, round_trip=True, warnings=False))


def _reveal(masked: Any, clear: Any) -> Any:
    if hasattr(clear, "get_secret_value"):
        from pydantic_core import to_jsonable_python  # noqa: PLC0415

        return to_jsonable_python(clear.get_secret_value())
    if isinstance(masked, dict) and isinstance(clear, dict):
        return {key: _reveal(each, other) for (key, each), other in zip(masked.items(), clear.values(), strict=True)}
    if isinstance(masked, list) and isinstance(clear, list | tuple | set | frozenset):
        return [_reveal(each, other) for each, other in zip(masked, clear, strict=True)]
    return masked


def encoded(codec: Codec[M], value: M, path: str) -> bytes:
    """What is to be written.

    Raises:
        TypeError: The codec gave something else than bytes.
    """
    raw = codec.encode(value)
    if not isinstance(raw, bytes):
        message = f"{codec!r} must encode to bytes, not {type(raw).__name__}, for {path}"
        raise TypeError(message)
    return raw


def decoded(codec: Codec[M], raw: bytes, path: str) -> M:
    """What has been read.

    Raises:
        DecodeError: The codec did not take it, whatever it raised.
    """
    try:
        return codec.decode(raw)
    except DecodeError as error:
        error.path = error.path or path
        message = f"{path} cannot be decoded: {error}"
        raise DecodeError(message, path=path, raw=raw) from error
    except Exception as error:
        # A codec is user code, and bytes may come from anybody (deeply nested JSON is a RecursionError).
        message = f"{path} cannot be decoded by {codec!r}: {type(error).__name__}: {error}"
        raise DecodeError(message, path=path, raw=raw) from error
