"""Waiting for a condition with a limit, in place of sleeping and hoping."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

__all__ = ["wait_until"]

T = TypeVar("T")

_FIRST_PAUSE: Final = 0.001
_LONGEST_PAUSE: Final = 0.05


def wait_until(predicate: Callable[[], T], limit: float = 5.0, message: str | Callable[[], str] = "") -> T:
    """Call `predicate` until it returns something true, and return that.

    The pauses grow from 1 ms to 50 ms, so that a short wait ends soon and a long one costs little. The predicate
    is always asked at least once, and once more at the limit.

    Args:
        predicate: Is asked in the calling thread. What it raises is not caught.
        limit: Seconds until the wait fails.
        message: What was waited for; or a function that tells the state of things when the limit is reached.

    Raises:
        AssertionError: The limit was reached.
    """
    started = time.monotonic()
    never = threading.Event()
    pause = _FIRST_PAUSE
    while True:
        answer = predicate()
        if answer:
            return answer
        left = started + limit - time.monotonic()
        if left <= 0:
            what = message() if callable(message) else message
            text = f"{what or getattr(predicate, '__name__', 'the condition')}: not so within {limit:g} s"
            raise AssertionError(text)
        never.wait(min(pause, left))
        pause = min(pause * 1.5, _LONGEST_PAUSE)
