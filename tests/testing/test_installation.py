from __future__ import annotations

from pathlib import Path

import pytest

from zkrecipes.testing import Installation, InstallationNotFoundError, find_installation, installation


@pytest.fixture
def java_home(tmp_path: Path) -> Path:
    """A Java that was never meant to run: what its `release` file says is all that is read."""
    home = tmp_path / "java"
    (home / "bin").mkdir(parents=True)
    (home / "bin" / "java").touch()
    (home / "release").write_text('IMPLEMENTOR="x"\nJAVA_VERSION="17.0.9"\n')
    return home


def _release(tmp_path: Path, version: str = "3.9.2") -> Path:
    home = tmp_path / f"apache-zookeeper-{version}-bin"
    (home / "lib").mkdir(parents=True)
    for name in (f"zookeeper-{version}.jar", "netty-handler-4.1.jar"):
        (home / "lib" / name).touch()
    return home


def test_a_release_is_found_by_zookeeper_home(tmp_path: Path, java_home: Path) -> None:
    home = _release(tmp_path)
    found = find_installation({"ZOOKEEPER_HOME": str(home), "JAVA_HOME": str(java_home)})
    assert found == Installation(
        home=home,
        jars=(home / "lib" / "netty-handler-4.1.jar", home / "lib" / "zookeeper-3.9.2.jar"),
        java=java_home / "bin" / "java",
        version="3.9.2",
    )


def test_a_zookeeper_home_without_jars_is_named(tmp_path: Path, java_home: Path) -> None:
    with pytest.raises(InstallationNotFoundError, match="ZOOKEEPER_HOME"):
        find_installation({"ZOOKEEPER_HOME": str(tmp_path), "JAVA_HOME": str(java_home)})


def test_without_zookeeper_the_message_says_what_to_type(
    tmp_path: Path, java_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installation, "_DEBIAN", tmp_path / "nothing")
    with pytest.raises(InstallationNotFoundError, match="apt-get install -y zookeeper"):
        find_installation({"JAVA_HOME": str(java_home)})


def test_without_java_the_message_says_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(InstallationNotFoundError, match="apt-get install -y default-jre-headless"):
        find_installation({"ZOOKEEPER_HOME": str(_release(tmp_path)), "JAVA_HOME": str(tmp_path)})


def test_an_old_java_is_refused(tmp_path: Path, java_home: Path) -> None:
    (java_home / "release").write_text('JAVA_VERSION="1.8.0_392"\n')
    with pytest.raises(InstallationNotFoundError, match="is Java 8"):
        find_installation({"ZOOKEEPER_HOME": str(_release(tmp_path)), "JAVA_HOME": str(java_home)})
