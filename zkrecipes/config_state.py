"""What is in force, and how it is kept up to date. The same for threads and asyncio.

A mirror reads the nodes on the engine and takes note; each note dispatches one job, which makes a candidate of the
newest state, asks who may veto, swaps what is in force by one assignment, and tells the others. Jobs of one
configuration run one after another, so releases that come while one is applied are merged into the next.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar, final

from pydantic import BaseModel

from zkrecipes.config_apply import Builder, InForce, Look, Origin, RefusedError, Rejection
from zkrecipes.config_cache import Cache, CacheError
from zkrecipes.config_callbacks import Callbacks, ConfigChange
from zkrecipes.config_canary import CanaryWatch
from zkrecipes.config_force import Force, Freshness
from zkrecipes.config_layers import Global, Layer, Part, local_parts
from zkrecipes.config_records import encode_status
from zkrecipes.config_releases import Publisher, Script, missing
from zkrecipes.config_report import Report
from zkrecipes.config_sight import Sight
from zkrecipes.config_types import InstanceStatus, Rollout
from zkrecipes.core import Core, DefaultTimeout
from zkrecipes.errors import AccessDeniedError, ConfigRejectedError, NodeNotFoundError, UnavailableError, ZkRecipesError
from zkrecipes.flow import Pending, first_of
from zkrecipes.timing import Deadline, Timeout

__all__ = ["ConfigState", "Wishes"]

M = TypeVar("M", bound=BaseModel)

logger = logging.getLogger("zkrecipes.config")

CLOSE_LIMIT: Final = 1.0


@final
@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user wants, checked.

    Attributes:
        layers: As given.
        cache: Where to keep the last good documents.
        defaults: Whether to start from the defaults if need be.
        background: Runs what waits for the disk, soon.
    """

    layers: tuple[Layer, ...]
    cache: Cache | None
    defaults: bool
    background: Callable[[Callable[[], None]], None]


