"""A configuration's document is a plain node: other tools' writes are obeyed, and they can read what we publish."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Final

import pytest
from kazoo.client import KazooClient
from pydantic import BaseModel

import zkrecipes as zkr
from tests.interop import caches
from tests.interop.caches import CuratorCache
from tests.interop.peer import CuratorPeer, class_path
from zkrecipes.testing import Server, wait_until

_LIMIT: Final = 10.0
_CLI_LIMIT: Final = 30.0

Put = Callable[[str, str], object]


class Settings(BaseModel, frozen=True):
    """What the document holds."""

    pool: int = 1
    name: str = ""


def _zk_cli(hosts: str, *words: str) -> None:
    """What an operator types at zkCli.sh."""
    command = ["java", "-cp", class_path(), "org.apache.zookeeper.ZooKeeperMain", "-server", hosts, *words]
    subprocess.run(command, check=True, capture_output=True, timeout=_CLI_LIMIT)


@pytest.fixture(params=["curator", "kazoo", "zkCli"])
def put(request: pytest.FixtureRequest, zkr_server: Server, kazoo: KazooClient) -> Put:
    """Sets a node with another tool."""
    if request.param == "kazoo":
        return lambda path, data: kazoo.set(path, data.encode())
    peer: CuratorPeer = request.getfixturevalue("curator")  # zkCli needs Java and the jars as well
    if request.param == "zkCli":
        return lambda path, data: _zk_cli(zkr_server.hosts, "set", path, data)
    return lambda path, data: caches.put(peer, path, data)


def test_document_written_by_another_tool_is_applied(zk: zkr.Client, kazoo: KazooClient, put: Put, path: str) -> None:
    kazoo.create(path, b"{}", makepath=True)
    put(path, '{"pool": 2, "name": "there before"}')
    with zkr.Config(zk, path, Settings) as config:
        assert config.current == Settings(pool=2, name="there before")
        assert config.source_of("pool") == f"node:{path}"
        told: list[tuple[int, int]] = []
        config.on_change("pool")(lambda change: told.append((change.old, change.new)))
        put(path, '{"pool": 3}')
        assert config.wait_for(lambda current: current.pool == 3, _LIMIT) == Settings(pool=3)
        wait_until(lambda: told == [(2, 3)], _LIMIT, lambda: f"the change is told once: {told}")


def test_document_that_another_tool_has_spoilt_is_refused(
    zk: zkr.Client, kazoo: KazooClient, put: Put, path: str
) -> None:
    kazoo.create(path, b'{"pool": 2}', makepath=True)
    with zkr.Config(zk, path, Settings) as config:
        refused: list[object] = []
        config.on_rejected(refused.append)
        put(path, '{"pool": "many"}')
        wait_until(lambda: len(refused) == 1, _LIMIT, "the refusal is told")
        assert config.current == Settings(pool=2)
        put(path, '{"pool": 4}')
        config.wait_for(lambda current: current.pool == 4, _LIMIT)


def test_what_we_publish_is_read_by_the_others(
    zk: zkr.Client, kazoo: KazooClient, curator: CuratorPeer, path: str
) -> None:
    kazoo.create(path, b"{}", makepath=True)
    with zkr.Config(zk, path, Settings) as config, CuratorCache(curator, path) as cache:
        cache.wait(_LIMIT)
        release = config.publish(Settings(pool=7, name="ours"), reason="interop")
        data, stat = kazoo.get(path)
        assert json.loads(data) == {"pool": 7, "name": "ours"}
        assert stat.version == release.version
        wait_until(lambda: json.loads(cache.nodes()[path].data) == {"pool": 7, "name": "ours"}, _LIMIT)


def test_publishing_over_anothers_write_is_a_conflict(zk: zkr.Client, kazoo: KazooClient, put: Put, path: str) -> None:
    kazoo.create(path, b'{"pool": 2}', makepath=True)
    with zkr.Config(zk, path, Settings) as config:
        seen = config.version
        put(path, '{"pool": 3}')
        with pytest.raises(zkr.ConflictError, match="pool"):
            config.publish(Settings(pool=9), expected=seen)
        assert json.loads(kazoo.get(path)[0]) == {"pool": 3}
