"""The promises, checked at every instant of virtual time.

`Exclusion`: of the handles of one line no two are valid at once, tokens rise, no two pieces of work run at once.
`Ledger`: what an attempt has left on the servers, and whether something appears after a call has said that nothing
will.
"""

from __future__ import annotations

from typing import Protocol, final

from zkrecipes.hold import Hold
from zkrecipes.testing.simulation.client import SimulatedClient
from zkrecipes.testing.simulation.server import Txn
from zkrecipes.testing.simulation.world import Violation, World

__all__ = ["Exclusion", "Gripped", "Ledger", "ThirdParty"]


class Gripped(Protocol):
    """A handle, or what is behind one."""

    @property
    def hold(self) -> Hold:
        """The node that is held."""
        ...

    @property
    def valid(self) -> bool:
        """Whether it says that it is held."""
        ...


@final
class ThirdParty:
    """What somebody outside did to nodes and sessions, which no client can foresee."""

    def __init__(self) -> None:
        self.paths: dict[str, None] = {}
        self.sessions: dict[int, None] = {}

    def touched(self, hold: Hold) -> bool:
        """Whether a hold's node or session was removed by somebody else."""
        return hold.path in self.paths or hold.session_id in self.sessions


@final
class _Held:
    __slots__ = ("client", "doubted", "freezes", "grip", "works_until")

    def __init__(self, client: SimulatedClient, grip: Gripped) -> None:
        self.client = client
        self.grip = grip
        self.works_until = 0.0
        self.freezes = 0
        self.doubted = False

    def believes(self) -> bool:
        """What `valid` would say now. Asking must not change what it says later, so the latch is set back."""
        hold = self.grip.hold
        before = hold.ended
        valid = self.grip.valid
        hold.ended = before
        return valid


@final
class Exclusion:
    """One line of contenders of which one holds at a time."""

    def __init__(self, world: World, third_party: ThirdParty) -> None:
        self._world = world
        self._third_party = third_party
        self._held: list[_Held] = []
        self._token, self._path = 0, ""
        self.takeovers = 0

    def won(self, client: SimulatedClient, grip: Gripped, *, fresh: bool = True) -> None:
        """A client has been given a handle; a fresh one is valid at that moment."""
        token = grip.hold.token
        self._world.note(client.name, "HOLDS %s, token %#x", grip.hold.path, token)
        if self._third_party.touched(grip.hold):
            pass  # it was deleted on its way to us: somebody behind us may have been served before
        elif token < self._token or (token == self._token and grip.hold.path != self._path):
            message = f"{client.name} got token {token:#x}, but {self._token:#x} had been given out before"
            raise Violation(message, self._world.seed)
        if token > self._token:
            self._token, self._path = token, grip.hold.path
        self.takeovers += 1
        if fresh and not grip.valid and client.process.alive and not self._third_party.touched(grip.hold):
            message = f"{client.name} was given {grip.hold.path}, which it could not prove to hold"
            raise Violation(message, self._world.seed)
        self._held.append(_Held(client, grip))

    def over(self, grip: Gripped) -> None:
        """The user has let go of it."""
        self._held = [held for held in self._held if held.grip is not grip]

    def works(self, grip: Gripped, seconds: float) -> None:
        """The user's work has just seen that it need not stop, and looks again after so many seconds at most."""
        for held in self._held:
            if held.grip is grip:
                held.works_until = self._world.now + seconds
                held.freezes = held.client.process.freezes

    def check(self) -> None:
        """At this instant."""
        if not self._held:
            return
        believers = []
        for held in self._held:
            if not held.believes():
                held.doubted = True
            elif held.doubted:
                self._complain("a hold that was lost came back to life", [held])
            elif held.client.process.alive:
                believers.append(held)
        if len(self._held) < 2:
            return
        believers = [held for held in believers if not self._third_party.touched(held.grip.hold)]
        if len(believers) > 1:
            self._complain("two valid handles at once", believers)
        workers = [held for held in self._held if self._runs(held)]
        if len(workers) > 1:
            self._complain("two pieces of work at once", workers)

    def _runs(self, held: _Held) -> bool:
        if self._world.now >= held.works_until or not held.client.process.alive:
            return False
        if self._third_party.touched(held.grip.hold):
            return False
        # Work that is frozen does not run, and cannot be blamed for what it does before it looks again.
        return held.client.process.freezes == held.freezes

    def _complain(self, what: str, held: list[_Held]) -> None:
        who = ", ".join(f"{each.client.name} ({each.grip.hold.path}, token {each.grip.hold.token:#x})" for each in held)
        message = f"{what}: {who}"
        raise Violation(message, self._world.seed)


@final
class Ledger:
    """The nodes on the servers by what is written in them; each attempt writes something of its own."""

    def __init__(self, world: World, prefix: str, clients: list[SimulatedClient]) -> None:
        self._world = world
        self._prefix = prefix
        self._clients = clients
        self._nodes: dict[str, tuple[bytes, int]] = {}
        self._finished: dict[bytes, None] = {}

    def committed(self, txn: Txn) -> None:
        """A transaction has been committed."""
        for change in txn.changes:
            if change.kind == "create" and change.path.startswith(self._prefix):
                if change.data in self._finished:
                    message = f"{change.path} of {change.data!r} appeared after the call had said that nothing would"
                    raise Violation(message, self._world.seed)
                if change.owner:
                    self._nodes[change.path] = (change.data, change.owner)
            elif change.kind == "delete":
                self._nodes.pop(change.path, None)

    def finish(self, identity: bytes) -> None:
        """The call of this attempt has ended, and said that nothing is left and nothing will come."""
        self._finished[identity] = None
        # The server that has just condemned a session needs a moment to remove its nodes.
        self._world.at(0.1, self._look, identity)

    def _look(self, identity: bytes) -> None:
        for path in self.left(alive=True):
            if self._nodes[path][0] == identity:
                message = f"{path} is still there, though its call had said that nothing is left"
                raise Violation(message, self._world.seed)

    def left(self, *, alive: bool) -> list[str]:
        """All that is there; with `alive`, only what belongs to sessions that some client has now.

        A deposed leader may tell a client that its session is over, while that goes on at the new one until it expires.
        """
        sessions = [client.transport.session_id for client in self._clients if client.process.alive]
        return [path for path, (_, owner) in self._nodes.items() if not alive or owner in sessions]
