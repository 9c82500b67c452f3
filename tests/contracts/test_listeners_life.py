"""Listeners: start, wait, iterate, close; outages, lost sessions, permissions. The same for all drivers and watches."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import zkrecipes as zkr
from tests.contracts.hall import ENDED, Gardener, Hall, Iteration, Setting
from tests.contracts.subjects import Later
from tests.leftovers import Leftovers
from tests.listening import Record, replayed
from zkrecipes import rounds
from zkrecipes.testing import FaultProxy, Server, wait_until

TREE = {"/t": b"root", "/t/a": b"1", "/t/a/x": b"2", "/t/b": b""}
KINDS = ("nodes", "children", "tree")


def _watched(server: Server, namespace: str) -> list[str]:
    """The paths below a namespace on which the server keeps watches."""
    return [line for line in server.command("wchp").splitlines() if line.startswith(namespace)]


def _values(snapshot: Any) -> dict[str, Any]:
    return {path: node.value for path, node in snapshot.items()}


# --- closing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_close(hall: Hall, gardener: Gardener, zkr_server: Server, kind: str) -> None:
    """J7: nothing is told any more, the server keeps no watch, and a second close does no harm."""
    gardener.plant(TREE)
    listener = getattr(hall, kind)("/t")
    record = Record(listener)
    hall.start(listener)
    record.wait_for("initialized")
    assert _watched(zkr_server, gardener.namespace)
    assert not listener.closed
    hall.close_listener(listener)
    hall.close_listener(listener)
    assert listener.closed
    assert not listener.fresh
    record.clear()
    if hall.setting.watches != "public":  # kazoo's public API removes no watches: they go when they fire
        wait_until(lambda: not _watched(zkr_server, gardener.namespace), 5.0, lambda: zkr_server.command("wchp"))
    assert not hall.watches._feeds
    assert not hall.watches._waiting
    beside = hall.start(hall.nodes("/t/a"))
    gardener.set("/t/a", b"9")
    hall.wait_for(beside, lambda nodes: nodes["/t/a"].value == b"9")
    assert record.told == []
    calls: list[Callable[[], object]] = [
        lambda: hall.start(listener),
        lambda: hall.wait_for(listener, lambda _: True),
        lambda: listener.on_created(print),
    ]
    for call in calls:
        with pytest.raises(zkr.ClosedError, match="make a new one"):
            call()
    assert Iteration(hall, listener).next() is ENDED


def test_close_before_the_start(hall: Hall) -> None:
    """J21: it ends at once, and cannot be started any more."""
    tree = hall.tree("/t")
    hall.close_listener(tree)
    with pytest.raises(zkr.ClosedError):
        hall.start(tree)
    assert tree.snapshot() == {}


def test_the_client_is_closed_while_it_listens(hall: Hall, gardener: Gardener) -> None:
    """J21: iterations end, waits raise, nothing goes in circles."""
    gardener.plant(TREE)
    left = Leftovers()
    tree = hall.start(hall.tree("/t"))
    iteration = Iteration(hall, tree)
    for _ in TREE:
        iteration.next()
    blocked = iteration.later()
    waiting = Later(lambda: hall.wait_for(tree, lambda _: False, 20.0))
    wait_until(lambda: tree._state.mirror.changed._waiters, 5.0, "it waits")
    hall.do(hall.client.close)
    assert blocked.result(5.0) is ENDED
    with pytest.raises(zkr.ClosedError):
        waiting.result(5.0)
    assert not tree.fresh
    with pytest.raises(zkr.ClosedError):
        hall.start(hall.tree("/t"))
    hall.close_listener(tree)
    if hall.setting.driver == "threads":  # the test's own event loop keeps threads of its own
        left.none(files=False)


def test_the_client_is_closed_while_it_starts(hall: Hall, zkr_proxy: FaultProxy, gardener: Gardener) -> None:
    """J21."""
    gardener.plant(TREE)
    gate = zkr_proxy.hold_reply({"addWatch", "any children", "getData"})
    starting = Later(lambda: hall.start(hall.tree("/t")))
    gate.wait_held()
    hall.do(hall.client.close)
    with pytest.raises(zkr.ClosedError):
        starting.result(5.0)
    gate.release()


def test_with(hall: Hall, gardener: Gardener) -> None:
    gardener.plant(TREE)
    tree = hall.tree("/t")
    inside: list[Any] = []
    hall.inside(tree, lambda: inside.append(_values(tree.snapshot())))
    assert inside == [TREE]
    assert tree.closed


def test_close_from_within_a_callback(hall: Hall, gardener: Gardener) -> None:
    """It waits for nothing that waits for the callback."""
    gardener.plant(TREE)
    tree = hall.tree("/t")
    ended: list[Any] = []

    def close(_change: object) -> None:
        outcome = tree.close()
        ended.append(outcome)

    async def close_later() -> None:
        await tree.close()
        ended.append(None)

    if hall.setting.driver == "threads":
        tree.on_changed(close)
    else:
        import asyncio  # noqa: PLC0415 - here alone

        tree.on_changed(lambda _change: tasks.append(asyncio.ensure_future(close_later())))
    tasks: list[Any] = []
    after = Record(tree)
    hall.start(tree)
    after.wait_for("initialized")
    gardener.set("/t", b"9")
    wait_until(lambda: ended, 5.0, "close has returned")
    assert tree.closed
    gardener.set("/t", b"10")
    hall.start(hall.nodes("/t"))
    assert ("changed", "/t", b"9", b"10") not in after.told


# --- iteration --------------------------------------------------------------------------------------------------------


def test_iteration(hall: Hall, gardener: Gardener) -> None:
    """What is there comes first, also to one that begins late; then what changes."""
    gardener.plant(TREE)
    tree = hall.tree("/t")
    early = Iteration(hall, tree)
    hall.start(tree)
    late = Iteration(hall, tree)
    for iteration in (early, late):
        changes = [iteration.next() for _ in TREE]
        assert replayed(changes) == TREE
        assert {change.kind for change in changes} == {zkr.EventKind.CREATED}
    gardener.set("/t/a", b"9")
    for iteration in (early, late):
        change = iteration.next()
        assert (change.kind, change.path, change.old, change.new) == (zkr.EventKind.CHANGED, "/t/a", b"1", b"9")
    early.close()
    assert early.next() is ENDED
    gardener.delete("/t/b")
    change = late.next()
    assert (change.kind, change.path, change.old, change.new) == (zkr.EventKind.DELETED, "/t/b", b"", None)
    hall.close_listener(tree)
    assert late.next() is ENDED
    assert late.next() is ENDED


def test_an_iteration_that_is_slow_is_told_the_newest(hall: Hall, gardener: Gardener) -> None:
    """Changes of one node are merged: it is behind by nodes, not by changes."""
    gardener.plant({"/n": b"0"})
    nodes = hall.start(hall.nodes("/n"))
    iteration = Iteration(hall, nodes)
    iteration.next()
    for number in range(1, 51):
        gardener.set("/n", b"%d" % number)
    hall.wait_for(nodes, lambda state: state["/n"].value == b"50")
    change = iteration.next()
    assert (change.kind, change.old, change.new) == (zkr.EventKind.CHANGED, b"0", b"50")
    gardener.delete("/n")
    hall.wait_for(nodes, lambda state: not state)
    gardener.create("/n", b"again")
    hall.wait_for(nodes, bool)
    gardener.delete("/n")
    hall.wait_for(nodes, lambda state: not state)
    assert iteration.next().kind is zkr.EventKind.DELETED


@pytest.mark.parametrize("end", ["listener", "iteration"])
def test_closing_ends_an_iteration_that_waits(hall: Hall, end: str) -> None:
    tree = hall.start(hall.tree("/t"))
    iteration = Iteration(hall, tree)
    blocked = iteration.later()
    wait_until(lambda: tree._state.mirror.closed._waiters and len(tree._state.mirror.closed._waiters) > 1, 5.0)
    if end == "listener":
        hall.close_listener(tree)
    else:
        iteration.close()
    assert blocked.result(5.0) is ENDED


def test_iteration_leaves_out_what_does_not_decode(hall: Hall, gardener: Gardener) -> None:
    gardener.plant({"/c": b"1", "/d": b"bad"})
    nodes = hall.nodes("/c", "/d", codec=zkr.IntCodec())
    record = Record(nodes)
    hall.start(nodes)
    iteration = Iteration(hall, nodes)
    assert iteration.next().path == "/c"
    # Iterations and callbacks are told apart from one another, so the error may come a moment later.
    wait_until(lambda: len(record.errors) == 1, 5.0)
    later = iteration.later()
    gardener.set("/d", b"2")
    change = later.result()
    assert (change.kind, change.path, change.old, change.new) == (zkr.EventKind.CREATED, "/d", None, 2)


# --- waiting ----------------------------------------------------------------------------------------------------------


def test_wait_for(hall: Hall, gardener: Gardener) -> None:
    """True at once, and later."""
    gardener.plant(TREE)
    tree = hall.start(hall.tree("/t"))
    began = time.monotonic()
    assert _values(hall.wait_for(tree, lambda nodes: len(nodes) == 4)) == TREE
    assert time.monotonic() - began < 1.0
    waiting = Later(lambda: hall.wait_for(tree, lambda nodes: "/t/c" in nodes))
    gardener.create("/t/c", b"3")
    assert waiting.result()["/t/c"].value == b"3"
    assert hall.wait_for(tree, bool, 0.0)


def test_wait_for_in_vain(hall: Hall) -> None:
    tree = hall.start(hall.tree("/t"))
    for timeout in (0.0, 0.3):
        began = time.monotonic()
        with pytest.raises(zkr.AcquireTimeoutError, match="/t"):
            hall.wait_for(tree, bool, timeout)
        assert timeout <= time.monotonic() - began < timeout + 1.0
    waiting = Later(lambda: hall.wait_for(tree, bool, 20.0))
    wait_until(lambda: tree._state.mirror.changed._waiters, 5.0, "it waits")
    hall.close_listener(tree)
    with pytest.raises(zkr.ClosedError, match="closed"):
        waiting.result(5.0)


def test_what_was_not_started(hall: Hall) -> None:
    """It would wait for ever."""
    tree = hall.tree("/t")
    assert tree.snapshot() == {}
    assert tree.get("/t") is None
    with pytest.raises(zkr.ClosedError, match="has not been started"):
        hall.wait_for(tree, bool, 5.0)
    with pytest.raises(zkr.ClosedError, match="has not been started"):
        Iteration(hall, tree).next()


def test_wait_for_raises_what_the_predicate_raises(hall: Hall) -> None:
    tree = hall.start(hall.tree("/t"))

    def wrong(_nodes: object) -> bool:
        raise LookupError

    with pytest.raises(LookupError):
        hall.wait_for(tree, wrong)
    assert hall.wait_for(tree, lambda nodes: not nodes) == {}


# --- outages ----------------------------------------------------------------------------------------------------------


@pytest.mark.serial
def test_starting_and_waiting_in_an_outage(hall: Hall, zkr_proxy: FaultProxy) -> None:
    """The deadline is kept; a listener whose start has failed is closed, and leaves nothing."""
    tree = hall.start(hall.tree("/t"))
    zkr_proxy.refuse()
    wait_until(lambda: not tree.fresh, 5.0, "the connection is gone")
    late = hall.tree("/t")
    calls: list[Callable[[], object]] = [
        lambda: hall.start(late, 0.5),
        lambda: hall.wait_for(tree, bool, 0.5),
    ]
    for call in calls:
        began = time.monotonic()
        with pytest.raises(zkr.UnavailableError, match="no ZooKeeper server answered"):
            call()
        assert 0.49 <= time.monotonic() - began < 0.5 + 0.2
    assert late.closed
    assert not tree.closed
    zkr_proxy.heal()
    wait_until(lambda: tree.fresh, 15.0, "it is fresh again")
    assert list(hall.watches._feeds.values()) in ([], [[tree._state.mirror._told]])


def test_an_outage_tells_stale_and_fresh_and_only_what_has_changed(
    hall: Hall, zkr_proxy: FaultProxy, gardener: Gardener
) -> None:
    """J17, J10, J10b: also what looks the same as before by its version, cversion and bytes."""
    gardener.plant({**TREE, "/t/p": b"", "/t/p/one": b"", "/t/same": b"x"})
    tree, nodes, children = hall.tree("/t"), hall.nodes("/t/same", "/t/a", "/none"), hall.children("/t/p")
    listeners = [tree, nodes, children]
    records = [Record(listener) for listener in listeners]
    for listener, record in zip(listeners, records, strict=True):
        hall.start(listener)
        record.wait_for("initialized")
        record.clear()
    before = {path: gardener.get(path).stat for path in ("/t/p", "/t/same")}
    zkr_proxy.refuse()
    for record in records:
        record.wait_for("stale")
    assert not any(listener.fresh for listener in listeners)
    assert _values(tree.snapshot()).keys() == {*TREE, "/t/p", "/t/p/one", "/t/same"}, "what was known is shown still"
    gardener.replant(["/t/same"], {"/t/same": b"x"})
    gardener.replant(["/t/p", "/t/p/one"], {"/t/p": b"", "/t/p/other": b""})
    gardener.set("/t/a", b"9")
    gardener.delete("/t/b")
    gardener.plant({"/t/new": b"", "/none": b"now"})
    for path, stat in before.items():
        now = gardener.get(path).stat
        assert (now.version, now.cversion) == (stat.version, stat.cversion)
    zkr_proxy.heal()
    for record in records:
        record.wait_for("fresh", limit=15.0)
    same = [("deleted", "/t/same", b"x", None), ("created", "/t/same", None, b"x")]
    child = [("deleted", "/t/p/one", b"", None), ("created", "/t/p/other", None, b"")]
    expected = [
        [
            *same,
            *child,
            ("deleted", "/t/p", b"", None),
            ("created", "/t/p", None, b""),
            ("changed", "/t/a", b"1", b"9"),
            ("deleted", "/t/b", b"", None),
            ("created", "/t/new", None, b""),
        ],
        [*same, ("changed", "/t/a", b"1", b"9"), ("created", "/none", None, b"now")],
        child,
    ]
    for record, changes in zip(records, expected, strict=True):
        assert sorted(record.changes, key=repr) == sorted(changes, key=repr)
        assert record.marks() == ["stale", "fresh"]
        assert record.told[0] == "stale"
        assert record.told[-1] == "fresh"
        assert record.replay.faults == []
        record.clear()
    gardener.set("/t/new", b"7")
    gardener.set("/none", b"7")
    gardener.set("/t/p/other", b"7")
    records[0].wait_for(("changed", "/t/new", b"", b"7"), ("changed", "/t/p/other", b"", b"7"))
    records[1].wait_for(("changed", "/none", b"now", b"7"))
    records[2].wait_for(("changed", "/t/p/other", b"", b"7"))


def test_nothing_is_told_of_what_did_not_change(hall: Hall, zkr_proxy: FaultProxy, gardener: Gardener) -> None:
    gardener.plant(TREE)
    listeners = [hall.tree("/t"), hall.nodes("/t", "/none"), hall.children("/t", data=False)]
    records = [Record(listener) for listener in listeners]
    for listener, record in zip(listeners, records, strict=True):
        hall.start(listener)
        record.wait_for("initialized")
        record.clear()
    for _ in range(2):
        zkr_proxy.refuse()
        for record in records:
            record.wait_for("stale")
        zkr_proxy.heal()
        for record in records:
            record.wait_for("fresh", limit=15.0)
            assert record.told == ["stale", "fresh"]
            record.clear()


def test_a_session_that_is_killed(hall: Hall, zkr_server: Server, zkr_proxy: FaultProxy, gardener: Gardener) -> None:
    """J17, J19: what was missed is told once; own ephemeral nodes are gone."""
    gardener.plant(TREE)
    hall.do(lambda: hall.client.create("/t/mine", kind=zkr.Kind.EPHEMERAL))
    tree, nodes = hall.start(hall.tree("/t")), hall.start(hall.nodes("/t/a"))
    records = [Record(tree), Record(nodes)]
    for record in records:
        record.wait_for("initialized")
    iteration = Iteration(hall, tree)
    assert replayed([iteration.next() for _ in range(5)]).keys() == {*TREE, "/t/mine"}
    session = hall.client.client_id
    zkr_proxy.refuse()
    zkr_server.expire(session)
    gardener.set("/t/a", b"5")
    gardener.set("/t/a", b"6")
    zkr_proxy.heal()
    records[0].wait_for(("changed", "/t/a", b"1", b"6"), ("deleted", "/t/mine", b"", None), limit=15.0)
    records[1].wait_for(("changed", "/t/a", b"1", b"6"), limit=15.0)
    hall.wait_for(tree, lambda snapshot: _values(snapshot) == {**TREE, "/t/a": b"6"})
    wait_until(lambda: tree.fresh and nodes.fresh, 10.0, "fresh again")
    assert [change for change in records[1].changes if change[0] == "changed"] == [("changed", "/t/a", b"1", b"6")]
    missed = [iteration.next() for _ in range(2)]
    assert {(change.kind, change.path) for change in missed} == {
        (zkr.EventKind.CHANGED, "/t/a"),
        (zkr.EventKind.DELETED, "/t/mine"),
    }


# --- permissions ------------------------------------------------------------------------------------------------------


def _set_acl(gardener: Gardener, path: str, perms: int) -> None:
    """Through kazoo: zkrecipes has no verb for it."""
    from kazoo.security import make_acl  # noqa: PLC0415 - here alone

    entries = [make_acl("world", "anyone", all=True)]
    if perms != 31:
        entries = [make_acl("world", "anyone", write=True, create=True, delete=True, admin=True)]
    gardener.client._connection.transport.kazoo.set_acls(gardener.namespace + path, entries)


def test_a_permission_taken_away_and_given_back(hall: Hall, zkr_proxy: FaultProxy, gardener: Gardener) -> None:
    """The last good value stays and the reason is told once; no watch tells that it came back, so it is asked for."""
    gardener.plant(TREE)
    tree, nodes = hall.start(hall.tree("/t")), hall.start(hall.nodes("/t/a"))
    records = [Record(tree), Record(nodes)]
    for record in records:
        record.wait_for("initialized")
    _set_acl(gardener, "/t/a", 30)
    zkr_proxy.cut()
    for record in records:
        wait_until(lambda record=record: record.errors, 10.0, "it is told")  # type: ignore[misc]
    gardener.set("/t/a", b"9")
    for listener in (tree, nodes):
        assert listener.get("/t/a").value == b"1"
        assert listener.snapshot()["/t/a"].value == b"1"
    wait_until(lambda: tree.fresh and nodes.fresh, 10.0, "the others are read")
    gardener.set("/t/b", b"goes on")
    records[0].wait_for(("changed", "/t/b", b"", b"goes on"))
    _set_acl(gardener, "/t/a", 31)
    for record in records:
        record.wait_for(("changed", "/t/a", b"1", b"9"))
        assert [type(error) for error in record.errors] == [zkr.AccessDeniedError]
        assert record.errors[0].path == "/t/a"  # type: ignore[attr-defined]  # of all our errors
    gardener.create("/t/a/new")
    records[0].wait_for(("created", "/t/a/new", None, b""))
    gardener.set("/t/a", b"10")
    for record in records:
        record.wait_for(("changed", "/t/a", b"9", b"10"))


def test_a_change_that_nobody_might_tell_us(hall: Hall, gardener: Gardener, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server tells nothing to who may not read, and yet takes the watch off: so all is looked at now and then."""
    monkeypatch.setattr(rounds, "AUDIT", 0.4)
    gardener.plant(TREE)
    listeners = [hall.tree("/t"), hall.nodes("/t/a")]
    records = [Record(listener) for listener in listeners]
    for listener, record in zip(listeners, records, strict=True):
        hall.start(listener)
        record.wait_for("initialized")
    _set_acl(gardener, "/t/a", 30)
    gardener.set("/t/a", b"9")
    _set_acl(gardener, "/t/a", 31)
    for record in records:
        record.wait_for(("changed", "/t/a", b"1", b"9"))
    gardener.set("/t/a", b"10")
    for record in records:
        record.wait_for(("changed", "/t/a", b"9", b"10"))
        assert record.replay.faults == []


