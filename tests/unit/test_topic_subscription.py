"""How a subscription reads on, on a session whose answers the test gives."""

from __future__ import annotations

from collections.abc import Coroutine, Iterator

import pytest

from tests.unit.kit import World
from zkrecipes.core import Core
from zkrecipes.errors import ClosedError, DecodeError
from zkrecipes.flow import Wait
from zkrecipes.nodes import Nodes
from zkrecipes.port import AddWatch, Code, Exists, Get, NodeEvent, ReadMany, Refused, RemoveWatches, Request, WatchKind
from zkrecipes.timing import Deadline
from zkrecipes.topic_layout import Position
from zkrecipes.topic_log import Log
from zkrecipes.topic_subscription import Given, SubscriptionState

TOPIC = "/t"
SEGMENT = f"{TOPIC}/s0000000000"


def _message(index: int) -> str:
    return f"{SEGMENT}/m-{index:010d}"


class Reader:
    """Somebody in `peek`, stepped by the test: how often it has been woken is for the test to see."""

    def __init__(self, state: SubscriptionState) -> None:
        self._peek: Coroutine[Wait, None, Given] = state.peek(Deadline.after(None, 0.0))
        self._wait: Wait | None = None
        self.given: Given | None = None
        self.step()

    @property
    def woken(self) -> bool:
        return self._wait is not None and any(pending.done for pending in self._wait.pendings)

    def step(self) -> None:
        try:
            self._wait = self._peek.send(None)
        except StopIteration as stop:
            self._wait, self.given = None, stop.value

    def interrupt(self) -> None:
        with pytest.raises(KeyboardInterrupt):
            self._peek.throw(KeyboardInterrupt())

    def position(self) -> Position:
        """Of the message that it has got."""
        assert self.given is not None
        assert self.given.found is not None
        return self.given.found.position


class Scene:
    """A subscription to a topic with one segment, from its first message on; nothing is published yet.

    Args:
        persistent: Whether the server has persistent watches.
    """

    def __init__(self, *, persistent: bool = True) -> None:
        self.world = World()
        self.persistent = self.world.session.watches.recursive = persistent
        core = Core(Nodes(self.world.session))
        log = Log(core, TOPIC, TOPIC, segment_size=1000, max_message=1000, window=600.0)
        core.shared["topic", TOPIC] = True

        async def start(_deadline: Deadline) -> Position:
            return Position(0, 0)

        self.state = SubscriptionState(log, "audit", start, durable=False, ack_every=None, ack_interval=None)
        self.world.run(self.state.open(Deadline.after(None, 0.0)))
        self.world.answer(self.world.created(self.world.requests[0].path))  # it shows itself

    def wait_for_the_first(self) -> Reader:
        """A reader that has seen head and low-water, and that there is no message."""
        reader = Reader(self.state)
        assert self.world.requests == [Get(f"{TOPIC}/head", watch=True), Get(f"{TOPIC}/low", watch=True)]
        self.world.answer((b"0", self.world.stat()))
        self.world.answer((b"0-0", self.world.stat()))
        if self.persistent:
            assert self.world.requests == [AddWatch(SEGMENT)]
            self.world.answer(None)
        assert self.world.requests == [Exists(_message(0), watch=not self.persistent)]
        self.world.answer(None)
        return reader

    def asked(self, index: int) -> list[Request]:
        """What a message that was told costs."""
        following = [] if self.persistent else [Exists(_message(index + 1), watch=True)]
        return [Get(_message(index)), *following]

    def tell(self, index: int) -> None:
        self.world.session.notified(_message(index), NodeEvent.CREATED)
        self.world.runtime.step()

    def answer_message(self) -> None:
        self.world.answer((b"data", self.world.stat()))

    def take(self, reader: Reader) -> Position:
        if reader.given is None:
            reader.step()
        position = reader.position()
        assert reader.given is not None
        self.state.taken(reader.given, gap=False)
        return position


@pytest.fixture(params=[True, False], ids=["persistent", "one-shot"])
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    scene = Scene(persistent=request.param)
    yield scene
    scene.world.end()


def test_who_waits_wakes_once_for_a_message_with_the_message_there(scene: Scene) -> None:
    reader = scene.wait_for_the_first()
    scene.tell(0)
    assert scene.world.requests == scene.asked(0)
    assert not reader.woken
    scene.answer_message()
    assert reader.woken
    assert scene.take(reader) == Position(0, 0)
    assert scene.world.requests == scene.asked(0)[1:]


def test_what_comes_while_nobody_waits_is_read_once_and_not_ahead_of_that(scene: Scene) -> None:
    scene.wait_for_the_first().interrupt()
    scene.tell(0)
    scene.answer_message()
    for _ in scene.world.requests:
        scene.world.answer(None)
    scene.tell(1)
    scene.world.runtime.advance(60.0)
    assert scene.world.requests == [], "the second is not read before the first was handed out"
    assert scene.take(Reader(scene.state)) == Position(0, 0)
    reader = Reader(scene.state)
    scene.answer_message()
    assert scene.take(reader) == Position(0, 1)


def test_who_waits_next_finds_the_reading_that_is_under_way(scene: Scene) -> None:
    scene.wait_for_the_first().interrupt()
    reader = Reader(scene.state)
    assert scene.world.requests == []
    scene.tell(0)
    assert scene.world.requests == scene.asked(0)
    scene.answer_message()
    assert scene.take(reader) == Position(0, 0)


