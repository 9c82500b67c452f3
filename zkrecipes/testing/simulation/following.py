"""A server's time as a follower: what the leader tells it, and what it asks the leader for its clients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

from zkrecipes.testing.simulation.quorum import Leading, Link
from zkrecipes.testing.simulation.server import Operation, Role, Server, ServerConnection, Txn

__all__ = ["Following"]


@final
class Following:
    """A server's time as a follower of one leader."""

    def __init__(self, server: Server, leading: Leading) -> None:
        self.server = server
        self.leading = leading
        self.link = Link(server.ensemble, leading.server, server)
        self.active = True
        self._heard = server.world.now
        server.role = Role.FOLLOWING
        server.following = self
        self.ask(leading.join, self.link)
        server.later(server.ensemble.sync_limit * server.ensemble.tick, self._look)

    def ask(self, what: Callable[..., None], *args: Any) -> None:
        """Send something to the leader."""
        self.link.to_leader.send(what, *args)

    def history(self, log: list[Txn], committed: int, epoch: int) -> None:
        """The leader's history: what it does not have is dropped here, too."""
        server = self.server
        if not self.active:
            return
        self._heard = server.world.now
        dropped = [txn for txn, other in zip(server.log, log, strict=False) if txn is not other]
        if len(server.log) > len(log):
            dropped.extend(server.log[len(log) :])
        if dropped:
            server.world.note(server.name, "drops %d proposals that were never committed", len(dropped))
        server.log = log
        server.epoch = epoch
        server.committed = max(server.committed, committed)
        self.ask(self.leading.acknowledge, self.link, len(log))

    def proposal(self, txn: Txn) -> None:
        """Accept a proposal."""
        if self.active:
            self._heard = self.server.world.now
            self.server.log.append(txn)
            self.ask(self.leading.acknowledge, self.link, len(self.server.log))

    def commit(self, count: int) -> None:
        """The first `count` entries are committed."""
        if self.active:
            self._heard = self.server.world.now
            self.server.commit(count)

    def up_to_date(self, count: int) -> None:
        """Begin to serve clients."""
        if self.active:
            self.server.committed = max(self.server.committed, count)
            self.server.apply(count)
            self.server.serving = True
            self.server.world.note(self.server.name, "follows %s", self.leading.server.name)

    def synced(self, operation: Operation) -> None:
        """The leader's answer to a sync came behind everything that it had committed."""
        if self.active:
            if self.server.applied < self.server.committed:
                self.server.apply(self.server.committed)
            self.server.complete(operation, None)

    def revalidated(self, connection: ServerConnection, valid: bool) -> None:  # noqa: FBT001 - it is a message
        """The leader has said whether a session is alive."""
        if self.active:
            self._heard = self.server.world.now
            self.server.revalidated(connection, valid=valid)

    def ping(self) -> None:
        """Answer with the sessions that we have heard of since the last ping."""
        if self.active:
            self._heard = self.server.world.now
            touched, self.server.touched = self.server.touched, {}
            self.ask(self.leading.pong, self.link, touched)

    def _look(self) -> None:
        if not self.active:
            return
        left = self._heard + self.server.ensemble.sync_limit * self.server.ensemble.tick - self.server.world.now
        if left <= 0:
            self.stop("its leader is silent")
            self.server.ensemble.looking(self.server)
        else:
            self.server.later(left + 1e-6, self._look)

    def link_closed(self, link: Link) -> None:
        """The leader has closed the connection."""
        if self.active and link is self.link:
            self.stop("its leader has hung up")
            self.server.ensemble.looking(self.server)

    def stop(self, why: str) -> None:
        """Give up following."""
        if self.active:
            self.server.world.note(self.server.name, "stops following %s: %s", self.leading.server.name, why)
            self.active = False
            self.server.following = None
            self.link.to_follower.drop_all()
            self.ask(self.leading.unlink, self.link)
            self.server.close_clients()
