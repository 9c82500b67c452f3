"""Schedules for corners that chance finds too rarely. Each takes a seed, which still decides what is not told here."""

from __future__ import annotations

import math
from collections.abc import Callable

from zkrecipes.flow import first_of
from zkrecipes.hold import Grip
from zkrecipes.lock import Cancel, LockRecipe
from zkrecipes.port import Children, Create, Request
from zkrecipes.testing.simulation import SimulatedClient, Simulation, Violation
from zkrecipes.testing.simulation.checks import Exclusion, ThirdParty
from zkrecipes.testing.simulation.server import Server, Txn

Schedule = Callable[[int], None]

PATH = "/line"
T = 4.0
TICK = 2.0


class Siege:
    """Somebody holds the lock, somebody else waits for it."""

    def __init__(self, seed: int, sync_limit: int = 5) -> None:
        self.sim = sim = Simulation(seed, servers=3, tick=TICK, sync_limit=sync_limit, delay=0.001)
        sim.run_until(lambda: sim.ensemble.leader is not None)
        self.leader = sim.ensemble.leader
        assert self.leader is not None
        self.followers = [server for server in sim.ensemble.servers if server is not self.leader]
        self.exclusion = Exclusion(sim.world, ThirdParty())
        sim.world.after_event = self.exclusion.check

    def client(self, name: str, *, leader: bool = False) -> SimulatedClient:
        server = self.leader if leader else self.followers[0 if name == "holder" else 1]
        return self.sim.client(name, session_timeout=T, first=server)

    async def hold(self, client: SimulatedClient) -> Grip:
        recipe = LockRecipe(client.core, PATH, identity=client.name, layout="curator")
        grip = await recipe.acquire(None, None)
        self.exclusion.won(client, grip)
        return grip

    def begin(self, holder: SimulatedClient, rival: SimulatedClient) -> Grip:
        holding = self.sim.start(holder, self.hold(holder))
        self.sim.run_until(lambda: holding.done.done)
        self.sim.start(rival, self.hold(rival))
        return holding.done.result()


def leader_frozen_between_pings(seed: int) -> None:
    """The leader is frozen from one ping to the session's end, but for a moment in which a write is committed."""
    siege = Siege(seed)
    sim, world, leader = siege.sim, siege.sim.world, siege.leader
    assert leader is not None
    assert leader.leading is not None
    sim.run(1.0 + world.chance())  # so that heartbeats and pings are not in step
    holder, rival = siege.client("holder"), siege.client("rival")
    with sim:
        siege.begin(holder, rival)
        sim.run(2.0)
        # A heartbeat that comes soon after a ping reaches the leader only with the next one.
        while not 0.16 < (holder.session.next_beat - holder.process.offset - leader.leading.next_beat) % (T / 6) < 0.28:
            sim.run(TICK / 2)
        ping = leader.leading.next_beat
        # The session's end, counted from this ping, falls just before the end of a whole tick.
        sim.ensemble.phase = (-(ping + T) - world.uniform(0.005, 0.05)) % TICK
        first = ping + TICK / 2 - 0.05
        awake = first + world.uniform(0.75, 1.1)
        leader.wake_spread = 0.005
        world.at(first - world.now, sim.ensemble.freeze, leader, awake - first)
        until = ping + T + world.uniform(0.0, 0.1)

        def committed(txn: Txn) -> None:
            if awake < world.now < until - 1.0 and txn.session == holder.session.id:
                sim.ensemble.freeze(leader, until - world.now)
                # Hears the answer, and then nothing any more, not even that its session is over.
                sim.at(0.02, holder.isolate, 10.0)

        sim.ensemble.on_commit = committed
        sim.run(2.5 * T)


def holder_with_a_deposed_leader(seed: int, *, cut: bool = False) -> None:
    """The holder and the leader are parted from everybody else; the others elect a new leader."""
    limit = 1 + seed % 2
    siege = Siege(seed, limit)
    sim, leader = siege.sim, siege.leader
    assert leader is not None
    sim.run(sim.world.chance())
    holder, rival = siege.client("holder", leader=True), siege.client("rival")
    with sim:
        siege.begin(holder, rival)
        sim.run(3.0 + sim.world.chance() * TICK)
        for server in siege.followers:
            sim.ensemble.separate(leader, server, 60.0)
            holder.isolate(60.0, server=server)
        rival.isolate(60.0, server=leader)
        if cut:
            for moment in range(20):
                sim.at(0.2 + 0.3 * moment, holder.cut)
        sim.run(limit * TICK + 3 * T)


def holder_cut_from_a_deposed_leader(seed: int) -> None:
    """The same; the holder's connection is cut, and made again with the deposed leader."""
    holder_with_a_deposed_leader(seed, cut=True)


