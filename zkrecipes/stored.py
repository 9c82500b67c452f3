"""The formats that are ours: what stands before a payload, and in the root node of a recipe. Pure.

    "ZR", the format's number (1 byte), the header's length (4 bytes, big-endian), the header (JSON), the payload

Each carries its number from the first day, so that an older library refuses what a newer one has written, and says so,
instead of misreading it.
"""

from __future__ import annotations

import json
import struct
from typing import Any, Final

from zkrecipes.errors import DecodeError, ForeignNodeError

__all__ = ["FORMAT", "MAGIC", "check_root", "is_root", "pack", "root_record", "unpack"]

FORMAT: Final = 1
MAGIC: Final = b"ZR"

_START: Final = struct.Struct("!2sBI")

# json.dumps would make one for each record.
_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def pack(header: dict[str, Any], payload: bytes) -> bytes:
    """The bytes of a header (of what JSON knows) and a payload."""
    text = _ENCODER.encode(header).encode()
    return b"".join((_START.pack(MAGIC, FORMAT, len(text)), text, payload))


def unpack(raw: bytes, path: str) -> tuple[dict[str, Any], bytes]:
    """Header and payload.

    Raises:
        DecodeError: It is nothing of ours, or damaged, or written by a newer version.
    """
    if raw[:2] != MAGIC or len(raw) < _START.size:
        message = f"{path} holds no record of zkrecipes, but {raw[:20]!r}: somebody else has written it"
        raise DecodeError(message, path=path, raw=raw)
    _, number, length = _START.unpack_from(raw)
    if number != FORMAT:
        message = (
            f"{path} was written by another version of zkrecipes, in format {number}; this one knows {FORMAT}. "
            "Use the same version everywhere"
        )
        raise DecodeError(message, path=path, raw=raw)
    end = _START.size + length
    header: Any = None
    if len(raw) >= end:
        try:
            header = json.loads(raw[_START.size : end])
        except (ValueError, RecursionError):
            header = None
    if not isinstance(header, dict):
        message = f"{path} holds a damaged record: its header cannot be read"
        raise DecodeError(message, path=path, raw=raw)
    return header, raw[end:]


def root_record(kind: str) -> bytes:
    """What the root node of a recipe holds: which recipe it is, in which format."""
    return json.dumps({"zkrecipes": kind, "format": FORMAT}, separators=(",", ":")).encode()


def is_root(raw: bytes) -> bool:
    """Whether a node holds what `root_record` wrote, of whatever recipe and format."""
    return raw.startswith(b'{"zkrecipes":')


def check_root(raw: bytes, kind: str, path: str) -> None:
    """Check the root node of a recipe.

    Raises:
        ForeignNodeError: It is the root of something else, or in a format that this version does not know.
    """
    try:
        record = json.loads(raw)
    except (ValueError, RecursionError):
        record = None
    found = record.get("zkrecipes") if isinstance(record, dict) else None
    if not isinstance(record, dict) or found != kind:
        what = f"a {found}" if isinstance(found, str) else f"{raw[:40]!r}"
        message = f"{path} is no {kind}: the node holds {what}. Give each recipe a path of its own"
        raise ForeignNodeError(message, path=path)
    if record.get("format") != FORMAT:
        message = (
            f"{path} is a {kind} in format {record.get('format')!r}, of another version of zkrecipes; this one knows "
            f"{FORMAT}. Use the same version everywhere"
        )
        raise ForeignNodeError(message, path=path)
