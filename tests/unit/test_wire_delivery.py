"""What answers and events let go on is stepped by the thread that brings them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kazoo.exceptions import NoNodeError, SessionExpiredError

from zkrecipes.calls import Call
from zkrecipes.flow import Pending, first_of
from zkrecipes.port import Get, NodeEvent
from zkrecipes.runtime import ThreadRuntime
from zkrecipes.testing import wait_until
from zkrecipes.wire import KazooTransport
from zkrecipes.wire_io import Handler
from zkrecipes.wire_kazoo import open_kazoo


@pytest.fixture
def runtime() -> Iterator[ThreadRuntime]:
    """Its engine does not run, unless a test starts it."""
    runtime = ThreadRuntime("test")
    yield runtime
    runtime.stop()


def _spawn(runtime: ThreadRuntime, awaited: Pending[Any], then: Callable[[], None] = lambda: None) -> Pending[str]:
    """A task that has begun to wait, and then returns the name of the thread that steps it."""

    async def algorithm() -> str:
        await first_of(awaited)
        then()
        return threading.current_thread().name

    with runtime.delivery:
        done = runtime.spawn(algorithm(), "one")
    assert not done.done
    return done


HERE = threading.current_thread().name


def test_what_becomes_ready_is_stepped_before_the_delivery_ends(runtime: ThreadRuntime) -> None:
    first, second = Pending[None](), Pending[None]()
    one = _spawn(runtime, first, lambda: second.resolve(None))
    two = _spawn(runtime, second)
    with runtime.delivery:
        first.resolve(None)
        assert not one.done
    assert one.result() == two.result() == HERE


def test_a_task_that_was_begun_elsewhere_is_stepped_by_who_brings_what_it_waits_for(runtime: ThreadRuntime) -> None:
    awaited = Pending[None]()
    steps: list[str] = []

    async def algorithm() -> None:
        steps.append(threading.current_thread().name)
        await awaited
        steps.append(threading.current_thread().name)

    def begin() -> None:
        with runtime.lock:
            runtime.begin(algorithm(), "one")

    thread = threading.Thread(target=begin, name="elsewhere")
    thread.start()
    thread.join()
    with runtime.delivery:
        awaited.resolve(None)
    assert steps == ["elsewhere", HERE]


def test_nothing_is_stepped_in_the_midst_of_a_delivery(runtime: ThreadRuntime) -> None:
    awaited = Pending[None]()
    done = _spawn(runtime, awaited)
    with runtime.delivery:
        with runtime.delivery:
            awaited.resolve(None)
        assert not done.done
    assert done.done


def test_nothing_is_stepped_by_whoever_holds_the_plain_lock(runtime: ThreadRuntime) -> None:
    awaited = Pending[None]()
    done = _spawn(runtime, awaited)
    with runtime.lock:
        awaited.resolve(None)
    assert not done.done
    runtime.start()
    wait_until(lambda: done.done, 5.0, "the engine was told")
    assert done.result() == "test-engine"


def test_tasks_without_end_are_left_to_the_engine(runtime: ThreadRuntime) -> None:
    steps: list[str] = []

    async def busy() -> None:
        while len(steps) < 100:
            steps.append(threading.current_thread().name)
            await first_of(until=runtime.now())

    runtime.start()
    with runtime.delivery:
        done = runtime.spawn(busy(), "busy")
    wait_until(lambda: done.done, 5.0, "the engine goes on")
    assert 0 < steps.count(HERE) < 20
    assert steps.count("test-engine") == 100 - steps.count(HERE)


def test_the_engine_is_told_of_new_times(runtime: ThreadRuntime) -> None:
    awaited = Pending[None]()

    async def algorithm() -> list[str]:
        names = []
        await first_of(awaited)
        for pause in (0.02, 0.01):
            names.append(threading.current_thread().name)
            await first_of(until=runtime.now() + pause)
        return [*names, threading.current_thread().name]

    with runtime.delivery:
        done = runtime.spawn(algorithm(), "timed")
    runtime.start()
    wait_until(lambda: len(runtime._wake._waiters) == 1, 5.0, "the engine sleeps, without end")  # type: ignore[attr-defined]
    with runtime.delivery:
        awaited.resolve(None)
    wait_until(lambda: done.done, 5.0, "the engine wakes in time")
    assert done.result() == [HERE, "test-engine", "test-engine"]


def test_a_task_that_fails_harms_neither_the_delivery_nor_the_others(
    runtime: ThreadRuntime, caplog: pytest.LogCaptureFixture
) -> None:
    awaited = Pending[None]()

    def fail() -> None:
        message = "a defect"
        raise RuntimeError(message)

    failing, done = _spawn(runtime, awaited, fail), _spawn(runtime, awaited)
    with runtime.delivery:
        awaited.resolve(None)
    assert failing.failed
    assert done.result() == HERE
    assert "a defect" in caplog.text


def test_nothing_is_stepped_after_the_end(runtime: ThreadRuntime) -> None:
    awaited = Pending[None]()
    done = _spawn(runtime, awaited)
    runtime.stop()
    with runtime.delivery:
        awaited.resolve(None)
    assert not done.done


def test_the_lock_is_free_after_a_delivery_that_raised(runtime: ThreadRuntime) -> None:
    awaited = Pending[None]()
    done = _spawn(runtime, awaited)

    def deliver() -> None:
        with runtime.delivery:
            awaited.resolve(None)
            raise LookupError

    with pytest.raises(LookupError):
        deliver()
    assert done.done
    assert runtime.depth == 0
    taken = threading.Event()

    def take() -> None:
        with runtime.lock:
            taken.set()

    threading.Thread(target=take, daemon=True).start()
    assert taken.wait(5.0)


# --- the transport ----------------------------------------------------------------------------------------------------


class Events:
    """A session that resolves `told` with whatever happens."""

    def __init__(self) -> None:
        self.told = Pending[str]()

    def __getattr__(self, name: str) -> Callable[..., bool]:
        def tell(*_args: object) -> bool:
            if name not in {"may_write", "connected"}:
                self.told.resolve(name)
            return True

        return tell


@pytest.fixture
def link(runtime: ThreadRuntime) -> tuple[KazooTransport, Events, list[Any]]:
    """A connected transport whose kazoo keeps what it is given."""
    events, handler, given = Events(), Handler(10.0, runtime.now), list[Any]()
    kazoo = open_kazoo("127.0.0.1:1", 10.0, handler)
    kazoo._call = lambda request, _result: given.append(request)
    transport = KazooTransport(kazoo, events, runtime, handler)  # type: ignore[arg-type]
    transport._state_changed("CONNECTED")
    return transport, events, given


@pytest.mark.parametrize("answer", ["answered", "refused", "notified"])
def test_answers_refusals_and_events_are_deliveries(
    answer: str, link: tuple[KazooTransport, Events, list[Any]], runtime: ThreadRuntime
) -> None:
    transport, events, given = link
    done = _spawn(runtime, events.told)
    transport.send(Call(Get("/"), 0, 0.0))
    if answer == "answered":
        given[0].set((b"", None))
    elif answer == "refused":
        given[0].set_exception(NoNodeError())
    else:
        transport._told(bytes((0, 0, 0, NodeEvent.CREATED, 0, 0, 0, 3, 0, 0, 0, 1)) + b"/", 0)
    assert events.told.result() == answer
    assert done.result() == HERE


def test_a_call_that_ends_within_its_sending_is_no_delivery(
    link: tuple[KazooTransport, Events, list[Any]], runtime: ThreadRuntime
) -> None:
    # The sender is in the midst of a step, and no other algorithm may go on inside it.
    transport, events, _ = link
    done = _spawn(runtime, events.told)
    transport.kazoo._call = lambda request, _result: request.set_exception(SessionExpiredError())
    transport.kazoo._live.set()
    with runtime.lock:
        transport.send(Call(Get("/"), 0, 0.0))
        assert events.told.result() == "dropped"
        assert not done.done
    assert not done.done
    runtime.start()
    wait_until(lambda: done.done, 5.0, "the engine was told")


def test_a_step_that_sends_steps_nobody_else(
    link: tuple[KazooTransport, Events, list[Any]], runtime: ThreadRuntime
) -> None:
    transport, events, given = link
    order: list[str] = []
    awaited = Pending[None]()
    transport.kazoo._live.set()

    def send_in_vain() -> None:
        transport.kazoo._call = lambda request, _result: request.set_exception(SessionExpiredError())
        awaited.resolve(None)
        transport.send(Call(Get("/"), 0, 0.0))
        order.append("sent")

    other = _spawn(runtime, awaited, lambda: order.append("other"))
    _spawn(runtime, events.told, send_in_vain)
    transport.send(Call(Get("/"), 0, 0.0))
    given[0].set((b"", None))
    assert order == ["sent", "other"]
    assert other.done
