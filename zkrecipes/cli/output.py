"""What the command line prints, for a person or as JSON, and the exit statuses."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Final, NoReturn, final

import typer

from zkrecipes.errors import (
    AccessDeniedError,
    AcquireTimeoutError,
    AuthenticationError,
    ConfigRejectedError,
    ConflictError,
    LostError,
    OutcomeUnknownError,
    PayloadTooLargeError,
    UnavailableError,
    ZkRecipesError,
)
from zkrecipes.testing.installation import InstallationNotFoundError
from zkrecipes.testing.process import ServerStartError

__all__ = ["MissingExtra", "Output", "UsageProblem", "fail", "out", "printable", "status_of", "usage_errors"]

REFUSED: Final = 1
USAGE: Final = 2
UNAVAILABLE: Final = 69
OUTCOME_UNKNOWN: Final = 74
NOT_ACQUIRED: Final = 75
HOLD_LOST: Final = 76
ACCESS_DENIED: Final = 77


@final
class UsageProblem(Exception):  # noqa: N818 - it is told to the person who typed it, as a sentence
    """An argument is not valid."""


@final
class MissingExtra(Exception):  # noqa: N818 - it is told to the person who typed it, as a sentence
    """What was asked for needs a package that is not installed."""


# The first class that fits.
_STATUSES: Final[tuple[tuple[type[BaseException], int], ...]] = (
    (AcquireTimeoutError, NOT_ACQUIRED),
    (UnavailableError, UNAVAILABLE),
    (InstallationNotFoundError, UNAVAILABLE),
    (MissingExtra, UNAVAILABLE),
    (ServerStartError, UNAVAILABLE),
    (OutcomeUnknownError, OUTCOME_UNKNOWN),
    (LostError, HOLD_LOST),
    (AccessDeniedError, ACCESS_DENIED),
    (AuthenticationError, ACCESS_DENIED),
    (PayloadTooLargeError, USAGE),
    (ZkRecipesError, REFUSED),
)


@contextlib.contextmanager
def usage_errors() -> Iterator[None]:
    """Around what checks arguments: its ValueError and TypeError are about what was typed."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise UsageProblem(str(error)) from error


def printable(text: str, keep: str = "\n\t") -> str:
    """A text for the screen: what could steer the terminal is escaped."""
    return "".join(each if each.isprintable() or each in keep else repr(each)[1:-1] for each in text)


def status_of(error: BaseException) -> int:
    """The exit status for an error."""
    if isinstance(error, UsageProblem):
        return USAGE
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), REFUSED)


@final
class Output:
    """Where it is printed, and how.

    Attributes:
        json: Whether a program reads it: one JSON value a line.
    """

    def __init__(self) -> None:
        self.json = False

    def value(self, value: Any, text: str | Sequence[str]) -> None:
        """Print a result: the value as JSON, or the text."""
        if self.json:
            typer.echo(json.dumps(value))
        else:
            for line in [text] if isinstance(text, str) else text:
                # What others have written may steer a terminal. A program gets it as it is, unlike from typer.echo.
                sys.stdout.write(f"{printable(line) if sys.stdout.isatty() else line}\n")
        sys.stdout.flush()

    def note(self, event: str, text: str = "", **details: object) -> None:
        """Say on the standard error what happens; without JSON, only where there is a text."""
        if self.json:
            typer.echo(json.dumps({"event": event, **details}), err=True)
        elif text:
            typer.echo(f"zkrecipes: {printable(text)}", err=True)

    def error(self, error: BaseException, status: int) -> None:
        """Say what went wrong."""
        path = getattr(error, "path", "")
        details = {"error": type(error).__name__.removesuffix("Problem"), "status": status, "path": path}
        if isinstance(error, ConflictError):
            details |= {"expected": error.expected, "actual": error.actual}
        if isinstance(error, ConfigRejectedError):
            details |= {"errors": [{"path": each.path, "message": each.message} for each in error.errors]}
        if self.json:
            typer.echo(json.dumps({"event": "error", "message": str(error), **details}), err=True)
        else:
            typer.echo(f"zkrecipes: {printable(str(error))}", err=True)


out: Final = Output()
"""There is one standard output."""


def fail(status: int) -> NoReturn:
    """End with this exit status."""
    raise typer.Exit(status)
