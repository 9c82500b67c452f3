"""How a topic is laid out on the server: names, positions, records. Pure.

    <path>                    its data says that it is a topic, and in which format
    <path>/head               the number of the segment that is written to; its version changes with each new segment
    <path>/low                the low-water: the position before which everything has been removed
    <path>/s<number>          a segment: message nodes and nothing else, so that their numbers have no gap
    <path>/s<number>/m-<number>   a message
    <path>/subs/<name>        a durable subscription: the position of the message that it wants next
    <path>/subs/<name>/owner  the line of those who would read it (lock nodes, as Curator's)
    <path>/members/<guid>     a subscriber that is here (ephemeral)
    <path>/trimmer            the line of those who would remove old messages
    <path>/chunks/<guid>/<number>  pieces of the value of a message that does not fit into one node
    <path>/marks, <path>/ids  marks of publishers; identifiers of messages for a while

A number of a segment is never used again, and segments are persistent: a message has one position for ever.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, final

from zkrecipes.errors import DecodeError
from zkrecipes.stored import pack, unpack

__all__ = [
    "FIRST",
    "KIND",
    "Chunks",
    "LowWater",
    "Member",
    "Position",
    "Record",
    "Stored",
    "TopicPlaces",
    "checked_name",
    "encode_stored",
    "message_index",
    "parse_head",
    "parse_low",
    "segment_number",
]

KIND: Final = "topic"

_POSITION: Final = re.compile(r"([0-9]{1,10})-([0-9]{1,10})")
_SEGMENT: Final = re.compile(r"s([0-9]{10})")
_MESSAGE: Final = re.compile(r"m-([0-9]{10})")
_GUID: Final = re.compile(r"[0-9a-f-]{36}")

MAX_PIECES: Final = 100

MAX_NAME: Final = 200


@final
@dataclass(frozen=True, order=True, slots=True)
class Position:
    """Where a message stands in its topic. Positions of one topic are ordered; `str()` gives the text form.

    Attributes:
        segment: The number of its segment, from 0.
        index: Its number in the segment, from 0.
    """

    segment: int
    index: int

    def __str__(self) -> str:
        return f"{self.segment}-{self.index}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """The position of a text form.

        Raises:
            ValueError: It is none.
        """
        match = _POSITION.fullmatch(text)
        if match is None:
            message = f"a position is written as 'segment-index', such as '0-17', not {text!r}"
            raise ValueError(message)
        return cls(int(match.group(1)), int(match.group(2)))

    @property
    def following(self) -> Position:
        """The position behind it in the same segment."""
        return Position(self.segment, self.index + 1)


FIRST: Final = Position(0, 0)


@final
class TopicPlaces:
    """The paths of a topic, in full.

    Args:
        path: Of the topic.
    """

    def __init__(self, path: str) -> None:
        self.root = path
        self.head = f"{path}/head"
        self.low = f"{path}/low"
        self.marks = f"{path}/marks"
        self.ids = f"{path}/ids"
        self.subs = f"{path}/subs"
        self.members = f"{path}/members"
        self.trimmer = f"{path}/trimmer"
        self.chunks = f"{path}/chunks"

    def segment(self, number: int) -> str:
        """A segment."""
        return f"{self.root}/s{number:010d}"

    def message(self, position: Position) -> str:
        """A message."""
        return f"{self.root}/s{position.segment:010d}/m-{position.index:010d}"

    def new_message(self, segment: int) -> str:
        """What a message is created as; the server adds the number."""
        return f"{self.root}/s{segment:010d}/m-"

    def group(self, guid: str) -> str:
        """The parent of a message's pieces."""
        return f"{self.chunks}/{guid}"

    def piece(self, guid: str, number: int) -> str:
        """A piece of a message."""
        return f"{self.chunks}/{guid}/{number:04d}"

    def sub(self, name: str) -> str:
        """A durable subscription."""
        return f"{self.subs}/{name}"

    def owner(self, name: str) -> str:
        """The line of those who would read it."""
        return f"{self.subs}/{name}/owner"


def segment_number(name: str) -> int | None:
    """The number of a segment by its name; None if it is none."""
    match = _SEGMENT.fullmatch(name)
    return None if match is None else int(match.group(1))


def message_index(name: str) -> int | None:
    """The number of a message by its name; None if it is none."""
    match = _MESSAGE.fullmatch(name)
    return None if match is None else int(match.group(1))


def checked_name(name: str) -> str:
    """Check a subscription's name: it becomes a node's.

    Raises:
        TypeError: It is no text.
        ValueError: It is empty, too long, or has a slash or a control character.
    """
    if not isinstance(name, str):
        message = f"the name of a subscription must be a str, not {type(name).__name__}"
        raise TypeError(message)
    if not name or len(name) > MAX_NAME or "/" in name or name in {".", ".."} or not name.isprintable():
        message = (
            f"the name of a subscription must have 1 to {MAX_NAME} printable characters and no '/', not be {name!r}"
        )
        raise ValueError(message)
    return name


# --- records ----------------------------------------------------------------------------------------------------------


@final
class Chunks(NamedTuple):
    """Where the value of a message is, if not in its node.

    Attributes:
        guid: Names its pieces.
        pieces: How many they are.
        size: Bytes of the value.
        digest: SHA-256 of the value, in hexadecimal digits.
    """

    guid: str
    pieces: int
    size: int
    digest: str

    def check(self, payload: bytes, path: str, raw: bytes) -> None:
        """Raise DecodeError if this is not the value."""
        if len(payload) != self.size or hashlib.sha256(payload).hexdigest() != self.digest:
            message = f"the value of {path}, in {self.pieces} pieces, is damaged: size or checksum is not what it was"
            raise DecodeError(message, path=path, raw=raw)


