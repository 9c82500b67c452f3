"""Configuration documents: JSON, YAML and TOML text, plain or compressed, and how large they may be. Pure.

Promises: whatever the bytes are, `parse` gives a mapping or raises DocumentError, in bounded time and memory; its
message says where, and shows nothing of the content, which may be a secret.

A document is plain text, so that any tool can read and write it. One that is too large for that is gzip, recognised by
its first two bytes.
"""

from __future__ import annotations

import gzip
import json
import re
import tomllib
import zlib
from collections.abc import Callable
from typing import Any, Final, Literal

__all__ = ["FORMATS", "Document", "DocumentError", "Format", "compressed", "parse", "render", "text_of"]

Format = Literal["json", "yaml", "toml"]
Document = dict[str, Any]

FORMATS: Final[tuple[Format, ...]] = ("json", "yaml", "toml")

MAX_TEXT: Final = 16 * 1024 * 1024
"""Bytes of the longest document, once it is decompressed: some kilobytes of gzip can become gigabytes."""

MAX_DEPTH: Final = 64
"""Mappings and lists within one another: far less than what ends in a RecursionError somewhere."""

MAX_VALUES: Final = 1_000_000
"""Values in one document, each use of a YAML anchor counted: ten lines of YAML can stand for a billion."""

MAX_PATHS: Final = 100_000_000
"""Characters of the dotted paths of all values: each has the names of what it is in."""

_GZIP: Final = b"\x1f\x8b"
_TOML_HEADER: Final = re.compile(r"^[ \t]*\[[^\],\n]*", re.MULTILINE)
_YAML_BREAKS: Final = re.compile("[\x85\u2028\u2029\ufeff]")
_TOML_SEPARATOR: Final = re.compile(r"[,{\n]")


class DocumentError(ValueError):
    """The bytes are no document. The message shows nothing of them."""


