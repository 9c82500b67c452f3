"""Writes that are recognised after a lost reply, on a session whose answers the test gives."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.unit.kit import World
from zkrecipes.core import Core
from zkrecipes.errors import (
    ConflictError,
    NodeNotFoundError,
    OutcomeUnknownError,
    PayloadTooLargeError,
    TransactionError,
    UnavailableError,
)
from zkrecipes.flow import Pending
from zkrecipes.marks import MARK, Committed, Marks, is_mark, marks_of
from zkrecipes.nodes import Nodes
from zkrecipes.port import Check, Code, Create, Delete, Get, Kind, Multi, Set, Stat
from zkrecipes.timing import Deadline

OPERATION = Set("/p", b"value", 3)


def stat(zxid: int, time: int = 5_000) -> Stat:
    return Stat(zxid, zxid, time, time, 0, 0, 0, 7, 0, 0, 0)


class Scene:
    """A client with marks, on a session without a server."""

    def __init__(self, *, connected: bool = True) -> None:
        self.world = World(connected=connected)
        self.core = Core(Nodes(self.world.session))
        self.marks = Marks(self.core, "/p", "/p")

    def begin(self, *operations: Any, timeout: float = math.inf) -> Pending[Committed]:
        deadline = Deadline.after(None if timeout == math.inf else timeout, self.world.runtime.now())
        return self.world.run(self.marks.commit(operations or (OPERATION,), deadline))

    @property
    def sent(self) -> Multi:
        """The oldest request that waits for an answer."""
        request = self.world.requests[0]
        assert isinstance(request, Multi)
        return request

    def succeed(self, zxid: int, time: int = 5_000) -> None:
        """Answer the oldest write."""
        self.world.answer(tuple(stat(zxid, time) for _ in self.sent.operations))

    def first(self, zxid: int = 200) -> str:
        """Make the first write, and with it a mark; its path."""
        done = self.begin()
        path = self.sent.operations[-1].path
        self.succeed(zxid)
        assert done.result().zxid == zxid
        return path

    def lose_the_reply(self, session_id: int = 7) -> None:
        self.world.transport.drop()
        self.world.connect(session_id)

    def settle(self, data: bytes | None, zxid: int = 300) -> None:
        """Answer the proof, and the look at the mark."""
        assert self.world.requests == [Multi((Check("/"),)), Get(self.world.requests[1].path)]
        self.world.answer(())
        if data is None:
            self.world.refuse(Code.NO_NODE)
        else:
            self.world.answer((data, stat(zxid)))


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_the_first_write_makes_a_mark_and_the_next_one_sets_it(scene: Scene) -> None:
    path = scene.first()
    assert is_mark(path.rpartition("/")[2])
    assert path.startswith(f"/p/{MARK}")
    done = scene.begin()
    assert scene.sent.operations == (OPERATION, Set(path, b"2"))
    scene.succeed(250, time=7_000)
    assert done.result() == Committed((stat(250, 7_000),), 250, 7_000)
    assert scene.core.server_time.at_least() == 7_000


def test_a_mark_is_ephemeral_and_is_made_with_the_write(scene: Scene) -> None:
    scene.begin()
    _, make, own = scene.sent.operations
    assert isinstance(make, Create)
    assert make.kind is Kind.EPHEMERAL
    assert own == Set(make.path, b"1")


def test_two_writes_at_once_have_two_marks(scene: Scene) -> None:
    scene.begin()
    scene.begin()
    first, second = (request.operations[-1].path for request in scene.world.requests)
    assert first != second
    scene.succeed(200)
    scene.succeed(201)
    scene.begin()
    assert scene.sent.operations[-1].path in {first, second}


def test_a_lost_reply_of_an_applied_write_is_told_by_the_mark(scene: Scene) -> None:
    scene.first()
    done = scene.begin()
    scene.lose_the_reply()
    scene.settle(b"2", zxid=251)
    assert done.result() == Committed(None, 251, 5_000)


@pytest.mark.parametrize("fresh", [True, False])
def test_a_write_that_was_not_applied_is_sent_again(scene: Scene, *, fresh: bool) -> None:
    if not fresh:
        scene.first()
    done = scene.begin()
    scene.lose_the_reply()
    scene.settle(None if fresh else b"1")
    assert not done.done
    assert scene.sent.operations[0] == OPERATION
    assert scene.sent.operations[-1].data == (b"2" if fresh else b"3")  # type: ignore[union-attr]  # a Set
    scene.succeed(260)
    assert done.result().zxid == 260


def test_the_number_of_another_write_proves_nothing(scene: Scene) -> None:
    """A write that was refused sets nothing: the mark still has the number of the one before."""
    scene.first()
    refused = scene.begin()
    scene.world.refuse(Code.BAD_VERSION, 0)
    assert isinstance(refused.error, TransactionError)
    done = scene.begin()
    assert scene.sent.operations[-1].data == b"3"  # type: ignore[union-attr]  # a Set
    scene.lose_the_reply()
    scene.settle(b"1")
    assert not done.done
    assert len(scene.world.requests) == 1


def test_the_look_is_repeated_when_its_connection_ends(scene: Scene) -> None:
    scene.first()
    done = scene.begin()
    scene.lose_the_reply()
    scene.lose_the_reply()
    scene.world.runtime.advance(0.1)
    scene.settle(b"2")
    assert done.result().answers is None


def test_the_end_of_the_session_leaves_it_unknown(scene: Scene) -> None:
    scene.first()
    done = scene.begin()
    scene.lose_the_reply(session_id=8)
    assert isinstance(done.error, OutcomeUnknownError)
    # In the new session there is a new mark.
    scene.begin()
    assert isinstance(scene.sent.operations[-2], Create)


def test_a_mark_that_somebody_deleted_leaves_it_unknown(scene: Scene) -> None:
    scene.first()
    done = scene.begin()
    scene.lose_the_reply()
    scene.settle(None)
    assert isinstance(done.error, OutcomeUnknownError)


def test_a_mark_that_somebody_deleted_is_replaced(scene: Scene) -> None:
    path = scene.first()
    done = scene.begin()
    scene.world.refuse(Code.NO_NODE, 1)
    assert scene.sent.operations[-1].path != path
    scene.succeed(300)
    assert done.result().zxid == 300


def test_a_refused_operation_is_told_with_its_index(scene: Scene) -> None:
    done = scene.begin(Check("/a"), OPERATION)
    scene.world.refuse(Code.BAD_VERSION, 1)
    assert isinstance(done.error, TransactionError)
    assert done.error.index == 1
    assert isinstance(done.error.__cause__, ConflictError)


def test_a_missing_parent_of_the_marks_is_told(scene: Scene) -> None:
    done = scene.begin()
    scene.world.refuse(Code.NO_NODE, 1)
    assert isinstance(done.error, NodeNotFoundError)


def test_without_a_server_nothing_is_written_now_or_later() -> None:
    scene = Scene(connected=False)
    done = scene.begin(timeout=1.0)
    scene.world.runtime.advance(2.0)
    assert isinstance(done.error, UnavailableError)
    scene.world.connect()
    assert scene.world.transport.log == []


def test_at_the_deadline_what_was_written_is_unknown(scene: Scene) -> None:
    done = scene.begin(timeout=1.0)
    scene.world.transport.drop()
    scene.world.runtime.advance(2.0)
    assert isinstance(done.error, OutcomeUnknownError)


def test_a_mark_whose_state_nobody_knows_is_not_used_again_and_is_removed(scene: Scene) -> None:
    path = scene.first()
    done = scene.begin(timeout=1.0)
    scene.world.runtime.advance(2.0)
    assert isinstance(done.error, OutcomeUnknownError)
    scene.succeed(300)  # late
    assert scene.world.requests == [Delete(path)]
    scene.world.answer()
    scene.begin()
    assert scene.sent.operations[-1].path != path


def test_what_is_too_large_is_refused_and_the_mark_stays_in_use(scene: Scene) -> None:
    path = scene.first()
    done = scene.begin(Set("/p", b"x" * 2_000_000))
    assert isinstance(done.error, PayloadTooLargeError)
    scene.begin()
    assert scene.sent.operations[-1].path == path


def test_marks_are_shared_by_all_of_a_client(scene: Scene) -> None:
    assert marks_of(scene.core, "/p", "/p") is marks_of(scene.core, "/p", "/p")
    assert marks_of(scene.core, "/q", "/q") is not marks_of(scene.core, "/p", "/p")
