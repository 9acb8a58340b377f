"""Switches and controllers as scripts hold them: switches of the testbed's own Open vSwitch, this project's controller,
or one that listens elsewhere.

A command of a switch or of our controller runs in the testbed's core: the host's file system, the core's network
namespace, and `ovs-ofctl` and `ovs-vsctl` set to the testbed's Open vSwitch.
"""

from __future__ import annotations

import fcntl
import os
import re
import socket
import subprocess
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from topology.engine import change_links, external, launch, namespaces, openvswitch
from topology.face.arguments import NotHonoured, leftover, refuse
from topology.face.nodes import Node
from topology.face.shell import FIND_SHELL, SENTINEL


class _InCore(Node):
    """A node whose programs run in the testbed's core."""

    def network_namespace(self) -> Path:
        """The core's."""
        plan = self.running(self.name).plan
        assert plan is not None
        return namespaces.named(plan.core_namespace)

    def _namespace(self) -> str | None:
        plan = self.running(self.name).plan
        assert plan is not None
        return plan.core_namespace

    @property
    def pid(self) -> int | None:
        """The testbed's vswitchd; None while it does not run."""
        plan = self.net.plan if self.net is not None and self.net.inventory is not None else None
        return None if plan is None else openvswitch.vswitchd_pid(plan)

    def _spawn(
        self, argv: Sequence[str], *, stdin: Any = None, stdout: Any = None, stderr: Any = None,
        env: Mapping[str, str] | None = None, cwd: str | None = None, options: Mapping[str, Any] | None = None,
        terminal: bool = False,
    ) -> subprocess.Popen[Any]:  # fmt: skip
        plan = self.running(self.name).plan
        assert plan is not None
        variables = {**(os.environ if env is None else env), **openvswitch.environment(plan)}

        def control() -> None:  # a system call only: it runs between fork and exec
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        return subprocess.Popen(
            launch.in_core(plan.testbed, argv, namespace=self._namespace()), stdin=stdin, stdout=stdout, stderr=stderr,
            env=variables, cwd=cwd, start_new_session=True, preexec_fn=control if terminal else None, **(options or {}),
        )  # fmt: skip

    def _start_shell(self, terminal: int) -> subprocess.Popen[bytes]:
        env = {**os.environ, "PS1": SENTINEL, "PS2": "", "TERM": "dumb"}
        return self._spawn(["sh", "-c", FIND_SHELL], stdin=terminal, stdout=terminal, stderr=terminal, env=env,
                           terminal=True)  # fmt: skip


class Switch(_InCore):
    """A switch. `dpid` in hexadecimal digits (else the number in its name), `failMode`, `protocols`, `datapath`."""

    portBase = 1
    standalone_by_nature = False

    def __init__(self, name: str, dpid: str | int | None = None, failMode: str | None = None,
                 protocols: str | None = None, datapath: str | None = None, **params: Any) -> None:  # fmt: skip
        call = f"addSwitch({name!r})"
        super().__init__(name)
        plain = {"inband": False, "batch": False, "stp": False, "opts": "", "inNamespace": False, "reconnectms": 1000,
                 "isSwitch": True}  # fmt: skip
        for key, value in list(params.items()):
            if key in plain and value == plain[key]:
                del params[key]
        if params.get("stp"):
            raise refuse(call, "stp", True, "this project's controller forwards along a spanning tree by itself")
        leftover(call, params, "cls, dpid, failMode, protocols, datapath")
        self.datapath_id = self._datapath_id(call, dpid)
        self.dpid = f"{self.datapath_id:016x}"
        mode = failMode or ("standalone" if self.standalone_by_nature else "secure")
        if mode not in ("secure", "standalone"):
            raise refuse(call, "failMode", failMode, "it is 'secure' or 'standalone'")
        self.failMode = mode
        if protocols is not None and "OpenFlow13" not in str(protocols):
            raise refuse(call, "protocols", protocols, "the switches speak OpenFlow13")
        if protocols is not None and str(protocols) != "OpenFlow13":
            raise refuse(call, "protocols", protocols, "the switches speak OpenFlow13 and no other version")
        if datapath not in (None, "kernel", "user"):
            raise refuse(call, "datapath", datapath, "it is 'kernel' or 'user'")
        self.datapath = datapath

    def _datapath_id(self, call: str, dpid: str | int | None) -> int:
        if dpid is None:
            digits = re.findall(r"\d+", self.name)
            if not digits:
                raise NotHonoured(f"{call}: no datapath id can be made of a name without a number; give dpid='1'")
            return int(digits[0])
        try:
            number = dpid if isinstance(dpid, int) else int(str(dpid).replace(":", ""), 16)
        except ValueError:
            number = 0
        if not 0 < number < 2**48:
            raise refuse(call, "dpid", dpid, "write up to 12 hexadecimal digits, not zero")
        return number

    def dpctl(self, *args: str) -> str:
        """`ovs-ofctl` with this switch: dpctl('dump-flows')."""
        return self.cmd("ovs-ofctl", "-O", "OpenFlow13", args[0], self.name, *args[1:])

    def vsctl(self, *args: str) -> str:
        """`ovs-vsctl` of the testbed's Open vSwitch."""
        return self.cmd("ovs-vsctl", *args)

    def connected(self) -> bool:
        """Whether it has a session with its controller; a switch without one counts as connected."""
        net = self.running(f"{self.name}.connected()")
        assert net.plan is not None
        return net.plan.controller == "none" or self.name not in external.unconnected(net.plan)

    def start(self, controllers: Sequence[Controller] = ()) -> None:
        """Start the whole network where it does not run; else take this switch's ports up again after `stop`."""
        net = self.net_of(f"{self.name}.start()")
        if net.inventory is None:
            net.start()
        else:
            self._ports(True)

    def stop(self, deleteIntfs: bool = True) -> None:
        """Take all its ports down: it forwards nothing, as a switch that failed. Its flows stay."""
        self.running(f"{self.name}.stop()")
        self._ports(False)

    def _ports(self, up: bool) -> None:
        inventory = self.running(self.name).inventory
        assert inventory is not None
        for intf in self.intfList():
            if intf.link is not None:
                change_links.set_state(inventory, intf.link.title, up)


