"""A real ZooKeeper server as a child process, up in about a second."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Self, final

from zkrecipes.errors import ZkRecipesError
from zkrecipes.testing.certificates import Certificates, make_certificates
from zkrecipes.testing.control import Server
from zkrecipes.testing.installation import Installation, find_installation
from zkrecipes.testing.janitor import Kept, keep_directory, keep_process
from zkrecipes.testing.ports import LOOPBACK, ReservedPort, reserve_port
from zkrecipes.testing.waiting import wait_until

__all__ = ["ServerStartError", "ZooKeeperServer"]

_MAIN: Final = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
_STOP_LIMIT: Final = 5.0
_PORT_TRIES: Final = 5
_LOG_TAIL: Final = 30
# Small and started often: compile little, collect simply.
_JAVA: Final = ("-Xmx128m", "-Xss512k", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData")
_SERVER: Final = {
    "forceSync": "no",  # data that lives as long as a test needs no disk
    "preAllocSize": "512",  # kB; 64 MB by default, written anew for each log
    "admin.enableServer": "false",  # it would want port 8080
    "4lw.commands.whitelist": "*",
    "reconfigEnabled": "false",
    "maxClientCnxns": "0",
    "initLimit": "20",
    "syncLimit": "4",
    "maxSessionTimeout": "60000",
}
_LOGBACK: Final = """<configuration>
  <appender name="OUT" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%d{HH:mm:ss.SSS} %-5p [%t] %c{1}: %m%n</pattern></encoder>
  </appender>
  <root level="INFO"><appender-ref ref="OUT"/></root>
