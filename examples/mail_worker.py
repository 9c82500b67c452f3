"""A mail worker: a queue of mails, two workers, retries with back-off, and dead letters for what cannot be delivered.

Needs a ZooKeeper at ZKRECIPES_HOSTS (127.0.0.1:2181 by default).
"""

import os
import threading
from collections import Counter
from dataclasses import dataclass

from tenacity import wait_exponential

import zkrecipes as zkr

HOSTS = os.environ.get("ZKRECIPES_HOSTS", "127.0.0.1:2181")


@dataclass(frozen=True)
class Mail:
    """What is stored: small. Large attachments belong elsewhere, with their address here."""

    to: str
    subject: str


class MailServer:
    """Stands for the real one: each second mail is refused at first, and there are people whom it does not know."""

    def __init__(self) -> None:
        self.sent: Counter[str] = Counter()
        self._refused: set[str] = set()
        self._lock = threading.Lock()

    def send(self, mail: Mail, key: str) -> None:
        """Send one. The key is for a real server, which sends once whatever it has seen already."""
        if mail.to.startswith("nobody"):
            message = f"{mail.to} is unknown"
            raise LookupError(message)
        with self._lock:
            if mail.to.endswith(("1", "3", "5", "7", "9")) and key not in self._refused:
                self._refused.add(key)
                message = "try again later"
                raise ConnectionError(message)
            self.sent[mail.to] += 1


def queue_of(zk: zkr.Client) -> "zkr.Queue[Mail]":
    """The queue, with the rules that producers and workers share."""
    return zkr.Queue(
        zk,
        "/mails",
        codec=zkr.JsonCodec(Mail),
        max_attempts=3,
        backoff=wait_exponential(multiplier=0.05, max=1.0),  # minutes, in real life
        max_size=10_000,
    )


class Worker:
    """One worker. In real life each is a process on a machine of its own."""

    def __init__(self, name: str, server: MailServer) -> None:
        self.name = name
        self._server = server
        self._zk = zkr.connect(HOSTS, namespace="/examples")
        self._claims = queue_of(self._zk).consume(prefetch=4)
        self._thread = threading.Thread(target=self._work, name=name)
        self._thread.start()

    def _work(self) -> None:
        for claim in self._claims:
            try:
                with claim:  # acknowledges; an exception gives the mail back, with its error
                    # A mail may come twice, after a crash between its sending and its acknowledgement: its id tells.
                    self._server.send(claim.item, key=claim.id)
            except (ConnectionError, LookupError) as error:
                print(f"{self.name}: attempt {claim.attempt} to {claim.item.to} failed: {error}", flush=True)

    def stop(self) -> None:
        """Shut down: what it had claimed ahead goes back at once."""
        self._claims.close()
        self._thread.join()
        self._zk.close()


def main() -> None:
    """Put mails, let them be sent, look at the dead letters, and put them back once the cause is mended."""
    server = MailServer()
    with zkr.connect(HOSTS, namespace="/examples") as zk:
        mails = queue_of(zk)
        welcome = [Mail(f"guest{number}", "Welcome") for number in range(8)]
        mails.put_many(welcome)  # one transaction: all or none
        mails.put(Mail("boss", "Urgent"), priority=-1)
        order = f"order-{os.urandom(4).hex()}"
        bad = mails.put(Mail("nobody", "Hello"), dedup_id=order)
        assert mails.put(Mail("nobody", "Hello"), dedup_id=order) == bad  # put again after a crash: stored once

        workers = [Worker(name, server) for name in ("first", "second")]
        done = threading.Event()
        while not done.wait(0.1):  # a person looks at `zkrecipes queue stats /mails`
            if mails.stats().dead and len(server.sent) > len(welcome):
                done.set()
        for worker in workers:
            worker.stop()

        print(f"sent: {dict(sorted(server.sent.items()))}")
        assert set(server.sent) == {"boss", *(mail.to for mail in welcome)}
        [letter] = mails.dead_letters()
        print(f"dead: {letter.item} after {letter.attempts} attempts: {letter.error}")
        assert letter.id == bad
        assert mails.redrive([bad]) == 1  # as if never attempted
        with mails.take(timeout=10.0) as claim:
            print(f"by hand: {claim.item}, attempt {claim.attempt}")


if __name__ == "__main__":
    main()
