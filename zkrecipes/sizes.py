"""What the server takes: sizes and versions, checked before anything is sent. Pure."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from zkrecipes.errors import PayloadTooLargeError
from zkrecipes.port import Acl, Create, Multi, Request, Set

__all__ = ["MAX_REQUEST", "check_size", "check_version"]

# The server's jute.maxbuffer is 0xfffff bytes by default and counts the whole request; an operation's fixed fields and
# its ACL's are counted as OVERHEAD.
MAX_REQUEST: Final = 0xFFFFF - 1024
OVERHEAD: Final = 64

_LAST_VERSION: Final = 2**31 - 1


def check_size(request: Request, namespace: str = "") -> None:
    """Refuse what is over the server's default limit, about one mebibyte. Paths are told below the namespace.

    Raises:
        PayloadTooLargeError: It is too large.
    """
    if isinstance(request, Create | Set):
        size = _size(request)
    elif isinstance(request, Multi):
        size = sum(_size(operation) for operation in request.operations)
    else:
        return
    if size > MAX_REQUEST:
        path = "" if isinstance(request, Multi) else request.path.removeprefix(namespace)
        message = (
            f"a {type(request).__name__.lower()} of {size} bytes{f' at {path}' if path else ''} is over the server's "
            f"limit of {MAX_REQUEST}; nothing was sent. Keep large data elsewhere, and its address here"
        )
        raise PayloadTooLargeError(message, path=path, size=size, limit=MAX_REQUEST)


def _size(operation: object) -> int:
    size = OVERHEAD
    if isinstance(operation, Create):
        size += len(operation.data) + _acl_size(operation.acl)
    elif isinstance(operation, Set):
        size += len(operation.data)
    return size + 4 * len(getattr(operation, "path", ""))  # as UTF-8, at most


@lru_cache(maxsize=256)
def _acl_size(acl: tuple[Acl, ...]) -> int:
    return sum(OVERHEAD + len(entry.scheme) + len(entry.id) for entry in acl)


def check_version(version: int) -> int:
    """Check a version given by the user: -1 is any.

    Raises:
        TypeError: It is no int.
        ValueError: It is out of range.
    """
    if isinstance(version, bool) or not isinstance(version, int):
        message = f"version must be an int (-1 for any), not {type(version).__name__}"
        raise TypeError(message)
    if not -1 <= version <= _LAST_VERSION:
        message = f"version must be from -1 (any) to {_LAST_VERSION}, not {version}"
        raise ValueError(message)
    return version
