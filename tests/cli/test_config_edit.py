"""`zkrecipes config set | edit | rollback | promote | abort | watch`."""

from __future__ import annotations

import getpass
import json
import os
import platform
import pty
import shlex
import signal
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import zkrecipes as zkr
from tests.cli.conftest import Cli
from tests.cli.shop import Settings
from tests.cli.test_config import DOCUMENT, MODEL, PATH, put
from zkrecipes.testing import wait_until

Editor = Callable[[str], None]


def document(zk: zkr.Client, path: str = PATH) -> tuple[int, str]:
    node = zk.get(path)
    return node.stat.version, node.value.decode()


@pytest.fixture
def editor(cli: Cli, tmp_path: Path) -> Editor:
    """Makes $EDITOR a program that runs this code with `file`, a Path, and `text`, what is in it."""
    cli.environment = {name: value for name, value in cli.environment.items() if name != "VISUAL"}

    def use(code: str) -> None:
        script = tmp_path / "editor.py"
        script.write_text(f"import sys, pathlib\nfile = pathlib.Path(sys.argv[1])\ntext = file.read_text()\n{code}\n")
        cli.environment["EDITOR"] = shlex.join([sys.executable, str(script)])
        cli.environment["TMPDIR"] = str(tmp_path)

    return use


# --- set --------------------------------------------------------------------------------------------------------------


def test_set_makes_and_changes_a_document(cli: Cli, zk: zkr.Client) -> None:
    made = cli.call("config", "set", PATH, "greeting=hi", "database.pool_size=7", "-m", "first", "--model", MODEL)
    assert made.returncode == 0, made.stderr
    assert made.stdout.splitlines() == [f"{PATH} is in version 0", "  + greeting: 'hi'", "  + database.pool_size: 7"]
    changed = cli.call("config", "set", PATH, "database.pool_size=9", "database.password=s3cret", "--json")
    value = json.loads(changed.stdout)
    assert (value["version"], value["published"]) == (1, True)
    assert value["release"]["changed"] == ["database.pool_size", "database.password"]
    assert json.loads(document(zk)[1]) == {"greeting": "hi", "database": {"pool_size": 9, "password": "s3cret"}}
    same = cli.call("config", "set", PATH, "database.pool_size=9", "--json")
    assert (same.returncode, json.loads(same.stdout)["published"]) == (0, False)
    history = zkr.ConfigReleases(zk, PATH).history()
    assert [each.reason for each in history] == ["", "first"]
    assert history[0].who == f"{getpass.getuser()}@{platform.node()}"


def test_set_a_whole_file_as_it_is_written(cli: Cli, zk: zkr.Client, tmp_path: Path) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text("# by hand\ngreeting: hi\n")
    assert cli.call("config", "set", PATH, "--file", str(file), "--model", MODEL).returncode == 0
    assert document(zk) == (0, "# by hand\ngreeting: hi\n")
    process = cli.start("config", "set", PATH, "--file", "-", "--format", "yaml", stdin=-1)
    output, _ = process.communicate("greeting: moin\n", timeout=20)
    assert process.returncode == 0
    assert "  ~ greeting: 'hi' -> 'moin'" in output
    assert document(zk) == (1, "greeting: moin\n")


def test_set_refuses_what_is_not_valid(cli: Cli, zk: zkr.Client) -> None:
    put(zk)
    refused = cli.call("config", "set", PATH, "database.pool_size=0", "--model", MODEL, "--json")
    assert refused.returncode == 1
    error = json.loads(refused.stderr)
    assert [each["path"] for each in error["errors"]] == ["database.pool_size"]
    masked = cli.call("config", "set", PATH, "database.password=**********")
    assert masked.returncode == 1
    assert "the mask of a secret" in masked.stderr
    assert document(zk) == (0, DOCUMENT)
    for arguments in ((), ("greeting",), ("greeting=x", "--file", "-"), ("greeting=x", "--canary", "some")):
        assert cli.call("config", "set", PATH, *arguments).returncode == 2


