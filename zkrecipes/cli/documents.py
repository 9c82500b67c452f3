"""What `zkrecipes config` knows of documents: their format and model, fields by dotted path, how they are printed."""

from __future__ import annotations

import contextlib
import copy
import getpass
import importlib
import json
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, final

from pydantic import BaseModel

from zkrecipes.cli.output import MissingExtra, UsageProblem, usage_errors
from zkrecipes.client import Client
from zkrecipes.config import Canary, ConfigReleases, Difference, Release
from zkrecipes.config_document import Document, DocumentError, Format, render
from zkrecipes.config_document import parse as parse_document
from zkrecipes.config_draft import Drafts
from zkrecipes.config_model import MASK, FieldError
from zkrecipes.errors import ConfigRejectedError, ForeignNodeError

__all__ = [
    "Documents",
    "assigned",
    "canary_of",
    "difference_text",
    "field_of",
    "load_model",
    "masked_places",
    "missing_extras",
    "model_errors",
    "read_input",
    "readable",
    "release_value",
    "selector_text",
    "value_of",
]

FormatOption = Literal["json", "yaml", "toml"]
LayoutOption = Literal["document", "tree"]

LONGEST: Final = 500

_SUFFIXES: Final[dict[str, Format]] = {".json": "json", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml"}


@final
@dataclass(frozen=True)
class Documents:
    """One configuration, as the command line sees it: text, with a model or without.

    Attributes:
        path: Of the document.
        model: What it is checked against; None checks its form only.
        format: Of the document.
        layout: "document", or "tree" for a node a field.
    """

    path: str
    model: type[BaseModel] | None
    format: Format
    layout: LayoutOption = "document"

    @classmethod
    def of(
        cls,
        path: str,
        model: str | None,
        given: FormatOption | None,
        file: str | None = None,
        layout: LayoutOption = "document",
    ) -> Documents:
        """As the options say; the format, unless given, by the suffix of the path or of a local file."""
        if layout == "tree":
            if (given or "json") != "json":
                message = "--layout tree has no format of its own; it is shown and read as JSON: leave --format out"
                raise UsageProblem(message)
            return cls(path, load_model(model), "json", layout)
        by_name = (_SUFFIXES.get(Path(name).suffix.lower()) for name in (path, file or ""))
        found: Format = given or next((each for each in by_name if each), None) or "json"
        if found != "json":
            with missing_extras():
                parse_document(b"", found)
        return cls(path, load_model(model), found)

    @property
    def drafts(self) -> Drafts[BaseModel]:
        """What checks and compares."""
        return Drafts(self.path, self.model, self.format, tree=self.layout == "tree")

    def releases(self, zk: Client) -> ConfigReleases[BaseModel]:
        """What reads and publishes."""
        with usage_errors():
            return ConfigReleases(
                zk, self.path, self.model, format=self.format, layout=self.layout, who=f"{_user()}@{platform.node()}"
            )

    def writable(self) -> Documents:
        """The same.

        Raises:
            UsageProblem: It can only be read.
        """
        if self.layout == "tree" and self.model is None:
            message = "with --layout tree give --model, too: it tells which values have a node of their own"
            raise UsageProblem(message)
        return self

    def parse(self, text: str) -> Document:
        """What a text says.

        Raises:
            ConfigRejectedError: It does not parse.
        """
        try:
            return parse_document(text.encode(), self.format)
        except ValueError as error:
            message = f"{self.path}: {error}. If it is in another format, name it with --format"
            raise ConfigRejectedError(message, path=self.path) from error

    def render(self, document: Document) -> str:
        """A document as text.

        Raises:
            ConfigRejectedError: The format cannot express it.
        """
        with missing_extras():
            try:
                return render(document, self.format)
            except (ValueError, TypeError) as error:
                message = f"{self.path} cannot be written as {self.format}: {error}"
                raise ConfigRejectedError(message, path=self.path) from error

    def masked(self, text: str) -> Document:
        """A document for people: secrets masked, by the model, or by the names without one."""
        return self.drafts.model.masked(self.parse(text))

    def differences(self, old: str, new: str) -> list[Difference]:
        """What differs, secrets masked."""
        return self.drafts.diff(old.encode(), new.encode())

    def check(self, text: str) -> None:
        """Check a text before it is published.

        Raises:
            ConfigRejectedError: It does not parse or validate, or has masks in the place of secrets.
        """
        places = masked_places(self.parse(text))
        if places:
            message = (
                f"{self.path}: {', '.join(places)} {'is' if len(places) == 1 else 'are'} {MASK!r}, the mask of a "
                "secret: begin with `zkrecipes config get --show-secrets`, or use `config edit`; nothing was published"
            )
            raise ConfigRejectedError(message, path=self.path)
        self.drafts.checked(text.encode())


def readable(documents: Documents, releases: ConfigReleases[BaseModel], version: int | None = None) -> tuple[int, str]:
    """Version and text of a document.

    Raises:
        ConfigRejectedError: It is no text.
        UsageProblem: It is a tree's root, which a document must not replace.
    """
    try:
        return releases.read(version)
    except ForeignNodeError as error:
        message = f"{documents.path} has a node for each field: give --layout tree"
        raise UsageProblem(message) from error
    except DocumentError as error:
        message = f"{documents.path}: {error}"
        raise ConfigRejectedError(message, path=documents.path) from error


def model_errors(documents: Documents, raw: bytes) -> tuple[FieldError, ...]:
    """What is wrong with a document, by the model, or by its form without one."""
    try:
        documents.drafts.checked(raw)
    except ConfigRejectedError as rejected:
        return rejected.errors or (FieldError("", str(rejected)),)
    return ()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"  # a container's user that has no name


@contextlib.contextmanager
def missing_extras() -> Iterator[None]:
    """Around what may need a package that is not installed."""
    try:
        yield
    except ImportError as error:
        raise MissingExtra(str(error)) from error


def load_model(name: str | None) -> type[BaseModel] | None:
    """Import a model by "package.module:Model", also from the current directory.

    Raises:
        UsageProblem: There is none of this name, or it is no model.
    """
    if name is None:
        return None
    module_name, colon, path = name.partition(":")
    if not (module_name and colon and path):
        message = f"--model must be package.module:Model, not {name!r}"
        raise UsageProblem(message)
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module_name)
        for part in path.split("."):
            found = getattr(found, part)
    except Exception as error:
        message = f"--model {name} cannot be imported: {type(error).__name__}: {error}"
        raise UsageProblem(message) from error
    if not (isinstance(found, type) and issubclass(found, BaseModel)):
        message = f"--model {name} is no class derived from pydantic.BaseModel"
        raise UsageProblem(message)
    return found


