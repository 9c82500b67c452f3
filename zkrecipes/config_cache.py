"""The last known good documents on disk, for a start while ZooKeeper is away.

Promises: the file is whole or not there (written beside, synchronised, renamed), only its owner can read it, and a
damaged one, or one of another configuration, is refused. A disk that is full costs the cache, never the service.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

from zkrecipes.known import Seen
from zkrecipes.port import Stat

__all__ = ["Cache", "CacheError", "Cached"]

FORMAT: Final = 1


class CacheError(Exception):
    """The cache cannot be read or written. The message says why."""


@final
@dataclass(frozen=True, slots=True)
class Cached:
    """What a cache held.

    Attributes:
        document: The application's own.
        shared: The global nodes, by path.
        age: Seconds since it was last known to be the newest, by the machine's clock; 0.0 if that was set back.
    """

    document: Seen
    shared: Mapping[str, Seen]
    age: float


@final
class Cache:
    """One file.

    Args:
        file: Its path; the directory must exist.
        path: The configuration's full path on the server: another one's file is refused.
    """

    def __init__(self, file: Path, path: str) -> None:
        self.file = file
        self.lock = threading.Lock()
        """Whoever saves holds it from before he looks what to save, so that the newest is saved last."""
        self._path = path

    def save(self, document: Seen, shared: Mapping[str, Seen | None]) -> None:
        """Write it, atomically.

        Raises:
            CacheError: It cannot be written; what was there before is there still.
        """
        nodes = {"document": document, **{f"global:{path}": seen for path, seen in shared.items() if seen is not None}}
        content = {
            "path": self._path,
            "saved": time.time(),
            "nodes": {name: _entry(seen) for name, seen in nodes.items()},
        }
        text = json.dumps(content, sort_keys=True)
        whole = json.dumps({"format": FORMAT, "sha256": _checksum(text), "content": text})
        try:
            self._replace(whole.encode())
        except OSError as error:
            message = f"the cache {self.file} cannot be written: {error.strerror or error}"
            raise CacheError(message) from error

    def _replace(self, raw: bytes) -> None:
        # mkstemp makes the file for its owner only (0600), in the same directory, so that the rename is atomic.
        descriptor, name = tempfile.mkstemp(prefix=f".{self.file.name}.", dir=self.file.parent)
        try:
            with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor
                file.write(raw)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self.file)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(name).unlink()
            raise
        with contextlib.suppress(OSError):  # not every file system can synchronise a directory
            directory = os.open(self.file.parent, os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)

    def load(self) -> Cached:
        """Read it.

        Raises:
            CacheError: It is not there, damaged, or of another configuration.
        """
        try:
            raw = self.file.read_bytes()
        except OSError as error:
            message = f"the cache {self.file} cannot be read: {error.strerror or error}"
            raise CacheError(message) from error
        try:
            outer = json.loads(raw)
            if outer["format"] != FORMAT:
                message = f"the cache {self.file} has a format that this version of zkrecipes does not know"
                raise CacheError(message)
            if outer["sha256"] != _checksum(outer["content"]):
                message = f"the cache {self.file} is damaged: its checksum is wrong"
                raise CacheError(message)
            content = json.loads(outer["content"])
            if content["path"] != self._path:
                message = f"the cache {self.file} is of {content['path']}, not of {self._path}"
                raise CacheError(message)
            nodes = {name: _seen(entry) for name, entry in content["nodes"].items()}
            age = max(0.0, time.time() - float(content["saved"]))
            document = nodes.pop("document")
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            message = f"the cache {self.file} is damaged"
            raise CacheError(message) from error
        return Cached(document, {name.removeprefix("global:"): seen for name, seen in nodes.items()}, age)


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _entry(seen: Seen) -> dict[str, Any]:
    return {"data": base64.b64encode(seen.data).decode("ascii"), "stat": list(seen.stat)}


def _seen(entry: Mapping[str, Any]) -> Seen:
    return Seen(base64.b64decode(entry["data"], validate=True), Stat(*map(int, entry["stat"])))