</configuration>
"""
_LOG4J: Final = """log4j.rootLogger=INFO, OUT
log4j.appender.OUT=org.apache.log4j.ConsoleAppender
log4j.appender.OUT.layout=org.apache.log4j.PatternLayout
log4j.appender.OUT.layout.ConversionPattern=%d{HH:mm:ss,SSS} %-5p [%t] %c{1}: %m%n
"""
_SIMPLE_LOGGER: Final = (
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
)


@final
class ServerStartError(ZkRecipesError):
    """The server did not come up. The message ends with the last lines of its log."""


@final
class ZooKeeperServer(Server):
    """A server of its own Java process on 127.0.0.1, from the installation that `find_installation` finds.

    It dies with the process that started it, even if that is killed, and leaves no directory behind (one that the
    caller named stays). Any thread may call any method.

    Args:
        port: For clients; 0 chooses one, which the server keeps when it is started again.
        data: Directory for snapshots and logs, made if missing; a new one, deleted by `close`, if None.
        tls: True for a TLS port beside the plain one, with certificates made for it; or certificates to use.
        properties: Lines of zoo.cfg, over the kit's own (`extendedTypesEnabled`, `minSessionTimeout`, ...). A name that
            ZooKeeper reads from Java only is passed there: `znode.*` and `jute.*`.
        tick_time: Seconds of a tick: sessions last at least two, and expire on its beat.
        java_options: For the Java machine, after the kit's own (a small heap and a quick start).
        name: For messages and the name of the directory.

    Attributes:
        installation: The ZooKeeper that is used, None before the first start.
        tls: Paths of the certificates; None without TLS.
    """

    def __init__(
        self,
        port: int = 0,
        data: Path | str | None = None,
        tls: Certificates | bool | None = None,  # noqa: FBT001 -- `tls=True` is how it reads
        properties: Mapping[str, object] | None = None,
        *,
        tick_time: float = 0.5,
        java_options: Sequence[str] = (),
        name: str = "server",
    ) -> None:
        self.name = name
        self.installation: Installation | None = None
        self.tls: Certificates | None = tls if isinstance(tls, Certificates) else None
        self._with_tls = bool(tls)
        self._wanted_port = port
        self._given_data = None if data is None else Path(data)
        self._properties = {"tickTime": str(round(tick_time * 1000)), **_SERVER}
        self._properties |= {key: str(value) for key, value in (properties or {}).items()}
        self._java_options = tuple(java_options)
        self._my_id: int | None = None
        # Guards everything below, and makes each verb one step for other threads.
        self._lock = threading.RLock()
        self._home: Path | None = None
        self._ports: list[ReservedPort] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._kept: list[Kept] = []
        self._tag = f"-Dzkrecipes.server={uuid.uuid4()}"
        self._paused = False
        self._served = False
        self._closed = False
        self._owner = os.getpid()

    def __repr__(self) -> str:
        where = self.hosts if self._ports else "never started"
        state = "closed" if self._closed else "running" if self.pid else "stopped"
        return f"<{type(self).__name__} {self.name} {where} {state}>"

    @property
    def port(self) -> int:
        """The port for clients."""
        if not self._ports:
            message = f"{self.name} has no port before its first start; call start()"
            raise RuntimeError(message)
        return self._ports[0].number

    @property
    def secure_hosts(self) -> str:
        """The address of the TLS port."""
        if not self._with_tls or not self._ports:
            message = f"{self.name} has no TLS port; make it with tls=True and start it"
            raise RuntimeError(message)
        return f"{self.host}:{self._ports[1].number}"

    @property
    def pid(self) -> int | None:
        """The process id of Java; None while it does not run."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    @property
    def paused(self) -> bool:
        """Whether it stands still after `pause`."""
        return self._paused and self.pid is not None

    @property
    def log(self) -> Path:
        """The file that holds all the server has printed, over all its starts."""
        return self._directory() / "server.log"

    @property
    def data(self) -> Path:
        """The directory of snapshots and logs."""
        return self._given_data or self._directory() / "data"

    def start(self, limit: float = 30.0) -> Self:
        """Start it and wait until it serves.

        Args:
            limit: Seconds that this may take.

        Raises:
            InstallationNotFoundError: There is no ZooKeeper or no Java here.
            ServerStartError: It ended, or does not serve in time.
        """
        with self._lock:
            self.launch()
            self.wait_until_serving(limit)
        return self

    def launch(self) -> None:
        """Start the process, and do not wait until it serves (a member of an ensemble cannot, alone)."""
        with self._lock:
            if self._closed:
                message = f"{self.name} is closed; make a new one"
                raise RuntimeError(message)
            if self.pid is not None:
                return
            if self.installation is None:
                self.installation = find_installation()
            if not self._ports:
                self._reserve()
            self._configure()
            self._spawn()

    def wait_until_serving(self, limit: float = 30.0) -> None:
        """Wait until it serves; with a port that we chose and somebody took meanwhile, start again on another.

        Raises:
            ServerStartError: It ended, or does not serve in time.
        """
        for attempt in range(1, _PORT_TRIES + 1):
            try:
                wait_until(lambda: self.serves() or self.pid is None, limit)
            except AssertionError as error:
                what = f"does not serve after {limit:g} s"
                raise self._failed(what) from error
            if self.pid is not None:
                self._served = True
                return
            taken = "Address already in use" in self.log_tail(200)
            if not taken or self._wanted_port or self._served or self._my_id is not None or attempt == _PORT_TRIES:
                what = f"ended with status {self._process.returncode if self._process else None}"
                raise self._failed(what)
            self._release_ports()
            self.launch()

    def stop(self) -> None:
        """End it by SIGTERM; by SIGKILL after 5 s, or if it is paused."""
        with self._lock:
            if self._paused:
                self.kill()
            self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it by SIGKILL, as a crash would."""
        with self._lock:
            self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Freeze it by SIGSTOP; returns when it stands still."""
        with self._lock:
            self._signal(signal.SIGSTOP)
            self._paused = True
            # A signal takes a moment; what is answered in it would look like an answer of a frozen server.
            if self._process is not None and hasattr(os, "waitid"):
                os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """Let it go on by SIGCONT."""
        with self._lock:
            self._signal(signal.SIGCONT)
            self._paused = False

    def close(self) -> None:
        """Kill it, delete its directory and give its ports back. May be called twice; not for a forked child to do."""
        if os.getpid() != self._owner:
            return
        with self._lock:
            self._closed = True
            self.kill()
            if self._home is not None:
                shutil.rmtree(self._home, ignore_errors=True)
            for kept in self._kept:
                kept.forget()
            self._release_ports()

    def log_tail(self, lines: int = _LOG_TAIL) -> str:
        """The last lines of the log."""
        with contextlib.suppress(OSError):
            return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
        return ""

    def join_ensemble(self, my_id: int, properties: Mapping[str, str]) -> None:
        """Give it its number and the lines of its ensemble. Before the first start, or while it is stopped."""
        with self._lock:
            self._my_id = my_id
            self._properties |= properties

    def _directory(self) -> Path:
        with self._lock:
            if self._home is None:
                self._home = Path(tempfile.mkdtemp(prefix=f"zkrecipes-{self.name}-"))
                self._kept += [keep_directory(self._home), keep_process(self._tag)]
            return self._home

    def _reserve(self) -> None:
        wanted = self._wanted_port
        self._ports = [ReservedPort(wanted, None) if wanted else reserve_port()]
        if self._with_tls:
            self._ports.append(reserve_port())

    def _release_ports(self) -> None:
        for port in self._ports:
            port.release()
        if not self._closed:
            self._ports = []

    def _configure(self) -> None:
        home = self._directory()
        self.data.mkdir(parents=True, exist_ok=True)
        lines = {
            **{key: value for key, value in self._properties.items() if not _is_java_property(key)},
            "dataDir": str(self.data),
            "clientPort": str(self.port),
        }
        lines.setdefault("clientPortAddress", LOOPBACK)
        if self._with_tls:
            if self.tls is None:
                self.tls = make_certificates(home)
            lines |= _tls_lines(self.tls, self._ports[1].number)
        (home / "zoo.cfg").write_text("".join(f"{key}={value}\n" for key, value in lines.items()), encoding="utf-8")
        (home / "logback.xml").write_text(_LOGBACK, encoding="ascii")
        (home / "log4j.properties").write_text(_LOG4J, encoding="ascii")
        if self._my_id is not None:
            (self.data / "myid").write_text(f"{self._my_id}\n", encoding="ascii")

    def _spawn(self) -> None:
        assert self.installation is not None
        home = self._directory()
        class_path = os.pathsep.join(str(path) for path in (home, *self.installation.jars))
        properties = [f"-D{key}={value}" for key, value in self._properties.items() if _is_java_property(key)]
        command = [
            *(str(self.installation.java), *_JAVA, *_SIMPLE_LOGGER, self._tag, *properties, *self._java_options),
            *("-cp", class_path, _MAIN, str(home / "zoo.cfg")),
        ]
        with self.log.open("ab") as log:
            # A session of its own: Ctrl-C in the terminal is for the tests, which then end the server in order.
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=home, start_new_session=True
            )
        self._paused = False

    def _signal(self, number: signal.Signals) -> None:
        if self.pid is None:
            message = f"{self.name} does not run; start it first"
            raise RuntimeError(message)
        assert self._process is not None
        self._process.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        process = self._process
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(_STOP_LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._paused = False

    def _failed(self, what: str) -> ServerStartError:
        tail = self.log_tail()
        self.kill()
        return ServerStartError(f"{self.name} on port {self.port} {what}; its log ends with:\n{tail}")


def _is_java_property(name: str) -> bool:
    """Whether ZooKeeper reads this from Java's properties only, and not from zoo.cfg."""
    return name.startswith(("znode.", "jute."))


def _tls_lines(certificates: Certificates, port: int) -> dict[str, str]:
    return {
        "secureClientPort": str(port),
        "secureClientPortAddress": LOOPBACK,
        "serverCnxnFactory": "org.apache.zookeeper.server.NettyServerCnxnFactory",
        "ssl.keyStore.location": str(certificates.server),
        "ssl.keyStore.type": "PEM",
        "ssl.trustStore.location": str(certificates.ca),
        "ssl.trustStore.type": "PEM",
    }
