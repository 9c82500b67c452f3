"""Two instances of a service; one leads and does the work, the other takes over when the first is shut down.

Needs a ZooKeeper at ZKRECIPES_HOSTS (127.0.0.1:2181 by default).
"""

import os
import threading

import zkrecipes as zkr

HOSTS = os.environ.get("ZKRECIPES_HOSTS", "127.0.0.1:2181")


class Service:
    """One instance. In real life each is a process on a machine of its own."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.worked = threading.Event()
        self._shutdown = zkr.Cancel()
        self._thread = threading.Thread(target=self._run, name=name)

    def start(self) -> None:
        """Stand for election from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Shut down: a leader ends its work first, and then gives its leadership up."""
        self._shutdown.cancel()
        self._thread.join()

    def _run(self) -> None:
        with zkr.connect(HOSTS, namespace="/examples") as zk:
            election = zkr.Election(zk, "/leader-service", identity=self.name, data=f"http://{self.name}".encode())
            election.run(self._lead, cancel=self._shutdown)

    def _lead(self, leadership: zkr.Leadership) -> None:
        print(f"{self.name}: leads (token {leadership.token})", flush=True)
        while not leadership.should_stop.wait(0.1):
            self.worked.set()  # one piece of work, short enough to end within the grace
        print(f"{self.name}: stops ({leadership.should_stop.reason})", flush=True)


def main() -> None:
    """Start two, stop the leader, see the other lead."""
    first, second = Service("first"), Service("second")
    with zkr.connect(HOSTS, namespace="/examples") as zk, zkr.Election(zk, "/leader-service").observe() as leaders:
        for service in (first, second):
            service.start()
            first.worked.wait(30)
        first.stop()
        second.worked.wait(30)
        leader = next(seen for seen in leaders if seen is not None and seen.data)
        print(f"an observer sees: {leader.identity} leads, reached at {leader.data.decode()}")
        second.stop()


if __name__ == "__main__":
    main()
