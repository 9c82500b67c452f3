"""Listeners and their surroundings: what they cost, how many there can be, and what stays when they are closed."""

from __future__ import annotations

import gc
import itertools
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import zkrecipes as zkr
from tests.contracts.hall import Gardener
from tests.leftovers import Leftovers
from tests.listening import Record
from zkrecipes.testing import FaultProxy, Server, ZooKeeperServer, wait_until

SESSION = 60.0
"""Long, so that no heartbeat falls into a count."""
ROOT = Path(__file__).parents[2]
BATCH = 1000

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture
def zk(zkr_proxy: FaultProxy, zkr_namespace: str) -> Iterator[zkr.Client]:
    with zkr.connect(zkr_proxy.hosts, namespace=zkr_namespace, session_timeout=SESSION) as client:
        yield client


@pytest.fixture
def gardener(zkr_server: Server, zkr_namespace: str) -> Iterator[Gardener]:
    with zkr.connect(zkr_server.hosts) as client:
        yield Gardener(client, zkr_namespace)


@pytest.fixture(params=["persistent", "one-shot"])
def watches(request: pytest.FixtureRequest, zk: zkr.Client) -> str:
    if request.param == "one-shot":
        zk.core.session.watches.recursive = zk.core.session.watches.batches = False
    return str(request.param)


def _plant(gardener: Gardener, paths: list[str], data: bytes = b"") -> None:
    for batch in _batched(paths):
        gardener.plant(dict.fromkeys(batch, data))


def _batched(paths: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(paths), BATCH):
        yield paths[start : start + BATCH]


def _has(path: str, value: bytes) -> Callable[[Mapping[str, zkr.Node[bytes]]], bool]:
    return lambda nodes: nodes[path].value == value


def _nothing_watched(zk: zkr.Client) -> bool:
    """Whether the client's table of watches is empty."""
    table = zk.core.session.watches
    return not any((table._feeds, table._waiting, table._armed, table._asked))


def _threads() -> int:
    """How many there are, those for callbacks apart, of which eight may come at any time."""
    return sum("callbacks" not in thread.name for thread in threading.enumerate())


def _watches(server: Server) -> int:
    return int(server.metrics()["zk_watch_count"])


# --- cost -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["NodeListener", "ChildrenListener", "TreeListener"])
def test_a_change_of_one_node_costs_one_request(
    zkr_proxy: FaultProxy, zk: zkr.Client, gardener: Gardener, watches: str, kind: str
) -> None:
    """In one flight: the read arms the next watch."""
    gardener.plant({"/t": b"", "/t/a": b"0", "/t/b": b""})
    path = "/t/a" if kind == "NodeListener" else "/t"
    with getattr(zkr, kind)(zk, path) as listener:
        zkr_proxy.reset_counts()
        for number in range(1, 6):
            gardener.set("/t/a", b"%d" % number)
            listener.wait_for(_has("/t/a", b"%d" % number), 5.0)
        assert dict(zkr_proxy.counts()) == {"getData": 5}
        assert zkr_proxy.flights() == 5


def test_the_start_of_a_tree_costs_few_requests(zkr_proxy: FaultProxy, zk: zkr.Client, gardener: Gardener) -> None:
    """A hundred nodes with one request, and children only of nodes that have some."""
    parents = [f"/t/{number:02}" for number in range(20)]
    leaves = [f"{parent}/{number:02}" for parent in parents for number in range(20)]
    gardener.plant({"/t": b"", **dict.fromkeys([*parents, *leaves], b"x")})
    zkr_proxy.reset_counts()
    with zkr.TreeListener(zk, "/t") as tree:
        assert len(tree.snapshot()) == 421
        counts = zkr_proxy.counts()
        assert counts["addWatch"] == 1
        # The first of many are read by fewer, until it is known how large they are.
        assert counts.total() <= 1 + 2 + 2 + 7, "the watch; the root, and its list; 20 parents, and lists; 400 leaves"


