"""What a persistent watch tells of the segment that is written to. Driver-free; under the step lock.

One watch a segment, not one a message: following then costs the message's own read, and nothing else. It tells each
message that is made, while it is armed; what was there before is for the follower to look at.
"""

from __future__ import annotations

from typing import final

from zkrecipes.calls import Call
from zkrecipes.flow import Pending
from zkrecipes.port import NodeEvent
from zkrecipes.session import Session
from zkrecipes.topic_layout import message_index
from zkrecipes.watching import follow, unfollow

__all__ = ["Tail"]


@final
class Tail:
    """The watch on one segment, on the present connection.

    Args:
        session: The session.
        path: Of the segment.

    Attributes:
        armed: The request that arms it.
        broken: Done when it has ended with its connection.
        newest: Number of the newest message that was told; -1 where none was.
        clear: Number of a message that was absent after arming: all from there on are told. None: not looked yet.
        news: Done when a message is told; another one for each.
    """

    def __init__(self, session: Session, path: str) -> None:
        self.path = path
        self.newest = -1
        self.clear: int | None = None
        self.news: Pending[None] = Pending()
        self.broken = session.broken
        self._session = session
        self.armed: Call[None] = follow(session, path, self._told)

    @property
    def over(self) -> bool:
        """Whether it tells nothing any more."""
        return self.broken.done or self.armed.failed

    def looked(self, index: int) -> bool:
        """Whether it is known that a message is told when it is made, or has been told."""
        return self.newest >= index or (self.clear is not None and self.clear <= index)

    def close(self) -> None:
        """Take the watch off."""
        unfollow(self._session, self.path, self._told)

    def _told(self, path: str, event: NodeEvent) -> None:
        if event is NodeEvent.CREATED:
            index = message_index(path[len(self.path) + 1 :])
            if index is not None and index > self.newest:
                self.newest = index
                news, self.news = self.news, Pending()
                news.resolve(None)
