"""Leading and following: proposals, acknowledgements, pings, and the one place where sessions expire.

What matters to the recipes, and is modelled as ZooKeeper does it:

- the leader alone expires sessions, in whole ticks; a follower tells it who was alive only in its replies to the
leader's
  pings, each half tick. Forwarded writes and syncs touch nothing;
- a write is checked by the leader against everything proposed, takes a zxid, and is committed by a quorum;
- a session belongs to the connection (leader's own, or a follower's link) that asked for it last; writes that come by
  another are refused (session moved);
- a leader that has lost its quorum, and a follower that has lost its leader, go on for up to syncLimit ticks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

from zkrecipes.port import Code, Delete, Sync
from zkrecipes.testing.simulation.server import Operation, Role, Server, ServerConnection, Txn
from zkrecipes.testing.simulation.tree import Change, Refusal, Tree, parent_of
from zkrecipes.testing.simulation.world import Channel

if TYPE_CHECKING:
    from zkrecipes.testing.simulation.ensemble import Ensemble

__all__ = ["Leading", "Link"]


@final
class Link:
    """A follower's connection to its leader."""

    __slots__ = ("acknowledged", "follower", "heard_at_tick", "to_follower", "to_leader")

    def __init__(self, ensemble: Ensemble, leader: Server, follower: Server) -> None:
        world = ensemble.world
        self.follower = follower
        self.to_leader = Channel(world, ensemble.gate(follower, leader), leader, ensemble.delay)
        self.to_follower = Channel(world, ensemble.gate(leader, follower), follower, ensemble.delay)
        self.acknowledged = -1
        self.heard_at_tick = 0


@final
class _Tracked:
    """A session at the leader."""

    __slots__ = ("closing", "expiry", "owner", "timeout")

    def __init__(self, timeout: float, expiry: float) -> None:
        self.timeout = timeout
        self.expiry = expiry
        self.owner: object | None = None
        self.closing = False


