"""Two valid handles, or two pieces of work, at once: never, whatever happens to the network, the server or a holder."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.faults.contest import Contest, during, linger
from zkrecipes.runtime import monotonic
from zkrecipes.testing import ZooKeeperServer

TIMEOUT = 2.0
TICK = 0.2
SLACK = 0.6
"""For a loaded machine: process starts, late threads, the server's own scheduling."""


@pytest.mark.parametrize("traffic", [False, True], ids=["idle", "traffic"])
@pytest.mark.parametrize("direction", ["both", "to_server", "to_client"])
def test_black_hole(server: ZooKeeperServer, tmp_path: Path, direction: str, traffic: bool) -> None:  # noqa: FBT001
    with Contest(tmp_path, TIMEOUT, traffic=traffic) as contest:
        victim = contest.first(server)
        contest.start(server)
        since = monotonic()
        victim.proxy.blackhole(direction)  # type: ignore[arg-type]  # one of the three
        if direction == "to_client":
            # Its attempts to reconnect still reach the server, and keep the session alive: it must not believe in it.
            linger(2 * TIMEOUT)
            assert not victim.believes("lock", since + TIMEOUT)
            victim.proxy.heal()
        contest.wait_for_take_over(victim, since, 3 * TIMEOUT)
        linger(TIMEOUT / 2)
        victim.proxy.heal()
        linger(TIMEOUT / 2)


@pytest.mark.parametrize("seconds", [TIMEOUT * 0.4, TIMEOUT * 0.7])
def test_short_black_hole(server: ZooKeeperServer, tmp_path: Path, seconds: float) -> None:
    """Shorter than the session: whether it survives or not, nobody may believe beside anybody."""
    with Contest(tmp_path, TIMEOUT) as contest:
        victim = contest.first(server)
        contest.start(server)
        during(victim.proxy.blackhole, victim.proxy.heal, seconds)
        linger(TIMEOUT)


def test_cut_and_refused(server: ZooKeeperServer, tmp_path: Path) -> None:
    with Contest(tmp_path, TIMEOUT) as contest:
        victim = contest.first(server)
        contest.start(server)
        since = monotonic()
        victim.proxy.refuse()
        taken = contest.wait_for_take_over(victim, since, 3 * TIMEOUT)
        assert taken <= TIMEOUT + 2 * TICK + SLACK
        victim.proxy.heal()
        linger(TIMEOUT / 2)


def test_flapping_connection(server: ZooKeeperServer, tmp_path: Path) -> None:
    """Cut again and again, each time for less than the session lasts."""
    with Contest(tmp_path, TIMEOUT) as contest:
        victim = contest.first(server)
        contest.start(server)
        for _ in range(12):
            victim.proxy.cut()
            linger(0.05)
            during(victim.proxy.blackhole, victim.proxy.heal, 0.3)
            linger(0.05)
        linger(TIMEOUT / 2)


@pytest.mark.parametrize("seconds", [TIMEOUT * 0.5, TIMEOUT * 0.9, TIMEOUT * 1.5, TIMEOUT * 2.5])
def test_holder_stopped(server: ZooKeeperServer, tmp_path: Path, seconds: float) -> None:
    """SIGSTOP for less and for more than the session lasts, then SIGCONT."""
    with Contest(tmp_path, TIMEOUT, frozen=True) as contest:
        victim = contest.first(server)
        contest.start(server)
        during(lambda: victim.signal(signal.SIGSTOP), lambda: victim.signal(signal.SIGCONT), seconds)
        linger(TIMEOUT * 0.75)


def test_holder_killed(server: ZooKeeperServer, tmp_path: Path) -> None:
    with Contest(tmp_path, TIMEOUT, frozen=True) as contest:
        victim = contest.first(server)
        contest.start(server)
        contest.start(server)
        since = monotonic()
        victim.signal(signal.SIGKILL)
        taken = contest.wait_for_take_over(victim, since, 3 * TIMEOUT)
        assert taken <= TIMEOUT + 2 * TICK + SLACK


@pytest.mark.parametrize("seconds", [TIMEOUT * 0.5, TIMEOUT * 0.9, TIMEOUT * 1.5])
def test_server_stopped(server: ZooKeeperServer, tmp_path: Path, seconds: float) -> None:
    with Contest(tmp_path, TIMEOUT) as contest:
        contest.first(server)
        contest.start(server)
        during(server.pause, server.resume, seconds)
        linger(TIMEOUT)


def test_server_killed_and_started_again(server: ZooKeeperServer, tmp_path: Path) -> None:
    with Contest(tmp_path, TIMEOUT, hold=0.3) as contest:
        contest.first(server)
        contest.start(server)
        since = monotonic()
        server.kill()
        server.start()
        contest.wait_for_take_over(contest.workers[0], since, 5 * TIMEOUT)


def test_turns_under_random_trouble(server: ZooKeeperServer, tmp_path: Path) -> None:
    """Short turns by four workers, while each connection in turn is cut, delayed and silenced."""
    with Contest(tmp_path, TIMEOUT, hold=0.1, traffic=True) as contest:
        workers = [contest.start(server) for _ in range(4)]
        for round_ in range(8):
            proxy = workers[round_ % 4].proxy
            if round_ % 3 == 0:
                proxy.cut()
                linger(0.4)
            elif round_ % 3 == 1:
                during(proxy.blackhole, proxy.heal, 0.8)
            else:
                proxy.delay(0.15)
                linger(0.6)
                proxy.heal()
