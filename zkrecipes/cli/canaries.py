"""How canaries have ended: from the marks that they leave beside the release records."""

from __future__ import annotations

from typing import NamedTuple

from zkrecipes.client import Client
from zkrecipes.errors import NodeNotFoundError

__all__ = ["Ended", "last_ended"]


class Ended(NamedTuple):
    """A canary that has ended.

    Attributes:
        id: The canary's.
        base: The version that it was to replace.
        how: "promoted", or "aborted by … : why".
    """

    id: str
    base: int
    how: str


def last_ended(zk: Client, path: str, canary: str | None = None) -> Ended | None:
    """The canary that was begun last, or this one, if it has ended and its mark is kept."""
    parent = f"{path}-releases"
    try:
        names = zk.children(parent)
    except NodeNotFoundError:
        return None
    found: list[tuple[int, Ended]] = []
    for name in names:
        kind, _, rest = name.partition("-")
        base, _, unique = rest.partition("-")
        if kind != "canary" or not base.isdecimal() or canary not in {None, unique}:
            continue
        try:
            node = zk.get(f"{parent}/{name}")
        except NodeNotFoundError:
            continue  # trimmed meanwhile
        if node.stat.version > 0:
            found.append((node.stat.czxid, Ended(unique, int(base), node.value.decode("utf-8", "replace"))))
    return max(found)[1] if found else None
