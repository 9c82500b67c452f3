"""The real Apache Curator, driven from Python: starts CuratorPeer.java and talks to it in lines of JSON.

Needs a JDK and Curator's jars, as Debian ships them (see `PACKAGES`). `missing()` says what is not there. The Java
file is compiled once for each of its versions, into the user's cache directory.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import itertools
import os
import shutil
import subprocess
import tempfile
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, Self, final

from pydantic import BaseModel

if TYPE_CHECKING:
    from types import TracebackType

__all__ = [
    "CuratorLatch",
    "CuratorLock",
    "CuratorPeer",
    "CuratorSelector",
    "Participant",
    "PeerError",
    "class_path",
    "missing",
]

PACKAGES: Final = "default-jdk-headless libcurator-recipes-java"
_JARS: Final = Path("/usr/share/java")
# The manifests of Debian's jars name the jars that they need in turn. slf4j-nop keeps Curator's log quiet.
_NEEDED: Final = ("curator-recipes.jar", "zookeeper.jar", "jackson-databind.jar", "slf4j-nop.jar")
_JAVA: Final = ("CuratorPeer.java", "Caches.java", "Counters.java", "Queues.java")
_SOURCES: Final = tuple(Path(__file__).with_name(name) for name in _JAVA)
_ANSWER_LIMIT: Final = 30.0
_END_LIMIT: Final = 5.0


class PeerError(Exception):
    """Curator raised, did not answer in time, or its process has ended."""


class Participant(BaseModel):
    """One contender as Curator sees it.

    Attributes:
        identity: What it calls itself: the id of a latch or selector, the data of a lock's node.
        leads: Whether Curator takes it for the leader; for locks, whether it is first in the line.
        node: Full path of its node, where Curator tells it.
    """

    identity: str
    leads: bool = False
    node: str = ""


class _Node(BaseModel):
    node: str = ""
    data: str = ""
    identity: str = ""
    leads: bool = False
    czxid: int = 0
    mzxid: int = 0


class _Result(BaseModel):
    session: int = 0
    password: str = ""
    acquired: bool = False
    leads: bool = False
    leader: str = ""
    participants: list[_Node] = []
    seconds: float | list[float] = 0.0
    handoffs: int = 0
    done: bool = False
    nodes: list[_Node] = []
    events: list[str] = []
    values: list[int] = []


class _Answer(BaseModel):
    id: int
    ok: _Result | None = None
    error: str | None = None


def missing() -> str | None:
    """Why Curator cannot be run here, and what to do about it; None if it can."""
    lacking = [name for name in ("java", "javac") if shutil.which(name) is None]
    lacking += [str(_JARS / name) for name in _NEEDED if not (_JARS / name).exists()]
    if not lacking:
        return None
    return f"no Curator peer: {', '.join(lacking)} not found; install with: apt-get install {PACKAGES}"


def class_path() -> str:
    """Curator, the ZooKeeper client, and what they need."""
    return os.pathsep.join(str(_JARS / name) for name in _NEEDED)


def _compiled() -> Path:
    """Directory of the compiled peer; compiles it if this version has not been yet."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "zkrecipes"
    version = hashlib.sha256(b"".join(source.read_bytes() for source in _SOURCES)).hexdigest()[:16]
    target = cache / f"curator-peer-{version}"
    if target.is_dir():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=cache))
    try:
        subprocess.run(
            ["javac", "-nowarn", "-d", str(fresh), "-cp", class_path(), *map(str, _SOURCES)],
            check=True,
            capture_output=True,
            text=True,
            timeout=120,
        )
        fresh.rename(target)
    except subprocess.CalledProcessError as error:
        message = f"the peer does not compile: {error.stderr}"
        raise PeerError(message) from error
    except OSError:
        # Race: another test worker has renamed its own first; both are the same.
        if not target.is_dir():
            raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return target