@final
class Leading:
    """A server's time as the leader.

    Attributes:
        established: Whether a quorum follows it.
        head: The tree with everything that has been proposed.
        next_beat: When it pings its followers next.
    """

    def __init__(self, server: Server, epoch: int) -> None:
        self.server = server
        self.ensemble = server.ensemble
        self.world = server.world
        self.epoch = epoch
        self.active = True
        self.established = False
        self.links: list[Link] = []
        self._count = 0
        self._ticks = 0
        self._half = False
        self._syncs: list[tuple[int, Operation, Link | None]] = []
        server.epoch = epoch
        server.role = Role.LEADING
        server.leading = self
        # Everything that this leader has accepted will be committed.
        self._inherited = len(server.log)
        self.head: Tree = server.tree
        self._tracked: dict[int, _Tracked] = {}
        self._note("leads epoch %d with %d entries, %d of them committed", epoch, len(server.log), server.committed)
        self._count_acknowledgements()
        self.next_beat = self.world.now + self.ensemble.tick / 2
        server.later(self.ensemble.tick / 2, self._beat)

    def _note(self, text: str, *args: object) -> None:
        self.world.note(self.server.name, text, *args)

    # --- followers ----------------------------------------------------------------------------------------------------

    def join(self, link: Link) -> None:
        """A follower asks for the history; from now on it gets every proposal."""
        if self.active:
            self.links.append(link)
            self._heard(link)
            following = link.follower.following
            if following is not None and following.link is link:
                link.to_follower.send(following.history, list(self.server.log), self.server.committed, self.epoch)

    def acknowledge(self, link: Link, count: int) -> None:
        """A follower has accepted the first `count` entries."""
        if not self.active or link not in self.links:
            return
        self._heard(link)
        first = link.acknowledged < 0
        link.acknowledged = count
        self._count_acknowledgements()
        if first and self.established:
            self._tell(link, "up_to_date", self.server.committed)

    def _count_acknowledgements(self) -> None:
        counts = sorted((link.acknowledged for link in self.links if link.acknowledged >= 0), reverse=True)
        others = self.ensemble.quorum - 1
        if len(counts) < others:
            return
        count = min(counts[others - 1], len(self.server.log)) if others else len(self.server.log)
        if not self.established:
            if count < self._inherited:
                return
            self._establish()
        if count > self.server.committed:
            self.server.commit(count)
            self._settle_head()
            for link in self.links:
                self._tell(link, "commit", count)
        while self._syncs and self._syncs[0][0] <= self.server.committed:
            _, operation, by = self._syncs.pop(0)
            self._answer_sync(operation, by)

    def _establish(self) -> None:
        server = self.server
        self.established = True
        server.commit(self._inherited)
        server.apply(self._inherited)
        self.head = server.tree.copy()
        for session, timeout in server.tree.sessions.items():
            self._tracked[session] = _Tracked(timeout, self._bucket(timeout))
        server.serving = True
        self._note("is established")
        for link in self.links:
            if link.acknowledged >= 0:
                self._tell(link, "up_to_date", server.committed)
        server.later(self._until_next_tick(), self._expire)
        if self.ensemble.container_interval:
            server.later(self.ensemble.container_interval, self._remove_containers)

    def _settle_head(self) -> None:
        if self.server.applied == len(self.server.log):
            # With nothing proposed, the next number comes from the tree again: it does not wrap there.
            for path, node in self.server.tree.nodes.items():
                self.head.nodes[path].creates = node.creates

    def _tell(self, link: Link, message: str, *args: Any) -> None:
        following = link.follower.following
        if following is not None and following.link is link:
            link.to_follower.send(getattr(following, message), *args)

    def _heard(self, link: Link) -> None:
        link.heard_at_tick = self._ticks

    def unlink(self, link: Link) -> None:
        """A follower's connection has ended."""
        if link in self.links:
            self.links.remove(link)
            link.to_leader.drop_all()

    def stop(self, why: str) -> None:
        """Give up leading."""
        if self.active:
            self._note("stops leading: %s", why)
            self.active = False
            self.server.leading = None
            for link in self.links:
                self._tell(link, "link_closed", link)
                link.to_leader.drop_all()
            self.links = []
            self.server.close_clients()

    # --- requests -----------------------------------------------------------------------------------------------------

    def submit(self, operation: Operation, by: object) -> None:
        """A write, a sync or a new session, from our own connection (by the server) or a follower's (by its link)."""
        if not self.active or not self.established:
            return
        request = operation.request
        link = by if isinstance(by, Link) else None
        if link is not None:
            self._heard(link)
        if isinstance(request, Sync):
            # Answered without asking the quorum, so a deposed leader answers it, too.
            if len(self.server.log) == self.server.committed:
                self._answer_sync(operation, link)
            else:
                self._syncs.append((len(self.server.log), operation, link))
            return
        if request is None:
            txn = self._txn("open", operation.session)
            txn.timeout = operation.connection.timeout
            self._tracked[operation.session] = _Tracked(txn.timeout, self._bucket(txn.timeout))
            self._tracked[operation.session].owner = by
        else:
            txn = self._txn("write", operation.session)
            try:
                self._check_session(operation.session, by)
                txn.changes = self.head.plan(request, operation.session)  # type: ignore[arg-type]
            except Refusal as refusal:
                txn.kind, txn.code, txn.index = "error", refusal.code, refusal.index
        txn.origin = operation
        self._propose(txn)

    def _answer_sync(self, operation: Operation, link: Link | None) -> None:
        if link is None:
            self.server.complete(operation, None)
        else:
            self._tell(link, "synced", operation)

    def _txn(self, kind: str, session: int) -> Txn:
        self._count += 1
        return Txn((self.epoch << 32) + self._count, self.ensemble.milliseconds(), kind, session)

    def _propose(self, txn: Txn) -> None:
        self.server.log.append(txn)
        for link in self.links:
            self._tell(link, "proposal", txn)
        self._count_acknowledgements()

    # --- sessions -----------------------------------------------------------------------------------------------------

    def _bucket(self, timeout: float) -> float:
        tick = self.ensemble.tick
        phase = self.ensemble.phase
        return ((self.world.now + timeout + phase) // tick + 1) * tick - phase

    def _until_next_tick(self) -> float:
        tick = self.ensemble.tick
        now = self.world.now + self.ensemble.phase
        return (now / tick + 1e-6) // 1 * tick + tick - now

    def _check_session(self, session: int, by: object) -> None:
        tracked = self._tracked.get(session)
        if tracked is None or tracked.closing:
            raise Refusal(Code.SESSION_EXPIRED)
        if tracked.owner is None:
            tracked.owner = by
        elif tracked.owner is not by:
            raise Refusal(Code.SESSION_MOVED)

    def touch(self, session: int) -> None:
        """A sign of life has reached the leader."""
        tracked = self._tracked.get(session)
        if tracked is not None and not tracked.closing:
            tracked.expiry = max(tracked.expiry, self._bucket(tracked.timeout))

    def revalidate(self, session: int, by: object) -> bool:
        """A client has come back over another connection: whether its session lives. That touches it."""
        tracked = self._tracked.get(session)
        if tracked is None or tracked.closing:
            return False
        self.touch(session)
        tracked.owner = by
        return True

    def revalidate_for(self, link: Link, connection: ServerConnection) -> None:
        """A follower asks that."""
        if self.active:
            self._heard(link)
            self._tell(link, "revalidated", connection, self.revalidate(connection.session, link))

    def pong(self, link: Link, touched: dict[int, None]) -> None:
        """A follower's reply to a ping, with the sessions that it has heard of."""
        if self.active:
            self._heard(link)
            for session in touched:
                self.touch(session)

    def _expire(self) -> None:
        if not self.active:
            return
        self.server.later(self._until_next_tick(), self._expire)
        for session, tracked in list(self._tracked.items()):
            if tracked.expiry <= self.world.now + 1e-6 and not tracked.closing:
                self._note("expires session %d", session)
                self.close_session(session)

    def close_session(self, session: int) -> None:
        """End a session: it expired, or somebody closed it."""
        tracked = self._tracked.get(session)
        if tracked is not None and not tracked.closing:
            # Between this mark and the transaction, its writes are refused already.
            tracked.closing = True
            self.server.later(0.005 * self.world.chance(), self._propose_close, session)

    def _propose_close(self, session: int) -> None:
        if self.active and self._tracked.pop(session, None) is not None:
            txn = self._txn("close", session)
            txn.changes = tuple(Change("delete", path) for path in self.head.owned_by(session))
            for change in txn.changes:
                self.head.apply(change, 0, 0)
            self._propose(txn)

    # --- timers -------------------------------------------------------------------------------------------------------

    def _beat(self) -> None:
        if not self.active:
            return
        self.next_beat = self.world.now + self.ensemble.tick / 2
        self.server.later(self.ensemble.tick / 2, self._beat)
        self._half = not self._half
        if not self._half:
            self._ticks += 1
        limit = self._ticks - self.ensemble.sync_limit
        for link in self.links:
            self._tell(link, "ping")
        synced = sum(1 for link in self.links if link.heard_at_tick >= limit and link.acknowledged >= 0)
        if (
            self._half
            and synced + 1 < self.ensemble.quorum
            and (self.established or self._ticks > self.ensemble.sync_limit)
        ):
            self.stop("not enough followers")
            self.ensemble.looking(self.server)

    def _remove_containers(self) -> None:
        if self.active:
            self.server.later(self.ensemble.container_interval, self._remove_containers)
            for path, node in list(self.server.tree.nodes.items()):
                if node.container and node.creates > 0 and not node.children:
                    self.delete(path)

    def delete(self, path: str) -> None:
        """Delete a node on behalf of nobody, as the container manager does."""
        try:
            changes = self.head.plan(Delete(path), 0)
        except Refusal:
            return
        self._note("deletes %s of %s", path, parent_of(path))
        txn = self._txn("write", 0)
        txn.changes = changes
        self._propose(txn)
