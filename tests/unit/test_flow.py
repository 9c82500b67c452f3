"""The drivers: interrupts and cancellation are thrown in, nobody wakes early, code between two awaits is atomic."""

from __future__ import annotations

import asyncio
import gc
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Self

import pytest

from zkrecipes.flow import Pending, Tasks, first_of, run_async, run_blocking, until_done
from zkrecipes.testing import wait_until

now = time.monotonic


@pytest.fixture
def lock() -> Any:
    return threading.RLock()


class Interrupted(BaseException):
    """Stands for KeyboardInterrupt, which pytest would take for its own."""


class Drivers:
    """The same algorithm on each driver."""

    @staticmethod
    def threads(algorithm: Any, lock: Any) -> Any:
        return run_blocking(algorithm, lock, now)

    @staticmethod
    def asyncio(algorithm: Any, lock: Any) -> Any:
        return asyncio.run(run_async(algorithm, lock, now))

    @staticmethod
    def tasks(algorithm: Any, lock: Any) -> Any:
        ready = threading.Event()
        tasks = Tasks(now, ready.set)
        with lock:
            done = tasks.spawn(algorithm, "under test")
        while not done.done:
            with lock:
                tasks.step_ready()
                pause = tasks.next_time() - now()
            if not done.done:
                ready.wait(max(0.0, min(pause, 0.01)))
                ready.clear()
        return done.result()


drivers = pytest.mark.parametrize("drive", [Drivers.threads, Drivers.asyncio, Drivers.tasks])


def _later(lock: Any, seconds: float, act: Callable[[], None]) -> threading.Timer:
    def locked() -> None:
        with lock:
            act()

    timer = threading.Timer(seconds, locked)
    timer.start()
    return timer


# --- what every driver does ----------------------------------------------------------------------


@drivers
def test_result_and_error_come_through(drive: Any, lock: Any) -> None:
    async def good() -> int:
        return await Pending.of(41) + 1

    async def bad() -> None:
        failed: Pending[None] = Pending()
        failed.fail(ValueError("told"))
        await failed

    assert drive(good(), lock) == 42
    with pytest.raises(ValueError, match="told"):
        drive(bad(), lock)


@drivers
def test_a_pending_from_another_thread_wakes(drive: Any, lock: Any) -> None:
    pending: Pending[str] = Pending()
    timer = _later(lock, 0.02, lambda: pending.resolve("there"))

    async def algorithm() -> str:
        return await pending

    assert drive(algorithm(), lock) == "there"
    timer.join()


@drivers
def test_nobody_wakes_early_without_a_result(drive: Any, lock: Any) -> None:
    pending: Pending[None] = Pending()
    woken: list[float] = []

    async def algorithm() -> None:
        for wait in (0.0, 0.001, 0.0105, 0.05):
            until = now() + wait
            assert await until_done(pending, until) is None
            woken.append(now() - until)

    drive(algorithm(), lock)
    assert min(woken) >= 0


@drivers
def test_first_of_gives_the_first_in_the_order_given(drive: Any, lock: Any) -> None:
    one, two, three = (Pending[int]() for _ in range(3))

    async def algorithm() -> Any:
        two.resolve(2)
        three.resolve(3)
        assert await first_of(one, three, two) is three
        assert await first_of(one, until=now()) is None
        return await first_of(one, two, three)

    assert drive(algorithm(), lock) is two


@drivers
def test_waiters_are_taken_off_what_did_not_come(drive: Any, lock: Any) -> None:
    """A pending that lives long (a connection's) must not gather what has waited for it."""
    lasting: Pending[None] = Pending()

    async def algorithm() -> None:
        for _ in range(50):
            await first_of(lasting, until=now() + 0.0002)

    drive(algorithm(), lock)
    assert not lasting._waiters


