"""`zkrecipes config`: documents, their releases and their roll-out. What reads; what writes is in config_edit."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer

from zkrecipes.cli import config_edit, config_watch
from zkrecipes.cli.config_options import DocumentPath, FileOption, FormatName, LayoutName, Model, ShowSecrets
from zkrecipes.cli.documents import (
    Documents,
    difference_text,
    field_of,
    missing_extras,
    model_errors,
    read_input,
    readable,
    release_value,
    selector_text,
)
from zkrecipes.cli.output import UsageProblem, out, usage_errors
from zkrecipes.cli.verbs import Json, settings_of, verb
from zkrecipes.config import Difference, Env, File, InstanceStatus, Release, RolloutStatus
from zkrecipes.config_apply import Builder, Look, RefusedError
from zkrecipes.config_layers import Layer, checked_layers, local_parts
from zkrecipes.config_types import Instance
from zkrecipes.errors import ConfigRejectedError, NodeNotFoundError
from zkrecipes.known import Seen

__all__ = ["app"]

app = typer.Typer(help="Configuration documents: read, publish, compare, roll back, roll out.", no_args_is_help=True)


@app.command("get")
def get(
    context: typer.Context,
    path: DocumentPath,
    field: Annotated[str | None, typer.Argument(metavar="FIELD", help="Dotted: database.pool_size.")] = None,
    *,
    version: Annotated[
        int | None, typer.Option("--version", metavar="VERSION", help="An earlier release; the newest by default.")
    ] = None,
    show_secrets: ShowSecrets = False,
    model: Model = None,
    format_: FormatName = None,
    layout: LayoutName = "document",
    as_json: Json = False,
) -> None:
    """Print the document at PATH, or one field of it.

    Secrets are masked: with --model what is secret by its type, otherwise what is called like a secret.
    """
    with verb(as_json=as_json):
        documents = Documents.of(path, model, format_, layout=layout)
        with settings_of(context).connect() as zk:
            found, text = readable(documents, documents.releases(zk), version)
    value: dict[str, Any] = {"path": path, "version": found}
    if field is None and show_secrets and not out.json:
        out.value(value, text.removesuffix("\n"))  # even if it does not parse
        return
    plain = documents.parse(text)
    shown = plain if show_secrets else documents.masked(text)
    content, hidden = shown, shown != plain
    if field is not None:
        try:
            content = field_of(shown, field)
            hidden = content != field_of(plain, field)
        except KeyError:
            message = f"there is no field {field} in version {found} of {path}"
            raise NodeNotFoundError(message, path=path) from None
        value |= {"field": field, "value": content}
        printed = _field_text(documents, content)
    else:
        value |= {"document": content}
        # As it was written, comments and all, where there is nothing to hide.
        printed = documents.render(content) if hidden else text
    if hidden:
        out.note("masked", "secrets are masked; --show-secrets shows them", path=path)
    out.value(_plain(value), printed.removesuffix("\n"))


app.command("set")(config_edit.set_)
app.command("edit")(config_edit.edit)


@app.command("diff")
def diff(
    context: typer.Context,
    path: DocumentPath,
    old: Annotated[int | None, typer.Argument(metavar="OLD", help="A version; by default the one before.")] = None,
    new: Annotated[int | None, typer.Argument(metavar="NEW", help="A version; by default the newest.")] = None,
    *,
    file: FileOption = None,
    model: Model = None,
    format_: FormatName = None,
    layout: LayoutName = "document",
    as_json: Json = False,
) -> None:
    """Show what differs between two versions of the document at PATH; with --file, between it and a local file."""
    with verb(as_json=as_json):
        documents = Documents.of(path, model, format_, file, layout)
        if file is not None and new is not None:
            message = "--file takes the place of NEW: give one of them"
            raise UsageProblem(message)
        local = None if file is None else read_input(file)
        with settings_of(context).connect() as zk:
            releases = documents.releases(zk)
            newest, text = readable(documents, releases)
            last = newest if new is None else new
            first = old if old is not None else newest if local is not None else max(last - 1, 0)
            before = text if first == newest else readable(documents, releases, first)[1]
            after = local if local is not None else text if last == newest else readable(documents, releases, last)[1]
    documents.parse(after)
    found = documents.differences(before, after)
    labels = {"old": first, "new": file if local is not None else last}
    value = {"path": path, **labels, "differences": [difference_value(each) for each in found]}
    out.value(value, [difference_text(each) for each in found] or f"{labels['old']} and {labels['new']} do not differ")


@app.command("history")
def history(
    context: typer.Context,
    path: DocumentPath,
    *,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many.")] = 50,
    as_json: Json = False,
) -> None:
    """Show the releases of the document at PATH whose records are kept, newest first."""
    with verb(as_json=as_json), settings_of(context).connect() as zk:
        releases = Documents.of(path, None, "json").releases(zk).history()[:limit]
    value = {"path": path, "releases": [release_value(each) for each in releases]}
    out.value(value, [release_text(each) for each in releases] or f"no releases of {path} are recorded")


app.command("rollback")(config_edit.rollback)
app.command("watch")(config_watch.watch)


@app.command("status")
def status(context: typer.Context, path: DocumentPath, *, as_json: Json = False) -> None:
    """Show which instances run which version of the document at PATH, and the canary that runs."""
    with verb(as_json=as_json), settings_of(context).connect() as zk:
        found = Documents.of(path, None, "json").releases(zk).status()
    out.value(_status_value(path, found), _status_text(path, found))


app.command("promote")(config_edit.promote)
app.command("abort")(config_edit.abort)


@app.command("validate")
def validate(
    context: typer.Context,
    path: Annotated[str | None, typer.Argument(metavar="PATH", help="Below the namespace.")] = None,
    *,
    model: Annotated[str, typer.Option("--model", metavar="PACKAGE:MODEL", help="The pydantic model.")],
    file: FileOption = None,
    version: Annotated[int | None, typer.Option("--version", metavar="VERSION", help="An earlier release.")] = None,
    format_: FormatName = None,
    layout: LayoutName = "document",
    as_json: Json = False,
) -> None:
    """Check the document at PATH, or a local file, against a model. Status 1 if it does not fit.

    With --file no server is needed. Other layers (files, environment) are left out; `explain` takes them in.
    """
    with verb(as_json=as_json):
        if (path is None) == (file is None):
            message = "give the PATH of a document, or --file FILE"
            raise UsageProblem(message)
        if file is not None:
            documents, text, label = Documents.of(file, model, format_, layout=layout), read_input(file), file
        else:
            assert path is not None
            documents = Documents.of(path, model, format_, layout=layout)
            with settings_of(context).connect() as zk:
                found, text = readable(documents, documents.releases(zk), version)
            label = f"version {found} of {path}"
    documents.parse(text)
    errors = model_errors(documents, text.encode())
    if errors:
        lines = "".join(f"\n  {each}" for each in errors)
        message = f"{label} does not fit {model}:{lines}"
        raise ConfigRejectedError(message, path=path or "", errors=errors)
    out.value({"path": path, "file": file, "model": model, "valid": True}, f"{label} fits {model}")


@app.command("explain")
def explain(
    context: typer.Context,
    path: DocumentPath,
    *,
    model: Annotated[str, typer.Option("--model", metavar="PACKAGE:MODEL", help="The pydantic model.")],
    files: Annotated[
        list[str] | None, typer.Option("--file", metavar="FILE", help="A layer below; may be repeated.")
    ] = None,
    shared: Annotated[
        list[str] | None, typer.Option("--global", metavar="PATH", help="A global node; may be repeated.")
    ] = None,
    env: Annotated[str | None, typer.Option("--env", metavar="PREFIX", help="The environment, as a layer.")] = None,
    format_: FormatName = None,
    layout: LayoutName = "document",
    as_json: Json = False,
) -> None:
    """Show each value of the configuration at PATH, and which layer it comes from. Secrets are masked.

    Give the layers that the service has: the document alone says only what is in it.
    """
    with verb(as_json=as_json):
        documents = Documents.of(path, model, format_, layout=layout)
        layers: list[Layer] = [File(name) for name in files or ()]
        layers += [] if env is None else [Env(prefix=env)]
        with usage_errors(), missing_extras():
            checked_layers(layers)
        builder = Builder(documents.drafts, Instance("command line"))
        builder.local = local_parts(layers, documents.drafts.model)
        with settings_of(context).connect() as zk:
            version, text = readable(documents, documents.releases(zk))
            stat = zk.get(path).stat._replace(version=version)
            found = {name: zk.get(name) for name in shared or () if zk.exists(name) is not None}
    look = Look(Seen(text.encode(), stat), {name: Seen(each.value, each.stat) for name, each in found.items()})
    try:
        in_force = builder.candidate(look)
    except RefusedError as refused:
        errors = refused.rejection.errors
        message = f"{path}: {refused.rejection}"
        raise ConfigRejectedError(message, path=path, version=version, errors=errors) from None
    explained = builder.explain(in_force)
    values = [asdict(each) for each in explained]
    out.value(_plain({"path": path, "version": in_force.version, "values": values}), [str(each) for each in explained])


def _field_text(documents: Documents, value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return documents.render(value)
    return json.dumps(value, ensure_ascii=False, default=str)


def _plain(value: Any) -> Any:
    """What JSON can express; dates, which YAML and TOML have, as text."""
    return json.loads(json.dumps(value, default=str))


def difference_value(difference: Difference) -> dict[str, Any]:
    """A difference as JSON."""
    return dict(_plain(asdict(difference)))


def release_text(release: Release) -> str:
    """A release as one line."""
    to = "" if release.rolled_back_to is None else f" to {release.rolled_back_to}"
    changed = f"  changed: {', '.join(release.changed)}" if release.changed else ""
    who = f"  {release.who}" if release.who else ""
    when = f"  {release.when}" if release.when else ""
    reason = f"  {release.reason!r}" if release.reason else ""
    return f"{release.version:>4}{when}{who}  {release.source}{to}{reason}{changed}"


def _status_value(path: str, found: RolloutStatus) -> dict[str, Any]:
    canary: dict[str, Any] | None = None
    if found.canary is not None:
        selector = found.canary.selector
        canary = {
            "id": found.canary.id,
            "base": found.canary.base,
            "who": found.canary.who,
            "host": found.canary.host,
            "when": found.canary.when,
            "reason": found.canary.reason,
            "changed": list(found.canary.changed),
            "percent": selector.percent,
            "labels": None if selector.labels is None else dict(selector.labels),
        }
    instances = [{**asdict(each), "labels": dict(each.labels)} for each in found.instances]
    last = None if found.last is None else asdict(found.last)
    return {"path": path, "version": found.version, "canary": canary, "last_canary": last, "instances": instances}


def _status_text(path: str, found: RolloutStatus) -> list[str]:
    lines = [f"{path} does not exist" if found.version is None else f"{path} is in version {found.version}"]
    if found.canary is not None:
        canary = found.canary
        why = f": {canary.reason}" if canary.reason else ""
        lines.append(
            f"canary {canary.id} for {selector_text(canary.selector)}, on version {canary.base}, by {canary.who}, "
            f"{canary.when}{why}; changes {', '.join(canary.changed) or 'nothing'}"
        )
    elif found.last is not None:
        lines.append(f"the last canary {found.last.id}, on version {found.last.base}: {found.last.how}")
    lines += [f"  {_instance_text(each)}" for each in found.instances]
    return lines if found.instances else [*lines, "no instance reports what it runs"]


def _instance_text(instance: InstanceStatus) -> str:
    runs = "nothing yet" if instance.version < 0 else f"version {instance.version}"
    if instance.canary is not None and instance.accepted:
        runs = f"the canary {instance.canary}"
    labels = "".join(f"  {name}={value}" for name, value in sorted(instance.labels.items()))
    refused = "" if instance.accepted else f"  REFUSES: {instance.error}"
    return f"{instance.id}  runs {runs}{labels}{refused}"
