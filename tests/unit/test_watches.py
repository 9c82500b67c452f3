"""The table of watches: who is woken, what is sent, and when a server's watch may be removed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.unit.kit import World
from zkrecipes.calls import Call
from zkrecipes.port import AddWatch, Children, Code, Exists, Get, NodeEvent, ReadMany, RemoveWatches, Set, WatchKind
from zkrecipes.watching import follow, forget, unfollow

CREATED, DELETED, CHANGED, CHILDREN = NodeEvent


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.end()


def _watching(world: World, request: Any, answer: Any = ...) -> Call[Any]:
    """A call that has set its watch."""
    call = world.session.call(request)
    if answer is ...:
        answer = [] if isinstance(request, Children) else (b"", world.stat())
    world.answer(answer)
    return call


def _fired(call: Call[Any]) -> bool:
    assert call.watch is not None
    return call.watch.done


def _armed(world: World, root: str) -> list[tuple[str, NodeEvent]]:
    """Follow a root; what its feed gets."""
    told: list[tuple[str, NodeEvent]] = []
    world.session.watches.follow(root, lambda path, event: told.append((path, event)))
    world.session.call(AddWatch(root))
    world.answer()
    return told


def _empty(world: World) -> bool:
    table = world.session.watches
    return not any((table._waiting, table._asked, table._feeds, table._armed))


# --- one-shot ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "events"),
    [
        (Get("/a", watch=True), {CREATED: True, DELETED: True, CHANGED: True, CHILDREN: False}),
        (Exists("/a", watch=True), {CREATED: True, DELETED: True, CHANGED: True, CHILDREN: False}),
        (Children("/a", watch=True), {CREATED: False, DELETED: True, CHANGED: False, CHILDREN: True}),
    ],
    ids=["data", "exists", "children"],
)
def test_which_events_wake_whom(world: World, request_: Any, events: dict[NodeEvent, bool]) -> None:
    for event, wakes in events.items():
        call = _watching(world, request_)
        world.session.notified("/b", event)
        world.session.notified("/a/b", event)
        assert not _fired(call)
        world.session.notified("/a", event)
        assert _fired(call) is wakes
        world.transport.drop()
        assert _fired(call)
        world.connect()
    assert _empty(world)


def test_all_who_wait_for_a_node_are_woken_once(world: World) -> None:
    calls = [_watching(world, Get("/a", watch=True)) for _ in range(3)]
    assert len(world.transport.log) == 3
    world.session.notified("/a", CHANGED)
    assert all(_fired(call) for call in calls)
    assert _empty(world)


def test_a_node_that_is_not_there_is_watched_by_exists_alone(world: World) -> None:
    exists = _watching(world, Exists("/a", watch=True), None)
    get = world.session.call(Get("/a", watch=True))
    world.refuse(Code.NO_NODE)
    assert not _fired(exists)
    assert _fired(get), "no watch was set: look again"
    world.session.notified("/a", CREATED)
    assert _fired(exists)
    assert _empty(world)


# --- removal ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "kind"),
    [(Get("/a", watch=True), WatchKind.DATA), (Children("/a", watch=True), WatchKind.CHILDREN)],
    ids=["data", "children"],
)
def test_a_watch_that_nobody_needs_is_removed(world: World, request_: Any, kind: WatchKind) -> None:
    """The last who waits removes it, and no other: the server keeps one watch for all of them."""
    one, other = _watching(world, request_), _watching(world, request_)
    forget(world.session, one)
    assert world.requests == []
    forget(world.session, other)
    assert world.requests == [RemoveWatches("/a", kind)]
    forget(world.session, other)
    assert len(world.requests) == 1
    world.refuse(Code.NO_WATCHER)
    assert _empty(world)


def test_a_watch_that_has_fired_is_not_removed(world: World) -> None:
    call = _watching(world, Get("/a", watch=True))
    world.session.notified("/a", CHANGED)
    forget(world.session, call)
    assert world.requests == []


def test_the_children_and_the_data_of_a_node_are_watched_apart(world: World) -> None:
    data, children = _watching(world, Get("/a", watch=True)), _watching(world, Children("/a", watch=True))
    forget(world.session, data)
    assert world.requests == [RemoveWatches("/a", WatchKind.DATA)]
    assert not _fired(children)


def test_a_watch_is_not_removed_while_another_is_being_set(world: World) -> None:
    """The server would take that one off, too: requests are done in order."""
    one = _watching(world, Get("/a", watch=True))
    other = world.session.call(Get("/a", watch=True))
    forget(world.session, one)
    assert world.requests == [Get("/a", watch=True)]
    world.answer((b"", world.stat()))
    assert not _fired(other)
    forget(world.session, other)
    assert world.requests == [RemoveWatches("/a", WatchKind.DATA)]


def test_what_was_given_up_before_its_answer_leaves_no_watch(world: World) -> None:
    call = world.session.call(Get("/a", watch=True))
    world.session.withdraw(call)
    world.answer((b"", world.stat()))
    assert world.requests == [RemoveWatches("/a", WatchKind.DATA)]
    stays = _watching_behind(world)
    call = world.session.call(Get("/a", watch=True))
    world.session.withdraw(call)
    world.answer((b"", world.stat()))
    assert world.requests == []
    assert not _fired(stays)


def _watching_behind(world: World) -> Call[Any]:
    world.refuse(Code.NO_WATCHER)
    return _watching(world, Get("/a", watch=True))


def test_nothing_is_removed_where_that_cannot_be_done(world: World) -> None:
    call = _watching(world, Get("/a", watch=True))
    forget(world.session, call)
    world.refuse(Code.UNIMPLEMENTED)
    assert not world.session.watches.removable
    call = _watching(world, Get("/b", watch=True))
    forget(world.session, call)
    assert world.requests == []
    assert _empty(world)


def test_nothing_is_removed_in_an_outage(world: World) -> None:
    call = _watching(world, Get("/a", watch=True))
    world.transport.drop()
    forget(world.session, call)
    assert world.requests == []


# --- persistent -------------------------------------------------------------------------------------------------------


def test_a_feed_gets_what_is_told_at_and_below_its_root(world: World) -> None:
    a, root = _armed(world, "/a"), _armed(world, "/")
    events = [("/a", CREATED), ("/a/b/c", CHANGED), ("/ab", CREATED), ("/a", DELETED), ("/", CHANGED)]
    for path, event in events:
        world.session.notified(path, event)
    assert a == [events[0], events[1], events[3]]
    assert root == events


def test_where_a_persistent_watch_is_armed_no_other_is_sent(world: World) -> None:
    """A one-shot watch on exactly its root would take its place (ZOOKEEPER-4466). Its events wake all who wait."""
    _armed(world, "/a")
    data, children = _watching(world, Get("/a", watch=True)), _watching(world, Children("/a", watch=True))
    exists, below = _watching(world, Exists("/a", watch=True), None), _watching(world, Get("/a/b", watch=True))
    sent = world.transport.log[-4:]
    assert sent == [Get("/a"), Children("/a"), Exists("/a"), Get("/a/b", watch=True)]
    world.session.notified("/a/c/d", CREATED)
    assert not any(_fired(call) for call in (data, children, exists, below))
    world.session.notified("/a/c", CHANGED)
    assert not _fired(children), "the data of a child is not the list of children"
    world.session.notified("/a/c", CREATED)
    assert _fired(children)
    children = _watching(world, Children("/a", watch=True))
    world.session.notified("/a/c", DELETED)
    assert _fired(children)
    children = _watching(world, Children("/a", watch=True))
    world.session.notified("/a", DELETED)
    assert all(_fired(call) for call in (data, children, exists))
    assert not _fired(below)


def test_the_children_of_the_root_of_all(world: World) -> None:
    _armed(world, "/")
    children = _watching(world, Children("/", watch=True))
    world.session.notified("/a/b", CREATED)
    assert not _fired(children)
    world.session.notified("/a", CREATED)
    assert _fired(children)


def test_a_persistent_watch_is_removed_with_its_last_follower(world: World) -> None:
    told: list[str] = []

    def one(path: str, _event: NodeEvent) -> None:
        told.append(f"one {path}")

    def other(path: str, _event: NodeEvent) -> None:
        told.append(f"other {path}")

    follow(world.session, "/a", one)
    follow(world.session, "/a", other)
    follow(world.session, "/a", other)
    while world.requests:
        world.answer()
    world.session.notified("/a/b", CREATED)
    assert told == ["one /a/b", "other /a/b"]
    unfollow(world.session, "/a", one)
    assert world.requests == []
    world.session.notified("/a/c", CREATED)
    assert told[2:] == ["other /a/c"]
    unfollow(world.session, "/a", other)
    unfollow(world.session, "/a", other)
    assert world.requests == [RemoveWatches("/a", WatchKind.ANY)]
    world.answer()
    assert _empty(world)
    call = _watching(world, Get("/a", watch=True))
    assert world.transport.log[-1] == Get("/a", watch=True)
    assert not _fired(call)


def test_who_waits_on_the_root_looks_again_when_it_is_no_longer_followed(world: World) -> None:
    """The server takes off all watches of that node, whoever set them."""
    told = _armed(world, "/a")
    data, children = _watching(world, Get("/a", watch=True)), _watching(world, Children("/a", watch=True))
    below = _watching(world, Get("/a/b", watch=True))
    feed = world.session.watches._feeds["/a"][0]
    unfollow(world.session, "/a", feed)
    assert _fired(data)
    assert _fired(children)
    assert not _fired(below)
    assert told == []


def test_a_watch_asked_for_behind_a_persistent_one_that_ends_before_the_answer(world: World) -> None:
    """It was sent without its watch, and there is no other any more."""
    _armed(world, "/a")
    call = world.session.call(Get("/a", watch=True))
    unfollow(world.session, "/a", world.session.watches._feeds["/a"][0])
    assert world.requests == [Get("/a"), RemoveWatches("/a", WatchKind.ANY)]
    world.answer((b"", world.stat()))
    assert _fired(call)
    assert not call.failed


def test_a_watch_asked_for_behind_a_persistent_one_that_ends_and_is_armed_anew(world: World) -> None:
    """Between the two nobody would have told of a change."""
    _armed(world, "/a")
    call = world.session.call(Get("/a", watch=True))
    unfollow(world.session, "/a", world.session.watches._feeds["/a"][0])
    follow(world.session, "/a", lambda _path, _event: None)
    world.answer((b"", world.stat()))
    world.answer()
    world.answer()
    assert _fired(call)


def test_a_watch_on_its_way_before_a_persistent_one_that_ends_at_once(world: World) -> None:
    """It was set, replaced and removed, all before its answer came."""
    call = world.session.call(Get("/a", watch=True))

    def feed(_path: str, _event: NodeEvent) -> None: ...

    follow(world.session, "/a", feed)
    unfollow(world.session, "/a", feed)
    assert world.requests == [Get("/a", watch=True), AddWatch("/a"), RemoveWatches("/a", WatchKind.ANY)]
    world.answer((b"", world.stat()))
    world.answer()
    world.answer()
    assert _fired(call)


def test_the_end_of_a_connection_ends_all_watches_and_keeps_the_followers(world: World) -> None:
    told = _armed(world, "/a")
    calls = [_watching(world, Get("/a", watch=True)), _watching(world, Children("/a", watch=True))]
    world.transport.drop()
    assert all(_fired(call) for call in calls)
    world.connect()
    assert not world.session.watches._armed
    _watching(world, Get("/a", watch=True))
    assert world.transport.log[-1] == Get("/a", watch=True), "nothing is armed in this connection yet"
    world.session.call(AddWatch("/a"))
    world.answer()
    world.session.notified("/a/x", CREATED)
    assert told == [("/a/x", CREATED)]


# --- what a server does not know --------------------------------------------------------------------------------------


def test_what_is_not_supported_is_remembered(world: World) -> None:
    table = world.session.watches
    for request, name in (
        (AddWatch("/a"), "recursive"),
        (RemoveWatches("/a", WatchKind.ANY), "removable"),
        (ReadMany((Get("/a"), Get("/b"))), "batches"),
    ):
        assert getattr(table, name)
        world.session.call(request)
        world.refuse(Code.UNIMPLEMENTED)
        assert not getattr(table, name)
    assert not table._armed
    world.session.call(Set("/a", b""))
    world.refuse(Code.NO_NODE)
    call = _watching(world, Get("/a", watch=True))
    assert world.transport.log[-1] == Get("/a", watch=True)
    assert not _fired(call)


def test_a_persistent_watch_that_is_refused_wakes_who_relied_on_it(world: World) -> None:
    follow(world.session, "/a", lambda _path, _event: None)
    call = world.session.call(Get("/a", watch=True))
    assert world.requests == [AddWatch("/a"), Get("/a")]
    world.refuse(Code.UNIMPLEMENTED)
    world.answer((b"", world.stat()))
    assert _fired(call)
