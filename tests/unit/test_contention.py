"""The line, step by step: what is sent in one flight, and what becomes of each ending."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.unit.kit import TIMEOUT, World
from zkrecipes.contention import enter
from zkrecipes.errors import (
    AccessDeniedError,
    AcquireTimeoutError,
    CancelledError,
    ClosedError,
    ForeignNodeError,
    UnavailableError,
)
from zkrecipes.flow import Pending
from zkrecipes.heartbeat import Heartbeat
from zkrecipes.hold import Hold
from zkrecipes.layouts import CURATOR_LOCK
from zkrecipes.nodes import Nodes
from zkrecipes.patience import Patience, Place
from zkrecipes.port import Children, Code, Create, Delete, Exists, Get, Kind, Multi, NodeEvent

OTHER = "_c_a1b2c3d4-0000-4000-8000-00000000000f-lock-"


class Scene:
    """One contender before a server that the test plays."""

    def __init__(self) -> None:
        self.world = World()
        self.nodes = Nodes(self.world.session)
        self.cancelled: Pending[None] = Pending()
        self.place = Place("/line", "/line", CURATOR_LOCK, b"me")

    def enter(self, timeout: float | None = None, path: str = "/line") -> Pending[Hold]:
        patience = Patience.of(timeout, self.world.runtime.now(), self.cancelled)
        return self.world.run(enter(self.nodes, Place(path, path, CURATOR_LOCK, b"me"), patience))

    @property
    def kinds(self) -> list[str]:
        return [type(request).__name__ for request in self.world.requests]

    def first(self, kind: type) -> Any:
        request = self.world.requests[0]
        assert isinstance(request, kind), self.world.requests
        return request

    def create(self, number: int) -> str:
        """Answer the create that comes first; the node's name."""
        path = f"{self.first(Create).path}{number:010d}"
        self.world.answer(self.world.created(path))
        return path.rpartition("/")[2]

    def cancel(self) -> None:
        self.cancelled.resolve(None)
        self.world.runtime.step()

    def drain(self, children: list[str] | None = None) -> list[Any]:
        """Answer everything, and tell what it was."""
        seen: list[Any] = []
        self.world.runtime.advance(0.3)
        while self.world.requests:
            request = self.world.requests[0]
            seen.append(request)
            match request:
                case Children():
                    self.world.answer(children or [])
                case Exists():
                    self.world.answer(self.world.stat())
                case Get():
                    self.world.answer((b"", self.world.stat()))
                case _:
                    self.world.answer(None)
        return seen


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene()
    yield scene
    scene.world.end()


def _deleted(seen: list[Any]) -> list[str]:
    return [request.path for request in seen if isinstance(request, Delete)]


def test_uncontended_is_one_flight(scene: Scene) -> None:
    held = scene.enter()
    assert scene.kinds == ["Create", "Children"]
    name = scene.create(7)
    scene.world.answer([name])
    assert held.result().path == f"/line/{name}"
    assert held.result().token == scene.world.zxid
    assert scene.kinds == []


def test_missing_parents_are_made_with_it(scene: Scene) -> None:
    held = scene.enter(path="/a/b")
    scene.world.refuse(Code.NO_NODE)
    scene.world.refuse(Code.NO_NODE)
    assert scene.kinds == ["Create", "Create", "Create"]
    assert [request.kind for request in scene.world.requests] == [Kind.CONTAINER, Kind.CONTAINER, Kind.EPHEMERAL]
    scene.world.refuse(Code.NODE_EXISTS)
    scene.world.answer(scene.world.created("/a/b"))
    scene.create(0)
    assert held.result().valid, "the first number of a parent needs no listing"
    assert scene.kinds == []


def test_a_parent_that_vanishes_is_made_again(scene: Scene) -> None:
    """Containers may go between the listing and the create, again and again."""
    held = scene.enter(path="/a/b")
    for _ in range(3):
        for _ in range(len(scene.world.requests)):
            scene.world.refuse(Code.NO_NODE)
        assert not held.done
    assert [request.kind for request in scene.world.requests] == [Kind.CONTAINER, Kind.CONTAINER, Kind.EPHEMERAL]


def test_parents_that_may_not_be_made_are_told(scene: Scene) -> None:
    held = scene.enter(path="/a/b")
    scene.world.refuse(Code.NO_NODE)
    scene.world.refuse(Code.NO_NODE)
    scene.world.refuse(Code.NO_AUTH)
    scene.world.refuse(Code.NO_NODE)
    scene.world.refuse(Code.NO_NODE)
    assert isinstance(held.error, AccessDeniedError)
    assert _deleted(scene.drain()) == []


