"""What the documentation shows is run.

README.md and every page under docs/: all ```python blocks of a page are one program, in the order of the page, so a
later block may use what an earlier one made. A ```console block that starts with `$ zkrecipes` is run, command by
command. Where the text says 127.0.0.1:2181, a real server is put in; ZKRECIPES_HOSTS names it too. The page must end by
itself, with status 0.

A block below an HTML comment `<!-- no-run: reason -->` is not run: for a shell, or for code that fails on purpose. It
must parse all the same.

Every examples/*.py is run as a program with ZKRECIPES_HOSTS set.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from zkrecipes.testing import Server

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
OTHER_PAGES: Final = sorted(ROOT / name for name in ("ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md"))
EXAMPLES: Final = sorted((ROOT / "examples").glob("[!_]*.py"))
ADDRESS: Final = "127.0.0.1:2181"
LIMIT: Final = 60.0  # seconds for one page, one example or one command

FENCE: Final = re.compile(r"^(?P<indent> *)```(?P<language>[\w-]*) *$")
NO_RUN: Final = re.compile(r"<!-- *no-run: *(?P<reason>.*?) *-->")
LINK: Final = re.compile(r"(?<!!)\[[^\]]*\]\((?!https?:|mailto:|#)(?P<target>[^)#\s]+)(#[^)\s]*)?\)")

pytestmark = pytest.mark.timeout(LIMIT * 2)


class Block(NamedTuple):
    """One fenced block of a page."""

    line: int  # of its first line of code, from 1
    language: str
    code: str
    no_run: str | None


def blocks_of(text: str) -> list[Block]:
    blocks = []
    reason: str | None = None
    opened: re.Match[str] | None = None
    start = 0
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        fence = FENCE.match(line)
        if opened is None and fence is not None:
            opened, start = fence, number + 1
        elif opened is not None and line.strip() == "```":
            code = textwrap.dedent("\n".join(lines[start - 1 : number - 1]))
            blocks.append(Block(start, opened["language"], code, reason))
            opened, reason = None, None
        elif opened is None and line.strip():
            # Only the comment right above a block speaks for it.
            comment = NO_RUN.search(line)
            reason = comment["reason"] if comment else None
    assert opened is None, f"line {start - 1}: this block is never closed"
    return blocks


def program_of(blocks: list[Block]) -> str:
    """The Python blocks as one program, in which each line has the number that it has on the page."""
    lines: list[str] = []
    for block in blocks:
        if block.language == "python" and block.no_run is None:
            lines += [""] * (block.line - 1 - len(lines))
            lines += block.code.splitlines()
    return "\n".join(lines) + "\n"


def commands_of(blocks: list[Block]) -> list[str]:
    """The commands of the console blocks that are run; a backslash at the end of a line joins it with the next."""
    commands = []
    for block in blocks:
        if block.language == "console" and block.no_run is None and block.code.startswith("$ zkrecipes"):
            text = block.code.replace("\\\n", " ")
            commands += [line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ ")]
    return commands


def run(command: list[str], hosts: str, directory: Path) -> None:
    """Run a program to its end; where it fails, or does not end, its output is the message."""
    # The programs beside this Python come first: `zkrecipes` is the one of this tree.
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    environment = os.environ | {"ZKRECIPES_HOSTS": hosts, "PATH": path, "PYTHONFAULTHANDLER": "1"}
    try:
        answer = subprocess.run(
            command,
            cwd=directory,
            env=environment,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT,
        )
    except subprocess.TimeoutExpired as error:
        # What was read until then comes as bytes, whatever `text` says.
        said = error.stdout.decode(errors="replace") if isinstance(error.stdout, bytes) else error.stdout
        pytest.fail(f"did not end within {LIMIT:.0f} s: {shlex.join(command)}\n{said}")
    if answer.returncode != 0:
        pytest.fail(f"ended with status {answer.returncode}: {shlex.join(command)}\n{answer.stdout}")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_blocks_of_a_page_run(page: Path, zkr_server: Server, tmp_path: Path) -> None:
    blocks = blocks_of(page.read_text(encoding="utf-8").replace(ADDRESS, zkr_server.hosts))
    program = program_of(blocks)
    if program.strip():
        script = tmp_path / f"page_{page.stem}.py"  # queue.py would hide a module of Python
        script.write_text(program, encoding="utf-8")
        run([sys.executable, "-X", "dev", str(script)], zkr_server.hosts, tmp_path)
    for command in commands_of(blocks):
        run(["/bin/sh", "-c", command], zkr_server.hosts, tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_block_that_is_not_run_says_why_and_parses(
    page: Path, record_property: Callable[[str, object], None]
) -> None:
    for block in blocks_of(page.read_text(encoding="utf-8")):
        if block.no_run is not None:
            record_property(f"{name_of(page)}:{block.line} not run", block.no_run)
            assert block.no_run, f"{name_of(page)}:{block.line}: say why, as in <!-- no-run: reason -->"
            if block.language == "python":
                compile(block.code, f"{name_of(page)}:{block.line}", "exec")


@pytest.mark.parametrize("page", [*PAGES, *OTHER_PAGES], ids=name_of)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    found = LINK.finditer(page.read_text(encoding="utf-8"))
    broken = [link["target"] for link in found if not (page.parent / link["target"]).exists()]
    assert not broken, f"{name_of(page)} links to what is not there"


@pytest.mark.parametrize("example", EXAMPLES, ids=name_of)
def test_an_example_runs_and_ends_by_itself(example: Path, zkr_server: Server, tmp_path: Path) -> None:
    run([sys.executable, "-X", "dev", str(example)], zkr_server.hosts, tmp_path)


# The reader of the pages is checked, too: a block that it overlooks would never be run.

PAGE: Final = """\
Text.

```python
first = 1
```

1. In a list:

   ```python
   if first:
       second = 2
   ```

<!-- no-run: it fails on purpose -->
```python
raise SystemExit(3)
```

```console
$ zkrecipes lock show \\
    /locks/a
nobody
$ zkrecipes doctor
```

```console
$ make demo
```
"""


def test_a_page_is_read_as_one_program_with_the_line_numbers_of_the_page() -> None:
    lines = program_of(blocks_of(PAGE)).splitlines()
    assert lines[3] == "first = 1"
    assert lines[9:11] == ["if first:", "    second = 2"]
    assert len([line for line in lines if line]) == 3


def test_an_exemption_holds_for_the_next_block_only() -> None:
    assert [block.no_run for block in blocks_of(PAGE)] == [None, None, "it fails on purpose", None, None]
    assert blocks_of("<!-- no-run: x -->\ntext\n```python\n1\n```")[0].no_run is None


def test_commands_are_those_of_blocks_that_start_with_ours() -> None:
    assert [" ".join(command.split()) for command in commands_of(blocks_of(PAGE))] == [
        "zkrecipes lock show /locks/a",
        "zkrecipes doctor",
    ]


def test_a_page_that_fails_is_reported_with_its_line(tmp_path: Path) -> None:
    script = tmp_path / "page.py"
    script.write_text(program_of(blocks_of("Text.\n\n```python\n1 / 0\n```\n")), encoding="utf-8")
    with pytest.raises(pytest.fail.Exception, match=r"line 4(.|\n)*ZeroDivisionError"):
        run([sys.executable, str(script)], "", tmp_path)