@final
class ConfigState(Force[M]):
    """The service behind Config.

    Args:
        core: The client's.
        publisher: The verbs, and the nodes.
        builder: Makes candidates.
        wishes: The user's.
        clock: The time of day, as ISO 8601 in UTC.
    """

    def __init__(
        self, core: Core, publisher: Publisher[M], builder: Builder[M], wishes: Wishes, clock: Callable[[], str]
    ) -> None:
        super().__init__(core, publisher.label)
        self.publisher = publisher
        self.builder = builder
        self.callbacks: Callbacks[M] = Callbacks(core.runtime, builder.model, self.label)
        self._wishes = wishes
        self._clock = clock
        self._shared = {layer.path: core.path(layer.path) for layer in wishes.layers if isinstance(layer, Global)}
        self._report = Report(publisher.store, builder.instance.id)
        self._first: Pending[None] = Pending()
        self._queued = False
        self._was_fresh = False
        self._refused: tuple[Any, ...] | None = None
        self._before: InForce[M] | None = None
        """What was in force before the canary that is."""
        self._canary = CanaryWatch(core, publisher, self._touch)
        publisher.drafts.completed = lambda document: builder.completed(document, self._newest())

    # --- its life -----------------------------------------------------------------------------------------------------

    def start(self, timeout: Timeout | DefaultTimeout) -> Script[None]:
        """Read everything, and wait until it is in force, or what stands in for it."""
        deadline = self.core.deadline(timeout)
        self.check_not_closed()
        if self.in_force is not None:
            return  # it has begun
        if self._sight is None:
            self.builder.local = yield self._read_local
            self._warn()
        try:
            yield self._begin(deadline)
        except (UnavailableError, NodeNotFoundError, AccessDeniedError, ConfigRejectedError) as error:
            if self.in_force is None and not (yield partial(self._stand_in, error)):
                yield self._end()
                raise
        except GeneratorExit:
            raise
        except BaseException:
            if self.in_force is None:
                yield self._end()
            raise

    def _read_local(self) -> list[Part]:
        return local_parts(self._wishes.layers, self.builder.model)

    def _warn(self) -> None:
        if not self.builder.model.frozen:
            model = self.builder.model.model
            logger.warning(
                "%s: %s is not frozen, though all share the instance that is in force: set model_config = "
                "ConfigDict(frozen=True)",
                self.label,
                getattr(model, "__name__", model),
            )
        if self.callbacks.unused:
            logger.warning(
                "%s: on_change(...) was called, but has decorated nothing: write @config.on_change() with brackets",
                self.label,
            )

    async def _begin(self, deadline: Deadline) -> None:
        if self._sight is None:
            self._sight = Sight(self.core, self.publisher, self._shared, self._touched)
            self._first = Pending()
        await self._sight.start(deadline)
        self._touch()
        first = self._first
        while not first.done:
            if deadline.passed(self.core.runtime.now()):
                message = f"{self.label} was read, but the model's validators were not done with it in time"
                raise UnavailableError(message, path=self.label)
            await first_of(first, until=deadline.at)
        first.result()

    def _stand_in(self, error: ZkRecipesError) -> bool:
        """Start from the cache, or from the defaults; whether there was something to start from."""
        cache = self._wishes.cache
        found: InForce[M] | None = None
        if cache is not None:
            try:
                cached = cache.load()
                found = self.builder.candidate(Look(cached.document, cached.shared), Origin.CACHE)
            except (CacheError, RefusedError) as trouble:
                self.cache_trouble = str(trouble)
                error.add_note(f"The cache did not help: {trouble}")
            else:
                self._age_then, self._stale_since = cached.age, self.core.runtime.now()
                logger.warning("%s: started from the cache, %.0f s old, since: %s", self.label, cached.age, error)
        if found is None and self._wishes.defaults:
            found = self.builder.defaults()
            logger.warning("%s: started from the defaults, since: %s", self.label, error)
        if found is None:
            return False
        with self.core.runtime.lock:
            if self.in_force is None:  # the document may have come in this very moment
                self.in_force = found
                self.trouble = self.trouble or str(error)
                self._tell_changed()
        self._tell_report()
        return True

    def close(self) -> Script[None]:
        """End it, here and on the server; what is in force can still be read."""
        if self.core.runtime.forked():
            self.closed = True  # nothing here is ours: not even the lock may be taken
            return
        with self.core.runtime.lock:
            fresh = self.in_force is not None and self.freshness() is Freshness.FRESH
            self.closed = self.callbacks.closed = True
            self._report.close()
            self._tell_changed()
        if fresh:
            yield self._save  # its age counts from now on
        yield self._end()

    async def _end(self) -> None:
        sight, self._sight = self._sight, None
        if sight is not None:
            await sight.close(CLOSE_LIMIT)

    # --- notes: under the step lock -----------------------------------------------------------------------------------

    def _touched(self) -> None:
        sight = self._sight
        if sight is None:
            return
        if sight.fresh is not self._was_fresh:
            self._was_fresh = sight.fresh
            if not sight.fresh and self.in_force is not None and self.in_force.origin is Origin.NODE:
                self._age_then, self._stale_since = 0.0, self.core.runtime.now()
        if sight.initialized:
            self._touch()

    def _touch(self) -> None:
        if not self._queued and not self.closed:
            self._queued = True
            self.core.runtime.dispatch(self, self._job)

    def _newest(self) -> Look | None:
        return None if self._sight is None else self._sight.look()

    def _tell_changed(self) -> None:
        changed, self.changed = self.changed, Pending()
        changed.resolve(None)

    # --- the job: on the dispatcher -----------------------------------------------------------------------------------

    def _job(self) -> None:
        try:
            self._apply()
        except Exception as error:
            logger.exception("%s: a release could not be applied; please report this", self.label)
            with self.core.runtime.lock:
                self._first.fail(error)

    def _apply(self) -> None:
        with self.core.runtime.lock:
            self._queued = False
            look = self._newest()
            sight = self._sight
            if self.closed or look is None or sight is None:
                return
            denied = sight.denied
            if look.document is not None:
                self._versions[look.document.stat.version] = look.document.stat.czxid
                while len(self._versions) > 1000:  # noqa: PLR2004 - far more than anybody compares with
                    del self._versions[next(iter(self._versions))]
        if look.document is None:
            self._missing(denied)
            return
        self._set_trouble("" if denied is None else str(denied))
        old = self.in_force
        key = self.builder.key(look)
        if old is not None and old.origin is Origin.NODE and self.builder.key(old.look) == key:
            self._clear_rejection()
        elif self._refused != key and not self._canary.must_confirm(old, look):
            whole = sight.whole(look)
            if whole is None:
                return  # it is being read
            self._take(old, whole)
        with self.core.runtime.lock:
            self._settle_first()

    def _settle_first(self) -> None:
        rejection = self.rejection
        if self.in_force is not None or rejection is None:
            self._first.resolve(None)
            return
        message = f"{self.label}: {rejection}. Publish a good one, or start from a cache or the defaults"
        self._first.fail(
            ConfigRejectedError(message, path=self.label, version=rejection.version, errors=rejection.errors)
        )

    def _missing(self, denied: ZkRecipesError | None) -> None:
        error = denied
        if error is None:
            error = NodeNotFoundError(f"{missing(self.label)}, or give start='defaults'", path=self.label)
        in_force = self.in_force
        if in_force is not None and in_force.origin is Origin.NODE and denied is None:
            self._set_trouble(f"{self.label} was deleted; version {in_force.version} stays in force")
            self._clear_rejection()
        else:
            self._set_trouble(str(error))
        with self.core.runtime.lock:
            self._first.fail(error)

    def _set_trouble(self, trouble: str) -> None:
        if trouble and trouble != self.trouble:
            logger.warning("%s: %s", self.label, trouble)
        self.trouble = trouble

    def _clear_rejection(self) -> None:
        if self.rejection is not None:
            self.rejection = self._refused = None
            self._tell_report()

    def _take(self, old: InForce[M] | None, look: Look) -> None:
        """Put a look in force, or refuse it."""
        try:
            new = self.builder.candidate(look)
        except RefusedError as refused:
            self._refuse(look, refused.rejection, refused.rollout)
            return
        change = None if old is None else ConfigChange("", old.model, new.model, new.version)
        if change is not None and change.old == change.new:
            change = None
        if change is not None:
            veto = self.callbacks.prepare(change)
            if veto is not None:
                canary = None if new.rollout is None else new.rollout.id
                self._refuse(look, Rejection(new.version, (veto,), veto=True, canary=canary), new.rollout)
                return
        with self.core.runtime.lock:
            if self.closed:
                return
            if new.rollout is None:
                self._before = None
            elif old is None or old.rollout is None:
                self._before = old
            self.in_force = new
            self.rejection = self._refused = None
            self._tell_changed()
            self._settle_first()
        logger.info("%s: version %d is in force%s", self.label, new.version, " (canary)" if new.rollout else "")
        self._tell_report()
        if new.rollout is None and self._wishes.cache is not None:
            self._wishes.background(self._keep)
        if change is not None:
            self.callbacks.tell(change)

    def _refuse(self, look: Look, rejection: Rejection, rollout: Rollout | None) -> None:
        self._refused = self.builder.key(look)
        self.rejection = rejection
        logger.warning("%s: %s", self.label, rejection)
        change = self._leave_canary() if rollout is None else None
        self._tell_report()
        if rollout is not None:
            self._canary.abort(rollout, str(rejection))
        self.callbacks.reject(rejection)
        if change is not None:
            self.callbacks.tell(change)

    def _leave_canary(self) -> ConfigChange[M] | None:
        """A canary has ended, and the document is refused: back to what was in force before, unless that is vetoed."""
        old, before = self.in_force, self._before
        if old is None or old.rollout is None or before is None:
            return None
        change = ConfigChange("", old.model, before.model, before.version)
        if change.old != change.new and self.callbacks.prepare(change) is not None:
            return None
        with self.core.runtime.lock:
            if self.closed:
                return None
            self.in_force, self._before = before, None
            self._tell_changed()
        return change if change.old != change.new else None

    def _keep(self) -> None:
        self._save(last=False)

    def _save(self, *, last: bool = True) -> None:
        """Write the cache; after the last time, at the end, nothing touches the file any more."""
        cache = self._wishes.cache
        if cache is None:
            return
        with cache.lock:
            in_force = self.in_force
            if self.closed and not last:
                return
            if in_force is None or in_force.origin is not Origin.NODE or in_force.rollout is not None:
                return
            document = in_force.look.document
            if document is None:
                return
            try:
                cache.save(document, in_force.look.shared)
                self.cache_trouble = ""
            except CacheError as trouble:
                if not self.cache_trouble:
                    logger.warning("%s: %s", self.label, trouble)
                self.cache_trouble = str(trouble)

    def _tell_report(self) -> None:
        in_force, rejection, instance = self.in_force, self.rejection, self.builder.instance
        if in_force is None and rejection is None:
            return
        canary = None if in_force is None or in_force.rollout is None else in_force.rollout.id
        status = InstanceStatus(
            id=instance.id,
            labels=instance.labels,
            version=-1 if in_force is None else in_force.version,
            accepted=rejection is None,
            error=None if rejection is None else str(rejection),
            canary=canary if rejection is None else rejection.canary,
            when=self._clock(),
        )
        with self.core.runtime.lock:
            self._report.tell(encode_status(status))