def read_input(file: str) -> str:
    """The text of a file; "-" is the standard input.

    Raises:
        UsageProblem: It cannot be read.
    """
    try:
        raw = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        return raw.decode("utf-8-sig")
    except OSError as error:
        message = f"{file} cannot be read: {error.strerror or error}"
        raise UsageProblem(message) from error
    except UnicodeDecodeError as error:
        message = f"{file} is no UTF-8 text, at byte {error.start}"
        raise UsageProblem(message) from error


def masked_places(document: Document) -> list[str]:
    """The dotted paths at which a mask stands in the place of a secret."""
    found = []
    waiting: list[tuple[str, Any]] = [("", document)]
    while waiting:
        path, value = waiting.pop()
        if value == MASK:
            found.append(path)
        elif isinstance(value, Mapping):
            waiting += [(f"{path}.{key}" if path else str(key), each) for key, each in value.items()]
        elif isinstance(value, list):
            waiting += [(f"{path}.{number}", each) for number, each in enumerate(value)]
    return sorted(found)


# --- fields -----------------------------------------------------------------------------------------------------------


def field_of(document: Document, path: str) -> Any:
    """What stands at a dotted path.

    Raises:
        KeyError: Nothing does.
    """
    found: Any = document
    for part in path.split("."):
        if isinstance(found, Mapping) and part in found:
            found = found[part]
        elif isinstance(found, list) and part.isdecimal() and int(part) < len(found):
            found = found[int(part)]
        else:
            raise KeyError(path)
    return found


def assigned(document: Document, assignments: Sequence[str]) -> Document:
    """A copy of a document with each "FIELD=VALUE" put in; missing mappings on the way are made.

    Raises:
        UsageProblem: One has no such form, or leads through something that is no mapping.
    """
    changed: Document = copy.deepcopy(document)
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals or not path:
            message = f"give FIELD=VALUE, such as database.pool_size=20, not {assignment!r}"
            raise UsageProblem(message)
        *parents, last = path.split(".")
        place: Any = changed
        for parent in parents:
            place = place.setdefault(parent, {}) if isinstance(place, dict) else None
        if not isinstance(place, dict):
            message = f"{path} leads through something that is no mapping; set the whole of it as JSON"
            raise UsageProblem(message)
        place[last] = value_of(text)
    return changed


def value_of(text: str) -> Any:
    """A value as typed: JSON if it is JSON, text otherwise."""
    try:
        return json.loads(text)
    except ValueError:
        return text


# --- values of JSON ---------------------------------------------------------------------------------------------------


def release_value(release: Release) -> dict[str, Any]:
    """A release as JSON."""
    return {**asdict(release), "changed": list(release.changed)}


def difference_text(difference: Difference) -> str:
    """A difference as one line for people, not a megabyte long."""
    text = str(difference)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text)} characters)"


def canary_of(text: str | None) -> Canary | None:
    """Read --canary: "10%", or "zone=a,tier=b".

    Raises:
        UsageProblem: It has neither form.
    """
    if text is None:
        return None
    with usage_errors():
        if text.endswith("%"):
            return Canary(percent=float(text[:-1]))
        labels = dict(pair.split("=", 1) for pair in text.split(",") if "=" in pair)
        if not labels or len(labels) != text.count(",") + 1:
            message = f"--canary must be a percentage (10%) or labels (zone=a,tier=web), not {text!r}"
            raise UsageProblem(message)
        return Canary(labels=labels)


def selector_text(selector: Canary) -> str:
    """Which instances, for people."""
    if selector.labels is None:
        return f"{selector.percent:g} % of the instances"
    return "instances with " + ", ".join(f"{name}={value}" for name, value in selector.labels.items())
