"""The rules that keep the layers apart, checked on the source itself. A new module needs a line in `LAYERS`."""

from __future__ import annotations

import ast
import fnmatch
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest

PACKAGE: Final = Path(__file__).parents[2] / "zkrecipes"
LONGEST_MODULE: Final = 400

PUBLIC: Final = "zkrecipes"  # zkrecipes/__init__.py

# From the ground up. A module imports from the lines above its own, never from its own line or from below. A package
# (aio, cli, testing) counts as one module. Imports under TYPE_CHECKING are free: they are names, not dependencies.
RECIPES: Final = (
    ("errors", "timing", "lease", "paths", "health", "settings", "signals", "server_time"),
    ("flow", "layouts", "codec", "config_document", "config_types", "scope", "stored"),
    ("topic_layout",),
    ("line", "config_model", "config_records", "counter_layouts", "queue_layout", "scripts"),
    ("requests", "queue_curator_layout"),
    ("port", "patience"),
    ("calls", "refusals", "hold", "sizes", "config_tree"),
    ("watches",),
    ("handle", "heartbeat", "observe"),
    ("session",),
    ("watching",),
    ("nodes",),
    ("core", "contention", "reading", "admission", "known", "rounds"),
    ("operations", "handoff", "survey", "config_store", "mirror", "marks", "roots", "carry"),
    ("dedup", "cell", "topic_chunks", "queue_ground"),
    ("queue_shelves", "queue_curator", "queue_listing"),
    ("queue_put", "queue_sight", "queue_return", "queue_reads"),
    ("queue_shelf_put", "queue_curator_put", "queue_view", "queue_curator_view", "queue_overdue", "queue_claim"),
    ("queue_take", "queue_admin"),
    ("queue_room", "queue_shelf_admin", "queue_curator_admin"),
    ("queue_parts",),
    ("queue_recipe",),
    ("queue_handles",),
    ("queue",),
    ("topic_log", "topic_tail"),
    ("topic_follow", "topic_owner", "topic_presence", "topic_retention"),
    ("topic_subscription",),
    ("leadership", "changes", "config_draft", "counter_line", "identifiers"),
    ("listening", "config_writes"),
    ("callbacks", "config_releases"),
    ("listener",),
    ("lock", "onlooker", "value_changes", "topic"),
    ("election", "shared_value"),
    ("counter",),
)
# What turns the ground floor into a client on a real connection: recipes know nothing of it.
EDGE: Final = (
    ("wire_socket", "runtime", "config_cache", "config_layers", "topic_view"),
    ("config_apply", "config_report", "pubsub"),
    ("config_callbacks", "config_canary", "config_sight"),
    ("config_force",),
    ("config_state",),
    ("config_view",),
    ("config", "config_settings"),
    ("wire_events", "wire_io"),
    ("wire_check", "wire_codec", "wire_kazoo"),
    ("wire_public",),
    ("wire",),
    ("connection",),
    ("client",),
    (PUBLIC,),
    ("aio",),
    ("testing",),
    ("cli",),
)
LAYERS: Final = (*RECIPES, *EDGE)

# The edge: only these may import kazoo, and only the wire modules may touch what kazoo does not document.
MAY_IMPORT_KAZOO: Final = frozenset({"client", "testing", "wire*"})
KAZOO_PUBLIC: Final = frozenset(
    {"kazoo.client", "kazoo.exceptions", "kazoo.security", "kazoo.retry", "kazoo.protocol.states", "kazoo.version"}
)
MAY_USE_KAZOO_INTERNALS: Final = frozenset({"wire*"})

# Algorithms run under three drivers, one of them with a virtual clock and a seeded scheduler. Whatever brings in real
# time, real threads, chance or the order of a set would make a simulated schedule say nothing, or not replay.
# `flow` holds the drivers themselves.
ALGORITHMS: Final = frozenset(unit for layer in RECIPES for unit in layer) - {"flow", "signals"}
NOT_IN_ALGORITHMS: Final = frozenset(
    {"threading", "asyncio", "time", "datetime", "random", "uuid", "os", "socket", "secrets", "queue", "kazoo"}
)
# The one exception: a timeout may be given as a timedelta, which reads no clock.
EXCEPTIONS: Final = frozenset({("timing", "datetime.timedelta")})


