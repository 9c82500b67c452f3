"""A web service whose settings change while it answers: plain WSGI, settings from ZooKeeper, no restart.

A second thread plays the operator: it publishes new settings, a bad document, and rolls back.
Needs a ZooKeeper at ZKRECIPES_HOSTS (127.0.0.1:2181 by default).
"""

import os
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from pydantic import BaseModel, ConfigDict, Field

import zkrecipes as zkr
from zkrecipes.testing import wait_until

HOSTS = os.environ.get("ZKRECIPES_HOSTS", "127.0.0.1:2181")
PATH = "/config-hot-reload"


class Settings(BaseModel):
    """What may be changed while the service runs. Frozen: all requests share one instance."""

    model_config = ConfigDict(frozen=True)

    greeting: str = "hello"
    repeat: int = Field(default=1, gt=0, le=5)
    log_requests: bool = False


class Service:
    """The application. A request takes the settings once, so that it never sees half of a change."""

    def __init__(self, config: zkr.Config[Settings]) -> None:
        self._config = config
        self.log_requests = config.current.log_requests
        config.on_change("log_requests")(self._set_logging)  # what must be set up anew when it changes

    def _set_logging(self, change: zkr.ConfigChange[bool]) -> None:
        self.log_requests = change.new
        print(f"service: log_requests is {change.new} from version {change.version} on", flush=True)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request."""
        if environ["PATH_INFO"] == "/health":
            health = self._config.health()
            start_response("200 OK" if health.ok else "503 Service Unavailable", [("Content-Type", "text/plain")])
            return [f"{health.state} {health.reason}\n".encode()]
        settings = self._config.current
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [f"{' '.join([settings.greeting] * settings.repeat)}\n".encode()]


class Quiet(WSGIRequestHandler):
    """Without a log line for each request."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def operate(base: str, zk: zkr.Client) -> None:
    """What an operator does; each step would be a `zkrecipes config` command, too."""

    def ask(path: str = "/") -> str:
        try:
            with urllib.request.urlopen(base + path, timeout=10) as answer:  # noqa: S310 - our own service
                return str(answer.read().decode().strip())
        except urllib.error.HTTPError as error:
            with error:
                return f"{error.code} {error.read().decode().strip()}"

    def answers(expected: str, path: str = "/") -> None:
        wait_until(lambda: expected in ask(path), 10.0, lambda: f"{expected!r} in {ask(path)!r}")
        print(f"GET {path}: {ask(path)}", flush=True)

    releases = zkr.ConfigReleases(zk, PATH, Settings)
    answers("hello")
    good = releases.publish('{"greeting": "good day", "repeat": 2, "log_requests": true}', reason="manners")
    answers("good day good day")
    zk.set(PATH, b'{"greeting": "oops", "repeat": 1000}')  # by a tool that does not validate
    answers("503 rejected", "/health")
    answers("good day good day")  # the last good settings stay in force
    releases.rollback(good.version, reason="oops")
    answers("fresh", "/health")
    for release in releases.history():
        print("history:", release.version, release.source, release.reason, *release.changed)


def main() -> None:
    """Serve, and let the operator work."""
    with zkr.connect(HOSTS, namespace="/examples") as zk:
        if zk.exists(PATH) is None:
            zk.create(PATH, parents=True)
        zk.set(PATH, b'{"greeting": "hello"}')
        with (
            zkr.Config(zk, PATH, Settings) as config,
            make_server("127.0.0.1", 0, Service(config), handler_class=Quiet) as server,
        ):
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                operate(f"http://127.0.0.1:{server.server_port}", zk)
            finally:
                server.shutdown()
                thread.join()


if __name__ == "__main__":
    main()
