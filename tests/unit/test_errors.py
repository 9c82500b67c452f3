"""The error tree: what is what, that errors travel between processes, and that they say what to do."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

import zkrecipes
from zkrecipes import errors
from zkrecipes.config_model import FieldError
from zkrecipes.hold import LostReason
from zkrecipes.port import Check, Children, Code, Create, Delete, Exists, Get, Multi, Set, Sync
from zkrecipes.refusals import refusal_error
from zkrecipes.topic_layout import Position

CLASSES = [getattr(errors, name) for name in errors.__all__]

EXTRAS: dict[str, dict[str, Any]] = {
    "AcquireTimeoutError": {"timeout": 1.5, "left_behind": True},
    "SubscriptionBusyError": {"timeout": 1.5, "left_behind": True},
    "GapError": {"first_missing": Position(0, 3), "resumed_at": Position(1, 0)},
    "UnavailableError": {"left_behind": True},
    "LostError": {"reason": LostReason.EXPIRED},
    "LockLostError": {"reason": LostReason.NODE_DELETED},
    "LeadershipLostError": {"reason": LostReason.CLOSED},
    "ClaimLostError": {"reason": LostReason.FORKED},
    "MembershipLostError": {"reason": LostReason.UNREACHABLE},
    "ConflictError": {"expected": 3, "actual": 4},
    "TransactionError": {"index": 2},
    "DecodeError": {"raw": b"\xff"},
    "ConfigRejectedError": {"version": 3, "errors": (FieldError("database.port", "too large"),)},
    "PayloadTooLargeError": {"size": 2_000_000, "limit": 1_000_000},
}


@pytest.mark.parametrize("error_class", CLASSES, ids=lambda c: c.__name__)
def test_errors_travel_between_processes(error_class: type[errors.ZkRecipesError]) -> None:
    extras = EXTRAS.get(error_class.__name__, {})
    error = error_class("what happened; what to do", path="/a/b", **extras)
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(twin) is error_class
        assert str(twin) == "what happened; what to do"
        assert twin.path == "/a/b"
        assert {name: getattr(twin, name) for name in extras} == extras


@pytest.mark.parametrize("error_class", CLASSES, ids=lambda c: c.__name__)
def test_there_is_one_root(error_class: type[errors.ZkRecipesError]) -> None:
    assert issubclass(error_class, errors.ZkRecipesError)
    assert error_class("x").path == ""


def test_timeouts_are_timeouts() -> None:
    """`except TimeoutError` catches what a deadline has ended, and nothing else."""
    timeouts = {c for c in CLASSES if issubclass(c, TimeoutError)}
    assert timeouts == {errors.AcquireTimeoutError, errors.SubscriptionBusyError, errors.UnavailableError}


def test_losses_are_told_apart_from_refusals() -> None:
    lost = {c.__name__ for c in CLASSES if issubclass(c, errors.LostError)}
    assert lost == {"LostError", "LockLostError", "LeadershipLostError", "ClaimLostError", "MembershipLostError"}


def test_too_large_is_a_bad_argument() -> None:
    assert issubclass(errors.PayloadTooLargeError, ValueError)


def test_no_error_shadows_that_of_asyncio() -> None:
    """Ours is an Exception: `except Exception` must catch it, unlike asyncio's."""
    assert issubclass(errors.CancelledError, Exception)


def test_the_public_errors_are_in_the_package() -> None:
    used = set(errors.__all__) - {"ClaimLostError", "MembershipLostError"}  # of recipes to come
    assert used <= set(zkrecipes.__all__)


# --- the server's refusals ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "code", "expected"),
    [
        (Get("/a"), Code.NO_NODE, errors.NodeNotFoundError),
        (Create("/a/b"), Code.NO_NODE, errors.NodeNotFoundError),
        (Create("/a"), Code.NODE_EXISTS, errors.NodeExistsError),
        (Delete("/a"), Code.NOT_EMPTY, errors.NotEmptyError),
        (Set("/a", b"", 3), Code.BAD_VERSION, errors.ConflictError),
        (Delete("/a", 3), Code.BAD_VERSION, errors.ConflictError),
        (Children("/a"), Code.NO_AUTH, errors.AccessDeniedError),
        (Create("/a"), Code.INVALID_ACL, errors.AccessDeniedError),
        (Create("/a/b"), Code.NO_CHILDREN_FOR_EPHEMERALS, errors.ZkRecipesError),
        (Create("/a/b"), Code.QUOTA_EXCEEDED, errors.ZkRecipesError),
        (Sync("/"), Code.THROTTLED, errors.ZkRecipesError),
        (Exists("/a"), -99, errors.ZkRecipesError),
    ],
)
def test_a_refusal_names_the_path(request_: Any, code: int, expected: type[errors.ZkRecipesError]) -> None:
    error = refusal_error(request_, code)
    assert type(error) is expected
    assert request_.path in str(error)
    assert error.path == request_.path


def test_a_conflict_names_the_expected_version() -> None:
    error = refusal_error(Set("/a", b"", 3), Code.BAD_VERSION)
    assert isinstance(error, errors.ConflictError)
    assert error.expected == 3


def test_a_parent_that_is_missing_is_told_from_a_node_that_is() -> None:
    assert "parent" in str(refusal_error(Create("/a/b"), Code.NO_NODE))
    assert "parent" not in str(refusal_error(Delete("/a/b"), Code.NO_NODE))


def test_a_transaction_names_the_refused_operation() -> None:
    request = Multi((Check("/lock"), Set("/state", b"", 4)))
    error = refusal_error(request, Code.BAD_VERSION, 1)
    assert isinstance(error, errors.TransactionError)
    assert (error.index, error.path) == (1, "/state")
    assert isinstance(error.__cause__, errors.ConflictError)
    assert "nothing was applied" in str(error)


@pytest.mark.parametrize("index", [-1, 2])
def test_a_transaction_refused_as_a_whole(index: int) -> None:
    error = refusal_error(Multi((Check("/a"), Check("/b"))), -99, index)
    assert isinstance(error, errors.TransactionError)
    assert error.index == -1