def test_what_may_not_be_read_from_the_start(hall: Hall, gardener: Gardener) -> None:
    """A root: the start fails, and the listener is closed. Below it: the rest is there, and the reason is told."""
    gardener.plant(TREE)
    _set_acl(gardener, "/t/a", 30)
    for root in (hall.nodes("/t", "/t/a"), hall.children("/t/a"), hall.tree("/t/a"), hall.children("/t/a", data=False)):
        with pytest.raises(zkr.AccessDeniedError, match="/t/a"):
            hall.start(root)
        assert root.closed
    tree = hall.tree("/t")
    record = Record(tree)
    hall.start(tree)
    assert _values(tree.snapshot()) == {"/t": b"root", "/t/b": b""}
    with pytest.raises(zkr.AccessDeniedError):
        tree.get("/t/a")
    wait_until(lambda: record.errors, 5.0, "it is told")
    _set_acl(gardener, "/t/a", 31)
    record.wait_equal(TREE)
    assert tree.get("/t/a").value == b"1"
    assert len(record.errors) == 1


# --- errors of callbacks ----------------------------------------------------------------------------------------------


def test_a_callback_that_raises_harms_nobody(hall: Hall, gardener: Gardener, caplog: pytest.LogCaptureFixture) -> None:
    """J16: it is told to on_error and the log; the same callback, the others, and the listener go on."""
    gardener.plant({"/n": b"0"})
    nodes = hall.nodes("/n")
    raised: list[Exception] = []

    def wrong(change: zkr.Change[bytes]) -> None:
        error = LookupError(change.new)
        raised.append(error)
        raise error

    def wrong_too(_error: Exception) -> None:
        raise ArithmeticError

    nodes.on_created(wrong)
    nodes.on_changed(wrong)
    nodes.on_error(wrong_too)
    record = Record(nodes)
    hall.start(nodes)
    record.wait_for("initialized")
    gardener.set("/n", b"1")
    record.wait_for(("changed", "/n", b"0", b"1"))
    wait_until(lambda: len(record.errors) == 2, 5.0)
    assert record.errors == raised
    messages = [entry.getMessage() for entry in caplog.records if entry.name == "zkrecipes.listener"]
    assert sum("A callback of the listener of /n failed" in message for message in messages) == 2
    assert sum("An on_error callback of the listener of /n failed" in message for message in messages) == 2