@drivers
def test_the_lock_is_held_while_stepping_and_free_while_waiting(drive: Any) -> None:
    owner: list[int | None] = []

    class Lock:
        def __init__(self) -> None:
            self.real = threading.RLock()
            self.depth = 0

        def __enter__(self) -> Self:
            self.real.acquire()
            self.depth += 1
            return self

        def __exit__(self, *_: object) -> None:
            self.depth -= 1
            self.real.release()

    lock = Lock()
    pending: Pending[None] = Pending()

    async def algorithm() -> None:
        owner.append(lock.depth)
        await pending
        owner.append(lock.depth)

    def resolve() -> None:
        with lock:
            owner.append(lock.depth)
            pending.resolve(None)

    timer = threading.Timer(0.02, resolve)
    timer.start()
    drive(algorithm(), lock)
    timer.join()
    assert owner == [1, 1, 1], "stepped under it, and another thread got it meanwhile"


@drivers
def test_steps_are_atomic(drive: Any, lock: Any) -> None:
    """Two algorithms that each read, compute and write between awaits lose no update."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    total = {"value": 0}
    rounds, workers = 200, 4

    async def add() -> None:
        for _ in range(rounds):
            value = total["value"]
            for _ in range(20):
                pass
            total["value"] = value + 1
            await first_of(until=now())

    errors: list[BaseException] = []

    def work() -> None:
        try:
            drive(add(), lock)
        except BaseException as error:  # noqa: BLE001 - told by the test
            errors.append(error)

    try:
        threads = [threading.Thread(target=work, daemon=True) for _ in range(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    finally:
        sys.setswitchinterval(interval)
    assert not errors
    assert total["value"] == rounds * workers


def test_an_error_keeps_no_traceback_of_another_algorithm(lock: Any) -> None:
    failed: Pending[None] = Pending()
    failed.fail(ValueError("shared"))

    async def algorithm() -> None:
        await failed

    lengths = []
    for _ in range(3):
        with pytest.raises(ValueError, match="shared") as caught:
            run_blocking(algorithm(), lock, now)
        lengths.append(len(list(_frames(caught.value))))
    assert len(set(lengths)) == 1


def _frames(error: BaseException) -> Iterator[Any]:
    traceback = error.__traceback__
    while traceback is not None:
        yield traceback
        traceback = traceback.tb_next


# --- interrupts ----------------------------------------------------------------------


class _InterruptingLock:
    """Raises at the n-th time that the driver takes it, before or after, or as it lets go of it."""

    def __init__(self, nth: int, where: str) -> None:
        self.real = threading.RLock()
        self.nth = nth
        self.where = where
        self.times = 0

    def __enter__(self) -> Self:
        self.times += 1
        if (self.times, self.where) == (self.nth, "before"):
            raise Interrupted
        self.real.acquire()
        if (self.times, self.where) == (self.nth, "after"):
            self.real.release()
            raise Interrupted
        return self

    def __exit__(self, *_: object) -> None:
        self.real.release()
        if (self.times, self.where) == (self.nth, "leaving"):
            raise Interrupted


@pytest.mark.parametrize("where", ["before", "after", "leaving"])
@pytest.mark.parametrize("nth", [1, 2, 3])
def test_an_interrupt_between_the_steps_reaches_the_algorithm(nth: int, where: str) -> None:
    """A signal arrives at any bytecode, not only while waiting: the clean-up must run at once all the same."""
    lock = _InterruptingLock(nth, where)
    log: list[str] = []

    async def algorithm() -> None:
        log.append("begun")
        try:
            for _ in range(3):
                await first_of(until=now() + 0.001)
        finally:
            log.append("clean-up")
            await first_of(until=now() + 0.001)
            log.append("clean")

    with pytest.raises(Interrupted) as caught:
        run_blocking(algorithm(), lock, now)
    # `caught` holds the traceback, as a program does that goes on in its `except` block.
    assert log in ([], ["begun", "clean-up", "clean"]), f"{log} while {caught.value!r} is handled"


def test_an_interrupt_while_waiting_is_thrown_in(lock: Any) -> None:
    log: list[str] = []

    def clock() -> float:
        # Asked while the driver waits, in the waiting thread: where a signal's handler runs, too.
        if "waiting" in log and "clean-up" not in log:
            raise Interrupted
        return now()

    async def algorithm() -> None:
        try:
            log.append("waiting")
            await first_of(Pending(), until=now() + 30)
        except Interrupted:
            log.append("clean-up")
            await first_of(Pending(), until=now() + 0.001)
            log.append("clean")
            raise

    with pytest.raises(Interrupted):
        run_blocking(algorithm(), lock, clock)
    assert log == ["waiting", "clean-up", "clean"]


def test_an_algorithm_may_answer_an_interrupt(lock: Any) -> None:
    interrupted = False

    def clock() -> float:
        nonlocal interrupted
        if not interrupted:
            interrupted = True
            raise Interrupted
        return now()

    async def algorithm() -> str:
        try:
            await first_of(Pending(), until=now() + 30)
        except Interrupted:
            return "answered"
        return "never interrupted"

    assert run_blocking(algorithm(), lock, clock) == "answered"


def test_a_blocking_verb_refuses_to_stop_an_event_loop(lock: Any) -> None:
    async def algorithm() -> None:
        pass

    async def main() -> None:
        coroutine = algorithm()
        try:
            with pytest.raises(RuntimeError, match=r"zkrecipes\.aio"):
                run_blocking(coroutine, lock, now)
        finally:
            coroutine.close()

    asyncio.run(main())


def test_a_refused_blocking_verb_leaves_no_coroutine_behind(lock: Any, recwarn: pytest.WarningsRecorder) -> None:
    """It must be closed by whoever refuses it: a "never awaited" warning would come from our code, not the user's."""

    async def algorithm() -> None:
        pass

    async def main() -> None:
        with pytest.raises(RuntimeError, match="event loop"):
            run_blocking(algorithm(), lock, now)

    asyncio.run(main())
    gc.collect()
    assert [str(warning.message) for warning in recwarn if "never awaited" in str(warning.message)] == []


