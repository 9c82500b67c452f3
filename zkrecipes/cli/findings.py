"""What `doctor` finds, and the servers it asks. No verb of its own."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, final

from zkrecipes.client import Client
from zkrecipes.errors import UnavailableError, ZkRecipesError
from zkrecipes.port import Kind
from zkrecipes.testing.control import ask
from zkrecipes.testing.raw import RawClient

__all__ = ["Finding", "Level", "clock_findings", "lease_findings", "server_findings"]

Level = Literal["ok", "info", "unknown", "warning", "bad"]

LEVELS: Final[tuple[Level, ...]] = ("ok", "info", "unknown", "warning", "bad")
"""From good to bad."""

ANSWER_LIMIT: Final = 2.0
CLOCK_SKEW: Final = 1.0
"""Seconds between our clock and the servers' from which on a person is told."""
BEATS: Final = 6
"""Heartbeats in a session timeout."""
DRIFT: Final = 0.01
WORTH_IT: Final = 1.2
"""How much longer a lease must become for `server_tick` to be worth a word."""


@final
@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        level: How good it is; "unknown" if it could not be found out.
        topic: What was looked at.
        text: For a person, with what to do.
        values: For a program.
    """

    level: Level
    topic: str
    text: str
    values: Mapping[str, object] = field(default_factory=dict)


@final
@dataclass(frozen=True)
class Servers:
    """What the servers told.

    Attributes:
        tick: Their tickTime in seconds, if they said it.
        findings: About each.
    """

    tick: float | None
    findings: tuple[Finding, ...]


def server_findings(hosts: str, *, tls: bool) -> Servers:
    """Ask each server for its version and its tick, by four-letter words where it allows them."""
    if tls:
        text = (
            "version and tick are asked for on the plain port, which is not used here (TLS); see each server's zoo.cfg"
        )
        return Servers(None, (Finding("unknown", "servers", text),))
    findings: list[Finding] = []
    ticks: set[float] = set()
    for host in hosts.split(","):
        address, _, port = host.strip().rpartition(":")
        where = (address.strip("[]"), int(port)) if address else (port.strip("[]"), 2181)
        try:
            findings.append(_version(host, ask(where, "srvr", ANSWER_LIMIT)))
            tick, finding = _tick(host, where)
        except ZkRecipesError as error:
            findings.append(Finding("bad", "servers", f"{error}; start it, or take it off --hosts", {"host": host}))
            continue
        findings.append(finding)
        if tick is not None:
            ticks.add(tick)
    if len(ticks) > 1:
        text = f"the servers have different tickTimes ({', '.join(f'{t:g} s' for t in sorted(ticks))}); make them equal"
        findings.append(Finding("bad", "servers", text))
    return Servers(max(ticks, default=None), tuple(findings))


def _version(host: str, srvr: str) -> Finding:
    found = re.search(r"Zookeeper version: (\S+?)[-,]", srvr)
    mode = re.search(r"Mode: (\S+)", srvr)
    if found is None:
        text = f"{host} answers, but does not tell its version (4lw.commands.whitelist lacks srvr)"
        return Finding("unknown", "version", text, {"host": host})
    version = found[1]
    values = {"host": host, "version": version, "mode": mode[1] if mode else None}
    major, minor = (int(part) for part in version.split(".")[:2])
    if (major, minor) < (3, 5):
        return Finding("bad", "version", f"{host} is ZooKeeper {version}; 3.5 is the oldest that is supported", values)
    return Finding("ok", "version", f"{host} is ZooKeeper {version}, {mode[1] if mode else 'mode unknown'}", values)


def _tick(host: str, where: tuple[str, int]) -> tuple[float | None, Finding]:
    found = re.search(r"^tickTime=(\d+)", ask(where, "conf", ANSWER_LIMIT), re.MULTILINE)
    if found is not None:
        tick = int(found[1]) / 1000
        return tick, Finding("ok", "tick", f"{host} has a tick of {tick:g} s", {"host": host, "tick": tick})
    silent = f"{host} does not tell its tick (4lw.commands.whitelist lacks conf)"
    shortest, longest = (_granted(where, wanted) for wanted in (0.001, 1e6))
    if math.isclose(longest, shortest * 10):
        # Two and twenty ticks, unless the operator set both. A guess is told, and never used.
        guess = f"; it grants sessions from {shortest:g} to {longest:g} s, so it is probably {shortest / 2:g} s: ask"
        return None, Finding("unknown", "tick", silent + guess, {"host": host, "probably": shortest / 2})
    return None, Finding("unknown", "tick", silent, {"host": host})


def _granted(where: tuple[str, int], wanted: float) -> float:
    with RawClient(where, session_timeout=min(wanted, 2**31 / 1000 - 1), limit=ANSWER_LIMIT) as client:
        granted: float = client.session_timeout
        client.close_session()
        return granted


def lease_findings(zk: Client, asked: float, tick: float | None) -> Iterator[Finding]:
    """The negotiated session, and what the servers' tick would do for leases."""
    granted = zk.session_timeout
    values = {"asked": asked, "granted": granted}
    if math.isclose(asked, granted, abs_tol=0.01):
        yield Finding("ok", "session", f"a session of {granted:g} s was asked for and granted", values)
    else:
        text = (
            f"a session of {asked:g} s was asked for, and {granted:g} s were granted (see min- and maxSessionTimeout)"
        )
        yield Finding("warning", "session", text, values)
    plain = patience(granted, granted / 4)
    text = f"a hold is given up after {plain:.1f} s of silence"
    if tick is None or tick > granted / 2 or patience(granted, tick / 2) < plain * WORTH_IT:
        yield Finding("ok", "lease", f"{text}, at the earliest", {"patience": plain})
        return
    told = patience(granted, tick / 2)
    advice = f"with server_tick={tick:g} (connect() or --server-tick) it would be {told:.1f} s"
    caution = "tell it only where every server has this tick"
    values = {"patience": plain, "patience_with_tick": told, "server_tick": tick}
    yield Finding("info", "lease", f"{text}; {advice}; {caution}", values)


