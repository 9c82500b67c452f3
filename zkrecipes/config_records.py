"""The JSON of release records, of the canary and of instances' reports. Pure.

Each carries a "format" number; who meets a newer one than it knows refuses it.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any, Final

from zkrecipes.config_document import compressed, text_of
from zkrecipes.config_types import Canary, InstanceStatus, Release, Rollout
from zkrecipes.errors import DecodeError

__all__ = ["decode_canary", "decode_record", "decode_status", "encode_canary", "encode_record", "encode_status"]

FORMAT: Final = 1
MAX_CHANGED: Final = 200
"""Paths listed in a record; a release that changes more says so by a last entry "..."."""


# --- encoding ---------------------------------------------------------------------------------------------------------


def _document_entry(raw: bytes, *, dense: bool) -> dict[str, str]:
    text = text_of(raw, keep_mark=True)
    return {"gzip": base64.b64encode(compressed(text.encode())).decode("ascii")} if dense else {"document": text}


def _document_of(entry: Mapping[str, Any]) -> bytes:
    if isinstance(entry.get("document"), str):
        return str(entry["document"]).encode()
    return text_of(base64.b64decode(str(entry["gzip"]), validate=True), keep_mark=True).encode()


def _json(entry: Mapping[str, Any]) -> bytes:
    return json.dumps(entry, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def encode_record(release: Release, document: bytes, *, dense: bool = False) -> bytes:
    """A release record. `dense`: with its document compressed."""
    changed = list(release.changed[:MAX_CHANGED]) + (["..."] if len(release.changed) > MAX_CHANGED else [])
    return _json(
        {
            "format": FORMAT,
            "id": release.id,
            "version": release.version,
            "who": release.who,
            "host": release.host,
            "when": release.when,
            "why": release.reason,
            "source": release.source,
            "from": release.base,
            "to": release.rolled_back_to,
            "changed": changed,
            **_document_entry(document, dense=dense),
        }
    )


def encode_canary(rollout: Rollout, *, dense: bool = False) -> bytes:
    """The canary's node."""
    selector = rollout.selector
    return _json(
        {
            "format": FORMAT,
            "id": rollout.id,
            "selector": {"percent": selector.percent} if selector.labels is None else {"labels": dict(selector.labels)},
            "base": {"version": rollout.base, "czxid": rollout.base_czxid},
            "who": rollout.who,
            "host": rollout.host,
            "when": rollout.when,
            "why": rollout.reason,
            "changed": list(rollout.changed[:MAX_CHANGED]),
            **_document_entry(rollout.document, dense=dense),
        }
    )


def encode_status(status: InstanceStatus) -> bytes:
    """What an instance reports."""
    return _json(
        {
            "format": FORMAT,
            "id": status.id,
            "labels": dict(status.labels),
            "version": status.version,
            "canary": status.canary,
            "accepted": status.accepted,
            "error": status.error,
            "when": status.when,
        }
    )


# --- decoding ---------------------------------------------------------------------------------------------------------


def _entry(raw: bytes, path: str) -> dict[str, Any]:
    try:
        entry = json.loads(raw)
    except (ValueError, RecursionError) as error:
        message = f"{path} is no record of ours: it is no JSON"
        raise DecodeError(message, path=path, raw=raw) from error
    if not isinstance(entry, dict) or not isinstance(entry.get("format"), int):
        message = f"{path} is no record of ours: it has no format number"
        raise DecodeError(message, path=path, raw=raw)
    if entry["format"] > FORMAT:
        message = f"{path} has format {entry['format']}, and this version of zkrecipes knows up to {FORMAT}; update it"
        raise DecodeError(message, path=path, raw=raw)
    return entry


_BROKEN: Final = (KeyError, TypeError, ValueError, AttributeError, binascii.Error)


def decode_record(raw: bytes, path: str) -> tuple[Release, bytes]:
    """A release, and its document's bytes.

    Raises:
        DecodeError: It is no release record, or one of a newer format.
    """
    entry = _entry(raw, path)
    try:
        release = Release(
            version=int(entry["version"]),
            who=str(entry["who"]),
            host=str(entry["host"]),
            when=str(entry["when"]),
            reason=str(entry["why"]),
            source=str(entry["source"]),
            base=entry.get("from"),
            rolled_back_to=entry.get("to"),
            changed=tuple(map(str, entry["changed"])),
            id=str(entry["id"]),
        )
        return release, _document_of(entry)
    except _BROKEN as error:
        message = f"{path} is no release record: {type(error).__name__} at its fields"
        raise DecodeError(message, path=path, raw=raw) from error


def decode_canary(raw: bytes, path: str) -> Rollout:
    """A canary.

    Raises:
        DecodeError: It is no canary, or one of a newer format.
    """
    entry = _entry(raw, path)
    try:
        selector = entry["selector"]
        labels = selector.get("labels")
        return Rollout(
            id=str(entry["id"]),
            selector=Canary(labels=dict(labels)) if labels else Canary(percent=selector["percent"]),
            document=_document_of(entry),
            base=int(entry["base"]["version"]),
            base_czxid=int(entry["base"]["czxid"]),
            who=str(entry["who"]),
            host=str(entry["host"]),
            when=str(entry["when"]),
            reason=str(entry["why"]),
            changed=tuple(map(str, entry.get("changed", ()))),
        )
    except _BROKEN as error:
        message = f"{path} is no canary: {type(error).__name__} at its fields"
        raise DecodeError(message, path=path, raw=raw) from error


def decode_status(raw: bytes, path: str) -> InstanceStatus:
    """What an instance has reported.

    Raises:
        DecodeError: It is no such report, or one of a newer format.
    """
    entry = _entry(raw, path)
    try:
        return InstanceStatus(
            id=str(entry["id"]),
            labels={str(name): str(value) for name, value in entry["labels"].items()},
            version=int(entry["version"]),
            accepted=bool(entry["accepted"]),
            error=None if entry["error"] is None else str(entry["error"]),
            canary=None if entry.get("canary") is None else str(entry["canary"]),
            when=str(entry["when"]),
        )
    except _BROKEN as error:
        message = f"{path} is no report of an instance: {type(error).__name__} at its fields"
        raise DecodeError(message, path=path, raw=raw) from error
