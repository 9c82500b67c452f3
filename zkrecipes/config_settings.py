"""A document on ZooKeeper as a source of pydantic-settings. Needs the extra `settings`.

    class Settings(BaseSettings):
        @classmethod
        def settings_customise_sources(cls, settings_cls, init_settings, env_settings, **_):
            return init_settings, env_settings, ZooKeeperSource(settings_cls, zk, "/config/shop")

It is read each time that an instance is made, and not reloaded: for that there is zkrecipes.Config.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

from zkrecipes.config_document import Document, DocumentError, Format, parse
from zkrecipes.core import DEFAULT, DefaultTimeout
from zkrecipes.errors import ConfigRejectedError, NodeNotFoundError
from zkrecipes.timing import Timeout

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo
    from pydantic_settings import BaseSettings

    from zkrecipes.client import Client

try:
    from pydantic_settings import PydanticBaseSettingsSource
except ImportError as error:
    message = 'this source needs pydantic-settings: pip install "zkrecipes[settings]"'
    raise ImportError(message) from error

__all__ = ["ZooKeeperSource"]


@final
class ZooKeeperSource(PydanticBaseSettingsSource):
    """The document of a configuration.

    Args:
        settings_cls: As given to `settings_customise_sources`.
        client: From `connect`.
        path: The document's path.
        format: Of the document.
        optional: Whether the document may be missing.
        timeout: Seconds for reading it.
    """

    def __init__(
        self,
        settings_cls: type[BaseSettings],
        client: Client,
        path: str,
        *,
        format: Format = "json",  # noqa: A002
        optional: bool = False,
        timeout: Timeout | DefaultTimeout = DEFAULT,
    ) -> None:
        super().__init__(settings_cls)
        self._client = client
        self._path = path
        self._format = format
        self._optional = optional
        self._timeout = timeout

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """One field's value, its name in the document, and whether it is to be decoded, which it never is."""
        document = self()
        key = field.alias or field_name
        return document.get(key), key, False

    def __call__(self) -> Document:
        """The document's values.

        Raises:
            NodeNotFoundError: It does not exist, and is not optional.
            ConfigRejectedError: It does not parse.
            UnavailableError: No server answered in time.
        """
        try:
            raw = self._client.get(self._path, timeout=self._timeout).value
        except NodeNotFoundError:
            if self._optional:
                return {}
            raise
        try:
            return parse(raw, self._format)
        except DocumentError as error:
            text = f"{self._path}: {error}"
            raise ConfigRejectedError(text, path=self._path) from None

    def __repr__(self) -> str:
        return f"ZooKeeperSource({self._path})"
