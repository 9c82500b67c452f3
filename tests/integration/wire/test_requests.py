"""Requests, answers and watches on a real server: our own client and a borrowed one, internals and public API."""

from __future__ import annotations

import os

import pytest

from tests.integration.wire.link import linked, own, started, wait_done
from zkrecipes.port import (
    Acl,
    Check,
    Children,
    Code,
    Create,
    Created,
    Delete,
    Exists,
    Get,
    Kind,
    Multi,
    NodeEvent,
    ReadMany,
    Refused,
    Request,
    Set,
    Stat,
    Sync,
)
from zkrecipes.testing import FaultProxy, Server


def test_every_request_has_its_answer(kind: str, zkr_server: Server, root: str) -> None:
    with linked(kind, zkr_server.hosts) as link:
        session_id = link.events.all("connected")[0][1]
        a, line = f"{root}/a", f"{root}/a/line-"
        created = link.ask(Create(a, b"1"))
        assert created.path == a
        assert created.stat.czxid == created.stat.mzxid > 0
        first = link.ask(Create(line, b"me", Kind.EPHEMERAL, sequential=True))
        assert first.path == f"{line}0000000000"
        assert first.stat.ephemeral_owner == session_id
        assert first.stat.czxid > created.stat.czxid
        data, stat = link.ask(Get(a))
        assert (data, type(stat), stat.version, stat.children_count) == (b"1", Stat, 0, 1)
        assert link.ask(Exists(a)) == stat
        assert link.ask(Exists(f"{root}/none")) is None
        assert link.ask(Children(a)) == ["line-0000000000"]
        assert link.ask(Set(a, b"2", 0)).version == 1
        assert link.ask(Sync("/")) is None
        assert link.ask(Delete(first.path)) is None
        assert link.ask(Delete(a, 1)) is None
        assert link.ask(Create(f"{root}/empty")).stat.data_length == 0
        assert link.ask(Get(f"{root}/empty"))[0] == b""


def test_refusals_come_with_their_code(kind: str, zkr_server: Server, root: str) -> None:
    with linked(kind, zkr_server.hosts) as link:
        link.ask(Create(f"{root}/a"))
        assert link.ask(Create(f"{root}/a")) == (Code.NODE_EXISTS, -1)
        assert link.ask(Create(f"{root}/none/a")) == (Code.NO_NODE, -1)
        assert link.ask(Get(f"{root}/none")) == (Code.NO_NODE, -1)
        assert link.ask(Children(f"{root}/none", watch=True)) == (Code.NO_NODE, -1)
        assert link.ask(Set(f"{root}/a", b"", 7)) == (Code.BAD_VERSION, -1)
        assert link.ask(Delete(root)) == (Code.NOT_EMPTY, -1)


def test_a_transaction_is_done_whole_or_names_the_operation_at_fault(kind: str, zkr_server: Server, root: str) -> None:
    with linked(kind, zkr_server.hosts) as link:
        a = f"{root}/a"
        results = link.ask(
            Multi((Create(a), Set(a, b"1"), Check(a, 1), Create(f"{a}/e-", b"", Kind.EPHEMERAL, sequential=True)))
        )
        assert isinstance(results[0], Created)
        assert (results[0].path, results[1].version, results[2], results[3].path) == (a, 1, None, f"{a}/e-0000000000")
        assert link.ask(Multi((Delete(results[3].path), Delete(a)))) == (None, None)
        refused = link.ask(Multi((Create(a), Check(a, 5), Create(f"{root}/b"))))
        assert refused == (Code.BAD_VERSION, 1)
        assert link.ask(Exists(a)) is None
        assert link.ask(Multi((Check(f"{root}/none"),))) == (Code.NO_NODE, 0)


@pytest.mark.parametrize("internals", [True, False])
def test_containers_are_made_where_kazoo_can(*, internals: bool, proxy: FaultProxy, root: str) -> None:
    with own(proxy.hosts, internals=internals) as link:
        created = link.ask(Create(f"{root}/c", b"", Kind.CONTAINER))
        assert created.path == f"{root}/c"
        assert created.stat.czxid > 0
        assert proxy.counts()["createContainer"] == internals
        assert link.ask(Create(f"{root}/c/child")).path == f"{root}/c/child"


