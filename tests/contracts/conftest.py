"""The subjects, each with clients of its own on the shared server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import zkrecipes as zkr
from tests.contracts.hall import SETTINGS, Gardener, Hall, Setting
from tests.contracts.subjects import SUBJECTS, Parties, Party, Subject
from zkrecipes.testing import FaultProxy, Server


@pytest.fixture(params=SUBJECTS, ids=str)
def subject(request: pytest.FixtureRequest) -> Subject:
    chosen: Subject = request.param
    return chosen


@pytest.fixture
def parties(subject: Subject, zkr_server: Server, zkr_namespace: str) -> Iterator[Parties]:
    parties = Parties(subject, zkr_server.hosts, zkr_namespace)
    yield parties
    parties.close()


@pytest.fixture
def party(parties: Parties) -> Party:
    return parties.join()


# --- listeners --------------------------------------------------------------------------------------------------------


@pytest.fixture(params=SETTINGS, ids=str)
def setting(request: pytest.FixtureRequest) -> Setting:
    chosen: Setting = request.param
    return chosen


@pytest.fixture
def hall(
    setting: Setting,
    request: pytest.FixtureRequest,
    zkr_server: Server,
    zkr_namespace: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Hall]:
    """A client for listeners; through `zkr_proxy`, if the test has that, too."""
    if setting.watches == "public":
        monkeypatch.setenv("ZKRECIPES_WIRE", "public")
    proxied = "zkr_proxy" in request.fixturenames
    proxy: FaultProxy | None = request.getfixturevalue("zkr_proxy") if proxied else None
    hall = Hall(setting, zkr_server.hosts if proxy is None else proxy.hosts, zkr_namespace, 4.0 if proxied else 10.0)
    monkeypatch.delenv("ZKRECIPES_WIRE", raising=False)
    yield hall
    hall.close()


@pytest.fixture(scope="module")
def gardening(zkr_server: Server) -> Iterator[zkr.Client]:
    """The client of all gardeners."""
    with zkr.connect(zkr_server.hosts) as client:
        yield client


@pytest.fixture
def gardener(gardening: zkr.Client, zkr_namespace: str) -> Gardener:
    """Changes nodes below the namespace; no fault of the proxy touches it."""
    return Gardener(gardening, zkr_namespace)
