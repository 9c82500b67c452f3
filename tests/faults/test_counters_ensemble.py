"""Processes that count on an ensemble whose leader is killed, stopped, and cut off."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

import zkrecipes as zkr
from tests.faults.contest import linger
from tests.faults.test_counters import Crowd, judge
from zkrecipes.testing import ZooKeeperEnsemble, wait_until

pytestmark = [pytest.mark.ensemble, pytest.mark.timeout(240)]

LIMIT: Final = 40.0


@pytest.fixture
def ensemble() -> Iterator[ZooKeeperEnsemble]:
    with ZooKeeperEnsemble() as ensemble:
        yield ensemble


def test_a_leader_that_fails_over_loses_no_add_and_counts_none_twice(
    ensemble: ZooKeeperEnsemble, path: str, tmp_path: Path
) -> None:
    crowd = Crowd(ensemble.hosts, path, tmp_path)
    try:
        wait_until(lambda: crowd.done() > 100 and crowd.all_count(), LIMIT, "all have begun")
        for turn in range(3):
            # ZooKeeper 3.8.0 may lose what is committed if a server dies while it catches up (ZOOKEEPER-4646).
            wait_until(lambda: len(ensemble.followers()) == 2, LIMIT, "all servers have caught up")
            leader = ensemble.leader()
            if turn == 1:
                leader.pause()
                linger(6.0)
                leader.resume()
            else:
                leader.kill()
                crowd.kill(turn)
                linger(3.0)
                leader.start()
            before = crowd.done()
            wait_until(lambda: crowd.done() > before + 50, LIMIT, "it goes on")  # noqa: B023  # asked at once
        wait_until(crowd.all_count, LIMIT, "all count")
        crowd.end()
        with zkr.connect(ensemble.hosts) as other:
            other.sync(path)
            total = judge(crowd.lines(), zkr.Counter(other, path, layout="text").value())
            print(dict(total))  # noqa: T201 - pytest -rP shows it
            assert total["done"] > 300
            wait_until(lambda: other.children(path) == [], LIMIT, lambda: f"left: {other.children(path)}")
    finally:
        crowd.close()
