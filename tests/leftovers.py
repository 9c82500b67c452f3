"""What a client may have left in this process: threads and open files."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path
from typing import Final, final

from zkrecipes.testing import wait_until

__all__ = ["Leftovers"]

_OF_THE_KIT: Final = "zkrecipes-proxy"


@final
class Leftovers:
    """Compares with the moment at which it was made."""

    def __init__(self) -> None:
        self._threads = _threads()
        self._files = _files()

    def none(self, limit: float = 5.0, *, files: bool = True) -> None:
        """Wait until there are none.

        Args:
            limit: Seconds for each kind.
            files: False where a proxy of this process holds connections open.

        Raises:
            AssertionError: There are some after `limit` seconds.
        """
        wait_until(lambda: not self._threads_left(), limit, lambda: f"no thread is left: {self._threads_left()}")
        if files:
            wait_until(lambda: not self._files_left(), limit, lambda: f"no file is left open: {self._files_left()}")

    def _threads_left(self) -> list[str]:
        return sorted((_threads() - self._threads).elements())

    def _files_left(self) -> list[str]:
        return sorted((_files() - self._files).elements())


def _threads() -> Counter[str]:
    names = (thread.name for thread in threading.enumerate() if not thread.name.startswith(_OF_THE_KIT))
    return Counter(name.rstrip("0123456789") for name in names)


def _files() -> Counter[str]:
    """By kind; a socket's number tells nothing."""
    kinds: Counter[str] = Counter()
    for number in Path("/proc/self/fd").iterdir():
        try:
            target = str(number.readlink())
        except OSError:
            continue  # the listing's own
        kinds[target.partition(":")[0] if ":" in target else target] += 1
    return kinds
