"""Whom to tell of a change, and in which order: all who prepare, then the change is in force, then all others.

Everything here runs on the dispatcher, one call after another for one configuration, but for the registrations.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, final

from pydantic import BaseModel

from zkrecipes.config_apply import Rejection
from zkrecipes.config_model import FieldError, ModelType
from zkrecipes.errors import ForkedError, VetoError
from zkrecipes.hold import Registration, checked_callback
from zkrecipes.port import Runtime

__all__ = ["Callbacks", "ConfigChange"]

M = TypeVar("M", bound=BaseModel)
V = TypeVar("V")
V_co = TypeVar("V_co", covariant=True)

logger = logging.getLogger("zkrecipes.config")


@final
@dataclass(frozen=True, slots=True)
class ConfigChange(Generic[V_co]):
    """What has changed.

    Attributes:
        path: As registered; empty for the whole configuration, and for a function.
        old: Before.
        new: Now.
        version: Of the document.
    """

    path: str
    old: V_co
    new: V_co
    version: int


@final
class _Watcher:
    """One callback on one part of the configuration."""

    def __init__(self, path: str, part: Callable[[Any], Any], callback: Callable[[ConfigChange[Any]], object]) -> None:
        self.path = path
        self.part = part
        self.callback = callback


@final
class Callbacks(Generic[M]):
    """The callbacks of one configuration.

    Args:
        runtime: For the lock.
        model: For the paths.
        label: What messages call the configuration.
    """

    def __init__(self, runtime: Runtime, model: ModelType[M], label: str) -> None:
        self._runtime = runtime
        self._model = model
        self._label = label
        self._watchers: list[_Watcher] = []
        self._prepare: list[Callable[[ConfigChange[M]], object]] = []
        self._commit: list[Callable[[ConfigChange[M]], object]] = []
        self._rejected: list[Callable[[Rejection], object]] = []
        self.unused = 0
        """Decorators of on_change that were made, and have decorated nothing yet."""
        self.closed = False
        """No callback is begun any more."""

    # --- registrations ------------------------------------------------------------------------------------------------

    def on_change(
        self, target: str | Callable[[M], V] | None
    ) -> Callable[[Callable[[ConfigChange[Any]], object]], Registration]:
        """The decorator for a path, a function of the model, or everything."""
        path = ""
        part: Callable[[Any], Any] = _whole
        if callable(target):
            part = target
        elif target is not None:
            path = self._model.check_path(target)

            def part(model: object) -> Any:
                return ModelType.value_at(model, path)

        self.unused += 1

        def register(callback: Callable[[ConfigChange[Any]], object]) -> Registration:
            checked_callback(callback)
            self.unused -= 1
            return self._add(self._watchers, _Watcher(path, part, callback))

        return register

    def on_prepare(self, callback: Callable[[ConfigChange[M]], object]) -> Registration:
        """Add one."""
        checked_callback(callback)
        return self._add(self._prepare, callback)

    def on_commit(self, callback: Callable[[ConfigChange[M]], object]) -> Registration:
        """Add one."""
        checked_callback(callback)
        return self._add(self._commit, callback)

    def on_rejected(self, callback: Callable[[Rejection], object]) -> Registration:
        """Add one."""
        checked_callback(callback)
        return self._add(self._rejected, callback)

    def _add(self, where: list[V], what: V) -> Registration:
        if self._runtime.forked():
            message = (
                "this configuration belongs to the parent process; make a new one, on a new client, after the fork"
            )
            raise ForkedError(message, path=self._label)
        with self._runtime.lock:
            where.append(what)

        def remove() -> None:
            with self._runtime.lock:
                for place, each in enumerate(where):
                    if each is what:
                        del where[place]
                        break

        return Registration(remove)

    # --- calls --------------------------------------------------------------------------------------------------------

    def prepare(self, change: ConfigChange[M]) -> FieldError | None:
        """Ask all who may veto; what the first one that does says."""
        for callback in self._each(self._prepare):
            try:
                callback(change)
            except VetoError as veto:
                return FieldError("", str(veto) or "no reason was given")
            except Exception as error:
                # Its words are in the log only: whoever reads health() may see no values.
                logger.warning("%s: an on_prepare callback failed, which is a veto", self._label, exc_info=True)
                return FieldError("", f"a callback raised {type(error).__name__}")
        return None

    def tell(self, change: ConfigChange[M]) -> None:
        """Tell those whose part has changed, then those who want to know of any change."""
        for watcher in self._each(self._watchers):
            try:
                old, new = watcher.part(change.old), watcher.part(change.new)
                if type(old) is not type(new) or old != new:
                    watcher.callback(ConfigChange(watcher.path, old, new, change.version))
            except Exception:
                logger.exception("%s: an on_change callback failed; the others go on", self._label)
        for callback in self._each(self._commit):
            try:
                callback(change)
            except Exception:
                logger.exception("%s: an on_commit callback failed; the others go on", self._label)

    def reject(self, rejection: Rejection) -> None:
        """Tell of a document that was refused."""
        for callback in self._each(self._rejected):
            try:
                callback(rejection)
            except Exception:
                logger.exception("%s: an on_rejected callback failed; the others go on", self._label)

    def _each(self, callbacks: list[V]) -> Iterator[V]:
        with self._runtime.lock:
            given = list(callbacks)
        for callback in given:
            if not self.closed:
                yield callback


def _whole(model: object) -> Any:
    return model
