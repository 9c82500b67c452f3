from __future__ import annotations

import os
import time

import pytest

from tests.testing.conftest import Connect
from zkrecipes.errors import UnavailableError
from zkrecipes.testing import RawClient, ZooKeeperEnsemble, ZooKeeperServer, wait_until
from zkrecipes.testing.raw import EPHEMERAL

pytestmark = [pytest.mark.server, pytest.mark.ensemble, pytest.mark.timeout(120)]


@pytest.fixture
def path() -> str:
    """A path that no other test uses: the ensemble is shared."""
    return f"/ensemble-{os.urandom(6).hex()}"


def _answers(client: RawClient, path: str) -> bool | None:
    """What a server says of a node; None if it has hung up."""
    try:
        return client.exists(path)
    except UnavailableError:
        return None


def test_one_leads_and_the_others_follow(zkr_ensemble: ZooKeeperEnsemble, connect: Connect, path: str) -> None:
    leader, followers = zkr_ensemble.leader(), zkr_ensemble.followers()
    assert {leader, *followers} == set(zkr_ensemble.servers)
    assert len(zkr_ensemble.hosts.split(",")) == 3
    connect(followers[0]).create(path)
    reader = connect(followers[1])
    reader.call("sync", b"\0\0\0\1/")
    assert reader.exists(path)


def test_all_that_members_say_goes_through_the_proxies(zkr_ensemble: ZooKeeperEnsemble) -> None:
    quorum = [proxies[0].connections for proxies in zkr_ensemble._proxies.values()]
    election = [proxies[1].connections for proxies in zkr_ensemble._proxies.values()]
    assert sum(quorum) == 2  # each follower to the leader
    assert sum(election) == 3  # each pair


def test_a_killed_leader_is_replaced_and_comes_back_as_a_follower(
    zkr_ensemble: ZooKeeperEnsemble, connect: Connect, path: str
) -> None:
    old = zkr_ensemble.leader()
    zkr_ensemble.kill(old)
    new = zkr_ensemble.leader()
    assert new is not old
    connect(new).create(path)
    zkr_ensemble.restart(old)
    assert old in zkr_ensemble.followers()
    assert connect(old).exists(path)


def test_proxies_do_not_make_an_election_longer(zkr_ensemble: ZooKeeperEnsemble) -> None:
    for _ in range(6):
        old = zkr_ensemble.leader()
        zkr_ensemble.kill(old)
        # A follower that meets a reset at its new leader's port waits out initLimit, 10 s.
        assert zkr_ensemble.leader(limit=8) is not old
        zkr_ensemble.restart(old)


def test_a_paused_leader_is_replaced(zkr_ensemble: ZooKeeperEnsemble) -> None:
    old = zkr_ensemble.leader()
    zkr_ensemble.pause(old)
    assert zkr_ensemble.leader() is not old
    zkr_ensemble.resume(old)
    wait_until(lambda: len(zkr_ensemble.followers()) == 2, 30, "the old leader follows")


def test_a_follower_cut_from_its_leader_answers_from_old_knowledge_and_then_hangs_up(
    zkr_ensemble: ZooKeeperEnsemble, connect: Connect, path: str
) -> None:
    follower, other = zkr_ensemble.followers()
    behind = connect(follower)
    leader = zkr_ensemble.cut_from_leader(follower)
    cut = time.monotonic()
    assert connect(other).create(path).error == 0  # the rest has its quorum
    assert _answers(behind, path) is False  # and this one does not know
    wait_until(lambda: _answers(behind, path) is None, 30, "the follower gives up its clients")
    assert time.monotonic() - cut > 1.0  # it went on for most of syncLimit (2 s)
    assert zkr_ensemble.roles() == {follower.name: "none", other.name: "follower", leader.name: "leader"}
    zkr_ensemble.heal()
    wait_until(lambda: len(zkr_ensemble.followers()) == 2, 30, "the follower is back")
    reader = connect(follower)
    reader.call("sync", b"\0\0\0\1/")
    assert reader.exists(path)


def test_a_parting_by_reset_is_noticed_at_once(zkr_ensemble: ZooKeeperEnsemble, connect: Connect) -> None:
    follower = zkr_ensemble.followers()[0]
    behind = connect(follower)
    zkr_ensemble.cut_from_leader(follower, "reset")
    wait_until(lambda: _answers(behind, "/") is None, 30, "the follower gives up its clients")
    assert zkr_ensemble.roles()[follower.name] == "none"


def test_an_isolated_leader_is_deposed_and_its_successor_serves(
    zkr_ensemble: ZooKeeperEnsemble, connect: Connect, path: str
) -> None:
    old = zkr_ensemble.leader()
    zkr_ensemble.isolate(old)

    def successor() -> ZooKeeperServer | None:
        roles = zkr_ensemble.roles()
        return next((each for each in zkr_ensemble.servers if each is not old and roles[each.name] == "leader"), None)

    new = wait_until(successor, 60, "the others have a leader")
    assert new is not None
    connect(new).create(path)
    wait_until(lambda: zkr_ensemble.roles()[old.name] == "none", 60, "the old leader has noticed")
    zkr_ensemble.heal()
    wait_until(lambda: len(zkr_ensemble.followers()) == 2, 60, "all are together again")


def test_expire_and_member_of(zkr_ensemble: ZooKeeperEnsemble, connect: Connect, path: str) -> None:
    follower, other = zkr_ensemble.followers()
    client = connect(follower)
    client.create(path, flags=EPHEMERAL)
    assert zkr_ensemble.member_of(client) is follower
    zkr_ensemble.expire(client)
    wait_until(lambda: zkr_ensemble.member_of(client) is None, 10, "its member has learnt it")
    witness = connect(other)
    witness.call("sync", b"\0\0\0\1/")
    assert not witness.exists(path)


def test_without_a_quorum_nobody_serves(zkr_ensemble: ZooKeeperEnsemble) -> None:
    survivor, *rest = zkr_ensemble.servers
    for member in rest:
        zkr_ensemble.stop(member)
    wait_until(lambda: not survivor.serves(), 30, "the survivor has noticed")
    with pytest.raises(AssertionError, match=r"one leader; roles are \{'member-1': 'none'\}"):
        zkr_ensemble.leader(limit=0.1)


def test_members_are_not_parted_without_proxies(installed: None) -> None:
    with pytest.raises(RuntimeError, match="proxied_quorum=True"):
        ZooKeeperEnsemble().part(0, 1)
    with pytest.raises(ValueError, match="size"):
        ZooKeeperEnsemble(0)


def test_an_ensemble_of_direct_connections_leaves_nothing(installed: None, connect: Connect, path: str) -> None:
    with ZooKeeperEnsemble(3, {"extendedTypesEnabled": "true"}, tick_time=0.3, sync_limit=7) as ensemble:
        assert "syncLimit=7" in ensemble.leader().command("conf")
        assert "tickTime=300" in ensemble.leader().command("conf")
        connect(ensemble.followers()[0]).create(path)
        ensemble.restart()
        assert connect(ensemble.leader()).exists(path)
        homes = [server.log.parent for server in ensemble.servers]
    assert not any(home.exists() for home in homes)
    assert not any(server.pid for server in ensemble.servers)
