"""Publishing: what is written, what is refused, and that a lost reply is told truly."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
from pydantic import SecretStr

import zkrecipes as zkr
from tests.integration.config.models import PATH, SECRET, Database, Settings, first_release, settings
from zkrecipes.testing import FaultProxy, Server


def config_of(zk: zkr.Client, **options: Any) -> zkr.Config[Settings]:
    return zkr.Config(zk, PATH, Settings, **options)


def test_publish_history_diff_and_rollback(zkr_client: zkr.Client) -> None:
    config = config_of(zkr_client)
    first = config.publish(settings(5), reason="the beginning")
    second = config.publish(settings(9, name="fair"), reason="sale", expected=0)
    assert (first.version, first.base, second.version, second.base) == (0, None, 1, 0)
    assert second.changed == ("name", "database.pool_size")
    assert [release.reason for release in config.history()] == ["sale", "the beginning"]
    assert [str(each) for each in config.diff(0, 1)] == ["~ name: 'shop' -> 'fair'", "~ database.pool_size: 5 -> 9"]
    back = config.rollback(0, reason="did not sell")
    assert (back.version, back.source, back.rolled_back_to, back.base) == (2, "rollback", 0, 1)
    assert config.history()[0] == back
    assert config.diff(0) == []
    assert zkr_client.get(PATH).stat.version == 2


def test_the_document_is_plain_and_the_record_has_the_same_zxid(zkr_client: zkr.Client) -> None:
    config_of(zkr_client).publish(settings(7))
    node = zkr_client.get(PATH)
    assert json.loads(node.value)["database"] == {"host": "localhost", "pool_size": 7, "password": SECRET}
    (name,) = zkr_client.children(f"{PATH}-releases")
    record = zkr_client.get(f"{PATH}-releases/{name}")
    assert record.stat.czxid == node.stat.mzxid, "document and record are one transaction"
    entry = json.loads(record.value)
    assert entry["format"] == 1
    assert entry["document"].encode() == node.value


def test_secrets_are_in_the_document_and_nowhere_else(zkr_client: zkr.Client, caplog: pytest.LogCaptureFixture) -> None:
    config = config_of(zkr_client)
    config.publish(settings(5))
    config.publish(Settings(database=Database(pool_size=5, password=SecretStr("other-secret-word"))))
    shown = [str(each) for each in config.diff(0, 1)]
    assert shown == ["~ database.password: '**********' -> '**********'"]
    with pytest.raises(zkr.ConflictError) as raised:
        config.publish(settings(6), expected=0)
    for text in (*shown, str(raised.value), repr(config.history()), caplog.text):
        assert SECRET not in text
        assert "other-secret-word" not in text
    assert config.history()[0].changed == ("database.password",)


def test_expected_is_a_compare_and_set_whose_conflict_shows_the_difference(zkr_client: zkr.Client) -> None:
    config = config_of(zkr_client)
    config.publish(settings(5))
    config.publish(settings(9), expected=0)
    with pytest.raises(zkr.ConflictError, match=r"database.pool_size: 9 -> 7") as raised:
        config.publish(settings(7), expected=0)
    assert (raised.value.expected, raised.value.actual) == (0, 1)
    with pytest.raises(zkr.ConflictError, match="does not exist"):
        zkr.Config(zkr_client, "/other", Settings).publish(settings(), expected=0)


def test_a_conflict_over_many_fields_tells_how_many(zkr_client: zkr.Client) -> None:
    first_release(zkr_client)
    with pytest.raises(zkr.ConflictError, match=r"and 82 more$"):
        config_of(zkr_client).publish(settings(flags={f"f{number:02}": True for number in range(100)}), expected=7)


def test_the_same_version_of_another_document_is_a_conflict(zkr_client: zkr.Client) -> None:
    first_release(zkr_client)
    with config_of(zkr_client) as config:
        zkr_client.delete(PATH)
        zkr_client.create(PATH, b"{}")
        with pytest.raises(zkr.ConflictError, match="deleted and made again"):
            config.publish(settings(), expected=0)


def test_two_publishers_at_once_lose_nothing(zkr_client: zkr.Client, zkr_server: Server, zkr_namespace: str) -> None:
    """Without `expected` both are published, one after the other; with it, one wins and the other is told."""
    first_release(zkr_client)
    outcomes: list[object] = []
    with zkr.connect(zkr_server.hosts, namespace=zkr_namespace) as other:
        barrier = threading.Barrier(2)

        def publish(zk: zkr.Client, name: str, expected: int | None) -> None:
            barrier.wait()
            try:
                outcomes.append(config_of(zk).publish(settings(name=name), expected=expected))
            except zkr.ConflictError as error:
                outcomes.append(error)

        for expected in (None, 2):
            threads = [threading.Thread(target=publish, args=(zk, name, expected)) for zk, name in
                       ((zkr_client, "a"), (other, "b"))]  # fmt: skip
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    assert sorted(type(each).__name__ for each in outcomes[:2]) == ["Release", "Release"]
    assert sorted(type(each).__name__ for each in outcomes[2:]) == ["ConflictError", "Release"]
    history = config_of(zkr_client).history()
    assert [release.version for release in history] == [3, 2, 1, 0]
    assert [release.base for release in history] == [2, 1, 0, None]


@pytest.mark.parametrize("attempts", [1, 2])
@pytest.mark.parametrize("expected", [None, 0])
def test_a_lost_reply_is_settled_and_nothing_is_published_twice(
    zkr_proxy: FaultProxy, zkr_client: zkr.Client, attempts: int, expected: int | None
) -> None:
    first_release(zkr_client)
    traps = [zkr_proxy.drop_reply("multi", nth) for nth in range(1, attempts + 1)]
    release = config_of(zkr_client).publish(settings(9), expected=expected)
    assert all(trap.fired for trap in traps)
    assert release.version == 1
    assert zkr_client.get(PATH).stat.version == 1
    assert config_of(zkr_client).history()[0].id == release.id
    assert len(config_of(zkr_client).history()) == 2


def test_a_request_that_never_arrived_is_sent_again(zkr_proxy: FaultProxy, zkr_client: zkr.Client) -> None:
    first_release(zkr_client)
    gate = zkr_proxy.hold_request("multi")
    done: list[zkr.Release] = []
    thread = threading.Thread(target=lambda: done.append(config_of(zkr_client).publish(settings(9), expected=0)))
    thread.start()
    gate.wait_held()
    gate.drop()
    thread.join(20)
    assert [release.version for release in done] == [1]
    assert len(config_of(zkr_client).history()) == 2


def test_an_outage_is_bounded_and_told(zkr_proxy: FaultProxy, zkr_client: zkr.Client) -> None:
    first_release(zkr_client)
    zkr_proxy.refuse()
    with pytest.raises(zkr.UnavailableError):
        config_of(zkr_client).publish(settings(9), timeout=0.5)
    zkr_proxy.heal()
    assert zkr_client.get(PATH).stat.version == 0


def test_records_are_kept_by_number(zkr_client: zkr.Client) -> None:
    config = config_of(zkr_client, keep=3)
    for size in range(1, 8):
        config.publish(settings(size))
    assert [release.version for release in config.history()] == [6, 5, 4]
    with pytest.raises(zkr.NodeNotFoundError, match="kept are: 4 to 6"):
        config.rollback(1)


def test_a_foreign_document_can_be_rolled_back_to(zkr_client: zkr.Client) -> None:
    """Migration: what another tool has written is recorded by the first publisher who replaces it."""
    zkr_client.create(PATH, b'{"name": "by hand"}', parents=True)
    config = config_of(zkr_client)
    config.publish(settings())
    assert [(release.version, release.source) for release in config.history()] == [(1, "publish"), (0, "found")]
    config.rollback(0)
    assert zkr_client.get(PATH).value == b'{"name": "by hand"}'


def test_a_large_document_is_compressed_then_refused(zkr_client: zkr.Client) -> None:
    config = config_of(zkr_client)
    config.publish(settings(name="x" * 700_000))
    raw = zkr_client.get(PATH).value
    assert len(raw) < 10_000 or raw.startswith(b"{")
    config.publish(settings(name="x" * 3_000_000))
    assert zkr_client.get(PATH).value.startswith(b"\x1f\x8b")
    with config:
        assert len(config.current.name) == 3_000_000
    assert config.diff(0, 1)[0].path == "name"
    noise = "".join(chr(0x4E00 + (number * 7919) % 20000) for number in range(600_000))
    with pytest.raises(zkr.PayloadTooLargeError, match="compressed") as raised:
        config.publish(settings(name=noise))
    assert raised.value.size > raised.value.limit
    assert zkr_client.get(PATH).stat.version == 1


def test_what_does_not_validate_is_not_published(zkr_client: zkr.Client) -> None:
    config = config_of(zkr_client)
    bad = Settings.model_construct(database=Database.model_construct(pool_size=0, password=SecretStr(SECRET)))
    with pytest.raises(zkr.ConfigRejectedError, match=r"database.pool_size") as raised:
        config.publish(bad)
    assert SECRET not in str(raised.value)
    with pytest.raises(TypeError, match="Settings"):
        config.publish(Database(pool_size=1))  # type: ignore[arg-type]
    assert zkr_client.exists(PATH) is None


def test_a_release_that_no_longer_validates_is_not_rolled_back_to(zkr_client: zkr.Client) -> None:
    releases: zkr.ConfigReleases[Any] = zkr.ConfigReleases(zkr_client, PATH)
    releases.publish('{"database": {"pool_size": "many"}}')
    config = config_of(zkr_client)
    config.publish(settings())
    with pytest.raises(zkr.ConfigRejectedError, match=r"version 0 of .*pool_size"):
        config.rollback(0)


def test_who_may_not_write_is_told(zkr_server: Server, zkr_namespace: str) -> None:
    owner = zkr.DigestAuth("owner", "x")
    acl = [zkr.Acl(31, "auth", ""), zkr.Acl(1, "world", "anyone")]
    with (
        zkr.connect(zkr_server.hosts, namespace=zkr_namespace, auth=owner, acl=acl) as zk,
        zkr.connect(zkr_server.hosts, namespace=zkr_namespace) as stranger,
    ):
        zk.create("/config", acl=acl, parents=True)
        first_release(zk)
        with pytest.raises(zkr.AccessDeniedError):
            config_of(stranger).publish(settings(9))
        with config_of(stranger) as reader:
            assert reader.version == 0
        zk.delete(PATH)


@pytest.mark.parametrize("format_", ["json", "yaml", "toml"])
def test_formats(zkr_client: zkr.Client, format_: Any) -> None:
    config = config_of(zkr_client, format=format_)
    config.publish(settings(8, flags={"new checkout": True}))
    with config:
        assert config.current == settings(8, flags={"new checkout": True})
    assert SECRET in zkr_client.get(PATH).value.decode()


def test_a_first_release_may_insist_on_being_the_first(zkr_client: zkr.Client) -> None:
    config = config_of(zkr_client, who="ann@desk")
    assert config.publish(settings(5), expected=-1).who == "ann@desk"
    with pytest.raises(zkr.ConflictError, match="should not exist") as raised:
        config.publish(settings(7), expected=-1)
    assert (raised.value.expected, raised.value.actual) == (-1, 0)
    for bad in (-2, True, "1"):
        with pytest.raises(ValueError, match="expected"):
            config.publish(settings(7), expected=bad)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="who"):
        config_of(zkr_client, who=1)


def test_a_lost_reply_of_a_first_release(zkr_proxy: FaultProxy, zkr_client: zkr.Client) -> None:
    zkr_client.create("/config")
    zkr_client.create(f"{PATH}-releases")
    trap = zkr_proxy.drop_reply("multi")
    assert config_of(zkr_client).publish(settings(5), expected=-1).version == 0
    assert trap.fired
    assert len(config_of(zkr_client).history()) == 1


def test_a_node_that_is_not_ours_hides_no_release(zkr_client: zkr.Client, caplog: pytest.LogCaptureFixture) -> None:
    config = config_of(zkr_client)
    config.publish(settings(5), reason="ours")
    config.publish(settings(6))
    for name in ("0000000000-foreign", "0000000007-foreign", "README"):
        zkr_client.create(f"{PATH}-releases/{name}", b'{"format": 99}')
    assert [each.version for each in config.history()] == [1, 0]
    assert "left out" in caplog.text
    assert config.rollback(0).version == 2
    with pytest.raises(zkr.DecodeError, match="format 99"):
        config.rollback(7)
    zkr_client.create(f"{PATH}-instances/foreign", b"", parents=True)
    assert config.status().instances == []
