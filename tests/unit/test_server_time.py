"""What the time is for the servers, at least."""

from __future__ import annotations

import math

from tests.unit.kit import Runtime
from zkrecipes.server_time import ServerTime


def test_nothing_is_known_before_the_first_answer() -> None:
    time = ServerTime(Runtime().now, 0.01)
    assert time.at_least() is None
    assert time.age == math.inf


def test_it_goes_on_with_our_clock_but_never_faster_than_the_slowest_server() -> None:
    runtime = Runtime()
    time = ServerTime(runtime.now, 0.01)
    time.saw(1_000_000)
    assert time.at_least() == 1_000_000
    runtime.time += 100.0
    assert time.at_least() == 1_099_000
    assert time.age == 100.0


def test_the_newest_answer_counts_even_if_it_is_behind() -> None:
    runtime = Runtime()
    time = ServerTime(runtime.now, 0.01)
    time.saw(9_000_000)
    time.saw(1_000_000)
    assert time.at_least() == 1_000_000
