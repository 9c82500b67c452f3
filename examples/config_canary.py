"""A canary: a release goes to some instances first; one that does not suit them takes itself back.

Needs a ZooKeeper at ZKRECIPES_HOSTS (127.0.0.1:2181 by default).
"""

import contextlib
import os

from pydantic import BaseModel, ConfigDict

import zkrecipes as zkr
from zkrecipes.testing import wait_until

HOSTS = os.environ.get("ZKRECIPES_HOSTS", "127.0.0.1:2181")
PATH = "/config-canary"


class Settings(BaseModel):
    """The settings of a search service."""

    model_config = ConfigDict(frozen=True)

    index: str = "2024"
    cache_mb: int = 64


class Node:
    """One instance of the service. In real life each is a process on a machine of its own."""

    def __init__(self, zk: zkr.Client, name: str, zone: str) -> None:
        self.name = name
        self.config = zkr.Config(zk, PATH, Settings, instance=zkr.Instance(name, {"zone": zone}))
        self.config.on_prepare(self._check)  # before anything changes: can this machine do it?

    def _check(self, change: zkr.ConfigChange[Settings]) -> None:
        if change.new.cache_mb > 512:  # noqa: PLR2004 - megabytes of this machine
            message = f"{self.name} has no {change.new.cache_mb} MB for the cache"
            raise zkr.VetoError(message)


def show(releases: zkr.ConfigReleases[Settings]) -> None:
    """Who runs what, as `zkrecipes config status` shows it."""
    status = releases.status()
    print(f"  version {status.version}, canary: {'none' if status.canary is None else status.canary.reason}")
    for instance in status.instances:
        print(f"  {instance.id}: version {instance.version}{', the canary' if instance.canary else ''}", flush=True)


def main() -> None:
    """Two roll-outs: one is promoted, the other takes itself back."""
    with zkr.connect(HOSTS, namespace="/examples") as zk:
        releases = zkr.ConfigReleases(zk, PATH, Settings)
        with contextlib.suppress(zkr.NodeNotFoundError):
            releases.abort(reason="a former run was interrupted")
        releases.publish('{"index": "2024"}', reason="start")
        nodes = [Node(zk, "search-1", "a"), Node(zk, "search-2", "b"), Node(zk, "search-3", "b")]
        with contextlib.ExitStack() as stack:
            for node in nodes:
                stack.enter_context(node.config)

            print("a new index, for zone a first")
            releases.publish('{"index": "2025"}', reason="new index", canary=zkr.Canary(labels={"zone": "a"}))
            nodes[0].config.wait_for(lambda settings: settings.index == "2025", timeout=10)
            wait_until(lambda: any(instance.canary for instance in releases.status().instances), 10.0)
            show(releases)
            print("it is good: for all")
            releases.promote()
            for node in nodes:
                node.config.wait_for(lambda settings: settings.index == "2025", timeout=10)

            print("a larger cache, for all instances, as a canary: it is too large for them")
            releases.publish('{"index": "2025", "cache_mb": 4096}', reason="cache", canary=zkr.Canary(percent=100))
            wait_until(lambda: releases.status().canary is None, 10.0, "the canary is aborted")
            print("the canary is gone; in force:", *(node.config.current.cache_mb for node in nodes))
            show(releases)


if __name__ == "__main__":
    main()
