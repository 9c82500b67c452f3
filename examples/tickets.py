"""Three tills sell the same hundred tickets: none is sold twice, and each sale has a number of its own.

Needs a ZooKeeper at ZKRECIPES_HOSTS (127.0.0.1:2181 by default).
"""

import multiprocessing
import os
from multiprocessing.connection import Connection

import zkrecipes as zkr

HOSTS = os.environ.get("ZKRECIPES_HOSTS", "127.0.0.1:2181")
TICKETS = 100


def till(name: str, results: Connection) -> None:
    """One till, in a process of its own: sells until nothing is left."""
    with zkr.connect(HOSTS, namespace="/examples") as zk:
        sold = zkr.Counter(zk, "/tickets/sold")
        numbers = zkr.IdGenerator(zk, "/tickets/receipts", block=20)
        sales: list[tuple[int, int]] = []
        while True:
            # Each add gets a value of its own, also when a reply is lost.
            seat = sold.add(timeout=10.0)
            if seat > TICKETS:
                break
            sales.append((seat, numbers.next()))
        print(f"{name}: sold {len(sales)} tickets", flush=True)
        results.send(sales)


def main() -> None:
    """Open the tills, and look whether the books are right."""
    with zkr.connect(HOSTS, namespace="/examples") as zk:
        zkr.Counter(zk, "/tickets/sold").set(0)
        context = multiprocessing.get_context("spawn")
        results, theirs = context.Pipe(duplex=False)
        tills = [context.Process(target=till, args=(f"till-{number}", theirs)) for number in (1, 2, 3)]
        for process in tills:
            process.start()
        sales: list[tuple[int, int]] = []
        for _ in tills:
            if not results.poll(30.0):
                message = "a till does not answer"
                raise SystemExit(message)
            sales += results.recv()
        for process in tills:
            process.join()
        seats = sorted(seat for seat, _ in sales)
        receipts = {receipt for _, receipt in sales}
        assert seats == list(range(1, TICKETS + 1)), "a ticket was sold twice, or never"
        assert len(receipts) == TICKETS, "two sales have the same number"
        print(f"{len(sales)} tickets, each sold once; {len(receipts)} receipts, all different")


if __name__ == "__main__":
    main()
