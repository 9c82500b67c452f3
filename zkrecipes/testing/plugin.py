"""The pytest plugin: a real ZooKeeper for your tests, started when the first test asks for it.

Fixtures:
    zkr_server: One server for the run (under xdist: for each worker); a container or a process.
    zkr_ensemble: Three servers whose connections among one another can be parted. One ensemble for a module.
    zkr_proxy: A FaultProxy before zkr_server, for one test.
    zkr_namespace: A path that nobody else uses, deleted after the test.
    zkr_client: A client on zkr_server with that namespace; through zkr_proxy, if the test asks for both.
    zkr_async_client: The same for asyncio: `async with zkr_async_client as zk`.
    zkr_simulation: Makes simulated ensembles with virtual time; needs no server.

Options: `--zkr-backend=auto|process|container`, `--zkr-image=IMAGE`. `auto` takes a container where a Docker engine
answers and the image can be had, and a local process otherwise. The end of the run says what could not run and why;
with ZKRECIPES_TEST_REQUIRE=all in the environment that fails the run. Tests that use zkr_ensemble are put in one group
of xdist: with `--dist loadgroup` only one ensemble runs at a time (xdist up to 3.8 ignores groups under pytest 9.2; two
ensembles at once do not disturb each other, they only need the machine for it).

A test may stop, kill, pause or part servers as it likes: before the next one they are whole again. Their data stay.

pytest loads this module in every run, so it imports nothing of weight before a fixture is used.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    import zkrecipes
    import zkrecipes.aio
    from zkrecipes.testing.control import Server
    from zkrecipes.testing.ensemble import ZooKeeperEnsemble
    from zkrecipes.testing.proxy import FaultProxy
    from zkrecipes.testing.simulation import Simulation

__all__ = ["absent"]

_ABSENT: Final = pytest.StashKey[dict[str, str]]()
_SERVER: Final = pytest.StashKey["Server"]()
_ENSEMBLE: Final = pytest.StashKey["ZooKeeperEnsemble"]()
_OUTPUT: Final = "zkrecipes_absent"


def absent(config: pytest.Config, part: str, reason: str) -> None:
    """Note that a part of the tests cannot run here. The end of the run tells it, and fails where all is required.

    Args:
        config: pytest's.
        part: What does not run, for example "container backend".
        reason: Why.
    """
    config.stash.setdefault(_ABSENT, {})[part] = reason


# -- options and groups


def pytest_addoption(parser: pytest.Parser) -> None:
    """Our options."""
    group = parser.getgroup("zkrecipes", "ZooKeeper for tests")
    group.addoption(
        "--zkr-backend",
        choices=["auto", "process", "container"],
        default="auto",
        help="how zkr_server is started (default: a container where one can be, else a process)",
    )
    group.addoption("--zkr-image", metavar="IMAGE", help="the container's image (default: ZKRECIPES_TEST_IMAGE)")


def pytest_configure(config: pytest.Config) -> None:
    """Make our use of xdist's marker known, where xdist is not."""
    config.addinivalue_line("markers", "xdist_group(name): tests of one group run in one worker (pytest-xdist)")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Put the tests that need an ensemble in one group, before xdist reads the groups."""
    if "zkr_ensemble" in getattr(item, "fixturenames", ()) and not item.get_closest_marker("xdist_group"):
        item.add_marker(pytest.mark.xdist_group("ensemble"))


# -- what did not run


def _required() -> bool:
    return os.environ.get("ZKRECIPES_TEST_REQUIRE") == "all"


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over what a worker of xdist could not run."""
    for part, reason in getattr(node, "workeroutput", {}).get(_OUTPUT, {}).items():
        absent(node.config, part, reason)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell the main process, or fail the run and write the report."""
    parts = session.config.stash.get(_ABSENT, {})
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output[_OUTPUT] = parts
        return
    if parts and _required() and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    report = os.environ.get("ZKRECIPES_TEST_REPORT")
    if parts and report:
        with Path(report).open("a", encoding="utf-8") as file:
            file.writelines(f"{part} ({reason})\n" for part, reason in sorted(parts.items()))


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what did not run."""
    parts = config.stash.get(_ABSENT, {})
    if parts:
        terminalreporter.section("zkrecipes")
    for part, reason in sorted(parts.items()):
        failed = "FAILED, since all is required: " if _required() else ""
        terminalreporter.write_line(f"zkrecipes: {failed}not run: {part} ({reason})", red=_required(), yellow=True)


# -- fixtures


@pytest.fixture(scope="session")
def zkr_server(pytestconfig: pytest.Config) -> Iterator[Server]:
    """A real server, shared by all tests of the run: use `zkr_namespace`."""
    with _make_server(pytestconfig) as server:
        pytestconfig.stash[_SERVER] = server
        yield server
    del pytestconfig.stash[_SERVER]


