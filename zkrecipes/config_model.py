"""What the configuration needs of a pydantic model. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

__all__ = ["FieldError"]


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
