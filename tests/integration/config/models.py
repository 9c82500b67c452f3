"""The model of these tests, and small helpers."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr

import zkrecipes as zkr
from zkrecipes.testing import wait_until

PATH = "/config/shop"
SECRET = "hunter2-geheim"


class Database(BaseModel):
    model_config = ConfigDict(frozen=True)

    host: str = "localhost"
    pool_size: int = Field(default=5, ge=1)
    password: SecretStr = SecretStr("")


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True)

    name: str = "shop"
    database: Database = Database()
    flags: dict[str, bool] = {}


def settings(pool_size: int = 5, **fields: Any) -> Settings:
    return Settings(database=Database(pool_size=pool_size, password=SecretStr(SECRET)), **fields)


def first_release(zk: zkr.Client, value: Settings | None = None) -> None:
    text = (value or Settings()).model_dump_json().replace("**********", SECRET)
    zkr.ConfigReleases(zk, PATH, Settings).publish(text)


def reaches(config: zkr.Config[Settings], version: int) -> None:
    wait_until(lambda: config.version == version, 10, f"version {version} is in force")
