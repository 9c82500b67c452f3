"""`zkrecipes config get | diff | history | status | validate | explain`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

import zkrecipes as zkr
from tests.cli.conftest import Cli
from tests.cli.shop import Database, Settings
from zkrecipes.cli.documents import (
    Documents,
    assigned,
    canary_of,
    field_of,
    load_model,
    masked_places,
    selector_text,
    value_of,
)
from zkrecipes.cli.output import UsageProblem
from zkrecipes.testing import wait_until

PATH: Final = "/config/shop"
MODEL: Final = "tests.cli.shop:Settings"
DOCUMENT: Final = """\
{"greeting": "hi", "pin": "0007", "database": {"pool_size": 7, "password": "s3cret"}}
"""


def put(zk: zkr.Client, text: str = DOCUMENT, path: str = PATH) -> None:
    """As any other tool would."""
    zk.create(path, text.encode(), parents=True)


def answer(cli: Cli, *arguments: str) -> Any:
    ended = cli.call("config", *arguments, "--json")
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def test_get_masks_secrets_by_the_model_or_by_their_names(cli: Cli, zk: zkr.Client) -> None:
    put(zk)
    by_name = cli.call("config", "get", PATH)
    assert by_name.returncode == 0
    assert "s3cret" not in by_name.stdout
    assert "0007" in by_name.stdout
    assert "--show-secrets" in by_name.stderr
    by_type = answer(cli, "get", PATH, "--model", MODEL)
    assert by_type["document"]["pin"] == "**********"
    assert by_type["document"]["database"] == {"pool_size": 7, "password": "**********"}
    assert by_type["version"] == 0
    assert cli.call("config", "get", PATH, "--show-secrets").stdout == DOCUMENT


def test_get_one_field(cli: Cli, zk: zkr.Client) -> None:
    put(zk)
    assert cli.call("config", "get", PATH, "database.pool_size").stdout == "7\n"
    assert cli.call("config", "get", PATH, "greeting").stdout == "hi\n"
    assert cli.call("config", "get", PATH, "database.password").stdout == "**********\n"
    assert cli.call("config", "get", PATH, "database.password", "--show-secrets").stdout == "s3cret\n"
    assert answer(cli, "get", PATH, "database.pool_size") == {
        "path": PATH,
        "version": 0,
        "field": "database.pool_size",
        "value": 7,
    }
    missing = cli.call("config", "get", PATH, "database.port")
    assert missing.returncode == 1
    assert "no field database.port" in missing.stderr


def test_a_document_is_printed_as_it_was_written(cli: Cli, zk: zkr.Client) -> None:
    text = "# prices\n[tea]\nprice = 3   # a cup\nsince = 2024-05-01\n"
    put(zk, text, "/config/prices.toml")
    assert cli.call("config", "get", "/config/prices.toml").stdout == text
    assert answer(cli, "get", "/config/prices.toml")["document"] == {"tea": {"price": 3, "since": "2024-05-01"}}


def test_what_is_no_document(cli: Cli, zk: zkr.Client) -> None:
    missing = cli.call("config", "get", PATH, "--json")
    assert missing.returncode == 1
    error = json.loads(missing.stderr)
    assert (error["error"], error["path"]) == ("NodeNotFoundError", PATH)
    put(zk, "greeting = 'x'\n")
    wrong = cli.call("config", "get", PATH)
    assert wrong.returncode == 1
    assert "--format" in wrong.stderr
    assert cli.call("config", "get", PATH, "--format", "toml").returncode == 0
    assert cli.call("config", "get", PATH, "--show-secrets").stdout == "greeting = 'x'\n"


def test_diff_and_history(cli: Cli, zk: zkr.Client, tmp_path: Path) -> None:
    releases = zkr.ConfigReleases(zk, PATH, Settings)
    releases.publish(DOCUMENT, reason="first")
    releases.publish(DOCUMENT.replace("7,", "8,").replace("s3cret", "0ther"))
    releases.rollback(0, reason="too many")

    listed = answer(cli, "history", PATH)["releases"]
    assert [(each["version"], each["source"], each["reason"]) for each in listed] == [
        (2, "rollback", "too many"),
        (1, "publish", ""),
        (0, "publish", "first"),
    ]
    lines = cli.call("config", "history", PATH, "-n", "1").stdout.splitlines()
    assert len(lines) == 1
    assert "rollback to 0" in lines[0]
    assert "'too many'" in lines[0]

    found = answer(cli, "diff", PATH, "0", "1", "--model", MODEL)["differences"]
    assert found == [
        {"path": "database.pool_size", "kind": "changed", "old": 7, "new": 8},
        {"path": "database.password", "kind": "changed", "old": "**********", "new": "**********"},
    ]
    assert cli.call("config", "diff", PATH).stdout.splitlines()[0] == "~ database.pool_size: 8 -> 7"
    assert "do not differ" in cli.call("config", "diff", PATH, "0").stdout
    local = tmp_path / "new.json"
    local.write_text(DOCUMENT.replace("hi", "moin"))
    assert cli.call("config", "diff", PATH, "--file", str(local)).stdout == "~ greeting: 'hi' -> 'moin'\n"
    gone = cli.call("config", "diff", PATH, "77")
    assert gone.returncode == 1
    assert "kept are: 0 to 2" in gone.stderr


def test_status_shows_who_runs_what(cli: Cli, zk: zkr.Client) -> None:
    put(zk)
    assert answer(cli, "status", PATH) == {
        "path": PATH,
        "version": 0,
        "canary": None,
        "last_canary": None,
        "instances": [],
    }
    assert "no instance" in cli.call("config", "status", PATH).stdout
    instance = zkr.Instance("web-1", {"zone": "a"})
    with zkr.Config(zk, PATH, Settings, instance=instance) as config:
        wait_until(lambda: config.status().instances)
        zkr.ConfigReleases(zk, PATH, Settings).publish(DOCUMENT.replace("hi", "x"), canary=zkr.Canary(percent=100))
        wait_until(lambda: config.canary)
        wait_until(lambda: config.status().instances[0].canary)
        found = answer(cli, "status", PATH)
        assert (found["version"], found["canary"]["percent"], found["canary"]["base"]) == (0, 100, 0)
        assert [(each["id"], each["labels"]) for each in found["instances"]] == [("web-1", {"zone": "a"})]
        text = cli.call("config", "status", PATH).stdout
        assert f"canary {found['canary']['id']} for 100 % of the instances" in text
        assert f"web-1  runs the canary {found['canary']['id']}  zone=a" in text


def test_validate_a_document_or_a_file(cli: Cli, zk: zkr.Client, tmp_path: Path) -> None:
    put(zk)
    good = cli.call("config", "validate", PATH, "--model", MODEL)
    assert (good.returncode, good.stdout) == (0, f"version 0 of {PATH} fits {MODEL}\n")
    local = tmp_path / "bad.yaml"
    local.write_text("greeting: [1]\npin: top-secret-pin\ndatabase: {pool_size: 0}\n")
    bad = cli.call("config", "validate", "--file", str(local), "--model", MODEL, "--json", hosts="127.0.0.1:1")
    assert bad.returncode == 1, "a local file needs no server"
    assert "top-secret-pin" not in bad.stderr
    error = json.loads(bad.stderr)
    assert [each["path"] for each in error["errors"]] == ["greeting", "database.pool_size"]
    assert "\n  database.pool_size: " in cli.call("config", "validate", "--file", str(local), "--model", MODEL).stderr
    assert cli.call("config", "validate", "--model", MODEL).returncode == 2


def test_explain_tells_the_layer_of_each_value(cli: Cli, zk: zkr.Client, tmp_path: Path) -> None:
    put(zk)
    put(zk, '{"database": {"host": "shared", "pool_size": 99}}', "/config/all")
    local = tmp_path / "base.toml"
    local.write_text('greeting = "from the file"\n[database]\nhost = "file"\n')
    cli.environment = cli.environment | {"SHOP_GREETING": "from the environment"}
    found = answer(
        cli, "explain", PATH, "--model", MODEL, "--file", str(local), "--global", "/config/all", "--env", "SHOP_"
    )
    assert {each["path"]: (each["value"], each["source"]) for each in found["values"]} == {
        "greeting": ("from the environment", "env:SHOP_GREETING"),
        "pin": ("**********", f"node:{PATH}"),
        "database.host": ("shared", "global:/config/all"),
        "database.pool_size": (7, f"node:{PATH}"),
        "database.password": ("**********", f"node:{PATH}"),
    }
    assert "greeting = 'hi'  (node:/config/shop)" in cli.call("config", "explain", PATH, "--model", MODEL).stdout
    assert zk.exists(f"{PATH}-instances") is None, "to explain is not to run: it must not report as an instance"
    zk.set(PATH, b'{"database": 3}')
    refused = cli.call("config", "explain", PATH, "--model", MODEL)
    assert refused.returncode == 1
    assert "database:" in refused.stderr


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("tests.cli.shop", "must be package.module:Model"),
        ("tests.cli.nowhere:Settings", "cannot be imported"),
        ("tests.cli.shop:Missing", "cannot be imported"),
        ("tests.cli.shop:NO_MODEL", "no class derived from pydantic.BaseModel"),
    ],
)
def test_a_model_that_is_none(cli: Cli, name: str, why: str) -> None:
    ended = cli.call("config", "validate", PATH, "--model", name)
    assert ended.returncode == 2
    assert why in ended.stderr


def test_a_format_that_needs_a_package(tmp_path: Path) -> None:
    local = tmp_path / "shop.yaml"
    local.write_text("greeting: hi\n")
    arguments = ["zkrecipes", "config", "validate", "--file", str(local), "--model", MODEL]
    code = f"import sys; sys.modules['yaml'] = None; sys.argv = {arguments}; import zkrecipes.cli as c; c.main()"
    answer = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=30)
    assert answer.returncode == 69
    assert 'pip install "zkrecipes[yaml]"' in answer.stderr
    assert "Traceback" not in answer.stderr


# --- without a server -------------------------------------------------------------------------------------------------


def test_a_model_is_found_by_its_name() -> None:
    assert load_model(MODEL) is Settings
    assert load_model("tests.cli.shop:Database") is Database
    assert load_model(None) is None


def test_fields() -> None:
    document = {"a": {"b": [10, {"c": None}]}}
    assert field_of(document, "a.b.0") == 10
    assert field_of(document, "a.b.1.c") is None
    for path in ("a.x", "a.b.2", "a.b.1.c.d", "a.b.-1"):
        with pytest.raises(KeyError):
            field_of(document, path)


def test_assignments() -> None:
    document = {"a": {"b": 1}, "t": "x"}
    assert assigned(document, ["a.b=2", "a.c=two", "n.new=[1]", "t="]) == {
        "a": {"b": 2, "c": "two"},
        "t": "",
        "n": {"new": [1]},
    }
    assert document == {"a": {"b": 1}, "t": "x"}
    assert [value_of(text) for text in ("1", '"1"', "true", "01", "a b", "{}")] == [1, "1", True, "01", "a b", {}]
    for wrong in ("a.b", "=1", "t.deeper=1", "t.deeper.still=1"):
        with pytest.raises(UsageProblem):
            assigned(document, [wrong])


def test_which_instances() -> None:
    assert canary_of(None) is None
    assert canary_of("12.5%") == zkr.Canary(percent=12.5)
    both = canary_of("zone=a,tier=web=1")
    assert both == zkr.Canary(labels={"zone": "a", "tier": "web=1"})
    assert both is not None
    assert selector_text(both) == "instances with zone=a, tier=web=1"
    for wrong in ("10", "101%", "x%", "zone", "zone=a,b", ""):
        with pytest.raises(UsageProblem):
            canary_of(wrong)


def test_the_format_is_told_by_a_name() -> None:
    assert Documents.of("/a/b.yaml", None, None).format == "yaml"
    assert Documents.of("/a/b", None, None).format == "json"
    assert Documents.of("/a/b", None, None, "local.toml").format == "toml"
    assert Documents.of("/a/b.yaml", None, "json").format == "json"


def test_a_mask_is_found_wherever_it_is() -> None:
    mask = "**********"
    assert masked_places({"a": {"b": mask}, "c": [1, mask], "d": "x"}) == ["a.b", "c.1"]
