"""What Counter, SharedValue and IdGenerator promise whoever calls them, in threads and under asyncio alike."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

import pytest

import zkrecipes as zkr
import zkrecipes.aio as zkr_aio
from tests.contracts.subjects import DRIVERS, LIMIT, Later, Loop
from zkrecipes.testing import FaultProxy, Server, wait_until

PATH: Final = "/stock/orders"
LATE: Final = 0.3


class Desk:
    """A client with recipes on it. Its verbs block; those of asyncio run on an event loop in another thread."""

    def __init__(self, driver: str, hosts: str, namespace: str) -> None:
        self.loop = Loop() if driver == "asyncio" else None
        self.module: Any = zkr if self.loop is None else zkr_aio
        self.client = self.do(lambda: self.module.connect(hosts, namespace=namespace, session_timeout=10.0))

    def do(self, call: Callable[[], Any]) -> Any:
        return call() if self.loop is None else self.loop.do(call)

    def make(self, name: str, path: Any = PATH, **options: Any) -> Any:
        return self.do(lambda: getattr(self.module, name)(self.client, path, **options))

    def verbs(self) -> dict[str, Callable[..., Any]]:
        """Every verb that talks to the server, with its timeout as the only argument."""
        counter = self.make("Counter")
        value = self.make("SharedValue", "/stock/value", codec=zkr.IntCodec(), initial=1)
        known: Any = zkr.Versioned(1, 0, 1)
        ids = self.make("IdGenerator", "/stock/ids", block=1)
        calls: dict[str, Callable[..., Any]] = {
            "add": counter.add,
            "value": counter.value,
            "set": lambda **timeout: counter.set(5, **timeout),
            "compare_and_set": lambda **timeout: counter.compare_and_set(0, 1, **timeout),
            "SharedValue.get": value.get,
            "SharedValue.set": lambda **timeout: value.set(5, **timeout),
            "SharedValue.compare_and_set": lambda **timeout: value.compare_and_set(known, 1, **timeout),
            "SharedValue.update": lambda **timeout: value.update(lambda number: number + 1, **timeout),
            "IdGenerator.next": ids.next,
        }
        return {name: lambda call=call, **timeout: self.do(lambda: call(**timeout)) for name, call in calls.items()}

    def close(self) -> None:
        self.do(self.client.close)
        if self.loop is not None:
            self.loop.close()


VERBS: Final = (
    "add",
    "value",
    "set",
    "compare_and_set",
    "SharedValue.get",
    "SharedValue.set",
    "SharedValue.compare_and_set",
    "SharedValue.update",
    "IdGenerator.next",
)


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def desk(driver: str, zkr_proxy: FaultProxy, zkr_namespace: str) -> Iterator[Desk]:
    """A client behind `zkr_proxy`."""
    desk = Desk(driver, zkr_proxy.hosts, zkr_namespace)
    yield desk
    zkr_proxy.heal()
    desk.close()


@pytest.fixture
def other(zkr_server: Server, zkr_namespace: str) -> Iterator[zkr.Client]:
    """A client that no fault of the proxy touches."""
    with zkr.connect(zkr_server.hosts, namespace=zkr_namespace) as client:
        yield client


def _timed(call: Callable[[], object]) -> tuple[BaseException | None, float]:
    began = time.monotonic()
    try:
        call()
    except Exception as error:  # noqa: BLE001 - the test looks at it
        return error, time.monotonic() - began
    return None, time.monotonic() - began


def _disconnect(desk: Desk, proxy: FaultProxy) -> None:
    proxy.refuse()
    proxy.cut()
    wait_until(lambda: desk.client.state is not zkr.State.CONNECTED, LIMIT, "the connection is gone")


@pytest.mark.serial
@pytest.mark.parametrize("verb", VERBS)
def test_in_an_outage_each_verb_ends_at_its_deadline_and_nothing_is_written(
    desk: Desk, zkr_proxy: FaultProxy, other: zkr.Client, verb: str
) -> None:
    _disconnect(desk, zkr_proxy)
    error, seconds = _timed(lambda: desk.verbs()[verb](timeout=0.5))
    assert isinstance(error, zkr.UnavailableError)
    assert 0.5 <= seconds < 0.5 + LATE
    zkr_proxy.heal()
    wait_until(lambda: desk.client.state is zkr.State.CONNECTED, LIMIT, "connected again")
    assert desk.do(lambda: desk.client.exists("/")) is not None
    if verb != "IdGenerator.next":  # a block that is reserved in vain is a gap, which is allowed
        assert other.exists("/stock") is None


@pytest.mark.parametrize("verb", VERBS)
def test_without_patience_a_verb_fails_at_once_in_an_outage(desk: Desk, zkr_proxy: FaultProxy, verb: str) -> None:
    _disconnect(desk, zkr_proxy)
    error, seconds = _timed(lambda: desk.verbs()[verb](timeout=0))
    assert isinstance(error, zkr.UnavailableError)
    assert seconds < LATE


@pytest.mark.parametrize("verb", [verb for verb in VERBS if not verb.endswith("compare_and_set")])
def test_without_patience_a_verb_has_one_flight(desk: Desk, verb: str) -> None:
    verbs = desk.verbs()
    verbs[verb](timeout=LIMIT)  # nodes are made, and marks
    assert _timed(lambda: verbs[verb](timeout=0))[0] is None


@pytest.mark.serial
def test_an_add_that_gets_no_reply_is_unknown_at_its_deadline_and_counted_once_at_most(
    desk: Desk, zkr_proxy: FaultProxy, other: zkr.Client
) -> None:
    counter = desk.make("Counter")
    assert desk.do(counter.add) == 1
    zkr_proxy.blackhole("to_client")
    error, seconds = _timed(lambda: desk.do(lambda: counter.add(10, timeout=0.5)))
    assert isinstance(error, zkr.OutcomeUnknownError)
    assert error.path == PATH
    assert seconds < 0.5 + LATE
    assert zkr.Counter(other, PATH).value() == 11
    zkr_proxy.heal()
    assert desk.do(lambda: counter.add(100, timeout=LIMIT)) == 111
    assert zkr.Counter(other, PATH).value() == 111


def test_a_lost_reply_is_counted_once(desk: Desk, zkr_proxy: FaultProxy, other: zkr.Client) -> None:
    counter = desk.make("Counter")
    desk.do(counter.add)
    trap = zkr_proxy.drop_reply("multi")
    assert desk.do(lambda: counter.add(10)) == 11
    trap.wait()
    assert zkr.Counter(other, PATH).value() == 11


def test_adds_that_wait_behind_a_lost_reply_are_all_counted(
    desk: Desk, zkr_proxy: FaultProxy, other: zkr.Client
) -> None:
    counter = desk.make("Counter")
    desk.do(counter.add)
    zkr_proxy.drop_reply("multi")
    adds = [Later(lambda: desk.do(lambda: counter.add(timeout=LIMIT))) for _ in range(8)]
    assert sorted(add.result() for add in adds) == list(range(2, 10))
    assert zkr.Counter(other, PATH).value() == 9


def test_a_short_deadline_ends_no_other_add(desk: Desk, zkr_proxy: FaultProxy) -> None:
    """They travel in one write: who has no more time goes, the others get their values."""
    counter = desk.make("Counter")
    desk.do(counter.add)
    gate = zkr_proxy.hold_reply("multi")
    first = Later(lambda: desk.do(lambda: counter.add(timeout=0.3)))
    gate.wait_held()
    patient = Later(lambda: desk.do(lambda: counter.add(10, timeout=LIMIT)))
    first.wait()
    assert isinstance(first.error, zkr.OutcomeUnknownError)
    gate.release()
    assert patient.result() == 12


@pytest.mark.parametrize("verb", VERBS)
def test_a_closed_client_says_so(desk: Desk, verb: str) -> None:
    verbs = desk.verbs()
    desk.do(desk.client.close)
    with pytest.raises(zkr.ClosedError):
        verbs[verb]()


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(("timeout", "error"), [(-1.0, ValueError), (math.nan, ValueError), ("5", TypeError)])
def test_a_bad_timeout(desk: Desk, verb: str, timeout: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="timeout must be"):
        desk.verbs()[verb](timeout=timeout)


@pytest.mark.parametrize("name", ["Counter", "SharedValue", "IdGenerator"])
@pytest.mark.parametrize("path", ["", "stock", "/", "/stock/", "/a//b"])
def test_a_bad_path_is_refused_before_anything_is_sent(desk: Desk, name: str, path: str) -> None:
    options = {"initial": b""} if name == "SharedValue" else {}
    with pytest.raises(ValueError, match="path"):
        desk.make(name, path, **options)


@pytest.mark.parametrize("number", [1.0, "1", None, True])
def test_what_is_no_number_is_refused(desk: Desk, other: zkr.Client, number: Any) -> None:
    counter = desk.make("Counter")
    for call in (
        lambda: counter.add(number),
        lambda: counter.set(number),
        lambda: counter.compare_and_set(number, 1),
        lambda: counter.compare_and_set(0, number),
    ):
        with pytest.raises(TypeError, match="must be an int"):
            desk.do(call)
    assert other.exists("/stock") is None


def test_other_bad_arguments(desk: Desk) -> None:
    with pytest.raises(ValueError, match="layout must be one of"):
        desk.make("Counter", layout="int16")
    with pytest.raises(TypeError, match="codec must have encode"):
        desk.make("SharedValue", codec=zkr.TextCodec, initial="")
    with pytest.raises(TypeError, match="value must be a str"):
        desk.make("SharedValue", codec=zkr.TextCodec(), initial=1)
    value = desk.make("SharedValue", initial=b"")
    with pytest.raises(TypeError, match="expected must be what get"):
        desk.do(lambda: value.compare_and_set(b"", b"x"))
    with pytest.raises(TypeError, match="function must be callable"):
        desk.do(lambda: value.update(b"x"))


def test_the_wrong_kind_of_client_is_refused(desk: Desk) -> None:
    wrong: Any = zkr_aio if desk.module is zkr else zkr
    options: dict[str, Any]
    for name, options in (("Counter", {}), ("SharedValue", {"initial": b""}), ("IdGenerator", {})):
        with pytest.raises(TypeError):
            desk.do(partial(getattr(wrong, name), desk.client, PATH, **options))


def test_callbacks_one_that_raises_harms_no_other_and_may_use_the_recipe(desk: Desk) -> None:
    counter = desk.make("Counter")
    desk.do(counter.add)
    told: list[int] = []

    def broken(_change: object) -> None:
        message = "on purpose"
        raise ValueError(message)

    registrations = [desk.do(partial(counter.on_change, callback)) for callback in (broken, _append(told))]
    wait_until(lambda: bool(told) or desk.do(counter.add) < 0, LIMIT, lambda: "no change was told")
    for registration in registrations:
        desk.do(registration.cancel)
        desk.do(registration.cancel)
    with pytest.raises(TypeError, match="callable"):
        desk.do(lambda: counter.on_change(5))
    with pytest.raises(TypeError, match="plain function"):
        desk.do(lambda: counter.on_change(asyncio.sleep))


def _append(told: list[int]) -> Callable[[zkr.ValueChange[int]], None]:
    return lambda change: told.append(change.new)


def test_changes_come_again_after_an_outage(desk: Desk, zkr_proxy: FaultProxy, other: zkr.Client) -> None:
    counter = desk.make("Counter")
    changes: list[zkr.ValueChange[int]] = []
    desk.do(lambda: counter.on_change(changes.append))
    wait_until(lambda: bool(changes) or desk.do(counter.add) < 0, LIMIT, lambda: "no change was told")
    _disconnect(desk, zkr_proxy)
    value = zkr.Counter(other, PATH).add(1000)
    zkr_proxy.heal()
    wait_until(lambda: changes[-1].new == value, LIMIT, lambda: f"told: {changes}")
    assert all(one.new == two.old for one, two in itertools.pairwise(changes))


def test_what_is_left_of_a_block_is_given_out_in_an_outage(desk: Desk, zkr_proxy: FaultProxy) -> None:
    ids = desk.make("IdGenerator", block=10)
    assert desk.do(ids.next) == 1
    _disconnect(desk, zkr_proxy)
    assert [desk.do(ids.next) for _ in range(9)] == list(range(2, 11))
    with pytest.raises(zkr.UnavailableError):  # the next block may have come before the outage
        list(map(desk.do, [partial(ids.next, timeout=0.2)] * 11))
    zkr_proxy.heal()
    assert desk.do(lambda: ids.next(timeout=LIMIT)) > 10


def test_a_cancelled_add_stops_nobody(zkr_proxy: FaultProxy, zkr_namespace: str, other: zkr.Client) -> None:
    async def main() -> None:
        async with zkr_aio.connect(zkr_proxy.hosts, namespace=zkr_namespace) as zk:
            counter = zkr_aio.Counter(zk, PATH)
            await counter.add()
            gate = zkr_proxy.hold_reply("multi")
            leader = asyncio.create_task(counter.add(10))
            await asyncio.to_thread(gate.wait_held)
            waiting, others = (
                asyncio.create_task(counter.add(1000)),
                [asyncio.create_task(counter.add(100)) for _ in "123"],
            )
            await asyncio.sleep(0)
            for task in (leader, waiting):
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            gate.release()
            assert [await task for task in others] == [111, 211, 311]
            assert await counter.add() == 312

    asyncio.run(main())
    # The one under way was counted; the one that waited was not.
    assert zkr.Counter(other, PATH).value() == 312
