"""`zkrecipes doctor`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import pytest

import zkrecipes as zkr
from tests.cli.conftest import Cli
from zkrecipes.cli.findings import patience
from zkrecipes.cli.lines import Seen, headroom
from zkrecipes.port import Stat
from zkrecipes.testing import ZooKeeperServer

PATH: Final = "/locks/job"
GUID: Final = "_c_12345678-1234-8234-8234-123456789012-lock-"


def findings(cli: Cli, *arguments: str, status: int = 0) -> dict[str, list[dict[str, Any]]]:
    """By topic."""
    ended = cli.run("doctor", "--json", *arguments)
    assert ended.returncode == status, ended
    found: dict[str, list[dict[str, Any]]] = {}
    for finding in json.loads(ended.stdout)["findings"]:
        found.setdefault(finding["topic"], []).append(finding)
    return found


def test_server_session_tick_and_clock(cli: Cli) -> None:
    found = findings(cli)
    (version,) = found["version"]
    assert version["level"] == "ok"
    assert version["version"].startswith("3.")
    assert found["tick"][0]["tick"] > 0
    assert found["session"][0]["granted"] == 10.0
    assert abs(found["clock"][0]["skew"]) < 5.0
    lease = found["lease"][0]
    assert lease["level"] == "info"
    assert f"server_tick={found['tick'][0]['tick']:g}" in lease["text"]
    assert lease["patience_with_tick"] > lease["patience"]


def test_the_advice_follows_the_rule_of_the_lease() -> None:
    # A session of 10 s leaves at least a quarter of it, less the drift; with a tick of 2 s, margin and distance shrink.
    assert patience(10.0, 2.5) == pytest.approx(10 - 2.5 - 0.1 - 3 * 10 / 6)
    assert patience(10.0, 1.0) == pytest.approx(10 - 1.0 - 0.1 - 2 * 10 / 6)


def test_for_a_person(cli: Cli, zk: zkr.Client) -> None:
    with zkr.Lock(zk, PATH).acquire(timeout=5):
        ended = cli.run("doctor", PATH)
    assert ended.returncode == 0
    assert "is ZooKeeper 3." in ended.stdout
    assert "1 of 2,147,483,647 sequence numbers" in ended.stdout
    assert "nothing wrong" in ended.stdout


def test_a_session_that_the_server_does_not_grant(cli: Cli) -> None:
    (session,) = findings(cli, "--session-timeout", "3600")["session"]
    assert session["level"] == "warning"
    assert session["granted"] < 3600


def test_the_next_sequence_number(cli: Cli, zk: zkr.Client) -> None:
    for _ in range(5):
        with zkr.Lock(zk, PATH).acquire(timeout=5):
            pass
    with zkr.Lock(zk, PATH).acquire(timeout=5):
        number = int(zk.children(PATH)[0][-10:])
        (sequence,) = findings(cli, "/locks")["sequence"]
    assert sequence["next"] == number + 1 == 6


@pytest.mark.parametrize(
    ("creates", "names", "level"),
    [
        (1_000, ["x-0000000999"], "ok"),
        (2_000_000_000, ["x-1999999999"], "warning"),
        # The children's version is a number of 32 bits: from 2^30 creates on it is negative, and then positive again.
        ((1 << 30) + 5, ["x-1073741828"], "ok"),
        ((1 << 31) - 2, ["x-2147483645"], "warning"),
        (1 << 31, ["x-2147483647"], "bad"),
        ((1 << 31) + 7, ["x--2147483642"], "bad"),
        ((1 << 32) - 1, ["x--000000002"], "bad"),
    ],
)
def test_headroom(creates: int, names: list[str], level: str) -> None:
    version = (creates * 2 - len(names)) % (1 << 32)
    signed = version - (1 << 32) if version >= 1 << 31 else version
    stat = Stat(1, 1, 0, 0, 0, signed, 0, 0, 0, len(names), 1)
    finding = headroom(Seen("/x", stat, names))
    assert finding.level == level
    if level != "bad":
        assert finding.values["next"] == creates


def test_orphans_strangers_and_mixed_lines(cli: Cli, zk: zkr.Client) -> None:
    zk.create(f"/a/{GUID}0000000000", parents=True)
    zk.create(f"/b/{GUID}0000000000", kind=zkr.Kind.PERSISTENT, parents=True)
    zk.create("/b/stranger")
    zk.create(f"/c/{GUID}0000000000", parents=True)
    zk.create("/c/12345678123482348234123456789012__lock__0000000001")
    for number in range(2):
        zk.create(f"/d/{GUID}000000000{number}", kind=zkr.Kind.EPHEMERAL, parents=True)

    (orphan,) = findings(cli, "/a", status=1)["orphan"]
    assert (orphan["level"], orphan["path"]) == ("bad", "/a")
    assert findings(cli, "/b", status=1)["line"][0]["strangers"] == ["stranger"]
    assert findings(cli, "/c", status=1)["line"][0]["layouts"] == ["curator", "kazoo"]
    (twice,) = findings(cli, "/d")["orphan"]
    assert (twice["level"], len(twice["nodes"])) == ("warning", 2)


def test_big_nodes(cli: Cli, zk: zkr.Client) -> None:
    zk.create("/big", b"x" * 600 * 1024)
    (size,) = findings(cli, "/")["size"]
    assert (size["path"], size["bytes"]) == ("/big", 600 * 1024)
    found = findings(cli, "/", "--limit", "1")
    assert "size" not in found
    assert "first 1 nodes only" in found["path"][0]["text"]


def test_a_path_that_is_not_there(cli: Cli) -> None:
    assert "does not exist" in findings(cli, "/nothing")["path"][0]["text"]
    assert cli.run("doctor", "nothing").returncode == 2


def test_a_server_that_is_down(cli: Cli) -> None:
    ended = cli.run("--hosts", f"{cli.hosts},127.0.0.1:1", "doctor")
    assert ended.returncode == 1
    assert "127.0.0.1:1 does not answer" in ended.stdout
    assert cli.run("--hosts", "127.0.0.1:1", "--connect-timeout", "0.3", "doctor").returncode == 69


@pytest.fixture(scope="module")
def silent_server() -> Iterator[ZooKeeperServer]:
    """It answers no four-letter word that tells its configuration."""
    properties = {"4lw.commands.whitelist": "srvr", "maxSessionTimeout": "-1"}
    with ZooKeeperServer(properties=properties) as server:
        yield server


@pytest.mark.server
def test_it_says_what_it_could_not_find_out(silent_server: ZooKeeperServer) -> None:
    found = findings(Cli(silent_server.hosts, ""))
    (tick,) = found["tick"]
    assert tick["level"] == "unknown"
    assert "conf" in tick["text"]
    # Two and twenty ticks are a server's own limits, so the tick can be guessed; a guess is no ground for a promise.
    assert tick["probably"] == 0.5
    assert found["lease"][0]["level"] == "ok"
    assert "server_tick" not in found["lease"][0]["text"]
