"""Socket, wake-up and handler, without a server."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kazoo.handlers.utils import AsyncResult
from kazoo.protocol.states import Callback

from zkrecipes.testing.waiting import wait_until
from zkrecipes.wire_io import Handler, default_pause
from zkrecipes.wire_kazoo import count_hosts
from zkrecipes.wire_socket import BufferedSocket, WakeUp

HANDSHAKE = struct.pack("!iiiq", 36, 0, 6000, 77) + b"the rest"


class Line:
    """A BufferedSocket with the other end in the test's hand."""

    def __init__(self) -> None:
        near, self.far = socket.socketpair()
        near.setblocking(False)
        self.far.settimeout(5.0)
        self.wake = WakeUp()
        self.handler = Handler(10.0, time.monotonic)
        self.negotiated: list[float] = []
        self.broken: list[OSError | None] = []
        self.sock = BufferedSocket(
            near, ("server", 2181), lambda: 5.0, self.negotiated.append, lambda _sock, error: self.broken.append(error)
        )

    def select(self, timeout: float | None = 5.0) -> list[Any]:
        return self.handler.select([self.sock, self.wake], [], [], timeout)[0]

    def close(self) -> None:
        self.sock.close()
        self.wake.close()
        self.far.close()


@pytest.fixture
def line() -> Iterator[Line]:
    with contextlib.closing(Line()) as line:
        yield line


def elsewhere(job: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=job)
    thread.start()
    return thread


# --- the socket -----------------------------------------------------------------------------------------------------


def test_what_was_read_ahead_needs_no_further_wait(line: Line) -> None:
    line.far.sendall(HANDSHAKE)
    assert line.select() == [line.sock]
    assert line.sock.recv(4) == HANDSHAKE[:4]
    assert line.sock.pending() == len(HANDSHAKE) - 4
    assert line.select(0.0) == [line.sock]
    assert line.sock.recv(1000) == HANDSHAKE[4:]
    assert line.sock.pending() == 0
    assert line.select(0.0) == []


def test_the_negotiated_timeout_is_read_from_the_handshake(line: Line) -> None:
    for part in (HANDSHAKE[:3], HANDSHAKE[3:19], HANDSHAKE[19:]):
        assert line.negotiated == []
        line.far.sendall(part)
        assert line.select() == [line.sock]
        assert line.sock.recv(100) == part
    assert line.negotiated == [6.0]
    assert not line.sock.handshaking


def test_since_is_a_time_before_the_first_byte_left(line: Line) -> None:
    assert line.sock.since is None
    line.sock.send(b"handshake")
    assert line.sock.since == 5.0


def test_requests_wait_for_others_only_while_there_are_others(line: Line) -> None:
    line.far.setblocking(False)
    line.wake.send(b"\0")
    line.wake.send(b"\0")
    for data in (b"one", b"two"):
        assert line.select(0.0) == [line.wake]
        assert line.handler.select([], [line.sock], [], 1.0)[1] == [line.sock]
        assert line.sock.send(memoryview(data)) == 3
        with pytest.raises(BlockingIOError):
            line.far.recv(100)
        line.wake.recv(1)
    assert line.select(0.0) == []
    assert line.far.recv(100) == b"onetwo"


def test_requests_do_not_wait_for_ever_for_others(line: Line) -> None:
    line.far.setblocking(False)
    for _ in range(100):
        line.wake.send(b"\0")
    for _ in range(40):
        assert line.select(0.0) == [line.wake]
        line.sock.send(b"x")
    assert len(line.far.recv(100)) >= 16


def test_answers_are_seen_while_requests_keep_coming(line: Line) -> None:
    for _ in range(100):
        line.wake.send(b"\0")
    line.far.sendall(HANDSHAKE)
    seen = 0
    for _ in range(40):
        seen += line.sock in line.select(0.0)
        line.sock.send(b"x")
    assert seen


def test_an_answer_after_the_last_request_waits_for_nothing(line: Line) -> None:
    # A partial frame, and a request that is still in the buffer: waiting for the rest must send it first.
    line.sock.send(b"request")
    thread = elsewhere(lambda: line.far.sendall(line.far.recv(100)))
    assert line.handler.select([line.sock], [], [], 5.0)[0] == [line.sock]
    assert line.sock.recv(100) == b"request"
    thread.join()


def test_a_full_network_is_waited_for_with_a_limit(line: Line) -> None:
    line.wake.send(b"\0")
    while line.handler.select([], [line.sock], [], 0.01)[1]:
        line.sock.send(bytes(300_000))
    assert line.select(0.0) == [line.wake]  # answers and pings go on meanwhile

    def drain() -> None:
        line.far.settimeout(0.2)
        with contextlib.suppress(TimeoutError):
            while line.far.recv(1_000_000):
                pass

    thread = elsewhere(drain)
    assert line.handler.select([], [line.sock], [], 5.0)[1] == [line.sock]
    line.wake.recv(1)
    wait_until(lambda: line.select(0.01) == [] and not line.sock._out, 5.0, "all has left")
    thread.join()


