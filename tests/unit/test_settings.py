"""What connect() is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tenacity import stop_after_attempt, stop_after_delay, wait_fixed

from zkrecipes.settings import DigestAuth, Retry, SaslDigest, SaslGssapi, Tls, auth_list, host_list


@pytest.mark.parametrize(
    ("hosts", "text"),
    [
        ("a", "a"),
        ("a:1,b:2", "a:1,b:2"),
        (" a:1 , b ", "a:1,b"),
        (["a:1", "b:2"], "a:1,b:2"),
        (("[::1]:2181",), "[::1]:2181"),
        ("zk-1.example.com:65535", "zk-1.example.com:65535"),
    ],
)
def test_hosts(hosts: Any, text: str) -> None:
    assert host_list(hosts) == text


@pytest.mark.parametrize(
    "hosts",
    ["", ",", "a,,b", "a:0", "a:65536", "a:x", "a:1/path", "zk://a:1", "a b", [], [""], ["a:1,b:2"], "::1:2181"],
)
def test_bad_hosts_are_refused_by_name(hosts: Any) -> None:
    with pytest.raises(ValueError, match="hosts"):
        host_list(hosts)


@pytest.mark.parametrize("hosts", [None, 3, b"a:1", [b"a:1"], {"a": 1}])
def test_hosts_of_a_wrong_type_are_refused_by_name(hosts: Any) -> None:
    with pytest.raises(TypeError, match="hosts must be"):
        host_list(hosts)


def test_secrets_stay_out_of_reprs() -> None:
    for secret in (DigestAuth("u", "hidden"), SaslDigest("u", "hidden"), Tls(key_password="hidden")):
        assert "hidden" not in repr(secret)


@pytest.mark.parametrize("kind", [DigestAuth, SaslDigest])
def test_users_are_checked(kind: Any) -> None:
    with pytest.raises(ValueError, match="user must not be empty"):
        kind("", "p")
    with pytest.raises(TypeError, match="user must be a str"):
        kind(None, "p")


@pytest.mark.parametrize("kind", [DigestAuth, SaslDigest])
def test_passwords_are_checked(kind: Any) -> None:
    with pytest.raises(TypeError, match="password must be a str"):
        kind("u", None)


def test_a_colon_would_split_the_user() -> None:
    with pytest.raises(ValueError, match="user must not contain ':'"):
        DigestAuth("a:b", "p")


def test_auth_takes_one_or_several() -> None:
    digest, sasl = DigestAuth("u", "p"), SaslDigest("u", "p")
    assert auth_list(digest) == (digest,)
    assert auth_list([digest, sasl]) == (digest, sasl)
    assert auth_list(()) == ()


def test_auth_takes_one_sasl_identity() -> None:
    with pytest.raises(ValueError, match="one SASL identity"):
        auth_list([SaslDigest("u", "p"), SaslGssapi()])


@pytest.mark.parametrize("auth", ["u:p", ["u:p"], [("digest", "u:p")], None, 3])
def test_auth_of_a_wrong_type_is_refused_by_name(auth: Any) -> None:
    with pytest.raises(TypeError, match="auth"):
        auth_list(auth)


def test_tls_files_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="tls: ca must be the path of a PEM file"):
        Tls(ca=tmp_path / "none.pem")


def test_tls_wants_cert_and_key_together(tmp_path: Path) -> None:
    file = tmp_path / "cert.pem"
    file.write_text("x")
    with pytest.raises(ValueError, match="cert and key must be given together"):
        Tls(cert=file)


def test_retry_asks_tenacity() -> None:
    retry = Retry(wait=wait_fixed(0.5), stop=stop_after_attempt(3))
    assert [retry.pause(attempt, 0.0) for attempt in (1, 2, 3, 4)] == [0.5, 0.5, None, None]
    by_time = Retry(wait=wait_fixed(0.1), stop=stop_after_delay(10))
    assert by_time.pause(99, 9.9) == 0.1
    assert by_time.pause(1, 10.0) is None


def test_retry_by_default_goes_on_with_growing_jittered_pauses() -> None:
    pauses = [Retry().pause(attempt, 0.0) for attempt in range(1, 200)]
    assert all(pause is not None and 0 <= pause <= 1.0 for pause in pauses)
    assert len(set(pauses)) > 100