class OVSSwitch(Switch):
    """A switch of the testbed's Open vSwitch; its datapath is the kernel's where this machine has it."""


OVSKernelSwitch = OVSSwitch


class OVSBridge(OVSSwitch):
    """A learning switch without controller."""

    standalone_by_nature = True


class Controller(_InCore):
    """This project's controller, which stands for Mininet's: hosts reach one another along shortest paths."""

    def __init__(self, name: str = "c0", ip: str = "127.0.0.1", port: int | None = None, protocol: str = "tcp",
                 **params: Any) -> None:  # fmt: skip
        call = f"addController({name!r})"
        super().__init__(name, inNamespace=False)
        leftover(call, params, "ip, port, protocol")
        if protocol != "tcp":
            raise refuse(call, "protocol", protocol, "switches and controller speak plain TCP within this machine")
        if ip != "127.0.0.1":
            raise refuse(call, "ip", ip, "our controller runs within the testbed; use RemoteController for another")
        if port not in (None, 6633, 6653):
            raise refuse(call, "port", port, "our controller listens within the testbed, where no port is taken; leave "
                         "it out, or use RemoteController for one that you start")  # fmt: skip
        self.ip, self.port = ip, 6653

    @property
    def address(self) -> str | None:
        """`IP:PORT` of a controller that is not ours."""
        return None

    def IP(self, intf: Any = None) -> str | None:
        """Where it listens."""
        return self.ip

    def start(self) -> None:
        """Nothing: the controller starts with the network."""

    def stop(self, deleteIntfs: bool = False) -> None:
        """Refused: the controller ends with the network."""
        raise NotHonoured(f"{self.name}.stop(): the controller ends with the network")

    def connected(self) -> bool:
        """Whether the network runs, which it does only once every switch has its flows."""
        return self.net is not None and self.net.inventory is not None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}: {self.ip}:{self.port} pid={self.pid}> "


class RemoteController(Controller):
    """A controller that this machine reaches at `ip` and `port`; it has to speak OpenFlow 1.3.

    Without a port it is the first of 6653 and 6633 where somebody listens when the network starts.
    """

    def __init__(self, name: str = "c0", ip: str = "127.0.0.1", port: int | None = None, protocol: str = "tcp",
                 **params: Any) -> None:  # fmt: skip
        super().__init__(name, protocol=protocol, **params)
        self.ip = ip
        self._port = port

    @property
    def address(self) -> str:
        """`IP:PORT`."""
        if self._port is None:
            self._port = next((port for port in (6653, 6633) if self._listens(port)), 6653)
        self.port = self._port
        return f"{self.ip}:{self.port}"

    def _listens(self, port: int) -> bool:
        try:
            with socket.create_connection((self.ip, port), timeout=2):
                return True
        except OSError:
            return False

    def _namespace(self) -> str | None:
        return None  # it is a program of the host's own network

    def network_namespace(self) -> Path:
        """The host's."""
        return Path("/proc/self/ns/net")
