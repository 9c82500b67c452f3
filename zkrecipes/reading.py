"""Many reads: a few requests on their way at a time, many nodes in each where the server can. Driver-free."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple, final

from zkrecipes.calls import Call, Unsettled
from zkrecipes.errors import ZkRecipesError
from zkrecipes.flow import Pending
from zkrecipes.port import Children, Exists, Get, ReadMany, Refused, Request, Stat
from zkrecipes.refusals import UnsupportedError, refusal_error
from zkrecipes.session import Session
from zkrecipes.timing import NEVER

__all__ = ["WINDOW", "Again", "Reader"]

WINDOW: Final = 8
SINGLES: Final = 64
"""Requests of one reader on their way at a time: locks of the same client must not queue behind ten thousand. More of
those for single nodes, each of which costs little but its turn on the network."""

LEAST: Final = 2
BATCH: Final = 100
BATCH_BYTES: Final = 1 << 20
UNKNOWN_BYTES: Final = 1 << 15
"""What a node is taken to have, before any has been read."""

PATH_BYTES: Final = 1 << 18
"""A request with more than a mebibyte of paths would cost the connection."""

FLIGHT: Final = WINDOW * BATCH
FLIGHT_BYTES: Final = 2 * BATCH_BYTES
"""Nodes, and bytes of answers, on their way, about. Much more than that a slow network brings so late that the session
takes the server for silent, makes the connection anew, and everything is asked for again, without an end."""


class Again(Exception):  # noqa: N818 - no error: the other way of doing it is taken now
    """The server cannot do it this way; the session knows by now."""


@final
class Reader:
    """Reads for one mirror, until `closed` is done."""

    def __init__(self, session: Session, closed: Pending[None]) -> None:
        self._session = session
        self._closed = closed
        self._bytes_each: dict[type[Request], float] = dict.fromkeys((Get, Exists, Children), UNKNOWN_BYTES)
        self._flight: float = FLIGHT

    async def read(self, reads: Sequence[Get | Exists | Children], take: Callable[[str, Any], None]) -> None:
        """Read without watches, and take each answer, in order: what was read, or the error of the refusal.

        Raises:
            Unsettled: The connection ended, or the reader was closed.
            Again: It must be begun again.
        """

        def took(call: Call[Any], answer: Any) -> None:
            request = call.request
            if not isinstance(request, ReadMany):
                take(request.path, answer)  # type: ignore[union-attr]  # only reads are sent here
            elif isinstance(answer, ZkRecipesError):
                # Not one of the reads was refused, but all of them, as by a server that is too busy.
                raise Unsettled(written=True) from answer
            else:
                self._take_many(request, answer, take)

        await self.ask(self._batches(reads), took)

    def _take_many(self, request: ReadMany, answer: Sequence[Any], take: Callable[[str, Any], None]) -> None:
        for read, part in zip(request.reads, answer, strict=True):
            if isinstance(part, Refused):
                take(read.path, refusal_error(read, part.code, namespace=self._session.namespace))
            else:
                take(read.path, part)

    def _batches(self, reads: Sequence[Get | Exists | Children]) -> Iterable[Request]:
        batch: list[Get | Children] = []
        paths = 0
        for number, read in enumerate(reads, start=1):
            if isinstance(read, Exists) or not self._session.watches.batches or len(reads) == 1:
                yield read
                continue
            batch.append(read)
            paths += 4 * len(read.path)  # as UTF-8, at most
            # Answers of a size that neither side has trouble with, as far as those before them tell.
            most = min(BATCH, self._flight / LEAST, BATCH_BYTES / self._bytes_each[type(read)])
            if len(batch) >= most or paths >= PATH_BYTES or number == len(reads):
                yield ReadMany(tuple(batch))
                batch, paths = [], 0

    async def ask(self, requests: Iterable[Request], take: Callable[[Call[Any], Any], None]) -> None:
        """Send requests, and take the answers in order: a refusal is an answer, too. Raises as `read`."""
        asked: deque[_Asked] = deque()
        nodes, size = 0, 0.0
        try:
            for request in requests:
                reads = _reads(request)
                expected = len(reads) * self._bytes_each[type(reads[0])]
                window = WINDOW if isinstance(request, ReadMany) else SINGLES
                while len(asked) >= LEAST and (
                    len(asked) >= window or nodes + len(reads) > self._flight or size + expected > FLIGHT_BYTES
                ):
                    first = asked.popleft()
                    await self._finish(first.call, take)
                    nodes, size = nodes - first.nodes, size - first.size
                if not self._session.usable:
                    # The client may have been closed since the last wait, which ends a reading and is no error of it.
                    raise Unsettled(written=False)
                asked.append(_Asked(self._session.call(request), len(reads), expected))
                nodes, size = nodes + len(reads), size + expected
            while asked:
                await self._finish(asked.popleft().call, take)
        except Unsettled:
            # Perhaps it was too much for this network. Less at a time from here on; with each answer it grows again.
            if nodes > 1:
                self._flight = max(nodes / 4, 1.0)
            raise
        finally:
            for each in asked:
                self._session.withdraw(each.call)

    async def _finish(self, call: Call[Any], take: Callable[[Call[Any], Any], None]) -> None:
        try:
            answer = await self._session.result(call, NEVER, self._closed)
        except UnsupportedError as error:
            raise Again from error
        except ZkRecipesError as error:
            answer = error
        self._learn(call.request, answer)
        take(call, answer)

    def _learn(self, request: Request, answer: Any) -> None:
        reads = _reads(request)
        self._flight = min(self._flight + len(reads), FLIGHT)
        kind = type(reads[0])
        before = self._bytes_each[kind]
        if isinstance(request, ReadMany) and not isinstance(answer, ZkRecipesError):
            self._bytes_each[kind] = (before + sum(map(_size, answer)) / len(reads)) / 2
        else:
            # A single small one, such as a root, says little about those below it.
            self._bytes_each[kind] = max((before + _size(answer)) / 2, min(before, UNKNOWN_BYTES))


@final
class _Asked(NamedTuple):
    """A request on its way: how many nodes it asks for, and how many bytes of an answer are expected."""

    call: Call[Any]
    nodes: int
    size: float


def _reads(request: Request) -> Sequence[Request]:
    return request.reads if isinstance(request, ReadMany) else (request,)


def _size(answer: Any) -> int:
    """About how many bytes an answer about one node took."""
    if isinstance(answer, list):
        return 20 + 20 * len(answer)
    if isinstance(answer, Stat | Refused) or not isinstance(answer, tuple):
        return 100
    return 100 + len(answer[0])
