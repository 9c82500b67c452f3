from __future__ import annotations

import time

import pytest

from zkrecipes.testing import wait_until


def test_returns_what_the_predicate_returned() -> None:
    answers = iter([None, 0, "", "here"])
    assert wait_until(lambda: next(answers)) == "here"


def test_at_the_limit_it_fails_and_says_what_was_waited_for() -> None:
    started = time.monotonic()
    with pytest.raises(AssertionError, match=r"the node is gone: not so within 0\.1 s"):
        wait_until(lambda: False, 0.1, "the node is gone")
    assert 0.1 <= time.monotonic() - started < 1.0


def test_the_message_may_tell_the_state_at_the_limit() -> None:
    seen: list[int] = []
    with pytest.raises(AssertionError, match="3 seen"):
        wait_until(lambda: len(seen) > 3, 0.0, lambda: f"{len(seen) + 3} seen")


def test_the_predicate_is_asked_at_least_once() -> None:
    assert wait_until(lambda: True, 0.0)


def test_what_the_predicate_raises_is_passed_on() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        wait_until(lambda: int("x"))
