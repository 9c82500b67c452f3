"""What every kind of server has in common: four-letter words, metrics, and real session expiry."""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from typing import Final, Protocol, Self

from zkrecipes.errors import UnavailableError
from zkrecipes.testing.raw import end_session

__all__ = ["HasSession", "Server", "Session"]

_EXPIRE_TRIES: Final = 20


class HasSession(Protocol):
    """A client that tells its session: kazoo's, ours, `RawClient`."""

    @property
    def client_id(self) -> tuple[int, bytes] | None:
        """The session's id and password."""


Session = HasSession | tuple[int, bytes]


class Server(ABC):
    """A ZooKeeper server that tests may stop, kill, pause and ask.

    `stop`, `kill` and `restart` keep data and ports; `close` gives both up. A `with` block starts the server and closes
    it. All verbs do nothing where there is nothing to do: `start` while it runs, `stop` when it does not.
    """

    host: str = "127.0.0.1"

    @property
    @abstractmethod
    def port(self) -> int:
        """The port for clients. It stays the same over `stop` and `start`.

        Raises:
            RuntimeError: The server has never been started.
        """

    @property
    def hosts(self) -> str:
        """The address to connect to, "127.0.0.1:port"."""
        return f"{self.host}:{self.port}"

    @property
    @abstractmethod
    def pid(self) -> int | None:
        """The server's process id on this machine; None while it does not run."""

    @property
    @abstractmethod
    def paused(self) -> bool:
        """Whether it stands still after `pause`."""

    @abstractmethod
    def start(self, limit: float = 30.0) -> Self:
        """Start it and wait until it serves, for at most `limit` seconds."""

    @abstractmethod
    def stop(self) -> None:
        """End it in an orderly way."""

    @abstractmethod
    def kill(self) -> None:
        """End it by SIGKILL, as a crash would."""

    @abstractmethod
    def pause(self) -> None:
        """Freeze it, as a long garbage collection would: connections stay open and nothing is answered.

        Raises:
            RuntimeError: It does not run.
        """

    @abstractmethod
    def resume(self) -> None:
        """Let it go on after `pause`."""

    @abstractmethod
    def close(self) -> None:
        """End it and delete its data. It cannot be started again."""

    def restart(self, limit: float = 30.0) -> Self:
        """Stop and start it, with the same data on the same port."""
        self.stop()
        return self.start(limit)

    def command(self, word: str, timeout: float = 5.0) -> str:
        """Ask by a four-letter word ("ruok", "srvr", "mntr", "wchs", "cons", "dump" ...).

        Args:
            word: The word.
            timeout: Seconds until each part of the answer.

        Raises:
            UnavailableError: There was no answer in time.
        """
        return ask((self.host, self.port), word, timeout)

    def metrics(self) -> dict[str, int | float | str]:
        """What "mntr" tells: counters and gauges by name, numbers as numbers.

        Raises:
            UnavailableError: The server does not answer, or does not serve yet.
        """
        answer = self.command("mntr")
        pairs = [line.split("\t", 1) for line in answer.splitlines() if "\t" in line]
        if not pairs:
            message = f"{self.hosts} does not serve: {answer.strip()}"
            raise UnavailableError(message)
        return {name: _number(value) for name, value in pairs}

    def serves(self) -> bool:
        """Whether it answers clients now (in an ensemble: whether it has a quorum)."""
        try:
            return "Mode:" in self.command("srvr", timeout=1.0)
        except UnavailableError:
            return False

    def expire(self, client: Session) -> None:
        """Really end a client's session, so that its ephemeral nodes go and it is told "expired" when it comes back.

        A twin connection with the same session id and password closes the session. Returns when the server confirms
        that the session is gone.

        Args:
            client: Anything with a `client_id` (kazoo's client, ours), or a pair of session id and password.

        Raises:
            ValueError: The client has no session.
            UnavailableError: The server does not answer.
        """
        session = client if isinstance(client, tuple) else client.client_id
        if session is None or not session[0]:
            message = "the client has no session to expire; connect it first"
            raise ValueError(message)
        last: UnavailableError | None = None
        for _ in range(_EXPIRE_TRIES):
            try:
                if end_session((self.host, self.port), session):
                    return
            except UnavailableError as error:
                last = error
        message = f"the session {session[0]:#x} could not be ended in {_EXPIRE_TRIES} tries"
        raise UnavailableError(message) from last

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def ask(address: tuple[str, int], word: str, timeout: float = 5.0) -> str:
    """Send a four-letter word, and return the whole answer.

    Raises:
        UnavailableError: There was no answer in time.
    """
    try:
        with socket.create_connection(address, timeout) as connection:
            connection.sendall(word.encode("ascii"))
            chunks = iter(lambda: connection.recv(65536), b"")
            return b"".join(chunks).decode(errors="replace")
    except OSError as error:
        message = f"{address[0]}:{address[1]} does not answer {word!r}: {error}"
        raise UnavailableError(message) from error


def _number(value: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value
