"""Hot reload: the newest good document is in force, as a whole; who is told, and in which order; what is refused."""

from __future__ import annotations

import gzip
import logging
import threading
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, field_validator

import zkrecipes as zkr
from tests.integration.config.models import PATH, SECRET, Database, Settings, first_release, reaches, settings
from zkrecipes.testing import FaultProxy, Server, wait_until

GOOD = b'{"name": "good"}'


def test_each_change_is_told_once_with_typed_values(zkr_client: zkr.Client) -> None:
    first_release(zkr_client)
    told: list[zkr.ConfigChange[Any]] = []
    config = zkr.Config(zkr_client, PATH, Settings)
    config.on_change("database.pool_size")(told.append)
    config.on_change("database")(told.append)
    config.on_change("name")(told.append)
    config.on_change(lambda model: model.database.pool_size)(told.append)
    config.on_change("flags.new")(told.append)
    config.on_change()(told.append)
    with config:
        assert told == [], "nothing for the first fill"
        config.publish(settings(9, flags={"new": True}))
        reaches(config, 1)
        wait_until(lambda: len(told) == 5, 5, "all are told")
        assert [(each.path, each.old, each.new) for each in told[:1]] == [("database.pool_size", 5, 9)]
        assert isinstance(told[1].new, Database)
        assert (told[2].path, told[2].old, told[2].new) == ("", 5, 9)
        assert (told[3].path, told[3].old, told[3].new) == ("flags.new", None, True)
        assert told[4].new == config.current
        assert {each.version for each in told} == {1}
        config.publish(settings(9, flags={"new": True}), reason="equal values")
        reaches(config, 2)
        config.publish(settings(8, flags={"new": True}))
        reaches(config, 3)
        wait_until(lambda: len(told) == 9, 5, "nothing was told of equal values")


def test_a_registration_ends(zkr_client: zkr.Client) -> None:
    first_release(zkr_client)
    told: list[zkr.ConfigChange[Any]] = []
    last = threading.Event()
    with zkr.Config(zkr_client, PATH, Settings) as config:
        registration = config.on_change()(told.append)
        config.on_commit(lambda _change: last.set())
        registration.cancel()
        config.publish(settings(9))
        assert last.wait(5)
        assert told == []


def test_an_unknown_field_is_refused_at_once(zkr_client: zkr.Client) -> None:
    config = zkr.Config(zkr_client, PATH, Settings)
    with pytest.raises(ValueError, match="pool_size"):
        config.on_change("database.poolsize")
    with pytest.raises(ValueError, match="database, flags, name"):
        config.on_change("nme")


def test_prepare_comes_before_the_change_and_may_veto(zkr_client: zkr.Client) -> None:
    first_release(zkr_client)
    order: list[str] = []
    rejected: list[zkr.Rejection] = []
    with zkr.Config(zkr_client, PATH, Settings) as config:

        @config.on_prepare
        def prepare(change: zkr.ConfigChange[Settings]) -> None:
            order.append(f"prepare {change.new.name}, in force {config.current.name}")
            if change.new.name == "bad":
                message = "not with me"
                raise zkr.VetoError(message)

        config.on_change("name")(lambda change: order.append(f"change {change.new}, in force {config.current.name}"))
        config.on_commit(lambda change: order.append(f"commit {change.new.name}"))
        config.on_rejected(rejected.append)
        config.publish(settings(name="bad"))
        wait_until(lambda: rejected, 5, "the veto is told")
        assert order == ["prepare bad, in force shop"]
        assert config.version == 0
        assert rejected[0].veto
        assert "not with me" in str(rejected[0])
        assert not config.health().ok
        assert "not with me" in config.health().reason
        config.publish(settings(name="fine"))
        reaches(config, 2)
        wait_until(lambda: len(order) == 4, 5, "the change is told")
        assert order[1:] == ["prepare fine, in force shop", "change fine, in force fine", "commit fine"]
        assert config.health().ok
        assert len(rejected) == 1


def test_a_callback_that_raises_harms_nobody(zkr_client: zkr.Client, caplog: pytest.LogCaptureFixture) -> None:
    first_release(zkr_client)
    told = threading.Event()
    with zkr.Config(zkr_client, PATH, Settings) as config:

        @config.on_change("name")
        def broken(change: zkr.ConfigChange[str]) -> None:
            raise RuntimeError(change.path)

        config.on_commit(lambda _change: told.set())
        config.publish(settings(name="new"))
        assert told.wait(5)
        assert config.current.name == "new"
    assert "on_change callback failed" in caplog.text


def test_a_callback_may_publish(zkr_client: zkr.Client) -> None:
    first_release(zkr_client)
    with zkr.Config(zkr_client, PATH, Settings) as config:
        config.on_change("name")(lambda _change: config.publish(settings(42, name="new"), timeout=5))
        config.publish(settings(name="new"))
        assert config.wait_for(lambda current: current.database.pool_size == 42, 10).name == "new"


