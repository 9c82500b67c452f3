"""The handle, for asyncio."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar, final

from zkrecipes.handle import HandleState, LostReason, SignalView
from zkrecipes.hold import Grip, SignalState
from zkrecipes.timing import Timeout

if TYPE_CHECKING:
    from zkrecipes.aio.client import Client, Transaction

__all__ = ["Handle", "Opening", "Signal"]

R = TypeVar("R")


class _Opened(Protocol):
    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


H = TypeVar("H", bound=_Opened)


@final
class Opening(Generic[H]):
    """What `acquire()`, `campaign()` and `connect()` return: `await` it for the handle, or use it with `async with`.

    Nothing is sent before that.
    """

    def __init__(self, begin: Callable[[], Awaitable[H]]) -> None:
        self._begin = begin
        self._opened: H | None = None

    def __await__(self) -> Generator[Any, None, H]:
        return self._begin().__await__()

    async def __aenter__(self) -> H:
        self._opened = await self._begin()
        return await self._opened.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._opened is not None:
            await self._opened.__aexit__(kind, error, traceback)


@final
class Signal(SignalView[R]):
    """Something that happens at most once, and says why."""

    def __init__(self, client: Client, state: SignalState[R]) -> None:
        super().__init__(client.core, state)
        self._client = client

    async def wait(self, timeout: Timeout = None) -> bool:
        """Wait until it is set, `timeout` seconds at most; whether it is."""
        return await self._client.run(self._wait(timeout))


class Handle(HandleState):
    """A hold, for asyncio. Leaving its `async with` block releases it, and raises LostError if it had been lost."""

    def __init__(self, client: Client, grip: Grip, label: str) -> None:
        super().__init__(client.core, grip, label)
        self._client = client
        self.lost: Signal[LostReason] = Signal(client, grip.lost)

    def guard(self, tx: Transaction) -> None:
        """Add a check of our node to a transaction: the server refuses it all if we do not hold it any more.

        Raises:
            LostError: It was lost already.
            ClosedError: It was released.
        """
        self._guard(tx.plan)

    async def release(self) -> None:
        """Let go. Idempotent, from any task; what cannot be sent now is done in the background."""
        await self._client.run(self._grip.release())

    async def __aenter__(self) -> Self:
        self._check_entered()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        reason = None if self._grip.released else self._grip.reason
        if reason is not LostReason.FORKED:
            await self.release()
        if reason is not None and error is None:
            raise self._lost(reason)
