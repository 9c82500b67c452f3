"""What a listener has told, written down and replayed as a user's program would."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any, final

import zkrecipes as zkr
from zkrecipes.testing import wait_until

__all__ = ["Record", "Replay"]

LIMIT = 10.0


@final
class Replay:
    """A map that is kept by changes alone, and complains of those that cannot be.

    Attributes:
        map: Path to value.
        faults: What was told and cannot be.
    """

    def __init__(self) -> None:
        self.map: dict[str, Any] = {}
        self.faults: list[str] = []
        self._newest: dict[str, tuple[int, int]] = {}
        self._czxids: dict[str, int] = {}

    def take(self, change: zkr.Change[Any]) -> None:
        """The next change."""
        path, kind, stat = change.path, change.kind, change.stat
        if (path in self.map) is (kind is zkr.EventKind.CREATED):
            self.faults.append(f"{kind.name} of {path}, which was {'known' if path in self.map else 'unknown'}")
        if kind is not zkr.EventKind.CREATED and change.old != self.map.get(path):
            self.faults.append(f"{kind.name} of {path} from {change.old!r}, which was {self.map.get(path)!r}")
        if kind is not zkr.EventKind.CHANGED and any(other.startswith(f"{path.rstrip('/')}/") for other in self.map):
            self.faults.append(f"{kind.name} of {path} while something is known below it")
        if kind is zkr.EventKind.DELETED:
            if change.new is not None:
                self.faults.append(f"DELETED of {path} with a new value")
            self.map.pop(path, None)
            return
        if kind is zkr.EventKind.CREATED and change.old is not None:
            self.faults.append(f"CREATED of {path} with an old value")
        if kind is zkr.EventKind.CHANGED and stat.czxid != self._czxids.get(path):
            self.faults.append(f"CHANGED of {path}, which is another node than before")
        newest = self._newest.get(path, (-1, -1))
        # What was new below a node that went is told again behind that one's return.
        if (stat.czxid, stat.mzxid) < newest or (kind is zkr.EventKind.CHANGED and stat.mzxid == newest[1]):
            self.faults.append(f"{kind.name} of {path} out of order")
        self._newest[path] = (stat.czxid, stat.mzxid)
        self._czxids[path] = stat.czxid
        self.map[path] = change.new


@final
class Record:
    """All that a listener tells its callbacks.

    Attributes:
        told: In order: ("created", path, None, new), ("changed", path, old, new), ("deleted", path, old, None),
            "initialized", "stale", "fresh", and the errors themselves.
        replay: The changes, replayed.
        threads: Where the callbacks ran.
    """

    def __init__(self, listener: Any, *, after_initial: bool = False) -> None:
        self.told: list[Any] = []
        self.replay = Replay()
        self.threads: set[int] = set()
        for register in (listener.on_created, listener.on_changed, listener.on_deleted):
            register(self._change, after_initial=after_initial)
        for name in ("initialized", "stale", "fresh"):
            getattr(listener, f"on_{name}")(self._mark(name))
        listener.on_error(self.told.append)

    def _change(self, change: zkr.Change[Any]) -> None:
        self.threads.add(threading.get_ident())
        self.replay.take(change)
        self.told.append((change.kind.value, change.path, change.old, change.new))

    def _mark(self, name: str) -> Callable[[], None]:
        return lambda: self.told.append(name)

    @property
    def changes(self) -> list[tuple[str, str, Any, Any]]:
        """The changes alone."""
        return [each for each in self.told if isinstance(each, tuple)]

    @property
    def errors(self) -> list[Exception]:
        """The errors alone."""
        return [each for each in self.told if isinstance(each, Exception)]

    def marks(self) -> list[str]:
        """ "initialized", "stale" and "fresh" alone."""
        return [each for each in self.told if isinstance(each, str)]

    def wait_for(self, *things: Any, limit: float = LIMIT) -> None:
        """Wait until each of these has been told, in any order."""
        wait_until(lambda: all(each in self.told for each in things), limit, lambda: f"{things} in {self.told}")

    def wait_equal(self, tree: dict[str, Any], limit: float = LIMIT) -> None:
        """Wait until what was told, replayed, is this; and nothing impossible was told."""
        wait_until(lambda: self.replay.map == tree, limit, lambda: f"{self.replay.map} is {tree}; told {self.told}")
        assert not self.replay.faults, f"{self.replay.faults}; told {self.told}"

    def clear(self) -> None:
        """Forget what was told; the replay goes on."""
        self.told.clear()


def replayed(changes: Iterable[zkr.Change[Any]]) -> dict[str, Any]:
    """The map that some changes make."""
    replay = Replay()
    for change in changes:
        replay.take(change)
    assert not replay.faults, replay.faults
    return replay.map
