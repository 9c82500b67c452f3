"""What the configuration asks of a model: paths, masks, differences, errors without values."""

from __future__ import annotations

import dataclasses
from datetime import date
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, Secret, SecretBytes, SecretStr, ValidationError, field_validator
from typing_extensions import TypedDict

from zkrecipes.config_model import MASK, FieldError, ModelType, leaves

CLEAR = "hunter2-geheim"


class Inner(BaseModel):
    host: str = "localhost"
    password: SecretStr = SecretStr("")
    port: int = Field(default=1, alias="Port")


@dataclasses.dataclass
class Plain:
    token: SecretStr


class Typed(TypedDict):
    token: SecretStr
    name: str


class Outer(BaseModel):
    model_config = ConfigDict(frozen=True)

    name: str = "x"
    inner: Inner = Inner()
    maybe: Inner | None = None
    many: list[Inner] = []
    by_name: dict[str, Inner] = {}
    keys: list[SecretStr] = []
    map_of_keys: dict[str, SecretStr] = {}
    raw: SecretBytes = SecretBytes(b"")
    born: Secret[date] | None = None
    annotated: Annotated[SecretStr, Field(min_length=0)] = SecretStr("")
    plain: Plain | None = None
    typed: Typed | None = None
    either: Inner | Literal["none"] = "none"

    @field_validator("annotated")
    @classmethod
    def check(cls, value: SecretStr) -> SecretStr:
        if value.get_secret_value():
            message = f"I do not like {value.get_secret_value()}"
            raise ValueError(message)
        return value


DOCUMENT: dict[str, Any] = {
    "name": "shown",
    "inner": {"host": "shown", "password": CLEAR, "Port": 2},
    "maybe": {"password": CLEAR},
    "many": [{"password": CLEAR, "host": "shown"}],
    "by_name": {"a": {"password": CLEAR, "host": "shown"}},
    "keys": [CLEAR],
    "map_of_keys": {"a": CLEAR},
    "raw": CLEAR,
    "born": CLEAR,
    "annotated": CLEAR,
    "plain": {"token": CLEAR},
    "typed": {"token": CLEAR, "name": "shown"},
    "either": {"password": CLEAR},
    "unknown": CLEAR,
}

MODEL: ModelType[Outer] = ModelType(Outer)


def test_all_that_is_secret_is_masked_and_nothing_else() -> None:
    masked = MODEL.masked(DOCUMENT)
    assert CLEAR not in repr(masked)
    assert repr(masked).count("shown") == 5
    assert masked["inner"] == {"host": "shown", "password": MASK, "Port": 2}
    assert masked["by_name"]["a"]["host"] == "shown"
    assert DOCUMENT["keys"] == [CLEAR], "the document itself is left alone"


def test_without_a_model_names_tell_what_is_secret() -> None:
    masked = ModelType(None).masked(
        {"db": {"password": CLEAR, "host": "shown", "apiKey": CLEAR}, "list": [{"token": CLEAR}]}
    )
    assert masked == {"db": {"password": MASK, "host": "shown", "apiKey": MASK}, "list": [{"token": MASK}]}


def test_leaves_have_field_names() -> None:
    assert leaves({"inner": {"Port": 2}, "flags": {}, "list": [{"a": 1}]}, MODEL.fields) == {
        "inner.port": 2,
        "flags": {},
        "list": [{"a": 1}],
    }


def test_differences_show_that_a_secret_has_changed_and_not_to_what() -> None:
    old = {"name": "a", "inner": {"password": CLEAR, "host": "h"}, "map_of_keys": {"a": CLEAR}}
    new = {"name": "b", "inner": {"password": CLEAR + "2"}, "map_of_keys": {"a": CLEAR, "b": CLEAR}, "keys": [CLEAR]}
    shown = [str(each) for each in MODEL.diff(old, new)]
    assert shown == [
        "~ name: 'a' -> 'b'",
        f"~ inner.password: '{MASK}' -> '{MASK}'",
        "- inner.host: 'h'",
        f"+ map_of_keys.b: '{MASK}'",
        f"+ keys: '{MASK}'",
    ]
    assert MODEL.diff(old, dict(old)) == []
    assert MODEL.changed({"name": 1}, {"name": True}) == ("name",), "1 and True are equal in Python only"


