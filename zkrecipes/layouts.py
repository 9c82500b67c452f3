"""How contenders are named on the server: Curator's and kazoo's layouts. Pure.

Rule for foreign children: every child of a line's path must be a contender of its layout; anything else is refused
(ForeignNodeError). Curator sorts a child that it does not know by its full name, and kazoo ignores it, so neither would
exclude it, or be excluded by it, reliably.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, final

from zkrecipes.errors import ForeignNodeError

__all__ = ["CURATOR_LATCH", "CURATOR_LOCK", "KAZOO_LOCK", "Layout", "Member"]

# Our GUIDs have this version digit; Curator's and kazoo's are random ones, of version 4.
OWN_VERSION: Final = "8"


@final
class Member(NamedTuple):
    """One node in a line.

    Attributes:
        name: The node's name.
        number: Its sequence number, negative after 2147483647.
        ours: Whether this library made it, in whatever process.
        czxid: The zxid that made it, if known.
    """

    name: str
    number: int
    ours: bool
    czxid: int | None = None


@final
@dataclass(frozen=True)
class Layout:
    """A naming scheme.

    Attributes:
        name: What users call it.
        base: The text before the sequence number.
        before: The text before the GUID.
        after: The text between GUID and base.
        dashes: Whether the GUID is written with dashes.
    """

    name: str
    base: str
    before: str
    after: str
    dashes: bool
    _pattern: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # The server writes the number with ten places, the minus sign among them.
        object.__setattr__(self, "_pattern", re.compile(rf"(?s)(.*){re.escape(self.base)}([0-9]{{10}}|-[0-9]{{9,10}})"))

    def prefix(self, guid: str) -> str:
        """What a contender with this GUID is called, without its number."""
        return f"{self.before}{guid if self.dashes else guid.replace('-', '')}{self.after}{self.base}"

    def member(self, name: str, czxid: int | None = None) -> Member | None:
        """Read a name; None if it is no contender's of this layout."""
        match = self._pattern.fullmatch(name)
        if match is None:
            return None
        return Member(name, int(match.group(2)), self._is_ours(name), czxid)

    def members(self, path: str, names: Sequence[str], czxids: dict[str, int] | None = None) -> list[Member]:
        """Read a listing.

        Raises:
            ForeignNodeError: A child is no contender of this layout.
        """
        found: list[Member] = []
        for name in names:
            member = self.member(name, None if czxids is None else czxids.get(name))
            if member is None:
                message = (
                    f"{path} has a child {name!r}, which is no contender in the layout {self.name!r}: nothing would "
                    "exclude its owner. Give each recipe a path of its own, and use the layout of the peers here"
                )
                raise ForeignNodeError(message, path=path)
            found.append(member)
        return found

    def _is_ours(self, name: str) -> bool:
        version_at = len(self.before) + (14 if self.dashes else 12)
        return name[version_at : version_at + 1] == OWN_VERSION


CURATOR_LOCK: Final = Layout("curator", "lock-", "_c_", "-", dashes=True)
CURATOR_LATCH: Final = Layout("latch", "latch-", "_c_", "-", dashes=True)
KAZOO_LOCK: Final = Layout("kazoo", "__lock__", "", "", dashes=False)