@pytest.mark.parametrize("what", ["event", "answer"])
def test_a_seek_counts_although_something_has_come_just_before_it(scene: Scene, what: str) -> None:
    reader = scene.wait_for_the_first()
    # What has come has let the reading go on, and it has not been stepped yet.
    if what == "event":
        scene.world.session.notified(_message(0), NodeEvent.CREATED)
    else:
        scene.tell(0)
        scene.world.session.answered(scene.world.transport.queue.pop(0), (b"data", scene.world.stat()))
    with pytest.raises(StopIteration):
        scene.state.seek(Position(0, 5), Deadline.after(None, 0.0)).send(None)
    while scene.world.requests:
        scene.world.answer(None)
    scene.world.runtime.step()
    assert reader.woken
    reader.step()
    while scene.world.requests:
        scene.world.answer(None)
    scene.tell(5)
    assert scene.world.requests == scene.asked(5)
    scene.answer_message()
    assert scene.take(reader) == Position(0, 5)
    assert scene.world.transport.log.count(Get(_message(0))) == (what == "answer")


def test_a_closed_subscription_takes_its_watches_off_and_reads_no_more(scene: Scene) -> None:
    reader = scene.wait_for_the_first()
    scene.world.run(scene.state.close())
    removed = [request.path for request in scene.world.requests if isinstance(request, RemoveWatches)]
    assert removed == [SEGMENT if scene.persistent else _message(0), f"{TOPIC}/head", f"{TOPIC}/low"]
    scene.tell(0)
    assert not any(isinstance(request, Get) for request in scene.world.requests)
    reader.step()
    assert reader.given is not None
    assert reader.given.found is None


def test_a_damaged_head_is_told_to_who_waits_and_looked_at_again(scene: Scene) -> None:
    reader = Reader(scene.state)
    scene.world.answer((b"nonsense", scene.world.stat()))
    scene.world.answer((b"0-0", scene.world.stat()))
    with pytest.raises(DecodeError):
        reader.step()
    scene.world.session.notified(f"{TOPIC}/head", NodeEvent.CHANGED)
    reader = Reader(scene.state)
    assert scene.world.requests == [Get(f"{TOPIC}/head", watch=True)]


def test_a_closed_client_wakes_who_waits_even_if_nothing_is_stepped_any_more(scene: Scene) -> None:
    reader = scene.wait_for_the_first()
    scene.world.session.close()
    assert reader.woken
    with pytest.raises(ClosedError):
        reader.step()


def told(*indices: int) -> Scene:
    """Messages that were told while nobody waited, after the first one was read."""
    scene = Scene()
    scene.wait_for_the_first().interrupt()
    scene.tell(0)
    scene.answer_message()
    assert scene.take(Reader(scene.state)) == Position(0, 0)
    for index in indices:
        scene.tell(index)
    assert scene.world.requests == []
    return scene


def test_messages_that_were_told_together_are_read_together_and_no_others() -> None:
    scene = told(1, 2, 3)
    reader = Reader(scene.state)
    assert scene.world.requests == [ReadMany(tuple(Get(_message(index)) for index in (1, 2, 3)))]
    scene.world.answer([(b"data", scene.world.stat())] * 3)
    assert scene.take(reader) == Position(0, 1)
    scene.world.end()


def test_a_message_that_was_told_and_is_gone_is_looked_for_with_a_new_watch() -> None:
    scene = told(1)
    reader = Reader(scene.state)
    scene.world.refuse(Code.NO_NODE)
    assert scene.world.requests == [RemoveWatches(SEGMENT, WatchKind.ANY), AddWatch(SEGMENT)]
    scene.world.answer(None)
    scene.world.answer(None)
    assert scene.world.requests == [Exists(_message(1))]
    scene.world.answer(None)
    assert scene.world.requests == [], "it does not ask again and again"
    scene.tell(1)
    scene.answer_message()
    assert scene.take(reader) == Position(0, 1)
    scene.world.end()


def test_a_server_without_persistent_watches_is_asked_once() -> None:
    scene = Scene()
    Reader(scene.state)
    for _ in range(2):
        scene.world.answer((b"0" if len(scene.world.requests) == 2 else b"0-0", scene.world.stat()))
    assert scene.world.requests == [AddWatch(SEGMENT)]
    scene.world.refuse(Code.UNIMPLEMENTED)
    assert scene.world.requests == [Exists(_message(0), watch=True)]
    scene.world.end()


def test_a_new_connection_gets_a_new_watch_and_a_look_behind_it() -> None:
    scene = Scene()
    reader = scene.wait_for_the_first()
    scene.world.transport.drop()
    scene.world.runtime.step()
    scene.world.connect()
    scene.world.answer((b"0", scene.world.stat()))
    scene.world.answer((b"0-0", scene.world.stat()))
    assert scene.world.requests == [AddWatch(SEGMENT)]
    scene.world.answer(None)
    assert scene.world.requests == [Exists(_message(0))]
    scene.world.answer(scene.world.stat())
    assert isinstance(scene.world.requests[0], ReadMany)
    scene.world.answer([(b"data", scene.world.stat())] + [Refused(Code.NO_NODE)] * 9)
    assert scene.take(reader) == Position(0, 0)
    scene.world.end()
