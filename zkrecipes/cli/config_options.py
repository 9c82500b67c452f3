"""The options that the verbs of `zkrecipes config` share."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

__all__ = [
    "CanaryOption",
    "DocumentPath",
    "Expected",
    "FileOption",
    "FormatName",
    "LayoutName",
    "Model",
    "Reason",
    "ShowSecrets",
]

DocumentPath = Annotated[str, typer.Argument(metavar="PATH", help="Of the document, below the namespace.")]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="PACKAGE:MODEL",
        help="The pydantic model, importable from here, such as shop.settings:Settings.",
    ),
]
FormatName = Annotated[
    Literal["json", "yaml", "toml"] | None,
    typer.Option("--format", help="Of the document; by the suffix of PATH or FILE, or json, by default."),
]
LayoutName = Annotated[
    Literal["document", "tree"],
    typer.Option("--layout", help="One node, or one for each field, as Spring Cloud Zookeeper has it."),
]
FileOption = Annotated[
    str | None, typer.Option("--file", metavar="FILE", help="A local file; - is the standard input.")
]
ShowSecrets = Annotated[bool, typer.Option("--show-secrets", help="Do not mask them.")]
Reason = Annotated[str, typer.Option("--reason", "-m", metavar="TEXT", help="For the record.")]
Expected = Annotated[
    int | None,
    typer.Option(
        "--expected", metavar="VERSION", help="Only if the document is in this version; -1: if there is none."
    ),
]
CanaryOption = Annotated[
    str | None,
    typer.Option("--canary", metavar="WHICH", help="To some instances first: 10%, or zone=a,tier=web."),
]
