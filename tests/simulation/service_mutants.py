"""Mutants of services on a configuration: each takes one safeguard away, and names the promise that it breaks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

from tests.simulation.listener_mutants import edited
from tests.simulation.mutants import mutant
from zkrecipes import config_apply
from zkrecipes.config_apply import RefusedError
from zkrecipes.config_callbacks import Callbacks
from zkrecipes.config_canary import CanaryWatch
from zkrecipes.config_draft import Drafts
from zkrecipes.config_releases import Publisher
from zkrecipes.config_report import Report
from zkrecipes.config_state import ConfigState
from zkrecipes.config_store import Store
from zkrecipes.config_writes import Writer


@mutant("which it has vetoed", "service")
def vetoes_are_not_heard() -> Iterator[None]:
    original = Callbacks.prepare

    def prepare(self: Callbacks[Any], change: Any) -> None:
        original(self, change)

    with patch.object(Callbacks, "prepare", prepare):
        yield


@mutant("were not asked", "service")
def nobody_is_asked_before() -> Iterator[None]:
    with patch.object(Callbacks, "prepare", lambda _self, _change: None):
        yield


@mutant("was not in force", "service")
def in_force_before_anybody_was_asked() -> Iterator[None]:
    original = ConfigState._take

    def take(self: ConfigState[Any], old: Any, look: Any) -> None:
        with contextlib.suppress(RefusedError):
            self.in_force = self.builder.candidate(look)
        original(self, old, look)

    with patch.object(ConfigState, "_take", take):
        yield


@mutant("was expected", "service")
def the_expected_version_is_not_compared() -> Iterator[None]:
    with patch.object(Drafts, "check_expected", lambda _self, _head, _draft: None):
        yield


@mutant("says that it replaces|without its document|was expected", "service")
def the_document_is_replaced_in_any_version() -> Iterator[None]:
    with edited(Writer, "_document", ("Set(path, raw, head.stat.version)", "Set(path, raw)")):
        yield


@mutant("was released twice|its call has failed|begun twice", "service")
def a_lost_reply_means_that_nothing_was_written() -> Iterator[None]:
    async def applied(*_args: Any) -> bool:
        return False

    with patch.object(Store, "_applied", applied):
        yield


@mutant("though its call has succeeded", "service")
def a_lost_reply_means_that_it_was_written() -> Iterator[None]:
    async def applied(*_args: Any) -> bool:
        return True

    with patch.object(Store, "_applied", applied):
        yield


@mutant("was released twice|its call has failed|begun twice|had said", "service")
def absent_is_believed_without_a_write() -> Iterator[None]:
    with edited(Store, "_applied", ('proof = session.call(Multi((Check("/"),)))', "proof = session.call(Exists('/'))")):
        yield


@mutant("while the canary", "service")
def a_release_does_not_look_for_a_canary() -> Iterator[None]:
    with (
        edited(Writer, "release", ('self._create(places.canary, b""),', ""), ("Delete(places.canary),", "")),
        patch.object(Publisher, "_check_no_canary", lambda _self, _head: None),
    ):
        yield


@mutant("while the canary", "service")
def only_the_reader_looks_for_a_canary() -> Iterator[None]:
    with edited(Writer, "release", ('self._create(places.canary, b""),', ""), ("Delete(places.canary),", "")):
        yield


@mutant("which still runs", "service")
def a_refused_canary_is_not_aborted() -> Iterator[None]:
    with patch.object(CanaryWatch, "abort", lambda _self, _rollout, _reason: None):
        yield


@mutant("not for it", "service")
def every_instance_takes_the_canary() -> Iterator[None]:
    with patch.object(config_apply, "selects", lambda _selector, _instance: True):
        yield


@mutant("does not say that the newest document is refused|it runs version|it is fresh", "service")
def a_rejection_is_cleared_by_the_next_look() -> Iterator[None]:
    with edited(ConfigState, "_apply", ("self.builder.key(old.look) == key", "True")):
        yield


@mutant("nodes for what it runs", "service")
def the_report_is_not_made_again_in_a_new_session() -> Iterator[None]:
    with edited(
        Report,
        "_keep",
        (
            "self._made_in == session.id and self._written is self._wanted",
            "self._made_in and self._written is self._wanted",
        ),
    ):
        yield
