"""What the configuration needs of a pydantic model: dotted paths, masks over secrets, differences, errors. Pure.

People see field names in dotted paths ("database.pool_size"); documents use the fields' aliases, where they have some.
Values that come from here for people to see have their secrets masked; those for the document have them in clear.
"""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar, cast, final

import pydantic
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import to_json

from zkrecipes.codec import revealed
from zkrecipes.config_document import Document

__all__ = ["MASK", "Difference", "FieldError", "ModelType", "differences", "fields_of", "leaves"]

M = TypeVar("M", bound=BaseModel)

MASK: Final = "**********"

_SECRET_TYPES: Final = (pydantic.SecretStr, pydantic.SecretBytes, pydantic.Secret)
_SINGLE: Final = (str, int, float, bool, bytes, type(None), *_SECRET_TYPES)
_SECRET_NAME: Final = re.compile(r"passw|secret|token|credential|private|api_?key|auth", re.IGNORECASE)
_SHORTEST_SECRET: Final = 4
_MOST_ERRORS: Final = 50
"""What is told of one document goes into logs, and into a node."""
_LONGEST_WORDS: Final = 500

MISSING: Final = object()


@final
@dataclass(frozen=True, slots=True)
class FieldError:
    """What is wrong with one field. Never holds its value, which may be a secret.

    Attributes:
        path: Dotted ("database.pool_size"); empty for the document as a whole.
        message: What is wrong.
    """

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


@final
@dataclass(frozen=True, slots=True)
class Difference:
    """One value that differs between two documents. Secrets are masked.

    Attributes:
        path: Dotted.
        kind: "added", "removed" or "changed".
        old: None where it was added.
        new: None where it was removed.
    """

    path: str
    kind: str
    old: Any
    new: Any

    def __str__(self) -> str:
        match self.kind:
            case "added":
                return f"+ {self.path}: {self.new!r}"
            case "removed":
                return f"- {self.path}: {self.old!r}"
            case _:
                return f"~ {self.path}: {self.old!r} -> {self.new!r}"


@final
@dataclass(frozen=True, slots=True)
class Field:
    """One field of a model.

    Attributes:
        name: As an attribute.
        key: In the document: its alias, if it has one.
        annotation: Its type.
    """

    name: str
    key: str
    annotation: Any


def fields_of(type_: Any) -> dict[str, Field] | None:
    """The fields of a model, dataclass or typed dict, by key and by name; None for other types."""
    if not isinstance(type_, type):
        return None
    found: dict[str, Field] = {}
    if issubclass(type_, BaseModel):
        for name, info in type_.model_fields.items():
            alias = info.validation_alias if isinstance(info.validation_alias, str) else info.alias
            field = Field(name, alias or name, info.annotation)
            found[field.key] = field
            found.setdefault(name, field)
        return found
    # Not typing.is_typeddict(), which does not know those of typing_extensions.
    if dataclasses.is_dataclass(type_) or hasattr(type_, "__required_keys__"):
        return {name: Field(name, name, hint) for name, hint in typing.get_type_hints(type_).items()}
    return None


def _parts(annotation: Any) -> Iterator[Any]:
    """All types that an annotation is made of: of `dict[str, Model] | None`, dict, str, Model and None."""
    annotation = getattr(annotation, "__value__", annotation)  # of a `type` statement
    arguments = typing.get_args(annotation)
    if not arguments:
        yield annotation
        return
    yield typing.get_origin(annotation)
    for argument in arguments:
        yield from _parts(argument)


def nested_fields(annotation: Any) -> dict[str, Field] | None:
    """The fields of the models in an annotation, if a mapping at its place is one of these models."""
    merged: dict[str, Field] = {}
    for part in _parts(annotation):
        if part is dict:
            return None  # the mapping's keys are no fields
        merged.update(fields_of(part) or {})
    return merged or None


