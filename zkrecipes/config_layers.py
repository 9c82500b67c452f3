"""Where a configuration's values come from: layers, how they are merged, and which layer each value is from.

The rank is fixed, whatever the order in which the layers are given, lowest first: the model's defaults, files, global
nodes, the application's own node, the environment, overrides in code. Several of one kind rank in the order given.
Mappings are merged; lists and single values replace what is below them.

Files and the environment are read once, when the configuration starts.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, final

from zkrecipes.config_document import FORMATS, Document, DocumentError, Format, parse
from zkrecipes.config_model import Field, ModelType, leaves, nested_fields
from zkrecipes.config_tree import meaning
from zkrecipes.errors import ConfigRejectedError
from zkrecipes.paths import validate_path

__all__ = ["Env", "File", "Global", "Layer", "Overrides", "Part", "checked_layers", "local_parts", "merge", "ranked"]

_SUFFIXES: Final[dict[str, Format]] = {".json": "json", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml"}

_FILE, _GLOBAL, NODE, _ENV, _OVERRIDES = range(5)


@final
@dataclass(frozen=True, slots=True)
class File:
    """A file on disk.

    Args:
        path: Of the file.
        format: "json", "yaml" or "toml"; by the name's suffix where None.
        optional: Whether it may be missing.
    """

    path: Path | str
    format: Format | None = None
    optional: bool = False


@final
@dataclass(frozen=True, slots=True)
class Global:
    """Another node of ZooKeeper, as one that all services of a company share; reloaded like the application's own.

    Args:
        path: Of the node. It may be missing.
    """

    path: str


@final
@dataclass(frozen=True, slots=True)
class Env:
    """The environment: with the prefix "APP_", `APP_DATABASE__POOL_SIZE` is the field `database.pool_size`.

    Only variables that name a field count. A list or a mapping is given as JSON.

    Args:
        prefix: Of the variables.
        delimiter: Between the names of nested fields.
    """

    prefix: str = ""
    delimiter: str = "__"


@final
@dataclass(frozen=True, slots=True)
class Overrides:
    """Values in code, above all others.

    Args:
        values: Nested mappings, or dotted names: `{"database.pool_size": 3}`.
    """

    values: Mapping[str, Any] = field(default_factory=dict)


Layer = File | Global | Env | Overrides


@final
@dataclass(frozen=True, slots=True)
class Part:
    """What one layer says.

    Attributes:
        rank: Higher wins.
        label: What `source_of` calls it.
        document: Its values.
        labels: By path, where they differ from `label`.
    """

    rank: int
    label: str
    document: Document
    labels: Mapping[str, str] = field(default_factory=dict)


def checked_layers(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """Check layers when they are given.

    Raises:
        TypeError: It is no sequence of layers.
        ValueError: A path or format is not valid.
    """
    if isinstance(layers, File | Global | Env | Overrides):
        message = f"layers must be a tuple of layers; write ({layers!r},)"
        raise TypeError(message)
    given = tuple(layers)
    for layer in given:
        match layer:
            case Global():
                validate_path(layer.path, "Global's path")
            case File():
                _format_of(layer)
            case Env():
                if not isinstance(layer.prefix, str) or not isinstance(layer.delimiter, str) or not layer.delimiter:
                    message = f"Env: prefix must be a str, and delimiter one that is not empty, in {layer!r}"
                    raise ValueError(message)
            case Overrides():
                if not isinstance(layer.values, Mapping):
                    message = f"Overrides takes a mapping of names to values, not {type(layer.values).__name__}"
                    raise TypeError(message)
            case _:
                message = f"a layer must be a File, Global, Env or Overrides, not {type(layer).__name__}"
                raise TypeError(message)
    return given


def _format_of(layer: File) -> Format:
    found = layer.format or _SUFFIXES.get(Path(layer.path).suffix.lower())
    if found not in FORMATS:
        message = f"the format of {layer.path} cannot be told from its name; give File(..., format=...), of {FORMATS}"
        raise ValueError(message)
    return found


def local_parts(layers: Sequence[Layer], model: ModelType[Any]) -> list[Part]:
    """Read what does not come from ZooKeeper: files, environment, overrides.

    Raises:
        ConfigRejectedError: A file is missing, cannot be read, or does not parse.
    """
    parts = []
    for layer in layers:
        match layer:
            case File():
                parts.append(Part(_FILE, f"file:{layer.path}", _read(layer)))
            case Env():
                document, labels = _environment(layer, model)
                parts.append(Part(_ENV, "env", document, labels))
            case Overrides():
                parts.append(Part(_OVERRIDES, "override", _unfolded(layer.values)))
            case Global():
                pass
    return parts


def ranked(label: str, document: Document, *, shared: bool) -> Part:
    """The part of a node: a global one, or the application's own."""
    return Part(_GLOBAL if shared else NODE, label, document)


