"""Subscribers that are here: one ephemeral node each, made again with each session. Driver-free."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, final

from zkrecipes.calls import Unsettled
from zkrecipes.errors import NodeNotFoundError, ZkRecipesError
from zkrecipes.flow import Pending, first_of
from zkrecipes.nodes import Attempt
from zkrecipes.port import Create, Kind, Set
from zkrecipes.timing import NEVER
from zkrecipes.topic_layout import Member
from zkrecipes.topic_log import Log

__all__ = ["Presence"]

logger = logging.getLogger("zkrecipes.pubsub")

EVERY: Final = 2.0
"""Seconds between two tellings of the position, at least: not one for each message."""


@final
class Presence:
    """Keeps one subscriber visible until it is closed.

    Args:
        log: The topic.
        member: What is told of it now.
        closed: Done when it is over.
        dropped: Whether nobody has the subscription any more, though it was not closed.
    """

    def __init__(
        self, log: Log, member: Callable[[], Member], closed: Pending[None], dropped: Callable[[], bool]
    ) -> None:
        self._log = log
        self._member = member
        self._closed = closed
        self._dropped = dropped
        self._attempt: Attempt | None = None
        self._told = b""

    async def keep(self) -> None:
        """Runs until it, or the client, is closed, or it is dropped."""
        session, runtime = self._log.core.session, self._log.core.runtime
        while not self._closed.done and not session.closed and not self._dropped():
            if session.usable:
                try:
                    await self._tell()
                except Unsettled:
                    pass  # the connection is being lost, or was
                except NodeNotFoundError:
                    self._attempt = None  # somebody has deleted it, or the whole topic
                except ZkRecipesError as error:
                    logger.warning("A subscriber of %s cannot show itself: %s", self._log.label, error)
            await first_of(session.changed, self._closed, until=runtime.now() + EVERY)
        if self._attempt is not None:
            self._log.core.nodes.remove(self._attempt)

    async def _tell(self) -> None:
        core, member = self._log.core, self._member().encode()
        attempt = self._attempt
        if attempt is not None and attempt.session_id == core.session.id and attempt.path is not None:
            if member != self._told:
                await core.session.result(core.session.call(Set(attempt.path, member), attempt.session_id), NEVER)
                self._told = member
            return
        parent = self._log.places.members
        path = f"{parent}/{core.runtime.unique()}"
        # Registered before it is sent: if its reply is lost, it is removed, and another one made.
        attempt = core.nodes.attempt(parent, "", path)
        create = Create(path, member, Kind.EPHEMERAL, acl=core.nodes.acl)
        try:
            await core.session.result(core.session.call(create, attempt.session_id), NEVER)
        except Unsettled:
            core.nodes.remove(attempt)
            raise
        except ZkRecipesError:
            attempt.settle()
            raise
        self._attempt, self._told = attempt, member
