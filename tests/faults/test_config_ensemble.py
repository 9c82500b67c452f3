"""Releases published while the ensemble's leader is killed: each is what its publisher was told, once, in order."""

from __future__ import annotations

import threading
from functools import partial

import pytest
from pydantic import BaseModel, ConfigDict

import zkrecipes as zkr
from zkrecipes.testing import ZooKeeperEnsemble, wait_until

pytestmark = pytest.mark.ensemble

SESSION = 8.0
FAILOVERS = 2


class Settings(BaseModel):
    """One number that tells the release, twice: halves of two releases would differ."""

    model_config = ConfigDict(frozen=True)

    number: int = 0
    again: int = 0


class Publisher(threading.Thread):
    """Publishes numbers of its own, one after another, until it is told to stop."""

    def __init__(self, hosts: str, first: int) -> None:
        super().__init__(daemon=True)
        self.client = zkr.connect(hosts, session_timeout=SESSION)
        self.config = zkr.Config(self.client, "/config/failover", Settings, start="defaults", keep=100_000)
        self.stop = threading.Event()
        self.number = first
        self.told: dict[int, int] = {}
        self.refused: list[int] = []
        self.unknown: list[int] = []
        self.broken: BaseException | None = None

    def run(self) -> None:
        try:
            while not self.stop.is_set():
                self.number += 2
                settings = Settings(number=self.number, again=self.number)
                try:
                    self.told[self.number] = self.config.publish(settings, timeout=3.0).version
                except zkr.OutcomeUnknownError:
                    self.unknown.append(self.number)
                except (zkr.UnavailableError, zkr.ConflictError):
                    self.refused.append(self.number)
        except BaseException as error:  # noqa: BLE001 - it is judged in the test
            self.broken = error


def test_publishing_through_the_death_of_leaders() -> None:
    with ZooKeeperEnsemble() as ensemble:
        publishers = [Publisher(ensemble.hosts, first) for first in (0, 1)]
        torn: list[Settings] = []

        def busy(before: int) -> bool:
            return sum(len(publisher.told) for publisher in publishers) > before + 20

        with zkr.connect(ensemble.hosts, session_timeout=SESSION) as zk:
            reader = zkr.Config(zk, "/config/failover", Settings, start="defaults").start()

            @reader.on_change()
            def look(change: zkr.ConfigChange[Settings]) -> None:
                if change.new.number != change.new.again:
                    torn.append(change.new)

            for publisher in publishers:
                publisher.start()
            for _ in range(FAILOVERS):
                before = sum(len(publisher.told) for publisher in publishers)
                wait_until(partial(busy, before), 30.0, "published")
                leader = ensemble.leader()
                ensemble.kill(leader)
                ensemble.restart(leader)
            before = sum(len(publisher.told) for publisher in publishers)
            wait_until(partial(busy, before), 30.0, "published after all")
            for publisher in publishers:
                publisher.stop.set()
                publisher.join(20.0)
                assert publisher.broken is None, publisher.broken

            releases = zkr.ConfigReleases(zk, "/config/failover")
            history = releases.history(timeout=20.0)
            numbers = {each.version: Settings.model_validate_json(releases.read(each.version)[1]) for each in history}
            assert len(numbers) == len(history), "each version was given once"
            assert sorted(numbers) == list(range(len(numbers))), "and none is missing"
            for publisher in publishers:
                for number, version in publisher.told.items():
                    assert numbers[version].number == number, "a release is what its publisher was told"
                published = [settings.number for settings in numbers.values()]
                assert not set(publisher.refused) & set(published), "what was said to be refused was not applied"
                assert len(published) == len(set(published)), "nothing was applied twice"
            newest = numbers[max(numbers)]
            assert reader.wait_for(lambda settings: settings == newest, timeout=20.0) == newest
            assert not torn
            reader.close()
        for publisher in publishers:
            publisher.client.close()
