"""`zkrecipes counter get | add | set` and `zkrecipes id next`."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from zkrecipes.cli.output import out, usage_errors
from zkrecipes.cli.verbs import Json, Path, settings_of, verb
from zkrecipes.counter import Counter, CounterLayoutName, IdGenerator

__all__ = ["app", "ids"]

app = typer.Typer(help="Count, over all processes.", no_args_is_help=True)
ids = typer.Typer(help="Draw identifiers that nobody else gets.", no_args_is_help=True)

NUMBERS: Final = {"ignore_unknown_options": True}
"""So that -5 is a number, and no option."""

Layout = Annotated[
    CounterLayoutName,
    typer.Option("--layout", help="int64 and int32 are Curator's, text is kazoo's and has no limit."),
]


@app.command("get")
def get(context: typer.Context, path: Path, *, layout: Layout = "int64", as_json: Json = False) -> None:
    """Print the number; 0 if there is none yet."""
    with verb(as_json=as_json), settings_of(context).connect() as zk:
        with usage_errors():
            counter = Counter(zk, path, layout=layout)
        _print(path, counter.value())


@app.command("add", context_settings=NUMBERS)
def add(
    context: typer.Context,
    path: Path,
    n: Annotated[int, typer.Argument(metavar="[N]", help="What is added; may be negative.")] = 1,
    *,
    layout: Layout = "int64",
    as_json: Json = False,
) -> None:
    """Add N and print the number after. Counted exactly once: with status 74 it is not known whether it was."""
    with verb(as_json=as_json), settings_of(context).connect() as zk:
        with usage_errors():
            counter = Counter(zk, path, layout=layout)
        _print(path, counter.add(n))


@app.command("set", context_settings=NUMBERS)
def set_(
    context: typer.Context,
    path: Path,
    value: Annotated[int, typer.Argument(metavar="N", help="The new number.")],
    *,
    expected: Annotated[
        int | None, typer.Option("--expected", metavar="N", help="Only if this is the number; else status 1.")
    ] = None,
    layout: Layout = "int64",
    as_json: Json = False,
) -> None:
    """Replace the number, also where the node holds none."""
    with verb(as_json=as_json), settings_of(context).connect() as zk:
        with usage_errors():
            counter = Counter(zk, path, layout=layout)
        if expected is None:
            counter.set(value)
        else:
            counter.compare_and_set(expected, value)
        _print(path, value)


@ids.command("next")
def next_(
    context: typer.Context,
    path: Path,
    *,
    count: Annotated[int, typer.Option("--count", metavar="N", help="How many.")] = 1,
    as_json: Json = False,
) -> None:
    """Print the next identifier, or N of them, one a line. They rise, with gaps."""
    with verb(as_json=as_json), settings_of(context).connect() as zk:
        with usage_errors():
            generator = IdGenerator(zk, path, block=count)
        drawn = [generator.next() for _ in range(count)]
    out.value({"path": path, "identifiers": drawn}, [str(each) for each in drawn])


def _print(path: str, value: int) -> None:
    out.value({"path": path, "value": value}, str(value))
