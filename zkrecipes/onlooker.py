"""An election seen from outside: who leads, who waits, and when that changes. Driver-free."""

from __future__ import annotations

from typing import Any, Final, final

from zkrecipes.calls import Call, Unsettled
from zkrecipes.core import Core, DefaultTimeout
from zkrecipes.errors import ClosedError, NodeNotFoundError
from zkrecipes.flow import Pending, first_of
from zkrecipes.leadership import decode_proclaimed, proclaimed_path
from zkrecipes.patience import Place
from zkrecipes.port import Children, Exists, Get
from zkrecipes.survey import Contender, survey
from zkrecipes.timing import NEVER, Deadline, Timeout

__all__ = ["NOTHING", "Nothing", "Onlooker"]


@final
class Nothing:
    """Nobody has been seen yet; `None` means that nobody leads."""


NOTHING: Final = Nothing()


class Onlooker:
    """Looks at one election."""

    def __init__(self, core: Core, place: Place) -> None:
        self.core = core
        self.place = place
        self.label = place.label

    async def participants(self, timeout: Timeout | DefaultTimeout) -> list[Contender]:
        """The leader, then who waits."""
        deadline = self.core.deadline(timeout)
        line = await survey(self.core, self.place, deadline)
        if line:
            line[0] = await self._with_data(line[0], deadline)
        return line

    async def leader(self, timeout: Timeout | DefaultTimeout) -> Contender | None:
        """Who leads."""
        line = await self.participants(timeout)
        return line[0] if line else None

    async def _with_data(self, leader: Contender, deadline: Deadline) -> Contender:
        try:
            raw, _ = await self.core.ask(Get(proclaimed_path(self.place.path)), deadline, self.label)
        except NodeNotFoundError:
            return leader
        return _proclaimed(leader, raw)

    async def next_leader(self, last: Contender | Nothing | None, closed: Pending[None]) -> Contender | None:
        """Wait until the leader is another than `last`, or proclaims something else; the newest state counts.

        Raises:
            ClosedError: The observation, or the client, was closed.
        """
        session = self.core.session
        while True:
            if closed.done:
                message = f"the observation of {self.label} is closed"
                raise ClosedError(message, path=self.label)
            session.check_open(self.label)
            if not session.usable:
                await first_of(session.changed, closed)
                continue
            try:
                leader, watches = await self._look()
            except Unsettled:
                await first_of(session.changed, closed, until=self.core.runtime.now() + session.timeout / 6)
                continue
            if leader != last:
                return leader
            await first_of(*watches, session.changed, closed)

    async def _look(self) -> tuple[Contender | None, list[Pending[None]]]:
        """The leader, and what fires when that may have changed."""
        while True:
            look = await self._look_once()
            if look is not None:
                return look

    async def _look_once(self) -> tuple[Contender | None, list[Pending[None]]] | None:
        """None if it changed while we looked."""
        session, path, data_path = self.core.session, self.place.path, proclaimed_path(self.place.path)
        listed = session.call(Children(path, watch=True))
        try:
            names = await self._answer(listed)
        except NodeNotFoundError:
            there = session.call(Exists(path, watch=True))
            return (None, _watches(there)) if await self._answer(there) is None else None
        if not names:
            return None, _watches(listed)
        # Who joins behind the leader changes nothing, so only the leader's node is watched.
        line = await survey(self.core, self.place, self.core.deadline(None))
        if not line:
            return None
        leader = line[0]
        node = session.call(Exists(f"{path}/{leader.node}", watch=True))
        proclaimed = session.call(Exists(data_path, watch=True))
        data = session.call(Get(data_path))
        if await self._answer(node) is None:
            return None
        await self._answer(proclaimed)
        try:
            raw, _ = await self._answer(data)
        except NodeNotFoundError:
            return leader, _watches(node, proclaimed)
        return _proclaimed(leader, raw), _watches(node, proclaimed)

    async def _answer(self, call: Call[Any]) -> Any:
        return await self.core.session.result(call, NEVER)


def _proclaimed(leader: Contender, raw: bytes) -> Contender:
    data = decode_proclaimed(raw, leader.token)
    return Contender(leader.identity, leader.token, leader.holder, leader.node, data)


def _watches(*calls: Call[Any]) -> list[Pending[None]]:
    return [call.watch for call in calls if call.watch is not None]
