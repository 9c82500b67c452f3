"""What is in force, and what can be told of it. The same for threads and asyncio."""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import Enum
from typing import Generic, TypeVar, final

from pydantic import BaseModel

from zkrecipes.config_apply import InForce, Origin, Rejection
from zkrecipes.config_releases import Script
from zkrecipes.config_sight import Sight
from zkrecipes.core import Core, DefaultTimeout
from zkrecipes.errors import AcquireTimeoutError, ClosedError
from zkrecipes.flow import Pending, first_of
from zkrecipes.health import Health
from zkrecipes.timing import Deadline, Timeout

__all__ = ["Force", "Freshness"]

M = TypeVar("M", bound=BaseModel)


@final
class Freshness(Enum):
    """How new is what is in force."""

    FRESH = "fresh"
    """It is what ZooKeeper has, or the last good one where that is refused."""
    STALE = "stale"
    """ZooKeeper is away, or was when the service started from its cache; see `age`."""
    DEFAULTS = "defaults"
    """Nothing has come from ZooKeeper yet."""


class Force(Generic[M]):
    """What is in force, with all that a reader may ask.

    Args:
        core: The client's.
        label: The document's path as the user wrote it.

    Attributes:
        in_force: Swapped by one assignment; None before the start.
        rejection: Of the newest document, if it was refused.
        trouble: What is wrong, but for rejections: a deleted node, a permission taken away.
        cache_trouble: Why the cache is not up to date.
        changed: Done at the next change of what is in force, and at the end; another one each time.
    """

    def __init__(self, core: Core, label: str) -> None:
        self.core = core
        self.label = label
        self.in_force: InForce[M] | None = None
        self.rejection: Rejection | None = None
        self.trouble = ""
        self.cache_trouble = ""
        self.changed: Pending[None] = Pending()
        self.closed = False
        self._sight: Sight | None = None
        self._versions: dict[int, int] = {}
        self._stale_since = 0.0
        self._age_then = 0.0

    def check_not_closed(self) -> None:
        """Raise if it is closed."""
        if self.closed:
            message = f"the configuration {self.label} is closed; make a new one"
            raise ClosedError(message, path=self.label)

    def now(self) -> InForce[M]:
        """What is in force.

        Raises:
            ClosedError: It has not been started.
        """
        in_force = self.in_force
        if in_force is None:
            message = f"the configuration {self.label} has not been started: call start(), or use `with`"
            raise ClosedError(message, path=self.label)
        return in_force

    def freshness(self) -> Freshness:
        """How new it is."""
        origin = self.now().origin
        if origin is Origin.DEFAULTS:
            return Freshness.DEFAULTS
        sight = self._sight
        fresh = origin is Origin.NODE and sight is not None and sight.fresh and not self.closed
        return Freshness.FRESH if fresh else Freshness.STALE

    def age(self) -> float:
        """Seconds since it was known to be the newest."""
        freshness = self.freshness()
        if freshness is Freshness.STALE:
            return self._age_then + max(0.0, self.core.runtime.now() - self._stale_since)
        return 0.0 if freshness is Freshness.FRESH else math.inf

    def health(self) -> Health:
        """For health checks."""
        if self.closed:
            return Health(ok=False, state="closed", reason="the configuration is closed")
        if self.in_force is None:
            return Health(ok=False, state="not started", reason="the configuration has not been started")
        freshness, rejection = self.freshness(), self.rejection
        if rejection is not None:
            stays = f"version {self.in_force.version} stays" if self.in_force.version >= 0 else "the defaults stay"
            if self.in_force.rollout is not None and rejection.canary is None:
                stays = f"the canary {self.in_force.rollout.id}, which has ended, stays"
            return Health(ok=False, state="rejected", reason=f"{rejection}; {stays}")
        if freshness is Freshness.STALE:
            reason = f"not confirmed by ZooKeeper for {self.age():.0f} s"
            return Health(ok=False, state="stale", reason=f"{reason}: {self.trouble}" if self.trouble else reason)
        if freshness is Freshness.DEFAULTS or self.trouble:
            return Health(ok=False, state=freshness.value, reason=self.trouble)
        return Health(ok=True, state="fresh", reason=self.cache_trouble)

    def czxid_of(self, version: int | None) -> int | None:
        """Of the document that was last seen in this version."""
        return None if version is None else self._versions.get(version)

    def wait_for(self, predicate: Callable[[M], bool], timeout: Timeout | DefaultTimeout) -> Script[M]:
        """Wait until the predicate says so of what is in force."""
        deadline = self.core.deadline(timeout)
        while True:
            changed = self.changed  # taken before looking, so that no change in between is missed
            model = self.now().model
            if predicate(model):
                return model
            self.check_not_closed()
            yield self._until(changed, deadline)

    async def _until(self, changed: Pending[None], deadline: Deadline) -> None:
        session = self.core.session
        while not changed.done:
            session.check_open(self.label)  # nothing will change any more
            if deadline.passed(self.core.runtime.now()):
                if self.freshness() is not Freshness.FRESH:
                    raise session.unavailable(self.label)
                message = f"{self.label} did not become as waited for within {deadline.timeout:g} s"
                raise AcquireTimeoutError(message, path=self.label, timeout=deadline.timeout)
            await first_of(changed, session.changed, until=deadline.at)
