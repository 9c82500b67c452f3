"""Two valid handles at once on an ensemble: a follower cut from its leader, leaders stopped, deposed and killed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.contest import Contest, during, linger
from zkrecipes.runtime import monotonic
from zkrecipes.testing import ZooKeeperEnsemble

pytestmark = pytest.mark.ensemble

TIMEOUT = 3.0
TICK = 0.5
SYNC_LIMIT = 10
"""Five seconds: a follower that is cut off goes on answering for longer than a session lasts."""


@pytest.fixture(scope="module")
def shared_ensemble() -> Iterator[ZooKeeperEnsemble]:
    with ZooKeeperEnsemble(proxied_quorum=True, tick_time=TICK, sync_limit=SYNC_LIMIT) as ensemble:
        yield ensemble


@pytest.fixture
def ensemble(shared_ensemble: ZooKeeperEnsemble) -> ZooKeeperEnsemble:
    """Whole again, whatever the test before has done to it."""
    shared_ensemble.heal()
    shared_ensemble.resume()
    shared_ensemble.start()
    shared_ensemble.followers()
    return shared_ensemble


@pytest.mark.parametrize("traffic", [False, True], ids=["idle", "traffic"])
def test_follower_cut_from_its_leader(ensemble: ZooKeeperEnsemble, tmp_path: Path, traffic: bool) -> None:  # noqa: FBT001
    """The follower answers the holder's reads and pings, while the leader gives the lock away."""
    cut_off, other = ensemble.followers()
    leader = ensemble.leader()
    with Contest(tmp_path, TIMEOUT, traffic=traffic) as contest:
        victim = contest.first(cut_off)
        contest.start(leader)
        contest.start(other)
        linger(TIMEOUT / 2)
        since = monotonic()
        ensemble.cut_from_leader(cut_off)
        contest.wait_for_take_over(victim, since, 4 * TIMEOUT)
        linger(SYNC_LIMIT * TICK - (monotonic() - since) + 1.0)
        ensemble.heal()
        linger(1.0)


def test_follower_cut_from_its_leader_where_another_can_be_had(ensemble: ZooKeeperEnsemble, tmp_path: Path) -> None:
    """The holder moves to another server, and keeps what it has or loses it; nobody believes beside it."""
    cut_off, other = ensemble.followers()
    with Contest(tmp_path, TIMEOUT) as contest:
        victim = contest.first(cut_off, other)
        contest.start(other)
        linger(TIMEOUT / 2)
        ensemble.cut_from_leader(cut_off)
        linger(SYNC_LIMIT * TICK + 1.0)
        ensemble.heal()
        linger(1.0)
        assert victim.believes("lock") or contest.workers[1].believes("lock")


@pytest.mark.parametrize("seconds", [TIMEOUT * 0.5, TIMEOUT * 0.9, TIMEOUT * 1.4], ids="{:g} s".format)
def test_leader_stopped(ensemble: ZooKeeperEnsemble, tmp_path: Path, seconds: float) -> None:
    """Frozen for less and for more than a session, but not for long enough to be deposed."""
    leader = ensemble.leader()
    one, other = ensemble.followers()
    with Contest(tmp_path, TIMEOUT) as contest:
        contest.first(one)
        contest.start(other)
        contest.start(leader)
        linger(TIMEOUT / 2)
        during(lambda: ensemble.pause(leader), lambda: ensemble.resume(leader), seconds)
        linger(TIMEOUT + 1.0)


def test_leader_stopped_and_deposed(ensemble: ZooKeeperEnsemble, tmp_path: Path) -> None:
    """The holder is a client of the leader that wakes up deposed, and answers until it learns it."""
    leader = ensemble.leader()
    one, other = ensemble.followers()
    with Contest(tmp_path, TIMEOUT) as contest:
        victim = contest.first(leader)
        contest.start(one)
        contest.start(other)
        linger(TIMEOUT / 2)
        since = monotonic()
        ensemble.pause(leader)
        contest.wait_for_take_over(victim, since, 8 * TIMEOUT)
        ensemble.resume(leader)
        linger(3.0)


def test_leader_isolated(ensemble: ZooKeeperEnsemble, tmp_path: Path) -> None:
    """Cut from both followers, it goes on leading for a while, with the holder as its client."""
    leader = ensemble.leader()
    one, other = ensemble.followers()
    with Contest(tmp_path, TIMEOUT) as contest:
        victim = contest.first(leader)
        contest.start(one)
        contest.start(other)
        linger(TIMEOUT / 2)
        since = monotonic()
        ensemble.isolate(leader)
        contest.wait_for_take_over(victim, since, 8 * TIMEOUT)
        ensemble.heal()
        linger(3.0)


def test_leader_killed(ensemble: ZooKeeperEnsemble, tmp_path: Path) -> None:
    leader = ensemble.leader()
    one, other = ensemble.followers()
    with Contest(tmp_path, TIMEOUT) as contest:
        contest.first(one)
        contest.start(other)
        linger(TIMEOUT / 2)
        ensemble.kill(leader)
        linger(2 * TIMEOUT)


def test_follower_killed_right_after_its_answer(ensemble: ZooKeeperEnsemble, tmp_path: Path) -> None:
    """It had no time to tell its leader of what it answered: that answer must prove nothing."""
    killed, other = ensemble.followers()
    with Contest(tmp_path, TIMEOUT) as contest:
        victim = contest.first(killed)
        contest.start(other)
        linger(TIMEOUT / 2)
        gate = victim.proxy.hold_reply("any")
        gate.wait_held(10.0)
        ensemble.kill(killed)
        since = monotonic()
        gate.release()
        contest.wait_for_take_over(victim, since, 4 * TIMEOUT)