@final
class CuratorPeer:
    """One Java process with one Curator connection. Use it in a `with` block.

    Args:
        hosts: Connect string.
        session_timeout: In seconds.
        namespace: Curator's namespace: a prefix of all paths, without its first slash.

    Attributes:
        client_id: Its session's id and password, as of kazoo's client: `Server.expire` takes it.
    """

    def __init__(self, hosts: str, *, session_timeout: float = 10.0, namespace: str = "") -> None:
        self._settings = {
            "hosts": hosts,
            "session_ms": round(session_timeout * 1000),
            "namespace": namespace.strip("/"),
        }
        self._numbers = itertools.count(1)
        self._names = itertools.count(1)
        self._lock = threading.Lock()
        self._waiting: dict[int, Future[_Result]] = {}  # guarded by _lock
        self._ended = False  # guarded by _lock
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._log: IO[bytes] | None = None
        self.client_id = 0, b""

    def __enter__(self) -> Self:
        reason = missing()
        if reason is not None:
            raise PeerError(reason)
        command = ["java", "-Xshare:auto", "-XX:TieredStopAtLevel=4", "-Xmx256m"]
        command += ["-cp", os.pathsep.join((str(_compiled()), class_path())), "CuratorPeer"]
        self._log = tempfile.TemporaryFile()  # closed in __exit__
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self._log, text=True)
        self._reader = threading.Thread(target=self._read, name="curator-peer", daemon=True)
        self._reader.start()
        try:
            answer = self.call("connect", limit=_ANSWER_LIMIT, **self._settings)
            self.client_id = answer.session, base64.b64decode(answer.password)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The Java process, while it runs."""
        assert self._process is not None
        return self._process.pid

    def close(self) -> None:
        """Close Curator's connection and end the process; idempotent."""
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            return
        try:
            if process.poll() is None:
                self.send("quit").result(_END_LIMIT)
        except (PeerError, TimeoutError, OSError):
            process.kill()
        with contextlib.suppress(BrokenPipeError):  # it may have ended already
            process.stdin.close()
        try:
            process.wait(_END_LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(_END_LIMIT)
        if self._reader is not None:
            self._reader.join(_END_LIMIT)
        process.stdout.close()
        if self._log is not None:
            self._log.close()
        self._process = None

    def kill(self) -> None:
        """End the process with SIGKILL: its session lives on until the server expires it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(_END_LIMIT)

    def send(self, what: str, **arguments: object) -> Future[_Result]:
        """Send a command; the future gives its answer, or raises PeerError."""
        process = self._process
        future: Future[_Result] = Future()
        number = next(self._numbers)
        with self._lock:
            if self._ended or process is None or process.stdin is None:
                message = f"cannot {what}: the Curator process has ended"
                raise PeerError(message)
            self._waiting[number] = future
            line = _Command(id=number, do=what, **arguments).model_dump_json()
            try:
                process.stdin.write(line + "\n")
                process.stdin.flush()
            except OSError as error:
                message = f"cannot {what}: the Curator process has ended"
                raise PeerError(message) from error
        return future

    def call(self, what: str, *, limit: float = _ANSWER_LIMIT, **arguments: object) -> _Result:
        """Send a command and wait for its answer, at most `limit` seconds."""
        try:
            return self.send(what, **arguments).result(limit)
        except TimeoutError as error:
            message = f"Curator did not answer {what} {arguments} within {limit:.0f} s"
            raise PeerError(message) from error

    def _read(self) -> None:
        process = self._process
        if process is None or process.stdout is None:
            return
        for line in process.stdout:
            answer = _Answer.model_validate_json(line)
            with self._lock:
                future = self._waiting.pop(answer.id)
            if answer.ok is not None:
                future.set_result(answer.ok)
            else:
                future.set_exception(PeerError(answer.error))
        with self._lock:
            self._ended = True
            abandoned = list(self._waiting.values())
            self._waiting.clear()
        for future in abandoned:
            future.set_exception(PeerError(f"the Curator process has ended: {self._last_words()}"))

    def _last_words(self) -> str:
        if self._log is None or self._log.closed:
            return ""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")[-2000:]

    def lock(self, path: str, identity: str = "") -> CuratorLock:
        """An InterProcessMutex with a thread of its own; `identity` becomes its node's data."""
        return CuratorLock(self, f"lock-{next(self._names)}", path, identity)

    def lock_participants(self, path: str) -> list[Participant]:
        """The line at a lock as InterProcessMutex.getParticipantNodes() gives it, the holder first."""
        nodes = self.call("lock.participants", path=path, thread="questions").participants
        return [Participant(identity=one.data, leads=one is nodes[0], node=one.node) for one in nodes]

    def latch(self, path: str, identity: str = "") -> CuratorLatch:
        """A LeaderLatch, started."""
        latch = CuratorLatch(self, f"latch-{next(self._names)}")
        self.call("latch.start", name=latch.name, path=path, identity=identity)
        return latch

    def selector(self, path: str, identity: str = "", *, requeue: bool = False) -> CuratorSelector:
        """A LeaderSelector, started; each of its terms lasts until `end_term()`."""
        selector = CuratorSelector(self, f"selector-{next(self._names)}")
        self.call("selector.start", name=selector.name, path=path, identity=identity, requeue=requeue)
        return selector

    def bench_handoffs(self, path: str, threads: int, seconds: float, *, clients: bool = False) -> Future[_Result]:
        """How often a lock goes round `threads` threads in `seconds`, with a connection each if `clients`."""
        return self.send(
            "bench.handoffs", path=path, threads=threads, seconds=seconds, clients=clients, **self._settings
        )

    def bench_failover(self, path: str, count: int) -> list[float]:
        """Seconds from the close of a leading LeaderLatch until the next one leads, `count` times."""
        seconds = self.call("bench.failover", path=path, count=count, limit=120.0, **self._settings).seconds
        return seconds if isinstance(seconds, list) else [seconds]


class _Command(BaseModel, extra="allow"):
    id: int
    do: str


@final
class CuratorLock:
    """One InterProcessMutex, owned by one thread of the Java process."""

    def __init__(self, peer: CuratorPeer, name: str, path: str, identity: str) -> None:
        self._peer = peer
        self._name = name
        self._path = path
        self._identity = identity

    def acquire_soon(self, timeout: float) -> Future[bool]:
        """Begin to wait in line; the future tells how it ended."""
        acquired: Future[bool] = Future()

        def pass_on(answer: Future[_Result]) -> None:
            error = answer.exception()
            if error is None:
                acquired.set_result(answer.result().acquired)
            else:
                acquired.set_exception(error)

        self._peer.send(
            "lock.acquire",
            name=self._name,
            path=self._path,
            identity=self._identity,
            timeout_ms=round(timeout * 1000),
        ).add_done_callback(pass_on)
        return acquired

    def acquire(self, timeout: float) -> bool:
        """Wait in line, at most `timeout` seconds; False if somebody else held it for all of them."""
        return self.acquire_soon(timeout).result(timeout + _ANSWER_LIMIT)

    def release(self) -> None:
        """Give the lock back."""
        self._peer.call("lock.release", name=self._name)


class _CuratorElection:
    """What a latch and a selector have in common; commands are named after the kind."""

    _kind: str

    def __init__(self, peer: CuratorPeer, name: str) -> None:
        self._peer = peer
        self.name = name

    def wait(self, timeout: float) -> bool:
        """Wait until it leads, at most `timeout` seconds; whether it does. A selector: for a new term."""
        milliseconds, limit = round(timeout * 1000), timeout + _ANSWER_LIMIT
        return self._peer.call(f"{self._kind}.await", name=self.name, timeout_ms=milliseconds, limit=limit).leads

    def leads(self) -> bool:
        """hasLeadership()."""
        return self._ask("leads").leads

    def participants(self) -> list[Participant]:
        """getParticipants(), in the order of the line."""
        nodes = self._ask("participants").participants
        return [Participant(identity=one.identity, leads=one.leads) for one in nodes]

    def leader(self) -> str:
        """The id of getLeader()."""
        return self._ask("participants").leader

    def close(self) -> None:
        """Resign, or leave the line; a selector's term that runs is interrupted."""
        self._peer.call("election.close", name=self.name, thread="closer")

    def _ask(self, what: str) -> _Result:
        return self._peer.call(f"{self._kind}.{what}", name=self.name, thread="questions")


@final
class CuratorLatch(_CuratorElection):
    """One LeaderLatch."""

    _kind = "latch"


@final
class CuratorSelector(_CuratorElection):
    """One LeaderSelector."""

    _kind = "selector"

    def end_term(self) -> None:
        """Let takeLeadership() return."""
        self._ask("yield")