def test_nothing_to_read_is_said_in_the_way_that_kazoo_knows(line: Line) -> None:
    with pytest.raises(ssl.SSLWantReadError) as error:
        line.sock.recv(4)
    assert error.value.errno == ssl.SSL_ERROR_WANT_READ


def test_the_end_of_the_stream_is_told(line: Line) -> None:
    line.far.close()
    assert line.select() == [line.sock]
    assert line.sock.recv(4) == b""
    assert line.broken == [None]


def test_a_broken_connection_is_told_when_sending(line: Line) -> None:
    line.far.close()
    line.sock.send(b"x")
    with pytest.raises(BrokenPipeError):
        line.select()
    assert isinstance(line.broken[0], BrokenPipeError)


@pytest.mark.parametrize("discard", [True, False])
def test_dropping_wakes_the_thread_that_waits(line: Line, *, discard: bool) -> None:
    timer = threading.Timer(0.05, lambda: line.sock.drop(discard=discard))
    timer.start()
    before = time.monotonic()
    assert line.select(5.0) == [line.sock]
    assert time.monotonic() - before < 2.0
    assert line.sock.recv(4) == b""
    timer.join()


@pytest.mark.parametrize("discard", [True, False])
def test_what_a_silent_server_has_not_got_is_discarded(line: Line, *, discard: bool) -> None:
    line.sock.drop(discard=discard)
    linger = line.sock._inner.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)
    assert struct.unpack("ii", linger) == (discard, 0)


def test_dropping_what_is_closed_does_nothing(line: Line) -> None:
    line.sock.close()
    line.sock.close()
    line.sock.drop(discard=True)
    assert line.sock.fileno() == -1


# --- the wake-up ----------------------------------------------------------------------------------------------------


def test_a_request_wakes_the_thread_that_waits(line: Line) -> None:
    timer = threading.Timer(0.05, lambda: line.wake.send(b"\0"))
    timer.start()
    before = time.monotonic()
    assert line.select(5.0) == [line.wake]
    assert time.monotonic() - before < 2.0
    assert line.wake.recv(1) == b"\0"
    assert line.select(0.0) == []
    timer.join()


def test_a_late_rousing_is_no_time_out(line: Line) -> None:
    # kazoo takes an empty answer for silence and may end the connection.
    assert line.wake.fall_asleep()
    line.wake.send(b"\0")
    line.wake.wake_up()
    line.wake.recv(1)
    timer = threading.Timer(0.1, lambda: line.far.sendall(b"answer"))
    timer.start()
    assert line.select(5.0) == [line.sock]
    timer.join()


def test_counting_never_blocks(line: Line) -> None:
    for _ in range(10_000):  # kazoo's own blocks at 278
        line.wake.send(b"\0")
    for _ in range(10_000):
        line.wake.recv(1)
    with pytest.raises(BlockingIOError):
        line.wake.recv(1)


def test_no_request_is_slept_through(line: Line) -> None:
    received: list[bytes] = []

    def send() -> None:
        for _ in range(2000):
            line.wake.send(b"\0")

    threads = [elsewhere(send) for _ in range(3)]
    while len(received) < 6000:
        assert line.select(5.0) == [line.wake]
        received.append(line.wake.recv(1))
    for thread in threads:
        thread.join()
    assert line.select(0.0) == []


def test_nobody_falls_asleep_over_a_request(line: Line) -> None:
    assert line.wake.fall_asleep()
    line.wake.wake_up()
    line.wake.send(b"\0")
    assert not line.wake.fall_asleep()


def test_a_closed_wake_up_refuses(line: Line) -> None:
    line.wake.close()
    line.wake.close()
    with pytest.raises(OSError, match="closed"):
        line.wake.send(b"\0")


# --- the handler ----------------------------------------------------------------------------------------------------


def test_the_first_attempt_after_a_connection_does_not_wait() -> None:
    pauses: list[int] = []

    def pause(attempt: int) -> float:
        pauses.append(attempt)
        return 0.0

    clock = [0.0]
    handler = Handler(10.0, lambda: clock[0], pause=pause)
    for _ in range(3):
        handler.sleep_func(0.1)
    assert pauses == [1, 2]
    handler._handshaken(10.0)
    clock[0] = 60.0
    handler.sleep_func(0.1)
    assert pauses == [1, 2]
    handler.sleep_func(0.1)
    assert pauses == [1, 2, 1]


def test_a_server_that_greets_and_hangs_up_gets_no_storm() -> None:
    pauses: list[int] = []

    def pause(attempt: int) -> float:
        pauses.append(attempt)
        return 0.0

    handler = Handler(10.0, lambda: 0.0, pause=pause)
    for _ in range(5):
        handler._handshaken(10.0)
        handler.sleep_func(0.1)
    assert pauses == [1, 2, 3, 4]


