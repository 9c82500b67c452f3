"""A document as a source of pydantic-settings."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

import zkrecipes as zkr
from zkrecipes.config_settings import ZooKeeperSource

PATH = "/config/shop"


class Database(BaseModel):
    host: str = "localhost"
    pool_size: int = 5


def settings_from(zk: zkr.Client, **options: Any) -> type[BaseSettings]:
    class Settings(BaseSettings):
        model_config = SettingsConfigDict(env_prefix="SHOP_", env_nested_delimiter="__")

        name: str = "default"
        database: Database = Database()

        @classmethod
        def settings_customise_sources(  # type: ignore[override]  # the others are not wanted
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            **_others: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return init_settings, env_settings, ZooKeeperSource(settings_cls, zk, PATH, **options)

    return Settings


def test_it_stands_below_the_environment(zkr_client: zkr.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    zkr_client.create(PATH, b'{"name": "node", "database": {"host": "node", "pool_size": 7}}', parents=True)
    monkeypatch.setenv("SHOP_DATABASE__HOST", "env")
    found: Any = settings_from(zkr_client)()
    assert (found.name, found.database.host, found.database.pool_size) == ("node", "env", 7)
    found = settings_from(zkr_client)(name="init")
    assert found.name == "init"


def test_a_document_that_is_missing_or_broken(zkr_client: zkr.Client) -> None:
    with pytest.raises(zkr.NodeNotFoundError):
        settings_from(zkr_client)()
    found: Any = settings_from(zkr_client, optional=True)()
    assert found.name == "default"
    zkr_client.create(PATH, b'{"name": "hunter2"', parents=True)
    with pytest.raises(zkr.ConfigRejectedError, match="line 1") as raised:
        settings_from(zkr_client)()
    assert "hunter2" not in str(raised.value)