BAD: dict[str, bytes] = {
    "empty": b"",
    "truncated": b'{"name": "x", "database": {"pool_',
    "no mapping": b"[1, 2]",
    "wrong type": b'{"name": ["x"]}',
    "out of range": b'{"database": {"pool_size": 0, "password": "%s"}}' % SECRET.encode(),
    "no utf-8": b'{"name": "\xff\xfe"}',
    "deeply nested": b'{"name": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "nested": b'{"flags": ' * 500 + b"{}" + b"}" * 500,
    "damaged gzip": gzip.compress(GOOD)[:-9],
    "a bomb": gzip.compress(b" " * 100_000_000),
    "a huge number": b'{"database": {"pool_size": ' + b"9" * 10_000 + b"}}",
    "many errors": b'{"flags": {%s}}' % b",".join(b'"flag%d": "perhaps"' % number for number in range(30_000)),
    "oversized": b'{"name": 1, "flags": {"' + b"x" * 1_000_000 + b'": true}}',
}


@pytest.mark.parametrize("raw", BAD.values(), ids=BAD.keys())
def test_a_bad_document_is_refused_and_the_next_good_one_applied(
    zkr_client: zkr.Client, raw: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    first_release(zkr_client)
    rejected: list[zkr.Rejection] = []
    with zkr.Config(zkr_client, PATH, Settings) as config:
        config.on_rejected(rejected.append)
        before = config.current
        zkr_client.set(PATH, raw)
        wait_until(lambda: rejected, 10, "the refusal is told")
        assert config.current is before
        assert (config.version, rejected[0].version) == (0, 1)
        assert rejected[0].errors
        assert config.rejection == rejected[0]
        health = config.health()
        assert (health.ok, health.state) == (False, "rejected")
        assert "version 1" in health.reason
        assert "version 0 stays" in health.reason
        zkr_client.set(PATH, GOOD)
        reaches(config, 2)
        assert config.current.name == "good"
        assert config.health().ok
        assert len(rejected) == 1
    assert SECRET not in caplog.text
    assert SECRET not in str(rejected)


class Strange(BaseModel):
    model_config = ConfigDict(frozen=True)
    name: str = ""

    @field_validator("name")
    @classmethod
    def check(cls, value: str) -> str:
        if value == "loop":
            raise RecursionError
        if value == "quote":
            message = f"I do not like {value}"
            raise ValueError(message)
        return value


@pytest.mark.parametrize("name", ["loop", "quote"])
def test_a_validator_that_raises_is_a_refusal(zkr_client: zkr.Client, name: str) -> None:
    zkr_client.create(PATH, b"{}", parents=True)
    with zkr.Config(zkr_client, PATH, Strange) as config:
        zkr_client.set(PATH, b'{"name": "%s"}' % name.encode())
        wait_until(lambda: config.rejection is not None, 10, "it is refused")
        zkr_client.set(PATH, b'{"name": "fine"}')
        config.wait_for(lambda current: current.name == "fine", 10)


@pytest.mark.parametrize("refused", [False, True])
def test_a_deleted_document_leaves_the_last_good_one(zkr_client: zkr.Client, refused: bool) -> None:  # noqa: FBT001
    first_release(zkr_client)
    with zkr.Config(zkr_client, PATH, Settings) as config:
        if refused:
            zkr_client.set(PATH, b"{")
            wait_until(lambda: config.rejection is not None, 5, "it is refused")
        zkr_client.delete(PATH)
        wait_until(lambda: "deleted" in config.health().reason, 5, "the deletion is visible")
        assert not config.health().ok
        assert config.rejection is None
        assert config.version == 0
        zkr_client.create(PATH, b'{"name": "back"}')
        config.wait_for(lambda current: current.name == "back", 5)
        assert config.health().ok


def test_a_permission_taken_away_leaves_the_last_good_one(zkr_server: Server, zkr_namespace: str) -> None:
    owner = zkr.DigestAuth("owner", "x")
    with (
        zkr.connect(zkr_server.hosts, namespace=zkr_namespace, auth=owner) as zk,
        zkr.connect(zkr_server.hosts, namespace=zkr_namespace) as reader,
    ):
        open_, closed = zkr.Acl(31, "world", "anyone"), zkr.Acl(31, "auth", "")
        first_release(zk)
        with zkr.Config(reader, PATH, Settings) as config:
            # Our client has no verb for it: made again, with an ACL that shuts the reader out.
            with zk.transaction() as tx:
                tx.delete(PATH)
                tx.create(PATH, GOOD, acl=[closed])
            wait_until(lambda: not config.health().ok, 5, "the lost permission is visible")
            assert "ACL" in config.health().reason
            assert config.version == 0
            with zk.transaction() as tx:
                tx.delete(PATH)
                tx.create(PATH, b'{"name": "open again"}', acl=[open_])
            config.wait_for(lambda current: current.name == "open again", 10)
            assert config.health().ok


def test_a_global_node_lies_below(zkr_client: zkr.Client) -> None:
    zkr_client.create("/config/all", b'{"name": "of all", "database": {"host": "db1"}}', parents=True)
    zkr_client.create(PATH, b'{"database": {"pool_size": 7}}')
    with zkr.Config(zkr_client, PATH, Settings, layers=(zkr.Global("/config/all"), zkr.Global("/none"))) as config:
        assert (config.current.name, config.current.database.host) == ("of all", "db1")
        assert config.source_of("name") == "global:/config/all"
        assert config.source_of("database.pool_size") == f"node:{PATH}"
        assert config.source_of("database.password") == "default"
        zkr_client.set("/config/all", b'{"name": "changed"}')
        assert config.wait_for(lambda current: current.name == "changed", 5).database.host == "localhost"
        zkr_client.set("/config/all", b"{")
        wait_until(lambda: config.rejection is not None, 5, "a bad global node is a refusal")
        assert "/config/all" in str(config.rejection)


def test_an_outage_is_visible_and_ends_by_itself(zkr_proxy: FaultProxy, zkr_client: zkr.Client, zkr_server: Server,
                                                 zkr_namespace: str) -> None:  # fmt: skip
    first_release(zkr_client)
    with (
        zkr.connect(zkr_server.hosts, namespace=zkr_namespace) as other,
        zkr.Config(zkr_client, PATH, Settings) as config,
    ):
        assert (config.state, config.age) == (zkr.Freshness.FRESH, 0.0)
        zkr_proxy.refuse()
        wait_until(lambda: config.state is zkr.Freshness.STALE, 10, "it is stale")
        wait_until(lambda: config.age > 0, 5, "its age grows")
        assert config.health().state == "stale"
        zkr.Config(other, PATH, Settings).publish(settings(9))
        with pytest.raises(zkr.UnavailableError):
            config.wait_for(lambda current: current.database.pool_size == 9, 0.2)
        zkr_proxy.heal()
        reaches(config, 1)
        wait_until(lambda: config.state is zkr.Freshness.FRESH, 10, "it is fresh again")


def test_waiting_has_an_end(zkr_client: zkr.Client) -> None:
    first_release(zkr_client)
    with zkr.Config(zkr_client, PATH, Settings) as config:
        with pytest.raises(zkr.AcquireTimeoutError):
            config.wait_for(lambda current: current.name == "never", 0.1)
        failed: list[BaseException] = []

        def wait() -> None:
            try:
                config.wait_for(lambda current: current.name == "never", None)
            except zkr.ClosedError as error:
                failed.append(error)

        thread = threading.Thread(target=wait)
        thread.start()
        config.close()
        thread.join(5)
        assert len(failed) == 1
        assert config.current.name == "shop", "what is in force stays readable"
        assert config.health().state == "closed"


def test_what_is_not_frozen_is_told_once(zkr_client: zkr.Client, caplog: pytest.LogCaptureFixture) -> None:
    class Soft(BaseModel):
        name: str = ""

    zkr_client.create(PATH, b"{}", parents=True)
    with caplog.at_level(logging.WARNING), zkr.Config(zkr_client, PATH, Soft) as config:
        config.publish(Soft(name="a"))
        config.wait_for(lambda current: current.name == "a", 5)
    assert caplog.text.count("not frozen") == 1


def test_torn_reads(zkr_client: zkr.Client, zkr_server: Server, zkr_namespace: str) -> None:
    """Eight threads read while a thousand releases go by: name and pool size always fit together."""
    first_release(zkr_client, settings(1, name="1"))
    torn: list[Settings] = []
    seen: list[set[str]] = [set() for _ in range(8)]
    done = threading.Event()
    with (
        zkr.connect(zkr_server.hosts, namespace=zkr_namespace) as writer,
        zkr.Config(zkr_client, PATH, Settings) as config,
    ):

        def read(number: int) -> None:
            # In bursts, with a little pause between them: eight threads that spin leave nothing of the interpreter.
            while not done.wait(0.002):
                for _ in range(100):
                    current = config.current
                    seen[number].add(current.name)
                    if current.name != str(current.database.pool_size):
                        torn.append(current)

        threads = [threading.Thread(target=read, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        try:
            for size in range(2, 1002):
                writer.set(PATH, settings(size, name=str(size)).model_dump_json().encode())
            config.wait_for(lambda current: current.name == "1001", 20)
        finally:
            done.set()
            for thread in threads:
                thread.join()
    assert torn == []
    assert min(map(len, seen)) > 20, "each has seen many of them come and go"


def test_after_the_end_no_callback_is_begun(zkr_client: zkr.Client) -> None:
    first_release(zkr_client)
    told: list[str] = []
    config = zkr.Config(zkr_client, PATH, Settings).start()

    @config.on_change("name")
    def close(change: zkr.ConfigChange[str]) -> None:
        config.close()
        told.append(change.new)

    config.on_change("name")(lambda _change: told.append("one too many"))
    config.on_commit(lambda _change: told.append("one too many"))
    config.publish(settings(name="new"))
    wait_until(lambda: told, 5, "the first is told")
    done = threading.Event()
    zkr_client.core.runtime.dispatch(config._state, done.set)
    assert done.wait(5)
    assert told == ["new"]
