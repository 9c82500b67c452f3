"""Watches of the simulated servers where a real one of today cannot be asked: old servers, ends of connections."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from zkrecipes.calls import Unsettled
from zkrecipes.port import AddWatch, Create, Exists, Get, NodeEvent, ReadMany, Request, Set
from zkrecipes.refusals import UnsupportedError
from zkrecipes.testing.simulation import SimulatedClient, Simulation

Maker = Callable[..., Simulation]


async def ask(client: SimulatedClient, *requests: Request) -> list[Any]:
    """Ask for several things in one flight: the answers, or why there are none."""
    await client.session.ready(math.inf)
    calls: list[Any] = [client.session.call(request) for request in requests]
    answers: list[Any] = []
    for call in calls:
        try:
            answers.append(await client.session.result(call, math.inf))
        except (Unsettled, UnsupportedError) as error:
            answers.append(type(error))
    return answers


def told(sim: Simulation, client: SimulatedClient, *requests: Request) -> list[Any]:
    task = sim.start(client, ask(client, *requests))
    sim.run_until(lambda: task.done.done)
    return task.done.result()


@pytest.mark.parametrize("request_", [AddWatch("/"), ReadMany((Get("/"),))])
def test_an_old_server_refuses_what_it_does_not_know_and_hangs_up(
    zkr_simulation: Maker, request_: AddWatch | ReadMany
) -> None:
    sim = zkr_simulation(servers=1, old_servers=True)
    client = sim.client()
    with sim:
        assert told(sim, client, Exists("/nothing"), request_) == [None, UnsupportedError]
        session = client.session.id
        sim.run_until(lambda: client.session.suspensions == 1, 1.0, "the connection ends")
        assert told(sim, client, Exists("/nothing")) == [None]
        assert client.session.id == session
        watches = client.session.watches
        assert watches.recursive is not isinstance(request_, AddWatch)
        assert watches.batches is not isinstance(request_, ReadMany)


def test_an_old_server_refuses_past_the_writes_before_it(zkr_simulation: Maker) -> None:
    sim = zkr_simulation(servers=3, old_servers=True)
    follower = next(server for server in sim.ensemble.servers if server.leading is None)
    client = sim.client(first=follower)
    with sim:
        # Out of order: the client takes no answer of this connection any more, and learns nothing from it.
        assert told(sim, client, Create("/node"), AddWatch("/")) == [Unsettled, Unsettled]
        assert client.session.watches.recursive
        assert told(sim, client, Exists("/node"))[0] is not None


def test_a_persistent_watch_ends_with_its_connection(zkr_simulation: Maker) -> None:
    sim = zkr_simulation(servers=1)
    client, writer = sim.client("listener"), sim.client("writer")
    events: list[tuple[str, NodeEvent]] = []
    with sim:
        client.session.watches.follow("/node", lambda path, event: events.append((path, event)))
        told(sim, client, AddWatch("/node"))
        told(sim, writer, Create("/node"), Create("/node/below"), Set("/node/below", b"x"))
        sim.run(1.0)
        assert events == [
            ("/node", NodeEvent.CREATED),
            ("/node/below", NodeEvent.CREATED),
            ("/node/below", NodeEvent.CHANGED),
        ]
        client.cut()
        sim.run_until(lambda: client.session.usable)
        told(sim, writer, Set("/node", b"y"))
        sim.run(1.0)
        assert len(events) == 3
