"""Processes that contend for a lock or consume a queue, and a leader that is killed.

The children talk to the parent through a pipe and end when it closes, so that none outlives the benchmark.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Final, Self, final

from kazoo.client import KazooClient

import zkrecipes as zkr
from benchmarks.bench import Bench, contend, kazoo_cycle, our_cycle

__all__ = ["ConsumingProcesses", "ContendingProcesses", "KilledLeader", "consume"]

_START_LIMIT: Final = 30.0
_END_LIMIT: Final = 10.0
_SPAWN: Final = multiprocessing.get_context("spawn")  # a fork would copy the parent's clients


@final
class _Child:
    """A daemon process at the end of a pipe, ready to be used once made."""

    def __init__(self, body: Callable[..., None], *arguments: object) -> None:
        self._pipe, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=body, args=(theirs, *arguments), daemon=True)
        self._process.start()
        theirs.close()
        try:
            self.receive(_START_LIMIT)
        except BaseException:
            self.end()
            raise

    def send(self, value: float) -> None:
        self._pipe.send(value)

    def receive(self, limit: float) -> float:
        if not self._pipe.poll(limit):
            message = f"a child process did not answer within {limit:.0f} s"
            raise TimeoutError(message)
        return float(self._pipe.recv())

    def kill(self) -> None:
        self._process.kill()

    def end(self) -> None:
        self._pipe.close()
        self._process.join(_END_LIMIT)
        if self._process.is_alive():
            self._process.kill()
            self._process.join(_END_LIMIT)
        self._process.close()


def _contender(pipe: Connection, who: str, hosts: str, path: str, threads: int) -> None:
    """Contend for as many seconds as the parent says, and tell the rate; again until the pipe closes."""
    with ExitStack() as stack:
        cycles: list[Callable[[], None]]
        if who == "kazoo":
            other = Bench(hosts, seconds=0, samples=0).kazoo(stack)
            cycles = [kazoo_cycle(other, path) for _ in range(threads)]
        else:
            client = stack.enter_context(zkr.connect(hosts))
            local = zkr.LocalHandoff() if "local" in who else None
            cycles = [our_cycle(zkr.Lock(client, path, local_handoff=local))] * threads
        pipe.send(0.0)
        round_: threading.Thread | None = None
        while (seconds := _next(pipe)) is not None:
            # In a thread of its own, so that this one sees the pipe close in the midst of a round.
            round_ = threading.Thread(target=_one_round, args=(pipe, cycles, seconds))
            round_.start()
        if round_ is not None and round_.is_alive():
            # The parent has died, perhaps with the server: the contenders would wait for ever.
            os._exit(1)


def _one_round(pipe: Connection, cycles: list[Callable[[], None]], seconds: float) -> None:
    pipe.send(contend(cycles, seconds))


def _next(pipe: Connection) -> float | None:
    """What the parent sends; None when the pipe has closed."""
    try:
        return float(pipe.recv())
    except (EOFError, OSError):
        return None


@final
class ContendingProcesses:
    """Some processes, each with some threads, that contend for one lock. Use it in a `with` block.

    Args:
        who: "ours", "ours, local hand-off" or "kazoo".
        hosts: The server.
        path: The lock.
        processes: How many.
        threads: How many in each.
    """

    def __init__(self, who: str, hosts: str, path: str, processes: int, threads: int) -> None:
        self._arguments = (who, hosts, path, threads)
        self._count = processes
        self._children: list[_Child] = []

    def __enter__(self) -> Self:
        try:
            for _ in range(self._count):
                self._children.append(_Child(_contender, *self._arguments))
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        for child in self._children:
            child.end()

    def rate(self, seconds: float) -> float:
        """Contend for that long; cycles per second of all together."""
        for child in self._children:
            child.send(seconds)
        return sum(child.receive(seconds + _START_LIMIT) for child in self._children)


def consume(queue: zkr.Queue, prefetch: int, *, items: int | None = None, seconds: float = _START_LIMIT) -> int:
    """Take and acknowledge so many items, or for so many seconds; how many it were."""
    done = 0
    with queue.consume(prefetch) as claims:
        # Where there are too few items, it ends all the same.
        end = threading.Timer(seconds + _END_LIMIT, claims.close)
        end.start()
        start = time.monotonic()
        try:
            for claim in claims:
                with claim:
                    done += 1
                if done == items or time.monotonic() - start > seconds:
                    break
        finally:
            end.cancel()
    return done


def _consumer(pipe: Connection, hosts: str, path: str, prefetch: int) -> None:
    """Consume for as many seconds as the parent says, and tell the rate; again until the pipe closes."""
    with zkr.connect(hosts) as client:
        queue = zkr.Queue(client, path)
        pipe.send(0.0)
        while (seconds := _next(pipe)) is not None:
            start = time.monotonic()
            done = consume(queue, prefetch, seconds=seconds)
            pipe.send(done / (time.monotonic() - start))


@final
class ConsumingProcesses:
    """Some processes that consume one queue. Use it in a `with` block.

    Args:
        hosts: The server.
        path: The queue.
        processes: How many.
        prefetch: Of each.
    """

    def __init__(self, hosts: str, path: str, processes: int, prefetch: int) -> None:
        self._arguments = (hosts, path, prefetch)
        self._count = processes
        self._stack = ExitStack()
        self._children: list[_Child] = []

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for _ in range(self._count):
                child = _Child(_consumer, *self._arguments)
                stack.callback(child.end)
                self._children.append(child)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def rates(self, seconds: float) -> list[float]:
        """Consume for that long; items per second of each."""
        for child in self._children:
            child.send(seconds)
        return [child.receive(seconds + _START_LIMIT) for child in self._children]


def _leader(pipe: Connection, who: str, hosts: str, path: str, session_timeout: float) -> None:
    """Become the leader, say so, and lead until the process is killed or the pipe closes."""
    with ExitStack() as stack:
        if who == "kazoo":
            client = Bench(hosts, seconds=0, samples=0).kazoo(stack, session_timeout=session_timeout)
            stack.callback(_lead_with_kazoo(client, path))
        else:
            ours = stack.enter_context(zkr.connect(hosts, session_timeout=session_timeout))
            stack.enter_context(zkr.Election(ours, path).campaign())
        pipe.send(0.0)
        _next(pipe)


def _lead_with_kazoo(client: KazooClient, path: str) -> Callable[[], None]:
    """Lead in a thread until the returned function is called."""
    leads, end = threading.Event(), threading.Event()

    def work() -> None:
        leads.set()
        end.wait()

    threading.Thread(target=client.Election(path).run, args=(work,), daemon=True).start()
    leads.wait(_START_LIMIT)
    return end.set


@final
class KilledLeader:
    """A process that leads until it is killed. Use it in a `with` block.

    Args:
        who: "ours" or "kazoo".
        hosts: The server.
        path: The election.
        session_timeout: Of the leader, in seconds.
    """

    def __init__(self, who: str, hosts: str, path: str, session_timeout: float) -> None:
        self._child = _Child(_leader, who, hosts, path, session_timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._child.end()

    def kill(self) -> None:
        """SIGKILL: its socket closes, its session lives on until the server expires it."""
        self._child.kill()
