"""Which nodes the user wants to be left out. Driver-free; the user's function is asked elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

from zkrecipes.calls import Unsettled
from zkrecipes.flow import Pending, first_of
from zkrecipes.scope import Scope

__all__ = ["Admission", "Judge"]

MAX_VERDICTS: Final = 10_000

Judge = Callable[[list[str]], Pending[dict[str, bool]]]
"""Tells of which of these nodes something is wanted."""


@final
class Admission:
    """Asks once for each node. What is left out is left out with everything below it."""

    def __init__(self, judge: Judge, scope: Scope) -> None:
        self._judge = judge
        self._scope = scope
        self._verdicts: dict[str, bool] = {}

    async def admitted(self, wanted: dict[str, int], known: int, closed: Pending[None]) -> dict[str, int]:
        """What is left of `wanted`.

        Raises:
            Unsettled: `closed` was done before the user's function had answered.
        """
        chains = {path: self._scope.chain(path) for path in wanted}
        if len(self._verdicts) > 2 * known + MAX_VERDICTS:
            self._verdicts.clear()
        unknown = dict.fromkeys(
            each
            for chain in chains.values()
            if all(self._verdicts.get(each, True) for each in chain)  # nothing is asked below what is left out
            for each in chain
            if each not in self._verdicts
        )
        if unknown:
            judged = self._judge(list(unknown))
            while not judged.done:
                await first_of(judged, closed)
                if closed.done:
                    raise Unsettled(written=False)
            self._verdicts.update(judged.result())
        return {path: wanted[path] for path, chain in chains.items() if all(self._verdicts.get(c) for c in chain)}

    def forget(self, path: str) -> None:
        """A node is gone; the next one of its name is asked for again."""
        self._verdicts.pop(path, None)