def _make_server(config: pytest.Config) -> Server:
    backend = config.getoption("--zkr-backend")
    image = config.getoption("--zkr-image")
    if backend != "process":
        from zkrecipes.testing.container import ZooKeeperContainer, why_not  # noqa: PLC0415 -- only when used

        reason = why_not(image)
        if not reason:
            return ZooKeeperContainer(image)
        if backend == "container":
            _give_up(config, "tests that need a server", reason)
        absent(config, "container backend", reason)
    from zkrecipes.testing.process import ZooKeeperServer  # noqa: PLC0415 -- only when used

    _need_installation(config, "tests that need a server")
    return ZooKeeperServer()


def _need_installation(config: pytest.Config, part: str) -> None:
    from zkrecipes.testing.installation import InstallationNotFoundError, find_installation  # noqa: PLC0415

    try:
        find_installation()
    except InstallationNotFoundError as error:
        _give_up(config, part, str(error))


def _give_up(config: pytest.Config, part: str, reason: str) -> None:
    absent(config, part, reason)
    if _required():
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def zkr_ensemble(pytestconfig: pytest.Config) -> Iterator[ZooKeeperEnsemble]:
    """Three servers that can be killed, paused and parted (`proxied_quorum=True`), shared by the tests of a module."""
    from zkrecipes.testing.ensemble import ZooKeeperEnsemble  # noqa: PLC0415 -- only when used

    _need_installation(pytestconfig, "tests that need an ensemble")
    with ZooKeeperEnsemble(proxied_quorum=True) as ensemble:
        pytestconfig.stash[_ENSEMBLE] = ensemble
        yield ensemble
    del pytestconfig.stash[_ENSEMBLE]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Make whole what earlier tests broke, where this one uses it."""
    fixtures = getattr(item, "fixturenames", ())
    if "zkr_server" in fixtures and _SERVER in item.config.stash:
        _mend(item.config.stash[_SERVER])
    if "zkr_ensemble" in fixtures and _ENSEMBLE in item.config.stash:
        ensemble = item.config.stash[_ENSEMBLE]
        ensemble.heal()
        ensemble.resume()
        ensemble.start()
        ensemble.followers()


def _mend(server: Server) -> None:
    if server.paused:
        server.resume()
    server.start()


@pytest.fixture
def zkr_proxy(zkr_server: Server) -> Iterator[FaultProxy]:
    """A proxy before `zkr_server`, with no fault yet."""
    from zkrecipes.testing.proxy import FaultProxy  # noqa: PLC0415 -- only when used

    with FaultProxy(zkr_server) as proxy:
        yield proxy


@pytest.fixture
def zkr_namespace(zkr_server: Server) -> Iterator[str]:
    """A path of its own for each test; an empty node. Deleted afterwards with all that is in it."""
    from zkrecipes.testing.raw import RawClient, delete_tree  # noqa: PLC0415 -- only when used

    address = (zkr_server.host, zkr_server.port)
    path = f"/zkr-{uuid.uuid4().hex}"
    with RawClient(address) as client:
        client.create(path)
        client.close_session()
    yield path
    _mend(zkr_server)
    delete_tree(address, path)


def _hosts(request: pytest.FixtureRequest, server: Server) -> str:
    """Through the proxy, if the test has one."""
    if "zkr_proxy" in request.fixturenames:
        proxy: FaultProxy = request.getfixturevalue("zkr_proxy")
        return proxy.hosts
    return server.hosts


@pytest.fixture
def zkr_client(request: pytest.FixtureRequest, zkr_server: Server, zkr_namespace: str) -> Iterator[zkrecipes.Client]:
    """A client with a session of 10 s and a namespace of its own; through `zkr_proxy`, if the test has that too."""
    import zkrecipes  # noqa: PLC0415 -- only when used

    with zkrecipes.connect(_hosts(request, zkr_server), namespace=zkr_namespace) as client:
        yield client


@pytest.fixture
def zkr_async_client(request: pytest.FixtureRequest, zkr_server: Server, zkr_namespace: str) -> Any:
    """What `zkrecipes.aio.connect` returns, for `async with zkr_async_client as zk`. Otherwise as `zkr_client`.

    It connects inside your test, so it works with whatever runs your coroutines (pytest-asyncio, anyio, `asyncio.run`).
    """
    import zkrecipes.aio  # noqa: PLC0415 -- only when used

    return zkrecipes.aio.connect(_hosts(request, zkr_server), namespace=zkr_namespace)


@pytest.fixture
def zkr_simulation(request: pytest.FixtureRequest) -> Iterator[Callable[..., Simulation]]:
    """Makes simulated ensembles: `zkr_simulation(servers=3)`, with the arguments of `Simulation`.

    The seed follows from the test's name and parameters, so a test always replays alike; `seed=` takes another one. All
    are closed after the test.
    """
    import zlib  # noqa: PLC0415 -- only when used
    from contextlib import ExitStack  # noqa: PLC0415

    from zkrecipes.testing.simulation import Simulation  # noqa: PLC0415

    # Not hash(), which differs from process to process.
    own = zlib.crc32(request.node.nodeid.encode())
    with ExitStack() as made:

        def make(seed: int | None = None, **options: Any) -> Simulation:
            return made.enter_context(Simulation(own if seed is None else seed, **options))

        yield make
