"""The servers together: elections, the network between them, and what a test can do to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

from zkrecipes.testing.simulation.following import Following
from zkrecipes.testing.simulation.quorum import Leading
from zkrecipes.testing.simulation.server import Role, Server, Txn
from zkrecipes.testing.simulation.tree import Change, Tree
from zkrecipes.testing.simulation.world import Gate, World

__all__ = ["Ensemble"]


@final
class Ensemble:
    """A ZooKeeper of one or more servers.

    Args:
        world: For time and chance.
        size: How many servers.
        tick: The servers' tickTime in seconds; a session lasts at least two.
        sync_limit: For how many ticks leader and follower bear each other's silence.
        delay: Typical delay between two servers in seconds.
        container_interval: How often empty containers are removed, in seconds; 0 never.
        old_servers: As before release 3.6: they know neither persistent watches nor reads of many nodes, refuse such a
            request and close the connection.

    Attributes:
        on_commit: Called with each transaction when the first server applies it.
    """

    def __init__(
        self,
        world: World,
        size: int = 3,
        *,
        tick: float = 2.0,
        sync_limit: int = 5,
        delay: float = 0.002,
        container_interval: float = 0.0,
        old_servers: bool = False,
    ) -> None:
        self.world = world
        self.tick = tick
        self.sync_limit = sync_limit
        self.delay = delay
        self.container_interval = container_interval
        self.old_servers = old_servers
        self.quorum = size // 2 + 1
        # Leaders start at any time, so their pings and the whole ticks in which sessions expire are not in step.
        self.phase = world.uniform(0.0, tick)
        self.on_commit: Callable[[Txn], None] = lambda _txn: None
        self._gates: dict[tuple[int, int], Gate] = {}
        self._epoch = 0
        self._sessions = 0
        self._history: list[Txn] = []
        self._now_at_start = 1_700_000_000_000
        self.servers = [Server(self, number) for number in range(1, size + 1)]
        for server in self.servers:
            server.role = Role.LOOKING
        self._elect(self.servers)

    # --- for servers --------------------------------------------------------------------------------------------------

    def gate(self, sender: Server, receiver: Server) -> Gate:
        """The gate of one direction between two servers."""
        return self._gates.setdefault((sender.number, receiver.number), Gate())

    def milliseconds(self) -> int:
        """The servers' wall clock."""
        return self._now_at_start + int(self.world.now * 1000)

    def new_session(self) -> int:
        """A session id."""
        self._sessions += 1
        return 0x1000 + self._sessions

    def applied_by(self, server: Server, txn: Txn) -> None:
        """A server applies a transaction: all servers must apply the same ones."""
        history, index = self._history, server.applied - 1
        if index == len(history):
            history.append(txn)
            self.on_commit(txn)
        elif history[index] is not txn:
            message = f"the model is wrong: {server.name} applies {txn.zxid:#x}, which others do not"
            raise RuntimeError(message)

    def looking(self, server: Server) -> None:
        """A server has no leader: it takes part in the next election."""
        server.role = Role.LOOKING
        server.later(self.world.uniform(0.1, 0.4), self._consider, server)

    def _consider(self, server: Server) -> None:
        if server.role is not Role.LOOKING:
            return
        others = [other for other in self.servers if other is server or self._reachable(server, other)]
        # Who has promised a newer epoch must not help an older leader to a quorum again.
        leaders = [other.leading for other in others if other.leading is not None]
        leader = max(leaders, key=lambda leading: leading.epoch, default=None)
        if leader is not None and leader.epoch >= server.promised:
            Following(server, leader)
            return
        voters = [other for other in others if other.role is Role.LOOKING]
        if len(voters) >= self.quorum:
            self._elect(voters)
        else:
            server.later(self.world.uniform(0.1, 0.4), self._consider, server)

    def _reachable(self, one: Server, other: Server) -> bool:
        now = self.world.now
        shut = max(self.gate(one, other).shut_until, self.gate(other, one).shut_until)
        return now >= shut and now >= other.frozen_until and other.role is not Role.DOWN

    def _elect(self, voters: list[Server]) -> None:
        best = max(voters, key=lambda voter: (voter.epoch, voter.log[-1].zxid if voter.log else 0, voter.number))
        self._epoch += 1
        leading = Leading(best, self._epoch)
        for voter in voters:
            voter.promised = self._epoch
            if voter is not best:
                Following(voter, leading)

    # --- for tests ----------------------------------------------------------------------------------------------------

    @property
    def leader(self) -> Server | None:
        """The leader that has a quorum, as far as anybody can tell; a deposed one may think so, too."""
        leaders = [server for server in self.servers if server.leading is not None and server.leading.established]
        return max(leaders, key=lambda server: server.epoch, default=None)

    @property
    def tree(self) -> Tree:
        """The newest committed state that some server has applied. To be read only."""
        return max(self.servers, key=lambda server: server.zxid).tree

    def plant(self, path: str, data: bytes = b"") -> None:
        """Put a node on every server, before anything happens."""
        change = Change("create", path, data, number=self.servers[0].tree.nodes["/"].creates + 1)
        for server in self.servers:
            server.tree.apply(change, 0, 0)
            if server.leading is not None and server.leading.head is not server.tree:
                server.leading.head.apply(change, 0, 0)

    def freeze(self, server: Server, seconds: float) -> None:
        """As SIGSTOP, and SIGCONT after so many seconds; what was due meanwhile then happens in any order."""
        self.world.note(server.name, "is frozen for %.2f s", seconds)
        server.frozen_until = max(server.frozen_until, self.world.now + seconds)

    def separate(self, one: Server, other: Server, seconds: float, *, back: bool = True) -> None:
        """Nothing passes from one server to another, nor back unless told otherwise, for a while."""
        how = "hear nothing of each other" if back else "go apart one way"
        self.world.note(one.name, "and %s %s for %.2f s", other.name, how, seconds)
        for gate in (self.gate(one, other), self.gate(other, one))[: 2 if back else 1]:
            gate.shut_until = max(gate.shut_until, self.world.now + seconds)

    def kill(self, server: Server) -> None:
        """As SIGKILL; its disk survives."""
        if server.role is not Role.DOWN:
            self.world.note(server.name, "is killed")
            if server.leading is not None:
                server.leading.stop("killed")
            if server.following is not None:
                server.following.stop("killed")
            server.close_clients()
            server.role = Role.DOWN

    def start(self, server: Server) -> None:
        """Start a killed server."""
        if server.role is Role.DOWN:
            self.world.note(server.name, "starts")
            self.looking(server)

    def heal(self) -> None:
        """Everything works again, from now on."""
        for gate in self._gates.values():
            gate.shut_until = min(gate.shut_until, self.world.now)
        for server in self.servers:
            server.frozen_until = min(server.frozen_until, self.world.now)
            server.lag = 0.0
            self.start(server)
