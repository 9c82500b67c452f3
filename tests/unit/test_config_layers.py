"""Layers: a fixed rank, mappings merged, and each leaf knows where it comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, SecretStr

from zkrecipes.config_layers import NODE, Env, File, Global, Overrides, Part, checked_layers, local_parts, merge, ranked
from zkrecipes.config_model import ModelType, leaves
from zkrecipes.errors import ConfigRejectedError


class Pool(BaseModel):
    size: int = 1
    names: list[str] = []


class Database(BaseModel):
    host: str = "h"
    pool: Pool = Pool()
    pool_size: int = 1
    port: int = Field(default=1, alias="dbPort")


class Settings(BaseModel):
    name: str = "n"
    database: Database = Database()
    note: str | None = None
    password: SecretStr = SecretStr("")
    flags: dict[str, bool] = {}
    below: Settings | None = None


MODEL: ModelType[Settings] = ModelType(Settings)


def merged(*parts: Part) -> tuple[dict[str, Any], dict[str, str]]:
    return merge(parts, MODEL)


def node(document: dict[str, Any]) -> Part:
    return ranked("node", document, shared=False)


def test_higher_wins_whatever_the_order() -> None:
    low, high = ranked("global", {"name": "low", "note": "low"}, shared=True), node({"name": "high"})
    for parts in ((low, high), (high, low)):
        assert merged(*parts) == ({"name": "high", "note": "low"}, {"name": "node", "note": "global"})


def test_mappings_are_merged_and_lists_replace() -> None:
    low = ranked("global", {"database": {"host": "a", "pool": {"names": ["x", "y"], "size": 3}}}, shared=True)
    document, sources = merged(low, node({"database": {"pool": {"names": ["z"]}}}))
    assert document == {"database": {"host": "a", "pool": {"names": ["z"], "size": 3}}}
    assert sources == {"database.host": "global", "database.pool.names": "node", "database.pool.size": "global"}


def test_a_value_replaces_a_mapping_and_the_other_way_round() -> None:
    low = ranked("global", {"below": {"name": "x"}, "note": "text"}, shared=True)
    document, sources = merged(low, node({"below": None, "note": {"a": 1}}))
    assert (document, sources) == ({"below": None, "note": {"a": 1}}, {"below": "node", "note.a": "node"})


def test_what_is_beside_a_replaced_mapping_keeps_its_source() -> None:
    low = ranked("global", {"database": {"pool": {"size": 3, "names": []}, "pool_size": 4, "dbPort": 5}}, shared=True)
    document, sources = merged(low, node({"database": {"pool": 1}}))
    assert document == {"database": {"pool": 1, "pool_size": 4, "dbPort": 5}}
    assert sources == {"database.pool": "node", "database.pool_size": "global", "database.port": "global"}


@pytest.mark.timeout(30)
def test_merging_takes_time_by_the_number_of_values_and_no_more() -> None:
    """Some seconds, where the square of their number would be many minutes."""
    names = [f"name{number}" for number in range(100_000)]
    low = ranked("global", {"flags": {name: {"x": True} for name in names}}, shared=True)
    _, sources = merged(low, node({"flags": dict.fromkeys(names, True)}))
    assert sources == {f"flags.{name}": "node" for name in names}
    _, sources = merged(node({"." * 400_000: 1}))
    assert list(sources.values()) == ["node"]


def test_an_empty_mapping_adds_nothing() -> None:
    low = ranked("global", {"flags": {"a": True}}, shared=True)
    assert merged(low, node({"flags": {}})) == ({"flags": {"a": True}}, {"flags.a": "global"})
    assert merged(node({"flags": {}})) == ({"flags": {}}, {"flags": "node"})


def test_a_field_is_one_field_by_its_name_and_by_its_alias() -> None:
    low = ranked("global", {"database": {"dbPort": 5}}, shared=True)
    document, sources = merged(low, node({"database": {"port": 6}}))
    assert (document, sources) == ({"database": {"dbPort": 6}}, {"database.port": "node"})
    assert MODEL.validate(document).database.port == 6


tree = st.recursive(
    st.integers(0, 3) | st.lists(st.integers(), max_size=1),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
trees = st.dictionaries(st.sampled_from("abc"), tree, max_size=3)


@given(st.lists(trees, max_size=4))
def test_every_leaf_comes_from_the_highest_layer_that_has_it(documents: list[dict[str, Any]]) -> None:
    parts = [Part(NODE, str(number), document) for number, document in enumerate(documents)]
    document, sources = merge(parts, ModelType(None))
    found = leaves(document)
    assert found.keys() == sources.keys()
    for path, label in sources.items():
        assert leaves(documents[int(label)])[path] == found[path]


@given(st.lists(trees, max_size=3))
def test_merging_changes_no_part(documents: list[dict[str, Any]]) -> None:
    before = repr(documents)
    merge([Part(NODE, "x", document) for document in documents], ModelType(None))
    assert repr(documents) == before


# --- environment ------------------------------------------------------------------------------------------------------


def from_environment(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], **options: Any) -> Part:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    (part,) = local_parts((Env(**{"prefix": "T_", **options}),), MODEL)
    return part


def test_variables_name_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    part = from_environment(
        monkeypatch,
        {
            "T_NAME": "7",
            "T_DATABASE__POOL__SIZE": "3",
            "T_DATABASE__POOL_SIZE": "4",
            "T_DATABASE__PORT": "5",
            "t_password": '{"not": "json for us"}',
            "T_NOTHING": "ignored",
            "T_BELOW__BELOW__NAME": "deep",
            "OTHER_NAME": "ignored",
        },
    )
    document, sources = merged(part)
    assert document == {
        "name": "7",
        "database": {"pool": {"size": 3}, "pool_size": 4, "dbPort": 5},
        "password": '{"not": "json for us"}',
        "below": {"below": {"name": "deep"}},
    }
    assert sources["database.pool.size"] == "env:T_DATABASE__POOL__SIZE"
    assert sources["password"] == "env:t_password"
    value = MODEL.validate(document)
    assert (value.database.pool.size, value.database.port, value.name) == (3, 5, "7")


def test_lists_and_mappings_are_json(monkeypatch: pytest.MonkeyPatch) -> None:
    part = from_environment(
        monkeypatch,
        {
            "T_DATABASE": '{"host": "json", "pool": {"names": ["a"]}}',
            "T_DATABASE__POOL__SIZE": "3",
            "T_FLAGS": '{"x": true}',
            "T_NOTE": "[1]",
        },
    )
    document, sources = merged(part)
    assert document["database"] == {"host": "json", "pool": {"names": ["a"], "size": 3}}
    assert document["flags"] == {"x": True}
    assert document["note"] == "[1]", "a text is a text"
    assert sources["database.host"] == "env:T_DATABASE"
    assert sources["database.pool.size"] == "env:T_DATABASE__POOL__SIZE"


def test_what_means_nothing_is_left_to_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    part = from_environment(monkeypatch, {"T_DATABASE__POOL_SIZE": "many", "T_FLAGS": "{"})
    assert part.document == {"database": {"pool_size": "many"}, "flags": "{"}


def test_another_delimiter(monkeypatch: pytest.MonkeyPatch) -> None:
    part = from_environment(monkeypatch, {"T_DATABASE_POOL_SIZE": "9"}, delimiter="_")
    assert part.document == {"database": {"pool_size": 9, "pool": {"size": 9}}}


# --- files and overrides ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.json", '{"name": "f"}'), ("a.yml", "name: f"), ("a.yaml", "name: f"), ("a.toml", 'name = "f"')],
)
def test_files(tmp_path: Path, name: str, text: str) -> None:
    file = tmp_path / name
    file.write_text(text)
    (part,) = local_parts((File(file),), MODEL)
    assert (part.document, part.label) == ({"name": "f"}, f"file:{file}")


def test_a_file_that_is_missing_or_broken(tmp_path: Path) -> None:
    missing = tmp_path / "no.json"
    with pytest.raises(ConfigRejectedError, match="optional=True"):
        local_parts((File(missing),), MODEL)
    assert local_parts((File(missing, optional=True),), MODEL)[0].document == {}
    missing.write_text('{"password": "hunter2"')
    with pytest.raises(ConfigRejectedError, match="line 1") as raised:
        local_parts((File(missing),), MODEL)
    assert "hunter2" not in str(raised.value)
    with pytest.raises(ConfigRejectedError, match="cannot be read"):
        local_parts((File(tmp_path, format="json"),), MODEL)


def test_overrides_take_dotted_names() -> None:
    (part,) = local_parts((Overrides({"database.pool.size": 3, "database": {"host": "x"}, "name": "n"}),), MODEL)
    assert part.document == {"database": {"pool": {"size": 3}, "host": "x"}, "name": "n"}


def test_layers_are_checked() -> None:
    assert checked_layers([Global("/a"), Env()]) == (Global("/a"), Env())
    for layers, error in (
        ((File("a"),), ValueError),
        ((Global("a"),), ValueError),
        ((Env(delimiter=""),), ValueError),
        ((Overrides("a"),), TypeError),  # type: ignore[arg-type]
        (Env(), TypeError),
        ((1,), TypeError),
    ):
        with pytest.raises(error):
            checked_layers(layers)  # type: ignore[arg-type]
