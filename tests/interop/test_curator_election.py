"""Our Election elects one leader together with Curator's LeaderLatch, and with its LeaderSelector."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

import pytest
from kazoo.client import KazooClient

import zkrecipes as zkr
from tests.interop.peer import CuratorPeer
from zkrecipes.testing import Server, wait_until

# A server that closes a session just when its client comes back leaves the new connection open and silent; then only
# the client's own clock tells, after half the session timeout.
_SHORT: Final = 4.0


def _stands(kazoo: KazooClient, path: str, length: int) -> None:
    def line() -> int:
        return len(kazoo.get_children(path)) if kazoo.exists(path) else 0

    wait_until(lambda: line() == length, 10.0, f"{length} stand in the line")


def _campaign(pool: ThreadPoolExecutor, election: zkr.Election) -> Future[zkr.Leadership]:
    return pool.submit(lambda: election.campaign(timeout=30.0))


def test_latches_and_our_elections_lead_in_turn(
    zk: zkr.Client, curator: CuratorPeer, kazoo: KazooClient, path: str
) -> None:
    """Four candidates of both kinds, queued one by one: at each step one leads, and its resignation makes the next."""
    with ThreadPoolExecutor(2) as pool:
        first = zkr.Election(zk, path, identity="ours-1").campaign(timeout=5.0)
        second = curator.latch(path, "curator-2")
        _stands(kazoo, path, 2)
        third = _campaign(pool, zkr.Election(zk, path, identity="ours-3"))
        _stands(kazoo, path, 3)
        fourth = curator.latch(path, "curator-4")
        _stands(kazoo, path, 4)

        assert (first.valid, second.leads(), third.done(), fourth.leads()) == (True, False, False, False)
        first.resign()
        assert second.wait(10.0)
        assert (first.valid, third.done(), fourth.leads()) == (False, False, False)
        second.close()
        leadership = third.result(10.0)
        assert (leadership.valid, fourth.leads()) == (True, False)
        leadership.resign()
        assert fourth.wait(10.0)
        fourth.close()
        _stands(kazoo, path, 0)


def test_latch_ids_are_read_by_both_sides(zk: zkr.Client, curator: CuratorPeer, kazoo: KazooClient, path: str) -> None:
    election = zkr.Election(zk, path, identity="ours-ä", data=b"address=10.0.0.7")
    with election.campaign(timeout=5.0) as leadership:
        latch = curator.latch(path, "theirs-ö")
        _stands(kazoo, path, 2)

        leader = election.leader()
        assert leader is not None
        assert (leader.identity, leader.token, leader.holder) == ("ours-ä", leadership.token, True)
        assert [one.identity for one in election.participants()] == ["ours-ä", "theirs-ö"]

        assert latch.leader() == "ours-ä"
        assert [(one.identity, one.leads) for one in latch.participants()] == [("ours-ä", True), ("theirs-ö", False)]
    assert latch.wait(10.0)
    leader = election.leader()
    assert leader is not None
    assert leader.identity == "theirs-ö"
    latch.close()


def test_proclaimed_data_leaves_the_id_that_curator_reads(
    zk: zkr.Client, curator: CuratorPeer, kazoo: KazooClient, path: str
) -> None:
    with zkr.Election(zk, path, identity="ours").campaign(timeout=5.0) as leadership:
        latch = curator.latch(path, "theirs")
        _stands(kazoo, path, 2)
        leadership.proclaim(b"address=10.0.0.8")
        assert latch.leader() == "ours"
    assert latch.wait(10.0)
    latch.close()


def test_leading_latch_is_killed_and_we_lead(zk: zkr.Client, zkr_server: Server, curator_here: None, path: str) -> None:
    with CuratorPeer(zkr_server.hosts, session_timeout=4.0) as doomed:
        assert doomed.latch(path, "doomed").wait(10.0)
        election = zkr.Election(zk, path)
        assert election.try_campaign() is None
        doomed.kill()
        with election.campaign(timeout=15.0) as leadership:
            assert leadership.valid


def test_our_leading_session_expires_and_the_latch_leads(
    zkr_server: Server, curator: CuratorPeer, kazoo: KazooClient, path: str
) -> None:
    with zkr.connect(zkr_server.hosts, session_timeout=_SHORT) as mine:
        leadership = zkr.Election(mine, path).campaign(timeout=5.0)
        latch = curator.latch(path, "next")
        _stands(kazoo, path, 2)
        zkr_server.expire(mine)
        assert latch.wait(10.0)
        assert leadership.lost.wait(5.0)
        assert not leadership.valid
        latch.close()


def test_selector_and_our_election_lead_in_turn(
    zk: zkr.Client, curator: CuratorPeer, kazoo: KazooClient, path: str
) -> None:
    """A selector that queues again after each term, and an election of ours that does the same."""
    election = zkr.Election(zk, path, identity="ours", layout="selector")
    selector = curator.selector(path, "theirs", requeue=True)
    assert selector.wait(10.0)
    with ThreadPoolExecutor(1) as pool:
        for _ in range(3):
            assert selector.leads()
            campaign = _campaign(pool, election)
            _stands(kazoo, path, 2)
            assert not campaign.done()
            assert [one.identity for one in election.participants()] == ["theirs", "ours"]
            selector.end_term()
            leadership = campaign.result(10.0)
            _stands(kazoo, path, 2)
            assert leadership.valid
            assert not selector.leads()
            assert selector.leader() == "ours"
            assert [(one.identity, one.leads) for one in selector.participants()] == [("ours", True), ("theirs", False)]
            leadership.resign()
            assert selector.wait(10.0)
            leader = election.leader()
            assert leader is not None
            assert leader.identity == "theirs"
    selector.close()
    _stands(kazoo, path, 0)


def test_selector_keeps_run_waiting_for_its_term(
    zk: zkr.Client, curator: CuratorPeer, kazoo: KazooClient, path: str
) -> None:
    """`run` starts the work in our term only."""
    election = zkr.Election(zk, path, layout="selector")
    selector = curator.selector(path, "theirs")
    assert selector.wait(10.0)
    terms: list[bool] = []

    def work(leadership: zkr.Leadership) -> None:
        terms.append(selector.leads() or not leadership.valid)

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(lambda: election.run(work, terms=1))
        _stands(kazoo, path, 2)
        assert terms == []
        selector.end_term()
        running.result(10.0)
    assert terms == [False]
    selector.close()


@pytest.mark.parametrize("layout", ["latch", "selector"])
def test_observers_of_ours_see_curators_leaders(zk: zkr.Client, curator: CuratorPeer, path: str, layout: str) -> None:
    election = zkr.Election(zk, path, layout="latch" if layout == "latch" else "selector")
    close: Callable[[], None]
    if layout == "latch":
        latch = curator.latch(path, "curator")
        assert latch.wait(10.0)
        close = latch.close
    else:
        selector = curator.selector(path, "curator")
        assert selector.wait(10.0)
        close = selector.close
    leader = election.leader()
    assert leader is not None
    assert leader.identity == "curator"
    close()
    wait_until(lambda: election.leader() is None, 5.0, "nobody leads")