def test_answers_come_in_the_order_of_the_requests(kind: str, zkr_server: Server, root: str) -> None:
    requests: list[Request] = [Get("/"), Create(f"{root}/n-", sequential=True), Children(root), Exists("/none")]
    with linked(kind, zkr_server.hosts) as link:
        calls = [call for _ in range(4) for call in link.send(*requests * 8)]
        wait_done(*calls)
        assert [entry[1] for entry in link.events.all("ended")] == calls
        assert [entry[2] for entry in link.events.all("ended")].count("dropped") == 0


def test_a_large_node_is_written_and_read_whole(kind: str, zkr_server: Server, root: str) -> None:
    data = os.urandom(900_000)
    with linked(kind, zkr_server.hosts) as link:
        link.ask(Create(f"{root}/large", data))
        calls = link.send(*[Get(f"{root}/large")] * 5)
        wait_done(*calls)
        assert all(call.result()[0] == data for call in calls)


def test_requests_that_are_queued_together_leave_together(proxy: FaultProxy, root: str) -> None:
    with own(proxy.hosts) as link:
        proxy.reset_counts()
        wait_done(*link.send(*[Get(root)] * 100))
        assert proxy.counts()["getData"] == 100
        assert proxy.flights() < 60  # one by one it would be 100


@pytest.mark.parametrize("internals", [True, False])
def test_a_chroot_stays_unseen(*, internals: bool, zkr_server: Server, root: str) -> None:
    with own(f"{zkr_server.hosts}{root}", internals=internals) as link, started(zkr_server.hosts) as other:
        assert link.ask(Create("/a", b"x")).path == "/a"
        assert other.get(f"{root}/a")[0] == b"x"
        link.ask(Children("/", watch=True))
        link.ask(Exists("/a", watch=True))
        (created,) = link.ask(Multi((Create("/b"),)))
        assert created.path == "/b"
        assert link.ask(Set("/a", b"y")).version == 1
        link.events.wait_for("fired", 2)
        assert set(link.events.all("fired")) == {("fired", "/", NodeEvent.CHILDREN), ("fired", "/a", NodeEvent.CHANGED)}
        assert sorted(link.ask(Children("/"))) == ["a", "b"]


@pytest.mark.parametrize("kind", ["own, internals", "borrowed, internals"])
@pytest.mark.parametrize("chroot", [False, True])
def test_many_nodes_are_read_by_one_request(kind: str, *, chroot: bool, proxy: FaultProxy, root: str) -> None:
    with linked(kind, proxy.hosts + (root if chroot else "")) as link:
        top = "" if chroot else root
        link.ask(Create(f"{top}/a", b"1"))
        link.ask(Create(f"{top}/a/b"))
        link.ask(Create(f"{top}/a/ä", b"2"))
        link.ask(Create(f"{top}/forbidden", b"x", acl=(Acl(8 | 16, "world", "anyone"),)))
        proxy.reset_counts()
        reads = (
            Get(f"{top}/a"),
            Children(f"{top}/a"),
            Get(f"{top}/none"),
            Get(f"{top}/a/b"),
            Get(f"{top}/forbidden"),
            Children(f"{top}/none"),
            Children(f"{top}/a/ä"),
            Get(f"{top}/a/ä"),
        )
        answer = link.ask(ReadMany(reads))
        assert proxy.counts() == {"multiRead": 1}
        assert answer[0] == link.ask(Get(f"{top}/a"))
        assert isinstance(answer[0][1], Stat)
        assert sorted(answer[1]) == ["b", "ä"]
        assert answer[2] == answer[5] == Refused(Code.NO_NODE)
        assert answer[3][0] == b""
        assert answer[4] == Refused(Code.NO_AUTH)
        assert answer[6] == []
        assert answer[7] == link.ask(Get(f"{top}/a/ä"))
        assert link.ask(ReadMany(())) == ()
