"""A real ZooKeeper server in a container, through testcontainers, which is imported when the first one starts.

Works with the official `zookeeper` image and with any image that takes the same environment (ZOO_*, JVMFLAGS), such as
the one that `make image` of this project builds where none can be pulled.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import socket
import sys
import threading
import uuid
from collections.abc import Mapping
from typing import Any, Final, Self, final

from zkrecipes.errors import ZkRecipesError
from zkrecipes.testing.control import Server
from zkrecipes.testing.janitor import Kept, keep_command
from zkrecipes.testing.ports import LOOPBACK, ReservedPort, reserve_port
from zkrecipes.testing.process import ServerStartError
from zkrecipes.testing.waiting import wait_until

__all__ = ["EngineNotFoundError", "ZooKeeperContainer", "choose_image", "why_not"]

LOCAL_IMAGE: Final = "zkrecipes/zookeeper:debian"
OFFICIAL_IMAGE: Final = "zookeeper:3.9"

_CLIENT_PORT: Final = "2181/tcp"
_STOP_LIMIT: Final = 5
_PORT_TRIES: Final = 5
_LOG_TAIL: Final = 30
_PORT_TAKEN: Final = ("address already in use", "port is already allocated")
_REMOVE: Final = "import docker, sys; docker.from_env().containers.get(sys.argv[1]).remove(force=True, v=True)"
_JAVA: Final = "-Xmx128m -Xss512k -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Dzookeeper.forceSync=no"
# What the official image has a name of its own for. A second line in ZOO_CFG_EXTRA would not replace it in every image.
_NAMED: Final = {
    "tickTime": "ZOO_TICK_TIME",
    "initLimit": "ZOO_INIT_LIMIT",
    "syncLimit": "ZOO_SYNC_LIMIT",
    "maxClientCnxns": "ZOO_MAX_CLIENT_CNXNS",
    "admin.enableServer": "ZOO_ADMINSERVER_ENABLED",
    "4lw.commands.whitelist": "ZOO_4LW_COMMANDS_WHITELIST",
}
_SERVER: Final = {
    "maxClientCnxns": "0",
    "admin.enableServer": "false",
    "4lw.commands.whitelist": "*",
    "preAllocSize": "512",
    "maxSessionTimeout": "60000",
}


@final
class EngineNotFoundError(ZkRecipesError):
    """There is no testcontainers package, or no Docker engine answers. The message says what to do."""


def engine() -> Any:
    """A client of the Docker engine.

    Raises:
        EngineNotFoundError: There is none.
    """
    # Our janitor removes what is left over, and needs no image for it. Ports are published on 127.0.0.1 only.
    os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
    os.environ.setdefault("TESTCONTAINERS_HOST_OVERRIDE", LOOPBACK)
    try:
        docker: Any = importlib.import_module("docker")
        importlib.import_module("testcontainers.core.container")
    except ImportError as error:
        message = "testcontainers is not installed; type: pip install 'zkrecipes[testing]'"
        raise EngineNotFoundError(message) from error
    try:
        _knock()
        client = docker.from_env(timeout=60)
        client.ping()
    except Exception as error:
        message = "no Docker engine answers; start one (as root type: dockerd), or set DOCKER_HOST"
        raise EngineNotFoundError(message) from error
    return client


def _knock() -> None:
    """Connect to the engine's socket, since docker's client leaves its own socket open when it cannot."""
    host = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    if host.startswith("unix://"):
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(host.removeprefix("unix://"))


def choose_image(image: str | None = None) -> str:
    """The image to use.

    Args:
        image: This one, if given. Otherwise ZKRECIPES_TEST_IMAGE names it; without that it is
            `zkrecipes/zookeeper:debian` if that was built here, and else the official image.

    Raises:
        EngineNotFoundError: No Docker engine answers.
    """
    chosen = image or os.environ.get("ZKRECIPES_TEST_IMAGE")
    if chosen:
        return chosen
    with contextlib.closing(engine()) as client:
        return LOCAL_IMAGE if _has_image(client, LOCAL_IMAGE) else OFFICIAL_IMAGE


def why_not(image: str | None = None) -> str:
    """Why no container can be started here; empty if one can. Pulls the image if it is not here yet."""
    try:
        name = choose_image(image)
        with contextlib.closing(engine()) as client:
            if not _has_image(client, name):
                client.images.pull(name)
    except EngineNotFoundError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 -- the engine's own errors; we have no name for them before the import
        return f"the image cannot be pulled: {error}; build one by make image, or name one in ZKRECIPES_TEST_IMAGE"
    return ""


def _has_image(client: Any, name: str) -> bool:
    docker: Any = importlib.import_module("docker")
    try:
        client.images.get(name)
    except docker.errors.ImageNotFound:
        return False
    return True


@final
class ZooKeeperContainer(Server):
    """A server in a container of its own, reached at 127.0.0.1.

    It is removed by `close`, and by the janitor if the process that started it dies. `stop`, `kill` and `start` keep
    its data and port. Any thread may call any method.

    Args:
        image: See `choose_image`.
        properties: Lines of zoo.cfg, over the kit's own. Names beginning with `znode.` or `jute.` are given to Java.
        tick_time: Seconds of a tick.

    Raises:
        EngineNotFoundError: At the first start: there is no testcontainers or no Docker engine.
    """

    def __init__(
        self, image: str | None = None, properties: Mapping[str, object] | None = None, *, tick_time: float = 0.5
    ) -> None:
        self.name = f"zkrecipes-{uuid.uuid4().hex[:12]}"
        self._wanted_image = image
        self._properties = {"tickTime": str(round(tick_time * 1000)), **_SERVER}
        self._properties |= {key: str(value) for key, value in (properties or {}).items()}
        self._lock = threading.RLock()
        self._port: ReservedPort | None = None
        self._container: Any = None  # testcontainers' DockerContainer
        self._kept: Kept | None = None
        self._closed = False
        self._owner = os.getpid()

    def __repr__(self) -> str:
        where = self.hosts if self._port else "never started"
        return f"<ZooKeeperContainer {self.name} {where} {'closed' if self._closed else self._status()}>"

    @property
    def port(self) -> int:
        """The port for clients, on 127.0.0.1."""
        if self._port is None:
            message = f"{self.name} has no port before its first start; call start()"
            raise RuntimeError(message)
        return self._port.number

    @property
    def image(self) -> str:
        """The image that is used."""
        return choose_image(self._wanted_image) if self._container is None else str(self._container.image)

    @property
    def pid(self) -> int | None:
        """The process id of the server as the engine's machine sees it; None while it does not run."""
        if self._container is None or self._status() not in {"running", "paused"}:
            return None
        return int(self._inner().attrs["State"]["Pid"]) or None

    @property
    def paused(self) -> bool:
        """Whether it stands still after `pause`."""
        return self._status() == "paused"

    def start(self, limit: float = 60.0) -> Self:
        """Start it, pulling the image if need be, and wait until it serves.

        Args:
            limit: Seconds from the start of the server; the pull is not counted.

        Raises:
            EngineNotFoundError: There is no testcontainers or no Docker engine.
            ServerStartError: It ended, or does not serve in time.
        """
        with self._lock:
            if self._closed:
                message = f"{self.name} is closed; make a new one"
                raise RuntimeError(message)
            if self._container is None:
                self._create()
            elif self.pid is None:
                self._inner().start()
            try:
                wait_until(lambda: self.serves() or self._status() == "exited", limit)
            except AssertionError as error:
                what = f"does not serve after {limit:g} s"
                raise self._failed(what) from error
            if self._status() == "exited":
                what = "has ended"
                raise self._failed(what)
        return self

    def stop(self) -> None:
        """End it by SIGTERM; by SIGKILL after 5 s, or if it is paused."""
        with self._lock:
            if self.paused:
                self.kill()
            elif self.pid is not None:
                self._inner().stop(timeout=_STOP_LIMIT)

    def kill(self) -> None:
        """End it by SIGKILL, as a crash would."""
        with self._lock:
            if self.paused:
                self._inner().unpause()  # not every engine kills what is paused
            if self.pid is not None:
                self._inner().kill()
                self._inner().wait()

    def pause(self) -> None:
        """Freeze it."""
        with self._lock:
            self._running().pause()

    def resume(self) -> None:
        """Let it go on."""
        with self._lock:
            if self.paused:
                self._inner().unpause()
            else:
                self._running()

    def close(self) -> None:
        """Remove the container and its data, give the port back. May be called twice; not for a forked child to do."""
        if os.getpid() != self._owner:
            return
        with self._lock:
            self._closed = True
            self._remove()
            if self._port is not None:
                self._port.release()

    def log_tail(self, lines: int = _LOG_TAIL) -> str:
        """The last lines that the server has printed."""
        return str(self._inner().logs(tail=lines).decode(errors="replace")) if self._container is not None else ""

    def _create(self) -> None:
        engine().close()
        docker: Any = importlib.import_module("docker")
        make: Any = importlib.import_module("testcontainers.core.container").DockerContainer
        image = choose_image(self._wanted_image)
        for attempt in range(1, _PORT_TRIES + 1):
            self._port = reserve_port()
            self._kept = keep_command([sys.executable, "-c", _REMOVE, self.name])
            self._container = make(image).with_name(self.name).with_envs(**self._environment())
            self._container.ports[_CLIENT_PORT] = (LOOPBACK, self._port.number)
            try:
                self._container.start()
            except docker.errors.APIError as error:
                self._remove()
                self._port.release()
                taken = any(text in str(error) for text in _PORT_TAKEN)
                if not taken or attempt == _PORT_TRIES:
                    message = f"{image} cannot be started: {error}"
                    raise ServerStartError(message) from error
            else:
                return

    def _environment(self) -> dict[str, str]:
        java = {key: value for key, value in self._properties.items() if key.startswith(("znode.", "jute."))}
        lines = {key: value for key, value in self._properties.items() if key not in java and key not in _NAMED}
        named = {_NAMED[key]: value for key, value in self._properties.items() if key in _NAMED}
        return {
            **named,
            "ZOO_CFG_EXTRA": " ".join(f"{key}={value}" for key, value in lines.items()),
            "JVMFLAGS": " ".join([_JAVA, *(f"-D{key}={value}" for key, value in java.items())]),
        }

    def _inner(self) -> Any:
        return self._container.get_wrapped_container()

    def _status(self) -> str:
        if self._container is None:
            return "none"
        inner = self._inner()
        inner.reload()
        return str(inner.status)

    def _running(self) -> Any:
        if self.pid is None:
            message = f"{self.name} does not run; start it first"
            raise RuntimeError(message)
        return self._inner()

    def _remove(self) -> None:
        container, self._container = self._container, None
        if container is not None:
            docker: Any = importlib.import_module("docker")
            with contextlib.suppress(docker.errors.NotFound), contextlib.closing(container.get_docker_client().client):
                container.stop()
        if self._kept is not None:
            self._kept.forget()
            self._kept = None

    def _failed(self, what: str) -> ServerStartError:
        tail = self.log_tail()
        self.kill()
        return ServerStartError(f"{self.name} on port {self.port} {what}; its log ends with:\n{tail}")
