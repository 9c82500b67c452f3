"""`zkrecipes watch`: nodes, children and trees, for people and for programs."""

from __future__ import annotations

import json
import signal
import subprocess
from typing import Any, Final

import pytest

import zkrecipes as zkr
from tests.cli.conftest import Cli
from zkrecipes.testing import FaultProxy

PATH: Final = "/watched"


class Lines:
    """What the program says, line by line."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def next(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def event(self) -> dict[str, Any]:
        return dict(json.loads(self.next()))

    def told(self) -> tuple[str, str | None, str | None, str | None]:
        event = self.event()
        return event["event"], event.get("path"), event.get("old"), event.get("new")

    def interrupt(self) -> str:
        self.process.send_signal(signal.SIGINT)
        output, errors = self.process.communicate(timeout=10)
        assert self.process.returncode == 130
        assert "Traceback" not in errors
        return output


def test_each_change_of_a_node_is_shown_until_it_is_interrupted(cli: Cli, zk: zkr.Client) -> None:
    lines = Lines(cli.start("watch", PATH, "--json"))
    start = lines.event()
    assert (start["event"], start["paths"]) == ("watching", [PATH])
    zk.create(PATH, b"one")
    created = lines.event()
    assert (created["event"], created["path"], created["new"]) == ("created", PATH, "one")
    assert created["stat"]["czxid"] == zk.get(PATH).stat.czxid
    zk.set(PATH, b"\xff\x00")
    changed = lines.event()
    assert (changed["event"], changed["old"], changed["new"]) == ("changed", "one", "/wA=")
    assert (changed["old_encoding"], changed["new_encoding"]) == ("utf-8", "base64")
    zk.delete(PATH)
    assert lines.told() == ("deleted", PATH, "/wA=", None)
    assert lines.interrupt() == ""


def test_for_a_person(cli: Cli, zk: zkr.Client) -> None:
    zk.create(PATH, b"\x1b[31m red")
    lines = Lines(cli.start("watch", PATH))
    first = lines.next()
    assert f"created  {PATH}  \\x1b[31m red" in first, "nothing may steer the terminal"
    assert "1 node" in lines.next()
    zk.set(PATH, b"x" * 1000)
    line = lines.next()
    assert "-> xxx" in line
    assert "… (1000 bytes)" in line
    assert len(line) < 300
    zk.set(PATH, b"")
    assert "-> (no data)" in lines.next()
    zk.delete(PATH)
    assert f"deleted  {PATH}  was (no data)" in lines.next()
    lines.interrupt()


def test_what_is_there_already_is_left_out_on_demand(cli: Cli, zk: zkr.Client) -> None:
    zk.create(PATH, b"old")
    lines = Lines(cli.start("watch", PATH, "--no-initial", "--json"))
    assert lines.event()["event"] == "watching"
    zk.set(PATH, b"new")
    assert lines.told() == ("changed", PATH, "old", "new")
    lines.interrupt()


def test_a_tree_children_and_a_depth(cli: Cli, zk: zkr.Client) -> None:
    zk.create(f"{PATH}/a/deep", b"d", parents=True)
    zk.set(f"{PATH}/a", b"a")

    def shown(*arguments: str) -> list[str]:
        ended = cli.call("watch", PATH, "--once", "--json", *arguments)
        assert ended.returncode == 0, ended.stderr
        return [json.loads(line)["path"] for line in ended.stdout.splitlines()]

    assert shown() == [PATH]
    assert shown("--children") == [f"{PATH}/a"]
    assert shown("--tree") == [PATH, f"{PATH}/a", f"{PATH}/a/deep"]
    assert shown("--tree", "--depth", "1") == [PATH, f"{PATH}/a"]
    assert cli.call("watch", PATH, "--once", "--children").stdout == f"{PATH}/a  a\n"

    lines = Lines(cli.start("watch", f"{PATH}/a", PATH, "--children", "--no-initial", "--json"))
    assert {tuple(lines.event()["paths"]) for _ in range(2)} == {(PATH,), (f"{PATH}/a",)}
    zk.create(f"{PATH}/b")
    assert lines.told() == ("created", f"{PATH}/b", None, "")
    zk.delete(f"{PATH}/a/deep")
    assert lines.told() == ("deleted", f"{PATH}/a/deep", "d", None)
    lines.interrupt()


def test_an_outage_is_shown_and_what_happened_meanwhile(cli: Cli, zk: zkr.Client, zkr_proxy: FaultProxy) -> None:
    zk.create(PATH, b"before")
    lines = Lines(cli.start("watch", PATH, "--json", hosts=zkr_proxy.hosts))
    assert lines.told() == ("created", PATH, None, "before")
    assert lines.event()["event"] == "watching"
    zkr_proxy.refuse()
    zkr_proxy.cut()
    assert lines.event()["event"] == "stale"
    zk.set(PATH, b"after")
    zkr_proxy.heal()
    assert lines.told() == ("changed", PATH, "before", "after")
    assert lines.event()["event"] == "fresh"
    lines.interrupt()


def test_it_ends_when_nobody_reads_it(cli: Cli, zk: zkr.Client) -> None:
    process = cli.start("watch", PATH)
    lines = Lines(process)
    assert "0 nodes" in lines.next()
    assert process.stdout is not None
    process.stdout.close()
    zk.create(PATH)
    assert process.wait(10) == 128 + signal.SIGPIPE
    assert process.stderr is not None
    assert process.stderr.read() == ""


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("watched",), "must begin with '/'"),
        ((PATH, "--tree", "--children"), "use one of them"),
        ((PATH, "--depth", "1"), "use it with --tree"),
        ((PATH, "--tree", "--depth", "-1"), "depth must be 0"),
        ((PATH, "--once", "--no-initial"), "use one of them"),
    ],
)
def test_arguments_that_make_no_sense(cli: Cli, arguments: tuple[str, ...], why: str) -> None:
    ended = cli.call("watch", *arguments)
    assert ended.returncode == 2
    assert why in ended.stderr
    assert ended.stdout == ""


def test_a_node_that_may_not_be_read(cli: Cli, zk: zkr.Client) -> None:
    zk.create(PATH, acl=[zkr.Acl(16, "world", "anyone")])
    ended = cli.call("watch", PATH)
    assert ended.returncode == 77
    assert PATH in ended.stderr
