"""`zkrecipes server`: a local ZooKeeper for development."""

from __future__ import annotations

import signal
import socket
import threading
from pathlib import Path
from typing import Annotated

import typer

from zkrecipes.cli.output import UsageProblem, fail, out, status_of
from zkrecipes.cli.verbs import Json, verb
from zkrecipes.errors import UnavailableError
from zkrecipes.testing import ZooKeeperServer

__all__ = ["server"]


def server(
    *,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 chooses a free one.")] = 2181,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="Keep the data here; else it is deleted at the end.")
    ] = None,
    tick: Annotated[float, typer.Option("--tick", metavar="SECONDS", help="The server's tickTime.")] = 2.0,
    as_json: Json = False,
) -> None:
    """Run a local ZooKeeper for development until Ctrl-C. Listens on 127.0.0.1 only.

    Needs Java and a ZooKeeper: Debian's package `zookeeper`, or a release that ZOOKEEPER_HOME names.
    """
    with verb(as_json=as_json):
        if not 0.001 <= tick <= 3600:  # noqa: PLR2004 - milliseconds are what the server counts in
            message = f"--tick must be from 0.001 to 3600 seconds, not {tick}"
            raise UsageProblem(message)
        _refuse_taken(port)
        ended = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: ended.set())
        with ZooKeeperServer(port, data, tick_time=tick) as running:
            version = running.installation.version if running.installation else "unknown"
            kept = f"its data is in {data}" if data else "its data is deleted at the end"
            out.value(
                {"hosts": running.hosts, "pid": running.pid, "version": version, "data": str(running.data)},
                [
                    f"ZooKeeper {version} runs on {running.hosts}; {kept}. Ctrl-C ends it.",
                    f"export ZKRECIPES_HOSTS={running.hosts}",
                ],
            )
            while not ended.wait(0.5):
                if running.pid is None:
                    error = UnavailableError(f"the server has ended; its log ends with:\n{running.log_tail()}")
                    out.error(error, status_of(error))
                    fail(status_of(error))


def _refuse_taken(port: int) -> None:
    """The server itself would say so only in its log."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            message = f"port {port} on 127.0.0.1 cannot be used ({error.strerror}); choose another with --port"
            raise UnavailableError(message) from error