# --- asyncio ----------------------------------------------------------------------


def test_cancellation_is_thrown_in_and_clean_up_may_wait(lock: Any) -> None:
    log: list[str] = []

    async def algorithm() -> None:
        try:
            await Pending()
        except asyncio.CancelledError:
            log.append("clean-up")
            await first_of(Pending(), until=now() + 0.02)
            log.append("clean")
            raise

    async def main() -> None:
        task = asyncio.create_task(run_async(algorithm(), lock, now))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert log == ["clean-up", "clean"]


def test_cancellation_twice_interrupts_the_clean_up(lock: Any) -> None:
    log: list[str] = []

    async def algorithm() -> None:
        try:
            await Pending()
        except asyncio.CancelledError:
            try:
                await Pending()
            except asyncio.CancelledError:
                log.append("twice")
                raise

    async def main() -> None:
        task = asyncio.create_task(run_async(algorithm(), lock, now))
        for _ in range(2):
            await asyncio.sleep(0.005)
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert log == ["twice"]


def test_an_answer_after_the_loop_has_ended_harms_nobody(lock: Any) -> None:
    pending: Pending[None] = Pending()

    async def algorithm() -> None:
        await pending

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(run_async(algorithm(), lock, now), 0.01)

    asyncio.run(main())
    with lock:
        pending.resolve(None)


# --- many by turns ----------------------------------------------------------------------


class _Clock:
    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


def test_tasks_run_by_turns_in_order_and_by_time() -> None:
    clock = _Clock()
    log: list[str] = []
    tasks = Tasks(clock, lambda: None)

    async def algorithm(name: str, *pauses: float) -> str:
        for pause in pauses:
            log.append(f"{name} at {clock.time:g}")
            await first_of(until=clock.time + pause)
        return name

    done = [tasks.spawn(algorithm("a", 2.0, 2.0), "a"), tasks.spawn(algorithm("b", 1.0, 2.0), "b")]
    assert tasks.next_time() == -math.inf
    tasks.step_ready()
    assert tasks.names() == ["a", "b"]
    while not all(pending.done for pending in done):
        clock.time = max(clock.time, tasks.next_time())
        tasks.step_ready()
    assert log == ["a at 0", "b at 0", "b at 1", "a at 2"]
    assert [pending.result() for pending in done] == ["a", "b"]
    assert tasks.names() == []
    assert tasks.next_time() == math.inf


