"""What scripts written for Mininet or Containernet import instead: `from topology.containernet import Containernet`.

The names are Mininet's, the network is this project's: one plan, raised at `start()` by the same engine as any testbed.
`Topo`, the topologies, `CLI` and the log are Mininet's own, from its package. docs/containernet.md says what differs.
"""

from mininet.cli import CLI
from mininet.log import debug, error, info, lg, output, setLogLevel, warn
from mininet.topo import LinearTopo, SingleSwitchReversedTopo, SingleSwitchTopo, Topo
from mininet.topolib import TorusTopo, TreeTopo

from topology.face.arguments import NotHonoured
from topology.face.devices import Controller, OVSBridge, OVSKernelSwitch, OVSSwitch, RemoteController, Switch
from topology.face.hosts import CPULimitedHost, Docker, Host
from topology.face.interfaces import Intf, Link, TCLink
from topology.face.network import Containernet, Mininet

Node = Host
"""A router of a script's own derives from it, as from Mininet's Node."""
DefaultController = OVSController = Controller
Dockernet = Containernet
TCIntf = Intf

__all__ = [
    "CLI", "CPULimitedHost", "Containernet", "Controller", "DefaultController", "Docker", "Dockernet", "Host", "Intf",
    "LinearTopo", "Link", "Mininet", "Node", "NotHonoured", "OVSBridge", "OVSController", "OVSKernelSwitch",
    "OVSSwitch", "RemoteController", "SingleSwitchReversedTopo", "SingleSwitchTopo", "Switch", "TCIntf", "TCLink",
    "Topo", "TorusTopo", "TreeTopo", "debug", "error", "info", "lg", "output", "setLogLevel", "warn",
]  # fmt: skip