class Import(NamedTuple):
    """One imported name of one module."""

    name: str  # full dotted name, with what is imported from it: "datetime.timedelta"
    line: int


class Module(NamedTuple):
    """One source file of the package."""

    unit: str  # the name in LAYERS: a module, or the package below zkrecipes that it is in
    path: Path
    tree: ast.Module

    @property
    def where(self) -> str:
        return str(self.path.relative_to(PACKAGE.parent))


def read_package(root: Path) -> list[Module]:
    modules = []
    for path in sorted(root.rglob("*.py")):
        unit = PUBLIC if path == root / "__init__.py" else path.relative_to(root).parts[0].removesuffix(".py")
        modules.append(Module(unit, path, ast.parse(path.read_text(encoding="utf-8"), str(path))))
    return modules


MODULES: Final = read_package(PACKAGE)
every_module: Final = pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.where))


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def runtime_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes that can run: without the bodies of `if TYPE_CHECKING`."""
    yield node
    children = node.orelse if isinstance(node, ast.If) and is_type_checking(node) else ast.iter_child_nodes(node)
    for child in children:
        yield from runtime_nodes(child)


def imports_of(tree: ast.AST) -> Iterator[Import]:
    for node in runtime_nodes(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            prefix = node.module or "" if node.level == 0 else "." * node.level + (node.module or "")
            for alias in node.names:
                yield Import(f"{prefix}.{alias.name}", node.lineno)


def unit_of(name: str) -> str | None:
    """The unit of LAYERS that an import reaches; PUBLIC for the names of zkrecipes/__init__.py; None if not ours."""
    parts = name.split(".")
    if parts[0] != "zkrecipes":
        return None
    is_module = len(parts) > 1 and (
        (PACKAGE / f"{parts[1]}.py").exists() or (PACKAGE / parts[1]).is_dir() or layer_of(parts[1]) is not None
    )
    return parts[1] if is_module else PUBLIC


def layer_of(unit: str) -> int | None:
    return next((number for number, layer in enumerate(LAYERS) if unit in layer), None)


def upward_imports(unit: str, tree: ast.AST) -> list[str]:
    """What a module imports that is not below it."""
    own = layer_of(unit)
    if own is None:
        return [f"{unit} stands in no line of LAYERS: add it to the lowest line that is above all that it imports"]
    wrong = []
    for name, line in imports_of(tree):
        if name.startswith("."):
            wrong.append(f"line {line}: write the import in full, not relative")
        target = unit_of(name)
        if target is None or target == unit:
            continue
        layer = layer_of(target)
        if layer is None:
            wrong.append(f"line {line}: {name} is in no line of LAYERS")
        elif layer >= own:
            wrong.append(f"line {line}: {unit} must not import {target}, which is not below it")
    return wrong


def is_named(unit: str, patterns: frozenset[str]) -> bool:
    return any(fnmatch.fnmatchcase(unit, pattern) for pattern in patterns)


def kazoo_imports(unit: str, tree: ast.AST) -> list[str]:
    """What a module imports of kazoo that it may not."""
    wrong = []
    for name, line in imports_of(tree):
        if name.split(".")[0] != "kazoo":
            continue
        public = any(name == module or name.startswith(f"{module}.") for module in KAZOO_PUBLIC)
        if not is_named(unit, MAY_IMPORT_KAZOO):
            wrong.append(f"line {line}: only {', '.join(sorted(MAY_IMPORT_KAZOO))} may import kazoo")
        elif not public and not is_named(unit, MAY_USE_KAZOO_INTERNALS):
            wrong.append(f"line {line}: {name} is internal to kazoo; only the wire modules may use it")
    return wrong


def impure_imports(unit: str, tree: ast.AST) -> list[str]:
    """Imports that would bring real time, threads or chance into an algorithm."""
    return [
        f"line {line}: an algorithm takes this from its Runtime, not from {name}"
        for name, line in imports_of(tree)
        if name.split(".")[0] in NOT_IN_ALGORITHMS and (unit, name) not in EXCEPTIONS
    ]


def is_set(node: ast.expr, sets: frozenset[str]) -> bool:
    """Whether an expression is plainly a set: a display, a call of set(), or a name annotated or assigned as one."""
    match node:
        case ast.Set() | ast.SetComp():
            return True
        case ast.Call(func=ast.Name(id="set" | "frozenset")):
            return True
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name in sets
        case ast.Call(func=ast.Name(id="list" | "tuple" | "iter" | "enumerate" | "reversed"), args=[inner, *_]):
            return is_set(inner, sets)
        case ast.BinOp(left=left, right=right, op=ast.BitOr() | ast.BitAnd() | ast.Sub() | ast.BitXor()):
            return is_set(left, sets) or is_set(right, sets)
        case _:
            return False


def set_names(tree: ast.AST) -> frozenset[str]:
    """Names and attributes that are annotated or assigned as sets somewhere in the module."""
    names: list[ast.expr] = []
    for node in ast.walk(tree):
        match node:
            case ast.AnnAssign(target=target, annotation=ast.Subscript(value=ast.Name(id="set" | "frozenset"))):
                names.append(target)
            case ast.Assign(targets=[target], value=value) if is_set(value, frozenset()):
                names.append(target)
            case ast.arg(arg=name, annotation=ast.Subscript(value=ast.Name(id="set" | "frozenset"))):
                names.append(ast.Name(id=name))
    return frozenset(
        node.id if isinstance(node, ast.Name) else node.attr
        for node in names
        if isinstance(node, ast.Name | ast.Attribute)
    )


def set_loops(tree: ast.AST) -> list[str]:
    """Loops over sets, whose order differs from process to process."""
    sets = set_names(tree)
    return [
        f"line {node.iter.lineno}: the order of a set differs from run to run; loop over sorted(...) or a dict"
        for node in ast.walk(tree)
        if isinstance(node, ast.For | ast.comprehension) and is_set(node.iter, sets)
    ]


def report(module: Module, wrong: list[str]) -> str:
    return "\n".join(f"{module.where}: {each}" for each in wrong)


@every_module
def test_imports_point_downward(module: Module) -> None:
    wrong = upward_imports(module.unit, module.tree)
    assert not wrong, report(module, wrong)


@every_module
def test_kazoo_stays_at_the_edge(module: Module) -> None:
    wrong = kazoo_imports(module.unit, module.tree)
    assert not wrong, report(module, wrong)


@every_module
def test_algorithms_are_free_of_real_time_threads_and_chance(module: Module) -> None:
    wrong = [*impure_imports(module.unit, module.tree), *set_loops(module.tree)] if module.unit in ALGORITHMS else []
    assert not wrong, report(module, wrong)


@every_module
def test_a_module_is_short_enough_to_read_at_once(module: Module) -> None:
    lines = len(module.path.read_text(encoding="utf-8").splitlines())
    assert lines < LONGEST_MODULE, f"{module.where} has {lines} lines: {LONGEST_MODULE} is the limit; one idea a module"


def test_the_package_is_its_public_names_and_nothing_else() -> None:
    """`zkrecipes/__init__.py`: a docstring, imports, and a sorted `__all__` that holds exactly what is imported."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    imported: list[str] = []
    exported: list[str] | None = None
    for node in tree.body:
        match node:
            case ast.Expr(value=ast.Constant(value=str())):
                pass
            case ast.ImportFrom(module="__future__"):
                pass
            case ast.ImportFrom(module="importlib" | "typing"):
                pass
            case ast.ImportFrom(names=names):
                imported += [alias.asname or alias.name for alias in names]
            case ast.If(test=ast.Name(id="TYPE_CHECKING"), body=body):
                # What is loaded when it is first asked for, by the module's __getattr__.
                imported += [alias.name for line in body if isinstance(line, ast.ImportFrom) for alias in line.names]
            case ast.Assign(targets=[ast.Name(id="__all__")], value=value):
                exported = ast.literal_eval(value)
            case ast.Assign(targets=[ast.Name(id="_LATER")]):
                pass
            case ast.FunctionDef(name="__getattr__" | "__dir__"):
                pass
            case _:
                pytest.fail(f"line {node.lineno}: only imports and __all__ belong into zkrecipes/__init__.py")
    assert exported is not None, "zkrecipes/__init__.py has no __all__"
    assert sorted(exported) == sorted(imported), "__all__ and the imports differ"
    assert exported == sorted(exported), "__all__ is not sorted"


