"""Requests written by the thread that asks, while kazoo's connection thread sleeps."""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from typing import Any

import pytest

from tests.integration.wire.link import close_in_time, own, wait_done
from zkrecipes.port import Create, Exists, Get, Sync
from zkrecipes.testing import FaultProxy, Server, wait_until
from zkrecipes.wire_socket import BufferedSocket, WakeUp


@pytest.fixture
def rousings(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Grows each time the connection thread is roused."""
    roused: list[None] = []
    rouse = WakeUp._rouse

    def counted(wake: WakeUp) -> None:
        roused.append(None)
        rouse(wake)

    monkeypatch.setattr(WakeUp, "_rouse", counted)
    return roused


def test_a_lone_request_does_not_rouse_the_connection_thread(zkr_server: Server, rousings: list[None]) -> None:
    with own(zkr_server.hosts) as link:
        link.ask(Sync("/"))
        before = len(rousings)
        for _ in range(50):
            link.ask(Get("/"))
        assert len(rousings) - before < 25  # an answer may be told before the thread is asleep again


def test_many_threads_get_their_own_answers(zkr_server: Server, root: str) -> None:
    with own(zkr_server.hosts) as link:
        for number in range(8):
            link.ask(Create(f"{root}/{number}", str(number).encode()))
        wrong: list[Any] = []

        def work(number: int) -> None:
            for turn in range(200):
                requests = [Get(f"{root}/{number}")] * (1 + turn % 3)
                calls = link.send(*requests)
                wait_done(*calls)
                wrong.extend(call.result() for call in calls if call.result()[0] != str(number).encode())

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert len(link.events.all("connected")) == 1


def test_an_interrupted_write_costs_the_connection_and_nothing_else(
    zkr_server: Server, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with own(zkr_server.hosts) as link:
        link.ask(Sync("/"))
        flush, interrupted = BufferedSocket.flush, threading.Event()

        def interrupt(sock: BufferedSocket) -> None:
            if threading.current_thread() is threading.main_thread() and not interrupted.is_set():
                interrupted.set()
                raise KeyboardInterrupt
            flush(sock)

        monkeypatch.setattr(BufferedSocket, "flush", interrupt)

        def ask_often() -> None:
            for _ in range(100):  # the first that finds the thread asleep is interrupted
                link.ask(Exists(root))

        with pytest.raises(KeyboardInterrupt):
            ask_often()
        link.events.wait_for("connected", 2)
        assert link.events.all("ended")[-1][2] == "dropped"
        assert link.ask(Exists(root)) is not None
        assert len({entry[1] for entry in link.events.all("connected")}) == 1


def test_a_place_that_is_never_given_back_is_taken_back(
    zkr_server: Server, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WakeUp, "PATIENCE", 0.1)
    with own(zkr_server.hosts) as link:
        wake = link.transport.kazoo._connection._write_sock
        place = wait_until(wake.enter, 5.0, "the thread sleeps")
        (call,) = link.send(Get("/"))
        wake._rouse()
        link.events.wait_for("connected", 2)
        assert call.result() == "dropped"
        assert not wake._muted
        wake.leave(place, unfinished=False)  # the late one takes nothing from anybody
        assert link.ask(Get("/"))[0] == b""


def test_a_write_to_a_dead_connection_is_dropped(proxy: FaultProxy) -> None:
    with own(proxy.hosts) as link:
        for count in range(1, 6):
            link.ask(Sync("/"))
            with link.events.runtime.lock:
                proxy.cut()
                calls = link.send(Get("/"), Get("/"))
            wait_done(*calls)
            assert {call.result() for call in calls} == {"dropped"}
            link.events.wait_for("connected", count + 1)


@pytest.mark.parametrize("another", [True, False])
def test_what_the_network_does_not_take_at_once_follows_when_it_does(*, another: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        link = own("{}:{}".format(*listener.getsockname()), session_timeout=30.0)
        link.transport.start()
        server, _ = listener.accept()
        server.recv(100)
        handshake = struct.pack("!iiqi", 0, 30_000, 77, 16) + bytes(17)
        server.sendall(struct.pack("!i", len(handshake)) + handshake)
        link.events.wait_for("connected")
        wake = link.transport.kazoo._connection._write_sock
        wait_until(lambda: wake._asleep, 5.0, "the thread sleeps")
        size = 50_000_000
        link.send(Create("/large", bytes(size)))
        wait_until(lambda: wake._asleep, 5.0, "the thread waits for the network")
        before = time.monotonic()
        if another:
            link.send(Get("/"))
        assert time.monotonic() - before < 0.5  # nothing waits under the step lock
        server.settimeout(5.0)  # the next ping would come after ten seconds
        while size > 0:
            size -= len(server.recv(1_000_000))
        server.close()
        close_in_time(link)


def test_a_forked_child_writes_nothing(zkr_server: Server) -> None:
    with own(zkr_server.hosts) as link:
        wake = link.transport.kazoo._connection._write_sock
        wait_until(lambda: wake._asleep, 5.0, "the thread sleeps")
        child = os.fork()
        if child == 0:
            link.send(Get("/"), Get("/"))
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        for _ in range(10):
            assert link.ask(Get("/"))[0] == b""
        assert len(link.events.all("connected")) == 1
