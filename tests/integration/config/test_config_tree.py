"""The tree layout: one node a field; a release is seen as a whole; other tools may write single fields."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

import zkrecipes as zkr
from tests.integration.config.models import PATH, SECRET, Settings, reaches, settings
from zkrecipes.testing import FaultProxy, Server, wait_until


def tree(zk: zkr.Client, **options: Any) -> zkr.Config[Settings]:
    return zkr.Config(zk, PATH, Settings, layout="tree", **options)


def nodes(zk: zkr.Client, path: str = PATH) -> dict[str, bytes]:
    found = {}
    for name in zk.children(path):
        child = f"{path}/{name}"
        found[child.removeprefix(f"{PATH}/")] = zk.get(child).value
        found.update(nodes(zk, child))
    return found


def test_each_field_is_a_node(zkr_client: zkr.Client) -> None:
    config = tree(zkr_client)
    assert config.publish(settings(7, flags={"a": True})).version == 0
    assert nodes(zkr_client) == {
        "name": b"shop",
        "database": b"",
        "database/host": b"localhost",
        "database/pool_size": b"7",
        "database/password": SECRET.encode(),
        "flags": b'{"a": true}',
    }
    with config:
        assert config.current == settings(7, flags={"a": True})
        told: list[zkr.ConfigChange[Any]] = []
        config.on_change("database.pool_size")(told.append)
        release = config.publish(settings(8), reason="more", expected=0)
        assert (release.version, release.changed) == (1, ("database.pool_size", "flags.a", "flags"))
        reaches(config, 1)
        assert config.current == settings(8)
        wait_until(lambda: told, 5, "the change is told")
        assert (told[0].old, told[0].new) == (7, 8)
        assert config.rollback(0).version == 2
        reaches(config, 2)
        assert config.current == settings(7, flags={"a": True})
        assert [each.path for each in config.diff(1, 2)] == ["database.pool_size", "flags", "flags.a"]
        assert [each.version for each in config.history()] == [2, 1, 0]
        with pytest.raises(zkr.ConflictError, match="expected"):
            config.publish(settings(1), expected=1)


def test_a_tree_of_another_tool(zkr_client: zkr.Client) -> None:
    """As for Spring Cloud Zookeeper: nothing of ours in the root; fields are written one by one."""
    zkr_client.create(f"{PATH}/database", parents=True)
    zkr_client.create(f"{PATH}/database/pool_size", b"3")
    zkr_client.create(f"{PATH}/name", b"5")
    with tree(zkr_client) as config:
        assert (config.current.name, config.current.database.pool_size) == ("5", 3)
        assert config.source_of("database.pool_size") == f"node:{PATH}"
        zkr_client.set(f"{PATH}/database/pool_size", b"4")
        config.wait_for(lambda current: current.database.pool_size == 4, 5)
        zkr_client.delete(f"{PATH}/database/pool_size")
        config.wait_for(lambda current: current.database.pool_size == 5, 5)
        zkr_client.create(f"{PATH}/database/pool_size", b"none")
        wait_until(lambda: config.rejection is not None, 5, "it is refused")
        assert config.current.database.pool_size == 5
        config.publish(settings(6))
        reaches(config, 1)
        assert config.health().ok
        zkr_client.set(f"{PATH}/name", b"by hand")
        config.wait_for(lambda current: current.name == "by hand", 5)
        zkr_client.set(f"{PATH}/name", b"\xff")
        wait_until(lambda: config.rejection is not None, 5, "it is refused")


def test_no_release_is_seen_in_part(zkr_client: zkr.Client, zkr_server: Server, zkr_namespace: str) -> None:
    tree(zkr_client).publish(settings(1, name="1"))
    seen: list[Settings] = []
    with zkr.connect(zkr_server.hosts, namespace=zkr_namespace) as writer, tree(zkr_client) as config:
        config.on_change()(lambda change: seen.append(change.new))
        publisher = tree(writer, keep=3)
        for size in range(2, 102):
            publisher.publish(settings(size, name=str(size)))
        config.wait_for(lambda current: current.name == "101", 20)
    assert all(each.name == str(each.database.pool_size) for each in seen)
    assert seen


def test_a_look_in_the_middle_of_a_release_is_not_taken(zkr_client: zkr.Client) -> None:
    """The mirror has seen one node behind the release and one before it: the digest does not fit."""
    from zkrecipes.config_apply import Look  # noqa: PLC0415
    from zkrecipes.known import Seen  # noqa: PLC0415

    tree(zkr_client).publish(settings(1, name="1"))
    with tree(zkr_client) as config:
        config.publish(settings(2, name="2"))
        reaches(config, 1)
        sight = config._state._sight
        assert sight is not None
        look = sight.look()
        assert look.branches is not None
        torn = Look(look.document, {}, None, {**look.branches, "name": Seen(b"1", look.branches["name"].stat)})
        assert sight.whole(look) is not None
        whole: list[Any] = []

        def looked() -> bool:
            whole.append(sight.whole(torn))
            return whole[-1] is not None

        assert sight.whole(torn) is None, "it is read first"
        wait_until(looked, 5, "it has been read")
        assert b'"2"' in whole[-1].document.data


def test_writers_that_meet(zkr_client: zkr.Client, zkr_server: Server, zkr_namespace: str) -> None:
    tree(zkr_client).publish(settings(1))
    with zkr.connect(zkr_server.hosts, namespace=zkr_namespace) as other:
        barrier = threading.Barrier(2)

        def publish(zk: zkr.Client, name: str) -> Callable[[], None]:
            def run() -> None:
                barrier.wait()
                tree(zk).publish(settings(name=name, flags={name: True}))

            return run

        threads = [threading.Thread(target=publish(zk, name)) for zk, name in ((zkr_client, "a"), (other, "b"))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    found = nodes(zkr_client)
    assert found["flags"] == b'{"%s": true}' % found["name"]
    assert [each.base for each in tree(zkr_client).history()] == [1, 0, None]


def test_a_lost_reply(zkr_proxy: FaultProxy, zkr_client: zkr.Client) -> None:
    tree(zkr_client).publish(settings(1))
    trap = zkr_proxy.drop_reply("multi")
    assert tree(zkr_client).publish(settings(2), expected=0).version == 1
    assert trap.fired
    assert len(tree(zkr_client).history()) == 2


def test_a_canary(zkr_client: zkr.Client) -> None:
    tree(zkr_client).publish(settings(1))
    with tree(zkr_client) as config:
        config.publish(settings(2), canary=zkr.Canary(percent=100))
        config.wait_for(lambda current: current.database.pool_size == 2, 5)
        assert nodes(zkr_client)["database/pool_size"] == b"1"
        config.promote()
        reaches(config, 1)
        assert nodes(zkr_client)["database/pool_size"] == b"2"


def test_what_a_tree_cannot_express_is_refused(zkr_client: zkr.Client) -> None:
    class Odd(BaseModel):
        model_config = ConfigDict(frozen=True)
        note: str | None = "x"
        number: int | None = 1

    config = zkr.Config(zkr_client, PATH, Odd, layout="tree")
    config.publish(Odd(number=None))
    with config:
        assert config.current == Odd(number=None)
        with pytest.raises(zkr.ConfigRejectedError, match="note"):
            config.publish(Odd(note=None))
    for options in ({"layout": "forest"}, {"layout": "tree", "format": "yaml"}):
        with pytest.raises(ValueError, match="layout"):
            zkr.Config(zkr_client, PATH, Odd, **options)  # type: ignore[arg-type]


def test_tools_see_a_document(zkr_client: zkr.Client) -> None:
    tree(zkr_client).publish(settings(1))
    releases: zkr.ConfigReleases[Any] = zkr.ConfigReleases(zkr_client, PATH, layout="tree")
    version, text = releases.read()
    assert version == 0
    assert '"pool_size": 1' in text
    assert releases.masked(text)["database"]["password"] == "**********"
    with pytest.raises(ValueError, match="model"):
        releases.publish(text)


def test_a_tree_is_no_document(zkr_client: zkr.Client) -> None:
    tree(zkr_client).publish(settings(1))
    config = zkr.Config(zkr_client, PATH, Settings)
    with pytest.raises(zkr.ForeignNodeError, match="layout='tree'"):
        config.publish(settings(2))
    with pytest.raises(zkr.ForeignNodeError, match="layout='tree'"):
        config.rollback(0)
    with pytest.raises(zkr.ConfigRejectedError, match="layout='tree'"):
        config.start(5)
    assert nodes(zkr_client)["database/pool_size"] == b"1"


def test_a_document_is_no_tree(zkr_client: zkr.Client) -> None:
    """Nothing of it would be read, and publishing would leave its readers with a digest."""
    zkr.ConfigReleases(zkr_client, PATH, Settings).publish(settings(3).model_dump_json())
    before = zkr_client.get(PATH).value
    with pytest.raises(zkr.ConfigRejectedError, match="leave out layout='tree'"):
        tree(zkr_client).start(5)
    for verb in (lambda: tree(zkr_client).publish(settings(2)), lambda: tree(zkr_client).history()):
        with pytest.raises(zkr.ForeignNodeError, match="leave out layout='tree'"):
            verb()
    assert zkr_client.get(PATH).value == before
    zkr_client.set(PATH, b"192.168.0.7")  # what Curator puts into a node that it makes
    tree(zkr_client).publish(settings(2))


def test_a_node_that_is_no_text_is_told_with_its_path(zkr_client: zkr.Client) -> None:
    tree(zkr_client).publish(settings(2))
    with tree(zkr_client) as config:
        zkr_client.set(f"{PATH}/name", b"\xff")
        wait_until(lambda: config.rejection is not None, 5, "it is refused")
        assert "the node name is no UTF-8 text" in config.health().reason
        zkr_client.set(f"{PATH}/name", b"text")
        config.wait_for(lambda current: current.name == "text", 5)
