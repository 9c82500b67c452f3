"""`zkrecipes elect run` and `elect watch`."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Final

import zkrecipes as zkr
from tests.cli.conftest import Cli, Notes, events
from zkrecipes.testing import FaultProxy, wait_until

PATH: Final = "/leaders/scheduler"
SHORT: Final = ("--session-timeout", "4")

# The first time it runs until it is stopped; the second time it ends by itself.
TWICE: Final = """
echo $ZKRECIPES_TOKEN $ZKRECIPES_PATH >> "$0"
[ $(wc -l < "$0") = 2 ] && exit 5
while :; do sleep 0.02; done
"""


def test_the_command_runs_while_we_lead(cli: Cli, zk: zkr.Client) -> None:
    election = zkr.Election(zk, PATH)
    leadership = election.campaign(timeout=5)
    process = cli.start("elect", "run", PATH, "--identity", "second", "--", "sh", "-c", "echo $ZKRECIPES_TOKEN; exit 6")
    wait_until(lambda: len(election.participants()) == 2, 10.0, "it stands for election")
    assert process.poll() is None
    leadership.resign()
    output, _ = process.communicate(timeout=15)
    assert process.returncode == 6
    assert int(output) > leadership.token
    assert election.participants() == []


def test_nobody_else_resigns_in_time(cli: Cli, zk: zkr.Client) -> None:
    with zkr.Election(zk, PATH).campaign(timeout=5):
        assert cli.run("elect", "run", PATH, "--timeout", "0.3", "--", "true").returncode == 75


def test_after_a_loss_it_stands_again_with_a_new_token(cli: Cli, zkr_proxy: FaultProxy, tmp_path: Path) -> None:
    log = tmp_path / "terms"
    process = cli.start(
        "elect", "run", PATH, *SHORT, "--json", "--", "sh", "-c", TWICE, str(log), hosts=zkr_proxy.hosts
    )
    wait_until(lambda: log.exists() and log.read_text().endswith("\n"), 10.0, "the first term")
    zkr_proxy.blackhole()
    assert process.stderr is not None
    first = [process.stderr.readline() for _ in range(2)]
    zkr_proxy.heal()
    _, rest = process.communicate(timeout=25)
    assert process.returncode == 5
    told = events("".join(first) + rest)
    assert [event["event"] for event in told] == ["leads", "ended", "leads", "ended"]
    assert [event["status"] for event in told if event["event"] == "ended"] == [76, 5]
    assert told[1]["why"] == "stopped"
    (one, path), (two, _) = (line.split() for line in log.read_text().splitlines())
    assert path == PATH
    assert int(one) < int(two)


def test_once_ends_with_the_loss(cli: Cli, zk: zkr.Client, zkr_proxy: FaultProxy, notes: Notes) -> None:
    process = cli.start("elect", "run", PATH, "--once", *SHORT, "--", *notes.command(), hosts=zkr_proxy.hosts)
    notes.started()
    zkr_proxy.blackhole()
    with zkr.Election(zk, PATH).campaign(timeout=15):
        notes.nothing_lives(0.0)
        assert process.wait(10) == 76
    # Suspended, it is told to stop, long before the lease ends; it does not, and is killed in time.
    assert len(notes.told) == 1
    assert notes.last - notes.told[0] > 0.3


def test_a_signal_ends_it_though_the_command_was_being_stopped(cli: Cli, zkr_proxy: FaultProxy, notes: Notes) -> None:
    process = cli.start("elect", "run", PATH, *SHORT, "--", *notes.command(), hosts=zkr_proxy.hosts)
    notes.started()
    zkr_proxy.blackhole()
    wait_until(lambda: notes.told, 10.0, "it is told to stop")
    process.send_signal(signal.SIGINT)
    assert process.wait(10) in {128 + signal.SIGINT, 76}
    notes.nothing_lives(0.0)


def test_watch_shows_each_change_until_it_is_interrupted(cli: Cli, zk: zkr.Client) -> None:
    process = cli.start("elect", "watch", PATH, "--json")
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["leader"] is None
    with zkr.Election(zk, PATH, identity="w1", data=b"tcp://w1").campaign(timeout=5) as leadership:
        seen = json.loads(process.stdout.readline())["leader"]
        while not seen["data"]:
            seen = json.loads(process.stdout.readline())["leader"]
    assert (seen["identity"], seen["token"], seen["data"]) == ("w1", leadership.token, "tcp://w1")
    assert json.loads(process.stdout.readline())["leader"] is None
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 130
    assert "Traceback" not in errors


def test_watch_once_for_a_person(cli: Cli, zk: zkr.Client) -> None:
    ended = cli.run("elect", "watch", PATH, "--once")
    assert ended.returncode == 0
    assert "nobody leads" in ended.stdout
    with zkr.Election(zk, PATH, identity="w1").campaign(timeout=5) as leadership:
        assert f"w1 leads (token {leadership.token})" in cli.run("elect", "watch", PATH, "--once").stdout
