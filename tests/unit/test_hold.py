"""What is held, and how its end is told: once, with one reason, by the clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.unit.kit import World
from zkrecipes.hold import Grip, Hold, LostReason, SignalState


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.end()


class Held:
    """A grip, and whether its node has been let go."""

    def __init__(self, world: World) -> None:
        self.let_go = 0
        self.hold: Hold = world.session.hold("/line/me", 7)
        self.grip = self.another(world)
        self.world = world

    def another(self, world: World, turn: int = 1) -> Grip:
        async def let_go(_: Grip) -> None:
            self.let_go += 1

        return Grip(world.runtime, self.hold, let_go, turn)

    def release(self) -> None:
        self.world.run(self.grip.release())


@pytest.fixture
def held(world: World) -> Held:
    return Held(world)


_ENDS: dict[LostReason, Callable[[World], None]] = {
    LostReason.EXPIRED: lambda world: world.session.expired(),
    LostReason.CLOSED: lambda world: world.session.close(),
    LostReason.NODE_DELETED: lambda world: world.session.give_up(
        world.session.holds["/line/me"], LostReason.NODE_DELETED
    ),
    LostReason.UNREACHABLE: lambda world: world.session.latch(world.session.lease.until),
    LostReason.FORKED: lambda world: setattr(world.runtime, "is_fork", True),
}


@pytest.mark.parametrize("reason", list(_ENDS))
def test_each_end_has_its_reason(world: World, held: Held, reason: LostReason) -> None:
    assert held.grip.valid
    assert held.grip.reason is None
    assert 0 < held.grip.remaining() <= world.timeout
    _ENDS[reason](world)
    assert not held.grip.valid
    assert held.grip.reason is reason
    assert held.grip.lost.reason is reason
    assert held.grip.remaining() == 0.0


@pytest.mark.parametrize("first", [reason for reason in _ENDS if reason is not LostReason.FORKED])
@pytest.mark.parametrize("second", [LostReason.EXPIRED, LostReason.CLOSED])
def test_the_first_reason_stays(world: World, held: Held, first: LostReason, second: LostReason) -> None:
    told: list[LostReason] = []
    held.grip.lost.on_set(told.append)
    _ENDS[first](world)
    _ENDS[second](world)
    world.runtime.run_callbacks()
    assert told == [first]
    assert held.grip.reason is first


def test_release_ends_it_without_a_loss(world: World, held: Held) -> None:
    told: list[LostReason] = []
    held.grip.lost.on_set(told.append)
    held.release()
    held.release()
    assert held.let_go == 1
    assert not held.grip.valid
    world.session.close()
    world.runtime.run_callbacks()
    assert told == []
    assert held.grip.reason is None


def test_a_loss_before_the_release_stays_a_loss(world: World, held: Held) -> None:
    world.runtime.time = world.session.lease.until + 1.0  # nobody was told
    held.release()
    assert held.grip.lost.reason is LostReason.UNREACHABLE
    assert held.grip.reason is LostReason.UNREACHABLE


def test_grips_of_one_hold_share_its_end_and_nothing_else(world: World, held: Held) -> None:
    other = held.another(world, turn=2)
    held.release()
    assert not held.grip.valid
    assert other.valid
    assert (other.token, other.turn) == (held.grip.token, 2)
    world.session.expired()
    assert other.reason is LostReason.EXPIRED
    assert held.grip.reason is None


def test_a_signal_fires_once(world: World) -> None:
    signal: SignalState[str] = SignalState(world.runtime)
    told: list[str] = []
    signal.on_set(told.append)
    signal.on_set(told.append).cancel()
    assert signal.reason is None
    signal.fire("first")
    signal.fire("second")
    late = signal.on_set(told.append)
    world.runtime.run_callbacks()
    late.cancel()
    assert told == ["first", "first"]
    assert signal.reason == "first"
    assert signal.fired.result() == "first"


def test_callbacks_of_one_signal_run_one_after_another(world: World) -> None:
    """The same key: the dispatcher then keeps their order."""
    signal: SignalState[str] = SignalState(world.runtime)
    for _ in range(3):
        signal.on_set(lambda _reason: None)
    signal.fire("now")
    assert {id(key) for key, _ in world.runtime.callbacks} == {id(signal)}


def test_what_cannot_be_called_is_refused(world: World) -> None:
    signal: SignalState[str] = SignalState(world.runtime)
    with pytest.raises(TypeError, match="callback must be callable"):
        signal.on_set(None)  # type: ignore[arg-type]
