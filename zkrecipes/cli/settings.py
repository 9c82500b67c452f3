"""The options that every verb shares, and the client that they describe."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final, final

from zkrecipes.cli.output import UsageProblem, usage_errors
from zkrecipes.client import Client, connect
from zkrecipes.settings import Auth, DigestAuth, SaslDigest, SaslGssapi, Tls

__all__ = ["Settings"]

AUTH_FORMS: Final = "digest:user:password, sasl:user:password or gssapi[:service]"


@final
@dataclass(frozen=True)
class Settings:
    """How to reach the servers; fields as of `connect`."""

    hosts: str
    namespace: str
    auth: tuple[Auth, ...]
    tls: Tls | None
    connect_timeout: float

    def connect(self, session_timeout: float = 10.0, server_tick: float | None = None) -> Client:
        """Open a client.

        Raises:
            UsageProblem: An option is not valid.
            UnavailableError: No server answered in time.
            AuthenticationError: Credentials or certificates were refused.
        """
        with usage_errors():
            return connect(
                self.hosts,
                namespace=self.namespace,
                session_timeout=session_timeout,
                connect_timeout=self.connect_timeout,
                auth=self.auth,
                tls=self.tls,
                server_tick=server_tick,
            )


def parse_auth(text: str) -> Auth:
    """Read one --auth.

    Raises:
        UsageProblem: It has none of the known forms.
    """
    scheme, _, rest = text.partition(":")
    user, colon, password = rest.partition(":")
    with usage_errors():
        if scheme == "gssapi":
            return SaslGssapi(rest or "zookeeper")
        if scheme == "digest" and colon:
            return DigestAuth(user, password)
        if scheme == "sasl" and colon:
            return SaslDigest(user, password)
    # The text itself is not shown: it may be a password.
    message = f"--auth must be {AUTH_FORMS}"
    raise UsageProblem(message)


def set_up_logging(verbosity: int) -> None:
    """Errors only; with -v what the library does, with -vv all."""
    level = {0: logging.CRITICAL, 1: logging.INFO}.get(verbosity, logging.DEBUG)
    logging.basicConfig(level=level, format="%(asctime)s %(name)s %(levelname)s %(message)s")
