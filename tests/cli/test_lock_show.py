"""`zkrecipes lock show` and `lock break`, for people and for programs."""

from __future__ import annotations

import json
from typing import Final

import zkrecipes as zkr
from tests.cli.conftest import Cli
from zkrecipes.testing import wait_until

PATH: Final = "/locks/job"


def test_show_and_break(cli: Cli, zk: zkr.Client) -> None:
    free = cli.run("lock", "show", PATH)
    assert (free.returncode, free.stdout) == (0, f"nobody holds {PATH}\n")
    held = zkr.Lock(zk, PATH, identity="first").acquire(timeout=5)
    waiting = cli.start("lock", "run", PATH, "--identity", "second", "--", "sh", "-c", "echo $ZKRECIPES_TOKEN")
    wait_until(lambda: len(zkr.Lock(zk, PATH).contenders()) == 2, 10.0, "the second waits")

    shown = cli.run("lock", "show", PATH, "--json")
    line = json.loads(shown.stdout)["contenders"]
    assert [(each["identity"], each["holder"]) for each in line] == [("first", True), ("second", False)]
    assert line[0]["token"] == held.token
    text = cli.run("lock", "show", PATH).stdout.splitlines()
    assert text[0].startswith("holds  first  token")
    assert text[1].startswith("waits  second  token")

    broken = json.loads(cli.run("--json", "lock", "break", PATH).stdout)["broken"]
    assert (broken["identity"], broken["token"]) == ("first", held.token)
    output, _ = waiting.communicate(timeout=15)
    assert int(output) == line[1]["token"]
    held.release()
    assert cli.run("lock", "break", PATH).stdout == f"nobody holds {PATH}\n"


def test_a_lock_of_kazoos_is_shown_by_its_layout(cli: Cli, zk: zkr.Client) -> None:
    with zkr.Lock(zk, PATH, identity="snake", layout="kazoo").acquire(timeout=5):
        assert cli.run("lock", "show", PATH).returncode == 1
        assert "snake" in cli.run("lock", "show", "--layout", "kazoo", PATH).stdout


def test_an_error_is_json_too(cli: Cli) -> None:
    ended = cli.run("--connect-timeout", "0.3", "lock", "show", PATH, "--json", hosts="127.0.0.1:1")
    error = json.loads(ended.stderr)
    assert (ended.returncode, error["status"], error["error"]) == (69, 69, "UnavailableError")
