"""Schedules are quiet, and play without the automatic garbage collection, as in the runner."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def undisturbed() -> Iterator[None]:
    # What pytest has imported is never garbage; collections that do not look at it are several times faster.
    gc.collect()
    gc.freeze()
    gc.disable()
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        gc.enable()
        gc.unfreeze()
