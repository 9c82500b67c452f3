"""A real ensemble on one machine, whose members can be cut off from one another.

Member i lists the others under addresses of proxies of its own, so every ordered pair of members has one proxy for the
quorum port and one for the election port, and a pair can be parted while all others go on.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal, Self, final

from zkrecipes.errors import UnavailableError
from zkrecipes.testing.control import Session
from zkrecipes.testing.ports import LOOPBACK, ReservedPort, reserve_port
from zkrecipes.testing.process import ZooKeeperServer
from zkrecipes.testing.proxy import FaultProxy
from zkrecipes.testing.waiting import wait_until

__all__ = ["Member", "ZooKeeperEnsemble"]

Member = int | ZooKeeperServer
"""A member's place in `servers`, or the server itself."""

_ASK_LIMIT: Final = 0.5
_ELECT_LIMIT: Final = 30.0
_PATIENCE: Final = 2.0


@final
class ZooKeeperEnsemble:
    """Several `ZooKeeperServer`s with one leader.

    Args:
        size: How many.
        properties: Lines of zoo.cfg for every member, over the kit's own.
        proxied_quorum: Lead all that members say to one another through proxies, for `part`, `cut_from_leader` and
            `isolate`.
        tick_time: Seconds of a tick.
        init_limit: Ticks that a follower may take to join a leader.
        sync_limit: Ticks of silence after which a leader and a follower give each other up.
        java_options: For the Java machines.

    Attributes:
        servers: The members, in the order of their ids (1 and up).
    """

    def __init__(
        self,
        size: int = 3,
        properties: Mapping[str, object] | None = None,
        *,
        proxied_quorum: bool = False,
        tick_time: float = 0.5,
        init_limit: int = 20,
        sync_limit: int = 4,
        java_options: Sequence[str] = (),
    ) -> None:
        if size < 1:
            message = f"size must be 1 or more, not {size!r}"
            raise ValueError(message)
        lines = {"initLimit": init_limit, "syncLimit": sync_limit, **(properties or {})}
        self.servers: tuple[ZooKeeperServer, ...] = tuple(
            ZooKeeperServer(properties=lines, tick_time=tick_time, java_options=java_options, name=f"member-{number}")
            for number in range(1, size + 1)
        )
        self._proxied = proxied_quorum
        self._ports: list[tuple[ReservedPort, ReservedPort]] = []
        self._proxies: dict[tuple[int, int], tuple[FaultProxy, FaultProxy]] = {}

    def __repr__(self) -> str:
        return f"<ZooKeeperEnsemble {list(self.servers)}>"

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def hosts(self) -> str:
        """The addresses of all members, with commas."""
        return ",".join(server.hosts for server in self.servers)

    def start(self, limit: float = 60.0) -> Self:
        """Start every member that does not run, and wait until all serve.

        Raises:
            InstallationNotFoundError: There is no ZooKeeper or no Java here.
            ServerStartError: A member ended, or does not serve in time.
        """
        if not self._ports:
            self._wire()
        for server in self.servers:
            server.launch()
        for server in self.servers:
            server.wait_until_serving(limit)
        return self

    def stop(self, member: Member | None = None) -> None:
        """End a member, or all, in an orderly way."""
        for server in self._chosen(member):
            server.stop()

    def kill(self, member: Member | None = None) -> None:
        """End a member, or all, by SIGKILL."""
        for server in self._chosen(member):
            server.kill()

    def restart(self, member: Member | None = None, limit: float = 60.0) -> None:
        """Stop and start a member, or all, with data and ports as before, and wait until it serves.

        A member can only serve if, with it, more than half of all run.
        """
        chosen = self._chosen(member)
        for server in chosen:
            server.stop()
        for server in chosen:
            server.launch()
        for server in chosen:
            server.wait_until_serving(limit)

    def pause(self, member: Member | None = None) -> None:
        """Freeze a member, or all, by SIGSTOP."""
        for server in self._chosen(member):
            server.pause()

    def resume(self, member: Member | None = None) -> None:
        """Let a member, or all that are paused, go on."""
        for server in self._chosen(member):
            if member is not None or server.paused:
                server.resume()

    def close(self) -> None:
        """Kill all members, delete their data and close the proxies. May be called twice."""
        for server in self.servers:
            server.close()
        for proxy in self._all_proxies():
            proxy.close()
        self._proxies.clear()
        for port in itertools.chain.from_iterable(self._ports):
            port.release()

    def leader(self, limit: float = _ELECT_LIMIT) -> ZooKeeperServer:
        """Wait until exactly one member says that it leads, and return it.

        A leader that was cut off goes on saying so for up to `sync_limit` ticks.

        Raises:
            AssertionError: There is none, or more than one, after `limit` seconds.
        """
        leader = wait_until(self._single_leader, limit, lambda: f"one leader; roles are {self.roles()}")
        assert leader is not None
        return leader

    def followers(self, limit: float = _ELECT_LIMIT) -> list[ZooKeeperServer]:
        """Wait until there is one leader and every other member that runs follows; return those.

        Raises:
            AssertionError: It is not so after `limit` seconds.
        """

        def found() -> list[ZooKeeperServer]:
            roles = self.roles()
            settled = list(roles.values()).count("leader") == 1 and "none" not in roles.values()
            return [server for server in self.servers if roles.get(server.name) == "follower"] if settled else []

        return wait_until(found, limit, lambda: f"one leader and followers; roles are {self.roles()}")

    def roles(self) -> dict[str, str]:
        """What each running member says that it is, by name: "leader", "follower", "observer"; "none" without one."""
        return {server.name: _role(server) for server in self.servers if server.pid is not None and not server.paused}

    def member_of(self, client: Session) -> ZooKeeperServer | None:
        """The member to which a client's session is connected now; None if to none."""
        session = client if isinstance(client, tuple) else client.client_id
        if session is None:
            return None
        mark = f"sid={session[0]:#x},"
        for server in self.servers:
            try:
                if server.pid is not None and mark in server.command("cons", _ASK_LIMIT):
                    return server
            except UnavailableError:
                continue
        return None

    def expire(self, client: Session) -> None:
        """Really end a client's session; see `Server.expire`. Needs a quorum; the other members follow."""
        self.leader().expire(client)

    # -- parting members

    def part(self, one: Member, other: Member, how: Literal["silent", "reset"] = "silent") -> None:
        """Let nothing pass between two members, until `heal`.

        Args:
            one: A member.
            other: Another.
            how: "silent" swallows everything, as a broken network does: both notice only after `sync_limit` ticks.
                "reset" cuts the connections and refuses new ones: both notice at once.

        Raises:
            RuntimeError: The ensemble was made without `proxied_quorum=True`.
        """
        if how not in {"silent", "reset"}:
            message = f"how must be 'silent' or 'reset', not {how!r}"
            raise ValueError(message)
        if not self._proxied:
            message = "members are connected directly; make the ensemble with proxied_quorum=True"
            raise RuntimeError(message)
        first, second = self._index(one), self._index(other)
        for proxy in (*self._proxies[first, second], *self._proxies[second, first]):
            if how == "silent":
                proxy.blackhole()
            else:
                proxy.refuse()

    def cut_from_leader(self, member: Member, how: Literal["silent", "reset"] = "silent") -> ZooKeeperServer:
        """Part a follower from the leader, and return the leader.

        For up to `sync_limit` ticks the follower goes on answering reads and pings from what it last knew. The others
        have their quorum and go on.
        """
        leader = self.leader()
        self.part(member, leader, how)
        return leader

    def isolate(self, member: Member, how: Literal["silent", "reset"] = "silent") -> None:
        """Part a member from all others. Its clients still reach it."""
        index = self._index(member)
        for other in range(len(self.servers)):
            if other != index:
                self.part(index, other, how)

    def heal(self) -> None:
        """End every parting."""
        for proxy in self._all_proxies():
            proxy.heal()

    # -- inside

    def _chosen(self, member: Member | None) -> tuple[ZooKeeperServer, ...]:
        return self.servers if member is None else (self.servers[self._index(member)],)

    def _index(self, member: Member) -> int:
        return range(len(self.servers))[member] if isinstance(member, int) else self.servers.index(member)

    def _all_proxies(self) -> Iterator[FaultProxy]:
        return itertools.chain.from_iterable(self._proxies.values())

    def _single_leader(self) -> ZooKeeperServer | None:
        roles = self.roles()
        leading = [server for server in self.servers if roles.get(server.name) == "leader"]
        return leading[0] if len(leading) == 1 else None

    def _wire(self) -> None:
        """Reserve the ports, make the proxies, and write each member's list of all."""
        members = range(len(self.servers))
        self._ports = [(reserve_port(), reserve_port()) for _ in members]
        if self._proxied:
            for pair in itertools.permutations(members, 2):
                quorum, election = self._ports[pair[1]]
                # A follower that meets a refused connection tries again, but one that is reset gives up the new leader:
                # so a proxy, which must accept before it knows, waits for a leader that does not listen yet.
                self._proxies[pair] = (
                    FaultProxy((LOOPBACK, quorum.number), patience=_PATIENCE, opaque=True),
                    FaultProxy((LOOPBACK, election.number), opaque=True),
                )
            for (one, other), (_, election_proxy) in self._proxies.items():
                # A member greets with its own election address, and one with a higher id hangs up and calls back there.
                # What it is told must be the proxy for that way, or the call would go past us.
                mine, back = self._ports[one][1].number, self._proxies[other, one][1].port
                election_proxy.rewrite(f":{mine}".encode(), f":{back}".encode())
        for member in members:
            self.servers[member].join_ensemble(member + 1, {f"server.{n + 1}": self._line(member, n) for n in members})

    def _line(self, reader: int, member: int) -> str:
        """How `reader` is told to reach `member`, or where to listen."""
        if self._proxied and reader != member:
            quorum, election = (proxy.port for proxy in self._proxies[reader, member])
        else:
            quorum, election = (port.number for port in self._ports[member])
        return f"{LOOPBACK}:{quorum}:{election}"


def _role(server: ZooKeeperServer) -> str:
    try:
        answer = server.command("srvr", _ASK_LIMIT)
    except UnavailableError:
        return "none"
    for line in answer.splitlines():
        if line.startswith("Mode:"):
            return line.removeprefix("Mode:").strip()
    return "none"