def _read(layer: File) -> Document:
    path = Path(layer.path)
    try:
        return parse(path.read_bytes(), _format_of(layer))
    except FileNotFoundError as error:
        if layer.optional:
            return {}
        message = f"the configuration file {path} does not exist; make it, or give File(..., optional=True)"
        raise ConfigRejectedError(message, path=str(path)) from error
    except OSError as error:
        message = f"the configuration file {path} cannot be read: {error.strerror or error}"
        raise ConfigRejectedError(message, path=str(path)) from error
    except DocumentError as error:
        message = f"the configuration file {path}: {error}"
        raise ConfigRejectedError(message, path=str(path)) from error


def _unfolded(values: Mapping[str, Any]) -> Document:
    """Dotted names as nested mappings."""
    document: Document = {}
    for name, value in values.items():
        *parents, last = name.split(".")
        place = document
        for parent in parents:
            inner = place.get(parent)
            if not isinstance(inner, dict):
                inner = place[parent] = {}
            place = inner
        plain = _unfolded(value) if isinstance(value, Mapping) else value
        place[last] = (
            {**place[last], **plain} if isinstance(plain, dict) and isinstance(place.get(last), dict) else plain
        )
    return document


# --- the environment --------------------------------------------------------------------------------------------------


def _environment(layer: Env, model: ModelType[Any]) -> tuple[Document, dict[str, str]]:
    reader = _Environment(layer.delimiter.upper())
    return reader.read(model.fields or {}, layer.prefix.upper(), ""), reader.labels


@final
class _Environment:
    """Looks for the variables that name fields; the others are not ours."""

    def __init__(self, delimiter: str) -> None:
        self._delimiter = delimiter
        self._variables = {name.upper(): (name, value) for name, value in sorted(os.environ.items())}
        self.labels: dict[str, str] = {}

    def read(self, fields: dict[str, Field], prefix: str, path: str) -> Document:
        document: Document = {}
        for item in {each.name: each for each in fields.values()}.values():
            here = f"{path}{item.name}"
            name = f"{prefix}{item.name.upper()}"
            if name in self._variables:
                original, text = self._variables[name]
                document[item.key] = meaning(text, item)
                self.labels[here] = f"env:{original}"
            inner = nested_fields(item.annotation)
            deeper = f"{name}{self._delimiter}"
            # Asked first: a model that contains itself has no end.
            if inner is not None and any(other.startswith(deeper) for other in self._variables):
                below = self.read(inner, deeper, f"{here}.")
                if below:
                    whole = document.get(item.key)
                    document[item.key] = _merged(whole, below) if isinstance(whole, dict) else below
        return document


def _merged(low: Document, high: Document) -> Document:
    """A new document: mappings merged, all else replaced by what is higher."""
    merged = dict(low)
    for key, value in high.items():
        below = merged.get(key)
        merged[key] = _merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


# --- merging ----------------------------------------------------------------------------------------------------------


def merge(parts: Sequence[Part], model: ModelType[Any]) -> tuple[Document, dict[str, str]]:
    """All parts as one document, and the label of the layer that each of its leaves comes from, by path."""
    document: Document = {}
    sources: dict[str, str] = {}
    for part in sorted(parts, key=lambda each: each.rank):
        _Merger(part, sources).lay(document, part.document, model.fields, "")
    return document, sources


@final
class _Merger:
    """Lays one part over what lies there already."""

    def __init__(self, part: Part, sources: dict[str, str]) -> None:
        self._part = part
        self._sources = sources

    def lay(self, low: Document, high: Document, fields: dict[str, Field] | None, prefix: str) -> None:
        for given, value in high.items():
            item = fields.get(given) if fields is not None else None
            # A field has one name in the merged document, whether a layer calls it by its name or by its alias.
            key, path = (given, f"{prefix}{given}") if item is None else (item.key, f"{prefix}{item.name}")
            below = low.get(key)
            nests = isinstance(value, dict) or isinstance(below, dict)
            inner = nested_fields(item.annotation) if item is not None and nests else None
            if isinstance(value, dict) and value:
                if not isinstance(below, dict):
                    below = {}
                low[key] = below
                self._sources.pop(path, None)  # it was a leaf: a single value, or an empty mapping
                self.lay(below, value, inner, f"{path}.")
            elif isinstance(value, dict) and isinstance(below, dict) and below:
                continue  # an empty mapping adds nothing
            else:
                if isinstance(below, dict):
                    for each in leaves(below, inner, f"{path}."):
                        self._sources.pop(each, None)
                low[key] = dict(value) if isinstance(value, dict) else value
                self._sources[path] = self._label(path)

    def _label(self, path: str) -> str:
        """Of the variable that gave this value, or the mapping that it is in."""
        labels, place = self._part.labels, path
        while labels and place not in labels and "." in place:
            place = place.rpartition(".")[0]
        return labels.get(place, self._part.label)
