"""What a configuration looks at: its nodes, kept up to date by mirrors, and put together to one look.

In the tree layout a mirror may show some nodes before a release and some behind it. The root's digest tells; where it
does not fit, the nodes are read once more, with the root read again behind them: what other tools have written field
by field never fits, and is taken as it is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final, TypeVar, final

from pydantic import BaseModel

from zkrecipes.config_apply import Fingerprint, Look
from zkrecipes.config_releases import Publisher
from zkrecipes.config_store import Head
from zkrecipes.config_tree import digest, digest_of
from zkrecipes.core import Core
from zkrecipes.errors import UnavailableError, ZkRecipesError
from zkrecipes.known import Seen
from zkrecipes.mirror import Mirror
from zkrecipes.scope import Scope
from zkrecipes.timing import Deadline

__all__ = ["Sight"]

M = TypeVar("M", bound=BaseModel)

logger = logging.getLogger("zkrecipes.config")

LIMIT: Final = 30.0
AUDIT: Final = 15.0
"""Seconds after which the nodes are read even if nothing was told: no watch fires for who may not read for a while."""


@final
class Sight:
    """The mirrors of one configuration. Under the step lock, but for `whole`.

    Args:
        core: The client's.
        publisher: The nodes, and how documents are put together.
        shared: Full paths of the global nodes, by their paths.
        touched: Called when something has changed, or may not be fresh any more.
    """

    def __init__(
        self, core: Core, publisher: Publisher[M], shared: Mapping[str, str], touched: Callable[[], None]
    ) -> None:
        self._core = core
        self._store = publisher.store
        self._assembled = publisher.drafts.assembled
        self._shared = shared
        self._touched = touched
        places, label = publisher.store.places, publisher.label
        single = (places.document, *shared.values(), places.canary)
        self._mirrors = [Mirror(core, Scope(single, depth=0), audit=AUDIT, label=label)]
        if self._store.tree:
            scope = Scope((places.document,), depth=None, shows_roots=False)
            self._mirrors.append(Mirror(core, scope, audit=AUDIT, label=label))
        for mirror in self._mirrors:
            mirror.observers.append(lambda _path: touched())
        self._reading = False
        self._closed = False
        self._read: tuple[Fingerprint, Head] | None = None

    async def start(self, deadline: Deadline) -> None:
        """Begin, and wait until everything has been read once."""
        failed: ZkRecipesError | None = None
        for mirror in self._mirrors:
            try:
                # Each is begun, even if the time is up with the first: it goes on until it is closed.
                await mirror.start(deadline)
            except ZkRecipesError as error:
                failed = failed or error
        if failed is not None:
            raise failed

    async def close(self, seconds: float) -> None:
        """End it."""
        self._closed = True
        for mirror in self._mirrors:
            await mirror.close(seconds)

    @property
    def fresh(self) -> bool:
        """Whether everything is as new as can be known."""
        usable = self._core.session.usable and not self._core.runtime.forked()
        return usable and all(mirror.fresh for mirror in self._mirrors)

    @property
    def initialized(self) -> bool:
        """Whether everything has been read once."""
        return all(mirror.initialized for mirror in self._mirrors)

    @property
    def denied(self) -> ZkRecipesError | None:
        """Why something may not be read."""
        return next((error for mirror in self._mirrors for error in mirror.refused.values()), None)

    def look(self) -> Look:
        """What is known now."""
        nodes, places = self._mirrors[0].nodes, self._store.places
        shared = {path: nodes.get(full) for path, full in self._shared.items()}
        look = Look(nodes.get(places.document), shared, nodes.get(places.canary))
        if not self._store.tree:
            return look
        root = f"{places.document}/"
        branches = self._mirrors[1].nodes.items()
        return replace(look, branches={path.removeprefix(root): seen for path, seen in branches if path != root[:-1]})

    def whole(self, look: Look) -> Look | None:
        """The look with its document, of one release; None if that is being read, and `touched` will be called.

        On the dispatcher.
        """
        if look.branches is None or look.document is None:
            return look
        nodes = {path: seen.data for path, seen in look.branches.items()}
        if digest_of(look.document.data) == digest(nodes.items()):
            return replace(look, document=Seen(self._assembled(b"", nodes), look.document.stat))
        with self._core.runtime.lock:
            read = self._read
            if read is None or read[0] != look.fingerprint:
                if not self._reading:
                    self._reading = True
                    self._core.runtime.spawn(self._read_whole(look.fingerprint), f"tree of {self._store.label}")
                return None
        head = read[1]
        if head.stat is None or head.branches is None:
            return None  # deleted since; the mirror tells
        nodes = {path: data for path, (data, _) in head.branches.items()}
        return replace(look, document=Seen(self._assembled(head.data or b"", nodes), head.stat))

    async def _read_whole(self, fingerprint: Fingerprint) -> None:
        session = self._core.session
        try:
            # To the end: the mirrors may have nothing more to tell when a connection is there again.
            while not self._closed and not session.closed and session.fatal is None:
                try:
                    head = await self._store.head(Deadline.after(LIMIT, self._core.runtime.now()))
                except UnavailableError:
                    continue
                self._read = (fingerprint, head)
                break
        except ZkRecipesError as error:
            logger.debug("%s: the mirror will tell: %s", self._store.label, error)
        finally:
            self._reading = False
        self._touched()
