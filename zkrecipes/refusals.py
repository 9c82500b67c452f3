"""What a server's refusal means to the caller: error codes become errors of this package. Pure."""

from __future__ import annotations

from typing import Final

from zkrecipes.errors import (
    AccessDeniedError,
    ConflictError,
    NodeExistsError,
    NodeNotFoundError,
    NotEmptyError,
    TransactionError,
    ZkRecipesError,
)
from zkrecipes.port import (
    AddWatch,
    Check,
    Children,
    Code,
    Create,
    Delete,
    Exists,
    Get,
    Multi,
    ReadMany,
    RemoveWatches,
    Request,
    Set,
)

__all__ = ["UnsupportedError", "refusal_error"]


class UnsupportedError(ZkRecipesError):
    """Never told to a user: there is another way to do it."""


_VERBS: Final[dict[type, str]] = {Get: "read", Exists: "read", Check: "read", Children: "list"}


def refusal_error(request: Request | Check, code: int, index: int = -1, namespace: str = "") -> ZkRecipesError:
    """The error for a refused request, or operation `index` of a Multi. Paths are told below the namespace."""
    if isinstance(request, Multi):
        if not 0 <= index < len(request.operations):
            return TransactionError(f"the transaction was refused: {_name(code)}; nothing was applied")
        operation = request.operations[index]
        cause = refusal_error(operation, code, namespace=namespace)
        message = f"operation {index} of the transaction ({type(operation).__name__.lower()}) was refused: {cause}"
        error = TransactionError(f"{message}; nothing was applied", path=cause.path, index=index)
        error.__cause__ = cause
        return error
    return _single(request, code, namespace)


def _single(request: Request | Check, code: int, namespace: str) -> ZkRecipesError:  # noqa: C901 - one line a code
    path = "" if isinstance(request, Multi | ReadMany) else request.path.removeprefix(namespace) or "/"
    match code:
        case Code.UNIMPLEMENTED if isinstance(request, ReadMany | AddWatch | RemoveWatches):
            return UnsupportedError("the server, or the way to it, does not know this kind of request", path=path)
        case Code.NO_NODE if isinstance(request, Create):
            return NodeNotFoundError(f"the parent of {path} does not exist; create it first", path=path)
        case Code.NO_NODE:
            return NodeNotFoundError(f"{path} does not exist", path=path)
        case Code.NODE_EXISTS:
            return NodeExistsError(f"{path} exists already", path=path)
        case Code.NOT_EMPTY:
            return NotEmptyError(f"{path} has children; delete them first", path=path)
        case Code.BAD_VERSION:
            expected = request.version if isinstance(request, Set | Delete | Check) else None
            message = f"{path} is not in version {expected} any more; read it again and decide again"
            return ConflictError(message, path=path, expected=expected)
        case Code.NO_AUTH:
            verb = _VERBS.get(type(request), type(request).__name__.lower())
            message = f"the ACL of {path} or of its parent does not allow to {verb} it; check the client's auth and acl"
            return AccessDeniedError(message, path=path)
        case Code.INVALID_ACL:
            message = f"the server does not accept the ACL given for {path}; check its schemes, and that auth is given"
            return AccessDeniedError(message, path=path)
        case Code.NO_CHILDREN_FOR_EPHEMERALS:
            message = f"the parent of {path} is an ephemeral node, which cannot have children; use another path"
            return ZkRecipesError(message, path=path)
        case Code.QUOTA_EXCEEDED:
            return ZkRecipesError(f"the quota for {path} is used up; raise it with setquota", path=path)
        case _:
            verb = type(request).__name__.lower()
            return ZkRecipesError(f"the server refused {verb} {path}: {_name(code)}", path=path)


def _name(code: int) -> str:
    try:
        return f"{Code(code).name.lower().replace('_', ' ')} ({code})"
    except ValueError:
        return f"error code {code}"
