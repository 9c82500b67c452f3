"""What health checks are told. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

__all__ = ["Health"]


@final
@dataclass(frozen=True, slots=True)
class Health:
    """For health checks.

    Attributes:
        ok: Whether all is well.
        state: In a word.
        reason: Why not, or empty.
    """

    ok: bool
    state: str
    reason: str = ""