def test_set_only_in_the_expected_version(cli: Cli, zk: zkr.Client) -> None:
    put(zk)
    conflict = cli.call("config", "set", PATH, "database.pool_size=8", "database.password=0ther", "--expected", "3")
    assert conflict.returncode == 1
    assert "~ database.pool_size: 7 -> 8" in conflict.stderr
    assert "0ther" not in conflict.stderr
    assert document(zk) == (0, DOCUMENT)
    assert cli.call("config", "set", PATH, "database.pool_size=8", "--expected", "0").returncode == 0
    lost = cli.call("config", "set", PATH, "database.pool_size=9", "--expected", "0", "--json")
    error = json.loads(lost.stderr)
    assert (lost.returncode, error["expected"], error["actual"]) == (1, 0, 1)
    assert cli.call("config", "set", PATH, "greeting=x", "--expected", "-1").returncode == 1
    assert cli.call("config", "set", "/config/none", "greeting=x", "--expected", "0").returncode == 1
    assert cli.call("config", "set", "/config/none", "greeting=x", "--expected", "-1").returncode == 0


# --- edit -------------------------------------------------------------------------------------------------------------


def test_edit_publishes_what_was_changed(cli: Cli, zk: zkr.Client, editor: Editor, tmp_path: Path) -> None:
    put(zk)
    editor("file.write_text(text.replace('hi', 'moin')); print(oct(file.stat().st_mode), file.name, text)")
    edited = cli.run("config", "edit", PATH, "--model", MODEL, "-m", "by hand")
    assert edited.returncode == 0, edited.stderr
    assert "s3cret" in edited.stdout, "the editor sees the secrets"
    assert oct(stat.S_IFREG | 0o600) in edited.stdout, "nobody else does"
    assert edited.stdout.splitlines()[-2:] == [f"{PATH} is in version 1", "  ~ greeting: 'hi' -> 'moin'"]
    assert document(zk) == (1, DOCUMENT.replace("hi", "moin"))
    assert zkr.ConfigReleases(zk, PATH).history()[0].reason == "by hand"
    editor("pass")
    assert "not changed" in cli.call("config", "edit", PATH).stdout
    assert document(zk)[0] == 1
    assert list(tmp_path.glob("zkrecipes-*")) == []


def test_edit_keeps_what_cannot_be_published(cli: Cli, zk: zkr.Client, editor: Editor, tmp_path: Path) -> None:
    put(zk)
    editor("file.write_text(text.replace('7', '-7'))")
    refused = cli.run("config", "edit", PATH, "--model", MODEL)
    assert refused.returncode == 1
    assert "database.pool_size" in refused.stderr
    (kept,) = tmp_path.glob("zkrecipes-*.json")
    assert str(kept) in refused.stderr
    assert '"pool_size": -7' in kept.read_text()
    assert document(zk) == (0, DOCUMENT)


def test_edit_again(cli: Cli, zk: zkr.Client, editor: Editor) -> None:
    put(zk)
    editor("file.write_text(text.replace('7,', '-7,') if '-7' not in text else text.replace('-7,', '70,'))")
    terminal, theirs = pty.openpty()
    process = cli.start("config", "edit", PATH, "--model", MODEL, stdin=theirs)
    os.close(theirs)
    assert process.stderr is not None
    assert "database.pool_size" in process.stderr.readline()
    os.write(terminal, b"y\n")
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "~ database.pool_size: 7 -> 70" in output
    assert document(zk) == (1, DOCUMENT.replace("7,", "70,"))
    os.close(terminal)


def test_edit_does_not_overwrite_what_somebody_else_has_published(
    cli: Cli, zk: zkr.Client, editor: Editor, tmp_path: Path
) -> None:
    put(zk)
    opened, go_on = tmp_path / "opened", tmp_path / "go-on"
    editor(f"""
import time
pathlib.Path({str(opened)!r}).touch()
while not pathlib.Path({str(go_on)!r}).exists():
    time.sleep(0.01)
file.write_text(text.replace('hi', 'moin'))
""")
    process = cli.start("config", "edit", PATH)
    wait_until(opened.exists, 20.0, "the editor runs")
    zkr.ConfigReleases(zk, PATH).publish(DOCUMENT.replace("7", "8"))
    go_on.touch()
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "is in version 1, not in version 0 as expected" in errors
    assert "what you wrote is kept in" in errors
    assert document(zk) == (1, DOCUMENT.replace("7", "8"))