@final
class Record(NamedTuple):
    """A message as it is stored.

    Attributes:
        payload: What the codec made of the value.
        key: What the publisher gave, or None.
        headers: The same.
        message_id: The same.
        chunks: Where the value is, if not in the message's node.
    """

    payload: bytes
    key: str | None = None
    headers: dict[str, str] | None = None
    message_id: str | None = None
    chunks: Chunks | None = None

    def encode(self) -> bytes:
        """Its bytes."""
        header: dict[str, Any] = {}
        if self.key is not None:
            header["k"] = self.key
        if self.headers:
            header["h"] = self.headers
        if self.message_id is not None:
            header["i"] = self.message_id
        if self.chunks is not None:
            header["c"] = list(self.chunks)
        return pack(header, self.payload)

    @classmethod
    def decode(cls, raw: bytes, path: str, *, whole: bool = True) -> Record:
        """A record from its bytes. A value that was in pieces is checked, unless they are not `whole`.

        Raises:
            DecodeError: They are nothing of ours, or damaged.
        """
        header, payload = unpack(raw, path)
        key, headers, message_id = header.get("k"), header.get("h"), header.get("i")
        chunks = _chunks(header.get("c"))
        if (
            not _is_text(key)
            or not _is_text(message_id)
            or not _is_headers(headers)
            or (chunks is None) is not ("c" not in header)
        ):
            message = f"{path} holds a damaged message: its header has values of the wrong type"
            raise DecodeError(message, path=path, raw=raw)
        if chunks is not None and whole:
            chunks.check(payload, path, raw)
        return cls(payload, key, headers, message_id, chunks)


def _is_text(value: object) -> bool:
    return value is None or isinstance(value, str)


def _is_headers(value: object) -> bool:
    return value is None or (isinstance(value, dict) and all(isinstance(each, str) for each in value.values()))


def _chunks(value: object) -> Chunks | None:
    """What a header says of pieces; None if that is nothing of ours."""
    match value:
        case [str() as guid, int() as pieces, int() as size, str() as digest] if (
            _GUID.fullmatch(guid) and 0 < pieces <= MAX_PIECES
        ):
            return Chunks(guid, pieces, size, digest)
    return None


def encode_stored(position: Position, who: str) -> bytes:
    """What a durable subscription's node holds."""
    return pack({"at": str(position), "who": who}, b"")


@final
class Stored(NamedTuple):
    """What a durable subscription's node tells.

    Attributes:
        position: Of the message that it wants next.
        who: Who wrote that.
    """

    position: Position
    who: str

    @classmethod
    def decode(cls, raw: bytes, path: str) -> Stored:
        """From the node's bytes.

        Raises:
            DecodeError: They are nothing of ours, or damaged.
        """
        header, _ = unpack(raw, path)
        try:
            return cls(Position.parse(str(header.get("at"))), str(header.get("who", "")))
        except ValueError as error:
            message = (
                f"{path} holds no position: {error}. Set the node to empty bytes: the subscription begins anew then"
            )
            raise DecodeError(message, path=path, raw=raw) from error


@final
class Member(NamedTuple):
    """A subscriber that is here.

    Attributes:
        name: Of its subscription.
        host: Who it is: "host:pid".
        position: Of the message that it wanted next when it told so last.
        durable: Whether its subscription is durable.
    """

    name: str
    host: str
    position: Position
    durable: bool

    def encode(self) -> bytes:
        """The node's bytes."""
        return pack({"n": self.name, "host": self.host, "at": str(self.position), "d": self.durable}, b"")

    @classmethod
    def decode(cls, raw: bytes, path: str) -> Member:
        """From the node's bytes.

        Raises:
            DecodeError: They are nothing of ours, or damaged.
        """
        header, _ = unpack(raw, path)
        try:
            position = Position.parse(str(header.get("at")))
        except ValueError as error:
            message = f"{path} is no subscriber: {error}"
            raise DecodeError(message, path=path, raw=raw) from error
        return cls(str(header.get("n", "")), str(header.get("host", "")), position, header.get("d") is True)


def parse_head(raw: bytes, path: str) -> int:
    """The number of the segment that is written to.

    Raises:
        DecodeError: It is no number.
    """
    if not raw.isdigit() or len(raw) > 10:  # noqa: PLR2004 - digits of a segment's name
        message = f"{path} holds no number of a segment, but {raw[:40]!r}: somebody else has written it"
        raise DecodeError(message, path=path, raw=raw)
    return int(raw)


@final
class LowWater(NamedTuple):
    """Up to where a topic has been trimmed.

    Attributes:
        position: Everything before it has been removed.
        ended: If it is the first of a segment: the end of the segment before. Who stands there has missed nothing.
    """

    position: Position
    ended: Position | None = None

    def encode(self) -> bytes:
        """The node's bytes."""
        return f"{self.position}{'' if self.ended is None else f' {self.ended}'}".encode()

    def misses(self, position: Position) -> bool:
        """Whether something at or behind a position has been removed."""
        return position < self.position and (self.ended is None or position < self.ended)


def parse_low(raw: bytes, path: str) -> LowWater:
    """The low-water.

    Raises:
        DecodeError: It is no position.
    """
    try:
        first, *rest = raw.decode("ascii", "replace").split(" ")
        return LowWater(Position.parse(first), Position.parse(rest[0]) if rest else None)
    except ValueError as error:
        message = f"{path} holds no position, but {raw[:40]!r}: somebody else has written it"
        raise DecodeError(message, path=path, raw=raw) from error
