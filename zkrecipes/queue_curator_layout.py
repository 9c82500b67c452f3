"""How Curator's queues lie on the server: names, and the bytes of an item. Pure.

    DistributedQueue            <path>/queue-<sequence>
    DistributedPriorityQueue    <path>/queue-<1, or 0 where negative><priority in 8 hexadecimal digits><sequence>
    DistributedDelayQueue       <path>/queue-|<when due, in ms since 1970, in hexadecimal digits>|<sequence>

    <lock path>/<the item's name>   ephemeral: somebody has claimed it
    <lock path>/zkrecipes/          ours: dead/<id>-<sequence>, ids/… (dedup.py), marks/… (marks.py)
    <path>                          what Curator has written; or {"zkrecipes":"curator-queue","format":1}, if nothing

An item's node: 00010001, then for each item 01, its length (4 bytes, big-endian) and itself, and 02 at the end. Several
items in one node are what Curator's putMulti makes. Curator reads no further than the 02: what we must remember of an
item (attempts, headers, the last error) is a record of ours behind it, and only where there is something to remember.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from typing import Final, Literal

from zkrecipes.errors import DecodeError
from zkrecipes.queue_layout import Name, Record, read_record
from zkrecipes.stored import MAGIC

__all__ = [
    "CURATOR_LAYOUTS",
    "CuratorKind",
    "follower",
    "item_prefix",
    "pack_items",
    "parse_item",
    "read_items",
    "service_order",
]

CuratorKind = Literal["curator", "curator-priority", "curator-delay"]
"""Curator's DistributedQueue, DistributedPriorityQueue, DistributedDelayQueue."""

CURATOR_LAYOUTS: Final[tuple[CuratorKind, ...]] = ("curator", "curator-priority", "curator-delay")

VERSION: Final = b"\x00\x01\x00\x01"
ITEM: Final = b"\x01"
END: Final = b"\x02"

_LENGTH: Final = struct.Struct("!i")
_PLAIN: Final = re.compile(r"queue-([0-9]{10})")
_PRIORITY: Final = re.compile(r"queue-([01])([0-9A-F]{8})([0-9]{10})")
_DELAY: Final = re.compile(r"queue-\|([0-9A-Fa-f]{1,16})\|([0-9]{10})")


# --- names ------------------------------------------------------------------------------------------------------------


def item_prefix(kind: CuratorKind, priority: int, due: int) -> str:
    """What an item's name begins with; the server adds the sequence."""
    match kind:
        case "curator-priority":
            return f"queue-{int(priority >= 0)}{priority & 0xFFFFFFFF:08X}"
        case "curator-delay":
            return f"queue-|{due:08X}|"
        case _:
            return "queue-"


def parse_item(kind: CuratorKind, text: str) -> Name | None:
    """Take an item's name apart; None if it is none of this kind of queue.

    Curator requeues under a plain name, whatever the kind: such an item is served at once.
    """
    found = _PLAIN.fullmatch(text)
    if found is not None or kind == "curator":
        return found and Name(0, int(found[1]), text, "", 0, 0)
    if kind == "curator-delay":
        found = _DELAY.fullmatch(text)
        return found and Name(0, int(found[2]), text, "", int(found[1], 16), 0)
    found = _PRIORITY.fullmatch(text)
    if found is None:
        return None
    priority = int(found[2], 16)
    if (priority < 2**31) != (found[1] == "1"):
        return None
    return Name(0, int(found[3]), text, "", 0, priority if priority < 2**31 else priority - 2**32)


def service_order(name: Name) -> tuple[int, str, int]:
    """In which order items are served: when due, then as the text sorts, which tells the priority.

    That of a plain name among those with a priority, too: it comes before all that are not negative.
    """
    return name.due, "" if name.due else name.text, name.sequence


def follower(id_: str) -> str:
    """The identifier of the item behind this one in the same node."""
    base, _, number = id_.rpartition(".")
    return f"{base}.{int(number) + 1}" if base and number.isdigit() else f"{id_}.1"


# --- items ------------------------------------------------------------------------------------------------------------


def pack_items(record: Record, name: str) -> bytes:
    """The bytes of a node.

    Args:
        record: What it holds.
        name: The node's name; empty for a new one.
    """
    parts = [VERSION]
    for payload in (record.payload, *record.rest):
        parts += (ITEM, _LENGTH.pack(len(payload)), payload)
    parts.append(END)
    plain = Record(record.id, record.priority, record.payload, rest=record.rest, delay=record.delay)
    if record != plain or record.id not in {"", name}:
        # The name tells the priority, and when it is due.
        parts.append(record.with_(payload=b"", priority=0, delay=0, rest=()).pack())
    return b"".join(parts)


def read_items(raw: bytes, name: Name, made: int, path: str) -> Record:
    """Take a node's bytes apart.

    Args:
        raw: The bytes.
        name: The node's.
        made: When it was made, in ms since 1970.
        path: For messages.

    Raises:
        DecodeError: They are not Curator's, or damaged.
    """
    payloads, end = _payloads(raw, path)
    delay = name.due - made if name.due else 0
    first, *rest = payloads
    if not raw.startswith(MAGIC, end):
        return Record(name.text, name.priority, first, delay=delay, rest=tuple(rest))
    try:
        ours = read_record(raw[end:], path)
    except DecodeError as error:
        error.raw = raw  # of the node: what stands before it is an item of Curator's
        raise
    return ours.with_(id=ours.id or name.text, priority=name.priority, payload=first, delay=delay, rest=tuple(rest))


def _payloads(raw: bytes, path: str) -> tuple[Sequence[bytes], int]:
    """The items, and where they end."""
    if raw[:4] != VERSION:
        raise _damaged(raw, path, f"it begins with {raw[:4].hex() or 'nothing'}, not with {VERSION.hex()}")
    payloads: list[bytes] = []
    at = len(VERSION)
    while True:
        code = raw[at : at + 1]
        at += 1
        if code == END:
            break
        if code != ITEM or len(raw) < at + _LENGTH.size:
            raise _damaged(raw, path, f"there is {code.hex() or 'nothing'} at byte {at - 1}, or no length behind it")
        (length,) = _LENGTH.unpack_from(raw, at)
        at += _LENGTH.size
        if not 0 <= length <= len(raw) - at:
            raise _damaged(raw, path, f"an item of {length} bytes at byte {at}, of {len(raw)} in all")
        payloads.append(raw[at : at + length])
        at += length
    if not payloads:
        raise _damaged(raw, path, "it holds no item")
    return payloads, at


def _damaged(raw: bytes, path: str, why: str) -> DecodeError:
    return DecodeError(f"{path} is no item of a queue of Curator's, or damaged: {why}", path=path, raw=raw)
