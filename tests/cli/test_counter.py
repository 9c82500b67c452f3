"""`zkrecipes counter` and `zkrecipes id`, for people and for programs."""

from __future__ import annotations

import json
from typing import Final

import pytest

import zkrecipes as zkr
from tests.cli.conftest import Cli

PATH: Final = "/counters/orders"


def test_get_add_and_set(cli: Cli, zk: zkr.Client) -> None:
    assert cli.run("counter", "get", PATH).stdout == "0\n"
    for arguments, told in (
        (("add", PATH), 1),
        (("add", PATH, "41"), 42),
        (("add", PATH, "-50"), -8),
        (("set", PATH, "-3"), -3),
        (("set", PATH, "7", "--expected", "-3"), 7),
        (("get", PATH), 7),
    ):
        ended = cli.call("counter", *arguments)
        assert (ended.returncode, ended.stdout) == (0, f"{told}\n"), ended.stderr
    assert json.loads(cli.call("counter", "add", PATH, "--json").stdout) == {"path": PATH, "value": 8}
    assert zkr.Counter(zk, PATH).value() == 8


def test_layouts(cli: Cli, zk: zkr.Client) -> None:
    assert cli.call("counter", "add", PATH, str(10**30), "--layout", "text").stdout == f"{10**30}\n"
    assert zk.get(PATH).value == str(10**30).encode()
    wrong = cli.call("counter", "get", PATH)
    assert wrong.returncode == 1
    assert "text" in wrong.stderr
    assert cli.call("counter", "get", PATH, "--layout", "int16").returncode == 2


def test_what_is_not_as_expected_is_told(cli: Cli, zk: zkr.Client) -> None:
    zkr.Counter(zk, PATH).set(5)
    ended = cli.call("counter", "set", PATH, "9", "--expected", "4", "--json")
    error = json.loads(ended.stderr)
    assert (ended.returncode, error["expected"], error["actual"]) == (1, 4, 5)
    assert zkr.Counter(zk, PATH).value() == 5


def test_an_overflow_is_told(cli: Cli, zk: zkr.Client) -> None:
    zkr.Counter(zk, PATH).set(2**63 - 1)
    ended = cli.call("counter", "add", PATH)
    assert ended.returncode == 1
    assert "Layout" in ended.stderr


def test_set_repairs_what_is_no_number(cli: Cli, zk: zkr.Client) -> None:
    zk.create(PATH, b"garbage", parents=True)
    assert cli.call("counter", "get", PATH).returncode == 1
    assert cli.call("counter", "set", PATH, "3").returncode == 0
    assert cli.call("counter", "get", PATH).stdout == "3\n"


def test_identifiers(cli: Cli) -> None:
    first = int(cli.call("id", "next", PATH).stdout)
    more = [int(line) for line in cli.call("id", "next", PATH, "--count", "5").stdout.splitlines()]
    last = json.loads(cli.call("id", "next", PATH, "--json").stdout)["identifiers"]
    drawn = [first, *more, *last]
    assert drawn == sorted(set(drawn))
    assert len(drawn) == 7


@pytest.mark.parametrize(
    "arguments", [("counter", "add", PATH, "one"), ("counter", "add", "orders"), ("id", "next", PATH, "--count", "0")]
)
def test_bad_arguments(cli: Cli, arguments: tuple[str, ...]) -> None:
    assert cli.call(*arguments).returncode == 2


def test_without_a_server(cli: Cli) -> None:
    ended = cli.call("--connect-timeout", "0.3", "counter", "add", PATH, hosts="127.0.0.1:1")
    assert ended.returncode == 69
