"""Configuration: reading what is in force, publishing, and how soon a release is told to another instance."""

from __future__ import annotations

import functools
import json
import statistics
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final

from kazoo.client import KazooClient
from kazoo.recipe.watchers import DataWatch
from pydantic import BaseModel

import zkrecipes as zkr
from benchmarks.bench import Bench, repeat
from benchmarks.harness import Measure, Unit, entry

_LIMIT: Final = 30.0
_REST: Final = 0.0005
_READS: Final = 1000


class Database(BaseModel, frozen=True):
    """A part of the document."""

    host: str = "localhost"
    pool: int = 1


class Settings(BaseModel, frozen=True):
    """A document of some twenty values."""

    database: Database = Database()
    features: dict[str, bool] = {f"feature-{number}": number % 2 == 0 for number in range(20)}


def _config(stack: ExitStack, hosts: str, path: str) -> zkr.Config[Settings]:
    client = stack.enter_context(zkr.connect(hosts))
    return stack.enter_context(zkr.Config(client, path, Settings, keep=10))


def _document(bench: Bench, stack: ExitStack) -> str:
    path = bench.path("config")
    bench.kazoo(stack).create(path, Settings().model_dump_json().encode(), makepath=True)
    return path


class _Holder:
    """What a program without us has: an attribute with the newest instance."""

    def __init__(self) -> None:
        self.current = Settings()


@entry("config-current", "Config: reading a value of what is in force", Unit.PER_SECOND)
def config_current(bench: Bench, stack: ExitStack) -> dict[str, Measure]:
    """`config.current.database.pool`, beside the same on a plain attribute, which is the floor."""
    config, plain = _config(stack, bench.hosts, _document(bench, stack)), _Holder()

    def ours() -> None:
        for _ in range(_READS):
            _ = config.current.database.pool

    def floor() -> None:
        for _ in range(_READS):
            _ = plain.current.database.pool

    return {
        "ours": lambda: repeat(ours, bench.seconds) * _READS,
        "a plain attribute": lambda: repeat(floor, bench.seconds) * _READS,
    }


def _publishing(config: zkr.Config[Settings]) -> Callable[[], None]:
    def publish() -> None:
        pool = config.current.database.pool + 1
        config.publish(Settings(database=Database(pool=pool)), reason="bench")

    return publish


def _kazoo_publishing(client: KazooClient, path: str) -> Callable[[], None]:
    """The least that leaves a record: one transaction that sets the document and creates a node beside it."""

    def publish() -> None:
        stat = client.exists(path)
        document = Settings(database=Database(pool=stat.version + 2)).model_dump_json()
        transaction = client.transaction()
        transaction.set_data(path, document.encode(), version=stat.version)
        transaction.create(f"{path}-releases/{stat.version:010}", json.dumps({"document": document}).encode())
        for result in transaction.commit():
            if isinstance(result, Exception):
                raise result

    return publish


@entry("config-publish", "Config: publish", Unit.PER_SECOND)
def config_publish(bench: Bench, stack: ExitStack) -> dict[str, Measure]:
    """Ours validates, records who and why, deletes old records, and applies it; kazoo's row only writes a record."""
    ours = _config(stack, bench.hosts, _document(bench, stack))
    path = _document(bench, stack)
    other = bench.kazoo(stack)
    other.ensure_path(f"{path}-releases")
    return {
        "ours": lambda: repeat(_publishing(ours), bench.seconds),
        "kazoo": lambda: repeat(_kazoo_publishing(other, path), bench.seconds),
    }


class _Told:
    """Publishes numbers, and waits until a callback elsewhere has told each."""

    def __init__(self, publish: Callable[[int], object]) -> None:
        self._publish = publish
        self._number = 1
        self._event = threading.Event()
        self._at = 0.0

    def told(self, number: int) -> None:
        """Called by the callback."""
        at = time.perf_counter()
        if number == self._number:
            self._at = at
            self._event.set()

    def median(self, samples: int) -> float:
        """Milliseconds from the call to the callback.

        Raises:
            TimeoutError: It was not told.
        """
        times: list[float] = []
        for _ in range(samples):
            self._number += 1
            self._event.clear()
            time.sleep(_REST)
            start = time.perf_counter()
            self._publish(self._number)
            if not self._event.wait(_LIMIT):
                message = f"the release was not told within {_LIMIT:.0f} s"
                raise TimeoutError(message)
            times.append(self._at - start)
        return statistics.median(times) * 1000


@entry("config-change", "Config: from publish to the callback of another instance", Unit.MILLISECONDS)
def config_change(bench: Bench, stack: ExitStack) -> dict[str, Measure]:
    """Kazoo's row: a plain `set`, and a DataWatch whose callback validates the same model: no record, no veto."""
    path, theirs = _document(bench, stack), _document(bench, stack)
    publisher, instance = _config(stack, bench.hosts, path), _config(stack, bench.hosts, path)
    ours = _Told(lambda number: publisher.publish(Settings(database=Database(pool=number))))
    instance.on_change("database.pool")(lambda change: ours.told(change.new))
    writer = bench.kazoo(stack)
    kazoo = _Told(lambda n: writer.set(theirs, Settings(database=Database(pool=n)).model_dump_json().encode()))

    def validate(data: bytes, _stat: object) -> None:
        kazoo.told(Settings.model_validate_json(data).database.pool)

    DataWatch(bench.kazoo(stack), theirs, validate)
    samples = bench.samples * 5
    return {"ours": functools.partial(ours.median, samples), "kazoo": functools.partial(kazoo.median, samples)}