def test_errors_are_logged_where_nobody_asks_for_them(
    hall: Hall, gardener: Gardener, caplog: pytest.LogCaptureFixture
) -> None:
    gardener.plant({"/c": b"bad"})
    hall.start(hall.nodes("/c", codec=zkr.IntCodec()))
    wait_until(lambda: any("The listener of /c" in entry.getMessage() for entry in caplog.records), 5.0)


# --- bad input --------------------------------------------------------------------------------------------------------

BAD: list[tuple[str, Callable[[Hall], object], type[Exception], str]] = [
    ("no path", lambda hall: hall.nodes(), ValueError, "at least one path"),
    ("no root", lambda hall: hall.tree(), ValueError, "at least one path"),
    ("relative", lambda hall: hall.nodes("/a", "b"), ValueError, "path must begin with '/'"),
    ("empty", lambda hall: hall.children(""), ValueError, "path must begin with '/'"),
    ("slash at the end", lambda hall: hall.tree("/a/"), ValueError, "end with '/'"),
    ("bytes", lambda hall: hall.tree(b"/a"), TypeError, "path must be a str"),  # type: ignore[arg-type]
    ("depth below 0", lambda hall: hall.tree("/a", depth=-1), ValueError, "depth must be 0"),
    ("depth of text", lambda hall: hall.tree("/a", depth="1"), TypeError, "depth must be an int or None"),
    ("depth True", lambda hall: hall.tree("/a", depth=True), TypeError, "depth must be an int or None"),
    ("include", lambda hall: hall.tree("/a", include="/a/b"), TypeError, "include must be callable"),
    ("codec", lambda hall: hall.nodes("/a", codec="utf-8"), TypeError, "codec must have encode and decode"),
    ("codec's class", lambda hall: hall.nodes("/a", codec=zkr.TextCodec), TypeError, r"codec=TextCodec\(\)"),
    ("data", lambda hall: hall.children("/a", data=1), TypeError, "data must be True or False"),
    (
        "codec without data",
        lambda hall: hall.children("/a", data=False, codec=zkr.TextCodec()),
        ValueError,
        "leave one of them out",
    ),
    ("callback", lambda hall: hall.tree("/a").on_deleted("print"), TypeError, "callback must be callable"),
    ("callback of marks", lambda hall: hall.tree("/a").on_stale(3), TypeError, "callback must be callable"),
    ("timeout", lambda hall: hall.start(hall.tree("/a"), -1.0), ValueError, "timeout must"),
    ("timeout NaN", lambda hall: hall.start(hall.tree("/a"), math.nan), ValueError, "timeout must"),
    ("wait's timeout", lambda hall: hall.wait_for(hall.tree("/a"), bool, -1.0), ValueError, "timeout must"),
    ("get's path", lambda hall: hall.tree("/a").get("b"), ValueError, "path must begin with '/'"),
]


@pytest.fixture(scope="module", params=["threads", "asyncio"])
def lobby(request: pytest.FixtureRequest, zkr_server: Server) -> Iterator[Hall]:
    """One client for all of them: nothing is ever asked of the server."""
    hall = Hall(Setting(request.param, "persistent"), zkr_server.hosts, "/lobby")
    yield hall
    hall.close()


@pytest.mark.parametrize(("call", "error", "words"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_bad_input(lobby: Hall, call: Callable[[Hall], object], error: type[Exception], words: str) -> None:
    """The error names the argument and the remedy, and comes before any request."""
    with pytest.raises(error, match=words):
        call(lobby)
    assert not lobby.watches._asked
    assert not lobby.watches._feeds


async def _coroutine(_change: object) -> None: ...


def test_a_coroutine_is_no_callback(hall: Hall) -> None:
    """It would never be awaited."""
    with pytest.raises(TypeError, match="async for"):
        hall.nodes("/a").on_changed(_coroutine)


def test_a_client_of_the_other_package(hall: Hall) -> None:
    other: Any = __import__("zkrecipes.aio", fromlist=["aio"]) if hall.setting.driver == "threads" else zkr
    with pytest.raises(TypeError, match="client"):
        other.NodeListener(hall.client, "/a")
