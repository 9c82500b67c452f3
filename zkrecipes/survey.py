"""Who stands in a line, seen from outside. Driver-free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from zkrecipes.calls import Unsettled
from zkrecipes.core import Core
from zkrecipes.errors import NodeNotFoundError
from zkrecipes.patience import Place
from zkrecipes.port import Children, Get
from zkrecipes.timing import Deadline

__all__ = ["Contender", "survey"]


@final
@dataclass(frozen=True, slots=True)
class Contender:
    """One contender in a line.

    Attributes:
        identity: What it calls itself; of a Curator lock without data, its address.
        token: Its fencing token.
        holder: Whether it was first when we looked.
        node: The name of its node.
        data: What an elected leader has proclaimed; empty otherwise.
    """

    identity: str
    token: int
    holder: bool
    node: str
    data: bytes = b""


async def survey(core: Core, place: Place, deadline: Deadline) -> list[Contender]:
    """The contenders in order, the holder first; empty if there is no such path.

    Raises:
        ForeignNodeError: The path holds nodes of another recipe or layout.
        UnavailableError: No server answered before the deadline.
    """
    session = core.session
    while True:
        try:
            names = await core.ask(Children(place.path), deadline, place.label)
        except NodeNotFoundError:
            return []
        members = place.layout.members(place.label, names)
        reads = [(member.name, session.call(Get(f"{place.path}/{member.name}"))) for member in members]
        found: list[tuple[int, str, str]] = []
        try:
            for name, read in reads:
                try:
                    data, stat = await session.result(read, deadline.at)
                except NodeNotFoundError:
                    continue  # gone since the listing
                found.append((stat.czxid, name, data.decode("utf-8", "replace")))
        except Unsettled:
            await session.ready(deadline.at, place.label)
            continue
        # The order of creation, whatever the numbers say.
        found.sort()
        return [Contender(identity, token, index == 0, name) for index, (token, name, identity) in enumerate(found)]
