from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

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
def test_a_reserved_port_is_never_one_that_the_kernel_gives_away() -> None:
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    reserved = [reserve_port() for _ in range(20)]
    assert len({port.number for port in reserved}) == 20
    assert all(port.number < lowest for port in reserved)
    for port in reserved:
        port.release()


@linux_only
def test_another_process_cannot_have_a_reserved_port_until_it_is_released() -> None:
    def claimed_elsewhere() -> str:
        command = [sys.executable, "-c", _CLAIM, str(reserved.number)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    reserved = reserve_port()
    assert claimed_elsewhere() == "False"
    reserved.release()
    assert claimed_elsewhere() == "True"
