"""How a queue lies on the server: names, and the bytes of an item. Pure.

    <path>                              {"zkrecipes": "queue", "format": 1}
    <path>/lanes/<priority>/            one lane a priority: priority + 2^31 in 8 hexadecimal digits
        head                            the number of the shelf that takes puts; its version changes with nothing else
        s<number>/<guid>-<sequence>     a shelf of items: place in the line is shelf, then sequence
        c<number>/<same name>           ephemeral: somebody has claimed that item
    <path>/delayed/<bucket>/            a lane of items that are not due yet: the time when due, in units of 2^20 ms
        s<number>/<due>-<priority>-<place>-<guid>-<sequence>, and the same claims
    <path>/dead/<guid>                  what nobody could do, with the error
    <path>/ids/…                        identifiers of puts (dedup.py); <path>/marks/… marks.py

An item is a record (stored.py): its identifier, priority, attempts, headers, and the payload as the codec wrote it.
What stands in a name only sorts: when an item is due is told by the server's time of its node, and the record's delay.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple, final

from zkrecipes.errors import DecodeError
from zkrecipes.stored import pack, unpack

__all__ = [
    "BRANCHES",
    "BUCKET_MS",
    "Name",
    "Record",
    "Slot",
    "bucket_name",
    "bucket_of",
    "checked_headers",
    "checked_priority",
    "delayed_prefix",
    "lane_name",
    "lane_nodes",
    "parse_bucket",
    "parse_lane",
    "parse_name",
    "place_of",
    "read_record",
    "shelf_numbers",
    "shelf_prefix",
]

BRANCHES: Final = ("lanes", "delayed", "dead", "ids", "marks")
"""Made with the queue, under its path."""

BUCKET_MS: Final = 1 << 20
"""About 17 minutes: delayed items of a bucket are looked through together."""

LOWEST: Final = -(2**31)
HIGHEST: Final = 2**31 - 1
MAX_DUE: Final = 16**12 - 1

_HEX: Final = re.compile(r"[0-9a-f]{8}")
_GUID: Final = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_ITEM: Final = re.compile(rf"(?P<guid>{_GUID})-(?P<sequence>[0-9]{{10}})")
_DELAYED: Final = re.compile(
    rf"(?P<due>[0-9a-f]{{12}})-(?P<priority>[0-9a-f]{{8}})-(?P<place>[0-9a-f]{{16}})-(?P<guid>{_GUID})-"
    r"(?P<sequence>[0-9]{10})"
)
_SHELF: Final = re.compile(r"s([0-9]{10})")


# --- lanes and shelves ------------------------------------------------------------------------------------------------


def checked_priority(priority: int) -> int:
    """Check a priority.

    Raises:
        TypeError: It is no int.
        ValueError: It does not fit into 32 bits.
    """
    if isinstance(priority, bool) or not isinstance(priority, int):
        message = f"priority must be an int, not {type(priority).__name__}"
        raise TypeError(message)
    if not LOWEST <= priority <= HIGHEST:
        message = f"priority must be from {LOWEST} to {HIGHEST} (lower is served first), not {priority}"
        raise ValueError(message)
    return priority


def lane_name(priority: int) -> str:
    """The lane of a priority; names sort as priorities do."""
    return f"{priority - LOWEST:08x}"


def parse_lane(name: str) -> int | None:
    """The priority of a lane; None if it is none of ours."""
    return int(name, 16) + LOWEST if _HEX.fullmatch(name) else None


def bucket_of(due: int) -> int:
    """The bucket of a due time (ms since 1970)."""
    return due // BUCKET_MS


def bucket_name(bucket: int) -> str:
    """The node of a bucket; names sort as times do."""
    return f"{bucket:08x}"


def parse_bucket(name: str) -> int | None:
    """The bucket of a node; None if it is none of ours."""
    return int(name, 16) if _HEX.fullmatch(name) else None


def lane_nodes(lane: str, number: int) -> tuple[str, str]:
    """The nodes of a shelf: of its items, and of its claims."""
    return f"{lane}/s{number:010d}", f"{lane}/c{number:010d}"


def shelf_numbers(children: list[str]) -> list[int]:
    """The shelves among a lane's children, in order. The last one takes puts."""
    return sorted(int(found[1]) for found in map(_SHELF.fullmatch, children) if found is not None)


def shelf_prefix(guid: str) -> str:
    """What an item's name begins with, in a lane."""
    return f"{guid}-"


def delayed_prefix(due: int, priority: int, place: int, guid: str) -> str:
    """What an item's name begins with, in a bucket."""
    return f"{due:012x}-{lane_name(priority)}-{place:016x}-{guid}-"


def place_of(time: int, sequence: int) -> int:
    """A place among equals: by time (ms since 1970), then as they were put."""
    return time << 16 | sequence & 0xFFFF


