"""Records, canaries and reports: what goes in comes out; what is not ours, or newer, is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zkrecipes.config_document import compressed, text_of
from zkrecipes.config_records import (
    decode_canary,
    decode_record,
    decode_status,
    encode_canary,
    encode_record,
    encode_status,
)
from zkrecipes.config_store import Head, never_made
from zkrecipes.config_types import Canary, InstanceStatus, Places, Release, Rollout, version_of
from zkrecipes.errors import DecodeError
from zkrecipes.port import Stat

RELEASE = Release(3, "me", "here", "now", "why", "rollback", 2, 1, ("a", "b.c"), "id")
ROLLOUT = Rollout("id", Canary(percent=12.5), b'{"a": 1}', 3, 99, "me", "here", "now", "why", ("a",))
STATUS = InstanceStatus("id", {"zone": "a"}, 3, accepted=False, error="bad", canary="c", when="now")


@given(st.text(), st.booleans())
def test_a_record_holds_its_document(text: str, dense: bool) -> None:  # noqa: FBT001
    raw = text.encode()
    release, document = decode_record(encode_record(RELEASE, raw, dense=dense), "/p")
    assert release == RELEASE
    assert text_of(document) == text_of(raw)


def test_a_compressed_document_is_recorded_as_text() -> None:
    assert decode_record(encode_record(RELEASE, compressed(b"{}")), "/p")[1] == b"{}"
    assert decode_record(encode_record(RELEASE, compressed(b"{}"), dense=True), "/p")[1] == b"{}"


def test_a_release_that_changes_everything_lists_some_of_it() -> None:
    from dataclasses import replace  # noqa: PLC0415

    many = replace(RELEASE, changed=tuple(map(str, range(1000))))
    assert decode_record(encode_record(many, b"{}"), "/p")[0].changed[-2:] == ("199", "...")


@pytest.mark.parametrize("selector", [Canary(percent=12.5), Canary(labels={"zone": "a"})])
def test_canaries_and_reports(selector: Canary) -> None:
    from dataclasses import replace  # noqa: PLC0415

    rollout = replace(ROLLOUT, selector=selector)
    assert decode_canary(encode_canary(rollout), "/p") == rollout
    assert decode_canary(encode_canary(rollout, dense=True), "/p") == rollout
    assert decode_status(encode_status(STATUS), "/p") == STATUS


GOOD = {
    decode_record: encode_record(RELEASE, b"{}"),
    decode_canary: encode_canary(ROLLOUT),
    decode_status: encode_status(STATUS),
}


@pytest.mark.parametrize("decode", GOOD, ids=lambda each: each.__name__)
@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"5", b'{"format": "x"}', b'{"format": 1}', b"[" * 100_000, b"\xff"])
def test_what_is_not_ours_is_refused(decode: Any, raw: bytes) -> None:
    with pytest.raises(DecodeError) as raised:
        decode(raw, "/p")
    assert (raised.value.path, raised.value.raw) == ("/p", raw)


@pytest.mark.parametrize("decode", GOOD, ids=lambda each: each.__name__)
def test_a_newer_format_is_refused_with_the_remedy(decode: Any) -> None:
    entry = json.loads(GOOD[decode])
    entry["format"] = 2
    with pytest.raises(DecodeError, match="update"):
        decode(json.dumps(entry).encode(), "/p")


@pytest.mark.parametrize("decode", GOOD, ids=lambda each: each.__name__)
def test_any_field_may_be_missing_or_wrong(decode: Any) -> None:
    entry = json.loads(GOOD[decode])
    for name in entry:
        values: tuple[Any, ...] = (None, [], {}, "x", -1)
        for value in values:
            changed = {**entry, name: value}
            for each in (changed, {key: other for key, other in entry.items() if key != name}):
                try:
                    decode(json.dumps(each).encode(), "/p")
                except DecodeError:
                    continue


def test_places() -> None:
    places = Places("/n/config/shop")
    assert places.record(7, "id") == "/n/config/shop-releases/0000000007-id"
    assert version_of("0000000007-id") == 7
    assert version_of("canary-0000000007-id") is None
    name = places.instance("a/b é\x00", "id").rpartition("/")[2]
    assert name == "a%2Fb %C3%A9%00@id"


# --- was it never made, or trimmed since? -----------------------------------------------------------------------------


def stat(version: int, czxid: int = 5) -> Stat:
    return Stat(czxid, 9, 0, 0, version, 0, 0, 0, 0, 0, 0)


def head(version: int | None) -> Head:
    return Head(b"", None if version is None else stat(version), (), None)


@pytest.mark.parametrize(
    ("base", "names", "document", "never"),
    [
        (4, [], stat(4), True),  # nobody has published since
        (4, ["0000000005-other"], stat(5), True),  # another one came instead
        (4, ["0000000004-old", "0000000009-new"], stat(9), True),  # older ones are kept, and ours is not among them
        (4, ["0000000008-x", "0000000009-y"], stat(9), False),  # ours may have been trimmed
        (4, [], stat(9), False),
        (4, ["canary-0000000004-x"], stat(9), False),
        (4, ["0000000004-old"], stat(5, czxid=6), False),  # another document
        (4, [], None, False),
        (0, ["0000000000-old"], stat(3), True),
        (None, [], None, True),
        (None, ["0000000000-other"], stat(3), True),
        (None, ["0000000002-other"], stat(3), False),
    ],
)
def test_a_missing_record_proves_something_only_while_none_could_be_trimmed(
    base: int | None,
    names: list[str],
    document: Stat | None,
    never: bool,  # noqa: FBT001
) -> None:
    assert never_made(names, head(base), document) is never
