"""Claims of a limited time, which others end: never one that was taken meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

import zkrecipes as zkr
from zkrecipes.testing import FaultProxy, Server

LIMIT = 20.0
PATH = "/queue"


@pytest.fixture
def proxy(zkr_server: Server) -> Iterator[FaultProxy]:
    with FaultProxy(zkr_server) as proxy:
        yield proxy


@pytest.mark.parametrize("layout", ["segments", "curator"])
def test_who_is_late_does_not_end_the_claim_that_somebody_has_taken_since(
    proxy: FaultProxy, zkr_server: Server, zkr_namespace: str, layout: str
) -> None:
    """A claim's node looks like the one before it: same name, same version. The item's version tells them apart."""
    options = {"layout": layout}
    with (
        zkr.connect(zkr_server.hosts, namespace=zkr_namespace) as direct,
        zkr.connect(proxy.hosts, namespace=zkr_namespace) as slow,
        ThreadPoolExecutor(1) as pool,
    ):
        first = zkr.Queue(direct, PATH, visibility=1.0, **options).take_many  # type: ignore[arg-type]
        zkr.Queue(direct, PATH, **options).put(b"x")  # type: ignore[arg-type]
        [expiring] = first(1, LIMIT)
        late = zkr.Queue(slow, PATH, visibility=60.0, **options)  # type: ignore[arg-type]
        assert late.try_take() is None
        # Three looks at the claim, the last one when its time is over; the fourth read is that of the item.
        gate = proxy.hold_request("getData", 4)
        waiting = pool.submit(late.try_take, 6.0)
        gate.wait_held(LIMIT)
        taken = zkr.Queue(direct, PATH, visibility=60.0, **options).take(LIMIT)  # type: ignore[arg-type]
        assert taken.attempt == 2
        gate.release()
        assert waiting.result(LIMIT) is None
        assert taken.valid
        taken.ack()
        assert not expiring.valid
