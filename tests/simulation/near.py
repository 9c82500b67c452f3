"""Where mutants were caught the last time, as far as that takes long to find: these schedules are tried first.

A number that is out of date costs time, and nothing else. `pytest -rP tests/simulation/test_mutants.py` shows new ones.
"""

from __future__ import annotations

from typing import Final

__all__ = ["NEAR"]

NEAR: Final = {
    "a holder believes in a claim that others may end": 42,
    "a block of unknown outcome is taken": 17,
    "a canary stays where its document is refused": 41,
    "a claim does not check the version": 25,
    "a claim is held until giving it back is answered": 8,
    "a collected leader takes the lead with him": 216,
    "a lost reply means that it was not stored": 10,
    "a lost reply means that nothing was published": 15,
    "a lost reply means that nothing was written": 16,
    "a mark is looked for in another session": 10,
    "a mark is read without a committed write": 21,
    "a missing record always means that nothing was published": 77,
    "a publisher forgets its deadline": 24,
    "a read that was under way moves the place that was sought": 38,
    "a refused canary is not aborted": 57,
    "a report is made once and not in each session": 14,
    "an add under way is unavailable at its deadline": 11,
    "an item is buried whoever has claimed it": 8,
    "armed after reading": 117,
    "children are compared by cversion": 67,
    "children are told before their parents": 10,
    "collected calls are not swept": 18,
    "fresh until the task has looked": 105,
    "in a new session nothing was applied": 10,
    "late answer revives": 8,
    "one shot watches are sent on armed roots": 10,
    "the root is not read again behind its tree": 180,
    "two writes share a mark": 70,
    "valid is decided by the engine": 42,
    "watches outlive their connection": 24,
    "who was stripped is not woken on disarm": 93,
    "withdrawn calls are written later": 10,
    "work is stopped when the lease has ended": 75,
}