def text_of(raw: bytes, *, keep_mark: bool = False) -> str:
    """The text of a document's bytes.

    Args:
        raw: Plain or compressed.
        keep_mark: Whether a byte order mark, which Windows' editors put before the text, is part of it.

    Raises:
        DocumentError: It is no UTF-8 text, or damaged, or longer than 16 MiB.
    """
    if raw.startswith(_GZIP):
        raw = _decompressed(raw)
    if len(raw) > MAX_TEXT:
        message = f"the document has {len(raw)} bytes; the longest that is taken has {MAX_TEXT}"
        raise DocumentError(message)
    try:
        return raw.decode("utf-8" if keep_mark else "utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"the document is no UTF-8 text, at byte {error.start}"
        raise DocumentError(message) from None


def _decompressed(raw: bytes) -> bytes:
    reader = zlib.decompressobj(wbits=31)
    try:
        plain = reader.decompress(raw, MAX_TEXT + 1)
    except zlib.error:
        message = "the document begins as gzip, but is damaged"
        raise DocumentError(message) from None
    if not reader.eof:
        trouble = f"has more than {MAX_TEXT} bytes" if len(plain) > MAX_TEXT else "is cut off"
        message = f"the compressed document {trouble}"
        raise DocumentError(message)
    return plain


def compressed(raw: bytes) -> bytes:
    """The bytes as gzip; the same each time."""
    return gzip.compress(raw, mtime=0)


def parse(raw: bytes, format_: Format) -> Document:
    """What a document says.

    Raises:
        DocumentError: It does not parse, is no mapping of names, or is nested too deeply.
        ImportError: The format needs a package that is not installed.
    """
    text = text_of(raw)
    parser = _PARSERS[format_]
    if format_ == "json" and not text.strip():
        message = "the document is empty, which is no JSON: {} would be the least"
        raise DocumentError(message)
    try:
        found = parser(text)
    except DocumentError:
        raise
    except ImportError:
        raise
    except RecursionError:
        message = f"the document is nested too deeply; at most {MAX_DEPTH} levels are taken"
        raise DocumentError(message) from None
    except ValueError as error:
        message = f"the document is no {format_.upper()}: {_place(error)}"
        raise DocumentError(message) from None
    if found is None:
        found = {}  # an empty YAML document
    if not isinstance(found, dict):
        message = f"the document must be a mapping of names to values, not a {type(found).__name__}"
        raise DocumentError(message)
    _check_shape(found)
    return found


def _place(error: ValueError) -> str:
    """Where it went wrong; not the parser's own words where they quote the document."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at line {error.lineno}, column {error.colno}"
    if isinstance(error, tomllib.TOMLDecodeError):
        words = str(error)
        return words[words.rfind("(") :] if "(" in words else "it does not parse"
    return "it has a number with too many digits, or something else that cannot be read"


def _json(text: str) -> Any:
    return json.loads(text)


def _yaml(text: str) -> Any:
    try:
        import yaml  # noqa: PLC0415 - an extra
    except ImportError as error:
        message = 'YAML documents need PyYAML: pip install "zkrecipes[yaml]"'
        raise ImportError(message) from error

    try:
        return yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"at line {mark.line + 1}, column {mark.column + 1}" if mark is not None else "somewhere"
        message = f"the document is no YAML, {where}"
        raise DocumentError(message) from None
    except yaml.YAMLError:
        message = "the document is no YAML: it has characters that YAML does not take"
        raise DocumentError(message) from None


def _toml(text: str) -> Any:
    # tomllib's time for a dotted name grows with the square of its length: a kilobyte of dots is seconds.
    names = [*_TOML_HEADER.findall(text), *(_TOML_SEPARATOR.split(part)[-1] for part in text.split("="))]
    if any(name.count(".") > MAX_DEPTH for name in names):
        raise RecursionError
    return tomllib.loads(text)


_PARSERS: Final[dict[Format, Callable[[str], Any]]] = {"json": _json, "yaml": _yaml, "toml": _toml}


def _check_shape(document: Document) -> None:
    """Make sure that whoever walks through it afterwards comes to an end, and finds names that are text."""
    waiting: list[tuple[Any, int, int]] = [(document, 1, 0)]
    values = paths = 0
    while waiting:
        value, depth, path = waiting.pop()
        values += 1
        paths += path
        if paths > MAX_PATHS:
            message = "the names in the document are too long for so many values"
            raise DocumentError(message)
        if depth > MAX_DEPTH:
            message = f"the document is nested too deeply; at most {MAX_DEPTH} levels are taken"
            raise DocumentError(message)
        if values + len(waiting) > MAX_VALUES:
            message = f"the document has too many values; at most {MAX_VALUES} are taken, repeated anchors counted"
            raise DocumentError(message)
        if isinstance(value, dict):
            if not all(isinstance(key, str) for key in value):
                if any(not isinstance(key, str | int) or isinstance(key, bool) for key in value):
                    message = "the names in the document must be text; put quotes around them"
                    raise DocumentError(message)
                for key in [key for key in value if not isinstance(key, str)]:
                    value[str(key)] = value.pop(key)
            waiting.extend((each, depth + 1, path + len(key) + 1) for key, each in value.items())
        elif isinstance(value, list):
            waiting.extend((each, depth + 1, 0) for each in value)  # a list is one value, with one path


def render(document: Document, format_: Format) -> str:
    """A document as text, for people to read, ending with a line feed.

    Raises:
        ValueError: It has what the format cannot express.
        ImportError: The format needs a package that is not installed.
    """
    if format_ == "json":
        return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    if format_ == "yaml":
        try:
            import yaml  # noqa: PLC0415 - an extra
        except ImportError as error:
            message = 'YAML documents need PyYAML: pip install "zkrecipes[yaml]"'
            raise ImportError(message) from error
        text = str(yaml.safe_dump(document, sort_keys=False, allow_unicode=True))
        if _YAML_BREAKS.search(text):
            # PyYAML writes these line breaks as they are, and reads others in their place.
            text = str(yaml.safe_dump(document, sort_keys=False))
        return text
    try:
        import tomli_w  # noqa: PLC0415 - an extra
    except ImportError as error:
        message = 'writing TOML documents needs tomli-w: pip install "zkrecipes[toml]"'
        raise ImportError(message) from error
    return tomli_w.dumps(_without_none(document))


def _without_none(value: Any) -> Any:
    """TOML has no null: what is None is left out. Whoever publishes reads the text back and compares."""
    if isinstance(value, dict):
        return {key: _without_none(each) for key, each in value.items() if each is not None}
    if isinstance(value, list):
        return [_without_none(each) for each in value]
    return value