@final
class Name(NamedTuple):
    """An item's name, taken apart.

    Attributes:
        place: Orders items of one priority that are due; 0 in a lane, where the sequence does.
        sequence: The number that the server gave.
        text: The name itself.
        guid: The item's identifier.
        due: From when on it may be due, in ms since 1970; 0 in a lane.
        priority: Of a delayed item; in a lane, the lane's.
    """

    place: int
    sequence: int
    text: str
    guid: str
    due: int
    priority: int


def parse_name(text: str, priority: int | None) -> Name | None:
    """Take an item's name apart; None if it is none of ours.

    Args:
        text: The name.
        priority: Of the lane; None in a bucket.
    """
    if priority is not None:
        found = _ITEM.fullmatch(text)
        return found and Name(0, int(found["sequence"]), text, found["guid"], 0, priority)
    found = _DELAYED.fullmatch(text)
    return found and Name(
        int(found["place"], 16),
        int(found["sequence"]),
        text,
        found["guid"],
        int(found["due"], 16),
        int(found["priority"], 16) + LOWEST,
    )


@final
class Slot(NamedTuple):
    """Where an item stands.

    Attributes:
        items: Full path of the node that it is below.
        claims: Full path of the node that claims on it are below.
        name: The item's.
    """

    items: str
    claims: str
    name: Name

    @property
    def item(self) -> str:
        """Full path of the item."""
        return f"{self.items}/{self.name.text}"

    @property
    def claim(self) -> str:
        """Full path of a claim on it."""
        return f"{self.claims}/{self.name.text}"


# --- items ------------------------------------------------------------------------------------------------------------


@final
@dataclass(frozen=True, slots=True)
class Record:
    """What an item's node holds.

    Attributes:
        id: The identifier that the put gave, kept wherever the item goes.
        priority: Lower is served first.
        payload: As the codec wrote it.
        attempts: How often it was claimed.
        delay: Milliseconds from the making of this node until it is due.
        place: Its place among equals (`place_of`), once it has been moved; 0 before.
        born: When it was first put, in ms since 1970, once it has been moved; 0 before.
        headers: Of the user.
        error: Why the last attempt failed; empty if none did.
        dead_at: When it became a dead letter, about; 0 if it is none.
        rest: Payloads of items behind this one in the same node, which only Curator's layouts have.
    """

    id: str
    priority: int
    payload: bytes
    attempts: int = 0
    delay: int = 0
    place: int = 0
    born: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    error: str = ""
    dead_at: int = 0
    rest: tuple[bytes, ...] = ()

    def pack(self) -> bytes:
        """The bytes of its node; what has its default takes no room."""
        header: dict[str, Any] = {
            "id": self.id,
            "p": self.priority,
            "a": self.attempts,
            "d": self.delay,
            "o": self.place,
            "b": self.born,
            "h": dict(self.headers),
            "e": self.error,
            "x": self.dead_at,
        }
        header = {key: value for key, value in header.items() if value or key in {"id", "p"}}
        return pack(header, self.payload)

    def with_(self, **changes: Any) -> Record:
        """The same with some fields changed."""
        return replace(self, **changes)


def read_record(raw: bytes, path: str) -> Record:
    """Take an item's bytes apart.

    Raises:
        DecodeError: They are nothing of ours, damaged, or of a newer version.
    """
    header, payload = unpack(raw, path)
    id_, headers, error = header.get("id"), header.get("h", {}), header.get("e", "")
    numbers = [header.get(key, 0) for key in ("p", "a", "d", "o", "b", "x")]
    sound = (
        isinstance(id_, str)
        and isinstance(error, str)
        and isinstance(headers, dict)
        and all(isinstance(value, str) for value in headers.values())
        and all(isinstance(number, int) and not isinstance(number, bool) for number in numbers)
    )
    if not sound or not isinstance(id_, str) or not LOWEST <= numbers[0] <= HIGHEST:
        message = f"{path} holds a record of zkrecipes that is no queue item, or a damaged one"
        raise DecodeError(message, path=path, raw=raw)
    priority, attempts, delay, place, born, dead_at = numbers
    return Record(id_, priority, payload, attempts, delay, place, born, headers, error, dead_at)


def checked_headers(headers: Mapping[str, str] | None) -> dict[str, str]:
    """Check headers given by the user.

    Raises:
        TypeError: They are no mapping of text to text.
    """
    if headers is None:
        return {}
    if not isinstance(headers, Mapping):
        message = f"headers must be a mapping of str to str, not {type(headers).__name__}"
        raise TypeError(message)
    for key, value in headers.items():
        if not isinstance(key, str) or not isinstance(value, str):
            message = f"headers must be a mapping of str to str, not with {key!r}: {value!r}"
            raise TypeError(message)
    return dict(headers)
