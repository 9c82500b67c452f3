"""What an observer is told: for metrics and traces, without a dependency on any of their libraries. Driver-free."""

from __future__ import annotations

from typing import Any, Protocol, final

from zkrecipes.calls import Call
from zkrecipes.hold import Hold, LostReason
from zkrecipes.port import Multi, ReadMany, Runtime, State

__all__ = ["Observations", "Observer"]


class Observer(Protocol):
    """Looks on: give `connect(observer=…)` an object with these methods.

    They run in order on the dispatcher (asyncio: on the event loop), never in the way of a request. One that raises is
    logged and harms nobody.
    """

    def on_request(self, operation: str, path: str, seconds: float, outcome: str) -> None:
        """A request has ended.

        Args:
            operation: "create", "get", "exists", "children", "set", "delete", "multi", "sync", "readmany",
                "addwatch" or "removewatches".
            path: Below the namespace; empty for "multi" and "readmany".
            seconds: Since it was handed to the connection.
            outcome: "ok", the name of an error of this package, or "unanswered".
        """
        ...

    def on_state(self, state: State) -> None:
        """The session has entered another state."""
        ...

    def on_hold(self, path: str, token: int, lost: LostReason | None) -> None:
        """A node that holds something for us was won (`lost` is None), or lost, and why."""
        ...


@final
class Observations:
    """Tells one observer, off the step lock."""

    def __init__(self, observer: Observer, runtime: Runtime, namespace: str) -> None:
        self._observer = observer
        self._runtime = runtime
        self._namespace = namespace

    def request(self, call: Call[Any], outcome: str) -> None:
        """A request has ended."""
        request = call.request
        path = "" if isinstance(request, Multi | ReadMany) else request.path.removeprefix(self._namespace) or "/"
        seconds = self._runtime.now() - call.handed
        operation = type(request).__name__.lower()
        self._tell(lambda: self._observer.on_request(operation, path, seconds, outcome))

    def state(self, state: State) -> None:
        """The session has entered another state."""
        self._tell(lambda: self._observer.on_state(state))

    def hold(self, hold: Hold, lost: LostReason | None = None) -> None:
        """A hold was won, or lost."""
        path = hold.path.removeprefix(self._namespace)
        self._tell(lambda: self._observer.on_hold(path, hold.token, lost))

    def _tell(self, callback: Any) -> None:
        self._runtime.dispatch(self, callback)
