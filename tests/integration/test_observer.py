"""What an observer is told, on a real server."""

from __future__ import annotations

import contextlib
import threading

import zkrecipes as zkr
from zkrecipes.testing import wait_until


class _Notes:
    def __init__(self) -> None:
        self.requests: list[tuple[str, str, str]] = []
        self.states: list[zkr.State] = []
        self.holds: list[tuple[int, zkr.LostReason | None]] = []
        self.threads: list[str] = []

    def on_request(self, operation: str, path: str, seconds: float, outcome: str) -> None:
        assert 0 <= seconds < 60
        self.threads.append(threading.current_thread().name)
        self.requests.append((operation, path, outcome))

    def on_state(self, state: zkr.State) -> None:
        self.states.append(state)

    def on_hold(self, path: str, token: int, lost: zkr.LostReason | None) -> None:
        assert path.startswith("/lock/")
        self.holds.append((token, lost))


def test_an_observer_hears_of_requests_states_and_holds_off_the_callers_thread(
    zkr_server: object, zkr_namespace: str
) -> None:
    notes = _Notes()
    hosts = getattr(zkr_server, "hosts", "")
    with zkr.connect(hosts, namespace=zkr_namespace, observer=notes) as zk:
        zk.create("/data", b"x", parents=True)
        with contextlib.suppress(zkr.NodeNotFoundError):
            zk.get("/nothing")
        held = zkr.Lock(zk, "/lock").acquire()
    wait_until(lambda: zkr.State.LOST in notes.states, 5.0, "the observer has heard of the close")
    assert ("get", "/nothing", "NodeNotFoundError") in notes.requests
    assert ("create", "/data", "ok") in notes.requests
    assert notes.states == [zkr.State.CONNECTED, zkr.State.LOST]
    assert notes.holds == [(held.token, None), (held.token, zkr.LostReason.CLOSED)]
    assert threading.current_thread().name not in notes.threads


def test_an_observer_that_raises_harms_nobody(zkr_server: object, zkr_namespace: str) -> None:
    class _Broken(_Notes):
        def on_request(self, operation: str, path: str, seconds: float, outcome: str) -> None:
            super().on_request(operation, path, seconds, outcome)
            raise RuntimeError(operation)

    notes = _Broken()
    with zkr.connect(getattr(zkr_server, "hosts", ""), namespace=zkr_namespace, observer=notes) as zk:
        zk.create("/data", b"x", parents=True)
        assert zk.get("/data").value == b"x"
        wait_until(lambda: ("get", "/data", "ok") in notes.requests, 5.0, "the observer is told on")
