"""Scripts: algorithms with user code between them. Driver-free.

A script is a generator that yields algorithms and is sent their results. The algorithms run under the step lock; what
stands between them (codecs, update functions) does not.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeVar, cast

from zkrecipes.flow import Algorithm

__all__ = ["Script", "run_script", "run_script_async"]

T = TypeVar("T")

Script = Generator[Algorithm[Any], Any, T]


def run_script(run: Callable[[Algorithm[Any]], Any], script: Script[T]) -> T:
    """Step a script in this thread."""
    answer: Any = None
    error: BaseException | None = None
    try:
        while True:
            try:
                step = script.send(answer) if error is None else script.throw(error)
            except StopIteration as stop:
                return cast("T", stop.value)
            answer, error = None, None
            try:
                answer = run(step)
            except BaseException as raised:  # noqa: BLE001 - whatever it is, it belongs to the script
                error = raised
    finally:
        error = None  # see run_blocking


async def run_script_async(run: Callable[[Algorithm[Any]], Awaitable[Any]], script: Script[T]) -> T:
    """Step a script on the running event loop."""
    answer: Any = None
    error: BaseException | None = None
    try:
        while True:
            try:
                step = script.send(answer) if error is None else script.throw(error)
            except StopIteration as stop:
                return cast("T", stop.value)
            answer, error = None, None
            try:
                answer = await run(step)
            except BaseException as raised:  # noqa: BLE001 - whatever it is, it belongs to the script
                error = raised
    finally:
        error = None  # see run_blocking
