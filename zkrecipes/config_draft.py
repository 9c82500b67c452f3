"""What is to be published: written, checked, compared. Pure, but for the user's validators."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar, final

from pydantic import BaseModel, ValidationError

from zkrecipes.config_document import FORMATS, Document, DocumentError, Format, parse, render
from zkrecipes.config_model import Difference, FieldError, ModelType
from zkrecipes.config_store import Head
from zkrecipes.config_tree import digest_of, from_nodes, to_nodes
from zkrecipes.config_types import Source
from zkrecipes.errors import ConfigRejectedError, ConflictError, ForeignNodeError

__all__ = ["Draft", "Drafts"]

M = TypeVar("M", bound=BaseModel)

OTHER_LAYOUT: Final = "is the root of a configuration in the tree layout: give layout='tree'"

IS_DOCUMENT: Final = "holds a document, and has no node for each field: leave out layout='tree'"

BROKEN: Final = b"not a document: "
"""What stands for the document of nodes that make up none; then why."""

NONE: Final = -1
"""As the expected version: there must be no document."""


@final
@dataclass(frozen=True, slots=True)
class Draft:
    """What is to be published.

    Attributes:
        raw: The document's bytes.
        document: The same, parsed.
        id: Unique: the write is known by it.
        source: How it came about.
        reason: As given.
        expected: The version that it must replace; -1: there must be no document; None is any.
        czxid: Of the document that has this version; None is any.
        to: Of a rollback: the version whose document it is.
    """

    raw: bytes
    document: Document
    id: str
    source: Source = "publish"
    reason: str = ""
    expected: int | None = None
    czxid: int | None = None
    to: int | None = None


@final
class Drafts(Generic[M]):
    """Documents of one model and format.

    Args:
        label: The document's path as the user wrote it.
        model: What documents are checked against; None checks their form only.
        format_: Of the documents.
        tree: Whether each field is stored as a node of its own.

    Raises:
        TypeError: It is no model.
        ValueError: There is no such format.
    """

    def __init__(self, label: str, model: type[M] | None, format_: str, *, tree: bool = False) -> None:
        if format_ not in FORMATS:
            message = f"format must be one of {', '.join(map(repr, FORMATS))}, not {format_!r}"
            raise ValueError(message)
        self.format: Format = next(known for known in FORMATS if known == format_)
        self.model: ModelType[M] = ModelType(model)
        self.label = label
        self._tree = tree
        self._form = "a tree of nodes" if tree else self.format
        self.completed: Callable[[Document], Document] = lambda document: document
        """What a document is together with the layers above and below it."""

    def written(self, value: object) -> bytes:
        """The document of an instance, which must read back alike.

        Raises:
            ConfigRejectedError: It does not validate, or the format cannot express it.
        """
        instance = self.model.checked(value)
        try:
            document = self.model.dump(instance)
            raw = render(document, self.format).encode()
            again = self.model.dump(self.model.validate(self._stored(parse(raw, self.format))))
        except ValidationError as error:
            raise self._invalid(self.label, None, error, document) from None
        except (ValueError, TypeError) as error:
            why = str(error) if isinstance(error, DocumentError) else type(error).__name__
            message = f"{self.label}: the model cannot be written as {self._form}: {why}"
            raise ConfigRejectedError(message, path=self.label) from None
        lost = self.model.changed(document, again)
        if lost:
            message = f"{self.label}: written as {self._form} and read again, these fields differ: {', '.join(lost)}"
            raise ConfigRejectedError(message, path=self.label, errors=tuple(FieldError(p, "is lost") for p in lost))
        return raw

    def checked(self, raw: bytes, version: int | None = None) -> Any:
        """The instance that a document describes; without a model, the document.

        Raises:
            ConfigRejectedError: It does not parse or validate.
        """
        what = self.label if version is None else f"version {version} of {self.label}"
        try:
            document = self._stored(parse(raw, self.format))
            return document if self.model.model is None else self.model.validate(self.completed(document))
        except DocumentError as error:
            message = f"{what}: {error}; nothing was published"
            errors = (FieldError("", str(error)),)
            raise ConfigRejectedError(message, path=self.label, version=version, errors=errors) from None
        except ValidationError as error:
            raise self._invalid(what, version, error, document) from None

    def _stored(self, document: Document) -> Document:
        """What is read back of a document, once it is stored."""
        if not self._tree:
            return document
        try:
            return from_nodes(to_nodes(document, self.model.fields), self.model.fields)
        except DocumentError:
            raise
        except ValueError as error:
            raise DocumentError(str(error)) from None

    def _invalid(
        self, what: str, version: int | None, error: ValidationError, document: Document
    ) -> ConfigRejectedError:
        errors = self.model.field_errors(error, document)
        message = f"{what} does not validate, and nothing was published: {'; '.join(map(str, errors))}"
        return ConfigRejectedError(message, path=self.label, version=version, errors=errors)

    def check_expected(self, head: Head, draft: Draft) -> None:
        """Refuse a draft that was made for another document than the one that is there.

        Raises:
            ConflictError: With the differences, secrets masked.
        """
        expected, czxid = draft.expected, draft.czxid
        if expected is None:
            return
        if expected == NONE and head.stat is None:
            return
        same = czxid is None or head.stat is None or head.stat.czxid == czxid
        if head.version == expected and same:
            return
        found = "does not exist" if head.stat is None else f"is in version {head.version}"
        wanted = "in no version, since it should not exist yet," if expected == NONE else f"in version {expected}"
        if not same:
            found += ", of a document that was deleted and made again"
        differences = self.diff(head.data, draft.document)
        shown = "".join(f"\n  {each}" for each in differences[:20]) or " nothing"
        if len(differences) > 20:  # noqa: PLR2004 - what fits on a screen
            shown += f"\n  and {len(differences) - 20} more"
        message = (
            f"{self.label} {found}, not {wanted} as expected: read it and decide again. From what is "
            f"there to what was to be published:{shown}"
        )
        raise ConflictError(message, path=self.label, expected=expected, actual=head.version)

    def check_layout(self, raw: bytes | None, nodes: Mapping[str, bytes]) -> None:
        """Refuse to replace the root of a tree by a document, which would leave its fields behind; or the reverse.

        Raises:
            ForeignNodeError: It is in the other layout.
        """
        if raw is None:
            return
        if not self._tree and digest_of(raw) is not None:
            raise ForeignNodeError(f"{self.label} {OTHER_LAYOUT}", path=self.label)  # noqa: EM102, TRY003
        if self._tree and not nodes and self._is_document(raw):
            raise ForeignNodeError(f"{self.label} {IS_DOCUMENT}", path=self.label)  # noqa: EM102, TRY003

    def _is_document(self, root: bytes) -> bool:
        """Whether the root of what should be a tree is none. Some tools put other data there, such as an address."""
        return bool(root) and digest_of(root) is None and bool(self.known(root))

    def parsed(self, raw: bytes) -> Document:
        """What the document node says.

        Raises:
            DocumentError: It does not parse, or is the root of a tree.
        """
        if not self._tree and digest_of(raw) is not None:
            raise DocumentError(f"the node {OTHER_LAYOUT}")  # noqa: EM102, TRY003
        if self._tree and raw.startswith(BROKEN):
            raise DocumentError(raw.removeprefix(BROKEN).decode())
        return parse(raw, self.format)

    def assembled(self, root: bytes, nodes: Mapping[str, bytes]) -> bytes:
        """The document that the nodes of a tree make up; a broken node makes a broken document."""
        if not nodes and self._is_document(root):
            return BROKEN + f"the node {IS_DOCUMENT}".encode()
        try:
            return render(from_nodes(nodes, self.model.fields), "json").encode()
        except (DocumentError, ValueError) as error:
            return BROKEN + str(error).encode()

    def known(self, raw: bytes | None) -> Document:
        """A document for comparing; empty if it is none."""
        if raw is None:
            return {}
        try:
            return parse(raw, self.format)
        except DocumentError:
            return {}

    def diff(self, old: bytes | None, new: Document | bytes) -> list[Difference]:
        """What differs, secrets masked."""
        return self.model.diff(self.known(old), self.known(new) if isinstance(new, bytes) else new)

    def masked(self, raw: bytes) -> Document:
        """A document for people to see.

        Raises:
            DocumentError: It does not parse.
        """
        return self.model.masked(parse(raw, self.format))