def test_an_expired_session_does_not_wait_for_the_next() -> None:
    pauses: list[int] = []

    def pause(attempt: int) -> float:
        pauses.append(attempt)
        return 0.0

    handler = Handler(10.0, lambda: 0.0, pause=pause)
    handler.sleep_func(0.1)
    handler.sleep_func(0.1)
    handler._handshaken(0.0)
    handler.sleep_func(0.1)
    assert pauses == [1]
    assert handler.session_timeout == 10.0


def test_the_pauses_double_up_to_a_second() -> None:
    for attempt, most in ((1, 0.1), (2, 0.2), (3, 0.4), (4, 0.8), (5, 1.0), (1000, 1.0)):
        assert all(most / 2 <= default_pause(attempt) <= most for _ in range(20))


def test_a_pause_ends_when_the_client_is_closed() -> None:
    handler = Handler(10.0, time.monotonic, pause=lambda _attempt: 60.0)
    handler.sleep_func(0.1)
    timer = threading.Timer(0.05, handler.stop)
    timer.start()
    before = time.monotonic()
    handler.sleep_func(0.1)
    assert time.monotonic() - before < 5.0
    timer.join()


def test_a_closed_client_connects_no_more() -> None:
    handler = Handler(10.0, time.monotonic)
    handler.stop()
    with socket.create_server(("127.0.0.1", 0)) as server:
        with pytest.raises(ConnectionAbortedError):
            handler.create_connection(server.getsockname())
        handler.start()
        handler.create_connection(server.getsockname()).close()
    assert handler.last_error == ""


def test_a_connection_that_is_made_while_the_client_is_aborted_is_shut(monkeypatch: pytest.MonkeyPatch) -> None:
    handler = Handler(10.0, time.monotonic)
    near, far = socket.socketpair()

    def connected_just_now(*_args: object) -> socket.socket:
        handler.abort()
        return near

    monkeypatch.setattr(handler, "_open", connected_just_now)
    with far, contextlib.closing(handler.create_connection(("server", 2181))) as sock:
        assert sock.recv(1) == b""


def test_a_silent_server_is_passed_over_for_a_round_while_there_are_others() -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        handler = Handler(10.0, time.monotonic, lambda: 2)
        handler.create_connection(one.getsockname()).close()
        handler.drop()
        with pytest.raises(ConnectionRefusedError, match="silent"):
            handler.create_connection(one.getsockname())
        handler.sleep_func(0.1)
        with pytest.raises(ConnectionRefusedError, match="silent"):
            handler.create_connection(one.getsockname())
        handler.create_connection(two.getsockname()).close()
        handler.sleep_func(0.1)
        handler.create_connection(one.getsockname()).close()


def test_a_silent_server_is_forgiven_when_another_has_answered() -> None:
    with socket.create_server(("127.0.0.1", 0)) as one:
        handler = Handler(10.0, time.monotonic, lambda: 2)
        handler.create_connection(one.getsockname()).close()
        handler.drop()
        handler._handshaken(10.0)
        handler.create_connection(one.getsockname()).close()


def test_time_to_connect_is_a_third_of_the_session_divided_among_the_servers() -> None:
    handler = Handler(12.0, time.monotonic, lambda: 2, lambda _attempt: 0.0)
    assert handler._limit(12.0) == 2.0
    handler.sleep_func(0.1)
    assert handler._limit(12.0) == 2.0
    handler.sleep_func(0.1)
    assert handler._limit(12.0) == 4.0  # a slow network gets more time
    for _ in range(20):
        handler.sleep_func(0.1)
    assert handler._limit(12.0) == 12.0
    handler._handshaken(6.0)
    assert handler._limit(12.0) == 6.0


def test_a_callback_that_raises_does_no_harm(caplog: pytest.LogCaptureFixture) -> None:
    handler = Handler(10.0, time.monotonic)
    called: list[str] = []
    handler.dispatch_callback(Callback("watch", lambda: 1 / 0, ()))
    handler.dispatch_callback(Callback("watch", called.append, ("event",)))
    assert called == ["event"]
    assert "ZeroDivisionError" in caplog.text


def test_a_result_calls_back_at_once() -> None:
    result: AsyncResult = Handler(10.0, time.monotonic).async_result()
    called: list[object] = []
    result.rawlink(lambda done: called.append(done.value))
    result.set(3)
    assert called == [3]


@pytest.mark.parametrize(
    ("hosts", "count"), [("a", 1), ("a:1,b:2", 2), ("a:1,b:2/root,x", 2), (["a", "b", "c"], 3), ("[::1]:2181", 1)]
)
def test_hosts_are_counted(hosts: str | list[str], count: int) -> None:
    assert count_hosts(hosts) == count
