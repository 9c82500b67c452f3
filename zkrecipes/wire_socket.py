"""The two objects that kazoo's connection thread waits for: the socket, and the wake-up for new requests.

kazoo makes about ten system calls for one request: it selects before each send and each of two receives, and passes a
byte through a socket pair. Here reading is done ahead, requests that are queued together leave in one send, and the
wake-up is a counter that costs a system call only when the thread sleeps.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import ssl
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, final

__all__ = ["BufferedSocket", "WakeUp", "wait_for"]

_READ_AHEAD: Final = 64 * 1024
_OUT_LIMIT: Final = 1024 * 1024

# Requests that may wait in the buffer for others to join them.
_COALESCED: Final = 16

# Length of the frame, protocol version, session timeout in milliseconds, session id.
_HANDSHAKE: Final = struct.Struct("!iiiq")

_BROKEN: Final = select.POLLHUP | select.POLLERR | select.POLLNVAL


@final
class WakeUp:
    """Wakes the connection thread; stands for both ends of the socket pair that kazoo asks for.

    `send` counts, from any thread and without ever blocking, and writes to the event only while the thread sleeps.
    While it does, one other thread may `enter` in its place, and write a request itself: that saves two changes of
    threads for each request.
    """

    PATIENCE = 2.0
    """Seconds that the thread waits for another one that has entered, and has to write one request."""

    def __init__(self) -> None:
        self._tokens: deque[None] = deque()
        self._lock = threading.Lock()
        self._asleep = False
        self._muted = False
        self._closed = False
        # Held by the connection thread while it is awake, and by who has entered in its place.
        self._awake = threading.Lock()
        self._awake.acquire()
        if hasattr(os, "eventfd"):
            self._read_end = self._write_end = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        else:  # pragma: no cover - not on Linux
            self._read_end, self._write_end = os.pipe()
            for end in (self._read_end, self._write_end):
                os.set_blocking(end, False)

    def send(self, data: bytes) -> int:
        """Count one request.

        Raises:
            OSError: It is closed.
        """
        if self._closed:
            raise OSError(errno.EBADF, "the connection has been closed")
        # Counted first, looked second: the sleeper announces itself first and counts second, so one of us sees it.
        self._tokens.append(None)
        if self._asleep and not self._muted:
            self._rouse()
        return len(data)

    def recv(self, _size: int) -> bytes:
        """Take one request off the count.

        Raises:
            BlockingIOError: There is none.
        """
        try:
            self._tokens.pop()
        except IndexError:
            raise BlockingIOError from None
        return b"\0"

    def ready(self) -> bool:
        """Whether there is a request."""
        return bool(self._tokens)

    def fileno(self) -> int:
        """The descriptor to poll while asleep."""
        return self._read_end

    def fall_asleep(self) -> bool:
        """Announce that the thread is going to poll; False if there is a request already."""
        self._asleep = True
        if self._tokens:
            self._asleep = False
            return False
        self._awake.release()
        return True

    def wake_up(self) -> None:
        """The thread, having announced its sleep, has polled; waits until who has entered has left.

        Raises:
            ConnectionAbortedError: It never left.
        """
        if not self._awake.acquire(timeout=self.PATIENCE):
            # An interrupt (Ctrl-C) came in the one moment in which it costs the place: a new place, a new connection.
            self._awake = threading.Lock()
            self._awake.acquire()
            self._asleep = self._muted = False
            raise ConnectionAbortedError(errno.ECONNABORTED, "a thread was interrupted while it wrote")
        self._asleep = False

    def drain(self) -> None:
        """The descriptor was ready; now it is not."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._read_end, 8)

    def enter(self) -> threading.Lock | None:
        """Take the place of the sleeping thread, until `leave`; None if it does not sleep. Never waits."""
        place = self._awake
        if self._asleep and place.acquire(blocking=False):
            if self._asleep:
                self._muted = True
                return place
            place.release()
        return None

    def leave(self, place: threading.Lock, *, unfinished: bool) -> None:
        """Give the place back that `enter` gave; with something `unfinished`, the thread goes on with it."""
        self._muted = False
        place.release()
        if unfinished or self._tokens:
            self._rouse()

    def close(self) -> None:
        """Free the descriptors; may be called again."""
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self._read_end)
                if self._write_end != self._read_end:
                    os.close(self._write_end)

    def _rouse(self) -> None:
        # The lock keeps the descriptor from being closed, and given to somebody else, between the look and the write.
        with self._lock:
            if not self._closed:
                self._asleep = False
                with contextlib.suppress(BlockingIOError):
                    os.write(self._write_end, b"\1\0\0\0\0\0\0\0")


