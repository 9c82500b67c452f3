"""From the bytes of the nodes to what is in force. Pure, but for the user's validators.

Promises: a candidate is made of one look at all nodes; it is put in force as a whole or refused as a whole, and a
refusal tells which field and why, without any value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Generic, TypeVar, final

from pydantic import BaseModel, ValidationError

from zkrecipes.config_document import Document, DocumentError, parse
from zkrecipes.config_draft import Drafts
from zkrecipes.config_layers import Part, merge, ranked
from zkrecipes.config_model import FieldError
from zkrecipes.config_records import decode_canary
from zkrecipes.config_types import Instance, Rollout, selects
from zkrecipes.errors import ConfigRejectedError, DecodeError
from zkrecipes.known import Seen

__all__ = ["Builder", "Explained", "Fingerprint", "InForce", "Look", "Origin", "Rejection"]

M = TypeVar("M", bound=BaseModel)

Fingerprint = tuple[tuple[str, int, int], ...]


@final
class Origin(Enum):
    """Where the application's document came from."""

    NODE = "node"
    CACHE = "cache"
    DEFAULTS = "defaults"


@final
@dataclass(frozen=True, slots=True)
class Explained:
    """Where one value comes from.

    Attributes:
        path: Dotted.
        value: As JSON; masked if it is a secret.
        source: The layer: "default", "file:…", "global:…", "node:…", "canary:…", "env:NAME" or "override".
    """

    path: str
    value: Any
    source: str

    def __str__(self) -> str:
        return f"{self.path} = {self.value!r}  ({self.source})"


@final
@dataclass(frozen=True, slots=True)
class Rejection:
    """A document that was refused; what was in force before stays.

    Attributes:
        version: Of the document node; of a canary's document: of the one that it is to replace.
        errors: Each field with what is wrong with it; no values.
        veto: Whether an `on_prepare` callback refused it.
        canary: The canary's id, if it is a canary's document.
    """

    version: int
    errors: tuple[FieldError, ...]
    veto: bool = False
    canary: str | None = None

    def __str__(self) -> str:
        what = f"version {self.version}" if self.canary is None else f"the canary {self.canary}"
        return f"{what} {'was vetoed' if self.veto else 'is refused'}: {'; '.join(map(str, self.errors))}"


@final
@dataclass(frozen=True, slots=True)
class Look:
    """One look at the nodes.

    Attributes:
        document: The application's own; None if there is none.
        shared: The global nodes, by path, in the order of the layers; None where there is none.
        canary: The node of the canary, while one runs.
        branches: In the tree layout: the nodes below the document's.
    """

    document: Seen | None
    shared: Mapping[str, Seen | None] = field(default_factory=dict)
    canary: Seen | None = None
    branches: Mapping[str, Seen] | None = None

    @property
    def fingerprint(self) -> Fingerprint:
        """Equal for looks at the same things."""
        nodes = [("document", self.document), *self.shared.items(), ("canary", self.canary)]
        nodes += sorted((self.branches or {}).items())
        return tuple((name, seen.stat.czxid, seen.stat.mzxid) for name, seen in nodes if seen is not None)


@final
@dataclass(frozen=True, slots=True)
class InForce(Generic[M]):
    """What is in force: swapped as a whole.

    Attributes:
        model: The instance.
        version: Of the document node; -1 if none has come from ZooKeeper.
        czxid: Of the document node; 0 if none has.
        origin: Where the document came from.
        sources: The layer of each leaf that is no default, by path.
        look: The nodes that it was made of.
        rollout: The canary that it is part of.
    """

    model: M
    version: int
    czxid: int
    origin: Origin
    sources: Mapping[str, str]
    look: Look
    rollout: Rollout | None = None

    def source_of(self, path: str) -> str:
        """The layer of a value; of a nested model: of all its values, the lowest first named once each."""
        place = path
        while place not in self.sources and "." in place:
            place = place.rpartition(".")[0]
        if place in self.sources:
            return self.sources[place]
        below = [label for each, label in self.sources.items() if each.startswith(f"{path}.")]
        return ", ".join(dict.fromkeys(below)) or "default"