def test_edit_without_an_editor(cli: Cli, zk: zkr.Client) -> None:
    put(zk)
    cli.environment = cli.environment | {"VISUAL": "/nowhere/ed"}
    missing = cli.call("config", "edit", PATH)
    assert missing.returncode == 2
    assert "EDITOR" in missing.stderr
    cli.environment["VISUAL"] = "false"
    assert cli.call("config", "edit", PATH).returncode == 1
    assert document(zk)[0] == 0


def test_edit_a_document_that_does_not_exist_yet(cli: Cli, zk: zkr.Client, editor: Editor) -> None:
    editor("file.write_text('greeting: moin # comment\\n')")
    made = cli.call("config", "edit", "/config/new.yaml", "--model", MODEL)
    assert made.returncode == 0, made.stderr
    assert document(zk, "/config/new.yaml") == (0, "greeting: moin # comment\n")
    # Somebody else was faster.
    editor(f"""
import zkrecipes as zkr
with zkr.connect({cli.hosts!r}, namespace={cli.environment["ZKRECIPES_NAMESPACE"]!r}) as zk:
    zkr.ConfigReleases(zk, "/config/raced").publish('{{"a": 1}}')
file.write_text('{{"a": 2}}')
""")
    raced = cli.run("config", "edit", "/config/raced")
    assert raced.returncode == 1
    assert "should not exist yet" in raced.stderr
    assert document(zk, "/config/raced")[1] == '{"a": 1}'


# --- back, and canaries -----------------------------------------------------------------------------------------------


def test_rollback(cli: Cli, zk: zkr.Client) -> None:
    releases = zkr.ConfigReleases(zk, PATH)  # no model: it would refuse the second one
    releases.publish(DOCUMENT)
    releases.publish('{"greeting": 3}')
    back = cli.call("config", "rollback", PATH, "0", "-m", "wrong type", "--model", MODEL)
    assert (back.returncode, back.stdout) == (0, f"{PATH} is in version 2, with the document of version 0\n")
    assert document(zk) == (2, DOCUMENT)
    invalid = cli.call("config", "rollback", PATH, "1", "--model", MODEL)
    assert invalid.returncode == 1
    assert "greeting" in invalid.stderr
    assert cli.call("config", "rollback", PATH, "17").returncode == 1
    assert document(zk)[0] == 2


def test_a_canary_from_its_begin_to_its_end(cli: Cli, zk: zkr.Client) -> None:
    put(zk)
    begun = cli.call("config", "set", PATH, "greeting=moin", "--canary", "zone=a", "--model", MODEL)
    assert begun.returncode == 0
    assert "for instances with zone=a" in begun.stdout
    assert document(zk) == (0, DOCUMENT)
    conflict = cli.call("config", "set", PATH, "greeting=x")
    assert conflict.returncode == 1
    assert "promote() or abort()" in conflict.stderr
    promoted = json.loads(cli.call("config", "promote", PATH, "--json").stdout)
    assert (promoted["release"]["version"], promoted["release"]["source"]) == (1, "promote")
    assert cli.call("config", "get", PATH, "greeting").stdout == "moin\n"
    assert cli.call("config", "set", PATH, "greeting=x", "--canary", "10%").returncode == 0
    assert cli.call("config", "abort", PATH, "-m", "no thanks").returncode == 0
    status = cli.call("config", "status", PATH).stdout
    assert "the last canary" in status
    assert "no thanks" in status
    assert document(zk)[0] == 1
    for verb in ("promote", "abort"):
        ended = cli.call("config", verb, PATH)
        assert ended.returncode == 1
        assert "no canary" in ended.stderr


