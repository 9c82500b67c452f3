"""The persistent nodes that a recipe stands on: its root, which says what it is, and those below. Driver-free."""

from __future__ import annotations

from collections.abc import Sequence

from zkrecipes.calls import Unsettled
from zkrecipes.core import Core
from zkrecipes.errors import AccessDeniedError, ConflictError, NodeExistsError, NodeNotFoundError, OutcomeUnknownError
from zkrecipes.paths import ancestors
from zkrecipes.port import Create, Exists, Get, Set
from zkrecipes.stored import check_root, is_root, root_record
from zkrecipes.timing import Deadline

__all__ = ["ensure", "ensure_root", "forget_root"]


async def ensure(core: Core, paths: Sequence[str], label: str, deadline: Deadline) -> None:
    """Make persistent nodes where they are missing, parents given before children; in one flight.

    Raises:
        NodeNotFoundError: The parent of one does not exist.
        AccessDeniedError: One does not exist, and the ACL of its parent forbids to make it.
        UnavailableError: No server answered in time; some may have been made, which does no harm.
    """
    session = core.session
    began, attempts = core.runtime.now(), 0
    while True:
        await session.ready(deadline.at, label)
        calls = [session.call(Create(path, acl=core.nodes.acl)) for path in paths]
        try:
            for path, call in zip(paths, calls, strict=True):
                try:
                    await session.result(call, deadline.at)
                except NodeExistsError:
                    continue
                except AccessDeniedError:
                    # Told before the server looks whether it exists: who may not make it may still use it.
                    if await session.result(session.call(Exists(path)), deadline.at) is None:
                        raise
        except Unsettled:
            attempts += 1
            await core.again(attempts, began, deadline, label)
        else:
            return


async def ensure_root(
    core: Core, path: str, kind: str, label: str, deadline: Deadline, *, shared: bool = False
) -> None:
    """Make the root node of a recipe, and its parents, where they are missing; look at it where it exists.

    Once it was seen, nothing is sent any more, until `forget_root`.

    Args:
        core: The client's core.
        path: Full path of the node.
        kind: Of the recipe.
        label: What messages call it.
        deadline: Until when.
        shared: Another library may have made it as well, and written what it likes.

    Raises:
        ForeignNodeError: It is the root of something else, or of a format that this version does not know.
        UnavailableError: No server answered in time.
    """
    key = ("root", path, kind)
    while key not in core.shared:
        try:
            data, stat = await core.ask(Get(path), deadline, label)
            if is_root(data) or (data and not shared):
                check_root(data, kind, label)
            elif not data:
                # Somebody has made it as a parent of something.
                try:
                    await core.ask(Set(path, root_record(kind), stat.version), deadline, label)
                except AccessDeniedError:
                    if not shared:
                        raise
        except NodeNotFoundError:
            await ensure(core, ancestors(path)[:-1], label, deadline)
            try:
                await core.ask(Create(path, root_record(kind), acl=core.nodes.acl), deadline, label)
            except (NodeExistsError, NodeNotFoundError, OutcomeUnknownError):
                continue  # look what is there now
        except (ConflictError, OutcomeUnknownError):
            continue
        core.shared[key] = True


def forget_root(core: Core, path: str, kind: str) -> None:
    """The root was not there: somebody has deleted it. Look again the next time."""
    core.shared.pop(("root", path, kind), None)