@pytest.mark.parametrize("watches", ["persistent", "one-shot"], indirect=True)
@pytest.mark.parametrize("kind", ["nodes", "tree", "children"])
def test_a_reconnect_with_two_hundred_nodes(
    zkr_proxy: FaultProxy, zk: zkr.Client, gardener: Gardener, watches: str, kind: str
) -> None:
    """At most a request a node and one for each root of watches, in few flights, and no new thread."""
    paths = [f"/t/{number:03}" for number in range(200)]
    _plant(gardener, ["/t", *paths], b"x")
    kinds: dict[str, Callable[[], Any]] = {
        "nodes": lambda: zkr.NodeListener(zk, *paths),
        "tree": lambda: zkr.TreeListener(zk, "/t", depth=1),
        "children": lambda: zkr.ChildrenListener(zk, "/t"),
    }
    listener = kinds[kind]()
    record = Record(listener)
    with listener:
        record.wait_for("initialized")
        record.clear()
        left = Leftovers()
        zkr_proxy.delay(0.02)  # as on a real network: what is asked back to back is one flight
        zkr_proxy.refuse()
        record.wait_for("stale")
        gardener.set("/t/007", b"y")
        zkr_proxy.reset_counts()
        zkr_proxy.heal()
        record.wait_for("fresh", limit=20.0)
        counts = zkr_proxy.counts()
        requests = counts.total() - counts["connect"] - counts["ping"]
        # The last: a heartbeat that follows each handshake, and the root with its list.
        limit = {"nodes": 200, "tree": 200 + 1, "children": 200 + 1}[kind]
        heartbeat = counts["exists"] + counts["multi"]
        if kind == "nodes" or watches == "persistent":
            assert requests - heartbeat <= limit, counts
        else:
            assert requests - heartbeat <= limit + 2, counts
        if watches == "persistent" and kind != "nodes":
            assert requests - heartbeat <= 10, counts
        assert zkr_proxy.flights() <= 2 + 200 / 16 * 2, zkr_proxy.bursts()
        assert record.changes == [("changed", "/t/007", b"x", b"y")]
        left.none(files=False)


# --- many -------------------------------------------------------------------------------------------------------------


def test_a_thousand_listeners_on_one_client(zkr_server: Server, zkr_namespace: str, gardener: Gardener) -> None:
    """No thread more; when they are closed the server keeps no watch, and nothing refers to them."""
    gardener.plant({"/t": b"", "/t/a": b"0"})
    before = _watches(zkr_server)
    with zkr.connect(zkr_server.hosts, namespace=zkr_namespace) as zk:
        kinds: list[Callable[[], Any]] = [
            lambda: zkr.NodeListener(zk, "/t/a"),
            lambda: zkr.ChildrenListener(zk, "/t"),
            lambda: zkr.TreeListener(zk, "/t"),
            lambda: zkr.NodeListener(zk, "/t/a", "/t/none"),
        ]
        told: list[str] = []
        lock = threading.Lock()

        def tell(change: zkr.Change[bytes]) -> None:
            with lock:
                told.append(change.path)

        warm = zkr.NodeListener(zk, "/t")
        warm.on_created(tell)
        with warm:
            wait_until(lambda: told, 5.0, "the dispatcher runs")
            threads = threading.active_count()
            listeners = [make() for make, _ in zip(itertools.cycle(kinds), range(1000), strict=False)]
            for listener in listeners:
                listener.on_changed(tell, after_initial=True)
                listener.start(20.0)
            told.clear()
            gardener.set("/t/a", b"1")
            wait_until(lambda: len(told) == 1000, 20.0, lambda: f"{len(told)} told")
            # The dispatcher's eight are the limit, however many listen.
            assert threading.active_count() <= threads + 7
            for listener in listeners:
                listener.close()
            references = [weakref.ref(each) for each in listeners]
            references += [weakref.ref(each._state.mirror) for each in listeners]
            del listener, listeners
        wait_until(lambda: _watches(zkr_server) <= before, 5.0, lambda: zkr_server.command("wchp"))
        assert _nothing_watched(zk)
        runtime: Any = zk.core.runtime
        assert not [name for name in runtime._tasks.names() if "mirror" in name]

        def left() -> int:
            gc.collect()
            return sum(reference() is not None for reference in references)

        wait_until(lambda: left() == 0, 5.0, lambda: f"{left()} are referred to")


@pytest.mark.parametrize("watches", ["persistent", "one-shot"], indirect=True)
def test_a_hundred_cycles_of_start_and_close(
    zkr_server: Server, zk: zkr.Client, gardener: Gardener, watches: str
) -> None:
    """J22: no watch, thread, file or object more than before."""
    gardener.plant({"/t": b"", "/t/a": b"0"})

    def cycles(count: int) -> int:
        for _ in range(count):
            tree, children = zkr.TreeListener(zk, "/t"), zkr.ChildrenListener(zk, "/t")
            with tree, children, zkr.NodeListener(zk, "/t/a", "/t/b"):
                tree.on_created(lambda _change: None)
                iter(tree)
        gc.collect()
        return len(gc.get_objects())

    cycles(30)
    before, threads = _watches(zkr_server), _threads()
    objects = cycles(10)
    # Timers of what has ended go by and by, at most some dozens of them; one listener alone is fifty objects and more.
    assert cycles(100) - objects < 2000
    wait_until(lambda: _watches(zkr_server) <= before, 5.0, lambda: zkr_server.command("wchp"))
    assert _threads() == threads
    assert _nothing_watched(zk)