def test_layers_name_each_module_once() -> None:
    named = [unit for layer in LAYERS for unit in layer]
    assert len(named) == len(set(named))


@pytest.mark.parametrize("name", ["zkrecipes", "zkrecipes.testing", "zkrecipes.testing.plugin", "zkrecipes.aio"])
def test_importing_loads_nothing_heavy(name: str) -> None:
    """Who has the package installed must not pay, in every run of pytest, for servers that no test asks for."""
    heavy = ["testcontainers", "docker", "hypothesis", "typer", "rich", "pytest", "_pytest", "kazoo", "tenacity"]
    if name == "zkrecipes.testing.plugin":
        heavy = [other for other in heavy if "pytest" not in other]  # it is pytest that loads it
    if name == "zkrecipes.aio":
        heavy = heavy[:-2]  # these it stands on
    code = f"import sys, {name}; print([heavy for heavy in {heavy!r} if heavy in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.strip() == "[]", f"importing {name} loads {answer.stdout.strip()}"


# The checks are checked, too: each must see what it is there for.


def parse(text: str) -> ast.Module:
    return ast.parse(text)


@pytest.mark.parametrize(
    ("unit", "text"),
    [
        ("session", "from zkrecipes.lock import Lock"),
        ("session", "import zkrecipes.lock"),
        ("session", "def late():\n    from zkrecipes import lock"),
        ("lock", "from zkrecipes.election import Election"),
        ("lock", "from zkrecipes import Election"),
        ("lock", "import zkrecipes"),
        ("lock", "from . import election"),
        ("unheard_of", "import math"),
    ],
)
def test_an_upward_import_is_seen(unit: str, text: str) -> None:
    assert upward_imports(unit, parse(text))


