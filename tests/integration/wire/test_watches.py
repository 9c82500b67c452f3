"""Watches on a real server: one-shot and persistent ones, their removal, and whom their events reach."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kazoo.client import KazooClient

import zkrecipes as zkr
from tests.integration.wire.link import KINDS, Link, borrowing, linked, own, started
from zkrecipes.flow import first_of
from zkrecipes.port import (
    AddWatch,
    Children,
    Code,
    Create,
    Delete,
    Exists,
    Get,
    Kind,
    NodeEvent,
    ReadMany,
    RemoveWatches,
    Set,
    Sync,
    WatchKind,
)
from zkrecipes.testing import FaultProxy, Server, wait_until
from zkrecipes.watching import follow, unfollow
from zkrecipes.wire_codec import Opcode

CREATED, DELETED, CHANGED, CHILDREN = NodeEvent

INTERNALS = [kind for kind in KINDS if "internals" in kind]
PUBLIC = [kind for kind in KINDS if "public" in kind]

with_internals = pytest.mark.parametrize("kind", INTERNALS)
owned = pytest.mark.parametrize("kind", ["own, internals"])


@pytest.fixture
def other(zkr_server: Server) -> Iterator[KazooClient]:
    """Somebody who changes nodes."""
    with started(zkr_server.hosts) as kazoo:
        yield kazoo


def told(link: Link) -> list[tuple[str, NodeEvent]]:
    """All events so far: an answer comes behind the events of what was done before."""
    assert link.ask(Sync("/")) is None
    return [(path, event) for _, path, event in link.events.all("fired")]


def watched(server: Server, path: str) -> bool:
    """Whether the server keeps a watch on exactly this node."""
    return path in server.command("wchp").splitlines()


# --- one-shot ---------------------------------------------------------------------------------------------------------


def test_watches_fire_once_for_data_children_and_absence(
    kind: str, zkr_server: Server, root: str, other: KazooClient
) -> None:
    with linked(kind, zkr_server.hosts) as link:
        a = f"{root}/a"
        for _ in range(2):  # equal watches fall together
            link.ask(Exists(a, watch=True))
            link.ask(Children(root, watch=True))
        other.create(a, b"")
        link.events.wait_for("fired", 2)
        assert sorted(told(link)) == [(root, CHILDREN), (a, CREATED)]
        link.ask(Get(a, watch=True))
        other.set(a, b"1")
        link.events.wait_for("fired", 3)
        other.set(a, b"2")
        assert told(link)[2:] == [(a, CHANGED)]
        link.ask(Children(a, watch=True))
        other.delete(a)
        link.events.wait_for("fired", 4)
        assert told(link)[3:] == [(a, DELETED)]


@with_internals
def test_a_node_that_goes_is_told_once_for_both_its_watches(
    kind: str, zkr_server: Server, root: str, other: KazooClient
) -> None:
    with linked(kind, zkr_server.hosts) as link:
        link.ask(Get(root, watch=True))
        link.ask(Children(root, watch=True))
        other.delete(root)
        link.events.wait_for("fired")
        assert told(link) == [(root, DELETED)]


def test_the_end_of_a_connection_is_no_watch(proxy: FaultProxy, kind: str, root: str) -> None:
    with linked(kind, proxy.hosts) as link:
        link.ask(Get(root, watch=True))
        link.ask(Children(root, watch=True))
        proxy.cut()
        link.events.wait_for("connected", 2)
        link.ask(Sync("/"))
        assert link.events.all("fired") == []


@owned
def test_a_one_shot_watch_can_be_removed(kind: str, zkr_server: Server, root: str, other: KazooClient) -> None:
    with linked(kind, zkr_server.hosts) as link:
        link.ask(Get(root, watch=True))
        link.ask(Children(root, watch=True))
        assert link.ask(RemoveWatches(root, WatchKind.CHILDREN)) is None
        assert watched(zkr_server, root)
        assert link.ask(RemoveWatches(root, WatchKind.CHILDREN)) == (Code.NO_WATCHER, -1)
        assert link.ask(RemoveWatches(root, WatchKind.DATA)) is None
        assert not watched(zkr_server, root)
        other.set(root, b"x")
        other.create(f"{root}/a")
        assert told(link) == []


# --- persistent -------------------------------------------------------------------------------------------------------


@owned
@pytest.mark.parametrize("chroot", [False, True])
def test_a_persistent_watch_tells_everything_below(
    kind: str, *, chroot: bool, zkr_server: Server, root: str, other: KazooClient
) -> None:
    with linked(kind, zkr_server.hosts + (root if chroot else "")) as link:
        top = "" if chroot else root
        tree, a, b = f"{top}/tree", f"{top}/tree/a", f"{top}/tree/a/b"
        assert link.ask(AddWatch(tree)) is None  # there is no such node yet
        for path in ("tree", "tree/a", "tree/a/b", "treelike"):
            other.create(f"{root}/{path}")
        for _ in range(3):
            other.set(f"{root}/tree/a/b", b"x")
        other.delete(f"{root}/tree/a", recursive=True)
        other.delete(f"{root}/tree")
        other.create(f"{root}/tree")
        link.events.wait_for("fired", 10)
        assert told(link) == [
            (tree, CREATED),
            (a, CREATED),
            (b, CREATED),
            (b, CHANGED),
            (b, CHANGED),
            (b, CHANGED),
            (b, DELETED),
            (a, DELETED),
            (tree, DELETED),
            (tree, CREATED),
        ]


@owned
def test_the_root_of_everything_can_be_watched(kind: str, zkr_server: Server, root: str, other: KazooClient) -> None:
    with linked(kind, f"{zkr_server.hosts}{root}") as link:
        link.ask(AddWatch("/"))
        other.set(root, b"x")
        other.create(f"{root}/a")
        link.events.wait_for("fired", 2)
        assert told(link) == [("/", CHANGED), ("/a", CREATED)]
        assert link.ask(RemoveWatches("/", WatchKind.ANY)) is None
        assert not watched(zkr_server, root)


@owned
def test_removal_ends_a_persistent_watch_at_the_server(
    kind: str, zkr_server: Server, root: str, other: KazooClient
) -> None:
    with linked(kind, zkr_server.hosts) as link:
        link.ask(AddWatch(root))
        assert watched(zkr_server, root)
        other.create(f"{root}/a")
        link.events.wait_for("fired")
        assert link.ask(RemoveWatches(root, WatchKind.ANY)) is None
        assert not watched(zkr_server, root)
        other.create(f"{root}/b")
        assert told(link) == [(f"{root}/a", CREATED)]
        assert link.ask(RemoveWatches(root, WatchKind.ANY)) == (Code.NO_WATCHER, -1)


@owned
def test_a_persistent_watch_ends_with_its_connection(
    kind: str, proxy: FaultProxy, zkr_server: Server, root: str, other: KazooClient
) -> None:
    with linked(kind, proxy.hosts) as link:
        link.ask(AddWatch(root))
        proxy.cut()
        link.events.wait_for("connected", 2)
        wait_until(lambda: not watched(zkr_server, root), 5.0, "the server sees the end of the connection")
        other.create(f"{root}/a")
        assert told(link) == []
        link.ask(AddWatch(root))
        other.create(f"{root}/b")
        link.events.wait_for("fired")
        assert told(link) == [(f"{root}/b", CREATED)]


@owned
def test_events_come_in_order_with_answers(kind: str, zkr_server: Server, root: str) -> None:
    with linked(kind, zkr_server.hosts) as link:
        link.ask(AddWatch(root))
        for number in range(20):
            link.send(Create(f"{root}/{number}"), Set(f"{root}/{number}", b"x"), Delete(f"{root}/{number}"))
        link.ask(Sync("/"))
        order: list[tuple[str, Any]] = []
        for what, first, *_ in link.events.told:
            if what == "fired":
                order.append(("event", first))
            elif what == "ended" and isinstance(first.request, Create | Set | Delete):
                order.append(("answer", first.request.path))
        expected = [
            (what, f"{root}/{number}") for number in range(20) for _ in range(3) for what in ("event", "answer")
        ]
        assert order == expected


def test_a_server_without_such_watches_says_so_and_costs_one_connection(
    zkr_server: Server, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An operation that no server knows, as 106 is before 3.6: it refuses, and closes the connection behind that.
    monkeypatch.setattr(Opcode, "ADD_WATCH", 9999)
    with own(zkr_server.hosts) as link:
        link.ask(Create(f"{root}/mine", b"", Kind.EPHEMERAL))
        assert link.ask(AddWatch(root)) == (Code.UNIMPLEMENTED, -1)
        link.events.wait_for("connected", 2)
        assert link.ask(Exists(f"{root}/mine")) is not None
        assert len({entry[1] for entry in link.events.all("connected")}) == 1


def test_events_and_answers_step_on_the_thread_that_brings_them(
    zkr_server: Server, root: str, other: KazooClient
) -> None:
    with zkr.connect(zkr_server.hosts) as client:
        runtime, session = client.core.runtime, client.core.session
        names: list[str] = []

        async def follow_node() -> None:
            for _ in range(3):
                call = session.call(Get(root, watch=True))
                await first_of(call)
                names.append(threading.current_thread().name)
                if call.watch is not None:
                    await first_of(call.watch)
                names.append(threading.current_thread().name)

        done = runtime.spawn(follow_node(), "follow")
        for number in range(3):
            wait_until(lambda count=2 * number + 1: len(names) == count, 5.0, "it watches")  # type: ignore[misc]
            other.set(root, b"x")
        wait_until(lambda: done.done, 5.0, "the last event")
        assert {name.rpartition("-")[0] for name in names} == {"zkrecipes-connection"}


def test_a_one_shot_watch_on_the_root_of_a_persistent_one_replaces_it(
    zkr_server: Server, root: str, other: KazooClient
) -> None:
    """ZOOKEEPER-4466, in servers from 3.6 to 3.8: why `watches` sends no such watch."""
    with own(zkr_server.hosts) as link:
        link.ask(AddWatch(root))
        other.create(f"{root}/a")
        link.events.wait_for("fired")
        link.ask(Get(root, watch=True))
        link.ask(Children(root, watch=True))
        other.create(f"{root}/b")
        other.set(root, b"x")
        other.create(f"{root}/c")
        wait_until(lambda: len(told(link)) >= 3, 5.0, "the one-shot watches have fired")
        version = zkr_server.metrics()["zk_version"]
        if str(version).startswith(("3.6.", "3.7.", "3.8.")):
            assert told(link) == [(f"{root}/a", CREATED), (root, CHILDREN), (root, CHANGED)]
        else:
            assert (f"{root}/c", CREATED) in told(link)


def test_a_session_keeps_its_persistent_watch_beside_one_shot_ones(
    zkr_server: Server, root: str, other: KazooClient
) -> None:
    fed: list[tuple[str, NodeEvent]] = []

    def feed(path: str, event: NodeEvent) -> None:
        fed.append((path, event))

    with zkr.connect(zkr_server.hosts) as client:
        session, lock = client.core.session, client.core.runtime.lock
        with lock:
            armed = follow(session, root, feed)
            data, names = session.call(Get(root, watch=True)), session.call(Children(root, watch=True))
        wait_until(lambda: armed.done and data.done and names.done, 5.0, "the answers")
        data_watch, names_watch = data.watch, names.watch
        assert data_watch is not None
        assert names_watch is not None
        other.create(f"{root}/a")
        wait_until(lambda: names_watch.done, 5.0, "who watches the list is woken")
        assert not data_watch.done
        other.set(root, b"x")
        wait_until(lambda: data_watch.done, 5.0, "who watches the data is woken")
        other.create(f"{root}/b")
        wait_until(lambda: len(fed) == 3, 5.0, lambda: f"all events in {fed}")
        assert fed == [(f"{root}/a", CREATED), (root, CHANGED), (f"{root}/b", CREATED)]
        with lock:
            unfollow(session, root, feed)
        wait_until(lambda: not watched(zkr_server, root), 5.0, "nobody follows, the server forgets")


# --- borrowed clients -------------------------------------------------------------------------------------------------


def test_the_watches_of_a_borrowed_client_belong_to_all_its_users(
    zkr_server: Server, root: str, other: KazooClient
) -> None:
    seen: list[Any] = []
    with started(f"{zkr_server.hosts}{root}") as kazoo, borrowing(kazoo) as one, borrowing(kazoo) as two:
        kazoo.create("/a")
        kazoo.get("/a", watch=seen.append)
        kazoo.get_children("/", watch=seen.append)
        # These would end the watches of others on the same connection.
        for request in (AddWatch("/"), RemoveWatches("/", WatchKind.ANY), RemoveWatches("/a", WatchKind.DATA)):
            assert one.ask(request) == (Code.UNIMPLEMENTED, -1)
        assert one.ask(ReadMany((Children("/"),))) == (["a"],)
        one.ask(Get("/a", watch=True))
        other.set(f"{root}/a", b"x")
        other.create(f"{root}/b")
        for link in (one, two):
            link.events.wait_for("fired", 2)
            assert told(link) == [("/a", CHANGED), ("/", CHILDREN)]
        wait_until(lambda: [event.path for event in seen] == ["/a", "/"], 5.0, lambda: f"their watches in {seen}")


def test_transports_on_one_borrowed_client_come_and_go(zkr_server: Server, root: str, other: KazooClient) -> None:
    with started(zkr_server.hosts) as kazoo:
        before = kazoo._connection._read_watch_event
        one, two = borrowing(kazoo), borrowing(kazoo)
        with one:
            with two:
                one.ask(Children(root, watch=True))
                other.create(f"{root}/a")
                two.events.wait_for("fired")
            one.ask(Children(root, watch=True))
            other.create(f"{root}/b")
            one.events.wait_for("fired", 2)
            assert told(one) == [(root, CHILDREN), (root, CHILDREN)]
            assert len(two.events.all("fired")) == 1
        assert kazoo._connection._read_watch_event == before
        assert "_read_watch_event" not in vars(kazoo._connection)
        seen = threading.Event()
        kazoo.get(root, watch=lambda _: seen.set())
        other.set(root, b"x")
        assert seen.wait(5.0)


def test_an_event_that_cannot_be_told_does_not_end_the_connection(
    zkr_server: Server, root: str, other: KazooClient, caplog: pytest.LogCaptureFixture
) -> None:
    with own(zkr_server.hosts) as link:
        link.ask(AddWatch(root))
        notified = link.events.notified

        def fail(path: str, event: NodeEvent) -> None:
            link.events.notified = notified  # type: ignore[method-assign]
            message = "a defect"
            raise RuntimeError(message)

        link.events.notified = fail  # type: ignore[method-assign]
        other.create(f"{root}/a")
        other.create(f"{root}/b")
        link.events.wait_for("fired")
        assert told(link) == [(f"{root}/b", CREATED)]
        assert "a defect" in caplog.text
        assert len(link.events.all("connected")) == 1


# --- the public API ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", PUBLIC)
@pytest.mark.parametrize(
    "request_",
    [AddWatch, lambda path: RemoveWatches(path, WatchKind.ANY), lambda path: ReadMany((Get(path),))],
    ids=["AddWatch", "RemoveWatches", "ReadMany"],
)
def test_the_public_api_has_no_such_request(
    kind: str, request_: Callable[[str], Any], zkr_server: Server, root: str
) -> None:
    with linked(kind, zkr_server.hosts) as link:
        get, unknown, last = link.send(Get(root), request_(root), Get(root))
        wait_until(lambda: last.done, 5.0, "the last answer")
        assert unknown.result() == (Code.UNIMPLEMENTED, -1)
        assert [entry[1] for entry in link.events.all("ended")] == [get, unknown, last]
