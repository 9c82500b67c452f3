"""Three processes start the same job; one runs it, the others see that somebody does.

Needs a ZooKeeper at ZKRECIPES_HOSTS (127.0.0.1:2181 by default).
"""

import multiprocessing
import os
from multiprocessing.synchronize import Barrier

import zkrecipes as zkr

HOSTS = os.environ.get("ZKRECIPES_HOSTS", "127.0.0.1:2181")


def replica(number: int, together: Barrier) -> None:
    """One replica of a service, when its nightly job is due."""
    name = f"replica-{number}"
    with zkr.connect(HOSTS, namespace="/examples") as zk:
        lock = zkr.Lock(zk, "/one-job/nightly-report", identity=name)
        together.wait(30)
        held = lock.try_acquire()
        if held is None:
            holder = lock.contenders()[0].identity
            print(f"{name}: nothing to do, {holder} runs the job", flush=True)
            together.wait(30)
            return
        with held:
            print(f"{name}: runs the job (token {held.token})", flush=True)
            for step in range(3):
                held.raise_if_lost()  # before each step that matters
                print(f"{name}: step {step + 1} of 3", flush=True)
            # The others have looked by now; a real job would just end here.
            together.wait(30)
        print(f"{name}: done", flush=True)


def main() -> None:
    """Start the replicas, as three machines would."""
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(3)
    replicas = [context.Process(target=replica, args=(number, together)) for number in (1, 2, 3)]
    for process in replicas:
        process.start()
    for process in replicas:
        process.join()
    if any(process.exitcode for process in replicas):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
