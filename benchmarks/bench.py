"""What the entries share: the server, fresh paths, kazoo's and Curator's clients, threads that contend."""

from __future__ import annotations

import itertools
import os
import statistics
import struct
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Final, final

from kazoo.client import KazooClient

import zkrecipes as zkr
from tests.interop.peer import CuratorPeer, PeerError, missing
from zkrecipes.testing.raw import EPHEMERAL, SEQUENCE, RawClient, create_payload, text

__all__ = [
    "TICK",
    "Bench",
    "contend",
    "kazoo_cycle",
    "our_cycle",
    "raw_client",
    "raw_cycle",
    "repeat",
    "round_trip",
    "set_payload",
]

TICK: Final = 1.0
"""The server's tickTime, in seconds."""

_ROUND_TRIPS: Final = 200

_WARM_UP: Final = 2.0
"""Java compiles what is used often while it runs: a cold peer is three times slower. In seconds."""


@final
class Bench:
    """One run of the benchmark.

    Args:
        hosts: The server.
        seconds: How long one measure of a rate takes.
        samples: How many take-overs one measure of a time is the median of.
    """

    def __init__(self, hosts: str, *, seconds: float, samples: int) -> None:
        self.hosts = hosts
        self.seconds = seconds
        self.samples = samples
        self.left_out: set[str] = set()
        self._paths = itertools.count(1)

    def path(self, name: str) -> str:
        """A path that nobody has used."""
        return f"/bench/{name}-{next(self._paths)}"

    def kazoo(self, stack: ExitStack, *, session_timeout: float = 10.0) -> KazooClient:
        """A started kazoo client, stopped with the stack."""
        client = KazooClient(self.hosts, timeout=session_timeout)
        client.start()
        stack.callback(client.close)
        stack.callback(client.stop)
        return client

    def server_version(self) -> str:
        """As "3.8.0"."""
        with ExitStack() as stack:
            return ".".join(str(part) for part in self.kazoo(stack).server_version())

    def curator(self, stack: ExitStack, count: int = 1) -> list[CuratorPeer]:
        """That many warm Curator processes; none where there is no Curator, which is then reported.

        Raises:
            PeerError: There is no Curator, and ZKRECIPES_TEST_REQUIRE says that nothing may be left out.
        """
        reason = missing()
        if reason is None:
            peers = [stack.enter_context(CuratorPeer(self.hosts)) for _ in range(count)]
            for peer in peers:
                peer.bench_handoffs(self.path("warm-up"), 1, _WARM_UP).result()
            return peers
        if os.environ.get("ZKRECIPES_TEST_REQUIRE") == "all":
            raise PeerError(reason)
        self.left_out.add(reason)
        return []


def raw_client(bench: Bench, stack: ExitStack) -> RawClient:
    """A session on a bare socket, closed with the stack."""
    host, _, port = bench.hosts.partition(":")
    client = RawClient((host, int(port)), session_timeout=30.0)
    stack.callback(client.close_session)
    return client


def raw_cycle(client: RawClient, parent: str) -> None:
    """What a lock needs at least: create a node and list the line in one flight, then delete the node."""
    client.send("create", create_payload(f"{parent}/raw-", flags=EPHEMERAL | SEQUENCE))
    client.send("getChildren", text(parent) + b"\0")
    created = client.receive()
    client.receive()
    client.call("delete", created.body + struct.pack(">i", -1))


def round_trip(raw: RawClient) -> float:
    """Median raw round trip, in milliseconds."""
    times: list[float] = []
    for _ in range(_ROUND_TRIPS):
        start = time.monotonic()
        raw.exists("/")
        times.append(time.monotonic() - start)
    return statistics.median(times) * 1000


def set_payload(path: str, data: bytes) -> bytes:
    """The body of a setData request, whatever the version."""
    return text(path) + text(data) + struct.pack(">i", -1)


def our_cycle(lock: zkr.Lock) -> Callable[[], None]:
    """One cycle of our lock."""

    def cycle() -> None:
        with lock.acquire():
            pass

    return cycle


def kazoo_cycle(client: KazooClient, path: str) -> Callable[[], None]:
    """One cycle of kazoo's lock: an object used again and again, by one thread only, as it must be."""
    lock = client.Lock(path)

    def cycle() -> None:
        lock.acquire()
        lock.release()

    return cycle


def repeat(cycle: Callable[[], object], seconds: float) -> float:
    """Do the cycle for that long; how often per second."""
    start = time.monotonic()
    done = 0
    while (now := time.monotonic()) - start < seconds:
        cycle()
        done += 1
    return done / (now - start)


def contend(cycles: Sequence[Callable[[], None]], seconds: float) -> float:
    """Do each cycle for that long in a thread of its own; how often per second all together.

    Raises:
        RuntimeError: A thread failed; its error is the cause.
    """
    done = [0] * len(cycles)
    failures: list[BaseException] = []
    line = threading.Barrier(len(cycles) + 1)

    def work(index: int) -> None:
        try:
            line.wait()
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                cycles[index]()
                done[index] += 1
        except BaseException as error:  # noqa: BLE001  # told to the caller's thread
            failures.append(error)

    threads = [threading.Thread(target=work, args=(index,), name=f"contend-{index}") for index in range(len(cycles))]
    for thread in threads:
        thread.start()
    line.wait()
    start = time.monotonic()
    for thread in threads:
        thread.join()
    elapsed = time.monotonic() - start
    if failures:
        message = f"a contending thread failed: {failures[0]!r}"
        raise RuntimeError(message) from failures[0]
    return sum(done) / elapsed