def test_a_waiter_watches_the_one_before_it_alone(scene: Scene) -> None:
    held = scene.enter()
    name = scene.create(9)
    scene.world.answer([name, f"{OTHER}0000000003", f"{OTHER}0000000008", f"{OTHER}0000000011"])
    assert scene.world.requests == [Get(f"/line/{OTHER}0000000008", watch=True)]
    scene.world.answer((b"", scene.world.stat()))
    assert scene.kinds == []
    scene.world.session.notified(f"/line/{OTHER}0000000008", NodeEvent.DELETED)
    scene.world.runtime.step()
    assert scene.kinds == ["Children"]
    scene.world.answer([name])
    assert held.result().path.endswith(name)


def test_who_waited_longer_than_its_lease_confirms_in_the_same_flight(scene: Scene) -> None:
    held = scene.enter()
    name = scene.create(9)
    scene.world.answer([name, f"{OTHER}0000000003"])
    scene.world.answer((b"", scene.world.stat()))
    for _ in range(20):
        # Other traffic keeps the session's answers fresh, but only a write proves.
        scene.world.runtime.advance(TIMEOUT / 6)
        scene.world.session.call(Exists("/"))
        scene.world.answer(None)
    scene.world.session.notified(f"/line/{OTHER}0000000003", NodeEvent.DELETED)
    scene.world.runtime.step()
    assert scene.kinds == ["Multi", "Children"]
    scene.world.answer((None,))
    scene.world.answer([name])
    assert held.result().remaining() > TIMEOUT / 6


def test_a_node_of_ours_that_somebody_deleted_is_made_again(scene: Scene) -> None:
    held = scene.enter()
    scene.create(9)
    scene.world.answer([f"{OTHER}0000000003"])
    assert scene.kinds == ["Create", "Children"]
    assert not held.done


def test_a_session_that_ends_while_it_waits_begins_anew(scene: Scene) -> None:
    held = scene.enter()
    name = scene.create(9)
    scene.world.answer([name, f"{OTHER}0000000003"])
    scene.world.answer((b"", scene.world.stat()))
    scene.world.transport.drop()
    scene.world.session.expired()
    scene.world.connect(8)
    assert [request.path.startswith("/line/_c_") for request in scene.world.requests] == [True, False]
    again = scene.create(12)
    assert again[:40] != name[:40], "a new name"
    scene.world.answer([again])
    assert held.result().session_id == 8


def test_a_listing_of_another_session_decides_nothing(scene: Scene) -> None:
    """Our node was first in the line that was listed, and its session is over."""
    held = scene.enter()
    scene.create(0)
    scene.world.transport.drop()
    scene.world.session.expired()
    scene.world.connect(8)
    assert not held.done
    assert scene.kinds == ["Create", "Children"]


def test_an_answer_that_is_read_in_another_session_decides_nothing(scene: Scene) -> None:
    """It came in time, but the thread that waits for it is late: the session is over when it runs."""
    held = scene.enter()
    name = scene.create(0)
    scene.world.session.answered(scene.world.transport.queue.pop(0), [name])
    scene.world.transport.drop()
    scene.world.session.expired()
    scene.world.session.connected(8, TIMEOUT, scene.world.runtime.time)
    scene.world.runtime.step()
    assert not held.done
    assert scene.kinds == ["Create", "Children"]


def test_a_lost_reply_of_the_create_is_looked_up(scene: Scene) -> None:
    held = scene.enter()
    prefix = scene.first(Create).path.rpartition("/")[2]
    scene.world.transport.drop()
    scene.world.connect()
    assert scene.kinds == ["Multi", "Children"]
    scene.world.answer((None,))
    scene.world.answer([f"{prefix}0000000004"])
    assert scene.world.requests == [Exists(f"/line/{prefix}0000000004")]
    scene.world.answer(scene.world.stat())
    scene.world.answer([f"{prefix}0000000004"])
    assert held.result().token == scene.world.zxid


def test_a_node_found_that_is_of_an_older_session_is_not_ours(scene: Scene) -> None:
    held = scene.enter()
    prefix = scene.first(Create).path.rpartition("/")[2]
    scene.world.transport.drop()
    scene.world.connect()
    scene.world.answer((None,))
    scene.world.answer([f"{prefix}0000000004"])
    scene.world.answer(scene.world.stat(owner=99))
    assert not held.done
    assert scene.kinds == ["Create", "Children"]


