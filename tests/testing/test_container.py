from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.testing.conftest import Connect
from zkrecipes.errors import UnavailableError
from zkrecipes.testing import EngineNotFoundError, ServerStartError, ZooKeeperContainer, wait_until
from zkrecipes.testing.container import choose_image, engine, why_not
from zkrecipes.testing.raw import EPHEMERAL

_CHILD: Final = """
import os, signal, sys
from zkrecipes.testing import ZooKeeperContainer
container = ZooKeeperContainer(sys.argv[1]).start()
print(container.name, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""

with_engine = [pytest.mark.server, pytest.mark.container, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def image() -> str:
    reason = why_not()
    if reason:
        pytest.skip(reason)
    return choose_image()


@pytest.fixture(scope="module")
def docker(image: str) -> Iterator[Any]:
    client = engine()
    yield client
    client.close()


@pytest.fixture(scope="module")
def module_container(image: str) -> Iterator[ZooKeeperContainer]:
    with ZooKeeperContainer(
        image, {"extendedTypesEnabled": "true", "znode.container.checkIntervalMs": 150}
    ) as container:
        yield container


@pytest.fixture
def container(module_container: ZooKeeperContainer) -> ZooKeeperContainer:
    """It runs, whatever the last test did to it."""
    if module_container.paused:
        module_container.resume()
    return module_container.start()


class TestContainer:
    pytestmark = with_engine

    def test_it_serves_on_loopback_only(self, container: ZooKeeperContainer, connect: Connect, docker: Any) -> None:
        assert container.hosts == f"127.0.0.1:{container.port}"
        assert connect(container).exists("/")
        ports = docker.containers.get(container.name).attrs["NetworkSettings"]["Ports"]
        published = [where["HostIp"] for all_ in ports.values() for where in all_ or ()]
        assert published == ["127.0.0.1"]

    def test_properties_reach_the_server_and_java(self, container: ZooKeeperContainer) -> None:
        assert "tickTime=500" in container.command("conf")
        assert "maxSessionTimeout=60000" in container.command("conf")
        assert "Using checkIntervalMs=150" in container.log_tail(500)

    def test_stop_kill_and_restart_keep_port_and_data(self, container: ZooKeeperContainer, connect: Connect) -> None:
        path, port = f"/kept-{os.urandom(6).hex()}", container.port
        connect(container).create(path)
        for end in (container.stop, container.kill):
            end()
            end()
            assert container.pid is None
            with pytest.raises(UnavailableError):
                connect(container)
            container.start()
            assert container.port == port
            assert connect(container).exists(path)
        container.restart()
        assert connect(container).exists(path)

    def test_pause_and_resume(self, container: ZooKeeperContainer, connect: Connect) -> None:
        client = connect(container)
        container.pause()
        assert container.paused
        assert container.pid is not None
        with pytest.raises(UnavailableError, match="timed out"):
            container.command("ruok", timeout=0.2)
        container.resume()
        assert client.exists("/")
        container.pause()
        container.stop()
        assert container.pid is None

    def test_expire(self, container: ZooKeeperContainer, connect: Connect) -> None:
        client, path = connect(container), f"/mine-{os.urandom(6).hex()}"
        client.create(path, flags=EPHEMERAL)
        container.expire(client)
        assert not connect(container).exists(path)

    def test_close_removes_the_container_and_is_final(self, image: str, docker: Any) -> None:
        container = ZooKeeperContainer(image).start()
        assert container.name in [each.name for each in docker.containers.list()]
        container.close()
        container.close()
        assert container.name not in [each.name for each in docker.containers.list(all=True)]
        with pytest.raises(RuntimeError, match="is closed"):
            container.start()

    def test_a_server_that_does_not_come_up_is_told_with_its_log(self, image: str) -> None:
        container = ZooKeeperContainer(image, {"tickTime": "soon"})
        try:
            with pytest.raises(ServerStartError, match="NumberFormatException"):
                container.start()
        finally:
            container.close()

    def test_the_container_dies_with_the_process_that_started_it(self, image: str, docker: Any) -> None:
        child = subprocess.run([sys.executable, "-c", _CHILD, image], check=False, capture_output=True, text=True)
        name = child.stdout.strip()
        assert name, child.stderr
        wait_until(lambda: name not in [each.name for each in docker.containers.list(all=True)], 30, "it is removed")


def test_without_an_engine_the_message_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("testcontainers", reason="testcontainers is not installed")
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    with pytest.raises(EngineNotFoundError, match="no Docker engine answers"):
        ZooKeeperContainer("zookeeper:3.9").start()
    assert "no Docker engine answers" in why_not("zookeeper:3.9")


def test_the_image_is_the_argument_or_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZKRECIPES_TEST_IMAGE", "mine:1")
    assert choose_image("other:2") == "other:2"
    assert choose_image() == "mine:1"