def patience(timeout: float, margin: float) -> float:
    """The least silence, in seconds, after which a hold is given up: just before a heartbeat, with all going well.

    The proof is the newest answer that is older than the newest write by the margin: some whole beats older, and just
    before the next beat one more.
    """
    beat = timeout / BEATS
    return timeout - margin - max(DRIFT * timeout, 0.05) - (math.ceil(margin / beat - 1e-9) + 1) * beat


def clock_findings(zk: Client) -> Iterator[Finding]:
    """Our clock against the leader's, by the time of a node of our own."""
    try:
        before = time.time()
        path = zk.create("/zkrecipes-doctor-", kind=Kind.EPHEMERAL, sequential=True, parents=True)
        after = time.time()
        stat = zk.exists(path)
        zk.delete(path)
    except UnavailableError:
        raise
    except ZkRecipesError as error:
        yield Finding("unknown", "clock", f"the servers' clock could not be read by a node of our own: {error}")
        return
    if stat is None:
        yield Finding("unknown", "clock", "the servers' clock could not be read: our node has vanished")
        return
    skew = stat.ctime / 1000 - (before + after) / 2
    error_bar = (after - before) / 2
    values = {"skew": round(skew, 3), "uncertainty": round(error_bar, 3)}
    side = "ahead of" if skew > 0 else "behind"
    text = f"the servers' clock is {abs(skew):.3f} s {side} ours (give or take {error_bar:.3f} s)"
    if abs(skew) - error_bar > CLOCK_SKEW:
        advice = "leases do not depend on it, but logs are hard to compare; set both by NTP"
        yield Finding("warning", "clock", f"{text}; {advice}", values)
    else:
        yield Finding("ok", "clock", text, values)
