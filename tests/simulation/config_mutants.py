"""Mutants of configurations: each takes one safeguard away, and names the promise that it breaks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

from tests.simulation.listener_mutants import edited
from tests.simulation.mutants import mutant
from zkrecipes.config_apply import Builder
from zkrecipes.config_canary import CanaryWatch
from zkrecipes.config_draft import Drafts
from zkrecipes.config_report import Report
from zkrecipes.config_sight import Sight
from zkrecipes.config_state import ConfigState
from zkrecipes.config_store import Store
from zkrecipes.config_writes import Writer

UNTRUE = "released twice|had said that it would not|has failed with"


@mutant(UNTRUE, "config")
def a_lost_reply_means_that_nothing_was_published() -> Iterator[None]:
    with edited(Store, "_applied", ("stat, names, document = answers", "return False")):
        yield


@mutant(f"{UNTRUE}|has succeeded", "config")
def a_lost_reply_means_that_it_was_published() -> Iterator[None]:
    with edited(Store, "_applied", ("stat, names, document = answers", "return True")):
        yield


@mutant(UNTRUE, "config")
def a_missing_record_always_means_that_nothing_was_published() -> Iterator[None]:
    with patch("zkrecipes.config_store.never_made", lambda *_arguments: True):
        yield


@mutant("while a canary runs", "config")
def releases_do_not_look_for_a_canary() -> Iterator[None]:
    with edited(Writer, "release", ('self._create(places.canary, b""),', ""), ("Delete(places.canary),", "")):
        yield


@mutant("meant another one", "config")
def a_canary_is_ended_whichever_it_is() -> Iterator[None]:
    with edited(Writer, "end", ("(Set(mark, note, 0), Delete(", "(Set(mark, note), Delete(")):
        yield


@mutant("has \\d+ for a canary of|went back|must", "config")
def a_canary_is_taken_whatever_it_is_based_on() -> Iterator[None]:
    with edited(Builder, "rollout_of", ("(rollout.base, rollout.base_czxid) != (stat.version, stat.czxid) or", "")):
        yield


@mutant("is in force before|which it has vetoed", "config")
def who_may_veto_is_asked_afterwards() -> Iterator[None]:
    with edited(
        ConfigState,
        "_take",
        ("if change is not None:\n        veto", "self.in_force = new\n    if change is not None:\n        veto"),
    ):
        yield


@mutant("half of a release|for version", "config")
def a_tree_is_taken_as_the_mirror_shows_it() -> Iterator[None]:
    with edited(Sight, "whole", ("if digest_of(look.document.data) == digest(nodes.items()):", "if True:")):
        yield


@mutant("half of a release|its record says|for version", "config")
def the_root_is_not_read_again_behind_its_tree() -> Iterator[None]:
    with edited(Store, "head", ("if again.stat is not None and again.stat.mzxid == head.stat.mzxid:", "if True:")):
        yield


@mutant("was expected", "config")
def expected_versions_are_not_looked_at() -> Iterator[None]:
    with patch.object(Drafts, "check_expected", lambda *_arguments: None):
        yield


@mutant("has reported", "config")
def a_report_is_made_once_and_not_in_each_session() -> Iterator[None]:
    with edited(Report, "_write", ("if self._made_in != session.id:", "if not self._path:")):
        yield


@mutant("left on the servers", "config")
def a_report_stays_when_the_service_is_closed() -> Iterator[None]:
    with edited(Report, "_keep", ("if self._path:", "if False:")):
        yield


@mutant("does not run the canary|refuses", "config")
def a_refused_canary_is_left_alone() -> Iterator[None]:
    with patch.object(CanaryWatch, "abort", lambda *_arguments: None):
        yield


@mutant("which has ended", "config")
def a_canary_stays_where_its_document_is_refused() -> Iterator[None]:
    with patch.object(ConfigState, "_leave_canary", lambda _self: None):
        yield


@mutant("timeout of", "config")
def a_publisher_forgets_its_deadline() -> Iterator[None]:
    def settled(self: Any, *arguments: Any) -> Any:
        from zkrecipes.timing import Deadline  # noqa: PLC0415

        return original(self, *arguments[:-2], Deadline.after(30.0, self.core.runtime.now()), arguments[-1])

    original: Any = Store._applied
    with patch.object(Store, "_applied", settled):
        yield
