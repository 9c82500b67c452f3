"""The retry policy: tenacity's objects decide on pauses and on giving up, within the deadline."""

from __future__ import annotations

import itertools
import time

import pytest
import tenacity

import zkrecipes as zkr
from zkrecipes.testing import FaultProxy, wait_until


def _retry(wait: tenacity.wait.wait_base, stop: tenacity.stop.stop_base) -> zkr.Retry:
    return zkr.Retry(wait=wait, stop=stop)


def test_stop_gives_up_before_the_deadline(zkr_proxy: FaultProxy, zkr_namespace: str) -> None:
    retry = _retry(tenacity.wait_fixed(0.0), tenacity.stop_after_attempt(2))
    with zkr.connect(zkr_proxy.hosts, namespace=zkr_namespace, retry=retry) as zk:
        zkr_proxy.reset_counts()
        traps = [zkr_proxy.drop_reply("getData", nth) for nth in (1, 2, 3)]
        began = time.monotonic()
        with pytest.raises(zkr.UnavailableError):
            zk.get("/", timeout=20.0)
        assert time.monotonic() - began < 10.0
        assert zkr_proxy.counts()["getData"] == 2
        assert [trap.fired for trap in traps] == [True, True, False]


def test_wait_spaces_the_repetitions(zkr_proxy: FaultProxy, zkr_namespace: str) -> None:
    retry = _retry(tenacity.wait_fixed(0.5), tenacity.stop_never)
    with zkr.connect(zkr_proxy.hosts, namespace=zkr_namespace, retry=retry) as zk:
        zkr_proxy.drop_reply("getData", 1)
        began = time.monotonic()
        assert zk.get("/", timeout=20.0).path == "/"
        assert time.monotonic() - began >= 0.5


def test_the_deadline_goes_before_the_policy(zkr_proxy: FaultProxy, zkr_namespace: str) -> None:
    retry = _retry(tenacity.wait_fixed(30.0), tenacity.stop_never)
    with zkr.connect(zkr_proxy.hosts, namespace=zkr_namespace, retry=retry) as zk:
        zkr_proxy.drop_reply("getData", 1)
        began = time.monotonic()
        with pytest.raises(zkr.UnavailableError):
            zk.get("/", timeout=0.5)
        assert time.monotonic() - began < 0.8


def test_a_write_that_may_have_been_applied_is_never_repeated(zkr_proxy: FaultProxy, zkr_namespace: str) -> None:
    """Whatever the policy says."""
    retry = _retry(tenacity.wait_fixed(0.0), tenacity.stop_never)
    with zkr.connect(zkr_proxy.hosts, namespace=zkr_namespace, retry=retry) as zk:
        zkr_proxy.reset_counts()
        zkr_proxy.drop_reply("any create")
        with pytest.raises(zkr.OutcomeUnknownError):
            zk.create("/n-", sequential=True, timeout=10.0)
        assert zk.children("/") == ["n-0000000000"]


class _Noted(tenacity.wait.wait_base):
    """Half a second, and when it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, float]] = []

    def __call__(self, retry_state: tenacity.RetryCallState) -> float:
        self.asked.append((retry_state.attempt_number, time.monotonic()))
        return 0.5


def test_attempts_to_connect_are_spaced_by_the_policy(zkr_proxy: FaultProxy, zkr_namespace: str) -> None:
    wait = _Noted()
    with zkr.connect(zkr_proxy.hosts, namespace=zkr_namespace, retry=_retry(wait, tenacity.stop_never)) as zk:
        zkr_proxy.refuse()
        wait_until(lambda: len(wait.asked) >= 4, 10.0, "several attempts have failed")
        zkr_proxy.heal()
        wait_until(lambda: zk.state is zkr.State.CONNECTED, 5.0, "connected again")
    attempts = [attempt for attempt, _ in wait.asked]
    times = [at for _, at in wait.asked]
    assert attempts[:4] == sorted(set(attempts[:4]))
    assert all(after - before >= 0.45 for before, after in itertools.pairwise(times[1:4]))


def test_the_defaults_of_a_policy() -> None:
    retry = zkr.Retry()
    pauses = [retry.pause(attempt, 0.0) for attempt in range(1, 20)]
    assert all(pause is not None and 0 <= pause <= 1.0 for pause in pauses)
    never = zkr.Retry(stop=tenacity.stop_after_delay(5))
    assert never.pause(1, 4.9) is not None
    assert never.pause(1, 5.0) is None