class RefusedError(Exception):
    """A look that cannot be put in force."""

    def __init__(self, rejection: Rejection, rollout: Rollout | None) -> None:
        super().__init__(str(rejection))
        self.rejection = rejection
        self.rollout = rollout


@final
class Builder(Generic[M]):
    """Makes candidates.

    Args:
        drafts: The path, the model and the format.
        instance: Which instance this is, for a canary's selector.
    """

    def __init__(self, drafts: Drafts[M], instance: Instance) -> None:
        self.drafts = drafts
        self.model = drafts.model
        self.instance = instance
        self.local: Sequence[Part] = ()

    def rollout_of(self, look: Look) -> tuple[Rollout | None, str]:
        """The canary that this instance takes, if any; and why one that runs cannot be read."""
        if look.canary is None or look.document is None:
            return None, ""
        try:
            rollout = decode_canary(look.canary.data, f"{self.drafts.label}-canary")
        except DecodeError as error:
            return None, str(error)
        stat = look.document.stat
        # What was begun on another document is not for this one; between two readings that is seen for a moment.
        if (rollout.base, rollout.base_czxid) != (stat.version, stat.czxid) or not selects(
            rollout.selector, self.instance
        ):
            return None, ""
        return rollout, ""

    def key(self, look: Look) -> Fingerprint:
        """Equal for looks that are the same to this instance: a canary of others makes no difference."""
        rollout, _ = self.rollout_of(look)
        return (look if rollout is not None else replace(look, canary=None)).fingerprint

    def candidate(self, look: Look, origin: Origin = Origin.NODE) -> InForce[M]:
        """What a look means.

        Raises:
            RefusedError: It does not parse or validate.
        """
        document = look.document
        rollout, _ = self.rollout_of(look)
        version = -1 if document is None else document.stat.version
        czxid = 0 if document is None else document.stat.czxid
        parts = list(self.local)

        def refuse(errors: tuple[FieldError, ...]) -> RefusedError:
            return RefusedError(Rejection(version, errors, canary=None if rollout is None else rollout.id), rollout)

        for path, seen in look.shared.items():
            if seen is not None:
                try:
                    parts.append(ranked(f"global:{path}", parse(seen.data, self.drafts.format), shared=True))
                except DocumentError as error:
                    raise refuse((FieldError("", f"the global node {path}: {error}"),)) from None
        if document is not None:
            label = f"node:{self.drafts.label}" if rollout is None else f"canary:{rollout.id}"
            raw = document.data if rollout is None else rollout.document
            try:
                parts.append(ranked(label, self.drafts.parsed(raw), shared=False))
            except DocumentError as error:
                raise refuse((FieldError("", str(error)),)) from None
        merged, sources = merge(parts, self.model)
        try:
            model = self.model.validate(merged)
        except ValidationError as error:
            raise refuse(self.model.field_errors(error, merged)) from None
        except Exception as error:
            raise refuse((FieldError("", f"a validator of the model raised {type(error).__name__}"),)) from error
        return InForce(model, version, czxid, origin, sources, look, rollout)

    def defaults(self) -> InForce[M]:
        """What is in force without any node.

        Raises:
            ConfigRejectedError: The model has fields without a default, or a layer does not fit.
        """
        try:
            return self.candidate(Look(None), Origin.DEFAULTS)
        except RefusedError as refused:
            errors = refused.rejection.errors
            message = (
                f"{self.drafts.label}: the model's defaults, with the layers that need no server, do not validate: "
                f"{'; '.join(map(str, errors))}. Give each field a default, or start='require'"
            )
            raise ConfigRejectedError(message, path=self.drafts.label, errors=errors) from None

    def completed(self, document: Document, look: Look | None) -> Document:
        """A document with the layers above and below it, as it would be put in force."""
        parts = [*self.local, ranked("draft", document, shared=False)]
        for path, seen in ({} if look is None else look.shared).items():
            if seen is not None:
                try:
                    parts.append(ranked(path, parse(seen.data, self.drafts.format), shared=True))
                except DocumentError:
                    continue
        return merge(parts, self.model)[0]

    def explain(self, in_force: InForce[M]) -> list[Explained]:
        """Each value, and where it comes from, by path."""
        shown = self.model.shown(in_force.model)
        return [Explained(path, value, in_force.source_of(path)) for path, value in sorted(shown.items())]
