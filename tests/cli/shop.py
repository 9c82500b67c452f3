"""The model that the tests of `zkrecipes config` name by --model tests.cli.shop:Settings."""

from pydantic import BaseModel, ConfigDict, Field, SecretStr


class Database(BaseModel):
    """A nested model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = "localhost"
    pool_size: int = Field(default=5, gt=0)
    password: SecretStr = SecretStr("")


class Settings(BaseModel):
    """The whole."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    greeting: str = "hello"
    pin: SecretStr = SecretStr("")  # a secret by its type alone
    database: Database = Database()


NO_MODEL = 1
