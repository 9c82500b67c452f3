"""A job's network goes silent while it holds a lock; its handle says so, before anybody else can have the lock.

Needs a ZooKeeper at ZKRECIPES_HOSTS (127.0.0.1:2181 by default).
"""

import os
import time

import zkrecipes as zkr
from zkrecipes.testing import FaultProxy

HOSTS = os.environ.get("ZKRECIPES_HOSTS", "127.0.0.1:2181")
SPACE = "/examples"
PATH = "/lock-lost-midway"


def job(zk: zkr.Client, proxy: FaultProxy) -> None:
    """Work in small steps, and ask before each whether the lock is still ours."""
    with zkr.Lock(zk, PATH, identity="job").acquire(timeout=10) as held:
        held.lost.on_set(lambda reason: print(f"callback: the lock is lost: {reason.name}", flush=True))
        for step in range(100):
            held.raise_if_lost()
            print(f"step {step}: {held.state.value}, provable for {held.remaining():.1f} s more", flush=True)
            if step == 1:
                print("the network goes silent: no error, no answer", flush=True)
                proxy.blackhole()
            held.lost.wait(0.5)  # the work of this step; a real one would take its time


def main() -> None:
    """Run the job behind a proxy that can cut it off, and a second one that waits for the lock."""
    with FaultProxy(HOSTS.split(",")[0]) as proxy, zkr.connect(proxy.hosts, namespace=SPACE, session_timeout=4) as zk:
        try:
            job(zk, proxy)
        except zkr.LockLostError as error:
            print(f"the job stops: {error}")
        stopped = time.monotonic()
        with zkr.connect(HOSTS, namespace=SPACE) as other, zkr.Lock(other, PATH, identity="other"):
            print(f"another process has the lock, {time.monotonic() - stopped:.1f} s after the job has stopped")
        proxy.heal()


if __name__ == "__main__":
    main()
