"""A process that holds one of each kind, says so, and waits to be killed.

python -m tests.contracts.holder <hosts> <namespace> <driver> <session timeout>
"""

from __future__ import annotations

import sys

from tests.contracts.subjects import KINDS, PATH, Parties, Subject


def main() -> None:
    hosts, namespace, driver, timeout = sys.argv[1:]
    held = []
    for kind in KINDS:
        party = Parties(Subject(kind, driver), hosts, namespace).join(session_timeout=float(timeout))
        party.recipe = party.make(f"{PATH}-{kind}")
        held.append(party.acquire())
    assert all(handle.valid for handle in held)
    sys.stdout.write("held\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()
