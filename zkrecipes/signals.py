"""Keeps signal handlers out of a step."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Final, final

__all__ = ["Undisturbed"]

Handler = Callable[[int, FrameType | None], Any]

# Without the enums around them, which cost ten times more than the calls themselves, and every step pays them.
_plain: Final[Any] = sys.modules.get("_signal", signal)
_get: Final[Callable[[int], Any]] = _plain.getsignal
_set: Final[Callable[[int, Handler], Any]] = _plain.signal

# Those for which programs set handlers that raise. To look at all 64 would cost more than a step.
_USUAL: Final = tuple(
    int(getattr(signal, name))
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGALRM", "SIGQUIT", "SIGUSR1", "SIGUSR2")
    if hasattr(signal, name)
)


@final
class Undisturbed:
    """A context in which signals are put off; what arrives meanwhile is handled on leaving.

    A handler that raises (Ctrl-C does) would otherwise stop a step half way, between the entry in a table and the bytes
    on the wire, and break what every other caller of the client stands on. A step does not block, so it is soon over.
    Python runs handlers in the main thread alone; elsewhere this does nothing. Made anew for each run of an algorithm.
    """

    __slots__ = ("_arrived", "_handlers", "_needed")

    def __init__(self) -> None:
        self._arrived: list[int] = []
        self._handlers: list[tuple[int, Handler]] = []
        self._needed = threading.current_thread() is threading.main_thread()

    def __enter__(self) -> None:
        if self._needed:
            # Looked up for each step: a handler may have set another one since the last.
            self._handlers = [(number, handler) for number in _USUAL if callable(handler := _get(number))]
            try:
                for number, _ in self._handlers:
                    _set(number, self._note)
            except BaseException:
                # One that was not put off yet has raised.
                self._restore()
                raise

    def __exit__(self, *_: object) -> None:
        if self._needed:
            self._restore()
            if self._arrived:
                arrived, self._arrived = self._arrived, []
                for number, handler in self._handlers:
                    if number in arrived:
                        handler(number, sys._getframe(1))  # noqa: SLF001 - what Python gives to a handler, too

    def _restore(self) -> None:
        # To set a handler runs what is pending for those that are back already, before it sets anything; where that
        # raises, this one must be set again. The last such error is told when all are back.
        raised: BaseException | None = None
        away = list(self._handlers)
        while away:
            try:
                while away:
                    _set(*away[-1])
                    away.pop()
            except BaseException as error:  # noqa: BLE001 - told below
                raised = error
        if raised is not None:
            raise raised

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._arrived.append(number)
