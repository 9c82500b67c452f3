"""An asyncio service: tasks take turns under a lock, and work goes on only while we lead.

Needs a ZooKeeper at ZKRECIPES_HOSTS (127.0.0.1:2181 by default).
"""

import asyncio
import os

import zkrecipes.aio as zkr

HOSTS = os.environ.get("ZKRECIPES_HOSTS", "127.0.0.1:2181")


async def take_turns(zk: zkr.Client, name: str) -> None:
    """Three turns under the lock, first come, first served."""
    lock = zkr.Lock(zk, "/asyncio-service/lock", identity=name)
    for turn in range(1, 4):
        async with lock.acquire(timeout=30) as held:
            print(f"{name}: turn {turn} (token {held.token})")


async def lead(leadership: zkr.Leadership) -> None:
    """Work until we are told to stop. A task that goes on is cancelled before the lease ends."""
    print(f"leads (token {leadership.token}), provable for {leadership.remaining():.1f} s")
    await leadership.proclaim(b"tcp://127.0.0.1:7000")
    if await leadership.should_stop.wait(timeout=0.5):
        print(f"told to stop: {leadership.should_stop.reason}")
    else:
        print("the work is done; the term ends")


async def main() -> None:
    """Connect once, and share the client between all tasks."""
    async with zkr.connect(HOSTS, namespace="/examples") as zk:
        await asyncio.gather(*(take_turns(zk, name) for name in ("red", "green", "blue")))

        election = zkr.Election(zk, "/asyncio-service/leader")
        await election.run(lead, terms=1)
        print("leader now:", await election.leader())

        try:
            async with zkr.Lock(zk, "/asyncio-service/lock"), asyncio.timeout(0.3):
                await asyncio.gather(take_turns(zk, "cancelled"))
        except TimeoutError:
            print("a wait that is cancelled leaves nothing:", await zkr.Lock(zk, "/asyncio-service/lock").contenders())


if __name__ == "__main__":
    asyncio.run(main())
