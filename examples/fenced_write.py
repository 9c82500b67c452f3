"""A holder that has lost its lock writes once more, and is refused: by a SQL table's token, and by ZooKeeper's guard.

Needs a ZooKeeper at ZKRECIPES_HOSTS (127.0.0.1:2181 by default).
"""

import os
import sqlite3

import zkrecipes as zkr

HOSTS = os.environ.get("ZKRECIPES_HOSTS", "127.0.0.1:2181")


def sql_write(database: sqlite3.Connection, held: zkr.LockHandle, balance: int) -> None:
    """Write if nobody with a newer token has written: the table itself looks, in the same statement."""
    cursor = database.execute(
        "UPDATE account SET balance = ?, token = ? WHERE id = 1 AND token <= ?", (balance, held.token, held.token)
    )
    print(
        f"SQL write of {balance} with token {held.token}: {'done' if cursor.rowcount else 'refused, a newer one wrote'}"
    )


def guarded_write(zk: zkr.Client, held: zkr.LockHandle, value: bytes) -> None:
    """Write if our lock node is still there: the server looks, in the same transaction."""
    try:
        with zk.transaction() as tx:
            held.guard(tx)
            tx.set("/fenced-write-state", value)
    except (zkr.TransactionError, zkr.LostError) as error:
        print(f"ZooKeeper write of {value!r} with token {held.token}: refused: {error}")
    else:
        print(f"ZooKeeper write of {value!r} with token {held.token}: done")


def main() -> None:
    """Let one holder lose the lock to another, and go on nevertheless."""
    database = sqlite3.connect(":memory:", isolation_level=None)  # each statement is a transaction
    database.executescript("CREATE TABLE account (id, balance, token); INSERT INTO account VALUES (1, 100, 0)")
    with zkr.connect(HOSTS, namespace="/examples") as one, zkr.connect(HOSTS, namespace="/examples") as two:
        if one.exists("/fenced-write-state") is None:
            one.create("/fenced-write-state", parents=True)
        old = zkr.Lock(one, "/fenced-write", identity="old").acquire(timeout=10)
        sql_write(database, old, 90)
        guarded_write(one, old, b"90")
        print("an operator breaks the lock, and another process gets it")
        lock = zkr.Lock(two, "/fenced-write", identity="new")
        lock.break_()
        with lock.acquire(timeout=10) as new:
            sql_write(database, new, 50)
            guarded_write(two, new, b"50")
            sql_write(database, old, 80)
            guarded_write(one, old, b"80")
    print("balance, token:", *database.execute("SELECT balance, token FROM account").fetchone())
    database.close()


if __name__ == "__main__":
    main()
