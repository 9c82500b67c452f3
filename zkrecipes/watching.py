"""How algorithms follow nodes: watches asked for, and taken off the server when nobody needs them. Driver-free."""

from __future__ import annotations

from typing import Any

from zkrecipes.calls import Call
from zkrecipes.port import AddWatch, Request
from zkrecipes.session import Session
from zkrecipes.watches import Feed

__all__ = ["follow", "forget", "unfollow"]


def follow(session: Session, root: str, feed: Feed) -> Call[None]:
    """Arm a persistent watch, for this connection, and feed it what is told of the root and all below."""
    session.watches.follow(root, feed)
    return session.call(AddWatch(root))


def unfollow(session: Session, root: str, feed: Feed) -> None:
    """The end of `follow`. The server's watch goes, too, when nobody else follows that root."""
    _remove(session, session.watches.unfollow(root, feed))


def forget(session: Session, call: Call[Any]) -> None:
    """Nobody waits for this call's watch any more. The server's watch goes, too, when nobody else does."""
    _remove(session, session.watches.forget(call))


def _remove(session: Session, request: Request | None) -> None:
    # The answer does not matter: a watch that has fired, or ended with its connection, is gone as well.
    if request is not None and session.usable and session.watches.removable:
        session.call(request)
