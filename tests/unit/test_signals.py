"""Signal handlers are put off while a step runs, and put back whatever happens."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from zkrecipes import signals
from zkrecipes.signals import Undisturbed

pytestmark = pytest.mark.skipif(
    threading.current_thread() is not threading.main_thread(), reason="only the main thread has signal handlers"
)


class Rung(BaseException):
    """Stands for KeyboardInterrupt."""


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    numbers = (signal.SIGALRM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)
    before = [(number, signal.getsignal(number)) for number in numbers]
    yield
    for number, handler in before:
        signal.signal(number, handler)


def _ring(*_: object) -> None:
    raise Rung


def test_a_handler_runs_when_the_step_is_over() -> None:
    told: list[str] = []
    signal.signal(signal.SIGUSR1, lambda *_: told.append("handled"))
    with Undisturbed():
        signal.raise_signal(signal.SIGUSR1)
        told.append("stepped")
    assert told == ["stepped", "handled"]


def test_what_a_handler_raises_comes_out_of_the_context() -> None:
    signal.signal(signal.SIGALRM, _ring)
    finished = False
    with pytest.raises(Rung):  # noqa: PT012
        with Undisturbed():
            signal.raise_signal(signal.SIGALRM)
            finished = True
        pytest.fail("it went on")
    assert finished
    assert signal.getsignal(signal.SIGALRM) is _ring


def test_handlers_get_the_number_and_a_frame() -> None:
    given: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGUSR2, lambda number, frame: given.append((number, frame)))
    with Undisturbed():
        signal.raise_signal(signal.SIGUSR2)
    assert given[0][0] == signal.SIGUSR2
    assert given[0][1] is not None


def test_without_a_signal_nothing_changes() -> None:
    signal.signal(signal.SIGALRM, _ring)
    before = [signal.getsignal(number) for number in signal.valid_signals()]
    with Undisturbed():
        assert signal.getsignal(signal.SIGALRM) is not _ring
    assert [signal.getsignal(number) for number in signal.valid_signals()] == before


def test_signals_without_a_handler_of_python_keep_their_way() -> None:
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGUSR2, signal.SIG_DFL)
    with Undisturbed():
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGUSR2) is signal.SIG_DFL


def test_an_error_of_the_step_comes_through() -> None:
    signal.signal(signal.SIGALRM, _ring)
    with pytest.raises(ValueError, match="step"), Undisturbed():
        raise ValueError("step")  # noqa: EM101
    assert signal.getsignal(signal.SIGALRM) is _ring


def test_one_within_the_other() -> None:
    told: list[str] = []
    signal.signal(signal.SIGUSR1, lambda *_: told.append("handled"))
    with Undisturbed():
        with Undisturbed():
            signal.raise_signal(signal.SIGUSR1)
        told.append("outer")
    assert told == ["outer", "handled"]


def test_a_handler_set_between_two_steps_is_kept() -> None:
    told: list[str] = []
    undisturbed = Undisturbed()
    signal.signal(signal.SIGUSR1, lambda *_: told.append("first"))
    with undisturbed:
        pass
    signal.signal(signal.SIGUSR1, lambda *_: told.append("second"))
    with undisturbed:
        signal.raise_signal(signal.SIGUSR1)
    assert told == ["second"]


def test_other_threads_need_nothing() -> None:
    signal.signal(signal.SIGALRM, _ring)
    seen: list[Any] = []

    def look() -> None:
        with Undisturbed():
            seen.append(signal.getsignal(signal.SIGALRM))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [_ring]


@pytest.mark.parametrize("nth", range(1, 13))
def test_an_interrupt_at_any_moment_leaves_every_handler_in_its_place(
    nth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python runs pending handlers when it enters `signal.signal`, before it has set anything, and on the way back."""
    real: Callable[..., Any] = signals._set
    calls = 0

    def interrupted(number: int, handler: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == nth:
            raise Rung
        return real(number, handler)

    handlers = {number: (lambda *_: None) for number in (signal.SIGINT, signal.SIGALRM, signal.SIGUSR1)}
    for number, handler in handlers.items():
        signal.signal(number, handler)
    monkeypatch.setattr(signals, "_set", interrupted)
    with contextlib.suppress(Rung):
        for _ in range(2):
            with Undisturbed():
                pass
    assert {number: signal.getsignal(number) for number in handlers} == handlers
