"""What `connect` is told: authentication, TLS, retry policy. Values only."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, final

from tenacity import RetryCallState, stop_never, wait_random_exponential
from tenacity.stop import stop_base
from tenacity.wait import wait_base

__all__ = ["DigestAuth", "Retry", "SaslDigest", "SaslGssapi", "Tls", "host_list"]


@final
@dataclass(frozen=True)
class DigestAuth:
    """The digest scheme: what nodes with an ACL of scheme "digest" (or "auth") ask for.

    The server never refuses it; a wrong password shows as AccessDeniedError where an ACL asks for the right one.
    """

    user: str
    password: str = field(repr=False)

    def __post_init__(self) -> None:
        _not_empty(self.user, "user")
        _text(self.password, "password")
        if ":" in self.user:
            message = f"user must not contain ':', which separates it from the password: {self.user!r}"
            raise ValueError(message)


@final
@dataclass(frozen=True)
class SaslDigest:
    """SASL with DIGEST-MD5: the server checks it when we connect. Needs the extra `sasl`."""

    user: str
    password: str = field(repr=False)
    service: str = "zookeeper"

    def __post_init__(self) -> None:
        _not_empty(self.user, "user")
        _text(self.password, "password")


@final
@dataclass(frozen=True)
class SaslGssapi:
    """SASL with Kerberos: the ticket comes from the process's credential cache. Needs the extra `sasl`."""

    service: str = "zookeeper"
    principal: str | None = None


Auth = DigestAuth | SaslDigest | SaslGssapi


@final
@dataclass(frozen=True)
class Tls:
    """TLS to the server's secure port.

    Attributes:
        ca: Certificates that sign the server's; the system's own where None.
        cert: Our certificate, where the server wants one.
        key: Its private key.
        key_password: Of the key file.
        check_hostname: Whether the certificate must name the host that we connect to.
    """

    ca: str | Path | None = None
    cert: str | Path | None = None
    key: str | Path | None = None
    key_password: str | None = field(default=None, repr=False)
    check_hostname: bool = True

    def __post_init__(self) -> None:
        for name in ("ca", "cert", "key"):
            path = getattr(self, name)
            if path is not None and not Path(path).is_file():
                message = f"tls: {name} must be the path of a PEM file; there is none at {str(path)!r}"
                raise ValueError(message)
        if (self.cert is None) != (self.key is None):
            message = "tls: cert and key must be given together"
            raise ValueError(message)


@final
@dataclass(frozen=True)
class Retry:
    """How a request that was certainly not applied is repeated, within the call's deadline.

    What is not safe to repeat is never repeated, whatever this says.

    Attributes:
        wait: A tenacity wait object: the pause before each repetition, and before each attempt to connect.
        stop: A tenacity stop object: when to give up before the deadline.
    """

    wait: wait_base = field(default_factory=lambda: wait_random_exponential(multiplier=0.02, max=1.0))
    stop: stop_base | Callable[[RetryCallState], bool] = stop_never

    def pause(self, attempt: int, elapsed: float) -> float | None:
        """Seconds before repetition `attempt` (1, 2, …), `elapsed` seconds after the first; None to give up."""
        state = _State(attempt, elapsed)
        if self.stop(state):  # type: ignore[arg-type]  # see _State
            return None
        return float(self.wait(state))  # type: ignore[arg-type]  # see _State


@dataclass
class _State:
    """What tenacity's wait and stop objects look at: a RetryCallState without the call."""

    attempt_number: int
    seconds_since_start: float
    outcome: Any = None
    start_time: float = 0.0
    idle_for: float = 0.0
    upcoming_sleep: float = 0.0

    @property
    def outcome_timestamp(self) -> float:
        return self.seconds_since_start


_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^\s:/,\[\]]+)(:\d{1,5})?")


def host_list(hosts: str | Sequence[str]) -> str:
    """Check the servers' addresses; return them separated by commas.

    Raises:
        TypeError: They are no text, and no sequence of texts.
        ValueError: There is none, or one is no "host:port".
    """
    if isinstance(hosts, str):
        parts = hosts.split(",")
    elif isinstance(hosts, Sequence) and all(isinstance(host, str) for host in hosts):
        parts = list(hosts)
    else:
        message = f"hosts must be 'host:port,host:port' or a sequence of 'host:port', not {type(hosts).__name__}"
        raise TypeError(message)
    if not parts:
        message = "hosts must name at least one server as 'host:port'"
        raise ValueError(message)
    stripped = [part.strip() for part in parts]
    for part in stripped:
        match = _HOST.fullmatch(part)
        if match is None or int((match.group(2) or ":1")[1:]) not in range(1, 65536):
            message = f"hosts must name servers as 'host:port', not {part!r}; a path goes into namespace="
            raise ValueError(message)
    return ",".join(stripped)


def auth_list(auth: Auth | Sequence[Auth]) -> tuple[Auth, ...]:
    """Check the credentials.

    Raises:
        TypeError: One is of no known kind.
        ValueError: There are two for SASL.
    """
    kinds = "auth must be DigestAuth, SaslDigest or SaslGssapi, or a sequence of them"
    if isinstance(auth, DigestAuth | SaslDigest | SaslGssapi):
        auth = (auth,)
    if isinstance(auth, str) or not isinstance(auth, Sequence):
        message = f"{kinds}, not {type(auth).__name__}"
        raise TypeError(message)
    entries: tuple[Auth, ...] = tuple(auth)
    for entry in entries:
        if not isinstance(entry, DigestAuth | SaslDigest | SaslGssapi):
            message = f"{kinds}, not with a {type(entry).__name__}"
            raise TypeError(message)
    if sum(not isinstance(entry, DigestAuth) for entry in entries) > 1:
        message = "auth must have one SASL identity at most: a connection has only one"
        raise ValueError(message)
    return entries


def _text(text: str, name: str) -> None:
    if not isinstance(text, str):
        message = f"{name} must be a str, not {type(text).__name__}"
        raise TypeError(message)


def _not_empty(text: str, name: str) -> None:
    _text(text, name)
    if not text:
        message = f"{name} must not be empty"
        raise ValueError(message)
