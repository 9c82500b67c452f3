"""How a configuration starts: inside its deadline, from ZooKeeper, from the cache, or from the defaults."""

from __future__ import annotations

import errno
import json
import os
import stat
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

import zkrecipes as zkr
from tests.integration.config.models import PATH, SECRET, Settings, first_release, reaches, settings
from zkrecipes.testing import FaultProxy, Server, wait_until


def test_without_a_document_the_start_fails_at_once(zkr_client: zkr.Client) -> None:
    config = zkr.Config(zkr_client, PATH, Settings)
    with pytest.raises(zkr.NodeNotFoundError, match="publish a first release"):
        config.start(10)
    with pytest.raises(zkr.ClosedError, match="start"):
        _ = config.current
    assert config.health().state == "not started"
    first_release(zkr_client)
    assert config.start(10).version == 0, "it may be started again"
    config.close()
    config.close()
    with pytest.raises(zkr.ClosedError):
        config.start()


def test_a_bad_document_fails_the_start(zkr_client: zkr.Client) -> None:
    zkr_client.create(PATH, b'{"database": {"pool_size": 0}}', parents=True)
    with pytest.raises(zkr.ConfigRejectedError, match=r"database\.pool_size") as raised:
        zkr.Config(zkr_client, PATH, Settings).start(10)
    assert raised.value.version == 0
    assert raised.value.errors[0].path == "database.pool_size"


def test_who_may_not_read_cannot_start(zkr_client: zkr.Client) -> None:
    zkr_client.create("/config", parents=True)
    zkr_client.create(PATH, b"{}", acl=[zkr.Acl(8, "world", "anyone")])
    with pytest.raises(zkr.AccessDeniedError):
        zkr.Config(zkr_client, PATH, Settings).start(10)


@pytest.mark.parametrize("fault", ["refuse", "blackhole"])
def test_an_outage_ends_the_start_inside_its_deadline(
    zkr_proxy: FaultProxy, zkr_client: zkr.Client, fault: str
) -> None:
    getattr(zkr_proxy, fault)()
    began = time.monotonic()
    with pytest.raises(zkr.UnavailableError):
        zkr.Config(zkr_client, PATH, Settings).start(0.5)
    assert time.monotonic() - began < 3


def test_defaults_stand_in_and_it_catches_up(zkr_client: zkr.Client) -> None:
    told: list[zkr.ConfigChange[Any]] = []
    config = zkr.Config(zkr_client, PATH, Settings, start="defaults", layers=(zkr.Overrides({"name": "mine"}),))
    config.on_change("database.pool_size")(told.append)
    with config:
        assert (config.state, config.version, config.current.name) == (zkr.Freshness.DEFAULTS, -1, "mine")
        assert config.age == float("inf")
        assert not config.health().ok
        first_release(zkr_client, settings(9))
        reaches(config, 0)
        wait_until(lambda: told, 5, "the change is told")
        assert (told[0].old, told[0].new) == (5, 9)
        assert config.state is zkr.Freshness.FRESH
        assert config.health().ok


def test_defaults_that_do_not_validate(zkr_client: zkr.Client) -> None:
    class Needs(BaseModel):
        model_config = ConfigDict(frozen=True)
        name: str

    with pytest.raises(zkr.ConfigRejectedError, match=r"name.*default"):
        zkr.Config(zkr_client, PATH, Needs, start="defaults").start(10)


