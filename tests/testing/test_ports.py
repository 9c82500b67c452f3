from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from zkrecipes.testing import ports
from zkrecipes.testing.ports import LOOPBACK, reserve_port

_CLAIM: Final = "import sys; from zkrecipes.testing import ports; print(ports._claim(int(sys.argv[1])) is not None)"

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="ports are reserved by names that only Linux has")


def test_a_reserved_port_can_be_listened_on() -> None:
    reserved = reserve_port()
    with socket.create_server((LOOPBACK, reserved.number)):
        pass
    reserved.release()
    reserved.release()


@linux_only
def test_a_reserved_port_is_never_one_that_the_kernel_gives_away(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    setting = tmp_path / "ip_local_port_range"
    setting.write_text("13100\t60999\n")
    monkeypatch.setattr(ports, "_RANGE_FILE", setting)
    reserved = [reserve_port() for _ in range(20)]
    assert len({port.number for port in reserved}) == 20
    assert all(port.number < 13100 for port in reserved)
    for port in reserved:
        port.release()


@linux_only
def test_a_reserved_port_is_not_given_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    first = reserve_port()
    monkeypatch.setattr(ports, "_LOWEST", first.number)
    monkeypatch.setattr(ports, "_ephemeral_floor", lambda: first.number + 1)
    with pytest.raises(OSError, match="no free TCP port"):
        reserve_port()
    first.release()
    again = reserve_port()
    assert again.number == first.number
    again.release()


@linux_only
def test_another_process_cannot_have_a_reserved_port_until_it_is_released() -> None:
    def claimed_elsewhere() -> str:
        command = [sys.executable, "-c", _CLAIM, str(reserved.number)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    reserved = reserve_port()
    assert claimed_elsewhere() == "False"
    reserved.release()
    assert claimed_elsewhere() == "True"