def third_party_deletes_the_node(seed: int) -> None:
    """Somebody deletes the holder's node; it must know soon."""
    _third_party(seed, session=False)


def third_party_closes_the_session(seed: int) -> None:
    """Somebody closes the holder's session; it must know soon."""
    _third_party(seed, session=True)


def _third_party(seed: int, *, session: bool) -> None:
    siege = Siege(seed)
    sim, leader = siege.sim, siege.leader
    assert leader is not None
    assert leader.leading is not None
    holder = siege.client("holder")
    with sim:
        holding = sim.start(holder, siege.hold(holder))
        sim.run_until(lambda: holding.done.done)
        grip = holding.done.result()
        sim.run(3.0 + sim.world.chance())
        if session:
            leader.leading.close_session(holder.session.id)
        else:
            leader.leading.delete(grip.hold.path)
        sim.run(0.3)
        if grip.valid or not grip.lost.fired.done:
            message = "the holder still believes 0.3 s after its node was removed"
            raise Violation(message, seed, sim.trace(20))


def session_ends_while_the_thread_starves(seed: int) -> None:
    """A waiter's thread gets no processor from the answer that lets it in until its session is another one."""
    siege = Siege(seed)
    sim, leader = siege.sim, siege.leader
    assert leader is not None
    assert leader.leading is not None
    holder, rival, third = siege.client("holder"), siege.client("rival"), siege.client("third")
    with sim:
        holding = sim.start(holder, siege.hold(holder))
        sim.run_until(lambda: holding.done.done)
        waiting = sim.start(rival, siege.hold(rival))
        sim.run(0.5)
        sim.start(third, siege.hold(third))
        sim.run(1.0)
        sim.start(holder, holding.done.result().release())

        def answered(_server: Server, request: Request) -> None:
            if isinstance(request, Children):
                waiting.stall(2.0)

        rival.transport.on_answer = answered
        sim.run(0.1)
        if not waiting.done.done:  # otherwise it was told too late to starve
            leader.leading.close_session(rival.session.id)
        sim.run(5.0)


def cancelled_while_the_only_server_is_silent(seed: int) -> None:
    """The answer does not come, the wait is cancelled: it must end soon."""
    sim = Simulation(seed, servers=1, tick=TICK, delay=0.001)
    client, cancel = sim.client("client", session_timeout=T), Cancel()
    with sim:
        sim.run_until(lambda: client.session.usable)
        leader = sim.ensemble.leader
        assert leader is not None
        sim.run(sim.world.chance())
        sim.at(0.003 * sim.world.chance(), sim.ensemble.freeze, leader, 5.0)
        task = sim.start(client, LockRecipe(client.core, PATH, identity=None, layout="curator").acquire(None, cancel))
        sim.run(0.1)
        if not task.done.done:
            cancel.cancel()
            sim.run_until(lambda: task.done.done, 1.2, "the cancelled wait ends")


def numbers_wrap(seed: int) -> None:
    """The parent has given out nearly 2147483647 numbers; after that all get the same one, or negative ones."""
    sim = Simulation(seed, servers=3, tick=TICK, delay=0.001)
    exclusion = Exclusion(sim.world, ThirdParty())
    sim.world.after_event = exclusion.check
    clients = [sim.client(session_timeout=T) for _ in range(3)]

    async def contend(client: SimulatedClient) -> None:
        for _ in range(4):
            grip = await LockRecipe(client.core, PATH, identity=None, layout="curator").acquire(None, None)
            exclusion.won(client, grip)
            await first_of(until=client.process.now() + 0.05 * sim.world.chance())
            await grip.release()
            exclusion.over(grip)

    with sim:
        made = sim.start(clients[0], _make_parent(clients[0]))
        sim.run_until(lambda: made.done.done)
        sim.run(0.5)
        for server in sim.ensemble.servers:
            server.tree.nodes[PATH].creates = 2**31 - 3
            if server.leading is not None:
                server.leading.head.nodes[PATH].creates = 2**31 - 3
        tasks = [sim.start(client, contend(client)) for client in clients]
        sim.run_until(lambda: all(task.done.done for task in tasks), 60.0, "everybody has had its turns")
        for task in tasks:
            task.done.result()


async def _make_parent(client: SimulatedClient) -> None:
    await client.session.ready(math.inf)
    await client.session.result(client.session.call(Create(PATH)), math.inf)


SCHEDULES: tuple[Schedule, ...] = (
    leader_frozen_between_pings,
    holder_with_a_deposed_leader,
    holder_cut_from_a_deposed_leader,
    third_party_deletes_the_node,
    third_party_closes_the_session,
    session_ends_while_the_thread_starves,
    cancelled_while_the_only_server_is_silent,
    numbers_wrap,
)
