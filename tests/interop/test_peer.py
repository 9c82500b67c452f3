"""The Curator peer itself: it answers errors, says what is missing, and outlives nobody."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from kazoo.client import KazooClient

from tests.interop import peer
from tests.interop.peer import CuratorPeer, PeerError
from zkrecipes.testing import Server, wait_until

_ROOT = Path(__file__).parents[2]

_PARENT = """
import sys
from tests.interop.peer import CuratorPeer

with CuratorPeer(sys.argv[1]) as peer:
    print(peer.pid, flush=True)
    sys.stdin.read()
"""


def test_command_that_fails_raises_what_curator_said(curator: CuratorPeer) -> None:
    with pytest.raises(PeerError, match="unknown command"):
        curator.call("make.coffee")


def test_process_that_is_killed_fails_the_calls_that_wait(zkr_server: Server, curator_here: None) -> None:
    with CuratorPeer(zkr_server.hosts) as doomed:
        lock = doomed.lock("/interop/peer/killed")
        assert lock.acquire(5.0)
        waiting = doomed.lock("/interop/peer/killed").acquire_soon(30.0)
        doomed.kill()
        with pytest.raises(PeerError, match="has ended"):
            waiting.result(10.0)
        with pytest.raises(PeerError, match="has ended"):
            lock.release()


def test_close_ends_the_session_at_once(zkr_server: Server, curator_here: None, kazoo: KazooClient, path: str) -> None:
    with CuratorPeer(zkr_server.hosts) as peer:
        assert peer.lock(path).acquire(5.0)
        assert len(kazoo.get_children(path)) == 1
    assert kazoo.get_children(path) == []


def test_process_dies_with_a_parent_that_is_killed(zkr_server: Server, curator_here: None) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT, zkr_server.hosts],
        cwd=_ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        assert parent.stdout is not None
        java = Path("/proc", parent.stdout.readline().strip(), "cmdline")
        assert b"CuratorPeer" in java.read_bytes()
        parent.kill()

    def gone() -> bool:
        # The number may be given to another process at once; a zombie has no command line.
        return not java.exists() or b"CuratorPeer" not in java.read_bytes()

    wait_until(gone, 10.0, "the Java process has ended")


def test_missing_parts_are_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(peer, "_JARS", tmp_path)
    reason = peer.missing()
    assert reason is not None
    assert "javac" in reason
    assert "curator-recipes.jar" in reason
    assert "apt-get install" in reason
    with pytest.raises(PeerError, match="apt-get install"), CuratorPeer("127.0.0.1:1"):
        pass
