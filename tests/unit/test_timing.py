"""Timeouts and deadlines."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest

from zkrecipes.timing import NEVER, Deadline, to_seconds


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(0, 0.0), (1, 1.0), (0.25, 0.25), (None, NEVER), (math.inf, NEVER), (timedelta(milliseconds=250), 0.25)],
)
def test_seconds(value: Any, seconds: float) -> None:
    answer = to_seconds(value)
    assert answer == seconds
    assert isinstance(answer, float)


@pytest.mark.parametrize("value", [-1, -0.001, math.nan, -math.inf, timedelta(seconds=-1)])
def test_bad_values_are_refused_by_name(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^patience must be 0 or more seconds, not"):
        to_seconds(value, "patience")


@pytest.mark.parametrize("value", ["1", b"1", True, [1], object()])
def test_bad_types_are_refused_by_name(value: Any) -> None:
    with pytest.raises(TypeError, match=r"^timeout must be a number of seconds, a timedelta or None"):
        to_seconds(value)


def test_a_deadline_stays_where_it_is() -> None:
    deadline = Deadline.after(2.0, 100.0)
    assert (deadline.at, deadline.timeout) == (102.0, 2.0)
    assert deadline.remaining(101.5) == 0.5
    assert deadline.remaining(103.0) == 0.0
    assert not deadline.passed(101.999)
    assert deadline.passed(102.0)


def test_no_timeout_never_passes() -> None:
    deadline = Deadline.after(None, 100.0)
    assert deadline.remaining(1e12) == NEVER
    assert not deadline.passed(1e300)
