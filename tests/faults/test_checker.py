"""The checker catches what it is for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.checker import Belief, beliefs, events, overlaps, revived, work


def _write(directory: Path, name: str, *lines: str) -> Path:
    file = directory / f"{name}.log"
    file.write_text("".join(f"{line}\n" for line in lines))
    return file


def _samples(token: int, *readings: tuple[float, int], what: str = "lock") -> list[str]:
    return [f"sample {what} {token} {time} {time + 0.001} {valid}" for time, valid in readings]


def test_two_at_once_are_found(tmp_path: Path) -> None:
    one = _write(tmp_path, "one", *_samples(5, (1.0, 1), (1.5, 1), (2.0, 1), (2.01, 0)))
    other = _write(tmp_path, "other", *_samples(6, (1.9, 1), (2.5, 1)))
    found = overlaps(beliefs([one, other], "lock"))
    assert [(o.first.worker, o.second.worker) for o in found] == [("one", "other")]
    assert found[0].seconds == pytest.approx(0.099)


def test_an_overlap_shorter_than_a_sample_is_found(tmp_path: Path) -> None:
    one = _write(tmp_path, "one", *_samples(5, (1.0, 1), (2.0, 1)))
    other = _write(tmp_path, "other", *_samples(6, (1.998, 1), (2.5, 1)))
    assert len(overlaps(beliefs([one, other], "lock"))) == 1


def test_one_within_the_other_is_found(tmp_path: Path) -> None:
    one = _write(tmp_path, "one", *_samples(5, (1.0, 1), (9.0, 1)))
    other = _write(tmp_path, "other", *_samples(6, (3.0, 1), (4.0, 1)))
    third = _write(tmp_path, "third", *_samples(7, (3.5, 1), (5.0, 1)))
    assert len(overlaps(beliefs([one, other, third], "lock"))) == 3


def test_one_after_the_other_is_right(tmp_path: Path) -> None:
    one = _write(tmp_path, "one", *_samples(5, (1.0, 1), (2.0, 1), (2.01, 0)))
    other = _write(tmp_path, "other", *_samples(6, (2.0015, 1), (2.5, 1)))
    assert overlaps(beliefs([one, other], "lock")) == []


def test_two_handles_of_one_worker_are_two(tmp_path: Path) -> None:
    one = _write(tmp_path, "one", *_samples(5, (1.0, 1), (2.0, 1)), *_samples(8, (1.5, 1), (2.5, 1)))
    assert len(overlaps(beliefs([one], "lock"))) == 1


def test_a_reading_that_took_long_counts_as_short_as_possible(tmp_path: Path) -> None:
    """The process was stopped in the middle of it: nobody knows on which side of the stop it was read."""
    stopped = _write(
        tmp_path, "stopped", "sample lock 5 1.0 1.001 1", "sample lock 5 1.1 9.0 1", "sample lock 5 9.1 9.2 0"
    )
    other = _write(tmp_path, "other", *_samples(6, (4.0, 1), (5.0, 1)))
    found = beliefs([stopped, other], "lock")
    assert Belief(1.001, 1.1, "stopped", 5) in found
    assert overlaps(found) == []


def test_different_things_do_not_exclude_each_other(tmp_path: Path) -> None:
    one = _write(tmp_path, "one", *_samples(5, (1.0, 1), (2.0, 1)))
    other = _write(tmp_path, "other", *_samples(6, (1.0, 1), (2.0, 1), what="election"))
    assert overlaps(beliefs([one, other], "lock")) == []
    assert len(beliefs([one, other], "election")) == 1


def test_a_handle_that_comes_back_is_found(tmp_path: Path) -> None:
    good = _write(tmp_path, "good", *_samples(5, (1.0, 1), (2.0, 0), (3.0, 0)))
    bad = _write(tmp_path, "bad", *_samples(6, (1.0, 1), (2.0, 0), (3.0, 1)))
    assert revived([good, bad], "lock") == [("bad", 6)]


def test_work_that_goes_on_after_the_loss_is_found(tmp_path: Path) -> None:
    one = _write(tmp_path, "one", "begin election 5 1.0", "end election 5 4.0")
    other = _write(tmp_path, "other", "begin election 6 3.5", "end election 6 5.0")
    assert [o.seconds for o in overlaps(work([one, other], "election", 9.0))] == [0.5]


def test_work_that_never_ends_lasts_until_now(tmp_path: Path) -> None:
    one = _write(tmp_path, "one", "begin election 5 1.0")
    other = _write(tmp_path, "other", "begin election 6 8.0", "end election 6 8.5")
    assert len(overlaps(work([one, other], "election", 9.0))) == 1


def test_events_are_told_in_order(tmp_path: Path) -> None:
    one = _write(tmp_path, "one", "event state 2.0 lost", "event ready 1.0 17")
    other = _write(tmp_path, "other", "event acquired 1.5 token five of many words")
    assert [(event.name, event.text) for event in events([one, other])] == [
        ("ready", "17"),
        ("acquired", "token five of many words"),
        ("state", "lost"),
    ]
