"""Clock, engine thread, dispatcher, owners and identifiers."""

from __future__ import annotations

import asyncio
import functools
import os
import threading
import uuid

import pytest

from tests.leftovers import Leftovers
from zkrecipes.flow import first_of
from zkrecipes.runtime import Dispatcher, ThreadRuntime, default_identity, monotonic
from zkrecipes.testing import wait_until


@pytest.fixture
def dispatcher() -> Dispatcher:
    return Dispatcher("test", 8)


def _pass(gate: threading.Event) -> None:
    assert gate.wait(10.0)


def test_callbacks_of_one_key_run_in_order_one_at_a_time(dispatcher: Dispatcher) -> None:
    key, order, running = object(), list[int](), list[int]()

    def callback(number: int) -> None:
        running.append(number)
        assert len(running) == 1
        order.append(number)
        running.remove(number)

    for number in range(300):
        dispatcher.dispatch(key, functools.partial(callback, number))
    wait_until(lambda: len(order) == 300)
    assert order == list(range(300))
    dispatcher.stop()


def test_seven_blocked_callbacks_delay_nobody(dispatcher: Dispatcher, caplog: pytest.LogCaptureFixture) -> None:
    gate, done = threading.Event(), threading.Event()
    for _ in range(7):
        dispatcher.dispatch(object(), lambda: _pass(gate))
    dispatcher.dispatch(object(), done.set)
    assert done.wait(5.0)
    blocked = threading.Event()
    dispatcher.dispatch(object(), lambda: _pass(gate))
    dispatcher.dispatch(object(), blocked.set)
    wait_until(lambda: "busy" in caplog.text, 5.0, "the eighth is reported")
    gate.set()
    assert blocked.wait(5.0)
    dispatcher.stop()


@pytest.mark.parametrize("_", range(20))
def test_an_idle_thread_is_counted_on_once(dispatcher: Dispatcher, _: int) -> None:
    """Two callbacks in a row, of which the first blocks: the second needs a thread of its own."""
    warm, gate, done = threading.Event(), threading.Event(), threading.Event()
    dispatcher.dispatch(object(), warm.set)
    warm.wait(5.0)
    wait_until(lambda: dispatcher._idle == 1)
    dispatcher.dispatch(object(), lambda: _pass(gate))
    dispatcher.dispatch(object(), done.set)
    assert done.wait(2.0)
    gate.set()
    dispatcher.stop()


def test_a_callback_that_raises_harms_no_other(dispatcher: Dispatcher, caplog: pytest.LogCaptureFixture) -> None:
    key, done = object(), threading.Event()

    def bad() -> None:
        message = "broken callback"
        raise ValueError(message)

    dispatcher.dispatch(key, bad)
    dispatcher.dispatch(key, done.set)
    assert done.wait(5.0)
    assert "broken callback" in caplog.text
    dispatcher.stop()


def test_what_is_queued_runs_before_the_end() -> None:
    leftovers = Leftovers()
    dispatcher = Dispatcher("test", 2)
    gate, ran = threading.Event(), list[int]()

    def callback(number: int) -> None:
        _pass(gate)
        ran.append(number)

    for number in range(20):
        dispatcher.dispatch(object(), functools.partial(callback, number))
    dispatcher.stop()
    gate.set()
    leftovers.none()
    assert sorted(ran) == list(range(20))


def test_the_engine_runs_tasks_and_wakes_in_time() -> None:
    runtime = ThreadRuntime("test")
    runtime.start()
    woken: list[float] = []

    async def algorithm() -> str:
        for pause in (0.01, 0.03):
            until = runtime.now() + pause
            await first_of(until=until)
            woken.append(runtime.now() - until)
        return threading.current_thread().name

    done = runtime.spawn(algorithm(), "one")
    wait_until(lambda: done.done)
    assert done.result() == "test-engine"
    assert min(woken) >= 0
    runtime.stop()


def test_stopping_leaves_no_thread() -> None:
    leftovers = Leftovers()
    runtime = ThreadRuntime("test")
    runtime.start()
    runtime.dispatch(object(), lambda: None)
    runtime.stop()
    runtime.stop()
    leftovers.none()


def test_the_clock_runs_while_the_machine_sleeps() -> None:
    with open("/proc/uptime", encoding="ascii") as uptime:  # noqa: PTH123  # it counts sleep, too
        assert abs(float(uptime.read().split()[0]) - monotonic()) < 1.0


def test_owners_are_never_mistaken_for_those_before_them() -> None:
    """Thread identifiers are given again as soon as a thread has ended."""
    runtime = ThreadRuntime("test")
    owners: list[int] = []
    identifiers: list[int] = []

    def note() -> None:
        owners.append(runtime.owner())
        identifiers.append(threading.get_ident())
        assert runtime.owner() == owners[-1]

    for _ in range(50):
        thread = threading.Thread(target=note)
        thread.start()
        thread.join()
    assert len(set(identifiers)) < 50, "the test needs identifiers that are given again"
    assert len(set(owners)) == 50


def test_owners_under_asyncio_are_tasks() -> None:
    runtime = ThreadRuntime("test")

    async def note() -> int:
        first = runtime.owner()
        await asyncio.sleep(0)
        assert runtime.owner() == first
        return first

    async def main() -> list[int]:
        one_by_one = [await asyncio.create_task(note()) for _ in range(50)]
        together = await asyncio.gather(*(note() for _ in range(50)))
        return [*one_by_one, *together]

    assert len(set(asyncio.run(main()))) == 100


def test_guids_are_ours_and_valid() -> None:
    runtime = ThreadRuntime("test")
    guids = {runtime.unique() for _ in range(1000)}
    assert len(guids) == 1000
    for guid in guids:
        parsed = uuid.UUID(guid)
        assert str(parsed) == guid
        assert parsed.variant == uuid.RFC_4122
        assert guid[14] == "8"


def test_chance_is_not_copied_by_a_fork() -> None:
    runtime = ThreadRuntime("test")
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, repr((runtime.random(), runtime.unique())).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    with os.fdopen(read) as file:
        assert file.read() != repr((runtime.random(), runtime.unique()))


def test_the_identity_names_host_and_process() -> None:
    assert default_identity().endswith(f":{os.getpid()}")
