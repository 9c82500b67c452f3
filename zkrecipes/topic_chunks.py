"""Messages that do not fit into one node: their values in pieces, beside the segments. Driver-free.

Promises: the pieces are there before their message is; a message whose pieces are missing or damaged is told as such,
and holds up nothing behind it; pieces that no message needs (any more) are deleted: at once where their publish has
failed, otherwise by whoever trims: those of a message when its segment has been removed, those without one after an
hour.

Nodes: `<topic>/chunks/<guid>`, persistent, empty until the message is stored; then, set in the same multi, the number
of its segment. `<topic>/chunks/<guid>/<number>`: the pieces. The message holds their number, the size, and SHA-256.

Source: ours; Zuul shards large nodes, without the link between both.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from typing import Final, NamedTuple, final

from zkrecipes.core import Core
from zkrecipes.errors import (
    DecodeError,
    NodeExistsError,
    NodeNotFoundError,
    OutcomeUnknownError,
    TransactionError,
    ZkRecipesError,
)
from zkrecipes.port import Children, Create, Delete, Get, Multi, Set, Stat
from zkrecipes.roots import ensure
from zkrecipes.timing import Deadline
from zkrecipes.topic_layout import Chunks, Position, Record, TopicPlaces

__all__ = ["MAX_CHUNKED", "Outgoing", "Pieces", "outgoing"]

logger = logging.getLogger("zkrecipes.pubsub")

SINGLE: Final = 900_000
"""Bytes of a message that are stored in one node."""

PIECE: Final = 500_000
MAX_CHUNKED: Final = 16_000_000

ORPHANS: Final = 3600_000
"""Milliseconds after which pieces without a message are taken for left over."""

DISCARD_LIMIT: Final = 30.0


@final
class Outgoing(NamedTuple):
    """A message that is to be stored.

    Attributes:
        raw: What its node will hold.
        size: Bytes of the whole message.
        guid: Names its pieces; empty if it has none.
        pieces: Its value, cut up.
    """

    raw: bytes
    size: int
    guid: str = ""
    pieces: tuple[bytes, ...] = ()


def outgoing(record: Record, guid: str) -> Outgoing:
    """A message, cut up if it has to be."""
    raw = record.encode()
    if len(raw) <= SINGLE or len(raw) - len(record.payload) > PIECE:
        return Outgoing(raw, len(raw))  # if it is the header that is large, it is refused
    payload = record.payload
    pieces = tuple(payload[start : start + PIECE] for start in range(0, len(payload), PIECE))
    chunks = Chunks(guid, len(pieces), len(payload), hashlib.sha256(payload).hexdigest())
    return Outgoing(record._replace(payload=b"", chunks=chunks).encode(), len(raw), guid, pieces)


@final
class Pieces:
    """The pieces of one topic's messages.

    Args:
        core: The client's core.
        places: Of the topic.
        label: Of the topic, for messages.
    """

    def __init__(self, core: Core, places: TopicPlaces, label: str) -> None:
        self._core = core
        self._places = places
        self._label = label

    async def write(self, messages: Sequence[Outgoing], deadline: Deadline) -> None:
        """Store the pieces of messages, before these.

        Raises:
            UnavailableError: Not in time. No message is stored.
        """
        for message in messages:
            if message.pieces:
                group = self._places.group(message.guid)
                await ensure(self._core, (self._places.chunks, group), self._label, deadline)
                for number, piece in enumerate(message.pieces):
                    await self._write(self._places.piece(message.guid, number), piece, deadline)

    async def _write(self, path: str, piece: bytes, deadline: Deadline) -> None:
        create = Create(path, piece, acl=self._core.nodes.acl)
        while True:
            try:
                await self._core.ask(create, deadline, self._label)
            except NodeExistsError:
                return  # made by the request whose reply was lost: nobody else has this name
            except OutcomeUnknownError:
                if deadline.passed(self._core.runtime.now()):
                    raise self._core.session.unavailable(self._label) from None
            else:
                return

    def links(self, messages: Sequence[Outgoing], segment: int) -> tuple[Set, ...]:
        """For the multi that stores messages: their pieces are needed from then on, and are still there."""
        return tuple(Set(self._places.group(each.guid), b"%d" % segment, 0) for each in messages if each.pieces)

    def discard(self, messages: Sequence[Outgoing]) -> None:
        """Delete the pieces of messages that were not stored, and will not be; in the background."""
        for message in messages:
            if message.pieces:
                deadline = Deadline.after(DISCARD_LIMIT, self._core.runtime.now())
                name = f"delete what is left of a message for {self._label}"
                self._core.runtime.spawn(self._delete(self._places.group(message.guid), 0, deadline), name)

    async def whole(self, raw: bytes, path: str, deadline: Deadline) -> bytes | DecodeError | None:
        """A message with its value; None if it is whole already.

        What comes back is verified by `Record.decode`.

        Raises:
            UnavailableError: No server answered in time.
        """
        try:
            record = Record.decode(raw, path, whole=False)
        except DecodeError:
            return None  # told when it is decoded
        chunks = record.chunks
        if chunks is None or record.payload:
            return None
        pieces: list[bytes] = []
        for number in range(chunks.pieces):
            piece = self._places.piece(chunks.guid, number)
            try:
                data, _ = await self._core.ask(Get(piece), deadline, self._label)
            except NodeNotFoundError:
                message = (
                    f"{path} has its value in {chunks.pieces} pieces, of which number {number} is not there: somebody "
                    "has deleted it, or the message was removed before it was read"
                )
                return DecodeError(message, path=path, raw=raw)
            pieces.append(data)
        return record._replace(payload=b"".join(pieces)).encode()

    # --- what is not needed any more ----------------------------------------------------------------------------------

    async def collect(self, low: Position, deadline: Deadline) -> None:
        """Delete the pieces of messages in segments before the low-water, and those that have had no message for long.

        Args:
            low: The low-water.
            deadline: The end.
        """
        time = self._core.server_time.at_least()
        try:
            guids: list[str] = await self._core.ask(Children(self._places.chunks), deadline, self._label)
        except NodeNotFoundError:
            return
        for guid in sorted(guids):
            group = self._places.group(guid)
            try:
                data, stat = await self._core.ask(Get(group), deadline, self._label)
            except NodeNotFoundError:
                continue
            if _is_over(data, stat, low, time):
                await self._delete(group, stat.version, deadline)

    async def _delete(self, group: str, version: int, deadline: Deadline) -> None:
        """Pieces and all, in one: who stores their message meanwhile is refused, or refuses this."""
        try:
            names: list[str] = await self._core.ask(Children(group), deadline, self._label)
            operations = (*(Delete(f"{group}/{name}") for name in sorted(names)), Delete(group, version))
            await self._core.ask(Multi(operations), deadline, self._label)
        except (NodeNotFoundError, TransactionError, OutcomeUnknownError):
            return  # somebody else has, or it is looked at again with the next trim
        except ZkRecipesError as error:
            logger.info("Pieces of a message stay at %s until the next trim: %s", group, error)


def _is_over(data: bytes, stat: Stat, low: Position, time: int | None) -> bool:
    if not data:
        return time is not None and stat.ctime < time - ORPHANS
    return data.isdigit() and int(data) < low.segment
