"""A mirror and its server: what is asked, in which order, how much at a time; what goes wrong; how it ends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.unit.grove import Grove
from tests.unit.kit import TIMEOUT, World
from zkrecipes.errors import AccessDeniedError, ClosedError, UnavailableError
from zkrecipes.flow import Pending
from zkrecipes.mirror import Mirror
from zkrecipes.port import AddWatch, Children, Code, Exists, Get, ReadMany, RemoveWatches, WatchKind
from zkrecipes.reading import SINGLES, WINDOW
from zkrecipes.rounds import AUDIT
from zkrecipes.scope import Scope
from zkrecipes.timing import Deadline


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.end()


@pytest.fixture
def grove(world: World) -> Grove:
    grove = Grove(world)
    for path in ("/t", "/t/a", "/t/a/x", "/t/b"):
        grove.create(path)
    return grove


@pytest.fixture(params=[True, False], ids=["persistent", "one-shot"])
def persistent(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def _start(grove: Grove, *roots: str, seconds: float = 5.0, depth: int | None = None, **options: Any) -> Mirror:
    mirror = Mirror(grove.core, Scope(roots or ("/t",), depth), label="/t", **options)
    mirror.started = _begin(grove, mirror, seconds)  # type: ignore[attr-defined]  # for the tests
    return mirror


def _begin(grove: Grove, mirror: Mirror, seconds: float = 5.0) -> Pending[None]:
    return grove.world.run(mirror.start(Deadline.after(seconds, grove.world.runtime.now())))


def _started(grove: Grove, *roots: str, **options: Any) -> Mirror:
    mirror = _start(grove, *roots, **options)
    _serve(grove)
    assert mirror.fresh
    grove.world.transport.log.clear()
    return mirror


def _serve(grove: Grove) -> None:
    while grove.serve():
        pass


def _paths(mirror: Mirror) -> list[str]:
    return sorted(mirror.nodes)


# --- what is asked ----------------------------------------------------------------------------------------------------


def test_it_arms_first_and_reads_then(grove: Grove) -> None:
    """What changes behind the reading is told; what changes before the watch is armed is read."""
    mirror = _start(grove)
    assert grove.world.requests == [AddWatch("/t")]
    grove.create("/t/c")
    grove.serve(1)
    assert grove.world.requests == [Get("/t")]
    grove.serve(1)
    assert grove.world.requests == [Children("/t")]
    grove.serve(1)
    grove.create("/t/d")
    assert grove.world.requests == [ReadMany((Get("/t/a"), Get("/t/b"), Get("/t/c")))]
    _serve(grove)
    assert _paths(mirror) == ["/t", "/t/a", "/t/a/x", "/t/b", "/t/c", "/t/d"]
    assert mirror.started.done  # type: ignore[attr-defined]


def test_one_shot_watches_are_armed_by_the_read_itself(grove: Grove) -> None:
    mirror = _start(grove, persistent=False)
    assert grove.world.requests == [Get("/t", watch=True), Children("/t", watch=True)]
    grove.serve(2)
    grove.create("/t/c")
    grove.serve(2)
    grove.write("/t/a", b"x")
    _serve(grove)
    assert _paths(mirror) == ["/t", "/t/a", "/t/a/x", "/t/b", "/t/c"]
    assert mirror.nodes["/t/a"].data == b"x"
    assert not [request for request in grove.world.transport.log if isinstance(request, AddWatch)]


def test_a_change_costs_one_request(grove: Grove, persistent: bool) -> None:  # noqa: FBT001
    mirror = _started(grove, persistent=persistent)
    grove.write("/t/a", b"x")
    assert grove.world.requests == [Get("/t/a", watch=not persistent)]
    _serve(grove)
    assert mirror.nodes["/t/a"].data == b"x"
    assert len(grove.world.transport.log) == 1


def test_a_node_that_changes_while_it_is_read_is_read_once_more(grove: Grove) -> None:
    mirror = _started(grove)
    grove.write("/t/a", b"1")
    grove.write("/t/a", b"2")
    assert grove.world.requests == [Get("/t/a")]
    call = grove.world.transport.queue[0]
    grove.world.transport.queue.clear()
    node = grove.nodes["/t/a"]
    answer = (node.data, node.stat())  # given by the server before the next change, and told before it
    grove.write("/t/a", b"3")
    grove.world.session.answered(call, answer)
    grove.world.runtime.step()
    _serve(grove)
    assert mirror.nodes["/t/a"].data == b"3"


def test_children_are_read_by_the_hundred_and_only_of_parents(grove: Grove) -> None:
    for number in range(250):
        grove.create(f"/t/{number:03}")
    _start(grove)
    _serve(grove)
    log = [request for request in grove.world.transport.log if not isinstance(request, Exists)]
    sizes = [len(request.reads) for request in log if isinstance(request, ReadMany)]
    assert sum(sizes) == 252
    assert max(sizes) <= 100
    assert len(sizes) <= 8, "few while nobody knows how large the nodes are"
    assert [request for request in log if not isinstance(request, ReadMany)] == [
        AddWatch("/t"),
        Get("/t"),
        Children("/t"),
        Children("/t/a"),  # the only one that has children
        Get("/t/a/x"),
    ]


def test_answers_are_kept_to_a_size(grove: Grove) -> None:
    """Nodes of half a mebibyte are not read by the hundred."""
    for number in range(60):
        grove.create(f"/t/{number:03}", b"x" * 500_000)
    mirror = _start(grove)
    _serve(grove)
    sizes = [len(request.reads) for request in grove.world.transport.log if isinstance(request, ReadMany)]
    assert sizes[0] <= 32
    assert max(sizes[WINDOW:], default=1) <= 3, sizes
    assert len(mirror.nodes) == 64


def test_long_paths_make_small_requests(grove: Grove) -> None:
    for number in range(60):
        grove.create(f"/t/{number:03}{'x' * 60_000}")
    mirror = _start(grove)
    _serve(grove)
    for request in grove.world.transport.log:
        if isinstance(request, ReadMany):
            assert sum(len(read.path) for read in request.reads) <= 1 << 18
    assert len(mirror.nodes) == 64


def test_few_requests_are_under_way_at_a_time(grove: Grove) -> None:
    """Locks of the same client must not queue behind ten thousand."""
    for number in range(300):
        grove.create(f"/t/{number:03}")
    _start(grove, persistent=False)
    most = 0
    while grove.world.requests:
        most = max(most, len(grove.world.requests))
        grove.serve(1)
    assert 4 < most <= SINGLES


def test_single_nodes_need_no_list(grove: Grove) -> None:
    mirror = _start(grove, "/t", "/t/b", "/none", depth=0, persistent=False)
    reads = [Get("/none", watch=True), Get("/t", watch=True), Get("/t/b", watch=True)]
    assert grove.world.requests == reads
    _serve(grove)
    assert grove.world.transport.log[3:] == [Exists("/none", watch=True)], "it tells when that comes"
    assert _paths(mirror) == ["/t", "/t/b"]
    grove.create("/none", b"now")
    _serve(grove)
    assert mirror.nodes["/none"].data == b"now"


# --- outages ----------------------------------------------------------------------------------------------------------


def test_after_each_connection_everything_is_armed_and_read_anew(grove: Grove, persistent: bool) -> None:  # noqa: FBT001
    mirror = _started(grove, persistent=persistent)
    for number in range(2):
        grove.cut()
        assert not mirror.fresh
        assert len(mirror.nodes) == 4 + number, "what was known stays"
        grove.write("/t/b", b"%d" % number)
        grove.world.connect()
        assert not mirror.fresh
        _serve(grove)
        assert mirror.fresh
        assert mirror.nodes["/t/b"].data == b"%d" % number
        grove.create(f"/t/{number}")
        _serve(grove)
        assert f"/t/{number}" in mirror.nodes


def test_a_connection_that_ends_while_it_reads(grove: Grove, persistent: bool) -> None:  # noqa: FBT001
    """At each of its requests."""
    for done in range(8):
        mirror = _start(grove, persistent=persistent)
        grove.serve(done)
        grove.cut()
        grove.world.runtime.advance(0.1)
        grove.world.connect()
        _serve(grove)
        assert mirror.fresh
        assert _paths(mirror) == ["/t", "/t/a", "/t/a/x", "/t/b"]
        grove.world.run(mirror.close(1.0))
        _serve(grove)


def test_a_server_that_is_too_busy_is_not_asked_in_a_circle(grove: Grove) -> None:
    """A read of many that is refused as a whole; then all is read again, after a while."""
    for number in range(10):
        grove.create(f"/t/{number}")
    mirror = _start(grove)
    while not isinstance(grove.world.requests[0], ReadMany):
        grove.serve(1)
    grove.world.refuse(Code.THROTTLED)
    assert not mirror.fresh
    assert [request for request in grove.world.requests if not isinstance(request, Exists)] == []
    grove.world.runtime.advance(TIMEOUT / 6 - 0.1)
    assert AddWatch("/t") not in grove.world.requests
    grove.world.runtime.advance(0.2)
    _serve(grove)
    assert mirror.fresh
    assert len(mirror.nodes) == 14


def test_what_a_server_does_not_know_is_done_otherwise(world: World) -> None:
    """And remembered for the life of the client."""
    grove = Grove(world, persistent=False, batches=False)
    for path in ("/t", "/t/a", "/t/b"):
        grove.create(path)
    mirror = _started(grove)
    assert _paths(mirror) == ["/t", "/t/a", "/t/b"]
    grove.create("/t/c")
    _serve(grove)
    assert "/t/c" in mirror.nodes
    assert not world.session.watches.recursive
    grove.cut()
    world.connect()
    _serve(grove)
    assert not [request for request in world.transport.log if isinstance(request, AddWatch | ReadMany)]
    assert mirror.fresh


def test_reads_of_many_that_are_not_known_are_done_one_by_one(world: World) -> None:
    grove = Grove(world, batches=False)
    for path in ("/t", "/t/a", "/t/b"):
        grove.create(path)
    mirror = _started(grove)
    assert _paths(mirror) == ["/t", "/t/a", "/t/b"]
    assert not world.session.watches.batches
    assert world.session.watches.recursive
    grove.create("/t/c")
    _serve(grove)
    assert "/t/c" in mirror.nodes


# --- start ------------------------------------------------------------------------------------------------------------


def test_a_start_in_an_outage_ends_at_its_deadline(world: World) -> None:
    grove = Grove(world)
    grove.cut()
    mirror = _start(grove, seconds=3.0)
    world.runtime.advance(2.9)
    assert not mirror.started.done  # type: ignore[attr-defined]
    world.runtime.advance(0.2)
    with pytest.raises(UnavailableError):
        mirror.started.result()  # type: ignore[attr-defined]
    again = _begin(grove, mirror)
    world.connect()
    _serve(grove)
    assert again.done
    again.result()
    assert mirror.fresh


@pytest.mark.parametrize("served", [0, 1, 2, 3])
def test_a_start_ends_when_it_is_closed_meanwhile(grove: Grove, served: int, persistent: bool) -> None:  # noqa: FBT001
    """What is under way is given up, with the watches that it sets."""
    mirror = _start(grove, persistent=persistent)
    grove.serve(served)
    closing = grove.world.run(mirror.close(1.0))
    _serve(grove)
    assert closing.done
    with pytest.raises(ClosedError):
        mirror.started.result()  # type: ignore[attr-defined]
    assert grove.watches == set()
    assert not grove.world.session.watches._waiting
    assert grove.world.runtime.tasks.names() == []


def test_a_start_ends_when_the_client_does(grove: Grove) -> None:
    mirror = _start(grove)
    grove.world.session.close()
    grove.world.runtime.step()
    with pytest.raises(ClosedError):
        mirror.started.result()  # type: ignore[attr-defined]
    assert grove.world.runtime.tasks.names() == []


# --- the end ----------------------------------------------------------------------------------------------------------


def test_closing_takes_the_watches_off(grove: Grove, persistent: bool) -> None:  # noqa: FBT001
    mirror = _started(grove, persistent=persistent)
    assert grove.watches == ({"/t"} if persistent else {"/t", "/t/a", "/t/a/x", "/t/b"})
    closing = grove.world.run(mirror.close(1.0))
    _serve(grove)
    assert closing.done
    assert grove.watches == set()
    log = [request for request in grove.world.transport.log if isinstance(request, RemoveWatches)]
    assert log[0] == (RemoveWatches("/t", WatchKind.ANY) if persistent else log[0])
    assert len(log) == (1 if persistent else 8)
    assert grove.world.runtime.tasks.names() == []


def test_closing_many_watches_lets_others_in_between(grove: Grove) -> None:
    for number in range(200):
        grove.create(f"/t/{number:03}")
    mirror = _started(grove, persistent=False)
    closing = grove.world.run(mirror.close(1.0))
    assert len(grove.world.requests) <= 2 * WINDOW
    _serve(grove)
    assert closing.done
    assert grove.watches == set()


def test_closing_waits_no_longer_than_it_may(grove: Grove) -> None:
    """The rest is done in the background."""
    for number in range(100):
        grove.create(f"/t/{number:03}")
    mirror = _started(grove, persistent=False)
    closing = grove.world.run(mirror.close(1.0))
    grove.world.runtime.advance(0.9)
    assert not closing.done
    grove.world.runtime.advance(0.2)
    assert closing.done
    _serve(grove)
    assert grove.watches == set()


def test_closing_in_an_outage_is_done_at_once(grove: Grove, persistent: bool) -> None:  # noqa: FBT001
    mirror = _started(grove, persistent=persistent)
    grove.cut()
    assert grove.world.run(mirror.close(1.0)).done
    grove.world.connect()
    assert [request for request in grove.world.requests if not isinstance(request, Exists)] == []
    assert grove.world.runtime.tasks.names() == []


def test_closing_while_the_server_is_silent(grove: Grove, persistent: bool) -> None:  # noqa: FBT001
    """It may only be slow: when it answers again, the watches are taken off."""
    mirror = _started(grove, persistent=persistent)
    session = grove.world.session
    session.call(Get("/t"))
    session.silent = True
    closing = grove.world.run(mirror.close(1.0))
    grove.world.runtime.advance(1.1)
    assert closing.done, "nobody waits for that"
    assert len(grove.world.requests) == 1
    _serve(grove)
    assert session.usable
    assert grove.watches == set()
    assert grove.world.runtime.tasks.names() == []


def test_two_mirrors_of_one_root(grove: Grove) -> None:
    """The first that is closed takes nothing from the other."""
    one, other = _started(grove), _started(grove)
    grove.world.run(one.close(1.0))
    _serve(grove)
    assert grove.watches == {"/t"}
    grove.write("/t/a", b"x")
    _serve(grove)
    assert other.nodes["/t/a"].data == b"x"
    assert one.nodes["/t/a"].data == b""
    grove.world.run(other.close(1.0))
    _serve(grove)
    assert grove.watches == set()


# --- permissions ------------------------------------------------------------------------------------------------------


def test_what_may_not_be_read_is_asked_for_more_and_more_rarely(grove: Grove) -> None:
    grove.secret.add("/t/b")
    mirror = _started(grove, audit=1e6)
    assert isinstance(mirror.refused["/t/b"], AccessDeniedError)
    assert _paths(mirror) == ["/t", "/t/a", "/t/a/x"]
    times: list[float] = []
    began = grove.world.runtime.time
    while grove.world.runtime.time < began + 130:
        grove.world.runtime.advance(0.25)
        if Get("/t/b") in grove.world.requests:
            times.append(grove.world.runtime.time - began)
        _serve(grove)
    assert times == pytest.approx([1, 3, 7, 15, 31, 61, 91, 121], abs=1.0)
    grove.secret.clear()
    grove.world.runtime.advance(31.0)
    _serve(grove)
    assert "/t/b" in mirror.nodes
    assert mirror.refused == {}
    grove.world.transport.log.clear()
    grove.world.runtime.advance(100.0)
    assert not [request for request in grove.world.transport.log if isinstance(request, Get)]


def test_what_was_refused_and_is_gone_is_not_asked_for_any_more(grove: Grove) -> None:
    grove.secret.add("/t/b")
    mirror = _started(grove, audit=1e6)
    grove.delete("/t/b")
    _serve(grove)
    assert mirror.refused == {}


def test_what_is_refused_is_told_once(grove: Grove, persistent: bool) -> None:  # noqa: FBT001
    """Also where the node itself may be looked at, and its children may not be listed."""
    grove.secret.add("/t/a")
    mirror = Mirror(grove.core, Scope(("/t/a",), 1, shows_roots=False), data=False, persistent=persistent, audit=1e6)
    told: list[int] = []
    mirror.observers.append(lambda path: told.append(len(mirror.refused)) if path is None else None)
    _begin(grove, mirror)
    for _ in range(40):
        _serve(grove)
        grove.world.runtime.advance(0.25)
    assert told[0] == 1
    assert 0 not in told, told
    grove.secret.clear()
    grove.world.runtime.advance(8.0)
    _serve(grove)
    assert mirror.refused == {}
    assert "/t/a/x" in mirror.nodes


def test_everything_is_looked_at_now_and_then(grove: Grove, persistent: bool) -> None:  # noqa: FBT001
    """A server tells nothing of a node to who may not read it at that moment, and yet takes the watch off."""
    mirror = _started(grove, persistent=persistent)
    grove._one_shot.clear()
    grove._roots.clear()  # as if somebody had closed and opened it to us
    grove.write("/t/a", b"x")
    grove.create("/t/c")
    grove.world.runtime.advance(0.7 * AUDIT)
    _serve(grove)
    assert "/t/c" not in mirror.nodes
    for _ in range(100):
        grove.world.runtime.advance(0.01 * AUDIT)
        _serve(grove)
    assert mirror.nodes["/t/a"].data == b"x"
    assert "/t/c" in mirror.nodes
    if not persistent:
        grove.write("/t/a", b"y")
        _serve(grove)
        assert mirror.nodes["/t/a"].data == b"y", "it is watched again"


# --- observers --------------------------------------------------------------------------------------------------------


def test_observers_hear_of_nodes_and_of_all_else(grove: Grove) -> None:
    mirror = Mirror(grove.core, Scope(("/t",)), label="/t")
    told: list[str | None] = []
    mirror.observers.append(told.append)
    _begin(grove, mirror)
    _serve(grove)
    assert told == ["/t", "/t/a", "/t/b", "/t/a/x", None]
    told.clear()
    changed, version = mirror.changed, mirror.version
    grove.delete("/t/a")
    _serve(grove)
    assert sorted(told, key=str) == ["/t/a", "/t/a/x"]
    assert changed.done
    assert mirror.version == version + 2
    told.clear()
    grove.cut()
    assert told == [None]
    grove.world.connect()
    _serve(grove)
    assert told == [None, None]


def test_include_is_asked_before_reading(grove: Grove) -> None:
    asked: list[list[str]] = []
    verdicts: list[Pending[dict[str, bool]]] = []

    def judge(paths: list[str]) -> Pending[dict[str, bool]]:
        asked.append(paths)
        verdicts.append(Pending())
        return verdicts[-1]

    mirror = _start(grove, judge=judge)
    _serve(grove)
    assert asked == [["/t/a", "/t/b"]]
    assert not mirror.fresh
    verdicts[0].resolve({"/t/a": False, "/t/b": True})
    grove.world.runtime.step()
    _serve(grove)
    assert _paths(mirror) == ["/t", "/t/b"]
    grove.create("/t/a/new")
    _serve(grove)
    assert len(asked) == 1, "what is below is left out with it"
    assert not any("/t/a" in str(request) for request in grove.world.transport.log)
    grove.delete("/t/b")
    _serve(grove)
    grove.create("/t/b")
    _serve(grove)
    assert asked[1:] == [["/t/b"]], "another node of that name"
    closing = grove.world.run(mirror.close(1.0))
    _serve(grove)
    assert closing.done, "though nobody has answered"


def test_a_client_that_is_closed_while_include_is_asked(grove: Grove) -> None:
    """A slow `include` may answer after the end: that is no failure of the mirror."""
    verdict: Pending[dict[str, bool]] = Pending()
    mirror = _start(grove, judge=lambda _paths: verdict)
    _serve(grove)
    assert _paths(mirror) == ["/t"], "it is asked for what is below"
    grove.world.session.close()
    verdict.resolve({"/t/a": True, "/t/b": True})
    grove.world.runtime.step()
    _serve(grove)
    assert mirror._kept is not None
    assert mirror._kept.done
    assert not mirror._kept.failed