def test_imports_for_types_are_free() -> None:
    text = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from zkrecipes.lock import Lock"
    assert not upward_imports("session", parse(text))
    assert upward_imports("session", parse("if DEBUG:\n    from zkrecipes.lock import Lock"))
    assert upward_imports("session", parse("if TYPE_CHECKING:\n    pass\nelse:\n    from zkrecipes.lock import Lock"))


def test_a_use_of_kazoo_is_seen() -> None:
    assert kazoo_imports("lock", parse("from kazoo.client import KazooClient"))
    assert kazoo_imports("client", parse("from kazoo.protocol.connection import ConnectionHandler"))
    assert not kazoo_imports("client", parse("from kazoo.client import KazooClient"))
    assert not kazoo_imports("wire", parse("from kazoo.protocol.connection import ConnectionHandler"))


def test_real_time_and_chance_are_seen() -> None:
    assert impure_imports("lock", parse("from time import monotonic"))
    assert impure_imports("lock", parse("def f():\n    import os.path"))
    assert impure_imports("timing", parse("from datetime import datetime"))
    assert not impure_imports("timing", parse("from datetime import timedelta"))


@pytest.mark.parametrize(
    "text",
    [
        "for x in {1, 2}: pass",
        "for x in set(names): pass",
        "y = [x for x in frozenset(names)]",
        "waiting: set[int]\nfor x in waiting: pass",
        "self.waiting = set()\nfor x in list(self.waiting): pass",
        "def f(a: frozenset[str]):\n    for x in a - b: pass",
    ],
)
def test_a_loop_over_a_set_is_seen(text: str) -> None:
    assert set_loops(parse(text))


def test_a_sorted_set_is_no_set() -> None:
    assert not set_loops(parse("for x in sorted({1, 2}): pass\nfor y in {1: 2}: pass"))
