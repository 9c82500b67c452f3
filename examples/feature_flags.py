"""Feature flags: typed, for a share of the users, changed while the service runs, and overridden on one machine.

Needs a ZooKeeper at ZKRECIPES_HOSTS (127.0.0.1:2181 by default).
"""

import hashlib
import json
import os
from collections.abc import Callable

from pydantic import BaseModel, ConfigDict, Field

import zkrecipes as zkr

HOSTS = os.environ.get("ZKRECIPES_HOSTS", "127.0.0.1:2181")
PATH = "/feature-flags"
USERS = [f"user-{number}" for number in range(1000)]


class Flag(BaseModel):
    """One feature."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    percent: float = Field(default=0, ge=0, le=100)  # of the users
    users: frozenset[str] = frozenset()  # who always have it


class Flags(BaseModel):
    """All features, each with its name: a typing error in a name is refused, not ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    new_checkout: Flag = Flag()
    dark_mode: Flag = Flag()


def has(flag: Flag, name: str, user: str) -> bool:
    """Whether a user has a feature: the same answer each time, and whoever has it at 10 % has it at 20 %."""
    digest = hashlib.sha256(f"{name}/{user}".encode()).digest()
    return user in flag.users or int.from_bytes(digest[:4], "big") / 2**32 * 100 < flag.percent


def share(flags: Flags) -> str:
    """How many users have the new checkout."""
    count = sum(has(flags.new_checkout, "new_checkout", user) for user in USERS)
    return f"{count} of {len(USERS)} users have the new checkout"


def rolled_out(percent: float) -> Callable[[Flags], bool]:
    """A condition to wait for."""
    return lambda flags: flags.new_checkout.percent == percent


def main() -> None:
    """Roll a feature out, make a mistake, look where a value comes from."""
    os.environ["FLAGS_DARK_MODE__PERCENT"] = "100"  # as on a developer's machine
    with zkr.connect(HOSTS, namespace="/examples") as zk:
        releases = zkr.ConfigReleases(zk, PATH, Flags)
        releases.publish(json.dumps({"new_checkout": {"users": ["user-7"]}}), reason="begin with one")
        with zkr.Config(zk, PATH, Flags, layers=(zkr.Env(prefix="FLAGS_"),)) as config:

            @config.on_change(lambda flags: flags.new_checkout)
            def changed(change: zkr.ConfigChange[Flag]) -> None:
                print(f"new_checkout: {change.old.percent:g} % -> {change.new.percent:g} %", flush=True)

            print(share(config.current))
            for percent in (10, 50):
                document = {"new_checkout": {"users": ["user-7"], "percent": percent}}
                releases.publish(json.dumps(document), reason=f"{percent} %")
                print(share(config.wait_for(rolled_out(percent), timeout=10)))
            try:
                releases.publish(json.dumps({"new_chekout": {"percent": 100}}), reason="all")
            except zkr.ConfigRejectedError as error:
                print(error)

            for value in config.explain():
                print(value)
            changed.cancel()


if __name__ == "__main__":
    main()
