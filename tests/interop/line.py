"""A mixed line of contenders: who gets its turn in which order."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from zkrecipes.testing import wait_until

__all__ = ["Contestant", "turns"]

_LIMIT: Final = 20.0


class Contestant(NamedTuple):
    """One contender of whatever library.

    Attributes:
        name: For the order of turns.
        take: Waits in line; returns what gives the turn up again.
    """

    name: str
    take: Callable[[], Callable[[], object]]


def turns(line: Callable[[], list[str]], contestants: Sequence[Contestant], let_go: Callable[[], object]) -> list[str]:
    """Queue the contestants one by one behind a holder, let the holder go, and tell the order of the turns.

    Each contestant is started only when the node of the one before it is seen, so that the order of their nodes is
    known. Each notes its turn while it holds, so that the order of the notes is the order of the holds.

    Args:
        line: Lists the nodes of the line.
        contestants: In the order in which they queue.
        let_go: Ends the turn of the holder, who stands in the line already.
    """
    order: list[str] = []
    failures: list[BaseException] = []

    def body(contestant: Contestant) -> None:
        try:
            give_up = contestant.take()
            order.append(contestant.name)
            give_up()
        except BaseException as error:  # noqa: BLE001  # told to the test's thread
            failures.append(error)

    threads: list[threading.Thread] = []
    standing = len(line())
    for contestant in contestants:
        thread = threading.Thread(target=body, args=(contestant,), name=contestant.name, daemon=True)
        thread.start()
        threads.append(thread)
        standing += 1
        wait_until(
            lambda: failures or len(line()) == standing,  # noqa: B023  # asked at once
            _LIMIT,
            f"{contestant.name} stands in the line",
        )
    assert not failures, failures
    assert not order, "somebody got a turn while the first one held"
    let_go()
    for thread in threads:
        thread.join(_LIMIT)
    assert not failures, failures
    return order
