"""A canary as one instance sees it: when it is over, and how it is ended at the first refusal. Driver-free."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, TypeVar, final

from pydantic import BaseModel

from zkrecipes.config_apply import InForce, Look
from zkrecipes.config_releases import Publisher
from zkrecipes.config_types import Rollout
from zkrecipes.core import Core
from zkrecipes.errors import OutcomeUnknownError, UnavailableError, ZkRecipesError
from zkrecipes.port import Get
from zkrecipes.timing import Deadline

__all__ = ["CanaryWatch"]

M = TypeVar("M", bound=BaseModel)

logger = logging.getLogger("zkrecipes.config")

LIMIT: Final = 30.0


@final
class CanaryWatch:
    """One instance's part in roll-outs.

    Args:
        core: The client's.
        publisher: The nodes, and how a canary is ended.
        touch: Called when there is something to look at again.
    """

    def __init__(self, core: Core, publisher: Publisher[M], touch: Callable[[], None]) -> None:
        self._core = core
        self._label = publisher.label
        self._document = publisher.store.places.document
        self._end = publisher.end_canary
        self._touch = touch
        self._confirmed = ""
        self._confirming = False

    def must_confirm(self, old: InForce[M] | None, look: Look) -> bool:
        """Whether a canary that has gone may have been promoted, though the document does not show it yet.

        Both happen at once on the server, but two nodes are read by two requests. To go back to the old document for
        that moment, and forward again, would be two changes that nobody has made.
        """
        if old is None or old.rollout is None or old.look.canary is None or look.document is None:
            return False
        if look.canary is not None and look.canary.stat.czxid == old.look.canary.stat.czxid:
            return False  # it runs
        stat = look.document.stat
        if (stat.version, stat.czxid) != (old.rollout.base, old.rollout.base_czxid):
            return False
        if self._confirmed == old.rollout.id:
            return False
        with self._core.runtime.lock:
            if not self._confirming:
                self._confirming = True
                self._core.runtime.spawn(self._confirm(old.rollout, stat.mzxid), f"canary of {self._label} has ended")
        return True

    async def _confirm(self, rollout: Rollout, mzxid: int) -> None:
        """Read the document behind the news that the canary is gone."""
        session = self._core.session
        try:
            # To the end: the mirror may have nothing more to tell when a connection is there again.
            while not session.closed and session.fatal is None:
                deadline = Deadline.after(LIMIT, self._core.runtime.now())
                try:
                    _, stat = await self._core.ask(Get(self._document), deadline, self._label)
                except UnavailableError:
                    continue
                if stat.mzxid == mzxid:
                    self._confirmed = rollout.id
                break
        except ZkRecipesError as error:
            logger.debug("%s: the mirror will tell: %s", self._label, error)
        finally:
            self._confirming = False
        self._touch()

    def abort(self, rollout: Rollout, reason: str) -> None:
        """End a canary that this instance refuses, in the background."""
        self._core.runtime.spawn(self._abort(rollout, reason), f"abort of a canary of {self._label}")

    async def _abort(self, rollout: Rollout, reason: str) -> None:
        session = self._core.session
        while not session.closed and session.fatal is None:
            deadline = Deadline.after(LIMIT, self._core.runtime.now())
            try:
                if await self._end(rollout, reason, deadline):
                    logger.warning("%s: the canary %s was aborted: this instance refuses it", self._label, rollout.id)
            except (UnavailableError, OutcomeUnknownError):
                continue  # a canary that is refused must not run on because of an outage
            except ZkRecipesError as error:
                logger.warning("%s: the canary %s could not be aborted: %s", self._label, rollout.id, error)
            return
