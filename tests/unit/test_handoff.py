"""Local hand-off: in turn, within its limits, and whatever becomes of those who wait."""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from typing import Any

import pytest

from tests.unit.kit import World
from zkrecipes.errors import AcquireTimeoutError, CancelledError, ClosedError
from zkrecipes.flow import Pending
from zkrecipes.handoff import LocalHandoff, LocalLine
from zkrecipes.hold import Grip, Hold
from zkrecipes.layouts import CURATOR_LOCK
from zkrecipes.nodes import Nodes
from zkrecipes.patience import Patience, Place
from zkrecipes.port import Children, Create, Delete

LIMITS = LocalHandoff(max_turns=3, max_time=60.0)
PLACE = Place("/line", "/line", CURATOR_LOCK, b"me")


class Line:
    """A local line before a server that gives the lock to whoever asks."""

    def __init__(self) -> None:
        self.world = World()
        self.nodes = Nodes(self.world.session)
        self.line = LocalLine(self.nodes, self._release)
        self.number = -1

    async def _release(self, hold: Hold) -> None:
        await self.nodes.release(hold, 1.0)

    def acquire(
        self, timeout: float | None = None, cancelled: Pending[None] | None = None, limits: LocalHandoff = LIMITS
    ) -> Pending[Grip]:
        patience = Patience.of(timeout, self.world.runtime.now(), cancelled)
        return self.world.run(self.line.acquire(PLACE, patience, limits))

    def serve(self) -> list[str]:
        """Answer all there is; the kinds of requests."""
        served: list[str] = []
        self.world.runtime.step()
        while self.world.requests:
            request = self.world.requests[0]
            served.append(type(request).__name__)
            match request:
                case Create():
                    self.number += 1
                    name = f"{request.path}{self.number:010d}"
                    self.world.answer(self.world.created(name))
                    self.children = [name.rpartition("/")[2]]
                case Children():
                    self.world.answer(self.children)
                case Delete():
                    self.children = []
                    self.world.answer(None)
                case _:
                    self.world.answer(None)
        return served

    def release(self, grip: Grip) -> Pending[None]:
        return self.world.run(grip.release())


@pytest.fixture
def line() -> Iterator[Line]:
    line = Line()
    yield line
    line.world.end()


def _held(pending: Pending[Grip]) -> Grip:
    assert pending.done
    grip = pending.result()
    assert grip.valid
    return grip


def test_the_next_one_here_gets_it_without_a_request(line: Line) -> None:
    first = line.acquire()
    assert line.serve() == ["Create", "Children"]
    second, third = line.acquire(), line.acquire()
    assert line.serve() == []
    line.release(_held(first))
    assert line.serve() == []
    assert _held(second).turn == 2
    assert not third.done
    line.release(_held(second))
    assert (_held(third).turn, third.result().token) == (3, first.result().token)
    assert not first.result().valid


def test_after_its_turns_the_node_is_given_up(line: Line) -> None:
    """And the next one here stands behind those of other processes."""
    grips = [line.acquire() for _ in range(5)]
    line.serve()
    for grip in grips[:3]:
        line.release(_held(grip))
    assert [type(request).__name__ for request in line.world.requests] == ["Delete", "Create", "Children"]
    line.serve()
    assert _held(grips[3]).turn == 1
    assert grips[3].result().token > grips[2].result().token


def test_after_its_time_the_node_is_given_up(line: Line) -> None:
    limits = LocalHandoff(max_turns=1000, max_time=0.5)
    first, second = line.acquire(limits=limits), line.acquire(limits=limits)
    line.serve()
    line.world.runtime.advance(0.6)
    line.release(_held(first))
    assert "Delete" in line.serve()
    assert _held(second).turn == 1


def test_without_waiters_it_goes_back_to_the_server(line: Line) -> None:
    first = line.acquire()
    line.serve()
    line.release(_held(first))
    assert line.serve() == ["Delete"]
    again = line.acquire()
    assert line.serve() == ["Create", "Children"]
    assert _held(again).turn == 1


def test_a_lost_hold_is_not_passed_on(line: Line) -> None:
    first, second = line.acquire(), line.acquire()
    line.serve()
    grip = _held(first)
    line.world.runtime.time = grip.hold._lease.until + 0.01
    line.release(grip)
    line.world.connect(8)
    line.serve()
    assert _held(second).hold is not grip.hold


@pytest.mark.parametrize("how", ["timeout", "cancel"])
def test_who_gives_up_is_passed_over(line: Line, how: str) -> None:
    first = line.acquire()
    line.serve()
    cancelled: Pending[None] = Pending()
    gives_up = line.acquire(0.5 if how == "timeout" else None, cancelled)
    third = line.acquire()
    if how == "timeout":
        line.world.runtime.advance(0.6)
        assert isinstance(gives_up.error, AcquireTimeoutError)
    else:
        cancelled.resolve(None)
        line.world.runtime.step()
        assert isinstance(gives_up.error, CancelledError)
    line.release(_held(first))
    assert _held(third).turn == 2


def test_who_does_not_wait_is_refused_at_once(line: Line) -> None:
    first = line.acquire()
    line.serve()
    assert isinstance(line.acquire(0).error, AcquireTimeoutError)
    _held(first)


class Interrupted(BaseException):
    """Stands for KeyboardInterrupt."""


def _interrupt(line: Line, algorithm: Coroutine[Any, None, Grip]) -> None:
    """As a driver does: throw it in, and let the clean-up run."""
    algorithm.throw(Interrupted)
    while True:
        line.serve()
        algorithm.send(None)


@pytest.mark.parametrize("others", [0, 1])
def test_an_interrupt_at_the_moment_of_the_hand_off_passes_it_on(line: Line, others: int) -> None:
    """The lock has been given to us, and we never come to know: nobody may wait for us for ever."""
    first = line.acquire()
    line.serve()
    patience = Patience.of(None, line.world.runtime.now())
    interrupted: Coroutine[Any, None, Grip] = line.line.acquire(PLACE, patience, LIMITS)
    interrupted.send(None)
    rest = [line.acquire() for _ in range(others)]
    line.release(_held(first))
    with pytest.raises(Interrupted):
        _interrupt(line, interrupted)
    for grip in rest:
        line.serve()
        line.release(_held(grip))
    line.serve()
    again = line.acquire()
    line.serve()
    _held(again)


def test_who_is_at_the_server_and_fails_lets_the_next_one_go(line: Line) -> None:
    first, second = line.acquire(0.5), line.acquire()
    assert [type(request) for request in line.world.requests] == [Create, Children]
    line.world.runtime.advance(0.8)  # no answer
    assert first.failed
    line.serve()
    line.world.runtime.advance(1.0)
    line.serve()
    _held(second)


def test_the_end_of_the_client_ends_the_wait(line: Line) -> None:
    first, second = line.acquire(), line.acquire()
    line.serve()
    line.world.session.close()
    line.world.runtime.step()
    assert isinstance(second.error, ClosedError)
    assert not first.result().valid


@pytest.mark.parametrize("turns", [0, -1])
def test_turns_are_checked(turns: int) -> None:
    with pytest.raises(ValueError, match="max_turns must be 1 or more"):
        LocalHandoff(max_turns=turns)


@pytest.mark.parametrize("time", [-0.1, float("nan")])
def test_time_is_checked(time: float) -> None:
    with pytest.raises(ValueError, match="max_time must be 0 or more"):
        LocalHandoff(max_time=time)
