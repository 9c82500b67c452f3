"""What an instance tells the others: an ephemeral node with the release that it runs. Driver-free.

Promises: one node an instance and session, made anew in each session, with the newest state; it goes with the service.
Best effort: who may not write is a reader all the same, and is told once in the log.
"""

from __future__ import annotations

import logging
from typing import Final, final

from zkrecipes.calls import Unsettled
from zkrecipes.config_store import Store
from zkrecipes.errors import AccessDeniedError, NodeExistsError, NodeNotFoundError, ZkRecipesError
from zkrecipes.flow import Pending, first_of
from zkrecipes.port import Create, Kind, Set
from zkrecipes.timing import NEVER, Deadline

__all__ = ["Report"]

logger = logging.getLogger("zkrecipes.config")

PAUSE: Final = 0.05


@final
class Report:
    """Keeps the node. All under the step lock.

    Args:
        store: The configuration's nodes.
        identity: The instance's id.
    """

    def __init__(self, store: Store, identity: str) -> None:
        self._store = store
        self._core = store.core
        self._identity = identity
        self._wanted: bytes | None = None
        self._written: bytes | None = None
        self._path = ""
        self._made_in = 0
        self._made = False
        self._closed: Pending[None] = Pending()
        self._woken: Pending[None] = Pending()
        self._running = False

    def tell(self, raw: bytes) -> None:
        """Report this from now on."""
        self._wanted = raw
        self._woken.resolve(None)
        if not self._running and not self._closed.done:
            self._running = True
            self._core.runtime.spawn(self._keep(), f"report of {self._store.label}")

    def close(self) -> None:
        """Remove the node, in the background if need be."""
        self._closed.resolve(None)

    async def _keep(self) -> None:
        session = self._core.session
        try:
            while not self._closed.done and not session.closed and session.fatal is None:
                if self._made_in == session.id and self._written is self._wanted:
                    self._woken = Pending()
                    await first_of(self._woken, session.changed, self._closed)
                elif not session.usable:
                    await first_of(session.changed, self._closed)
                else:
                    await self._write()
        except AccessDeniedError as denied:
            logger.warning("%s: this instance does not report what it runs: %s", self._store.label, denied)
        except ZkRecipesError as error:
            if not session.closed:
                logger.warning("%s: this instance reports no more: %s", self._store.label, error)
        finally:
            if self._path:
                # Whether it was made or not: the reaper looks, while the session lives.
                attempt = self._core.nodes.attempt("", "", self._path)
                attempt.trace.session_id = self._made_in
                self._core.nodes.remove(attempt)

    async def _write(self) -> None:
        session, wanted = self._core.session, self._wanted or b""
        if self._made_in != session.id:
            self._path = self._store.places.instance(self._identity, self._core.runtime.unique())
            self._made_in, self._made, self._written = session.id, False, None
        create = Create(self._path, wanted, Kind.EPHEMERAL, acl=self._core.nodes.acl)
        request = Set(self._path, wanted) if self._made else create
        try:
            await session.result(session.call(request, self._made_in), NEVER, self._closed)
        except NodeExistsError:
            self._made = True  # by an attempt of ours before, whose reply was lost: its name is unique
        except NodeNotFoundError:
            if not self._made:
                await self._store.ensure(self._store.places.instances, Deadline.after(None, 0.0))
            self._made = False
        except Unsettled:
            await first_of(session.changed, self._closed, until=self._core.runtime.now() + PAUSE)
        else:
            self._made, self._written = True, wanted
