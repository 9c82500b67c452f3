"""Every event of a KazooClient's connection, in order with its answers.

kazoo keeps its own tables of watches, and takes a watch out of them with its first event: the events of persistent
watches are lost to its callbacks. So the method that reads an event is covered, on the one connection object that a
client has for life. kazoo's own reading goes on underneath, for whoever else uses a borrowed client.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, final

from kazoo.client import KazooClient

__all__ = ["listen", "unlisten"]

logger = logging.getLogger("zkrecipes.wire")

Listener = Callable[[bytes, int], None]
"""Called on kazoo's connection thread with a frame and the offset of the event in it."""

_METHOD = "_read_watch_event"

# Transports on one borrowed client come and go in any threads.
_lock = threading.Lock()


@final
class _Tap:
    """Stands in the place of one connection's method."""

    def __init__(self, connection: Any) -> None:
        self.listeners: tuple[Listener, ...] = ()
        self._covered = getattr(connection, _METHOD)

    def __call__(self, buffer: bytes, offset: int) -> Any:
        for listener in self.listeners:
            try:
                listener(buffer, offset)
            except Exception:
                # It would end kazoo's connection thread, and with it every other call.
                logger.exception("An event could not be told; please report this")
        return self._covered(buffer, offset)


def listen(kazoo: KazooClient, listener: Listener) -> None:
    """Call `listener` with each event that comes from now on."""
    connection = kazoo._connection  # noqa: SLF001 - this module's business
    with _lock:
        tap = vars(connection).get(_METHOD)
        if not isinstance(tap, _Tap):
            tap = _Tap(connection)
            setattr(connection, _METHOD, tap)
        tap.listeners = (*tap.listeners, listener)


def unlisten(kazoo: KazooClient, listener: Listener) -> None:
    """The end of `listen`; the last one restores what was there before. May be called again."""
    connection = kazoo._connection  # noqa: SLF001 - this module's business
    with _lock:
        tap = vars(connection).get(_METHOD)
        if isinstance(tap, _Tap):
            tap.listeners = tuple(other for other in tap.listeners if other != listener)
            if not tap.listeners:
                delattr(connection, _METHOD)
