"""What the configuration's releases and roll-out are made of: values, and the nodes that hold them. Pure.

The nodes, below the namespace:

    <path>                                            the document itself, plain
    <path>-releases/<version, 10 digits>-<id>         one record a release, with its document
    <path>-releases/canary-<base, 10 digits>-<id>     one mark a canary: in version 0 while it runs
    <path>-canary                                     while a canary runs: its document, and which instances take it
    <path>-instances/<instance>@<id>                  ephemeral: what an instance runs
"""

from __future__ import annotations

import hashlib
import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, final

__all__ = [
    "Canary",
    "CanaryStatus",
    "EndedCanary",
    "Instance",
    "InstanceStatus",
    "Places",
    "Release",
    "Rollout",
    "RolloutStatus",
    "Source",
    "marked",
    "selects",
    "version_of",
]

Source = Literal["publish", "rollback", "promote", "canary", "found"]

_RECORD: Final = re.compile(r"([0-9]{10})-.+")
_MARK: Final = re.compile(r"canary-([0-9]{10})-(.+)")


@final
@dataclass(frozen=True, slots=True)
class Instance:
    """One running copy of a service, as a canary's selector sees it.

    Args:
        id: The same after a restart, and different from all others, such as a host's name; "host:pid" by default.
        labels: Such as {"zone": "a"}.
    """

    id: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


@final
@dataclass(frozen=True, slots=True)
class Canary:
    """Which instances take a release first: a share of them, or those that have all of these labels.

    Args:
        percent: Of the instances, from 0 to 100, chosen by a hash of their ids: the same ones each time.
        labels: All of them must be equal to the instance's.

    Raises:
        ValueError: Neither is given, or both, or the percentage is out of range.
    """

    percent: float | None = None
    labels: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        if (self.percent is None) == (self.labels is None):
            message = "a Canary takes either percent= or labels="
            raise ValueError(message)
        percent = self.percent
        if percent is not None and (
            isinstance(percent, bool) or not isinstance(percent, int | float) or not 0 <= percent <= 100  # noqa: PLR2004
        ):
            message = f"percent must be a number from 0 to 100, not {percent!r}"
            raise ValueError(message)
        if self.labels is not None and not self.labels:
            message = "labels must name at least one label; percent=100 takes all instances"
            raise ValueError(message)


@final
@dataclass(frozen=True, slots=True)
class Release:
    """One release, as it was recorded with the document.

    Attributes:
        version: Of the document node.
        who: Its publisher's identity.
        host: Where it was published.
        when: ISO 8601, UTC, by the publisher's clock.
        reason: As given.
        source: "publish", "rollback", "promote"; "canary" for one that has begun only, which is in no history; "found"
            for a document that another tool had written, recorded by the next publisher.
        base: The version that it replaced; None if there was none.
        rolled_back_to: Of a rollback: the version whose document it is.
        changed: Dotted paths of what differs from the version before. No values.
        id: Unique.
    """

    version: int
    who: str
    host: str
    when: str
    reason: str
    source: str
    base: int | None = None
    rolled_back_to: int | None = None
    changed: tuple[str, ...] = ()
    id: str = ""


@final
@dataclass(frozen=True, slots=True)
class Rollout:
    """A canary that runs.

    Attributes:
        id: Unique.
        selector: Which instances take it.
        document: Its bytes, as they would be in the document node.
        base: The version that it is to replace.
        base_czxid: Of the document node: a version alone may be another document's.
        changed: What differs from the base.
    """

    id: str
    selector: Canary
    document: bytes
    base: int
    base_czxid: int
    who: str
    host: str
    when: str
    reason: str
    changed: tuple[str, ...] = ()


@final
@dataclass(frozen=True, slots=True)
class InstanceStatus:
    """What one instance runs.

    Attributes:
        id: The instance's.
        labels: The instance's.
        version: Of the document in force; -1 if none has come from ZooKeeper yet.
        accepted: False: it refuses the newest document that it should take, and runs `version` still.
        error: Why.
        canary: The id of the canary that it runs, or refuses.
        when: ISO 8601, UTC, by the instance's clock.
    """

    id: str
    labels: Mapping[str, str]
    version: int
    accepted: bool
    error: str | None
    canary: str | None = None
    when: str = ""


@final
@dataclass(frozen=True, slots=True)
class CanaryStatus:
    """A canary that runs, for people.

    Attributes:
        id: Unique.
        selector: Which instances take it.
        base: The version that it is to replace.
    """

    id: str
    selector: Canary
    base: int
    who: str
    host: str
    when: str
    reason: str
    changed: tuple[str, ...]


@final
@dataclass(frozen=True, slots=True)
class EndedCanary:
    """A canary that has ended.

    Attributes:
        id: Unique.
        base: The version that it was to replace.
        how: "promoted", or "aborted by <who>: <why>".
    """

    id: str
    base: int
    how: str


@final
@dataclass(frozen=True, slots=True)
class RolloutStatus:
    """Who runs what.

    Attributes:
        version: Of the document; None if there is none.
        canary: The canary that runs, if one does.
        instances: Sorted by id.
        last: The canary that ended last, if one has and is remembered: who aborted it, and why.
    """

    version: int | None
    canary: CanaryStatus | None
    instances: list[InstanceStatus]
    last: EndedCanary | None = None


@final
@dataclass(frozen=True, slots=True)
class Places:
    """The full paths of the nodes."""

    document: str

    @property
    def releases(self) -> str:
        """Parent of the release records."""
        return f"{self.document}-releases"

    @property
    def canary(self) -> str:
        """The canary, while one runs."""
        return f"{self.document}-canary"

    @property
    def instances(self) -> str:
        """Parent of what instances report."""
        return f"{self.document}-instances"

    def mark(self, base: int, unique: str) -> str:
        """Of one canary: made with it, and set once, when it ends. Its version tells whether it runs still."""
        return f"{self.releases}/canary-{base:010d}-{unique}"

    def record(self, version: int, unique: str) -> str:
        """Of one release."""
        return f"{self.releases}/{version:010d}-{unique}"

    def instance(self, identity: str, unique: str) -> str:
        """Of one instance in one session."""
        return f"{self.instances}/{urllib.parse.quote(identity, safe=':@ ')[:200]}@{unique}"


def version_of(name: str) -> int | None:
    """The version in a record's name; None if it is no record."""
    match = _RECORD.fullmatch(name)
    return None if match is None else int(match.group(1))


def marked(name: str) -> tuple[int, str] | None:
    """Base and id in a mark's name; None if it is no mark."""
    match = _MARK.fullmatch(name)
    return None if match is None else (int(match.group(1)), match.group(2))


def selects(selector: Canary, instance: Instance) -> bool:
    """Whether an instance takes a canary. By SHA-256, so that every instance and every version of us agrees."""
    if selector.labels is not None:
        return all(instance.labels.get(name) == value for name, value in selector.labels.items())
    number = int.from_bytes(hashlib.sha256(instance.id.encode("utf-8", "surrogatepass")).digest()[:8], "big")
    return number / 2**64 * 100 < (selector.percent or 0)