# --- watch ------------------------------------------------------------------------------------------------------------


def test_watch_shows_each_release(cli: Cli, zk: zkr.Client) -> None:
    process = cli.start("config", "watch", PATH, "--model", MODEL, "--json")
    assert process.stdout is not None
    stdout = process.stdout

    def event() -> dict[str, Any]:
        return dict(json.loads(stdout.readline()))

    assert event()["event"] == "watching"
    releases = zkr.ConfigReleases(zk, PATH, Settings)
    releases.publish(DOCUMENT, reason="first")
    first = event()
    assert (first["event"], first["version"], first["release"]["reason"]) == ("release", 0, "first")
    zk.set(PATH, b'{"greeting": 3, "database": {"password": "0ther"}}')
    foreign = event()
    assert (foreign["version"], foreign["release"]) == (1, None)
    assert [each["path"] for each in foreign["errors"]] == ["greeting"]
    assert "0ther" not in json.dumps(foreign)
    assert "greeting" in {each["path"] for each in foreign["differences"]}
    releases.rollback(0)
    assert event()["release"]["rolled_back_to"] == 0
    releases.publish(DOCUMENT.replace("hi", "x"), canary=zkr.Canary(percent=5))
    assert (canary := event())["event"] == "canary"
    assert canary["changed"] == ["greeting"]
    releases.abort(reason="too early")
    ended = event()
    assert (ended["event"], ended["id"]) == ("canary_ended", canary["id"])
    assert ended["how"].startswith("aborted by")
    assert ended["how"].endswith("too early")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 130
    assert errors == ""


def test_watch_for_a_person(cli: Cli, zk: zkr.Client) -> None:
    put(zk)
    process = cli.start("config", "watch", PATH, "--model", MODEL)
    assert process.stdout is not None
    assert "version 0  written by another tool" in process.stdout.readline()
    assert "waits for releases" in process.stdout.readline()
    zkr.ConfigReleases(zk, PATH).publish(DOCUMENT.replace("7,", "0,"), reason="less")
    line = process.stdout.readline()
    assert "version 1  publish by" in line
    assert "'less'" in line
    assert process.stdout.readline() == "  ~ database.pool_size: 7 -> 0\n"
    assert process.stdout.readline().startswith("  REFUSED: database.pool_size: ")
    zk.delete(PATH)
    assert "deleted" in process.stdout.readline()


# --- the tree layout --------------------------------------------------------------------------------------------------


def test_a_tree_of_nodes(cli: Cli, zk: zkr.Client) -> None:
    tree = ("--layout", "tree", "--model", MODEL)
    process = cli.start("config", "watch", PATH, *tree, "--json")
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["event"] == "watching"
    assert cli.call("config", "set", PATH, "greeting=hi", "database.pool_size=7", *tree, "-m", "first").returncode == 0
    assert zk.get(f"{PATH}/database/pool_size").value == b"7"
    first = json.loads(process.stdout.readline())
    assert (first["version"], first["release"]["reason"]) == (0, "first")
    assert cli.call("config", "get", PATH, "database.pool_size", "--layout", "tree").stdout == "7\n"
    assert cli.call("config", "set", PATH, "database.pool_size=8", *tree).returncode == 0
    second = json.loads(process.stdout.readline())
    assert [each["path"] for each in second["differences"]] == ["database.pool_size"]
    assert "pool_size = 8  (node:" in cli.call("config", "explain", PATH, *tree).stdout
    assert cli.call("config", "rollback", PATH, "0", *tree).returncode == 0
    assert zk.get(f"{PATH}/database/pool_size").value == b"7"
    before = zk.get(PATH)
    for arguments in (("set", PATH, "greeting=x"), ("get", PATH), ("rollback", PATH, "0"), ("edit", PATH)):
        mistaken = cli.call("config", *arguments)
        assert mistaken.returncode == 2
        assert "--layout tree" in mistaken.stderr
    assert cli.call("config", "set", PATH, "greeting=x", "--layout", "tree").returncode == 2, "it needs the model"
    assert zk.get(PATH) == before