def test_a_task_that_is_begun_takes_its_first_step_at_once_and_the_others_by_turns() -> None:
    log: list[str] = []
    ready: list[bool] = []
    tasks = Tasks(_Clock(), lambda: ready.append(True))
    awaited = Pending[None]()

    async def algorithm() -> str:
        log.append("first")
        await awaited
        log.append("second")
        return "done"

    done = tasks.begin(algorithm(), "a")
    assert log == ["first"]
    assert not ready, "nobody has to be told to step it"
    awaited.resolve(None)
    assert log == ["first"]
    tasks.step_ready()
    assert log == ["first", "second"]
    assert done.result() == "done"


def test_a_task_that_fails_ends_alone(caplog: pytest.LogCaptureFixture) -> None:
    tasks = Tasks(_Clock(), lambda: None)

    async def bad() -> None:
        message = "broken"
        raise ValueError(message)

    async def good() -> int:
        return 1

    failed, done = tasks.spawn(bad(), "the bad one"), tasks.spawn(good(), "the good one")
    tasks.step_ready()
    assert done.result() == 1
    assert isinstance(failed.error, ValueError)
    assert "the bad one" in caplog.text


def test_a_timer_that_is_overtaken_does_not_wake_later() -> None:
    clock = _Clock()
    tasks = Tasks(clock, lambda: None)
    pending: Pending[None] = Pending()
    woken: list[float] = []

    async def algorithm() -> None:
        await first_of(pending, until=5.0)
        woken.append(clock.time)
        await first_of(until=50.0)
        woken.append(clock.time)

    tasks.spawn(algorithm(), "one")
    tasks.step_ready()
    pending.resolve(None)
    tasks.step_ready()
    clock.time = 5.0
    tasks.step_ready()
    assert woken == [0.0]
    assert tasks.next_time() == 50.0


# --- pendings ----------------------------------------------------------------------


def test_waits_that_ended_before_their_time_do_not_pile_up() -> None:
    tasks = Tasks(_Clock(), lambda: None)
    bell: list[Pending[None]] = [Pending()]

    async def wait_long() -> None:
        while True:
            await first_of(bell[0], until=3600.0)

    tasks.spawn(wait_long(), "waits long")
    for _ in range(1000):
        tasks.step_ready()
        rung, bell[0] = bell[0], Pending()
        rung.resolve(None)
    assert len(tasks._timers) < 100
    tasks.step_ready()
    assert tasks.next_time() == 3600.0


def test_a_pending_is_done_once() -> None:
    pending: Pending[int] = Pending()
    calls: list[int] = []
    pending.add_waiter(lambda: calls.append(1))
    pending.resolve(1)
    pending.resolve(2)
    pending.fail(ValueError())
    pending.add_waiter(lambda: calls.append(2))
    assert pending.result() == 1
    assert not pending.failed
    assert calls == [1, 2]


def test_a_collected_algorithm_runs_its_finally(lock: Any) -> None:
    log: list[str] = []

    async def algorithm() -> None:
        try:
            await Pending()
        finally:
            log.append("closed")

    tasks = Tasks(now, lambda: None)
    tasks.spawn(algorithm(), "one")
    tasks.step_ready()
    del tasks
    gc.collect()
    assert log == ["closed"]


def test_gates_open_across_threads_under_load(lock: Any) -> None:
    """A thousand waits, resolved by another thread just before, while or just after the waiter goes to sleep."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    current: list[Pending[None]] = []
    stop = threading.Event()

    def resolver() -> None:
        while not stop.is_set():
            with lock:
                while current:
                    current.pop().resolve(None)

    async def algorithm() -> int:
        for count in range(1000):
            pending: Pending[None] = Pending()
            current.append(pending)
            if await first_of(pending, until=now() + 10.0) is None:
                return count
        return 1000

    thread = threading.Thread(target=resolver, daemon=True)
    thread.start()
    try:
        assert run_blocking(algorithm(), lock, now) == 1000
    finally:
        stop.set()
        thread.join(5)
        sys.setswitchinterval(interval)
    wait_until(lambda: not thread.is_alive())