def test_a_service_starts_from_its_cache_and_catches_up(
    zkr_proxy: FaultProxy, zkr_client: zkr.Client, zkr_server: Server, zkr_namespace: str, tmp_path: Path
) -> None:
    cache = tmp_path / "shop.cache"
    zkr_client.create("/config/all", b'{"name": "of all"}', parents=True)
    zkr_client.create(PATH, b'{"database": {"pool_size": 7}}')
    options: dict[str, Any] = {"cache": cache, "layers": (zkr.Global("/config/all"),)}
    with zkr.Config(zkr_client, PATH, Settings, **options) as config:
        assert config.current.database.pool_size == 7
        wait_until(cache.exists, 5, "the cache is written")
    assert stat.S_IMODE(cache.stat().st_mode) == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["shop.cache"], "nothing is left beside it"
    with zkr.connect(zkr_server.hosts, namespace=zkr_namespace) as other:
        other.set(PATH, b'{"database": {"pool_size": 8}}')
    zkr_proxy.refuse()
    told: list[zkr.ConfigChange[Any]] = []
    config = zkr.Config(zkr_client, PATH, Settings, **options)
    config.on_change("database.pool_size")(told.append)
    config.start(0.3)
    assert (config.current.database.pool_size, config.current.name) == (7, "of all")
    assert config.state is zkr.Freshness.STALE
    assert 0 < config.age < 60
    assert config.health().state == "stale"
    assert config.source_of("name") == "global:/config/all"
    zkr_proxy.heal()
    reaches(config, 1)
    wait_until(lambda: told, 5, "the change is told")
    assert (told[0].old, told[0].new) == (7, 8)
    assert (config.age, config.health().ok) == (0.0, True)
    config.close()


