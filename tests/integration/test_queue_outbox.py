"""What a consumer acknowledges without waiting for it."""

from __future__ import annotations

import gc
import time

import zkrecipes as zkr
from zkrecipes.testing import FaultProxy, Server, wait_until


def test_a_claim_that_waits_for_its_acknowledgement_is_not_given_back_when_its_handle_is_dropped(
    zkr_server: Server, zkr_namespace: str
) -> None:
    with (
        FaultProxy(zkr_server.hosts) as proxy,
        zkr.connect(proxy.hosts, namespace=zkr_namespace, session_timeout=12.0) as client,
    ):
        queue = zkr.Queue(client, "/queue")
        queue.put_many([b"first", b"second"])
        with queue.consume(prefetch=2) as consumer:
            first, second = next(consumer), next(consumer)
            proxy.reset_counts()
            proxy.blackhole("to_client")
            with first:
                pass  # its acknowledgement is on its way, and is not answered …
            wait_until(lambda: proxy.counts()["multi"] > 0, 5.0, "it was sent")
            with second:
                pass  # … so that this one waits
            del first, second
            gc.collect()
            # Long enough for the look at dropped handles; not so for the session.
            begin = time.monotonic()
            wait_until(lambda: time.monotonic() - begin > 1.5, 5.0, "dropped handles were looked for")
            proxy.heal()
        assert queue.stats() == zkr.QueueStats(0, 0, 0, 0, None)
