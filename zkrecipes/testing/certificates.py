"""Certificates for a test server and its clients, made by the `openssl` program and thrown away with the server."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from zkrecipes.errors import ZkRecipesError

__all__ = ["Certificates", "OpensslNotFoundError", "make_certificates"]

_DAYS: Final = "30"
_NAMES: Final = "subjectAltName=DNS:localhost,IP:127.0.0.1"


@final
class OpensslNotFoundError(ZkRecipesError):
    """The `openssl` program is missing. The message names the command to type."""


@final
@dataclass(frozen=True, slots=True)
class Certificates:
    """PEM files for both sides.

    Attributes:
        ca: The authority that signed the two below.
        cert: A client's certificate.
        key: Its key, without a password.
        server: The server's certificate and key in one file; it is valid for localhost and 127.0.0.1.
        other_ca: An authority that signed neither, for tests of a wrong CA.
    """

    ca: Path
    cert: Path
    key: Path
    server: Path
    other_ca: Path


def make_certificates(directory: Path) -> Certificates:
    """Make a set of certificates in an existing directory.

    Raises:
        OpensslNotFoundError: There is no `openssl` program.
    """
    if shutil.which("openssl") is None:
        message = "the openssl program is missing; as root type: apt-get install -y openssl"
        raise OpensslNotFoundError(message)
    ca, ca_key = _authority(directory, "ca")
    other_ca, _ = _authority(directory, "other-ca")
    cert, key = _signed(directory, "client", ca, ca_key)
    server_cert, server_key = _signed(directory, "server", ca, ca_key)
    server = directory / "server.pem"
    server.write_bytes(server_key.read_bytes() + server_cert.read_bytes())
    return Certificates(ca, cert, key, server, other_ca)


def _authority(directory: Path, name: str) -> tuple[Path, Path]:
    cert, key = directory / f"{name}.pem", directory / f"{name}.key"
    _openssl(
        *("req", "-x509", "-days", _DAYS, "-subj", f"/CN=zkrecipes test {name}"),
        *(*_new_key(key), "-out", str(cert)),
        *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
    )
    return cert, key


def _signed(directory: Path, name: str, ca: Path, ca_key: Path) -> tuple[Path, Path]:
    cert, key, request = (directory / f"{name}{suffix}" for suffix in (".crt", ".key", ".csr"))
    extensions = directory / f"{name}.ext"
    extensions.write_text(f"{_NAMES}\nauthorityKeyIdentifier=keyid\n", encoding="ascii")
    _openssl("req", "-subj", f"/CN={name}", *_new_key(key), "-out", str(request))
    _openssl(
        *("x509", "-req", "-days", _DAYS, "-in", str(request), "-out", str(cert), "-extfile", str(extensions)),
        *("-CA", str(ca), "-CAkey", str(ca_key), "-CAcreateserial"),
    )
    return cert, key


def _new_key(path: Path) -> tuple[str, ...]:
    return "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc", "-keyout", str(path)


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)  # noqa: S607 -- looked up by the caller
