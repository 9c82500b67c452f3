"""Typed configuration: a pydantic model on ZooKeeper, validated before it is applied, reloaded while the service runs.

    with zkr.Config(zk, "/config/shop", Settings) as config:
        @config.on_change("database.pool_size")
        def resize(change): pool.resize(change.new)
        config.current.database.pool_size

Promises: `current` is always one whole, validated instance, swapped in one step; a document that does not parse or
validate, or that a callback vetoes, is refused, and the last good one stays; the newest good one is always reached.
Publishing writes the document and its release record in one transaction, and tells the truth after a lost reply.

Does not promise: each release in between (several that come at once are one change); that instances change at the same
moment; that secrets are safe from who may read the node: they stand there in clear.

Nodes: see zkrecipes.config_types. The document is plain JSON, YAML or TOML, which any tool may read and write.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, final

from pydantic import BaseModel
from typing_extensions import TypeVar

from zkrecipes.config_apply import Explained, Rejection
from zkrecipes.config_callbacks import ConfigChange
from zkrecipes.config_document import Format, text_of
from zkrecipes.config_force import Freshness
from zkrecipes.config_layers import Env, File, Global, Layer, Overrides
from zkrecipes.config_model import Difference, FieldError
from zkrecipes.config_releases import Publisher, Script
from zkrecipes.config_types import Canary, CanaryStatus, EndedCanary, Instance, InstanceStatus, Release, RolloutStatus
from zkrecipes.config_view import ConfigLayout, ConfigView, make_publisher, make_state
from zkrecipes.core import DEFAULT, DefaultTimeout
from zkrecipes.flow import refuse_event_loop
from zkrecipes.handle import core_of
from zkrecipes.timing import Timeout

if TYPE_CHECKING:
    from zkrecipes.client import Client

__all__ = [
    "Canary",
    "CanaryStatus",
    "Config",
    "ConfigChange",
    "ConfigReleases",
    "Difference",
    "EndedCanary",
    "Env",
    "Explained",
    "FieldError",
    "File",
    "Freshness",
    "Global",
    "Instance",
    "InstanceStatus",
    "Overrides",
    "Rejection",
    "Release",
    "RolloutStatus",
]

M = TypeVar("M", bound=BaseModel, default=BaseModel)
V = TypeVar("V")
T = TypeVar("T")

Start = Literal["require", "defaults"]


# --- threads ----------------------------------------------------------------------------------------------------------


class _Verbs(Generic[M]):
    """What is done with releases."""

    _client: Client
    _publisher: Publisher[M]

    def _run(self, script: Script[T]) -> T:
        """Step a script: its algorithms under the step lock, what stands between them not."""
        refuse_event_loop("this call")
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
                    answer = step() if callable(step) else self._client.run(step)
                except BaseException as raised:  # noqa: BLE001 - whatever it is, it belongs to the script
                    error = raised
        finally:
            error = None

    def history(self, *, timeout: Timeout | DefaultTimeout = DEFAULT) -> list[Release]:
        """The releases whose records are kept, newest first."""
        return self._run(self._publisher.history(timeout=timeout))

    def diff(
        self, old: int, new: int | None = None, *, timeout: Timeout | DefaultTimeout = DEFAULT
    ) -> list[Difference]:
        """What differs between two versions, secrets masked; `new` is the newest where None.

        Raises:
            NodeNotFoundError: There is no record of one of them.
        """
        return self._run(self._publisher.diff(old, new, timeout=timeout))

    def rollback(self, to: int, *, reason: str = "", timeout: Timeout | DefaultTimeout = DEFAULT) -> Release:
        """Publish the document of version `to` again, as a new release.

        Raises:
            NodeNotFoundError: There is no record of it.
            ConfigRejectedError: It does not validate by the present model.
            ConflictError: A canary runs: abort it first.
            OutcomeUnknownError: The reply was lost, and no server told in time what became of it.
        """
        return self._run(self._publisher.rollback(to, reason=reason, timeout=timeout))

    def promote(self, *, timeout: Timeout | DefaultTimeout = DEFAULT) -> Release:
        """Make the canary's document everybody's.

        Raises:
            NodeNotFoundError: No canary runs.
            ConflictError: The document is not the one any more that it was based on.
        """
        return self._run(self._publisher.promote(timeout=timeout))

    def abort(self, *, reason: str = "", timeout: Timeout | DefaultTimeout = DEFAULT) -> None:
        """End the canary; who runs it goes back to the document.

        Raises:
            NodeNotFoundError: No canary runs.
        """
        self._run(self._publisher.abort(reason=reason, timeout=timeout))

    def status(self, *, timeout: Timeout | DefaultTimeout = DEFAULT) -> RolloutStatus:
        """Which instance runs what, and the canary that runs."""
        return self._run(self._publisher.status(timeout=timeout))


@final
class ConfigReleases(_Verbs[M]):
    """The releases of a configuration, for tools: documents as text, with a model or without. Needs no start.

    Args:
        client: From `connect`.
        path: The document's path.
        model: What is published is checked against it; None checks only that it parses.
        layout: As of Config. In the tree layout documents are put together, and are JSON.
        format: Of the document: "json", "yaml" or "toml".
        keep: How many release records are kept.
        who: The publisher, for the records; the client's identity by default.

    Raises:
        ValueError: An argument is not valid.
    """

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
            core_of(client, aio=False), path, model, layout=layout, format_=format, keep=keep, who=who
        )

    def read(self, version: int | None = None, *, timeout: Timeout | DefaultTimeout = DEFAULT) -> tuple[int, str]:
        """Version and text of the document, the newest where `version` is None. Secrets are in clear.

        Raises:
            NodeNotFoundError: It does not exist, or there is no record of this version.
            ValueError: It is no text.
        """
        if version is None:
            newest, raw = self._run(self._publisher.read(timeout=timeout))
            return newest, text_of(raw)
        return version, text_of(self._run(self._publisher.text_of_version(version, timeout=timeout)))

    def publish(
        self,
        text: str,
        *,
        reason: str = "",
        expected: int | None = None,
        canary: Canary | None = None,
        timeout: Timeout | DefaultTimeout = DEFAULT,
    ) -> Release:
        """Publish a document as it is written. Arguments and errors as of Config.publish."""
        script = self._publisher.publish_text(text, reason=reason, expected=expected, canary=canary, timeout=timeout)
        return self._run(script)

    def masked(self, text: str) -> Mapping[str, Any]:
        """A document's values for people to see: secret by the model's types; without a model, by their names.

        Raises:
            ValueError: It does not parse.
        """
        return self._publisher.drafts.masked(text.encode())


@final
class Config(ConfigView[M], _Verbs[M]):
    """One configuration, kept up to date. A service: `start` it, or use `with`.

    Args:
        client: From `connect`.
        path: The document's path. Beside it stand `<path>-releases`, `<path>-canary` and `<path>-instances`.
        model: A pydantic model; frozen, best, since all share the instance in force.
        layers: File, Global, Env and Overrides, in any order; their rank is fixed (see zkrecipes.config_layers).
        cache: A file for the last good documents (mode 0600), from which a service can start while ZooKeeper is away.
        start: "require" needs a good document, or cache, to start; "defaults" starts from the model's defaults and the
            local layers if there is neither, and catches up.
        layout: "document" keeps all in one node; "tree" gives each field a node of its own, as Spring Cloud Zookeeper.
        format: Of the document: "json", "yaml" or "toml".
        instance: Which instance this is, for canaries and `status()`.
        keep: How many release records are kept.
        who: The publisher, for the records; the client's identity by default.

    Raises:
        ValueError: An argument is not valid.
        TypeError: The model is no pydantic model.
    """

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
            core_of(client, aio=False),
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
            background=partial(client.core.runtime.dispatch, object()),
        )
        self._publisher = self._state.publisher

    def start(self, timeout: Timeout | DefaultTimeout = DEFAULT) -> Self:
        """Read everything and put it in force. `timeout` bounds it, an outage included.

        Raises:
            UnavailableError: No server answered in time, and there is no good cache.
            NodeNotFoundError: There is no document, and no good cache.
            AccessDeniedError: The document may not be read, and there is no good cache.
            ConfigRejectedError: It does not parse or validate, or a file does not; and there is no good cache.
        """
        self._run(self._state.start(timeout))
        return self

    def close(self) -> None:
        """End it, here and on the server. `current` stays readable. Idempotent, from any thread."""
        self._run(self._state.close())

    def wait_for(self, predicate: Callable[[M], bool], timeout: Timeout | DefaultTimeout = DEFAULT) -> M:
        """Wait until `predicate(current)` is true, and return that instance. It is called in this thread.

        Raises:
            AcquireTimeoutError: It did not become true in time.
            UnavailableError: It did not, and no server answers.
            ClosedError: The configuration was closed.
        """
        return self._run(self._state.wait_for(predicate, timeout))

    def publish(
        self,
        model: M,
        *,
        reason: str = "",
        expected: int | None = None,
        canary: Canary | None = None,
        timeout: Timeout | DefaultTimeout = DEFAULT,
    ) -> Release:
        """Validate an instance, and publish it to all, or to some first. This instance takes it like all others.

        Args:
            model: The whole configuration, `config.current.model_copy(update=...)` for instance.
            reason: For the record.
            expected: Only if the document is in this version; -1: only if there is none yet.
            canary: Which instances take it first; then `promote()` or `abort()`.
            timeout: Seconds for the whole call.

        Raises:
            ConfigRejectedError: It does not validate, or the format cannot express it.
            ConflictError: The document is not in the expected version (the message shows the difference), or a canary
                runs.
            PayloadTooLargeError: It is too large, compressed as well; nothing was sent.
            UnavailableError: No server answered in time; nothing was published.
            OutcomeUnknownError: The reply was lost, and no server told in time what became of it.
        """
        czxid = self._state.czxid_of(expected)
        script = self._publisher.publish(
            model, reason=reason, expected=expected, czxid=czxid, canary=canary, timeout=timeout
        )
        return self._run(script)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
