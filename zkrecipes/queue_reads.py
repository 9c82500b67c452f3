"""Reads of items, sent at once and awaited later. Driver-free."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

from zkrecipes.calls import Call
from zkrecipes.errors import ZkRecipesError
from zkrecipes.port import Get, ReadMany, Refused
from zkrecipes.queue_layout import Slot
from zkrecipes.refusals import UnsupportedError, refusal_error
from zkrecipes.session import Session

__all__ = ["Reads"]


@final
class Reads:
    """In one request where the server has such a one, and in one flight otherwise.

    Args:
        session: The client's session.
        slots: Of the items.
    """

    def __init__(self, session: Session, slots: Sequence[Slot]) -> None:
        self._session = session
        self._reads = tuple(Get(slot.item) for slot in slots)
        self._together: Call[Any] | None = None
        self._single: list[Call[Any]] = []
        if len(self._reads) > 1 and session.watches.batches:
            self._together = session.call(ReadMany(self._reads))
        else:
            self._single = [session.call(read) for read in self._reads]

    async def results(self, until: float) -> list[Any]:
        """Data and Stat of each, or the error of its refusal.

        Raises:
            Unsettled: The connection ended, or the time came.
        """
        if self._together is not None:
            try:
                answers = await self._session.result(self._together, until)
            except UnsupportedError:
                self._single = [self._session.call(read) for read in self._reads]
            else:
                return [
                    refusal_error(read, answer.code) if isinstance(answer, Refused) else answer
                    for read, answer in zip(self._reads, answers, strict=True)
                ]
        results: list[Any] = []
        for call in self._single:
            try:
                results.append(await self._session.result(call, until))
            except ZkRecipesError as error:
                results.append(error)
        return results
