"""Parents that the server removes at any moment: between listing and create, under a waiter, while nobody looks."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator

import pytest

import zkrecipes as zkr
from tests.faults.contest import linger
from zkrecipes.runtime import monotonic
from zkrecipes.testing import ZooKeeperServer, wait_until

_paths = itertools.count(1)

CHECKS = 0.05
"""Seconds between two looks of the server for empty containers; a minute by default."""


@pytest.fixture(scope="module")
def hasty_server() -> Iterator[ZooKeeperServer]:
    properties = {"znode.container.checkIntervalMs": round(CHECKS * 1000), "znode.container.maxPerMinute": 60_000}
    with ZooKeeperServer(properties=properties) as server:
        yield server


@pytest.fixture
def deep_path() -> str:
    """Each of its parents is a container of its own."""
    return f"/vanishing-{next(_paths)}/a/b/c"


def _gone(zk: zkr.Client, path: str) -> None:
    wait_until(lambda: zk.exists(path) is None, 10.0, f"{path} is removed")


@pytest.mark.parametrize("kind", ["lock", "election"])
def test_parents_go_and_come_back(hasty_server: ZooKeeperServer, deep_path: str, kind: str) -> None:
    """Numbers begin at zero again, and tokens rise all the same."""
    with zkr.connect(hasty_server.hosts) as zk:
        enter = zkr.Lock(zk, deep_path).acquire if kind == "lock" else zkr.Election(zk, deep_path).campaign
        tokens = []
        for _ in range(4):
            with enter(5.0) as held:
                tokens.append(held.token)
                assert zk.children(deep_path)[0].endswith("-0000000000")
            _gone(zk, f"/{deep_path.split('/')[1]}")
        assert tokens == sorted(set(tokens))


def test_locks_are_taken_while_their_parents_vanish(hasty_server: ZooKeeperServer, deep_path: str) -> None:
    """Two clients take turns with pauses in which the server may remove any of the parents."""
    inside: list[int] = []
    tokens: list[int] = []
    faults: list[str] = []
    end = monotonic() + 4.0

    def contend(number: int, zk: zkr.Client) -> None:
        turns = itertools.count()
        while monotonic() < end:
            with zkr.Lock(zk, deep_path).acquire(timeout=10.0) as held:
                inside.append(number)
                if inside != [number] or not held.valid:
                    faults.append(f"{inside} {held!r}")
                tokens.append(held.token)
                inside.remove(number)
            linger((0.0, 0.03, CHECKS, 2.5 * CHECKS)[next(turns) % 4])

    with zkr.connect(hasty_server.hosts) as one, zkr.connect(hasty_server.hosts) as other:
        threads = [
            threading.Thread(target=contend, args=(number, zk), daemon=True)
            for number, zk in enumerate((one, one, other))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20.0)
        assert not any(thread.is_alive() for thread in threads), "nobody waits for ever"
        assert faults == []
        assert tokens == sorted(set(tokens))
        assert len(tokens) > 20
        _gone(one, f"/{deep_path.split('/')[1]}")


def test_an_election_is_observed_while_its_parent_vanishes(hasty_server: ZooKeeperServer, deep_path: str) -> None:
    with zkr.connect(hasty_server.hosts) as zk, zkr.connect(hasty_server.hosts) as looker:
        election = zkr.Election(zk, deep_path, identity="me")
        for _ in range(3):
            assert zkr.Election(looker, deep_path).leader() is None
            with election.campaign(timeout=5.0) as leadership:
                leader = zkr.Election(looker, deep_path).leader()
                assert leader is not None
                assert (leader.identity, leader.token) == ("me", leadership.token)
            _gone(looker, deep_path)
