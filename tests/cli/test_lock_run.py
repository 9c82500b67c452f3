"""`zkrecipes lock run`: statuses, environment, signals, and what becomes of the command when the lock is lost."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import pytest

import zkrecipes as zkr
from tests.cli.conftest import Cli, Notes, alive, events, guardian_of
from zkrecipes.testing import FaultProxy, wait_until

PATH: Final = "/locks/job"
SHORT: Final = ("--session-timeout", "4")


def now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def next_holder_at(zk: zkr.Client, limit: float = 15.0) -> float:
    """When somebody else gets the lock."""
    with zkr.Lock(zk, PATH).acquire(timeout=limit):
        return now()


# --- statuses ---------------------------------------------------------------------------------------------------------


def test_the_status_is_the_commands_own_and_it_sees_its_token_and_path(cli: Cli, zk: zkr.Client) -> None:
    ended = cli.run("lock", "run", PATH, "--", "sh", "-c", "echo $ZKRECIPES_PATH $ZKRECIPES_TOKEN; exit 7")
    assert ended.returncode == 7, ended.stderr
    path, token = ended.stdout.split()
    assert path == PATH
    with zkr.Lock(zk, PATH).acquire(timeout=5) as held:
        assert 0 < int(token) < held.token
    assert ended.stderr == ""


def test_a_command_that_a_signal_ends_has_the_status_that_shells_give_it(cli: Cli) -> None:
    assert cli.run("lock", "run", PATH, "--", "sh", "-c", "kill -USR1 $$").returncode == 128 + signal.SIGUSR1


def test_a_command_that_cannot_be_started(cli: Cli, zk: zkr.Client, tmp_path: Path) -> None:
    ended = cli.run("lock", "run", PATH, "--", "no-such-command")
    assert ended.returncode == 127
    assert "no-such-command" in ended.stderr
    plain = tmp_path / "plain"
    plain.write_text("text")
    assert cli.run("lock", "run", PATH, "--", str(plain)).returncode == 126
    assert zkr.Lock(zk, PATH).contenders() == []


def test_not_acquired_in_time(cli: Cli, zk: zkr.Client, notes: Notes) -> None:
    with zkr.Lock(zk, PATH, identity="somebody").acquire(timeout=5):
        ended = cli.run("lock", "run", PATH, "--timeout", "0.3", "--", *notes.command())
        assert ended.returncode == 75
        assert "0.3" in ended.stderr
        assert [contender.identity for contender in zkr.Lock(zk, PATH).contenders()] == ["somebody"]
    assert not notes.path.exists()


def test_no_server(cli: Cli) -> None:
    ended = cli.run("--connect-timeout", "0.5", "lock", "run", PATH, "--", "true", hosts="127.0.0.1:1")
    assert ended.returncode == 69
    assert "127.0.0.1:1" in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["lock", "run", "relative", "--", "true"], "path"),
        (["lock", "run", PATH, "--grace", "9", "--", "true"], "stop_grace"),
        (["lock", "run", PATH, "--timeout", "-1", "--", "true"], "timeout"),
        (["lock", "run", PATH, "--timeout", "nan", "--", "true"], "timeout"),
        (["lock", "run", PATH, "--session-timeout", "0", "--", "true"], "session_timeout"),
        (["lock", "run", PATH], "COMMAND"),
        (["lock", "run", PATH, "--layout", "unheard-of", "--", "true"], "layout"),
        (["--auth", "digest:nobody", "lock", "show", PATH], "--auth"),
        (["--tls-ca", "/no/such/file", "lock", "show", PATH], "ca"),
        (["--hosts", "a b", "lock", "show", PATH], "hosts"),
        (["unheard-of"], "unheard-of"),
    ],
)
def test_bad_usage(cli: Cli, arguments: list[str], word: str) -> None:
    ended = cli.run(*arguments)
    assert ended.returncode == 2, ended
    assert word in ended.stderr
    assert "Traceback" not in ended.stderr


def test_access_denied(cli: Cli, zkr_server: object, zkr_namespace: str) -> None:
    owner = zkr.DigestAuth("owner", "secret")
    mine = [zkr.Acl(31, "auth", "")]
    with zkr.connect(cli.hosts, namespace=zkr_namespace, auth=owner) as zk:
        zk.create("/private", acl=mine)
        denied = cli.run("lock", "run", "/private", "--", "true")
        assert denied.returncode == 77, denied
        assert "secret" not in cli.run("--auth", "digest:secret", "lock", "show", "/private").stderr
        assert cli.run("--auth", "digest:owner:secret", "lock", "run", "/private", "--", "true").returncode == 0
        zk.delete("/private")


def test_a_path_that_holds_something_else_is_refused(cli: Cli, zk: zkr.Client) -> None:
    zk.create(f"{PATH}/something-else", parents=True)
    ended = cli.run("lock", "run", PATH, "--", "true")
    assert ended.returncode == 1
    assert "something-else" in ended.stderr


# --- signals, children of children ------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP])
def test_signals_are_passed_on(cli: Cli, zk: zkr.Client, number: signal.Signals) -> None:
    name = number.name.removeprefix("SIG")
    script = f"trap 'echo got; exit 9' {name}; echo ready; while :; do sleep 0.02; done"
    process = cli.start("lock", "run", PATH, "--", "sh", "-c", script)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert process.stdout.readline() == "got\n"
    assert process.wait(10) == 9
    assert zkr.Lock(zk, PATH).contenders() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_waiting_ends_the_wait_and_leaves_nothing(
    cli: Cli, zk: zkr.Client, number: signal.Signals
) -> None:
    lock = zkr.Lock(zk, PATH)
    with lock.acquire(timeout=5):
        process = cli.start("lock", "run", PATH, "--", "true")
        wait_until(lambda: len(lock.contenders()) == 2, 10.0, "it waits in line")
        process.send_signal(number)
        assert process.wait(10) == 128 + number
        assert len(lock.contenders()) == 1


def test_what_the_command_left_running_does_not_outlive_the_lock(cli: Cli, zk: zkr.Client, notes: Notes) -> None:
    script = 'setsid "$@" & while [ ! -s "$0" ]; do sleep 0.01; done; exit 4'
    ended = cli.run("lock", "run", PATH, "--", "sh", "-c", script, str(notes.path), *notes.command())
    free = next_holder_at(zk)
    assert ended.returncode == 4
    notes.nothing_lives(0.0)
    (told,) = notes.told
    assert 0.5 < notes.last - told < 3.0  # it has the grace, T/8, to end by itself
    assert notes.last < free


def test_the_command_does_not_survive_a_killed_wrapper(cli: Cli, notes: Notes) -> None:
    process = cli.start("lock", "run", PATH, "--", "sh", "-c", 'setsid "$@" & "$@"', "sh", *notes.command())
    notes.started()
    wait_until(lambda: len(notes.pids) == 2, 10.0, "both run")
    process.kill()
    process.wait()
    notes.nothing_lives()


def test_the_command_does_not_survive_a_killed_guardian(cli: Cli, zk: zkr.Client, notes: Notes) -> None:
    process = cli.start("lock", "run", PATH, "--", "sh", "-c", 'setsid "$@" & "$@"', "sh", *notes.command())
    notes.started()
    wait_until(lambda: len(notes.pids) == 2, 10.0, "both run")
    os.kill(guardian_of(process), signal.SIGKILL)
    assert process.wait(10) == 128 + signal.SIGKILL
    notes.nothing_lives(0.0)
    assert notes.last < next_holder_at(zk)


def test_the_command_does_not_survive_a_killed_guardian_of_a_frozen_wrapper(cli: Cli, notes: Notes) -> None:
    process = cli.start("lock", "run", PATH, "--", *notes.command())
    notes.started()
    guardian = guardian_of(process)
    process.send_signal(signal.SIGSTOP)
    os.kill(guardian, signal.SIGKILL)
    notes.nothing_lives()


# --- the lock is lost -------------------------------------------------------------------------------------------------


def test_a_command_that_ignores_sigterm_is_killed_before_the_lease_ends(
    cli: Cli, zk: zkr.Client, zkr_proxy: FaultProxy, notes: Notes
) -> None:
    process = cli.start("lock", "run", PATH, *SHORT, "--json", "--", *notes.command(), hosts=zkr_proxy.hosts)
    notes.started()
    zkr_proxy.blackhole()
    free = next_holder_at(zk)
    _, errors = process.communicate(timeout=15)
    assert process.returncode == 76
    notes.nothing_lives(0.0)
    (told,) = notes.told
    # SIGTERM comes T/8 before the lease ends, SIGKILL T/32 before; and nobody else has the lock before that.
    assert 0.05 < notes.last - told < 0.6
    assert notes.last < free
    acquired, ended = events(errors)
    assert acquired["event"] == "acquired"
    assert ended["why"] == "killed"
    assert ended["status"] == 76
    assert ended["command_status"] == 128 + signal.SIGKILL
    assert 0 < ended["lease_left"] < 0.125


def test_a_command_that_stops_when_told_is_not_killed(cli: Cli, zkr_proxy: FaultProxy, notes: Notes) -> None:
    obey = "trap 'echo stopping; exit 3' TERM; echo ready; while :; do sleep 0.02; done"
    process = cli.start("lock", "run", PATH, *SHORT, "--json", "--", "sh", "-c", obey, hosts=zkr_proxy.hosts)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    zkr_proxy.blackhole()
    output, errors = process.communicate(timeout=15)
    ended = events(errors)[-1]
    assert (process.returncode, output) == (76, "stopping\n")
    assert (ended["why"], ended["command_status"]) == ("stopped", 3)
    assert ended["lease_left"] > 0.125


def test_a_frozen_wrapper_does_not_let_the_command_run_on(cli: Cli, zk: zkr.Client, notes: Notes) -> None:
    process = cli.start("lock", "run", PATH, *SHORT, "--", *notes.command())
    notes.started()
    process.send_signal(signal.SIGSTOP)
    free = next_holder_at(zk)
    notes.nothing_lives(0.0)
    assert len(notes.told) == 1
    assert notes.last < free
    process.send_signal(signal.SIGCONT)
    assert process.wait(10) == 76


def test_a_frozen_guardian_does_not_let_the_command_run_on(
    cli: Cli, zk: zkr.Client, zkr_proxy: FaultProxy, notes: Notes
) -> None:
    process = cli.start("lock", "run", PATH, *SHORT, "--", *notes.command(), hosts=zkr_proxy.hosts)
    notes.started()
    guardian = guardian_of(process)
    os.kill(guardian, signal.SIGSTOP)
    zkr_proxy.blackhole()
    try:
        free = next_holder_at(zk)
        assert process.wait(10) == 76
        notes.nothing_lives(0.0)
        assert not alive(guardian)
        assert notes.last < free
    finally:
        if alive(guardian):
            os.kill(guardian, signal.SIGKILL)


def test_a_broken_lock_kills_the_command_at_once(cli: Cli, zk: zkr.Client, notes: Notes) -> None:
    process = cli.start("lock", "run", PATH, "--", *notes.command())
    notes.started()
    zkr.Lock(zk, PATH).break_()
    broken = now()
    _, errors = process.communicate(timeout=15)
    assert process.returncode == 76
    assert "somebody deleted the node" in errors
    notes.nothing_lives(0.0)
    # The watch on the own node stands once the hold is a heartbeat old; until then the next heartbeat tells.
    assert notes.last - broken < 2.5


# --- at a terminal ----------------------------------------------------------------------------------------------------

AT_A_TERMINAL: Final = """
import fcntl, os, subprocess, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
status = subprocess.run(sys.argv[1:]).returncode
# After the wrapper has ended the terminal is ours again: otherwise this line would stop us.
print("again", os.tcgetpgrp(0) == os.getpgrp(), sys.stdin.readline().strip(), status, flush=True)
"""


def test_the_command_has_the_terminal_and_gives_it_back(cli: Cli) -> None:
    leader, follower = pty.openpty()
    script = "trap 'echo interrupted' INT; echo ready; read line; echo got $line; read line; exit 6"
    wrapper = [sys.executable, "-m", "zkrecipes.cli", "lock", "run", PATH, "--", "bash", "-c", script]
    with subprocess.Popen(
        [sys.executable, "-c", AT_A_TERMINAL, *wrapper],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        start_new_session=True,
        env=cli.environment,
    ) as shell:
        os.close(follower)
        try:
            said = [read_until(leader, "ready")]
            os.write(leader, b"one\n")
            said.append(read_until(leader, "got one"))
            os.write(leader, b"\x1a\x03")  # Ctrl-Z, which must not stop it for ever, and Ctrl-C
            said.append(read_until(leader, "interrupted"))
            os.write(leader, b"two\n")
            os.write(leader, b"three\n")
            said.append(read_until(leader, "again"))
            assert shell.wait(10) == 0
        finally:
            shell.kill()
            os.close(leader)
    assert "again True" in said[-1], said


def read_until(terminal: int, word: str) -> str:
    text = ""
    while word not in text or not text.endswith("\n"):
        text += os.read(terminal, 4096).decode()
    return text
