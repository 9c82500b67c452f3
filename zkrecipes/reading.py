"""Many reads: a few requests on their way at a time, many nodes in each where the server can. Driver-free."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, final

from zkrecipes.calls import Call, Unsettled
from zkrecipes.errors import ZkRecipesError
from zkrecipes.flow import Pending
from zkrecipes.port import Children, Exists, Get, ReadMany, Refused, Request
from zkrecipes.refusals import UnsupportedError, refusal_error
from zkrecipes.session import Session
from zkrecipes.timing import NEVER

__all__ = ["WINDOW", "Again", "Reader"]

WINDOW: Final = 16
SINGLES: Final = 64
"""Requests of one reader on their way at a time: locks of the same client must not queue behind ten thousand. More of
those for single nodes, each of which costs little but its turn on the network."""

BATCH: Final = 100
BATCH_BYTES: Final = 1 << 20
PATH_BYTES: Final = 1 << 18
"""A request with more than a mebibyte of paths would cost the connection."""


class Again(Exception):  # noqa: N818 - no error: the other way of doing it is taken now
    """The server cannot do it this way; the session knows by now."""


@final
class Reader:
    """Reads for one mirror, until `closed` is done."""

    def __init__(self, session: Session, closed: Pending[None]) -> None:
        self._session = session
        self._closed = closed
        self._bytes_each = BATCH_BYTES / 32

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
        size = 0
        for read, part in zip(request.reads, answer, strict=True):
            if isinstance(part, Refused):
                take(read.path, refusal_error(read, part.code, namespace=self._session.namespace))
            else:
                size += len(part) * 20 if isinstance(part, list) else len(part[0]) + 100
                take(read.path, part)
        self._bytes_each = (self._bytes_each + size / len(answer)) / 2

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
            full = paths >= PATH_BYTES or len(batch) >= min(BATCH, BATCH_BYTES / max(self._bytes_each, 1.0))
            if full or number == len(reads):
                yield ReadMany(tuple(batch))
                batch, paths = [], 0

    async def ask(self, requests: Iterable[Request], take: Callable[[Call[Any], Any], None]) -> None:
        """Send requests, and take the answers in order: a refusal is an answer, too. Raises as `read`."""
        calls: deque[Call[Any]] = deque()
        try:
            for request in requests:
                if len(calls) >= (WINDOW if isinstance(request, ReadMany) else SINGLES):
                    await self._finish(calls.popleft(), take)
                calls.append(self._session.call(request))
            while calls:
                await self._finish(calls.popleft(), take)
        finally:
            for call in calls:
                self._session.withdraw(call)

    async def _finish(self, call: Call[Any], take: Callable[[Call[Any], Any], None]) -> None:
        try:
            answer = await self._session.result(call, NEVER, self._closed)
        except UnsupportedError as error:
            raise Again from error
        except ZkRecipesError as error:
            answer = error
        take(call, answer)
