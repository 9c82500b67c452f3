"""Typed configuration, for asyncio. The service, and what is promised, are in zkrecipes.config.

Callbacks and the model's validators run on the event loop; files and the cache are read and written in other threads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, final

from pydantic import BaseModel
from typing_extensions import TypeVar

from zkrecipes.config import Start
from zkrecipes.config_document import Format, text_of
from zkrecipes.config_layers import Layer
from zkrecipes.config_model import Difference
from zkrecipes.config_releases import Publisher, Script
from zkrecipes.config_types import Canary, Instance, Release, RolloutStatus
from zkrecipes.config_view import ConfigLayout, ConfigView, make_publisher, make_state
from zkrecipes.core import DEFAULT, DefaultTimeout
from zkrecipes.handle import core_of
from zkrecipes.timing import Timeout

if TYPE_CHECKING:
    from zkrecipes.aio.client import Client

__all__ = ["Config", "ConfigReleases"]

M = TypeVar("M", bound=BaseModel, default=BaseModel)
T = TypeVar("T")


class _Verbs(Generic[M]):
    """What is done with releases. Arguments and errors as of zkrecipes.Config."""

    _client: Client
    _publisher: Publisher[M]

    async def _run(self, script: Script[T]) -> T:
        answer: Any = None
        error: BaseException | None = None
        try:
            while True:
                try:
                    step = script.send(answer) if error is None else script.throw(error)
                except StopIteration as stop:
                    result: T = stop.value
                    return result
                answer, error = None, None
                try:
                    answer = await (asyncio.to_thread(step) if callable(step) else self._client.run(step))
                except BaseException as raised:  # noqa: BLE001 - whatever it is, it belongs to the script
                    error = raised
        finally:
            error = None

    async def history(self, *, timeout: Timeout | DefaultTimeout = DEFAULT) -> list[Release]:
        """The releases whose records are kept, newest first."""
        return await self._run(self._publisher.history(timeout=timeout))

    async def diff(
        self, old: int, new: int | None = None, *, timeout: Timeout | DefaultTimeout = DEFAULT
    ) -> list[Difference]:
        """What differs between two versions, secrets masked; `new` is the newest where None."""
        return await self._run(self._publisher.diff(old, new, timeout=timeout))

    async def rollback(self, to: int, *, reason: str = "", timeout: Timeout | DefaultTimeout = DEFAULT) -> Release:
        """Publish the document of version `to` again, as a new release."""
        return await self._run(self._publisher.rollback(to, reason=reason, timeout=timeout))

    async def promote(self, *, timeout: Timeout | DefaultTimeout = DEFAULT) -> Release:
        """Make the canary's document everybody's."""
        return await self._run(self._publisher.promote(timeout=timeout))

    async def abort(self, *, reason: str = "", timeout: Timeout | DefaultTimeout = DEFAULT) -> None:
        """End the canary; who runs it goes back to the document."""
        await self._run(self._publisher.abort(reason=reason, timeout=timeout))

    async def status(self, *, timeout: Timeout | DefaultTimeout = DEFAULT) -> RolloutStatus:
        """Which instance runs what, and the canary that runs."""
        return await self._run(self._publisher.status(timeout=timeout))


@final
class ConfigReleases(_Verbs[M]):
    """The releases of a configuration, for tools. Arguments as of zkrecipes.ConfigReleases."""

    def __init__(
        self,
        client: Client,
        path: str,
        model: type[M] | None = None,
        *,
        layout: ConfigLayout = "document",
        format: Format = "json",  # noqa: A002
        keep: int = 50,
        who: str | None = None,
    ) -> None:
        self._client = client
        self._publisher = make_publisher(
            core_of(client, aio=True), path, model, layout=layout, format_=format, keep=keep, who=who
        )

    async def read(self, version: int | None = None, *, timeout: Timeout | DefaultTimeout = DEFAULT) -> tuple[int, str]:
        """Version and text of the document, the newest where `version` is None. Secrets are in clear."""
        if version is None:
            newest, raw = await self._run(self._publisher.read(timeout=timeout))
            return newest, text_of(raw)
        return version, text_of(await self._run(self._publisher.text_of_version(version, timeout=timeout)))

    async def publish(
        self,
        text: str,
        *,
        reason: str = "",
        expected: int | None = None,
        canary: Canary | None = None,
        timeout: Timeout | DefaultTimeout = DEFAULT,
    ) -> Release:
        """Publish a document as it is written."""
        script = self._publisher.publish_text(text, reason=reason, expected=expected, canary=canary, timeout=timeout)
        return await self._run(script)

    def masked(self, text: str) -> Mapping[str, Any]:
        """A document's values for people to see."""
        return self._publisher.drafts.masked(text.encode())


@final
class Config(ConfigView[M], _Verbs[M]):
    """One configuration, kept up to date: `start` it, or use `async with`. Arguments as of zkrecipes.Config."""

    def __init__(
        self,
        client: Client,
        path: str,
        model: type[M],
        *,
        layers: Sequence[Layer] = (),
        cache: Path | str | None = None,
        start: Start = "require",
        layout: ConfigLayout = "document",
        format: Format = "json",  # noqa: A002
        instance: Instance | None = None,
        keep: int = 50,
        who: str | None = None,
    ) -> None:
        self._client = client
        self._state = make_state(
            core_of(client, aio=True),
            path,
            model,
            layers=layers,
            cache=cache,
            start=start,
            layout=layout,
            format_=format,
            instance=instance,
            keep=keep,
            who=who,
            background=_in_a_thread,
        )
        self._publisher = self._state.publisher

    async def start(self, timeout: Timeout | DefaultTimeout = DEFAULT) -> Self:
        """Read everything and put it in force. Errors as of zkrecipes.Config.start."""
        await self._run(self._state.start(timeout))
        return self

    async def close(self) -> None:
        """End it, here and on the server. `current` stays readable. Idempotent."""
        await self._run(self._state.close())

    async def wait_for(self, predicate: Callable[[M], bool], timeout: Timeout | DefaultTimeout = DEFAULT) -> M:
        """Wait until `predicate(current)` is true, and return that instance."""
        return await self._run(self._state.wait_for(predicate, timeout))

    async def publish(
        self,
        model: M,
        *,
        reason: str = "",
        expected: int | None = None,
        canary: Canary | None = None,
        timeout: Timeout | DefaultTimeout = DEFAULT,
    ) -> Release:
        """Validate an instance, and publish it to all, or to some first. Errors as of zkrecipes.Config.publish."""
        czxid = self._state.czxid_of(expected)
        script = self._publisher.publish(
            model, reason=reason, expected=expected, czxid=czxid, canary=canary, timeout=timeout
        )
        return await self._run(script)

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()


def _in_a_thread(work: Callable[[], None]) -> None:
    # Called from a callback, which runs on the loop.
    asyncio.get_running_loop().run_in_executor(None, work)
