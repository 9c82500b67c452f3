"""What threads and asyncio share of a configuration: how it is made, and all that waits for nothing."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, overload

from pydantic import BaseModel

from zkrecipes.config_apply import Builder, Explained, Rejection
from zkrecipes.config_cache import Cache
from zkrecipes.config_callbacks import ConfigChange
from zkrecipes.config_draft import Drafts
from zkrecipes.config_force import Freshness
from zkrecipes.config_layers import Layer, checked_layers
from zkrecipes.config_releases import Publisher
from zkrecipes.config_state import ConfigState, Wishes
from zkrecipes.config_types import Instance
from zkrecipes.core import Core
from zkrecipes.health import Health
from zkrecipes.hold import Registration

__all__ = ["ConfigLayout", "ConfigView", "make_publisher", "make_state"]

M = TypeVar("M", bound=BaseModel)
V = TypeVar("V")

ConfigLayout = Literal["document", "tree"]


def utc_now() -> str:
    """The time of day, as ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def make_publisher(
    core: Core, path: str, model: type[M] | None, *, layout: str, format_: str, keep: int, who: str | None
) -> Publisher[M]:
    """The verbs of a configuration. Arguments as of Config."""
    if layout not in {"document", "tree"}:
        message = f"layout must be 'document' or 'tree', not {layout!r}"
        raise ValueError(message)
    if layout == "tree" and format_ != "json":
        message = f"the tree layout has no format of its own: leave format={format_!r} out"
        raise ValueError(message)
    tree = layout == "tree"
    drafts = Drafts(path, model, format_, tree=tree)
    return Publisher(core, drafts, keep=keep, clock=utc_now, host=platform.node(), tree=tree, who=who)


def make_state(
    core: Core,
    path: str,
    model: type[M],
    *,
    layers: Sequence[Layer],
    cache: Path | str | None,
    start: str,
    layout: str,
    format_: str,
    instance: Instance | None,
    keep: int,
    who: str | None,
    background: Callable[[Callable[[], None]], None],
) -> ConfigState[M]:
    """The service of a configuration. Arguments as of Config."""
    if model is None:
        message = "Config needs a pydantic model; ConfigReleases does without"
        raise TypeError(message)
    if start not in {"require", "defaults"}:
        message = f"start must be 'require' or 'defaults', not {start!r}"
        raise ValueError(message)
    publisher = make_publisher(core, path, model, layout=layout, format_=format_, keep=keep, who=who)
    given = Instance() if instance is None else instance
    if not isinstance(given, Instance):
        message = f"instance must be an Instance(id, labels), not {instance!r}"
        raise TypeError(message)
    builder = Builder(publisher.drafts, given if given.id else replace(given, id=core.identity))
    kept = None if cache is None else Cache(Path(cache), publisher.store.places.document)
    wishes = Wishes(checked_layers(layers), kept, start == "defaults", background)
    return ConfigState(core, publisher, builder, wishes, utc_now)


class ConfigView(Generic[M]):
    """What threads and asyncio share of a configuration: everything that waits for nothing."""

    _state: ConfigState[M]

    @property
    def path(self) -> str:
        """The document's path, below the client's namespace."""
        return self._state.label

    @property
    def current(self) -> M:
        """What is in force: one whole, validated instance. Take it once where several values must fit together.

        Raises:
            ClosedError: It has not been started.
        """
        in_force = self._state.in_force
        return self._state.now().model if in_force is None else in_force.model

    @property
    def version(self) -> int:
        """Of the document in force; -1 if none has come from ZooKeeper. In a canary: of what it is to replace."""
        return self._state.now().version

    @property
    def canary(self) -> str | None:
        """The id of the canary that this instance runs, if it does."""
        rollout = self._state.now().rollout
        return None if rollout is None else rollout.id

    @property
    def state(self) -> Freshness:
        """FRESH, STALE (ZooKeeper is away; see `age`) or DEFAULTS (nothing has come from it yet)."""
        return self._state.freshness()

    @property
    def age(self) -> float:
        """Seconds since what is in force was known to be the newest: 0.0 while FRESH, infinite for DEFAULTS."""
        return self._state.age()

    @property
    def rejection(self) -> Rejection | None:
        """The newest document, if it was refused and an older one is in force."""
        return self._state.rejection

    def explain(self) -> list[Explained]:
        """Each value in force, masked where it is secret, with the layer that it comes from; sorted by path."""
        return self._state.builder.explain(self._state.now())

    def source_of(self, path: str) -> str:
        """The layer of a value: "default", "file:…", "global:…", "node:…", "canary:…", "env:NAME" or "override".

        Raises:
            ValueError: There is no such field.
        """
        return self._state.now().source_of(self._state.builder.model.check_path(path))

    def health(self) -> Health:
        """Not ok while stale, on defaults, or while the newest document is refused; with the reason, no values."""
        return self._state.health()

    @overload
    def on_change(self, target: Callable[[M], V]) -> Callable[[Callable[[ConfigChange[V]], object]], Registration]: ...
    @overload
    def on_change(self, target: str) -> Callable[[Callable[[ConfigChange[Any]], object]], Registration]: ...
    @overload
    def on_change(self, target: None = None) -> Callable[[Callable[[ConfigChange[M]], object]], Registration]: ...
    def on_change(
        self, target: str | Callable[[M], Any] | None = None
    ) -> Callable[[Callable[[ConfigChange[Any]], object]], Registration]:
        """A decorator: call `callback(change)` when a part of the configuration has changed, and is in force.

        Args:
            target: A dotted path ("database.pool_size", or "database" for all of it), a function of the model
                (`lambda settings: settings.database`), or nothing for everything.

        Once a change; not for the first fill, nor for equal values. Callbacks of one configuration run one after
        another, on the dispatcher; one that raises is logged.

        Raises:
            ValueError: There is no such field.
        """
        return self._state.callbacks.on_change(target)

    def on_prepare(self, callback: Callable[[ConfigChange[M]], object]) -> Registration:
        """Call `callback(change)` before a change is in force; raising (VetoError) refuses it. Also a decorator."""
        return self._state.callbacks.on_prepare(callback)

    def on_commit(self, callback: Callable[[ConfigChange[M]], object]) -> Registration:
        """Call `callback(change)` after all on_change callbacks of a change. Also a decorator."""
        return self._state.callbacks.on_commit(callback)

    def on_rejected(self, callback: Callable[[Rejection], object]) -> Registration:
        """Call `callback(rejection)` for each document that is refused, once. Also a decorator."""
        return self._state.callbacks.on_rejected(callback)

    def __repr__(self) -> str:
        in_force = self._state.in_force
        what = "not started" if in_force is None else f"version={in_force.version} {self._state.freshness().value}"
        return f"<{type(self).__name__} {self._state.label} {'closed' if self._state.closed else what}>"