@final
class BufferedSocket:
    """A connected socket, plain or TLS, that reads ahead and sends together what is queued together.

    Used by the connection thread alone, but for `drop`.

    Attributes:
        address: Host and port of the server.
        since: A time before the handshake was sent, by the clock given; None until then.
        handshaking: Whether the server's handshake is still to come.
        established: Whether kazoo has reached its main loop: handshake and authentication are over.
    """

    def __init__(
        self,
        inner: socket.socket,
        address: tuple[str, int],
        now: Callable[[], float],
        on_handshake: Callable[[float], None],
        on_broken: Callable[[BufferedSocket, OSError | None], None],
    ) -> None:
        self.address = address
        self.since: float | None = None
        self.handshaking = True
        self.established = False
        self._inner = inner
        self._tls = inner if isinstance(inner, ssl.SSLSocket) else None
        self._now = now
        self._on_handshake = on_handshake
        self._on_broken = on_broken
        self._in = b""
        self._at = 0
        self._first = b""
        self._out = bytearray()
        self._joined = 0
        self._wants_write = False
        self._ended = False
        self._lock = threading.Lock()
        self._closed = False
        self._alone = select.poll()
        self._alone.register(inner, select.POLLIN)
        self._with_wake: select.poll | None = None
        self._mask = select.POLLIN

    # --- what kazoo calls -----------------------------------------------------------------------------------------

    def fileno(self) -> int:
        """The descriptor; -1 once closed."""
        return self._inner.fileno()

    def getpeername(self) -> tuple[str, int]:
        """Host and port of the server."""
        return self.address

    def setblocking(self, flag: bool) -> None:  # noqa: FBT001 - the signature of sockets
        """Make it blocking or not."""
        self._inner.setblocking(bool(flag))

    def pending(self) -> int:
        """How many bytes can be received without waiting."""
        return len(self._in) - self._at or (0 if self._tls is None else self._tls.pending())

    def recv(self, size: int) -> bytes:
        """Up to `size` bytes; none at the end of the stream.

        Raises:
            ssl.SSLWantReadError: There is nothing yet; kazoo knows this one and asks again.
            OSError: The connection is broken.
        """
        if self._at >= len(self._in) and not self.fill():
            raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "nothing to read yet")
        chunk = self._in[self._at : self._at + size]
        self._at += len(chunk)
        return chunk

    def send(self, data: bytes | memoryview) -> int:
        """Take a request into the buffer; `flush` sends it."""
        if self.since is None:
            self.since = self._now()
        self._out += data
        self._joined += 1
        return len(data)

    def close(self) -> None:
        """Close it; may be called again."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._inner.close()

    # --- from any thread ------------------------------------------------------------------------------------------

    def drop(self, *, discard: bool) -> None:
        """End the connection, which wakes the connection thread.

        With `discard`, what has not left yet is thrown away, and cannot arrive later either, when the network heals.
        """
        with self._lock, contextlib.suppress(OSError):
            if not self._closed:
                if discard:
                    self._inner.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                # SSLSocket.shutdown would first take the TLS layer away under the thread that reads.
                socket.socket.shutdown(self._inner, socket.SHUT_RDWR)

    # --- for the handler's select ---------------------------------------------------------------------------------

    @property
    def unsent(self) -> bool:
        """Whether something in the buffer has not left yet."""
        return bool(self._out)

    def may_join(self) -> bool:
        """Whether further requests may still join those in the buffer."""
        return self._joined < _COALESCED and len(self._out) < _READ_AHEAD

    def flush(self) -> None:
        """Send what the network takes now.

        Raises:
            OSError: The connection is broken.
        """
        self._joined = 0
        while self._out:
            try:
                sent = self._inner.send(self._out)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            except OSError as error:
                self._on_broken(self, error)
                raise
            del self._out[:sent]

    def has_room(self, timeout: float | None) -> bool:
        """Whether the buffer takes a request; waits at most `timeout` seconds for that."""
        end = None if timeout is None else time.monotonic() + timeout
        while len(self._out) >= _OUT_LIMIT:
            self.flush()
            if len(self._out) >= _OUT_LIMIT:
                writable = select.poll()
                writable.register(self._inner, select.POLLOUT)
                if not writable.poll(_milliseconds(end)) and end is not None and time.monotonic() >= end:
                    return False
        return True

    def poller(self, wake: WakeUp | None) -> select.poll:
        """The registrations: this socket, with the wake-up if there is one."""
        mask = select.POLLIN | (select.POLLOUT if self._out or self._wants_write else 0)
        if wake is not None and self._with_wake is None:
            self._with_wake = select.poll()
            self._with_wake.register(self._inner, self._mask)
            self._with_wake.register(wake.fileno(), select.POLLIN)
        if mask != self._mask:
            self._mask = mask
            self._alone.modify(self._inner, mask)
            if self._with_wake is not None:
                self._with_wake.modify(self._inner, mask)
        return self._alone if wake is None or self._with_wake is None else self._with_wake

    def fill(self) -> bool:
        """Read ahead what is there; False if there is nothing (not even the end of the stream).

        Raises:
            OSError: The connection is broken.
        """
        if self._ended:
            return True
        self._wants_write = False
        try:
            self._in = self._inner.recv(_READ_AHEAD)
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        except ssl.SSLWantWriteError:
            self._wants_write = True
            return False
        except OSError as error:
            self._on_broken(self, error)
            raise
        self._at = 0
        if not self._in:
            self._ended = True
            self._on_broken(self, None)
        elif self.handshaking:
            self._look_for_handshake()
        return True

    def _look_for_handshake(self) -> None:
        # kazoo keeps the negotiated timeout to itself, and the lease needs it.
        self._first += self._in
        if len(self._first) >= _HANDSHAKE.size:
            self.handshaking = False
            self._on_handshake(_HANDSHAKE.unpack_from(self._first)[2] / 1000)
            self._first = b""


def wait_for(sock: BufferedSocket, wake: WakeUp | None, timeout: float | None) -> tuple[bool, bool]:
    """Wait for an answer or a request: whether there is one of each. None of them: the time, in seconds, is over."""
    if wake is not None and wake.ready() and sock.may_join():
        return sock.pending() > 0, True
    sock.flush()
    if sock.pending() > 0:
        return True, wake is not None and wake.ready()
    end = None if timeout is None else time.monotonic() + timeout
    while True:
        readable, requested = _poll(sock, wake, end)
        # A late rousing, or room to write, is no reason to return: kazoo takes two empty hands for a time-out.
        if readable or requested or (end is not None and time.monotonic() >= end):
            return readable, requested


def _poll(sock: BufferedSocket, wake: WakeUp | None, end: float | None) -> tuple[bool, bool]:
    poller = sock.poller(wake)
    if wake is None:
        ready = poller.poll(_milliseconds(end))
    elif wake.fall_asleep():
        try:
            ready = poller.poll(_milliseconds(end))
        finally:
            wake.wake_up()
    else:
        ready = poller.poll(0)
    readable = False
    own = sock.fileno()
    for descriptor, events in ready:
        if descriptor != own:
            assert wake is not None
            wake.drain()
            continue
        if events & select.POLLOUT:
            sock.flush()
        # Read at once: kazoo would poll again for each of the two parts of an answer.
        readable = bool(events & (select.POLLIN | _BROKEN)) and sock.fill()
    return readable, wake is not None and wake.ready()


def _milliseconds(end: float | None) -> int | None:
    # Rounded up: a poll that ends just before its time would spin.
    return None if end is None else max(0, int((end - time.monotonic()) * 1000) + 1)