def test_iterations_that_are_left_are_forgotten(zk: zkr.Client, gardener: Gardener) -> None:
    """`for change in listener: break`, again and again, on a listener that lives for long."""
    gardener.plant({"/t": b""})
    with zkr.NodeListener(zk, "/t") as nodes:
        observers = len(nodes._state.mirror.observers)
        for _ in range(20):
            for change in nodes:
                assert change.path == "/t"
                break
        gc.collect()
        gardener.set("/t", b"x")
        nodes.wait_for(_has("/t", b"x"), 5.0)
        assert len(nodes._state.mirror.observers) == observers


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_seventy_thousand_children() -> None:
    """J12."""
    count = 70_000
    paths = [f"/t/{number:05}" for number in range(count)]
    with ZooKeeperServer() as server, zkr.connect(server.hosts) as zk:
        gardener = Gardener(zk, "")
        zk.create("/t")
        for batch in _batched(paths):
            gardener.plant(dict.fromkeys(batch, b"x"))
        with zkr.TreeListener(zk, "/t") as tree:
            record = Record(tree)
            assert len(tree.snapshot()) == count + 1
            record.wait_for("initialized", limit=30.0)
            zk.set("/t/12345", b"y")
            record.wait_for(("changed", "/t/12345", b"x", b"y"))


# --- callbacks that are slow ------------------------------------------------------------------------------------------


def test_a_callback_that_blocks_delays_nobody_else(zk: zkr.Client, gardener: Gardener) -> None:
    """No other listener, no lock, no verb; its own listener merges what it has missed."""
    gardener.plant({"/n": b"0", "/m": b"0"})
    gate, entered = threading.Event(), threading.Event()
    held_by_user = threading.Lock()
    slow, quick = zkr.NodeListener(zk, "/n"), zkr.NodeListener(zk, "/n", "/m")
    told: list[tuple[bytes | None, bytes | None]] = []

    def block(change: zkr.Change[bytes]) -> None:
        entered.set()
        with held_by_user:
            gate.wait(20.0)
        told.append((change.old, change.new))

    slow.on_created(block)
    slow.on_changed(block)
    record = Record(quick)
    with held_by_user, slow, quick:
        assert entered.wait(5.0)
        for number in range(1, 101):
            gardener.set("/n", b"%d" % number)
            if number % 10 == 0:
                quick.wait_for(_has("/n", b"%d" % number), 5.0)
        record.wait_equal({"/n": b"100", "/m": b"0"}, limit=5.0)
        with zkr.Lock(zk, "/lock").acquire(timeout=2.0) as held:
            assert held.valid
        assert slow.get("/n") == quick.get("/n"), "it knows the newest, though its callback has not been told"
        slow.wait_for(lambda nodes: nodes["/n"].value == b"100", 1.0)
        gardener.create("/lock/after")
        assert told == []
        # Bounded: it is behind by one node.
        assert len(slow._state._consumer._behind) == 1
        runtime: Any = zk.core.runtime
        assert all(len(queue) <= 1 for _, queue in runtime._dispatcher._queues.values())
        held_by_user.release()
        gate.set()
        wait_until(lambda: len(told) == 2, 5.0, lambda: str(told))
        assert told == [(None, b"0"), (b"0", b"100")]
        held_by_user.acquire()


def test_verbs_within_callbacks(zk: zkr.Client, gardener: Gardener) -> None:
    """They may block: reads, writes, locks, and the listener's own."""
    gardener.plant({"/n": b"0"})
    nodes = zkr.NodeListener(zk, "/n")
    seen: list[Any] = []

    def work(_change: zkr.Change[bytes]) -> None:
        with zkr.Lock(zk, "/lock").acquire(timeout=5.0):
            zk.create("/made", timeout=5.0)
        seen.append((nodes.get("/n"), nodes.snapshot(), nodes.wait_for(bool, 5.0), next(iter(nodes)).path))

    nodes.on_created(work)
    with nodes:
        wait_until(lambda: seen, 10.0, "the callback has run")
    node = seen[0][0]
    assert seen[0] == (node, {"/n": node}, {"/n": node}, "/n")


