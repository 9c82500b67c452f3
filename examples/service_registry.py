"""A registry of services: instances register themselves, a client keeps the whole list in memory, always up to date.

Instances come, go and lose their connection; the client picks one of those that are there, without asking ZooKeeper.
Needs a ZooKeeper at ZKRECIPES_HOSTS (127.0.0.1:2181 by default).
"""

import itertools
import os
from collections.abc import Mapping
from typing import Self

from pydantic import BaseModel

import zkrecipes as zkr
from zkrecipes.testing import wait_until

HOSTS = os.environ.get("ZKRECIPES_HOSTS", "127.0.0.1:2181")
ROOT = "/registry"


class Instance(BaseModel):
    """Where one instance of a service is reached."""

    host: str
    port: int


class InstanceCodec:
    """Instances as JSON; a service's own node, above its instances, has no data."""

    _json = zkr.JsonCodec(Instance)

    def encode(self, value: Instance | None) -> bytes:
        """Bytes of a value."""
        return b"" if value is None else self._json.encode(value)

    def decode(self, raw: bytes) -> Instance | None:
        """The value of a node's bytes."""
        return self._json.decode(raw) if raw else None


CODEC = InstanceCodec()


def register(zk: zkr.Client, service: str, name: str, instance: Instance) -> None:
    """As each instance does when it starts; its node goes with its session."""
    zk.create(f"{ROOT}/{service}/{name}", CODEC.encode(instance), kind=zkr.Kind.EPHEMERAL, parents=True)


class Registry:
    """What a client of the services has: all of them, in memory."""

    def __init__(self, zk: zkr.Client) -> None:
        self._turns = itertools.count()
        self._listener: zkr.TreeListener[Instance | None] = zkr.TreeListener(zk, ROOT, codec=CODEC, depth=2)
        self._listener.on_created(lambda change: self._say("+", change.path, change.new))
        self._listener.on_deleted(lambda change: self._say("-", change.path, change.old))
        self._listener.on_stale(lambda: print("registry: out of touch, goes on with what it knows", flush=True))
        self._listener.on_fresh(lambda: print("registry: in touch again", flush=True))

    def __enter__(self) -> Self:
        self._listener.start(timeout=10)
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def instances(self, service: str) -> list[Instance]:
        """Those that are there. From memory: a thousand calls a second cost ZooKeeper nothing."""
        nodes: Mapping[str, zkr.Node[Instance | None]] = self._listener.snapshot()
        prefix = f"{ROOT}/{service}/"
        return [node.value for path, node in nodes.items() if path.startswith(prefix) and node.value is not None]

    def pick(self, service: str) -> Instance:
        """The next one, in turns."""
        found = self.instances(service)
        if not found:
            message = f"no instance of {service} is there"
            raise LookupError(message)
        return found[next(self._turns) % len(found)]

    @staticmethod
    def _say(sign: str, path: str, instance: Instance | None) -> None:
        if instance is not None:
            print(f"registry: {sign} {path} at {instance.host}:{instance.port}", flush=True)


def main() -> None:
    """Three instances register; one is shut down, one is killed, as far as ZooKeeper can tell."""
    with zkr.connect(HOSTS, namespace="/examples") as zk, Registry(zk) as registry:
        one, two, three = (zkr.connect(HOSTS, namespace="/examples") for _ in range(3))
        register(one, "orders", "one", Instance(host="10.0.0.1", port=8000))
        register(two, "orders", "two", Instance(host="10.0.0.2", port=8000))
        register(three, "mail", "three", Instance(host="10.0.0.3", port=8025))
        wait_until(lambda: registry.instances("orders")[1:] and registry.instances("mail"))

        print("orders, in turns:", *(registry.pick("orders").host for _ in range(4)))
        two.delete(f"{ROOT}/orders/two")  # an orderly shutdown
        one.close()  # the session ends, and its ephemeral nodes with it
        wait_until(lambda: not registry.instances("orders"))
        try:
            registry.pick("orders")
        except LookupError as error:
            print(error)
        print("mail:", registry.pick("mail").host)
        two.close()
        three.close()


if __name__ == "__main__":
    main()
