"""The command that plays many schedules: what it counts, keeps and reports; and one schedule, replayed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from zkrecipes.testing import wait_until
from zkrecipes.testing.simulation import Contest, Violation, runner

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "zkrecipes.testing.simulation"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(runner, "CHUNK", 5)
    return tmp_path / "zkrecipes"


def command(*arguments: str, hash_seed: str = "random") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        check=False,
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": hash_seed},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


def reached(cache: Path) -> int:
    files = list(cache.glob("*.json"))
    return json.loads(files[0].read_text())["done"] if files else 0


def test_schedules_are_played_and_counted(cache: Path) -> None:
    answer = command("--schedules", "6", "--jobs", "2")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert answer.stdout.startswith("PYTHONHASHSEED=0\n")
    assert answer.stdout.splitlines()[-1].startswith("6 schedules in ")
    assert answer.stdout.endswith(": 0 violations\n")
    assert "Session 0x" not in answer.stderr  # the library's log is off
    assert reached(cache) == 6


def test_an_interrupted_run_goes_on_where_it_ended(cache: Path) -> None:
    many = [*COMMAND, "--schedules", "100000", "--kind", "lock", "--jobs", "1"]
    with subprocess.Popen(many, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            wait_until(lambda: reached(cache) > 0, 40.0, "the first schedules are played")
            process.send_signal(signal.SIGINT)
            said, _ = process.communicate(timeout=30.0)
        finally:
            process.kill()
    assert process.returncode == 3  # nothing is wrong, but it has not come to its end
    assert "interrupted; the same command goes on from here" in said
    assert "Traceback" not in said


def test_what_was_played_is_not_played_again(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setattr(Contest, "_play", lambda _contest: None)
    monkeypatch.setattr(runner, "_digest", lambda: "same")
    assert runner.run_many(15, kind="lock", jobs=1, fresh=False).done == 15
    monkeypatch.setattr(Contest, "_play", _complain)
    assert runner.run_many(15, kind="lock", jobs=1, fresh=False).found == []
    more = runner.run_many(17, kind="lock", jobs=1, fresh=False)
    assert more.done == 17
    assert [found.seed for found in more.found] == [15, 16]
    assert len(runner.run_many(3, kind="lock", jobs=1, fresh=True).found) == 3
    monkeypatch.setattr(runner, "_digest", lambda: "other code")
    assert [found.seed for found in runner.run_many(2, kind="lock", jobs=1, fresh=False).found] == [0, 1]


def _complain(contest: Contest) -> None:
    message = "two valid handles at once: a, b"
    raise Violation(message, contest.world.seed)


def _divide(_contest: Contest) -> None:
    raise ZeroDivisionError


def test_a_violation_gives_status_1_and_its_seed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], cache: Path
) -> None:
    from zkrecipes.testing.simulation.__main__ import main  # noqa: PLC0415 - a command, not a library

    monkeypatch.setenv("PYTHONHASHSEED", "0")
    monkeypatch.setattr(Contest, "_play", lambda contest: _complain(contest) if contest.world.seed == 3 else None)
    arguments = ["--schedules", "6", "--kind", "lock", "--jobs", "1"]
    assert main(arguments) == 1
    out = capsys.readouterr().out
    assert "seed 3 (lock): two valid handles at once: a, b" in out
    assert "--seed 3 --kind lock --trace" in out
    assert main(arguments) == 1  # nothing is left to be played, but what was found is not forgotten
    assert main(["--seed", "3", "--kind", "lock"]) == 1
    assert main(["--seed", "2", "--kind", "lock"]) == 0
    monkeypatch.setattr(Contest, "_play", _divide)
    assert main([*arguments, "--fresh"]) == 1
    assert "seed 0 (lock): failed with ZeroDivisionError()" in capsys.readouterr().out


@pytest.mark.parametrize("kind", [*runner.KINDS])
def test_a_seed_replays_its_schedule_exactly(kind: str) -> None:
    arguments = ("--seed", "11", "--kind", kind, "--trace")
    first, second = command(*arguments, hash_seed="1"), command(*arguments, hash_seed="2")
    assert first.returncode == 0, first.stdout[-2000:] + first.stderr
    assert len(first.stdout.splitlines()) > 50
    assert first.stdout == second.stdout


def test_a_schedule_is_the_same_after_others() -> None:
    def trace() -> str:
        with runner.quiet():
            contest, found = runner.play(12, "lock")
        assert found is None
        return contest.world.trace()

    once = trace()
    runner.run_chunk((20, 4))
    assert trace() == once


def test_a_worker_that_dies_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], cache: Path
) -> None:
    here = os.getpid()

    def dies(_contest: Contest) -> None:
        assert os.getpid() != here
        os._exit(9)

    monkeypatch.setattr(Contest, "_play", dies)
    assert runner.run_many(500, kind="lock", jobs=2, fresh=False).done == 0
    assert "a worker process has died" in capsys.readouterr().err


def test_the_time_can_be_limited(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setattr(Contest, "_play", lambda _contest: None)
    monkeypatch.setattr(runner, "_digest", lambda: "same")
    assert runner.run_many(30, kind="lock", jobs=1, fresh=False, seconds=0.0).done == 0
    assert runner.run_many(30, kind="lock", jobs=1, fresh=False, seconds=50.0).done == 30
