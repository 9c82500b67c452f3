"""Codecs: what goes in comes out, and what cannot be decoded says so."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, Secret, SecretBytes, SecretStr

from zkrecipes import BytesCodec, Codec, DecodeError, IntCodec, JsonCodec, TextCodec
from zkrecipes.codec import decoded, encoded


class Order(BaseModel):
    number: int
    note: str = ""
    due: timedelta = timedelta(seconds=1)


@dataclass
class Point:
    x: float
    y: float


class Vault(BaseModel):
    password: SecretStr
    key: SecretBytes = SecretBytes(b"bytes")
    born: Secret[date] = Secret(date(2020, 2, 29))
    by_name: dict[int, SecretStr] = {}
    many: list[SecretStr] = []
    port: int = Field(default=1, alias="Port")


@given(st.binary())
def test_bytes(value: bytes) -> None:
    assert BytesCodec().decode(BytesCodec().encode(value)) == value


@given(st.text())
def test_text(value: str) -> None:
    assert TextCodec().decode(TextCodec().encode(value)) == value


@given(st.integers())
def test_integers(value: int) -> None:
    assert IntCodec().decode(IntCodec().encode(value)) == value


def test_json_of_models_dataclasses_and_plain_types() -> None:
    order = Order(number=1, note="ä", due=timedelta(hours=2))
    assert JsonCodec(Order).decode(JsonCodec(Order).encode(order)) == order
    points = [Point(1.0, -2.5)]
    assert JsonCodec(list[Point]).decode(JsonCodec(list[Point]).encode(points)) == points
    assert JsonCodec(dict[str, int]).encode({"a": 1}) == b'{"a":1}'


def test_secrets_are_stored_in_clear() -> None:
    """A mask in the place of a secret would lose it, and nobody would notice before it is needed."""
    vault = Vault(password=SecretStr("s3"), by_name={7: SecretStr("a")}, many=[SecretStr(""), SecretStr("b")], Port=9)
    raw = JsonCodec(Vault).encode(vault)
    assert JsonCodec(Vault).decode(raw) == vault
    assert b"**" not in raw
    assert b'"Port":9' in raw


@pytest.mark.parametrize("raw", [b"", b" 1", b"1_0", b"+1", b"1.0", b"\xb2", b"--1", b"9" * 5000])
def test_not_a_number(raw: bytes) -> None:
    with pytest.raises(DecodeError) as raised:
        decoded(IntCodec(), raw, "/n")
    assert (raised.value.path, raised.value.raw) == ("/n", raw)


def test_not_text() -> None:
    with pytest.raises(DecodeError, match=r"/t.*byte 1"):
        decoded(TextCodec(), b"a\xff", "/t")


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b'{"number":"x"}', b"\xff", b"[" * 100_000, b'{"number":' + b"[" * 100_000]
)
def test_not_the_json_of_the_type(raw: bytes) -> None:
    with pytest.raises(DecodeError, match="/orders/1") as raised:
        decoded(JsonCodec(Order), raw, "/orders/1")
    assert raised.value.raw == raw
    assert pickle.loads(pickle.dumps(raised.value)).raw == raw


def test_a_message_shows_the_field_but_no_value() -> None:
    with pytest.raises(DecodeError) as raised:
        decoded(JsonCodec(Vault), b'{"password": ["hunter2"], "Port": "hunter3"}', "/v")
    assert "password" in str(raised.value)
    assert "hunter" not in str(raised.value)


def test_whatever_a_codec_raises_is_a_decode_error() -> None:
    class Broken:
        def encode(self, value: Any) -> Any:
            return value

        def decode(self, raw: bytes) -> Any:
            raise RecursionError

    codec: Codec[Any] = Broken()
    with pytest.raises(DecodeError, match=r"/b.*RecursionError") as raised:
        decoded(codec, b"x", "/b")
    assert isinstance(raised.value.__cause__, RecursionError)
    with pytest.raises(TypeError, match="bytes"):
        encoded(codec, "text", "/b")
    assert encoded(codec, b"x", "/b") == b"x"


@pytest.mark.parametrize(("codec", "value"), [(BytesCodec(), "x"), (TextCodec(), b"x"), (IntCodec(), True)])
def test_a_value_of_another_type_is_refused(codec: Any, value: object) -> None:
    with pytest.raises(TypeError, match="must be"):
        codec.encode(value)


def test_json_is_validated_before_it_is_written() -> None:
    with pytest.raises(ValueError, match="number"):
        JsonCodec(Order).encode({"number": "x"})  # type: ignore[arg-type]


def test_what_pydantic_does_not_know() -> None:
    class Strange:
        pass

    with pytest.raises(TypeError, match="Strange"):
        JsonCodec(Strange)


def test_no_bytes_are_no_json_and_said_in_plain_words() -> None:
    with pytest.raises(DecodeError, match=r"there are no bytes, where the JSON of .*Order.* is expected"):
        JsonCodec(Order).decode(b"")
