"""The adds of one client, combined, on a session whose answers the test gives."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from tests.unit.kit import World
from zkrecipes.carry import Carried
from zkrecipes.core import Core
from zkrecipes.counter import CounterRecipe
from zkrecipes.counter_layouts import layout_of
from zkrecipes.counter_line import LONGEST_PAUSE
from zkrecipes.errors import ClosedError, CounterOverflowError, DecodeError, OutcomeUnknownError, UnavailableError
from zkrecipes.flow import Pending, Wait
from zkrecipes.nodes import Nodes
from zkrecipes.port import Check, Code, Create, Get, Multi, Set, Stat

PATH = "/c"
LAYOUT = layout_of("int64")


def stat(version: int, czxid: int = 50, mzxid: int = 60) -> Stat:
    return Stat(czxid, mzxid, 5, 5, version, 0, 0, 0, 8, 0, 0)


class Scene:
    """A client with a counter, on a session without a server."""

    def __init__(self, *, connected: bool = True, layout: str = "int64") -> None:
        self.world = World(connected=connected)
        self.core = Core(Nodes(self.world.session))
        self.counter = CounterRecipe(self.core, PATH, layout=layout)
        self.layout = layout_of(layout)

    def add(self, amount: int = 1, timeout: float | None = None) -> Pending[int]:
        return self.world.run(self.counter.add(amount, timeout))

    def read(self, value: int, version: int, czxid: int = 50) -> None:
        """Answer the read of the counter."""
        assert self.world.requests[0] == Get(PATH)
        self.world.answer((self.layout.encode(value), stat(version, czxid)))

    @property
    def written(self) -> tuple[int, int]:
        """Value and version of the write that waits for an answer."""
        request = self.world.requests[0]
        assert isinstance(request, Multi)
        own = request.operations[0]
        assert isinstance(own, Set)
        assert own.path == PATH
        return self.layout.decode(own.data), own.version

    def commit(self) -> None:
        request = self.world.requests[0]
        assert isinstance(request, Multi)
        self.world.answer(tuple(stat(0) for _ in request.operations))

    def conflict(self) -> None:
        self.world.refuse(Code.BAD_VERSION, 0)

    def lose_the_reply(self, session_id: int = 7) -> None:
        self.world.transport.drop()
        self.world.connect(session_id)

    def first(self) -> None:
        """A first add, after which the counter is 1, in version 4."""
        done = self.add()
        self.read(0, 3)
        self.commit()
        assert done.result() == 1


@pytest.fixture
def scene() -> Scene:
    return Scene()


def values(*pendings: Pending[int]) -> list[int]:
    return [pending.result() for pending in pendings]


def test_the_next_add_reads_nothing(scene: Scene) -> None:
    scene.first()
    done = scene.add(5)
    assert scene.written == (6, 4)
    assert len(scene.world.requests) == 1
    scene.commit()
    assert done.result() == 6


def test_a_missing_counter_is_made(scene: Scene) -> None:
    done = scene.add(3)
    scene.world.refuse(Code.NO_NODE)
    assert scene.world.requests == [Create(PATH, LAYOUT.encode(0))]
    scene.world.answer(None)
    scene.read(0, 0)
    scene.commit()
    assert done.result() == 3


def test_adds_that_wait_travel_together_each_with_its_own_value(scene: Scene) -> None:
    scene.first()
    leader = scene.add(1)
    others = [scene.add(amount) for amount in (10, 100, -5)]
    assert len(scene.world.requests) == 1
    scene.commit()
    assert leader.result() == 2
    assert scene.written == (107, 5)
    scene.commit()
    assert values(*others) == [12, 112, 107]


def test_a_conflict_is_resolved_with_a_read_and_then_in_one_flight(scene: Scene) -> None:
    scene.first()
    done = scene.add()
    scene.conflict()
    scene.read(40, 9)
    assert scene.written == (41, 9)
    assert scene.world.requests[1] == Get(PATH), "while there is contention, a read goes behind the write"
    scene.commit()
    assert done.result() == 41


def test_who_is_late_again_and_again_stands_back_and_collects_what_comes(scene: Scene) -> None:
    scene.first()
    done = scene.add()
    scene.conflict()
    scene.read(40, 9)
    scene.conflict()
    scene.world.answer((LAYOUT.encode(50), stat(12)))  # the read behind it, which is old when the pause is over
    assert scene.world.requests == []
    other = scene.add(10)
    scene.world.runtime.advance(LONGEST_PAUSE)
    scene.read(60, 20)
    assert scene.written == (71, 20)
    # And now he is more stubborn.
    for value in (70, 80):
        scene.conflict()
        scene.read(value, value)
        assert scene.written == (value + 11, value)
    scene.commit()
    assert values(done, other) == [81, 91]


def test_a_lost_reply_of_an_applied_write_is_counted_once(scene: Scene) -> None:
    scene.first()
    done = scene.add()
    scene.lose_the_reply()
    assert scene.world.requests[0] == Multi((Check("/"),))
    scene.world.answer(())
    scene.world.answer((b"2", stat(0)))  # the mark
    assert done.result() == 2
    scene.add()
    assert scene.written == (3, 5)


def test_a_lost_reply_of_a_write_that_was_not_applied_is_sent_again(scene: Scene) -> None:
    scene.first()
    done = scene.add()
    scene.lose_the_reply()
    scene.world.answer(())
    scene.world.answer((b"1", stat(0)))
    scene.read(1, 4)
    assert scene.written == (2, 4)
    scene.commit()
    assert done.result() == 2


def test_in_a_new_session_a_counter_that_nobody_touched_proves_that_nothing_was_applied(scene: Scene) -> None:
    scene.first()
    done = scene.add()
    scene.lose_the_reply(session_id=8)
    assert scene.world.requests == [Multi((Check("/"),)), Get(PATH)]
    scene.world.answer(())
    scene.world.answer((LAYOUT.encode(1), stat(4)))
    assert not done.done
    scene.read(1, 4)
    assert scene.written == (2, 4)
    scene.commit()
    assert done.result() == 2


@pytest.mark.parametrize(("version", "czxid"), [(5, 50), (4, 51)])
def test_in_a_new_session_a_counter_that_was_touched_leaves_it_unknown(scene: Scene, version: int, czxid: int) -> None:
    scene.first()
    done, other = scene.add(), scene.add()
    scene.lose_the_reply(session_id=8)
    scene.world.answer(())
    scene.world.answer((LAYOUT.encode(2), stat(version, czxid)))
    assert isinstance(done.error, OutcomeUnknownError)
    # Only what was under way: who waited goes on.
    scene.read(2, version, czxid)
    scene.commit()
    assert other.result() == 3


def test_at_its_deadline_an_add_that_waits_is_withdrawn(scene: Scene) -> None:
    scene.first()
    leader = scene.add()
    late = scene.add(10, timeout=1.0)
    scene.world.runtime.advance(1.5)
    assert isinstance(late.error, UnavailableError)
    scene.commit()
    assert leader.result() == 2
    assert scene.world.requests == []


def test_at_its_deadline_an_add_under_way_is_unknown_and_the_others_lose_nothing(scene: Scene) -> None:
    scene.first()
    blocker = scene.add()
    late, other = scene.add(10, timeout=1.0), scene.add(100)
    scene.commit()
    assert blocker.done
    assert scene.written == (112, 5)
    scene.world.runtime.advance(1.5)
    assert isinstance(late.error, OutcomeUnknownError)
    scene.commit()
    assert other.result() == 112
    # The lead was handed on in the background.
    scene.add()
    assert scene.written == (113, 6)


def test_without_a_server_nothing_is_written_now_or_later() -> None:
    scene = Scene(connected=False)
    first, second = scene.add(timeout=1.0), scene.add(timeout=2.0)
    scene.world.runtime.advance(1.5)
    assert isinstance(first.error, UnavailableError)
    assert not second.done
    scene.world.runtime.advance(1.0)
    assert isinstance(second.error, UnavailableError)
    scene.world.connect()
    assert scene.world.transport.log == []


class Driver:
    """An algorithm that the test steps by itself, and interrupts."""

    def __init__(self, scene: Scene, algorithm: Any) -> None:
        self.scene = scene
        self.algorithm = algorithm
        self.wait: Wait = algorithm.send(None)

    def interrupt(self) -> None:
        with pytest.raises(KeyboardInterrupt):
            self.algorithm.throw(KeyboardInterrupt())
        self.scene.world.runtime.step()


def test_an_interrupted_leader_hands_on_and_what_is_under_way_is_counted(scene: Scene) -> None:
    scene.first()
    leader = Driver(scene, scene.counter.add(1, None))
    other = scene.add(10)
    leader.interrupt()
    scene.commit()
    assert scene.written == (12, 5)
    scene.commit()
    assert other.result() == 12


def test_an_interrupted_add_that_waits_is_never_written(scene: Scene) -> None:
    scene.first()
    leader = scene.add()
    waiting = Driver(scene, scene.counter.add(1000, None))
    other = scene.add(10)
    waiting.interrupt()
    scene.commit()
    assert leader.done
    assert scene.written == (12, 5)
    scene.commit()
    assert other.result() == 12


def test_a_collected_leader_stops_nobody(scene: Scene) -> None:
    """As after a crash of the caller's code under asyncio: nothing is thrown in, the coroutine is just gone."""
    scene.first()
    leader = Driver(scene, scene.counter.add(1, None))
    other = scene.add(10)
    del leader
    gc.collect()
    (dropped,) = scene.core.nodes.dropped
    assert isinstance(dropped, Carried)
    scene.world.run(scene.core.nodes.sweep())
    scene.commit()
    assert scene.written == (12, 5)
    scene.commit()
    assert other.result() == 12
    scene.world.end()


