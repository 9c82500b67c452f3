"""Paths and sequence numbers. Pure."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["LAST_NUMBER", "ancestors", "join", "validate_namespace", "validate_path"]

LAST_NUMBER: Final = 2_147_483_647
"""The last sequence number of a parent; after it the server's counter turns negative."""

MAX_PATH: Final = 16 * 1024
"""Characters of the longest path: far from the size of request at which a server drops the connection."""

# What ZooKeeper's own PathUtils refuses.
_BAD_CHARACTER: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\uf8ff\ufff0-\uffff]")


def validate_path(path: str, name: str = "path") -> str:
    """Check a path as ZooKeeper does, and that it is not the root.

    Raises:
        TypeError: It is no text.
        ValueError: It is relative, empty, or has a component or character that ZooKeeper does not take.
    """
    if not isinstance(path, str):
        message = f"{name} must be a str, not {type(path).__name__}"
        raise TypeError(message)
    if not path.startswith("/"):
        message = f"{name} must begin with '/', not be {path!r}"
        raise ValueError(message)
    if path == "/":
        message = f"{name} must name a node below the root, such as '/locks/report'"
        raise ValueError(message)
    for part in path[1:].split("/"):
        if part in {"", ".", ".."}:
            message = f"{name} {path!r} must not have an empty component, '.' or '..', nor end with '/'"
            raise ValueError(message)
    if len(path) > MAX_PATH:
        message = f"{name} has {len(path)} characters; the longest that is taken has {MAX_PATH}"
        raise ValueError(message)
    bad = _BAD_CHARACTER.search(path)
    if bad is not None:
        message = f"{name} {path!r} has the character {bad.group()!r}, which ZooKeeper does not take"
        raise ValueError(message)
    return path


def validate_namespace(namespace: str) -> str:
    """Check a namespace: empty, or a path."""
    return "" if namespace in {"", "/"} else validate_path(namespace, "namespace")


def join(namespace: str, path: str) -> str:
    """The full path on the server."""
    return namespace if path == "/" and namespace else namespace + path


def ancestors(path: str) -> list[str]:
    """The path's parents and itself, from the top, without the root."""
    parts = path.split("/")[1:]
    return ["/" + "/".join(parts[: n + 1]) for n in range(len(parts))]
