"""Real servers and real faults, for the tests of zkrecipes and for yours.

`ZooKeeperServer` and `ZooKeeperEnsemble` run a ZooKeeper installed here, `ZooKeeperContainer` one in a container,
`FaultProxy` breaks the network before one, `wait_until` waits for a condition with a limit. The pytest fixtures over
them are in `zkrecipes.testing.plugin`, which pytest loads by itself. Nothing here imports more than the standard
library before it is used.
"""

from zkrecipes.testing.certificates import Certificates
from zkrecipes.testing.container import EngineNotFoundError, ZooKeeperContainer
from zkrecipes.testing.control import Server
from zkrecipes.testing.ensemble import ZooKeeperEnsemble
from zkrecipes.testing.installation import Installation, InstallationNotFoundError, find_installation
from zkrecipes.testing.process import ServerStartError, ZooKeeperServer
from zkrecipes.testing.proxy import FaultProxy
from zkrecipes.testing.raw import RawClient
from zkrecipes.testing.traps import Gate, Trap
from zkrecipes.testing.waiting import wait_until

__all__ = [
    "Certificates",
    "EngineNotFoundError",
    "FaultProxy",
    "Gate",
    "Installation",
    "InstallationNotFoundError",
    "RawClient",
    "Server",
    "ServerStartError",
    "Trap",
    "ZooKeeperContainer",
    "ZooKeeperEnsemble",
    "ZooKeeperServer",
    "find_installation",
    "wait_until",
]