def test_only_the_add_that_does_not_fit_is_refused(scene: Scene) -> None:
    scene.first()
    blocker = scene.add()
    adds = [scene.add(amount) for amount in (LAYOUT.high - 3, 5, 1, -10)]
    scene.commit()
    assert blocker.done
    scene.read(2, 5)
    assert scene.written == (LAYOUT.high - 10, 5)
    scene.commit()
    assert isinstance(adds[1].error, CounterOverflowError)
    assert values(adds[0], adds[2], adds[3]) == [LAYOUT.high - 1, LAYOUT.high, LAYOUT.high - 10]


def test_nobody_is_refused_because_of_an_old_value(scene: Scene) -> None:
    scene.first()
    done = scene.add(LAYOUT.high)
    scene.read(0, 9)  # somebody has set it back
    assert scene.written == (LAYOUT.high, 9)
    scene.commit()
    assert done.result() == LAYOUT.high


def test_no_number_is_told_to_all_that_wait(scene: Scene) -> None:
    done, other = scene.add(), scene.add()
    for _ in range(2):  # who came after the first read looks by himself
        scene.world.answer((b"nonsense?", stat(0)))
    for pending in (done, other):
        assert isinstance(pending.error, DecodeError)
        assert pending.error.raw == b"nonsense?"
        assert pending.error.path == PATH
    assert scene.world.requests == []


def test_the_version_that_means_any_is_jumped_over(scene: Scene) -> None:
    done = scene.add()
    scene.read(7, -2)
    request = scene.world.requests[0]
    assert request.operations[:2] == (Set(PATH, LAYOUT.encode(8), -2), Set(PATH, LAYOUT.encode(8), -1))
    scene.commit()
    assert done.result() == 8
    scene.add()
    assert scene.written == (9, 0)


def test_a_closed_client_ends_all(scene: Scene) -> None:
    scene.first()
    first, second = scene.add(), scene.add()
    scene.world.end()
    for pending in (first, second):
        assert isinstance(pending.error, ClosedError | OutcomeUnknownError)
    assert isinstance(second.error, ClosedError)


def test_the_counter_is_read_again_in_a_new_session(scene: Scene) -> None:
    """Its marks are new, too: the old ones proved that it is the same node."""
    scene.first()
    scene.lose_the_reply(session_id=8)
    done = scene.add()
    scene.read(30, 12)
    assert scene.written == (31, 12)
    scene.commit()
    assert done.result() == 31
