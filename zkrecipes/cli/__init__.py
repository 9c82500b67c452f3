"""The command line: `zkrecipes --help`. Needs the extra `cli`."""

from __future__ import annotations

import sys
from typing import NoReturn

__all__ = ["main"]

_UNAVAILABLE = 69


def main() -> NoReturn:
    """Run the command line and exit with its status."""
    try:
        import rich  # noqa: F401, PLC0415 - an extra: whoever does not have it is told so
        import typer  # noqa: F401, PLC0415
    except ImportError as error:
        what = "the command line needs the extra `cli`; type: pip install 'zkrecipes[cli]'"
        print(f"zkrecipes: {error}: {what}", file=sys.stderr)
        sys.exit(_UNAVAILABLE)
    from zkrecipes.cli.app import run  # noqa: PLC0415

    sys.exit(run())
