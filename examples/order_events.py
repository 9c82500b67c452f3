"""Order events: a durable subscription whose reader dies in the middle, and goes on elsewhere without missing one.

Needs a ZooKeeper at ZKRECIPES_HOSTS (127.0.0.1:2181 by default).
"""

import os
from dataclasses import dataclass

import zkrecipes as zkr

HOSTS = os.environ.get("ZKRECIPES_HOSTS", "127.0.0.1:2181")


@dataclass(frozen=True)
class Order:
    """What is told."""

    number: int
    total: float


class CrashError(Exception):
    """Stands for whatever ends a process."""


def topic_of(zk: zkr.Client) -> "zkr.Topic[Order]":
    """The topic, with the rules that all share."""
    return zkr.Topic(
        zk,
        "/topics/orders",
        codec=zkr.JsonCodec(Order),
        retention=zkr.Retention(max_count=10_000, max_age=7 * 86_400.0),
    )


def bill(zk: zkr.Client, billed: dict[int, float], *, last: int, crash_at: int | None = None) -> None:
    """Read the subscription up to an order. Billing twice does no harm: it is kept by the order's number."""
    with topic_of(zk).subscribe("billing", start="earliest", timeout=30.0) as billing:
        for message in billing:
            billed[message.value.number] = message.value.total
            if message.value.number == crash_at:
                raise CrashError  # the work is done, and not acknowledged: it is done again
            message.ack()
            if message.value.number == last:
                return


def main() -> None:
    """Publish, bill, crash, and go on."""
    billed: dict[int, float] = {}
    with zkr.connect(HOSTS, namespace="/example-orders") as shop:
        orders = topic_of(shop)
        for number in range(1, 6):
            orders.publish(Order(number, 10.0 * number), message_id=f"order-{number}")
        orders.publish(Order(5, 50.0), message_id="order-5")  # a repetition: it is stored once

        with zkr.connect(HOSTS, namespace="/example-orders") as first:
            try:
                bill(first, billed, last=5, crash_at=3)
            except CrashError:
                print("the first reader is gone; billed so far:", sorted(billed))
        for each in orders.subscribers():
            print(f"{each.name} is {'here' if each.here else 'away'}, {each.lag} behind")

        with zkr.connect(HOSTS, namespace="/example-orders") as second:
            bill(second, billed, last=5)
        print("billed:", billed)
        assert sorted(billed) == [1, 2, 3, 4, 5]
        [subscriber] = orders.subscribers()
        assert subscriber.lag == 0


if __name__ == "__main__":
    main()
