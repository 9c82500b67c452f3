"""Find a ZooKeeper installation and a Java to run it.

Two layouts are known: a release unpacked somewhere, named by ZOOKEEPER_HOME, and Debian's packages, whose jars lie
under /usr/share/java.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, final

from zkrecipes.errors import ZkRecipesError

__all__ = ["Installation", "InstallationNotFoundError", "find_installation"]

OLDEST_JAVA: Final = 11

_DEBIAN: Final = Path("/usr/share/java")
# zookeeper.jar names most of what it needs in its manifest. The rest: TLS through netty, and a logger that writes.
_DEBIAN_JARS: Final = (
    "zookeeper",
    "zookeeper-jute",
    "netty-buffer",
    "netty-codec",
    "netty-common",
    "netty-handler",
    "netty-resolver",
    "netty-transport",
    "netty-transport-native-epoll",
    "netty-transport-native-unix-common",
    "slf4j-api",
    "slf4j-simple",
    "snappy-java",
    "metrics-core",
    "commons-cli",
    "commons-io",
)
_INSTALL_ZOOKEEPER: Final = (
    "as root type: apt-get install -y zookeeper default-jre-headless; "
    "or unpack a ZooKeeper release and set ZOOKEEPER_HOME to its directory"
)
_INSTALL_JAVA: Final = "as root type: apt-get install -y default-jre-headless; or set JAVA_HOME to a Java of your own"


@final
class InstallationNotFoundError(ZkRecipesError):
    """No ZooKeeper, or no Java to run it, is installed here. The message names the command to type."""


@final
@dataclass(frozen=True, slots=True)
class Installation:
    """What it takes to start a server.

    Attributes:
        home: The directory in which the jars were found.
        jars: The class path.
        java: The Java program.
        version: ZooKeeper's version as its jar's name tells it, "unknown" if it does not.
    """

    home: Path
    jars: tuple[Path, ...]
    java: Path
    version: str


def find_installation(environ: Mapping[str, str] | None = None) -> Installation:
    """Find ZooKeeper and Java.

    Args:
        environ: Where ZOOKEEPER_HOME and JAVA_HOME are looked up; our own environment if None.

    Raises:
        InstallationNotFoundError: ZooKeeper, or Java 11 or newer, is missing.
    """
    environ = os.environ if environ is None else environ
    home = environ.get("ZOOKEEPER_HOME", "")
    jars = _release_jars(Path(home)) if home else ()
    if home and not jars and not _is_debian_home(home):
        message = f"ZOOKEEPER_HOME is {home!r}, and it holds no zookeeper-*.jar, nor does its lib/; correct or unset it"
        raise InstallationNotFoundError(message)
    directory = Path(home)
    if not jars:
        directory = _DEBIAN
        jars = tuple(path for name in _DEBIAN_JARS if (path := _DEBIAN / f"{name}.jar").exists())
        if not (_DEBIAN / "zookeeper.jar").exists():
            message = f"no ZooKeeper installation found; {_INSTALL_ZOOKEEPER}"
            raise InstallationNotFoundError(message)
    return Installation(directory, jars, _find_java(environ.get("JAVA_HOME", "")), _version(jars))


def _is_debian_home(home: str) -> bool:
    """Debian's scripts export its own directory, which holds scripts and no jar."""
    return Path(home).resolve() == Path("/usr/share/zookeeper")


def _release_jars(home: Path) -> tuple[Path, ...]:
    jars = (*sorted((home / "lib").glob("*.jar")), *sorted(home.glob("*.jar")))
    return jars if any(re.match(r"zookeeper-\d", jar.name) for jar in jars) else ()


def _version(jars: tuple[Path, ...]) -> str:
    for jar in jars:
        found = re.match(r"zookeeper-(\d.*)\.jar", jar.resolve().name)
        if found:
            return found[1]
    for jar in _DEBIAN.glob("zookeeper-[0-9]*.jar"):
        return jar.name.removeprefix("zookeeper-").removesuffix(".jar")
    return "unknown"


def _find_java(home: str) -> Path:
    program = Path(home) / "bin" / "java" if home else Path(shutil.which("java") or "")
    if not program.is_file():
        where = f"JAVA_HOME is {home!r}, and there is no bin/java in it" if home else "no Java found"
        message = f"{where}; {_INSTALL_JAVA}"
        raise InstallationNotFoundError(message)
    version = _java_version(program)
    if version < OLDEST_JAVA:
        message = f"{program} is Java {version}, and ZooKeeper is started with {OLDEST_JAVA} or newer; {_INSTALL_JAVA}"
        raise InstallationNotFoundError(message)
    return program


@lru_cache
def _java_version(program: Path) -> int:
    """The major version; from the file beside it where there is one, since asking Java takes 0.1 s."""
    release = program.resolve().parent.parent / "release"
    text = release.read_text(encoding="utf-8", errors="replace") if release.is_file() else ""
    found = re.search(r'JAVA_VERSION="(\d+)(?:\.(\d+))?', text)
    if not found:
        answer = subprocess.run([program, "-version"], check=False, capture_output=True, text=True, timeout=30)
        found = re.search(r'version "(\d+)(?:\.(\d+))?', answer.stderr + answer.stdout)
    if not found:
        return 0
    # Java 8 and older call themselves 1.8.
    return int(found[2] or 0) if found[1] == "1" else int(found[1])
