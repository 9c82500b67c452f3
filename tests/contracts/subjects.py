"""What hands out a handle, behind one face, so that the same cases run for all: for threads and for asyncio.

A `Party` is one client with one recipe on it. Its verbs block; those of asyncio run on an event loop in another thread.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple, final

import zkrecipes as zkr
import zkrecipes.aio as zkr_aio
from zkrecipes.testing import wait_until

KINDS: Final = ("lock", "rlock", "handoff", "election")
DRIVERS: Final = ("threads", "asyncio")
PATH: Final = "/contested"
LIMIT: Final = 20.0
"""Seconds for what is no matter of measurement."""


class Subject(NamedTuple):
    """What is tested, and how it is driven."""

    kind: str
    driver: str

    @property
    def lost_error(self) -> type[zkr.LostError]:
        errors = {"election": zkr.LeadershipLostError, "claim": zkr.ClaimLostError}
        return errors.get(self.kind, zkr.LockLostError)

    def __str__(self) -> str:
        return f"{self.kind}-{self.driver}"


ELECTIONS: Final = tuple(Subject("election", driver) for driver in DRIVERS)
SUBJECTS: Final = tuple(Subject(kind, driver) for driver in DRIVERS for kind in KINDS)
CLAIMS: Final = tuple(Subject("claim", driver) for driver in DRIVERS)
"""Handles as the others, but nobody stands in line for them."""


@final
class Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="event loop", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def do(self, function: Callable[[], Any]) -> Any:
        """Call it on the loop; what it returns is awaited, if it can be."""
        return asyncio.run_coroutine_threadsafe(_awaited(function), self.loop).result(LIMIT)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(LIMIT)
        # asyncio.to_thread's threads
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()


async def _awaited(function: Callable[[], Any]) -> Any:
    value = function()
    return await value if inspect.isawaitable(value) else value


@final
class Later:
    """Something that runs in a thread of its own; how long it took, and how it ended."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self._function = function
        self._value: Any = None
        self.error: BaseException | None = None
        self.seconds = self.ended = 0.0
        self._thread = threading.Thread(target=self._run, name="later", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        began = time.monotonic()
        try:
            self._value = self._function()
        except BaseException as error:  # noqa: BLE001 - handed to whoever asks for the result
            self.error = error
        self.ended = time.monotonic()
        self.seconds = self.ended - began

    @property
    def done(self) -> bool:
        return not self._thread.is_alive()

    def result(self, limit: float = LIMIT) -> Any:
        self.wait(limit)
        if self.error is not None:
            raise self.error
        return self._value

    def wait(self, limit: float = LIMIT) -> None:
        self._thread.join(limit)
        assert not self._thread.is_alive(), f"still running after {limit} s"


@final
class Party:
    """One client, with one recipe on it.

    Attributes:
        client: zkrecipes.Client or zkrecipes.aio.Client.
        recipe: What is tested.
    """

    def __init__(
        self, subject: Subject, loop: Loop | None, hosts: str, namespace: str, session_timeout: float, **options: Any
    ) -> None:
        self.subject = subject
        self._loop = loop
        connect: Callable[..., Any] = zkr.connect if loop is None else zkr_aio.connect
        self.client: Any = self.do(lambda: connect(hosts, namespace=namespace, session_timeout=session_timeout))
        self.recipe = self.make(**options)
        self._held: list[Any] = []  # a handle that nobody has any more would be released
        if subject.kind == "claim":
            stats = self.do(self.recipe.stats)
            if not stats.waiting + stats.claimed:
                self.do(lambda: self.recipe.put(b"the only item"))

    def make(self, path: str = PATH, **options: Any) -> Any:
        """Another recipe on the same client."""
        package: Any = zkr if self._loop is None else zkr_aio
        match self.subject.kind:
            case "lock":
                return package.Lock(self.client, path, **options)
            case "rlock":
                return package.RLock(self.client, path, **options)
            case "handoff":
                return package.Lock(self.client, path, local_handoff=zkr.LocalHandoff(), **options)
            case "claim":
                return package.Queue(self.client, path, **options)
            case _:
                return package.Election(self.client, path, **options)

    def do(self, function: Callable[[], Any]) -> Any:
        """Call a verb, and await it where that is needed."""
        return function() if self._loop is None else self._loop.do(function)

    # --- verbs of the recipe, by whatever name ------------------------------------------------------------------------

    def acquire(self, timeout: float | None = LIMIT, **options: Any) -> Any:
        verb = {"election": "campaign", "claim": "take"}.get(self.subject.kind, "acquire")
        handle = self.do(lambda: getattr(self.recipe, verb)(timeout, **options))
        self._held.append(handle)
        return handle

    def acquire_later(self, timeout: float | None = LIMIT, **options: Any) -> Later:
        """In another thread; returns when it stands in line, or has ended."""
        standing = len(self.line())
        later = Later(lambda: self.acquire(timeout, **options))
        wait_until(lambda: later.done or len(self.line()) > standing, LIMIT, "it stands in line")
        return later

    def try_acquire(self, *timeout: float) -> Any:
        verb = {"election": "try_campaign", "claim": "try_take"}.get(self.subject.kind, "try_acquire")
        handle = self.do(lambda: getattr(self.recipe, verb)(*timeout))
        self._held.append(handle)
        return handle

    def line(self) -> list[zkr.Contender]:
        if self.subject.kind == "claim":
            return self._claims()
        verb = "participants" if self.subject.kind == "election" else "contenders"
        contenders: list[zkr.Contender] = self.do(getattr(self.recipe, verb))
        return contenders

    def _claims(self) -> list[zkr.Contender]:
        claims = "lanes/80000000/c0000000000"
        names = self.do(lambda: self.client.children(f"{PATH}/{claims}"))
        stats = [(name, self.do(partial(self.client.exists, f"{PATH}/{claims}/{name}"))) for name in names]
        return [zkr.Contender("", stat.czxid, True, f"{claims}/{name}") for name, stat in stats if stat is not None]

    def make_anew(self) -> None:
        """Delete the path, so that it is made again; a queue's never is while there are items."""
        if self.subject.kind != "claim":
            self.do(lambda: self.client.delete(PATH))

    def release(self, handle: Any) -> None:
        self.do(handle.release)

    def inside(self, handle: Any, body: Callable[[], object]) -> None:
        """Run `body` inside the handle's `with`."""
        if self._loop is None:
            with handle:
                body()
            return

        async def block() -> None:
            async with handle:
                await asyncio.to_thread(body)

        self.do(block)

    def guarded_set(self, handle: Any, path: str, data: bytes, *, before_commit: Callable[[], object] = int) -> None:
        """One guarded write; `before_commit` runs between guard() and the commit."""
        tx = self.client.transaction()
        handle.guard(tx)
        tx.set(path, data)
        before_commit()
        self.do(tx.commit)

    def delete_node(self, contender: int = 0) -> None:
        """Delete a contender's node, as an operator would; call it on a party of its own."""
        # Of a claim, its item: another consumer may have it after the claim's own node alone was deleted.
        node = self.line()[contender].node.replace("/c0000000000/", "/s0000000000/")
        self.do(lambda: self.client.delete(f"{PATH}/{node}"))

    def run(self, work: Callable[[Any], object], **options: Any) -> None:
        """Election.run; under asyncio the work is run in a thread, and awaited."""
        if self._loop is None:
            self.recipe.run(work, **options)
            return

        async def awaited(leadership: Any) -> None:
            await asyncio.to_thread(work, leadership)

        self.do(lambda: self.recipe.run(awaited, **options))

    def close(self) -> None:
        self.do(self.client.close)


@final
class Parties:
    """The clients of one test."""

    def __init__(self, subject: Subject, hosts: str, namespace: str) -> None:
        self.subject = subject
        self._hosts = hosts
        self._namespace = namespace
        self._loop = Loop() if subject.driver == "asyncio" else None
        self._joined: list[Party] = []

    def join(self, hosts: str = "", session_timeout: float = 10.0, **options: Any) -> Party:
        """A new client; options are the recipe's."""
        party = Party(self.subject, self._loop, hosts or self._hosts, self._namespace, session_timeout, **options)
        self._joined.append(party)
        return party

    def close(self) -> None:
        for later in [Later(party.close) for party in self._joined]:
            later.result()
        if self._loop is not None:
            self._loop.close()
