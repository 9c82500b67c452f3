"""What `doctor` looks for under a path: sequence numbers, big nodes, contenders that nobody minds."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Final, NamedTuple

from zkrecipes.cli.findings import Finding
from zkrecipes.client import Client
from zkrecipes.errors import NodeNotFoundError
from zkrecipes.layouts import CURATOR_LATCH, CURATOR_LOCK, KAZOO_LOCK
from zkrecipes.paths import LAST_NUMBER
from zkrecipes.port import Stat

__all__ = ["Seen", "headroom", "path_findings"]

LAYOUTS: Final = (CURATOR_LOCK, CURATOR_LATCH, KAZOO_LOCK)
# The server writes ten places, the minus sign among them: "x-0000000012" is the 12th child named "x-", "x--000000012" a
# negative number, and so is "x--2147483636"; before a number of ten digits one dash belongs to the name.
NUMBERED: Final = re.compile(r"(?s).*?((?<=-)-[12][0-9]{9}|-[0-9]{9}|[0-9]{10})")
NEARLY_FULL: Final = 0.9
BIG_DATA: Final = 512 * 1024
"""Bytes; a server refuses requests from about one mebibyte on, the path and all included."""
MANY_CHILDREN: Final = 10_000
"""A listing must fit into one answer, which is about one mebibyte, too."""


class Seen(NamedTuple):
    """One node of the tree."""

    path: str
    stat: Stat
    children: list[str]


def path_findings(zk: Client, path: str, limit: int) -> Iterator[Finding]:
    """Look at `path` and what is below it, `limit` nodes at most."""
    if zk.exists(path) is None:
        yield Finding("unknown", "path", f"{path} does not exist (yet)", {"path": path})
        return
    seen = 0
    fine = True
    for node in _walk(zk, path):
        for finding in _look_at(zk, node):
            fine = fine and finding.level == "ok"
            yield finding
        seen += 1
        if seen >= limit:
            text = f"looked at the first {seen} nodes only; give a deeper path, or a larger --limit"
            yield Finding("unknown", "path", text, {"nodes": seen})
            return
    if fine:
        yield Finding(
            "ok", "path", f"{seen} node{'s' if seen > 1 else ''} under {path}: nothing wrong", {"nodes": seen}
        )


def _walk(zk: Client, path: str) -> Iterator[Seen]:
    front = [path]
    while front:
        path = front.pop(0)
        stat = zk.exists(path)
        if stat is None:
            continue  # gone meanwhile
        try:
            children = zk.children(path) if stat.children_count else []
        except NodeNotFoundError:
            continue
        yield Seen(path, stat, children)
        front += [f"{path.rstrip('/')}/{child}" for child in children]


def _look_at(zk: Client, node: Seen) -> Iterator[Finding]:
    values = {"path": node.path}
    if node.stat.data_length >= BIG_DATA:
        size = f"{node.stat.data_length / 1024:.0f} KiB"
        text = f"{node.path} has {size} of data; a server refuses what is over about 1024 KiB"
        yield Finding("warning", "size", text, values | {"bytes": node.stat.data_length})
    if node.stat.children_count >= MANY_CHILDREN:
        count = f"{node.path} has {node.stat.children_count} children"
        text = f"{count}; when their names fit into one answer no longer, nobody can list it"
        yield Finding("warning", "size", text, values | {"children": node.stat.children_count})
    if any(NUMBERED.fullmatch(child) for child in node.children):
        yield headroom(node)
    yield from _line(zk, node)


def headroom(node: Seen) -> Finding:
    """How many sequence numbers are left.

    The server's counter is the number of creates. It shows as the children's version, which counts creates and deletes:
    creates = (version + children) / 2, where the version is a number of 32 bits.
    """
    numbers = [int(found[1]) for child in node.children if (found := NUMBERED.fullmatch(child))]
    if min(numbers) < 0 or max(numbers) >= LAST_NUMBER:
        text = f"the sequence numbers under {node.path} are used up: move to a new path"
        return Finding("bad", "sequence", text, {"path": node.path, "used": 1.0})
    # It is ambiguous by 2^31; the names settle it, since a counter beyond that writes negative numbers.
    used = max(max(numbers) + 1, ((node.stat.cversion + node.stat.children_count) % (1 << 32)) >> 1)
    share = used / LAST_NUMBER
    text = f"{used:,} of {LAST_NUMBER:,} sequence numbers under {node.path} are used"
    values = {"path": node.path, "next": used, "used": round(share, 4)}
    if share >= NEARLY_FULL:
        return Finding("warning", "sequence", f"{text}: move to a new path before they end", values)
    return Finding("ok", "sequence", text, values)


def _line(zk: Client, node: Seen) -> Iterator[Finding]:
    """Contenders under one path: of one layout, ephemeral, one a session."""
    counts = Counter(
        {layout.name: sum(layout.member(name) is not None for name in node.children) for layout in LAYOUTS}
    )
    kinds = [name for name, count in counts.items() if count]
    if not kinds:
        return
    strangers = [name for name in node.children if all(layout.member(name) is None for layout in LAYOUTS)]
    if len(kinds) > 1:
        text = f"{node.path} has contenders of the layouts {', '.join(kinds)}, which do not exclude each other: use one"
        yield Finding("bad", "line", text, {"path": node.path, "layouts": kinds})
    elif strangers:
        text = f"{node.path} has the child {strangers[0]!r} among its contenders; acquire refuses that: take it away"
        yield Finding("bad", "line", text, {"path": node.path, "strangers": strangers})
    yield from _orphans(zk, node)


def _orphans(zk: Client, node: Seen) -> Iterator[Finding]:
    owners: dict[int, list[str]] = {}
    for name in node.children:
        if any(layout.member(name) for layout in LAYOUTS):
            stat = zk.exists(f"{node.path.rstrip('/')}/{name}")
            if stat is not None:
                owners.setdefault(stat.ephemeral_owner, []).append(name)
    for owner, names in owners.items():
        values = {"path": node.path, "nodes": names, "session": f"{owner:#x}"}
        if owner == 0:
            text = (
                f"{node.path}/{names[0]} is a contender that is not ephemeral: it blocks the line until it is deleted"
            )
            yield Finding("bad", "orphan", text, values)
        elif len(names) > 1:
            text = (
                f"session {owner:#x} has {len(names)} contenders under {node.path}: threads of one process that wait, "
                "or nodes that a lost reply left behind (kazoo); those go only when the session ends"
            )
            yield Finding("warning", "orphan", text, values)
