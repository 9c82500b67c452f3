"""Bad input: an error that names the argument and the remedy, and nothing left behind; the same for all recipes."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Any

import pytest

import zkrecipes as zkr
from tests.contracts.subjects import Party, Subject
from tests.leftovers import Leftovers
from zkrecipes.testing.ports import reserve_port

PATHS: list[tuple[str, Any, type[Exception], str]] = [
    ("empty", "", ValueError, "must begin with '/'"),
    ("relative", "locks/report", ValueError, "must begin with '/'"),
    ("root", "/", ValueError, "below the root"),
    ("parent", "/locks/../report", ValueError, r"'\.\.'"),
    ("itself", "/locks/.", ValueError, r"'\.'"),
    ("empty part", "/locks//report", ValueError, "empty component"),
    ("slash at the end", "/locks/", ValueError, "end with '/'"),
    ("NUL", "/locks/\0", ValueError, "character"),
    ("surrogate", "/locks/\ud800", ValueError, "character"),
    ("megabytes", "/" + "x" * 2_000_000, ValueError, "characters"),
    ("bytes", b"/locks", TypeError, "must be a str"),
    ("None", None, TypeError, "must be a str"),
]
TIMEOUTS: list[tuple[str, Any, type[Exception]]] = [
    ("negative", -1.0, ValueError),
    ("NaN", math.nan, ValueError),
    ("text", "5", TypeError),
    ("bool", True, TypeError),
]


@pytest.mark.parametrize(("path", "error", "words"), [row[1:] for row in PATHS], ids=[row[0] for row in PATHS])
def test_a_bad_path(path: Any, error: type[Exception], words: str, party: Party) -> None:
    with pytest.raises(error, match=f"(?s)path.*{words}"):
        party.make(path)
    if path != "/":  # its children may be listed
        with pytest.raises(error, match=f"(?s)path.*{words}"):
            party.do(lambda: party.client.get(path))
    assert party.do(lambda: party.client.children("/")) == []


@pytest.mark.parametrize(("timeout", "error"), [row[1:] for row in TIMEOUTS], ids=[row[0] for row in TIMEOUTS])
def test_a_bad_timeout(timeout: Any, error: type[Exception], party: Party) -> None:
    calls: list[Callable[[], object]] = [
        lambda: party.acquire(timeout),
        lambda: party.try_acquire(timeout),
        lambda: party.do(lambda: party.client.get("/x", timeout=timeout)),
    ]
    for call in calls:
        with pytest.raises(error, match="timeout must be"):
            call()
    assert party.do(lambda: party.client.children("/")) == []


def test_a_bad_identity(party: Party) -> None:
    with pytest.raises(zkr.PayloadTooLargeError, match="identity has 2000000 bytes") as raised:
        party.make(identity="x" * 2_000_000)
    assert isinstance(raised.value, ValueError)
    assert raised.value.size == 2_000_000 > raised.value.limit
    with pytest.raises(TypeError, match="identity must be a str"):
        party.make(identity=b"me")
    with pytest.raises(ValueError, match="identity"):
        party.make(identity="\ud800")
    assert party.do(lambda: party.client.children("/")) == []


def test_an_unknown_layout(party: Party, subject: Subject) -> None:
    known = "'latch', 'selector', 'kazoo'" if subject.kind == "election" else "'curator', 'kazoo'"
    for layout in ("zookeeper", "", "Curator"):
        with pytest.raises(ValueError, match=f"layout must be one of {known}"):
            party.make(layout=layout)


def test_options_of_an_election(party: Party, subject: Subject) -> None:
    if subject.kind != "election":
        with pytest.raises(TypeError, match="on_suspended"):
            party.make(on_suspended="stop")
        return
    with pytest.raises(ValueError, match="on_suspended must be 'stop' or 'keep_until_deadline'"):
        party.make(on_suspended="go on")
    for grace in (-0.1, math.nan):
        with pytest.raises(ValueError, match="stop_grace must be 0 or more"):
            party.make(stop_grace=grace)
    with pytest.raises(ValueError, match=r"stop_grace must be at most .* longer session_timeout.* server_tick"):
        party.make(stop_grace=5.0)
    with pytest.raises(TypeError, match="data must be bytes"):
        party.make(data="text")


def test_a_bad_local_handoff(zkr_client: zkr.Client) -> None:
    for arguments in ({"max_turns": 0}, {"max_time": -1.0}, {"max_time": math.nan}):
        with pytest.raises(ValueError, match=next(iter(arguments))):
            zkr.LocalHandoff(**arguments)
    handoff: Any = 64
    with pytest.raises(TypeError, match="local_handoff must be a LocalHandoff"):
        zkr.Lock(zkr_client, "/x", local_handoff=handoff)


# --- operations -------------------------------------------------------------------------------------------------------


def test_bad_arguments_of_operations(zkr_client: zkr.Client) -> None:
    zk: Any = zkr_client
    calls: list[tuple[Callable[[], object], type[Exception], str]] = [
        (lambda: zk.create("/a", "text"), TypeError, "data must be bytes"),
        (lambda: zk.set("/a", None), TypeError, "data must be bytes"),
        (lambda: zk.set("/a", b"", version="1"), TypeError, "version must be an int"),
        (lambda: zk.set("/a", b"", version=2**31), ValueError, "version must be from -1"),
        (lambda: zk.delete("/a", version=-2), ValueError, "version must be from -1"),
        (lambda: zk.create("/a", acl=[]), ValueError, "acl must not be empty"),
        (
            lambda: zk.create("/a", acl=[(31, "world", "anyone")]),
            TypeError,
            r"acl must be a sequence of zkrecipes\.Acl",
        ),
        (lambda: zk.create("/a", acl=[zkr.Acl(32, "world", "anyone")]), ValueError, "perms must be from 1 to 31"),
        (lambda: zk.transaction().set("/a", "text"), TypeError, "data must be bytes"),
        (lambda: zk.transaction().check("/a", version=1.5), TypeError, "version must be an int"),
        (lambda: zk.transaction().create("a"), ValueError, "path must begin with"),
    ]
    for call, error, words in calls:
        with pytest.raises(error, match=words):
            call()
    assert zk.children("/") == []


def test_a_kind_and_a_callback_of_the_wrong_type(zkr_client: zkr.Client) -> None:
    """Both would do harm in silence: a node that stays for ever, a listener that is never called."""
    zk: Any = zkr_client
    lock: Any = zkr.Lock(zk, "/lock")
    with pytest.raises(TypeError, match=r"kind must be a zkrecipes\.Kind"):
        zk.create("/a", kind="ephemeral")
    with pytest.raises(TypeError, match=r"kind must be a zkrecipes\.Kind"):
        zk.transaction().create("/a", kind="ephemeral")
    with pytest.raises(TypeError, match="callback must be callable, not NoneType"):
        zk.on_state(None)
    with pytest.raises(TypeError, match="callback must be callable, not NoneType"):
        lock.acquire(5.0).lost.on_set(None)
    assert zk.children("/") == ["lock"]


# --- connecting -------------------------------------------------------------------------------------------------------

CONNECT: list[tuple[str, dict[str, Any], type[Exception], str]] = [
    ("no host", {"hosts": ""}, ValueError, "hosts must"),
    ("no hosts", {"hosts": []}, ValueError, "hosts must"),
    ("a port beyond", {"hosts": "localhost:70000"}, ValueError, "hosts must"),
    ("a chroot", {"hosts": "localhost:2181/app"}, ValueError, "namespace="),
    ("a number", {"hosts": 2181}, TypeError, "hosts must"),
    ("relative namespace", {"namespace": "app"}, ValueError, "namespace must begin"),
    ("parent namespace", {"namespace": "/app/.."}, ValueError, "namespace"),
    ("negative session", {"session_timeout": -1}, ValueError, "session_timeout must"),
    ("NaN session", {"session_timeout": math.nan}, ValueError, "session_timeout must"),
    ("endless session", {"session_timeout": None}, ValueError, "session_timeout must"),
    ("negative connect", {"connect_timeout": -1}, ValueError, "connect_timeout must"),
    ("NaN default", {"default_timeout": math.nan}, ValueError, "default_timeout must"),
    ("auth text", {"auth": "user:password"}, TypeError, "auth must be"),
    ("auth None", {"auth": None}, TypeError, "auth must be"),
    ("tls True", {"tls": True}, TypeError, "tls must be"),
    ("retry number", {"retry": 3}, TypeError, "retry must be"),
    ("acl empty", {"acl": []}, ValueError, "acl must not be empty"),
    ("tick", {"server_tick": 20.0}, ValueError, "server_tick must"),
    ("drift", {"drift": 0.5}, ValueError, "drift must"),
    ("drift text", {"drift": "1%"}, TypeError, "drift must"),
]


@pytest.mark.parametrize("package", ["zkrecipes", "zkrecipes.aio"])
@pytest.mark.parametrize(("arguments", "error", "words"), [row[1:] for row in CONNECT], ids=[row[0] for row in CONNECT])
def test_bad_arguments_of_connect(package: str, arguments: dict[str, Any], error: type[Exception], words: str) -> None:
    """Before any I/O, so under asyncio, too, at the call."""
    left = Leftovers()
    connect = pytest.importorskip(package).connect
    with pytest.raises(error, match=words):
        connect(**{"hosts": "127.0.0.1:1", **arguments})
    left.none()


def test_bad_files_and_credentials() -> None:
    nothing: Any = None
    with pytest.raises(ValueError, match=r"tls: ca must be the path of a PEM file; .*'/nowhere'"):
        zkr.Tls(ca="/nowhere")
    with pytest.raises(ValueError, match="cert and key must be given together"):
        zkr.Tls(cert=__file__)
    for auth in (zkr.DigestAuth, zkr.SaslDigest):
        with pytest.raises(ValueError, match="user must not be empty"):
            auth("", "x")
        with pytest.raises(TypeError, match="password must be a str"):
            auth("me", nothing)
        assert "secret" not in repr(auth("me", "secret"))
    with pytest.raises(ValueError, match="':'"):
        zkr.DigestAuth("me:and", "x")


@pytest.mark.parametrize("package", ["zkrecipes", "zkrecipes.aio"])
def test_no_server(package: str) -> None:
    """The port is ours, but nobody listens there."""
    module = pytest.importorskip(package)

    async def connect_async(hosts: str) -> None:
        await module.connect(hosts, connect_timeout=0.5)

    def connect(hosts: str) -> None:
        if package == "zkrecipes":
            module.connect(hosts, connect_timeout=0.5)
        else:
            asyncio.run(connect_async(hosts))

    port = reserve_port()
    left = Leftovers()
    began = time.monotonic()
    try:
        with pytest.raises(zkr.UnavailableError, match="Check the servers"):
            connect(f"127.0.0.1:{port.number}")
        assert 0.4 < time.monotonic() - began < 1.5
        left.none()
    finally:
        port.release()