def test_callbacks_run_on_the_dispatcher(zk: zkr.Client, gardener: Gardener) -> None:
    """Never on kazoo's threads or the engine, nor in the thread that starts it."""
    gardener.plant({"/n": b"0"})
    names: set[str] = set()
    nodes = zkr.NodeListener(zk, "/n")

    def note(*_: object) -> None:
        names.add(threading.current_thread().name)

    nodes.on_created(note)
    nodes.on_initialized(note)
    with nodes:
        wait_until(lambda: names, 5.0)
    assert all("callbacks" in name for name in names), names


# --- servers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("one_shot", [False, True], ids=["persistent", "one-shot"])
def test_a_server_that_is_started_again(one_shot: bool) -> None:  # noqa: FBT001
    """J20: events go on, with paths below the namespace; what it is told again is nothing new."""
    with (
        ZooKeeperServer(tick_time=0.2) as server,
        zkr.connect(server.hosts, namespace="/app", session_timeout=8.0) as zk,
    ):
        zk.create("/t/a", b"0", parents=True)
        if one_shot:
            zk.core.session.watches.recursive = False
        listeners: list[Any] = [
            zkr.TreeListener(zk, "/t"),
            zkr.NodeListener(zk, "/t/a"),
            zkr.ChildrenListener(zk, "/t"),
        ]
        records = [Record(listener) for listener in listeners]
        for listener, record in zip(listeners, records, strict=True):
            listener.start()
            record.wait_for("initialized")
            record.clear()
        for turn in range(2):
            server.kill()
            for record in records:
                record.wait_for("stale")
            server.start()
            for record in records:
                record.wait_for("fresh", limit=20.0)
                assert record.told == ["stale", "fresh"]
                record.clear()
            zk.set("/t/a", b"%d" % (turn + 1), timeout=10.0)
            for record in records:
                record.wait_for(("changed", "/t/a", b"%d" % turn, b"%d" % (turn + 1)))
                record.clear()
        for listener in listeners:
            listener.close()


# --- fork -------------------------------------------------------------------------------------------------------------

FORK = """
import os, sys, threading, traceback, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of fork() in a process with threads: that is what is tested
import zkrecipes as zkr
from zkrecipes.testing import wait_until

hosts, namespace = sys.argv[1:]
zk = zkr.connect(hosts, namespace=namespace, session_timeout=2.0)
zk.create("/t/a", b"1", parents=True)
told = []
tree = zkr.TreeListener(zk, "/t")
tree.on_changed(told.append)
registration = tree.on_deleted(told.append)
tree.start()
iteration = iter(tree)
next(iteration), next(iteration)


def raises(call):
    try:
        call()
    except zkr.ForkedError:
        return
    raise AssertionError(f"{call} did not raise ForkedError")


def in_the_child():
    assert not tree.fresh
    for call in (
        lambda: tree.start(), lambda: tree.wait_for(bool, 1.0), lambda: tree.on_created(print), tree.snapshot,
        lambda: tree.on_error(print), lambda: tree.get("/t"), lambda: next(iteration), lambda: iter(tree),
        lambda: zkr.NodeListener(zk, "/t").start(),
    ):
        raises(call)
    registration.cancel()
    iteration.close()
    repr(tree)
    tree.close()
    tree.close()
    zk.close()
    with zkr.connect(hosts, namespace=namespace) as own, zkr.TreeListener(own, "/t") as mine:
        assert mine.get("/t/a").value == b"1"
        own.set("/t/a", b"2")
        mine.wait_for(lambda nodes: nodes["/t/a"].value == b"2", 5.0)


holding, go_on = threading.Event(), threading.Event()


def hold():
    with zk.core.runtime.lock:
        holding.set()
        go_on.wait(20.0)


# As if another thread were in the midst of anything: in the child its lock is never free again.
threading.Thread(target=hold, daemon=True).start()
holding.wait(5.0)
child = os.fork()
if child == 0:
    try:
        in_the_child()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)
go_on.set()
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 0, "the child failed"
wait_until(lambda: tree.get("/t/a").value == b"2", 5.0, "the parent goes on")
wait_until(lambda: len(told) == 1, 5.0, "and is told")
zk.set("/t/a", b"3")
wait_until(lambda: len(told) == 2, 5.0, "once for each change")
tree.close()
zk.close()
print("as it should be")
"""


def test_a_forked_child(zkr_server: Server, zkr_namespace: str) -> None:
    """It raises at once instead of waiting for a lock that nobody holds there, and takes nothing from the parent."""
    done = subprocess.run(
        [sys.executable, "-c", FORK, zkr_server.hosts, zkr_namespace],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=45.0,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "as it should be\n"
