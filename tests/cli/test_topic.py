"""`zkrecipes topic`, for people and for programs."""

from __future__ import annotations

import json
import subprocess
from typing import Final

import zkrecipes as zkr
from tests.cli.conftest import Cli

PATH: Final = "/topics/orders"


def test_publish_and_tail(cli: Cli, zk: zkr.Client) -> None:
    put = cli.call("topic", "publish", PATH, "first", "second", "--key", "k", "--header", "trace=7=f")
    assert (put.returncode, put.stdout) == (0, "0-0\n0-1\n"), put.stderr
    assert cli.call("topic", "publish", PATH, "once", "--message-id", "1").stdout == "0-2\n"
    assert cli.call("topic", "publish", PATH, "again", "--message-id", "1").stdout == "0-2\n"
    tailed = cli.call("topic", "tail", PATH, "--from", "earliest", "-n", "3")
    assert (tailed.returncode, tailed.stdout) == (0, "0-0\tfirst\n0-1\tsecond\n0-2\tonce\n")
    [line] = cli.call("topic", "tail", PATH, "--from", "0-1", "-n", "1", "--json").stdout.splitlines()
    message = json.loads(line)
    assert (message["position"], message["value"], message["key"]) == ("0-1", "second", "k")
    assert message["headers"] == {"trace": "7=f"}
    zkr.Topic(zk, PATH).publish(b"\xff\0")
    assert cli.call("topic", "tail", PATH, "--from", "0-3", "-n", "1").stdout == "0-3\t(2 bytes)\n"


def test_lines_of_the_standard_input_are_messages(cli: Cli) -> None:
    process = cli.start("topic", "publish", PATH, "-", stdin=subprocess.PIPE)
    process.communicate("one\ntwo\n", timeout=30)
    assert process.returncode == 0
    assert cli.call("topic", "tail", PATH, "--from", "earliest", "-n", "2").stdout == "0-0\tone\n0-1\ttwo\n"


def test_a_named_tail_acknowledges_what_it_has_printed(cli: Cli) -> None:
    cli.call("topic", "publish", PATH, *"abc")
    first = cli.call("topic", "tail", PATH, "--name", "billing", "--from", "earliest", "-n", "2")
    assert first.stdout == "0-0\ta\n0-1\tb\n"
    assert cli.call("topic", "offsets", PATH).stdout == "billing\t0-2\t1 behind\taway\n"
    assert json.loads(cli.call("topic", "offsets", PATH, "--json").stdout)["offsets"][0]["lag"] == 1
    assert cli.call("topic", "subscribers", PATH).stdout == f"nobody reads {PATH}\n"
    assert cli.call("topic", "tail", PATH, "--name", "billing", "-n", "1").stdout == "0-2\tc\n"


def test_trim_keeps_what_was_not_acknowledged_unless_forced(cli: Cli) -> None:
    cli.call("topic", "publish", PATH, *"abcd")
    cli.call("topic", "tail", PATH, "--name", "billing", "--from", "earliest", "-n", "1")
    assert cli.call("topic", "trim", PATH, "--keep", "0").stdout == "0-1\n"
    assert cli.call("topic", "trim", PATH, "--before", "0-3", "--force").stdout == "0-3\n"
    tailed = cli.call("topic", "tail", PATH, "--name", "billing", "-n", "1")
    assert tailed.stdout == "0-3\td\n"
    assert "were removed before they were read" in tailed.stderr


def test_mistakes_are_told(cli: Cli) -> None:
    assert cli.call("topic", "trim", PATH).returncode == 2
    assert cli.call("topic", "tail", PATH, "--from", "yesterday").returncode == 2
    assert cli.call("topic", "publish", PATH, "a", "b", "--message-id", "1").returncode == 2
    assert cli.call("topic", "publish", PATH, "a", "--header", "x").returncode == 2
    assert cli.call("topic", "tail", PATH, "--timeout", "0.1").returncode == 75