def broken(file: Path, how: str) -> None:
    raw = file.read_bytes()
    outer = json.loads(raw)
    match how:
        case "cut off":
            file.write_bytes(raw[: len(raw) // 2])
        case "changed":
            outer["content"] = outer["content"].replace("config", "xonfig")
        case "newer":
            outer["format"] = 2
        case "empty":
            file.write_bytes(b"")
        case "missing":
            file.unlink()
    if how in {"changed", "newer"}:
        file.write_text(json.dumps(outer))


@pytest.mark.parametrize("how", ["cut off", "changed", "newer", "empty", "missing", "other path"])
def test_a_cache_that_cannot_be_trusted_is_refused(
    zkr_proxy: FaultProxy, zkr_client: zkr.Client, tmp_path: Path, how: str
) -> None:
    first_release(zkr_client)
    cache = tmp_path / "cache"
    with zkr.Config(zkr_client, PATH, Settings, cache=cache):
        pass
    broken(cache, how)
    path = "/config/other" if how == "other path" else PATH
    zkr_proxy.refuse()
    with pytest.raises(zkr.UnavailableError) as raised:
        zkr.Config(zkr_client, path, Settings, cache=cache).start(0.2)
    assert "cache" in str(raised.value.__notes__)
    config = zkr.Config(zkr_client, path, Settings, cache=cache, start="defaults")
    config.start(0.2)
    assert config.state is zkr.Freshness.DEFAULTS
    config.close()


def test_a_bad_document_starts_from_the_cache(zkr_client: zkr.Client, tmp_path: Path) -> None:
    first_release(zkr_client, settings(7))
    cache = tmp_path / "cache"
    with zkr.Config(zkr_client, PATH, Settings, cache=cache):
        pass
    zkr_client.set(PATH, b"{")
    with zkr.Config(zkr_client, PATH, Settings, cache=cache) as config:
        assert config.current.database.pool_size == 7
        assert config.health().state == "rejected"
        zkr_client.set(PATH, b"{}")
        reaches(config, 2)


def test_a_full_disk_costs_the_cache_and_nothing_else(
    zkr_client: zkr.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first_release(zkr_client)
    cache = tmp_path / "cache"
    with zkr.Config(zkr_client, PATH, Settings, cache=cache) as config:
        wait_until(cache.exists, 5, "the cache is written")
        before = cache.read_bytes()
        full = threading.Event()

        def no_space(_descriptor: int) -> None:
            full.set()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr("zkrecipes.config_cache.os.fsync", no_space)
        config.publish(settings(9))
        reaches(config, 1)
        assert full.wait(5)
        wait_until(lambda: "No space" in config.health().reason, 5, "health tells")
        assert config.health().ok
        assert cache.read_bytes() == before
        assert [each.name for each in tmp_path.iterdir()] == ["cache"]
        monkeypatch.undo()
        config.publish(settings(10))
        reaches(config, 2)
        wait_until(lambda: cache.read_bytes() != before, 5, "the next one is written")
        wait_until(lambda: config.health().reason == "", 5, "health is well again")
    assert "No space" in caplog.text
    assert SECRET not in caplog.text


def test_files_environment_and_overrides(
    zkr_client: zkr.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "base.toml"
    file.write_text('name = "file"\n[database]\nhost = "file"\npool_size = 2\n')
    monkeypatch.setenv("APP_DATABASE__POOL_SIZE", "11")
    monkeypatch.setenv("APP_FLAGS", '{"a": true}')
    zkr_client.create(PATH, b'{"database": {"host": "node", "pool_size": 3}}', parents=True)
    layers = (zkr.Overrides({"flags.b": False}), zkr.Env("APP_"), zkr.File(file))
    with zkr.Config(zkr_client, PATH, Settings, layers=layers) as config:
        assert {each.path: (each.value, each.source) for each in config.explain()} == {
            "name": ("file", f"file:{file}"),
            "database.host": ("node", f"node:{PATH}"),
            "database.pool_size": (11, "env:APP_DATABASE__POOL_SIZE"),
            "database.password": ("", "default"),
            "flags.a": (True, "env:APP_FLAGS"),
            "flags.b": (False, "override"),
        }
        assert config.source_of("flags") == "env:APP_FLAGS, override"
    with pytest.raises(zkr.ConfigRejectedError, match=r"no\.json does not exist"):
        zkr.Config(zkr_client, PATH, Settings, layers=(zkr.File(tmp_path / "no.json"),)).start(5)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"start": "never"}, ValueError),
        ({"format": "ini"}, ValueError),
        ({"keep": 0}, ValueError),
        ({"layout": "forest"}, ValueError),
        ({"layers": zkr.Env("A_")}, TypeError),
        ({"layers": ("A_",)}, TypeError),
        ({"layers": (zkr.File("base.ini"),)}, ValueError),
        ({"layers": (zkr.Global("relative"),)}, ValueError),
        ({"instance": "me"}, TypeError),
    ],
)
def test_arguments_are_checked_before_anything_is_sent(
    zkr_client: zkr.Client, options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        zkr.Config(zkr_client, PATH, Settings, **options)


def test_the_model_is_checked(zkr_client: zkr.Client) -> None:
    for model in (None, dict, Settings()):
        with pytest.raises(TypeError, match="model"):
            zkr.Config(zkr_client, PATH, model)  # type: ignore[arg-type, type-var]


def test_a_start_that_has_begun_waits_for_nothing(zkr_proxy: FaultProxy, zkr_client: zkr.Client) -> None:
    zkr_proxy.refuse()
    began = time.monotonic()
    with zkr.Config(zkr_client, PATH, Settings, start="defaults").start(0.2) as config:
        assert config.state is zkr.Freshness.DEFAULTS
    assert time.monotonic() - began < 5


def test_in_a_forked_child(zkr_client: zkr.Client) -> None:
    first_release(zkr_client)
    with zkr.Config(zkr_client, PATH, Settings) as config:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                ok = config.current.name == "shop" and config.state is zkr.Freshness.STALE
                for attempt in (
                    config.on_change,
                    lambda: config.publish(settings(1)),
                    config.history,
                ):
                    try:
                        made: Any = attempt()
                        made(print)
                        ok = False
                    except zkr.ForkedError:
                        pass
                config.close()
                code = 0 if ok else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert config.state is zkr.Freshness.FRESH


def test_the_client_is_closed_first(zkr_server: Server, zkr_client: zkr.Client, zkr_namespace: str) -> None:
    first_release(zkr_client)
    with zkr.connect(zkr_server.hosts, namespace=zkr_namespace) as zk:
        config = zkr.Config(zk, PATH, Settings).start()
    assert config.current.name == "shop"
    assert config.state is zkr.Freshness.STALE
    assert not config.health().ok
    with pytest.raises(zkr.ClosedError):
        config.publish(settings(1))
    with pytest.raises(zkr.ClosedError):
        config.wait_for(lambda current: current.name == "never", None)
    config.close()


def test_an_expired_session_is_no_end(zkr_server: Server, zkr_client: zkr.Client, zkr_namespace: str) -> None:
    first_release(zkr_client)
    with zkr.connect(zkr_server.hosts, namespace=zkr_namespace) as zk, zkr.Config(zk, PATH, Settings) as config:
        first = zk.session_id
        zkr_server.expire(zk)
        zkr.Config(zkr_client, PATH, Settings).publish(settings(9))
        reaches(config, 1)
        assert zk.session_id != first
        wait_until(lambda: config.state is zkr.Freshness.FRESH, 10, "it is fresh again")
