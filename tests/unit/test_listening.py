"""What is decoded, told and shown of a mirror; user code never runs under the step lock."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.unit.grove import Grove
from tests.unit.kit import World
from zkrecipes.changes import Change, EventKind
from zkrecipes.codec import BytesCodec, TextCodec
from zkrecipes.errors import (
    AccessDeniedError,
    AcquireTimeoutError,
    ClosedError,
    DecodeError,
    ForkedError,
    UnavailableError,
)
from zkrecipes.flow import Pending
from zkrecipes.listening import ListenerState
from zkrecipes.scope import Scope
from zkrecipes.timing import Deadline

BAD = b"\xff"


class Codec:
    """Text."""

    def encode(self, value: str) -> bytes:
        return value.encode()

    def decode(self, data: bytes) -> str:
        return data.decode()


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.end()


@pytest.fixture
def grove(world: World) -> Grove:
    grove = Grove(world)
    grove.create("/app")
    grove.core.namespace = "/app"
    for path in ("/app/t", "/app/t/a", "/app/t/b"):
        grove.create(path, path.encode())
    return grove


def _state(grove: Grove, codec: Any = None, **options: Any) -> ListenerState[Any]:
    codec = TextCodec() if codec is None else codec
    return ListenerState(grove.core, Scope(("/app/t",)), codec, persistent=True, label="/t", **options)


class Told:
    """What the callbacks of a state are told."""

    def __init__(self, state: ListenerState[Any], *, after_initial: bool = False) -> None:
        self._told: list[Any] = []
        for kind in EventKind:
            state.register(kind, self._change, after_initial=after_initial)
        for mark in ("initialized", "stale", "fresh"):
            state.register(mark, lambda mark=mark: self._told.append(mark))
        state.register("error", self._told.append)

    def _change(self, change: Change[Any]) -> None:
        self._told.append((change.kind.value, change.path, change.old, change.new))

    def take(self) -> list[Any]:
        told, self._told[:] = list(self._told), []
        return told


def _start(grove: Grove, state: ListenerState[Any]) -> Pending[None]:
    started = grove.world.run(state.start(5.0))
    _serve(grove)
    return started


def _serve(grove: Grove) -> None:
    while grove.serve() or grove.world.runtime.callbacks:
        grove.world.runtime.run_callbacks()
        grove.world.runtime.step()


CREATED = [("created", path, None, f"/app{path}") for path in ("/t", "/t/a", "/t/b")]


# --- telling ----------------------------------------------------------------------------------------------------------


def test_nothing_is_told_but_on_the_dispatcher(grove: Grove) -> None:
    state = _state(grove)
    told = Told(state)
    started = grove.world.run(state.start(5.0))
    while grove.serve():
        pass
    assert started.done
    assert told.take() == []
    assert len(grove.world.runtime.callbacks) == 1, "one job for all that there is"
    grove.world.runtime.run_callbacks()
    assert told.take() == [*CREATED, "initialized"]


def test_user_code_does_not_run_under_the_step_lock(grove: Grove) -> None:
    """Others may take it meanwhile, from any thread."""
    free: list[bool] = []

    def ask() -> None:
        taken = grove.world.runtime.lock.acquire(timeout=1.0)
        free.append(taken)
        if taken:
            grove.world.runtime.lock.release()

    class Checked(Codec):
        def decode(self, data: bytes) -> str:
            check()
            return super().decode(data)

    def check(*_: object) -> bool:
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
        return True

    state = _state(grove, Checked(), include=check)
    for kind in (*EventKind, "initialized"):
        state.register(kind, check)
    _start(grove, state)
    state.snapshot()
    state.get("/t/a")
    assert len(free) == 3 + 2 + 3 + 1, "codec; include; callbacks; initialized"
    assert all(free)


def test_values_are_decoded_once(grove: Grove) -> None:
    decoded: list[bytes] = []

    class Counted(Codec):
        def decode(self, data: bytes) -> str:
            decoded.append(data)
            return super().decode(data)

    state = _state(grove, Counted())
    Told(state)
    _start(grove, state)
    consumer = state.consumer()
    for change in consumer.take():
        state.change(change)
    state.snapshot()
    assert state.get("/t/a") is state.snapshot()[1]["/t/a"]
    grove.write("/app/t/a", b"new")
    _serve(grove)
    state.snapshot()
    assert sorted(decoded) == [b"/app/t", b"/app/t/a", b"/app/t/b", b"new"]


def test_only_after_the_first_state(grove: Grove) -> None:
    state = _state(grove)
    told = Told(state, after_initial=True)
    _start(grove, state)
    assert told.take() == ["initialized"]
    grove.write("/app/t/a", b"x")
    _serve(grove)
    assert told.take() == [("changed", "/t/a", "/app/t/a", "x")]


def test_initialized_is_told_at_once_to_who_comes_late(grove: Grove) -> None:
    state = _state(grove)
    _start(grove, state)
    told: list[str] = []
    state.register("initialized", lambda: told.append("late"))
    assert told == []
    grove.world.runtime.run_callbacks()
    assert told == ["late"]


def test_stale_and_fresh(grove: Grove) -> None:
    state = _state(grove)
    told = Told(state)
    _start(grove, state)
    told.take()
    assert state.fresh
    grove.cut()
    assert not state.fresh
    grove.world.runtime.run_callbacks()
    assert told.take() == ["stale"]
    grove.world.connect()
    _serve(grove)
    assert told.take() == ["fresh"]
    grove.cut()
    grove.write("/app/t/b", b"missed")
    grove.world.connect()
    _serve(grove)
    assert told.take() == [("changed", "/t/b", "/app/t/b", "missed")], "a cut that is over when it is told is not told"


def test_what_comes_while_it_is_telling_is_told_after(grove: Grove) -> None:
    state = _state(grove)
    told = Told(state)

    def write(change: Change[str]) -> None:
        if change.path == "/t/a" and change.new != "again":
            grove.write("/app/t/a", b"again")

    state.register(EventKind.CHANGED, write)
    _start(grove, state)
    told.take()
    grove.write("/app/t/a", b"x")
    _serve(grove)
    _serve(grove)
    assert told.take() == [("changed", "/t/a", "/app/t/a", "x"), ("changed", "/t/a", "x", "again")]


def test_a_callback_that_raises(grove: Grove, caplog: pytest.LogCaptureFixture) -> None:
    state = _state(grove)

    def wrong(*_: object) -> None:
        raise LookupError

    for kind in (*EventKind, "initialized", "error"):
        state.register(kind, wrong)
    told = Told(state)
    _start(grove, state)
    told_ = told.take()
    assert [each for each in told_ if not isinstance(each, Exception)] == [*CREATED, "initialized"]
    assert len([each for each in told_ if isinstance(each, LookupError)]) == 4
    assert len([entry for entry in caplog.records if entry.levelname == "ERROR"]) == 8
    grove.write("/app/t", b"x")
    _serve(grove)
    assert ("changed", "/t", "/app/t", "x") in told.take()


def test_what_does_not_decode_is_told_once(grove: Grove) -> None:
    grove.write("/app/t/b", BAD)
    state = _state(grove)
    told = Told(state)
    _start(grove, state)
    (error,) = [each for each in told.take() if isinstance(each, Exception)]
    assert isinstance(error, DecodeError)
    assert (error.path, error.raw) == ("/t/b", BAD)
    assert list(state.snapshot()[1]) == ["/t", "/t/a"]
    for _ in range(2):
        with pytest.raises(DecodeError):
            state.get("/t/b")
    grove.cut()
    grove.world.connect()
    _serve(grove)
    assert [each for each in told.take() if isinstance(each, Exception)] == []
    grove.write("/app/t/b", b"good")
    _serve(grove)
    assert told.take()[-1] == ("created", "/t/b", None, "good")


def test_errors_of_reading_are_told_once_each(grove: Grove, caplog: pytest.LogCaptureFixture) -> None:
    grove.secret.add("/app/t/b")
    state = _state(grove)
    _start(grove, state)
    assert [entry.getMessage() for entry in caplog.records if "/t/b" in entry.getMessage()]
    told = Told(state)
    _serve(grove)
    assert told.take() == ["initialized"]
    for _ in range(3):
        grove.world.runtime.advance(10.0)
        _serve(grove)
    assert told.take() == []
    with pytest.raises(AccessDeniedError):
        state.get("/t/b")
    grove.secret.clear()
    grove.world.runtime.advance(31.0)
    _serve(grove)
    assert told.take() == [CREATED[2]]
    grove.secret.add("/app/t/b")
    grove.write("/app/t/b", b"hidden")
    _serve(grove)
    assert [type(each) for each in told.take()] == [AccessDeniedError], "taken away once more"
    assert state.get("/t/b").value == "/app/t/b"  # type: ignore[union-attr]  # it is there


def test_include_may_raise(grove: Grove) -> None:
    def include(path: str) -> bool:
        if path == "/t/a":
            raise LookupError
        return False

    state = _state(grove, include=include)
    told = Told(state)
    _start(grove, state)
    assert list(state.snapshot()[1]) == ["/t", "/t/a"]
    assert [type(each) for each in told.take() if isinstance(each, Exception)] == [LookupError]


def test_a_blocked_callback_does_not_keep_include_from_being_asked(grove: Grove) -> None:
    state = _state(grove, include=lambda _path: True)
    grove.world.run(state.start(5.0))
    grove.serve()
    keys = {id(key) for key, _ in grove.world.runtime.callbacks}
    assert len(keys) == len(grove.world.runtime.callbacks) == 2


# --- the end ----------------------------------------------------------------------------------------------------------


def test_nothing_is_told_when_it_is_closed(grove: Grove) -> None:
    """What was to be told, too; and a callback that closes it is the last."""
    state = _state(grove)
    told = Told(state)
    state.register(EventKind.CHANGED, lambda _change: state.end())
    last = Told(state)
    _start(grove, state)
    told.take(), last.take()
    grove.write("/app/t/a", b"x")
    grove.write("/app/t/b", b"x")
    _serve(grove)
    assert len(told.take()) == 1
    assert last.take() == []
    with pytest.raises(ClosedError, match="/t is closed"):
        state.register("error", print)
    assert grove.world.runtime.tasks.names() == []


def test_a_start_that_fails_leaves_nothing(grove: Grove) -> None:
    grove.secret.add("/app/t")
    state = _state(grove)
    started = _start(grove, state)
    with pytest.raises(AccessDeniedError):
        started.result()
    _serve(grove)
    assert grove.watches == set()
    assert grove.world.runtime.tasks.names() == []
    grove.cut()
    state = _state(grove)
    started = _start(grove, state)
    grove.world.runtime.advance(5.1)
    with pytest.raises(UnavailableError):
        started.result()
    assert grove.world.runtime.tasks.names() == []


def test_closing_the_client_is_told_to_nobody(grove: Grove) -> None:
    """ "stale" would be the last word of a state that nobody wants any more."""
    state = _state(grove)
    told = Told(state)
    _start(grove, state)
    told.take()
    grove.world.session.close()
    grove.world.runtime.step()
    grove.world.runtime.run_callbacks()
    assert told.take() == []
    assert not state.fresh


# --- showing ----------------------------------------------------------------------------------------------------------


def test_snapshots(grove: Grove) -> None:
    state = _state(grove)
    assert state.snapshot()[1] == {}
    _start(grove, state)
    version, nodes = state.snapshot()
    assert list(nodes) == ["/t", "/t/a", "/t/b"]
    assert state.snapshot() == (version, nodes)
    assert state.snapshot()[1] is nodes
    grove.delete("/app/t/b")
    _serve(grove)
    later, now = state.snapshot()
    assert later > version
    assert list(now) == ["/t", "/t/a"]
    assert list(nodes) == ["/t", "/t/a", "/t/b"]
    assert nodes["/t/a"] is now["/t/a"]


def test_bytes_are_shown_as_they_are(grove: Grove) -> None:
    grove.write("/app/t/b", BAD)
    state = _state(grove, BytesCodec())
    _start(grove, state)
    assert state.snapshot()[1]["/t/b"].value == BAD


def test_the_root_of_the_namespace(grove: Grove) -> None:
    state: ListenerState[Any] = ListenerState(grove.core, Scope(("/app",)), BytesCodec(), persistent=True, label="/")
    _start(grove, state)
    assert list(state.snapshot()[1]) == ["/", "/t", "/t/a", "/t/b"]
    assert state.get("/").path == "/"  # type: ignore[union-attr]  # it is there


# --- waiting ----------------------------------------------------------------------------------------------------------


def test_waiting_for_another_state(grove: Grove) -> None:
    state = _state(grove)
    _start(grove, state)
    runtime = grove.world.runtime
    version = state.snapshot()[0]
    waiting = grove.world.run(state.newer(version, Deadline.after(5.0, runtime.now())))
    assert not waiting.done
    grove.write("/app/t/a", b"x")
    _serve(grove)
    assert waiting.done
    waiting.result()
    in_vain = grove.world.run(state.newer(state.snapshot()[0], Deadline.after(5.0, runtime.now())))
    runtime.advance(4.9)
    assert not in_vain.done
    runtime.advance(0.2)
    with pytest.raises(AcquireTimeoutError, match="/t"):
        in_vain.result()
    grove.cut()
    outage = grove.world.run(state.newer(state.snapshot()[0], Deadline.after(5.0, runtime.now())))
    runtime.advance(5.1)
    with pytest.raises(UnavailableError):
        outage.result()


def test_who_waits_is_told_of_the_end(grove: Grove) -> None:
    state = _state(grove)
    _start(grove, state)
    deadline = Deadline.after(50.0, grove.world.runtime.now())
    waiting = grove.world.run(state.newer(state.snapshot()[0], deadline))
    consumer = state.consumer()
    consumer.take()
    iterating = grove.world.run(state.changes(consumer))
    state.end()
    grove.world.runtime.step()
    assert waiting.done
    with pytest.raises(ClosedError):
        grove.world.run(state.newer(state.snapshot()[0], deadline)).result()
    assert iterating.result() == ()


def test_one_that_was_not_started_says_so(grove: Grove) -> None:
    state = _state(grove)
    for algorithm in (state.newer(0, Deadline.after(5.0, 0.0)), state.changes(state.consumer())):
        waiting: Pending[Any] = grove.world.run(algorithm)
        with pytest.raises(ClosedError, match="has not been started"):
            waiting.result()


def test_closing_a_consumer_ends_who_waits_in_it(grove: Grove) -> None:
    state = _state(grove)
    _start(grove, state)
    consumer = state.consumer()
    assert len(grove.world.run(state.changes(consumer)).result()) == 3
    waiting = grove.world.run(state.changes(consumer))
    assert not waiting.done
    state.leave(consumer)
    grove.world.runtime.step()
    assert waiting.done
    assert waiting.result() == ()


def test_a_fork_takes_no_lock(grove: Grove) -> None:
    """Some thread of the parent may hold it, which is not there to let it go."""
    state = _state(grove)
    _start(grove, state)
    consumer, registration = state.consumer(), state.register("stale", print)
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with grove.world.runtime.lock:
            held.set()
            done.wait(10.0)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert held.wait(5.0)
        grove.world.runtime.is_fork = True
        for call in (
            lambda: state.register("stale", print),
            lambda: state.get("/t"),
            state.snapshot,
            state.consumer,
        ):
            with pytest.raises(ForkedError):
                call()
        state.leave(consumer)
        registration.cancel()
        assert not state.fresh
    finally:
        done.set()
        thread.join()
        grove.world.runtime.is_fork = False
