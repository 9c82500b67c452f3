"""What goes wrong, and when: drawn from the seed."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Final, final

from zkrecipes.port import Children, Create, Delete, Multi, Request
from zkrecipes.testing.simulation.checks import ThirdParty
from zkrecipes.testing.simulation.client import SimulatedClient
from zkrecipes.testing.simulation.ensemble import Ensemble
from zkrecipes.testing.simulation.server import Server
from zkrecipes.testing.simulation.world import World

__all__ = ["Faults"]

LENGTHS: Final = (0.1, 0.4, 0.9, 1.5, 2.5, 3.5, 4.5, 6.0)


@final
class Faults:
    """Does harm to an ensemble and its clients until `end`; everything works again after that.

    Args:
        ensemble: The servers.
        clients: The clients.
        third_party: Where deletions and closed sessions are entered.
        prefix: Only nodes below it are deleted by a third party.
        unit: The session timeout; lengths are in quarters of it.
    """

    def __init__(
        self,
        ensemble: Ensemble,
        clients: list[SimulatedClient],
        third_party: ThirdParty,
        *,
        prefix: str,
        unit: float,
        end: float,
    ) -> None:
        self.world: World = ensemble.world
        self.ensemble = ensemble
        self.clients = clients
        self.third_party = third_party
        self.prefix = prefix
        self.end = end
        self._scale = unit / 4
        self._hurtable_calls: Callable[[SimulatedClient], None] = lambda _client: None

    def plan(
        self,
        count: int,
        *,
        calls: Callable[[SimulatedClient], None],
        third_party: bool = False,
        servers_only: bool = False,
    ) -> None:
        """Draw so many faults. `calls` interrupts or abandons something that a client's user is waiting for."""
        self._hurtable_calls = calls
        kinds = self._server_faults() if servers_only else [*self._client_faults(), *self._server_faults()]
        if third_party:
            kinds += [self.delete_node, self.close_session]
        chosen = [kinds[int(self.world.chance() * len(kinds))] for _ in range(max(1, count // 2))]
        for _ in range(count):
            # A few kinds a schedule, some of them repeatedly: that finds more than many kinds once.
            self.world.at(self.world.uniform(0.2, self.end * 0.75), chosen[int(self.world.chance() * len(chosen))])
        self.world.at(self.end, self.heal)

    def _client_faults(self) -> list[Callable[[], None]]:
        return [
            self.cut,
            self.cut,
            self.isolate,
            self.isolate,
            self.mute,
            self.deafen,
            self.isolate_from_one,
            self.freeze_client,
            self.freeze_client,
            self.stall,
            *(functools.partial(self.lose_reply, kind) for kind in (Create, Children, Delete, Multi)),
            *(functools.partial(self.cut_behind, kind) for kind in (Create, Delete)),
            self.hurt_call,
            self.hurt_call,
            self.crash,
        ]

    def _server_faults(self) -> list[Callable[[], None]]:
        if len(self.ensemble.servers) == 1:
            return [self.freeze_leader, self.restart_any]
        return [
            self.freeze_leader,
            self.freeze_leader,
            self.freeze_between_pings,
            self.freeze_any,
            self.depose,
            self.depose,
            self.cut_follower,
            self.cut_follower,
            self.kill_leader,
            self.restart_any,
            self.kill_after_answer,
            self.lag,
            self.lag,
        ]

    def _length(self, times: int = 1) -> float:
        length = LENGTHS[int(self.world.chance() * len(LENGTHS))] * self._scale * self.world.uniform(0.7, 1.2) * times
        return min(length, max(0.05, self.end - self.world.now))

    def _client(self) -> SimulatedClient | None:
        alive = [client for client in self.clients if client.process.alive]
        return alive[int(self.world.chance() * len(alive))] if alive else None

    def _server(self) -> Server:
        return self.ensemble.servers[int(self.world.chance() * len(self.ensemble.servers))]

    # --- clients ------------------------------------------------------------------------------------------------------

    def cut(self) -> None:
        """A connection ends."""
        client = self._client()
        if client is not None:
            client.cut(lose=self.world.chance() < 0.5)

    def isolate(self) -> None:
        """A black hole."""
        client = self._client()
        if client is not None:
            client.isolate(self._length())

    def mute(self) -> None:
        """A black hole from the client to the servers."""
        client = self._client()
        if client is not None:
            client.isolate(self._length(), back=False)

    def deafen(self) -> None:
        """A black hole from the servers to the client."""
        client = self._client()
        if client is not None:
            client.isolate(self._length(), out=False)

    def isolate_from_one(self) -> None:
        """A black hole between a client and the server that it is connected to."""
        client = self._client()
        if client is not None and client.transport.wire is not None:
            back = self.world.chance() < 0.5
            client.isolate(self._length(), back=back, server=client.transport.wire.server)

    def freeze_client(self) -> None:
        """SIGSTOP, later SIGCONT."""
        client = self._client()
        if client is not None:
            client.freeze(self._length())

    def stall(self) -> None:
        """The connection thread writes nothing for a while: requests wait in its queue."""
        client = self._client()
        if client is not None:
            length = self._length()
            self.world.note(client.name, "writes nothing for %.2f s", length)
            client.transport.stalled_until = self.world.now + length

    def lose_reply(self, kind: type[Request]) -> None:
        """The next reply of a kind is lost, and the connection with it."""
        client = self._client()
        if client is not None:
            client.transport.lose = functools.partial(_is, kind)

    def cut_behind(self, kind: type[Request]) -> None:
        """The client goes to another server as soon as it has an answer, while that one lags."""
        client = self._client()
        if client is not None:
            for server in self.ensemble.servers:
                server.lag = self._length() / 2
            client.transport.lose = functools.partial(_is, kind)

    def hurt_call(self) -> None:
        """A call is interrupted, cancelled or forgotten."""
        client = self._client()
        if client is not None:
            self._hurtable_calls(client)

    def crash(self) -> None:
        """SIGKILL, or the power goes."""
        client = self._client()
        if client is not None and len([each for each in self.clients if each.process.alive]) > 1:
            client.crash(power=self.world.chance() < 0.5)

    # --- servers ------------------------------------------------------------------------------------------------------

    def freeze_leader(self) -> None:
        """The leader is stopped for a while, shorter or longer than sessions last."""
        leader = self.ensemble.leader
        if leader is not None:
            self.ensemble.freeze(leader, self._length())

    def freeze_between_pings(self) -> None:
        """The leader is stopped just before it pings, wakes for a few milliseconds, and is stopped again for long."""
        leader = self.ensemble.leader
        if leader is None or leader.leading is None or leader.frozen_until > self.world.now:
            return
        wait = max(0.0, leader.leading.next_beat - self.world.now - 0.1 * self._scale * self.world.chance())
        short = self._scale * self.world.uniform(0.05, 0.7)
        self.world.at(wait, self.ensemble.freeze, leader, short)
        again = wait + short + 0.01 * self._scale * self.world.chance()
        long = min(self._scale * self.world.uniform(1.0, 5.0), max(0.0, self.end - self.world.now - again))
        self.world.at(again, self.ensemble.freeze, leader, long)

    def freeze_any(self) -> None:
        """Any server is stopped for a while."""
        self.ensemble.freeze(self._server(), self._length())

    def depose(self) -> None:
        """The leader is cut off from its followers, not from its clients."""
        leader, length, both = self.ensemble.leader, self._length(2), self.world.chance() < 0.7
        if leader is not None:
            for other in self.ensemble.servers:
                if other is not leader:
                    self.ensemble.separate(leader, other, length, back=both)

    def cut_follower(self) -> None:
        """A server is cut off from the others, not from its clients."""
        server, length = self._server(), self._length(2)
        for other in self.ensemble.servers:
            if other is not server:
                self.ensemble.separate(server, other, length)

    def kill_leader(self) -> None:
        """The leader is killed, and started again later."""
        leader = self.ensemble.leader
        if leader is not None:
            self.ensemble.kill(leader)
            self.world.at(self._length(), self.ensemble.start, leader)

    def restart_any(self) -> None:
        """Any server is killed, and started again later."""
        server = self._server()
        self.ensemble.kill(server)
        self.world.at(self._length(), self.ensemble.start, server)

    def kill_after_answer(self) -> None:
        """The server that answers a client's next write is killed right afterwards."""
        client = self._client()
        if client is None:
            return
        transport = client.transport

        def kill(server: Server, request: Request) -> None:
            if isinstance(request, Create | Multi | Delete):
                transport.on_answer = lambda _server, _request: None
                self.world.at(0.0, self.ensemble.kill, server)
                self.world.at(self._length(), self.ensemble.start, server)

        transport.on_answer = kill

    def lag(self) -> None:
        """A server applies late what is committed."""
        server, length = self._server(), self._length()
        self.world.note(server.name, "lags by up to %.2f s", length)
        server.lag = length

    # --- third parties ------------------------------------------------------------------------------------------------

    def delete_node(self) -> None:
        """Somebody deletes a contender's node."""
        leader = self.ensemble.leader
        if leader is not None and leader.leading is not None:
            nodes = [
                path for path, node in leader.leading.head.nodes.items() if node.owner and path.startswith(self.prefix)
            ]
            if nodes:
                path = nodes[int(self.world.chance() * len(nodes))]
                self.third_party.paths[path] = None
                leader.leading.delete(path)

    def close_session(self) -> None:
        """Somebody closes a client's session."""
        leader, client = self.ensemble.leader, self._client()
        if leader is not None and leader.leading is not None and client is not None and client.transport.session_id:
            self.third_party.sessions[client.transport.session_id] = None
            leader.leading.close_session(client.transport.session_id)

    def heal(self) -> None:
        """Everything works again."""
        self.world.note("world", "heals")
        self.ensemble.heal()
        for client in self.clients:
            client.heal()


def _is(kind: type[Request], request: Request) -> bool:
    return isinstance(request, kind)
