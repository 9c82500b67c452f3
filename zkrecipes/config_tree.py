"""The tree layout: one node a field, nested models as nested nodes, as Spring Cloud Zookeeper reads it. Pure.

A text is stored as it is, all else as JSON ("5", "true", a list, a mapping). The root's version counts releases; its
data is ours: {"format": 1, "id", "digest"}, the digest being that of all nodes of the release. So a reader who has seen
some nodes before a release and some behind it knows: the digest does not fit.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import TypeAdapter
from pydantic_core import from_json, to_json

from zkrecipes.config_document import Document, DocumentError
from zkrecipes.config_model import Field, nested_fields
from zkrecipes.paths import validate_path
from zkrecipes.port import Acl, Create, Delete, Set, Stat

__all__ = ["Branches", "digest", "digest_of", "from_nodes", "meaning", "root_data", "to_nodes", "tree_writes"]

FORMAT = 1

Branches = Mapping[str, tuple[bytes, Stat]]
"""Data and stat of each node below the root, by its path below the root ("database/pool_size")."""


def meaning(text: str, item: Field | None) -> Any:
    """The text itself, where the field takes a text; otherwise what it means as JSON, if it means something."""
    if item is None:
        return _parsed(text)
    try:
        adapter = _adapter(item.annotation)
    except TypeError:  # not hashable, as with some metadata
        adapter = TypeAdapter(item.annotation)
    # Strictly, for pydantic would take "7" for a number, too, and then it would differ from the 7 of a document.
    if _takes(adapter, text, strict=True):
        return text
    parsed = _parsed(text)
    return parsed if _takes(adapter, parsed) else text  # the model says what is wrong with it


@functools.lru_cache(maxsize=1000)
def _adapter(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(annotation)


def _parsed(text: str) -> Any:
    try:
        return from_json(text)
    except ValueError:
        return text


def _takes(adapter: TypeAdapter[Any], value: Any, *, strict: bool | None = None) -> bool:
    try:
        adapter.validate_json(to_json(value), strict=strict)
    except Exception:  # noqa: BLE001 - a validator of the user's may raise anything; it will again, where it is told
        return False
    return True


def to_nodes(document: Document, fields: dict[str, Field] | None, prefix: str = "") -> dict[str, bytes]:
    """The nodes of a document, parents first.

    Raises:
        ValueError: A name cannot be that of a node.
    """
    nodes: dict[str, bytes] = {}
    for key, value in document.items():
        item = fields.get(key) if fields is not None else None
        inner = nested_fields(item.annotation) if item is not None else None
        validate_path(f"/{key}", "the name of a field")
        if "/" in key:
            message = f"the field {key!r} cannot be a node of its own, because of its '/'; use the document layout"
            raise ValueError(message)
        path = f"{prefix}{key}"
        if isinstance(value, dict) and inner is not None:
            nodes[path] = b""
            nodes.update(to_nodes(value, inner, f"{path}/"))
        else:
            nodes[path] = value.encode() if isinstance(value, str) else json.dumps(value, ensure_ascii=False).encode()
    return nodes


def from_nodes(nodes: Mapping[str, bytes], fields: dict[str, Field] | None) -> Document:
    """The document that nodes make up.

    Raises:
        DocumentError: A value is no UTF-8 text.
    """
    document: Document = {}
    parents = {path.rpartition("/")[0] for path in nodes}
    for path in sorted(nodes):
        *above, last = path.split("/")
        place, known = document, fields
        for part in above:
            item = known.get(part) if known is not None else None
            known = nested_fields(item.annotation) if item is not None else None
            inner = place.get(part)
            if not isinstance(inner, dict):
                inner = place[part] = {}
            place = inner
        item = known.get(last) if known is not None else None
        if path in parents or (not nodes[path] and item is not None and nested_fields(item.annotation) is not None):
            place.setdefault(last, {})
            continue
        try:
            text = nodes[path].decode()
        except UnicodeDecodeError as error:
            message = f"the node {path} is no UTF-8 text, at byte {error.start}"
            raise DocumentError(message) from None
        place[last] = meaning(text, item)
    return document


def digest(nodes: Iterable[tuple[str, bytes]]) -> str:
    """Of all nodes below the root."""
    total = hashlib.sha256()
    for path, data in sorted(nodes):
        name = path.encode()
        total.update(b"%d:%d:" % (len(name), len(data)) + name + data)
    return total.hexdigest()


def root_data(unique: str, nodes: Mapping[str, bytes]) -> bytes:
    """The root's data."""
    return json.dumps({"format": FORMAT, "id": unique, "digest": digest(nodes.items())}).encode()


def digest_of(data: bytes) -> str | None:
    """The digest in a root's data; None if it is not ours."""
    try:
        entry = json.loads(data)
        ours = entry.keys() == {"format", "id", "digest"} and entry["format"] == FORMAT
        return str(entry["digest"]) if ours else None
    except (ValueError, AttributeError, RecursionError):
        return None


def tree_writes(
    root: str, current: Branches, wanted: Mapping[str, bytes], acl: tuple[Acl, ...]
) -> tuple[Create | Set | Delete, ...]:
    """What turns the nodes that are there into those that are wanted, each in the version that was seen."""
    gone = [
        Delete(f"{root}/{path}", current[path][1].version)
        for path in sorted(current, reverse=True)
        if path not in wanted
    ]
    new = [Create(f"{root}/{path}", data, acl=acl) for path, data in wanted.items() if path not in current]
    changed = [
        Set(f"{root}/{path}", data, current[path][1].version)
        for path, data in wanted.items()
        if path in current and current[path][0] != data
    ]
    return (*gone, *new, *changed)