def errors_of(document: dict[str, Any]) -> tuple[FieldError, ...]:
    with pytest.raises(ValidationError) as raised:
        MODEL.validate(document)
    return MODEL.field_errors(raised.value, document)


def test_errors_name_fields_and_no_values() -> None:
    found = errors_of({"inner": {"Port": CLEAR}, "annotated": CLEAR, "many": [{"password": [CLEAR]}], "raw": [CLEAR]})
    assert [each.path for each in found] == ["inner.port", "many.0.password", "raw", "annotated"]
    assert CLEAR not in repr(found)
    assert "validator" in str(found[3])


def test_a_validator_of_the_whole_cannot_tell_a_secret_either() -> None:
    class Whole(BaseModel):
        password: SecretStr

        @field_validator("password")
        @classmethod
        def check(cls, value: SecretStr) -> SecretStr:
            return value

        def model_post_init(self, _context: object) -> None:
            message = f"the password {self.password.get_secret_value()} is bad"
            raise ValueError(message)

    model: ModelType[Whole] = ModelType(Whole)
    with pytest.raises(ValidationError) as raised:
        model.validate({"password": CLEAR})
    (error,) = model.field_errors(raised.value, {"password": CLEAR})
    assert error.message == f"Value error, the password {MASK} is bad"


def test_what_is_written_is_read_back() -> None:
    value = Outer(
        inner=Inner(password=SecretStr(CLEAR), Port=3),
        by_name={"a": Inner(password=SecretStr(CLEAR))},
        keys=[SecretStr(CLEAR)],
        raw=SecretBytes(CLEAR.encode()),
        born=Secret(date(2020, 2, 29)),
        plain=Plain(SecretStr(CLEAR)),
        typed={"token": SecretStr(CLEAR), "name": "n"},
        either=Inner(),
    )
    document = MODEL.dump(value)
    assert MODEL.validate(document) == value
    assert document["inner"]["Port"] == 3
    assert CLEAR not in repr(MODEL.shown(value))
    assert MODEL.shown(value)["inner.password"] == MASK


def test_strict_models_are_read_back() -> None:
    class Strict(BaseModel):
        model_config = ConfigDict(strict=True)
        day: date
        pair: tuple[int, int]

    model: ModelType[Strict] = ModelType(Strict)
    value = Strict(day=date(2020, 1, 2), pair=(1, 2))
    assert model.validate(model.dump(value)) == value


@pytest.mark.parametrize(
    "path", ["name", "inner", "inner.port", "maybe.host", "by_name.any.thing", "many.0", "either.host"]
)
def test_paths_that_lead_somewhere(path: str) -> None:
    assert MODEL.check_path(path) == path


@pytest.mark.parametrize("path", ["", "nmae", "inner.Port", "inner.", "inner..host", "maybe.hots"])
def test_paths_that_lead_nowhere(path: str) -> None:
    with pytest.raises(ValueError, match="no field"):
        MODEL.check_path(path)


@pytest.mark.parametrize("path", ["name.x", "inner.port.x", "raw.x"])
def test_paths_below_a_single_value(path: str) -> None:
    with pytest.raises(ValueError, match="nothing below"):
        MODEL.check_path(path)


def test_values_at_paths() -> None:
    value = Outer(many=[Inner(host="h")], by_name={"a": Inner(host="i")})
    for path, expected in {
        "many.0.host": "h",
        "by_name.a.host": "i",
        "by_name.b.host": None,
        "many.7": None,
        "maybe.host": None,
    }.items():
        assert ModelType.value_at(value, path) == expected


@pytest.mark.parametrize("model", [dict, Outer(), "Outer"])
def test_what_is_no_model(model: Any) -> None:
    with pytest.raises(TypeError, match="BaseModel"):
        ModelType(model)


def test_frozen() -> None:
    assert MODEL.frozen
    assert not ModelType(Inner).frozen


def test_of_many_errors_the_first_are_told_and_how_many_there_are() -> None:
    document = {"by_name": {f"{'n' * 1000}{number}": 1 for number in range(10_000)}}
    errors = errors_of(document)
    assert len(errors) == 51
    assert errors[-1] == FieldError("", "and 9950 more")
    assert len(str(errors)) < 51 * 1100
