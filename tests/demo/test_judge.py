"""The demo's judge sees what it is there for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from examples.demo.judge import Fault, Verdict, beliefs_of, judge
from examples.demo.record import NOTHING, Recorder, Sample, View, read_samples


def samples(*spans: tuple[float, float, int], what: str = "leader", lease: float = 2.0) -> list[Sample]:
    """A worker that believes from a to b with a token: a sample each 10 ms, and one that says that it is over."""
    found = []
    for start, end, token in spans:
        steps = range(round((end - start) / 0.01) + 1)
        found += [sample(start + step * 0.01, View(token, valid=True, remaining=lease), what) for step in steps]
        found.append(sample(end + 0.01, View(token, valid=False, remaining=0.0), what))
    return found


def sample(at: float, view: View, what: str) -> Sample:
    return Sample(at, at, view if what == "leader" else NOTHING, view if what == "lock" else NOTHING)


def merged(*parts: Sequence[Sample]) -> list[Sample]:
    return sorted((each for part in parts for each in part), key=lambda each: each.begun)


KILL = Fault("kill", "a", 1, at=1.0, limit=5.0)
A = merged(samples((0.5, 1.0, 1)), samples((0.5, 0.6, 10), what="lock"))
B = merged(samples((4.0, 5.0, 2)), samples((0.7, 0.9, 11), what="lock"))


def test_a_good_run_is_good() -> None:
    verdict = judge({"a": A, "b": B}, [KILL])
    assert verdict.complaints == ()
    assert verdict.last_line == "believers at once: 1, take-overs: 1, longest: 3.0 s"
    (takeover,) = verdict.takeovers
    assert takeover.leader.worker == "b"
    assert takeover.margin == pytest.approx(1.0)  # 4.0, and the lease ended at 1.0 + 2.0
    assert verdict.turns == {"a": 1, "b": 1}


def complaints_of(verdict: Verdict) -> str:
    return "\n".join(verdict.complaints)


@pytest.mark.parametrize("what", ["leader", "lock"])
def test_two_believers_at_once_are_seen(what: str) -> None:
    late = {"leader": samples((0.9, 1.5, 2)), "lock": samples((0.55, 0.7, 12), what="lock")}[what]
    verdict = judge({"a": A, "b": B, "c": late}, [KILL])
    assert verdict.believers == 2
    assert verdict.last_line.startswith("believers at once: 2,")
    assert f"{what}: a and c both believed" in complaints_of(verdict)


def test_a_single_common_sample_is_an_overlap() -> None:
    verdict = judge({"a": A, "b": merged(B, [sample(0.8, View(9, valid=True, remaining=1.0), "leader")])}, [])
    assert verdict.believers == 2


def test_a_missing_take_over_is_seen() -> None:
    only_locks = samples((0.7, 0.9, 11), what="lock")
    verdict = judge({"a": A, "b": only_locks}, [KILL])
    assert "kill of a: nobody took over" in complaints_of(verdict)
    assert verdict.last_line == "believers at once: 1, take-overs: 0, longest: 0.0 s"


def test_a_leader_that_only_comes_back_itself_took_nothing_over() -> None:
    verdict = judge({"a": merged(A, samples((3.0, 4.0, 2)))}, [KILL])
    assert "nobody took over" in complaints_of(verdict)


def test_a_late_take_over_is_seen() -> None:
    verdict = judge({"a": A, "b": merged(samples((6.5, 7.0, 2)), samples((0.7, 0.9, 11), what="lock"))}, [KILL])
    assert "b took over after 5.50 s, and 5.00 s are allowed" in complaints_of(verdict)


def test_a_token_that_falls_is_seen() -> None:
    verdict = judge({"a": A, "b": merged(samples((4.0, 5.0, 1)), samples((0.7, 0.9, 9), what="lock"))}, [KILL])
    assert "leader: b's token 1 follows on a's 1" in complaints_of(verdict)
    assert "lock: b's token 9 follows on a's 10" in complaints_of(verdict)


def test_no_evidence_is_no_proof() -> None:
    verdict = judge({"a": A, "b": []}, [])
    assert "b recorded nothing" in complaints_of(verdict)
    assert "leader: nobody ever had it" in complaints_of(judge({"b": [sample(1.0, NOTHING, "leader")]}, []))


class Fake:
    def __init__(self, token: int) -> None:
        self.token = token
        self.valid = True

    def remaining(self) -> float:
        return 1.5 if self.valid else 0.0


def test_what_is_recorded_is_read_back(tmp_path: Path) -> None:
    file = tmp_path / "w.samples"
    recorder = Recorder(file)
    held = Fake(7)
    recorder.hold("lock", held)
    held.valid = False
    recorder.sample()
    recorder.stop()
    with file.open("a") as unfinished:
        unfinished.write("1.0 1.")
    (belief,) = beliefs_of("w", read_samples(file))
    assert (belief.what, belief.token) == ("lock", 7)
    assert belief.lease_end == pytest.approx(belief.start + 1.5, abs=0.1)


def test_a_run_that_went_wrong_ends_with_status_1(tmp_path: Path) -> None:
    """The status and the last line, from files: the same program, with a stage on which nobody plays."""
    code = f"""
import sys
from pathlib import Path
from examples.demo import __main__ as demo
from examples.demo.record import Sample, View, NOTHING
at = [Sample(1.0, 1.0, View(1, True, 1.0), View(1, True, 1.0))]

class Stage:
    faults, events, cut_off, began = [], [], {{}}, 0.0
    def __init__(self, directory, show): pass
    def __enter__(self): return self
    def __exit__(self, *error): pass
    def play(self): return True
    def recorded(self): return {{"a": at, "b": at}}

demo.Stage = Stage
sys.argv = ["demo", "--samples", {str(tmp_path / "samples")!r}]
sys.exit(demo.main())
"""
    answer = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
        cwd=Path(__file__).parents[2],
    )
    assert answer.returncode == 1, answer.stderr
    assert answer.stdout.splitlines()[-1] == "believers at once: 2, take-overs: 0, longest: 0.0 s"