@pytest.mark.parametrize("step", range(6))
@pytest.mark.parametrize("known", [True, False], ids=["known path", "new path"])
def test_a_cancelled_create_is_removed(scene: Scene, known: bool, step: int) -> None:  # noqa: FBT001
    """Whatever is under way when it is cancelled, and even if it is applied after that."""
    held = scene.enter()
    if not known:
        scene.world.refuse(Code.NO_NODE)
        scene.world.refuse(Code.NO_NODE)
    name = ""
    for _ in range(step):
        if held.done or not scene.world.requests:
            break
        match scene.world.requests[0]:
            case Create(kind=Kind.EPHEMERAL):
                name = scene.create(5)
            case Create():
                scene.world.refuse(Code.NODE_EXISTS)
            case Children():
                scene.world.answer([name, f"{OTHER}0000000003"])
            case _:
                scene.world.answer((b"", scene.world.stat()))
    scene.cancel()
    late = [request for request in scene.world.requests if isinstance(request, Create) and request.sequential]
    if late:
        while not (isinstance(scene.world.requests[0], Create) and scene.world.requests[0].sequential):
            scene.world.refuse(Code.NODE_EXISTS)
        name = scene.create(5)
    seen = scene.drain([name, f"{OTHER}0000000003"])
    assert _deleted(seen) == [f"/line/{name}"]
    assert isinstance(held.error, CancelledError)


@pytest.mark.parametrize("step", range(4))
def test_a_late_create_is_removed(scene: Scene, step: int) -> None:
    """The deadline comes at any step."""
    held = scene.enter(0.5)
    name = ""
    for _ in range(step):
        match scene.world.requests[0] if scene.world.requests else None:
            case Create():
                name = scene.create(5)
            case Children():
                scene.world.answer([name, f"{OTHER}0000000003"])
            case Get():
                scene.world.answer((b"", scene.world.stat()))
            case _:
                pass
    scene.world.runtime.advance(0.5)
    if not name:
        name = scene.create(5)
    seen = scene.drain([name, f"{OTHER}0000000003"])
    assert _deleted(seen) == [f"/line/{name}"]
    assert isinstance(held.error, AcquireTimeoutError | UnavailableError)


def test_the_error_tells_what_is_left_behind(scene: Scene) -> None:
    held = scene.enter(0.5)
    scene.world.runtime.advance(2.0)
    assert isinstance(held.error, UnavailableError)
    assert held.error.left_behind


def test_foreign_children_are_refused_and_leave_nothing(scene: Scene) -> None:
    held = scene.enter()
    name = scene.create(5)
    scene.world.answer([name, "config"])
    scene.drain([name, "config"])
    assert isinstance(held.error, ForeignNodeError)


def test_whoever_does_not_wait_is_told_in_one_flight(scene: Scene) -> None:
    held = scene.enter(0)
    name = scene.create(5)
    scene.world.answer([name, f"{OTHER}0000000003"])
    assert scene.kinds == ["Delete"]
    scene.world.answer(None)
    assert isinstance(held.error, AcquireTimeoutError)
    assert not held.error.left_behind


def test_without_a_connection_no_wait_is_begun(scene: Scene) -> None:
    scene.world.transport.drop()
    assert isinstance(scene.enter(0).error, UnavailableError)


def test_a_closed_client_ends_the_wait(scene: Scene) -> None:
    held = scene.enter()
    name = scene.create(9)
    scene.world.answer([name, f"{OTHER}0000000003"])
    scene.world.session.close()
    scene.world.runtime.step()
    assert isinstance(held.error, ClosedError)


def test_nobody_holds_without_a_proof(scene: Scene) -> None:
    """First in line, but the lease of the session has nearly run out: a write must come back first."""
    scene.world.run(Heartbeat(scene.world.session).keep())
    while scene.world.requests:
        scene.world.answer(None)
    scene.world.runtime.time += TIMEOUT * 0.95
    held = scene.enter()
    while not any(isinstance(request, Multi) for request in scene.world.requests):
        match scene.world.requests[0]:
            case Create():
                name = scene.create(5)
            case Children():
                scene.world.answer([name])
            case _:
                scene.world.answer(None)
        assert not held.done
