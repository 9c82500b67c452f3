"""How much is asked for at a time: no more than the network brings before the server seems to be silent."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest

from tests.unit.grove import Grove
from tests.unit.kit import World
from zkrecipes.mirror import Mirror
from zkrecipes.port import Get, ReadMany, Request
from zkrecipes.reading import FLIGHT_BYTES
from zkrecipes.scope import Scope
from zkrecipes.timing import Deadline

LARGE = 500_000
NODES = 100


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.end()


def _grove(world: World, size: int) -> Grove:
    grove = Grove(world)
    grove.create("/t")
    for number in range(NODES):
        grove.create(f"/t/{number:03}", b"x" * size)
    return grove


def _begin(grove: Grove, *, persistent: bool) -> Mirror:
    mirror = Mirror(grove.core, Scope(("/t",), None), label="/t", persistent=persistent)
    grove.world.run(mirror.start(Deadline.after(5.0, grove.world.runtime.now())))
    return mirror


def _nodes(requests: list[Request]) -> int:
    """How many nodes' data these ask for."""
    return sum(len(each.reads) if isinstance(each, ReadMany) else isinstance(each, Get) for each in requests)


def _until_data(grove: Grove) -> int:
    """Serve until the children's data is asked for; of how many at a time."""
    while _nodes(grove.world.requests) < 2:
        assert grove.serve(1)
    return _nodes(grove.world.requests)


@pytest.mark.parametrize("persistent", [True, False])
def test_less_is_asked_for_after_each_connection_that_ended_meanwhile(world: World, persistent: bool) -> None:  # noqa: FBT001
    """Where a network is too slow for what is asked, the connection ends before the first answer has come."""
    grove = _grove(world, LARGE)
    mirror = _begin(grove, persistent=persistent)
    asked = [_until_data(grove)]
    for _ in range(2):
        grove.cut()
        world.runtime.advance(0.1)
        world.connect()
        asked.append(_until_data(grove))
    assert all(later <= earlier / 2 for earlier, later in pairwise(asked)), asked
    while grove.serve():
        pass
    assert mirror.fresh
    assert len(mirror.nodes) == NODES + 1


@pytest.mark.parametrize("persistent", [True, False])
def test_large_answers_are_asked_for_a_few_at_a_time(world: World, persistent: bool) -> None:  # noqa: FBT001
    grove = _grove(world, LARGE)
    mirror = _begin(grove, persistent=persistent)
    _until_data(grove)
    last = 0
    while grove.serve(1):
        if len(mirror.nodes) > NODES * 0.8:
            last = max(last, _nodes(world.requests))
    assert 0 < last * LARGE <= 2 * FLIGHT_BYTES
    assert mirror.fresh


@pytest.mark.parametrize("persistent", [True, False])
def test_small_answers_are_asked_for_many_at_a_time_again(world: World, persistent: bool) -> None:  # noqa: FBT001
    """A connection that ended for another reason costs a few round trips, once."""
    grove = _grove(world, 10)
    mirror = _begin(grove, persistent=persistent)
    first = _until_data(grove)
    grove.cut()
    world.runtime.advance(0.1)
    world.connect()
    assert _until_data(grove) < first
    while grove.serve():
        pass
    assert mirror.fresh
    grove.cut()
    world.runtime.advance(0.1)
    world.connect()
    assert _until_data(grove) >= first
