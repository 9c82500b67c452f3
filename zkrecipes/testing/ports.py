"""TCP ports on 127.0.0.1 that stay ours while nothing listens on them.

A server that is stopped and started again must find its port free. Ports given by the kernel (bind to 0) do not do:
they lie in the range from which outgoing connections take theirs, so a client that tries a stopped server again and
again may be given the very port and talk to itself. So ports are taken from below that range, and each is reserved
against other processes of this kit by a name that the kernel frees when its owner dies.
"""

from __future__ import annotations

import contextlib
import random
import socket
import sys
from pathlib import Path
from typing import Final, final

__all__ = ["LOOPBACK", "ReservedPort", "reserve_port"]

LOOPBACK: Final = "127.0.0.1"

_LOWEST: Final = 12_000
_TRIES: Final = 200
_RANGE_FILE: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")


@final
class ReservedPort:
    """A port number that no other process of this kit will choose until `release`."""

    def __init__(self, number: int, claim: socket.socket | None) -> None:
        self.number = number
        self._claim = claim

    def release(self) -> None:
        """Give the number back. May be called twice."""
        if self._claim is not None:
            self._claim.close()
            self._claim = None


def reserve_port() -> ReservedPort:
    """Find a free port and reserve it.

    Raises:
        OSError: No free port was found.
    """
    # A generator of its own: a test that seeds the global one must not make two workers walk the same ports.
    numbers = random.SystemRandom()
    ceiling = _ephemeral_floor()
    for _ in range(_TRIES):
        number = numbers.randrange(_LOWEST, ceiling)
        claim = _claim(number)
        if claim is None and sys.platform == "linux":
            continue
        if _is_free(number):
            return ReservedPort(number, claim)
        if claim is not None:
            claim.close()
    message = f"no free TCP port found on {LOOPBACK} between {_LOWEST} and {ceiling}; stop what occupies them"
    raise OSError(message)


def _ephemeral_floor() -> int:
    """The lowest port that the kernel gives to outgoing connections."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        lowest = int(_RANGE_FILE.read_text(encoding="ascii").split()[0])
        if lowest > _LOWEST + 1_000:
            return lowest
    return 32_768


def _claim(number: int) -> socket.socket | None:
    """Take the name that stands for this port; None if another process has it, or where there are no such names."""
    if sys.platform != "linux":
        return None
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        claim.bind(f"\0zkrecipes-testing-port-{number}")
    except OSError:
        claim.close()
        return None
    return claim


def _is_free(number: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, number))
        except OSError:
            return False
    return True
