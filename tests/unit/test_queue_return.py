"""Claims that nobody accounts for, on a session whose answers the test gives: only our own is ever deleted."""

from __future__ import annotations

import pytest

from tests.unit.kit import World
from zkrecipes.core import Core
from zkrecipes.nodes import Nodes
from zkrecipes.port import Check, Code, Delete, Get, Multi, Stat
from zkrecipes.queue_layout import Name, Record, Slot, lane_nodes
from zkrecipes.queue_return import Returns, Want, visible, visible_for
from zkrecipes.queue_shelves import Shelves

SLOT = Slot(*lane_nodes("/q/lanes/80000000", 0), Name(0, 1, "item-0000000001", "item", 0, 0))
GUID = "our-guid"


class Scene:
    """A claim that was sent in session 7, and may have been made."""

    def __init__(self) -> None:
        self.world = World()
        core = Core(Nodes(self.world.session))
        self.returns = Returns(core, Shelves(core, "/q", "/q"))
        self.returns.give_back([Want(SLOT, Record("item", 0, b"", 1), 1, 5, GUID)], 7)
        self.world.runtime.step()

    def answer(self, data: bytes, owner: int = 7) -> None:
        """Answer the proof, and the look at the claim."""
        assert self.world.requests == [Multi((Check("/"),)), Get(SLOT.claim)]
        self.world.answer(())
        self.world.answer((data, Stat(9, 9, 5, 5, 0, 0, 0, owner, 0, 0, 0)))


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_our_own_claim_is_deleted_together_with_a_check_of_its_version(scene: Scene) -> None:
    scene.answer(GUID.encode())
    assert scene.world.requests == [Multi((Check(SLOT.item, 1), Delete(SLOT.claim)))]
    scene.world.answer((None, None))
    assert scene.world.requests == []


def test_a_claim_that_was_extended_is_still_our_own(scene: Scene) -> None:
    scene.answer(visible(GUID, 5.0).encode())
    assert len(scene.world.requests) == 1


@pytest.mark.parametrize(("data", "owner"), [(b"another", 7), (GUID.encode(), 8)])
def test_anothers_claim_of_the_same_name_is_left_alone(scene: Scene, data: bytes, owner: int) -> None:
    scene.answer(data, owner)
    assert scene.world.requests == []


def test_a_claim_that_was_never_made_leaves_nothing_to_do(scene: Scene) -> None:
    scene.world.answer(())
    scene.world.refuse(Code.NO_NODE)
    assert scene.world.requests == []


def test_another_connection_begins_anew_and_another_session_ends_it(scene: Scene) -> None:
    scene.world.transport.drop()
    scene.world.connect()
    scene.world.runtime.advance(0.1)
    assert Get(SLOT.claim) in scene.world.requests
    scene.world.transport.drop()
    scene.world.connect(session_id=8)
    scene.world.runtime.advance(0.1)
    assert Get(SLOT.claim) not in scene.world.requests


def test_a_version_that_moved_ends_it(scene: Scene) -> None:
    scene.answer(GUID.encode())
    scene.world.refuse(Code.BAD_VERSION, 0)
    assert scene.world.requests == []


@pytest.mark.parametrize(("seconds", "told"), [(None, None), (0.5, 500), (30.0, 30_000)])
def test_a_claim_tells_for_how_long_it_counts(seconds: float | None, told: int | None) -> None:
    assert visible_for(visible(GUID, seconds).encode()) == told
