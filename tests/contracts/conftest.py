"""The subjects, each with clients of its own on the shared server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contracts.subjects import SUBJECTS, Parties, Party, Subject
from zkrecipes.testing import Server


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