def leaves(document: Document, fields: dict[str, Field] | None = None, prefix: str = "") -> dict[str, Any]:
    """Each value that is no mapping, or an empty one, by its dotted path of field names."""
    found: dict[str, Any] = {}
    for key, value in document.items():
        field = fields.get(key) if fields is not None else None
        path = f"{prefix}{field.name if field is not None else key}"
        if isinstance(value, dict) and value:
            inner = nested_fields(field.annotation) if field is not None else None
            found.update(leaves(value, inner, f"{path}."))
        else:
            found[path] = value
    return found


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Path, old and new of each leaf that differs, first in the order of the old document; MISSING if absent."""
    found = []
    for path in dict.fromkeys((*old, *new)):
        before, after = old.get(path, MISSING), new.get(path, MISSING)
        if before is MISSING or after is MISSING or before != after or type(before) is not type(after):
            found.append((path, before, after))
    return found


@final
class ModelType(Generic[M]):
    """A model class, with all that the configuration asks of it. None stands for documents without a model.

    Raises:
        TypeError: It is no pydantic model.
    """

    def __init__(self, model: type[M] | None) -> None:
        if model is not None and not (isinstance(model, type) and issubclass(model, BaseModel)):
            message = f"the model must be a class derived from pydantic.BaseModel, not {model!r}"
            raise TypeError(message)
        self.model = model
        self.fields = None if model is None else fields_of(model)
        self._adapter = None if model is None else TypeAdapter(model)

    @property
    def frozen(self) -> bool:
        """Whether its instances cannot be changed."""
        return self.model is not None and self.model.model_config.get("frozen", False) is True

    # --- documents ----------------------------------------------------------------------------------------------------

    def validate(self, document: Document) -> M:
        """The instance that a document describes.

        As JSON, whatever the format, so that what `dump` writes is read back alike in strict models, too.

        Raises:
            pydantic.ValidationError: It does not describe one.
        """
        assert self._adapter is not None
        return self._adapter.validate_json(to_json(document, inf_nan_mode="constants"))

    def checked(self, value: object) -> M:
        """A value that is to be published, validated.

        Raises:
            TypeError: It is no instance of the model.
        """
        if self.model is None or not isinstance(value, self.model):
            name = "a model" if self.model is None else self.model.__name__
            message = f"publish takes an instance of {name}, not {type(value).__name__}"
            raise TypeError(message)
        return value

    def dump(self, value: M) -> Document:
        """The whole document of an instance, with secrets in clear."""
        return cast("Document", revealed(self._adapter, value))

    def shown(self, value: M) -> dict[str, Any]:
        """Each value of an instance by its path, for people: as JSON, secrets masked."""
        return leaves(value.model_dump(mode="json"), self.fields)

    # --- paths --------------------------------------------------------------------------------------------------------

    def check_path(self, path: str) -> str:
        """Check that a dotted path leads somewhere.

        Raises:
            TypeError: It is no text.
            ValueError: There is no such field.
        """
        if not isinstance(path, str):
            message = f"path must be a str such as 'database.pool_size', not {type(path).__name__}"
            raise TypeError(message)
        fields, annotation = self.fields, None
        for part in path.split("."):
            if fields is None:
                if all(each in _SINGLE for each in _parts(annotation)):
                    message = f"there is nothing below {path.rpartition(f'.{part}')[0]!r}, as {path!r} would have it"
                    raise ValueError(message)
                break  # within a mapping: its keys come and go
            if part.isdecimal() and any(each is list or each is tuple for each in _parts(annotation)):
                continue  # a place in a list of models
            names = {field.name: field for field in fields.values()}
            if part not in names:
                known = ", ".join(sorted(names))
                message = f"there is no field {part!r} in {path!r}; the fields there are: {known}"
                raise ValueError(message)
            annotation = names[part].annotation
            fields = nested_fields(annotation)
        return path

    @staticmethod
    def value_at(value: object, path: str) -> Any:
        """What stands at a dotted path; None where there is nothing."""
        found: Any = value
        for part in path.split("."):
            if isinstance(found, Mapping):
                found = found.get(part)
            elif isinstance(found, list | tuple):
                found = found[int(part)] if part.isdecimal() and int(part) < len(found) else None
            else:
                found = getattr(found, part, None)
        return found

    # --- secrets ------------------------------------------------------------------------------------------------------

    def masked(self, document: Document) -> Document:
        """A document for people to see.

        With a model: all that is secret by its type, and all that the model does not know. Without: by the names.
        """
        if self.fields is None:
            return cast("Document", _mask_by_name(document))
        return _mask_fields(self.fields, document)

    def changed(self, old: Document, new: Document) -> tuple[str, ...]:
        """The paths of what differs."""
        return tuple(path for path, _, _ in differences(leaves(old, self.fields), leaves(new, self.fields)))

    def diff(self, old: Document, new: Document) -> list[Difference]:
        """What differs, secrets masked; a changed secret is there, too."""
        seen_old, seen_new = leaves(self.masked(old), self.fields), leaves(self.masked(new), self.fields)
        found = []
        for path, before, after in differences(leaves(old, self.fields), leaves(new, self.fields)):
            kind = "added" if before is MISSING else "removed" if after is MISSING else "changed"
            # A masked mapping is one leaf, though the values in it are several.
            old_shown = None if before is MISSING else seen_old.get(path, MASK)
            found.append(Difference(path, kind, old_shown, None if after is MISSING else seen_new.get(path, MASK)))
        return found

    # --- errors -------------------------------------------------------------------------------------------------------

    def field_errors(self, error: ValidationError, document: Document) -> tuple[FieldError, ...]:
        """What is wrong with a document, field by field, without its values."""
        clear, masked = leaves(document, self.fields), leaves(self.masked(document), self.fields)
        # What is masked as a whole (a mapping of secrets) is one leaf, though the document has several there.
        secret = {path: value for path, value in clear.items() if masked.get(path, MASK) == MASK}
        texts = {text for value in secret.values() for text in _texts(value) if len(text) >= _SHORTEST_SECRET}
        hidden = sorted(texts, key=len, reverse=True)
        errors = error.errors(include_url=False, include_input=False, include_context=False)
        found = []
        for each in errors[:_MOST_ERRORS]:
            path = self._path_of(each["loc"])
            message = each["msg"]
            if each["type"] in {"value_error", "assertion_error"} and path in secret:
                message = "refused by the model's validator"  # whose words may quote the secret
            for text in hidden:
                message = message.replace(text, MASK)
            found.append(FieldError(_shortened(path), _shortened(message)))
        if len(errors) > _MOST_ERRORS:
            found.append(FieldError("", f"and {len(errors) - _MOST_ERRORS} more"))
        return tuple(found)

    def _path_of(self, location: tuple[int | str, ...]) -> str:
        fields = self.fields
        parts = []
        for part in location:
            field = fields.get(part) if fields is not None and isinstance(part, str) else None
            parts.append(str(part) if field is None else field.name)
            fields = nested_fields(field.annotation) if field is not None else None
        return ".".join(parts)


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_WORDS else f"{text[:_LONGEST_WORDS]}…"


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)
    elif value is not None and not isinstance(value, bool):
        yield str(value)


def _mask_fields(fields: dict[str, Field], document: Document) -> Document:
    masked: Document = {}
    for key, value in document.items():
        field = fields.get(key)
        masked[key] = _hide(value) if field is None else _mask(field.annotation, value)
    return masked


def _mask(annotation: Any, value: Any) -> Any:
    parts = list(_parts(annotation))
    if any(isinstance(part, type) and issubclass(part, _SECRET_TYPES) for part in parts):
        return _hide(value)
    fields: dict[str, Field] = {}
    for part in parts:
        fields.update(fields_of(part) or {})
    if not fields:
        return value
    if isinstance(value, list):
        return [_mask(annotation, each) for each in value]
    if isinstance(value, dict):
        if dict in parts:
            return {key: _mask_fields(fields, each) if isinstance(each, dict) else each for key, each in value.items()}
        return _mask_fields(fields, value)
    return value


def _hide(value: Any) -> Any:
    return value if value is None or value == "" else MASK


def _mask_by_name(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _hide(each) if _SECRET_NAME.search(key) else _mask_by_name(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_mask_by_name(each) for each in value]
    return value
