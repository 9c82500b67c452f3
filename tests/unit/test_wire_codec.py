"""Requests and answers as bytes, held against kazoo's own and against frames written by hand."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kazoo.protocol import serialization as kazoo
from kazoo.security import ACL, Id

from zkrecipes.port import (
    OPEN_ACL,
    Acl,
    AddWatch,
    Check,
    Children,
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
    RemoveWatches,
    Request,
    Set,
    Stat,
    Sync,
    WatchKind,
)
from zkrecipes.wire_codec import HARMLESS_READ, MultiRefused, decoder, encode, read_event

STAT = Stat(1, 2, 3, 4, 5, 6, 7, -8, 9, 10, 11)
STAT_BYTES = struct.pack("!qqqqiiiqiiq", *STAT)

paths = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).map(lambda text: f"/{text}")
versions = st.integers(-1, 2**31 - 1)


def acls(acl: tuple[Acl, ...]) -> list[ACL]:
    return [ACL(entry.perms, Id(entry.scheme, entry.id)) for entry in acl]


def kazoos(request: Request | Check) -> bytes:
    """The same request as kazoo writes it, with its operation code."""
    match request:
        case Create():
            flags = (request.kind is Kind.EPHEMERAL) | 2 * request.sequential
            theirs: kazoo.Create2 = kazoo.Create2(request.path, request.data, acls(request.acl), flags)
        case Get():
            theirs = kazoo.GetData(request.path, request.watch)
        case Exists():
            theirs = kazoo.Exists(request.path, request.watch)
        case Children():
            theirs = kazoo.GetChildren(request.path, request.watch)
        case Set():
            theirs = kazoo.SetData(request.path, request.data, request.version)
        case Delete():
            theirs = kazoo.Delete(request.path, request.version)
        case Check():
            theirs = kazoo.CheckVersion(request.path, request.version)
        case Sync():
            theirs = kazoo.Sync(request.path)
        case Multi():
            body = b"".join(
                struct.pack("!iBi", struct.unpack("!i", operation[:4])[0], 0, -1) + operation[4:]
                for operation in map(kazoos, request.operations)
            )
            return struct.pack("!i", 14) + body + struct.pack("!iBi", -1, 1, -1)
    return struct.pack("!i", theirs.type) + bytes(theirs.serialize())


creates = st.builds(
    Create,
    paths,
    st.binary(max_size=50),
    st.sampled_from([Kind.PERSISTENT, Kind.EPHEMERAL]),
    st.booleans(),
    st.sampled_from([OPEN_ACL, (Acl(1, "digest", "a:b"), Acl(31, "ip", "10.0.0.0/8"))]),
)
changes = (
    creates
    | st.builds(Set, paths, st.binary(max_size=50), versions)
    | st.builds(Delete, paths, versions)
    | st.builds(Check, paths, versions)
)
requests = (
    creates
    | st.builds(Get, paths, st.booleans())
    | st.builds(Exists, paths, st.booleans())
    | st.builds(Children, paths, st.booleans())
    | st.builds(Set, paths, st.binary(max_size=50), versions)
    | st.builds(Delete, paths, versions)
    | st.builds(Sync, paths)
    | st.builds(Multi, st.lists(changes, max_size=5).map(tuple))
)


@given(requests)
def test_requests_are_written_as_kazoo_writes_them(request: Request) -> None:
    assert encode(request) == kazoos(request)


@given(requests)
def test_a_chroot_is_put_before_every_path(request: Request) -> None:
    assert not isinstance(request, ReadMany)
    rooted = kazoos(request)
    for path in [operation.path for operation in request.operations] if isinstance(request, Multi) else [request.path]:
        old, new = path.encode(), f"/root{path}".encode()
        rooted = rooted.replace(struct.pack("!i", len(old)) + old, struct.pack("!i", len(new)) + new, 1)
    assert len(encode(request, "/root")) == len(rooted)
    if not isinstance(request, Multi):
        assert encode(request, "/root") == rooted


def test_the_root_itself_under_a_chroot() -> None:
    assert encode(Exists("/"), "/app") == encode(Exists("/app"))


def test_a_container_has_its_own_operation_and_flag() -> None:
    request = Create("/c", b"x", Kind.CONTAINER)
    assert encode(request)[:4] == struct.pack("!i", 19)
    assert encode(request)[-4:] == struct.pack("!i", 4)


def test_without_containers_a_persistent_node_is_made() -> None:
    assert encode(Create("/c", b"x", Kind.CONTAINER), containers=False) == encode(Create("/c", b"x"))


def test_there_are_no_sequential_containers() -> None:
    assert encode(Create("/c-", b"", Kind.CONTAINER, sequential=True)) == encode(Create("/c-", b"", sequential=True))


def test_an_empty_acl_id_is_an_empty_text_and_not_null() -> None:
    # kazoo writes null, which the scheme "auth" does not need, but Java clients write "".
    encoded = encode(Create("/a", acl=(Acl(31, "auth", ""),)))
    assert struct.pack("!ii", 1, 31) + struct.pack("!i", 4) + b"auth" + struct.pack("!i", 0) in encoded


def test_a_path_that_is_no_text_is_refused_by_the_caller() -> None:
    with pytest.raises(UnicodeEncodeError):
        encode(Get("/\ud800"))


def test_the_harmless_read_reads() -> None:
    assert encode(Exists("/")) == HARMLESS_READ


def text(value: str) -> bytes:
    return struct.pack("!i", len(value.encode())) + value.encode()


HEADER = b"16 bytes before "


@pytest.mark.parametrize(
    ("request_", "body", "answer"),
    [
        (Create("/ä"), text("/ä") + STAT_BYTES, Created("/ä", STAT)),
        (Create("/c", kind=Kind.CONTAINER), text("/c"), Created("/c", None)),
        (Get("/a"), struct.pack("!i", 3) + b"abc" + STAT_BYTES, (b"abc", STAT)),
        (Get("/a"), struct.pack("!i", -1) + STAT_BYTES, (b"", STAT)),
        (Exists("/a"), STAT_BYTES, STAT),
        (Set("/a", b""), STAT_BYTES, STAT),
        (Children("/a"), struct.pack("!i", 2) + text("ö") + text("b"), ["ö", "b"]),
        (Children("/a"), struct.pack("!i", 0), []),
        (Children("/a"), struct.pack("!i", -1), []),
        (Delete("/a"), b"", None),
        (Sync("/a"), text("/a"), None),
    ],
)
def test_answers_are_read(request_: Request, body: bytes, answer: object) -> None:
    assert decoder(request_)(HEADER + body, len(HEADER), "") == answer


def test_the_chroot_is_taken_off_created_paths() -> None:
    read = decoder(Create("/a"))
    assert read(text("/app/a") + STAT_BYTES, 0, "/app") == Created("/a", STAT)
    assert read(text("/app") + STAT_BYTES, 0, "/app") == Created("/", STAT)


def results(*parts: tuple[int, bytes]) -> bytes:
    body = b"".join(struct.pack("!iBi", opcode, 0, -1) + part for opcode, part in parts)
    return body + struct.pack("!iBi", -1, 1, -1)


def test_a_multi_answers_for_each_operation() -> None:
    body = results((15, text("/app/a") + STAT_BYTES), (1, text("/app/b")), (5, STAT_BYTES), (13, b""), (2, b""))
    answer = decoder(Multi(()))(body, 0, "/app")
    assert answer == (Created("/a", STAT), Created("/b", None), STAT, None, None)


# --- what kazoo does not know: by zookeeper.jute ----------------------------------------------------------------------


def test_a_persistent_watch_is_recursive() -> None:
    assert encode(AddWatch("/ä")) == struct.pack("!i", 106) + text("/ä") + struct.pack("!i", 1)
    assert encode(AddWatch("/"), "/app") == struct.pack("!i", 106) + text("/app") + struct.pack("!i", 1)
    assert decoder(AddWatch("/a"))(struct.pack("!i", 0), 0, "") is None


@pytest.mark.parametrize(("kind", "number"), [(WatchKind.CHILDREN, 1), (WatchKind.DATA, 2), (WatchKind.ANY, 3)])
def test_watches_are_removed_by_kind(kind: WatchKind, number: int) -> None:
    body = struct.pack("!i", 18) + text("/app/a") + struct.pack("!i", number)
    assert encode(RemoveWatches("/a", kind), "/app") == body
    assert decoder(RemoveWatches("/a", kind))(b"", 0, "") is None


@given(st.lists(st.builds(Get, paths) | st.builds(Children, paths), max_size=5).map(tuple))
def test_many_reads_are_written_as_a_transaction_is(reads: tuple[Get | Children, ...]) -> None:
    written = encode(ReadMany(reads), "/app")
    assert written[:4] == struct.pack("!i", 22)
    bodies = [encode(read, "/app") for read in reads]
    opcodes = [(4 if isinstance(read, Get) else 8) for read in reads]
    assert written[4:] == results(*zip(opcodes, (body[4:] for body in bodies), strict=True))


def test_many_reads_answer_for_each_read() -> None:
    body = results(
        (4, struct.pack("!i", 3) + b"abc" + STAT_BYTES),
        (-1, struct.pack("!i", -101)),
        (8, struct.pack("!i", 2) + text("ö") + text("b")),
        (4, struct.pack("!i", -1) + STAT_BYTES),
        (8, struct.pack("!i", 0)),
        (-1, struct.pack("!i", -102)),
        (4, struct.pack("!i", 1) + b"x" + STAT_BYTES),
    )
    answer = decoder(ReadMany(()))(HEADER + body, len(HEADER), "/app")
    assert answer == ((b"abc", STAT), Refused(-101), ["ö", "b"], (b"", STAT), [], Refused(-102), (b"x", STAT))


def test_an_unknown_read_is_an_error_and_no_guess() -> None:
    with pytest.raises(ValueError, match="unknown operation 5"):
        decoder(ReadMany(()))(results((5, STAT_BYTES)), 0, "")


@pytest.mark.parametrize(
    ("root", "path", "told"),
    [
        ("", "/a", "/a"),
        ("", "/", "/"),
        ("/app", "/app/ä/b", "/ä/b"),
        ("/app", "/app", "/"),
        ("/app", "/apple", None),
        ("/app", "/", None),
    ],
)
def test_events_are_told_below_the_chroot(root: str, path: str, told: str | None) -> None:
    for number, event in (
        (1, NodeEvent.CREATED),
        (2, NodeEvent.DELETED),
        (3, NodeEvent.CHANGED),
        (4, NodeEvent.CHILDREN),
    ):
        body = HEADER + struct.pack("!ii", number, 3) + text(path)
        assert read_event(body, len(HEADER), root) == (None if told is None else (told, event))


@pytest.mark.parametrize("number", [-1, 0, 5, 7])
def test_what_is_no_event_of_a_node_is_none(number: int) -> None:
    assert read_event(struct.pack("!ii", number, 3) + text("/a"), 0, "") is None


@pytest.mark.parametrize(
    ("codes", "refused"),
    [
        ([0, -101, -2, -2], MultiRefused(-101, 1)),
        ([-103], MultiRefused(-103, 0)),
        ([0, 0, -110], MultiRefused(-110, 2)),
        ([-2, -2], MultiRefused(-2, -1)),
    ],
)
def test_the_operation_at_fault_is_found(codes: list[int], refused: MultiRefused) -> None:
    body = results(*((-1, struct.pack("!i", code)) for code in codes))
    assert decoder(Multi(()))(body, 0, "") == refused


def test_an_unknown_result_is_an_error_and_no_guess() -> None:
    with pytest.raises(ValueError, match="unknown operation 99"):
        decoder(Multi(()))(results((99, b"")), 0, "")
