"""Exit statuses for errors, what is needed, what is logged."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

import zkrecipes as zkr
from tests.cli.conftest import Cli
from zkrecipes.cli.output import UsageProblem, printable, status_of
from zkrecipes.cli.settings import parse_auth


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UsageProblem("x"), 2),
        (zkr.PayloadTooLargeError("x"), 2),
        (zkr.UnavailableError("x"), 69),
        (zkr.OutcomeUnknownError("x"), 74),
        (zkr.AcquireTimeoutError("x"), 75),
        (zkr.LockLostError("x"), 76),
        (zkr.LeadershipLostError("x"), 76),
        (zkr.AccessDeniedError("x"), 77),
        (zkr.AuthenticationError("x"), 77),
        (zkr.ConflictError("x"), 1),
        (zkr.ForeignNodeError("x"), 1),
        (zkr.NodeNotFoundError("x"), 1),
    ],
)
def test_the_status_of_an_error(error: Exception, status: int) -> None:
    assert status_of(error) == status


def test_credentials() -> None:
    assert parse_auth("digest:user:a:b") == zkr.DigestAuth("user", "a:b")
    assert parse_auth("sasl:user:secret") == zkr.SaslDigest("user", "secret")
    assert parse_auth("gssapi") == zkr.SaslGssapi()
    assert parse_auth("gssapi:zk") == zkr.SaslGssapi("zk")
    for text in ("digest:user", "user:password", "", "digest::x"):
        with pytest.raises(UsageProblem) as told:
            parse_auth(text)
        assert "password" not in str(told.value).replace("digest:user:password", "").replace("sasl:user:password", "")


def test_without_the_extra_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['typer'] = None; import zkrecipes.cli; zkrecipes.cli.main()"
    answer = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=30)
    assert answer.returncode == 69
    assert "pip install 'zkrecipes[cli]'" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_password_is_never_logged(cli: Cli) -> None:
    ended = cli.run("-vv", "--auth", "digest:user:top-secret", "lock", "show", "/x")
    assert "Session" in ended.stderr
    assert "top-secret" not in ended.stdout + ended.stderr


def test_what_others_have_written_does_not_steer_the_terminal(cli: Cli, zk: zkr.Client) -> None:
    zk.create("/doc", b'{"a": "\\u001b[31mred"}', parents=True)
    terminal, theirs = pty.openpty()
    process = cli.start("config", "get", "/doc", "a", stdout=theirs)
    os.close(theirs)
    assert process.wait(20) == 0
    assert os.read(terminal, 1000).strip() == rb"\x1b[31mred"
    os.close(terminal)
    assert cli.call("config", "get", "/doc", "a").stdout == "\x1b[31mred\n", "a program gets it as it is"
    assert printable("a\tb\nc\x07") == "a\tb\nc\\x07"
    assert printable("a\nb", keep="") == "a\\nb"


def test_a_difference_is_not_a_megabyte_long(cli: Cli, zk: zkr.Client, tmp_path: Path) -> None:
    file = tmp_path / "long.json"
    file.write_text(json.dumps({"a": ["x" * 100] * 1000}))
    published = cli.call("config", "set", "/doc", "--file", str(file))
    assert published.returncode == 0
    assert len(published.stdout) < 1000
    assert len(zk.get("/doc").value) > 100_000
