"""Hosts: namespaces on the machine's own file system, the same with a share of its processors, and containers.

A command in a host runs in all its namespaces and under its limits. Limits change through the network that the host
belongs to, which asks the engine.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from topology.engine import launch, namespaces
from topology.errors import TopologyError
from topology.face import arguments
from topology.face.arguments import NotHonoured
from topology.face.interfaces import Intf
from topology.face.nodes import Node
from topology.face.shell import FIND_SHELL, SENTINEL


class Host(Node):
    """A host: namespaces with the host's own file system. `ip`, `mac`, `defaultRoute`, `privateDirs` as in Mininet."""

    automatic_ip = False
    """Whether the network chose its address."""

    def entry(self) -> Mapping[str, Any]:
        """Its entry in the inventory. Raises NotHonoured while it does not run."""
        inventory = self.running(self.name).inventory
        assert inventory is not None
        return launch.running_node(inventory, self.name)

    @property
    def pid(self) -> int | None:
        """The host's number of its first process; None while it does not run."""
        if self.net is None or self.net.inventory is None:
            return None
        found = (entry["pid"] for entry in self.net.inventory["nodes"] if entry["name"] == self.name)
        return next(found, None)

    def network_namespace(self) -> Path:
        """Its own."""
        return namespaces.of_process(self.entry()["pid"])

    def environment(self) -> dict[str, str]:
        """What its programs get: this script's environment and the host's own variables."""
        return {**os.environ, **self.entry()["environment"]}

    def folder(self) -> str:
        """Where its programs start: in this script's folder."""
        return os.getcwd()

    def _spawn(
        self, argv: Sequence[str], *, stdin: Any = None, stdout: Any = None, stderr: Any = None,
        env: Mapping[str, str] | None = None, cwd: str | None = None, options: Mapping[str, Any] | None = None,
        terminal: bool = False,
    ) -> subprocess.Popen[Any]:  # fmt: skip
        inventory = self.running(self.name).inventory
        assert inventory is not None
        entry = launch.find_node(inventory, self.name)
        return namespaces.start_in_node(
            entry["pid"], entry["cgroups"], argv, env=self.environment() if env is None else env, stdin=stdin,
            stdout=stdout, stderr=stderr, cwd=cwd or self.folder(), new_session=True, terminal=terminal,
            options=options,
        )  # fmt: skip

    def _start_shell(self, terminal: int) -> subprocess.Popen[bytes]:
        env = {**self.environment(), "PS1": SENTINEL, "PS2": "", "TERM": "dumb"}
        return self._spawn(["sh", "-c", FIND_SHELL], stdin=terminal, stdout=terminal, stderr=terminal, env=env,
                           terminal=True)  # fmt: skip

    def config(self, mac: str | None = None, ip: str | None = None, defaultRoute: str | None = None,
               **_params: Any) -> dict[str, Any]:  # fmt: skip
        """Called once for each host when the network has started; a class of your own may do more here.

        Addresses are there already: the network is made with them.
        """
        if defaultRoute is not None:
            self.setDefaultRoute(defaultRoute)
        for folder in self.params.get("privateDirs") or ():
            self._private(folder)
        return {}

    def configDefault(self, **moreParams: Any) -> None:
        """`config` with the host's own parameters."""
        self.params.update(moreParams)
        self.config(**self.params)

    def _private(self, folder: str | tuple[str, str]) -> None:
        place, source = folder if isinstance(folder, tuple) else (folder, None)
        if source is None:
            said = self.cmd(f"mkdir -p {place} && mount -n -t tmpfs tmpfs {place}")
        else:
            source %= self.__dict__
            said = self.cmd(f"mkdir -p {source} {place} && mount --bind {source} {place}")
        if said.strip():
            raise TopologyError(f"{self.name}: privateDirs {place}: {said.strip()}")

    def setDefaultRoute(self, intf: str | Intf | None = None) -> None:
        """The default route: an interface, or words of `ip route` such as 'via 10.0.0.254'."""
        words = str(intf).split() if intf is not None and " " in str(intf) else ["dev", str(self.intf(intf))]
        self.run_ip("route", "replace", "default", *words)

    def setHostRoute(self, ip: str, intf: str) -> None:
        """A route to one host."""
        self.run_ip("route", "replace", f"{ip}/32", "dev", intf)

    def setARP(self, ip: str, mac: str) -> None:
        """A neighbour that is not asked for."""
        self.run_ip("neigh", "replace", ip, "lladdr", mac, "dev", self.intf().name)


class CPULimitedHost(Host):
    """A host with `cpu` (a share of all of this machine's cores, 0 to 1) and `cores`."""

    def setCPUFrac(self, f: float, sched: str | None = None) -> None:
        """Change the share of all cores, above 0 and up to 1, also while it runs; -1 takes the limit away."""
        if sched not in (None, "cfs"):
            raise NotHonoured(f"{self.name}.setCPUFrac(): sched={sched!r} is not honoured: only 'cfs' is")
        cpu = arguments.processor_share(f"{self.name}.setCPUFrac()", "f", f)
        self.net_of(self.name).limit(self, cpu=cpu)

    def setCPUs(self, cores: Any, mems: int = 0) -> None:
        """Change the cores that it may use."""
        text = ",".join(str(core) for core in cores) if isinstance(cores, (list, tuple)) else str(cores)
        self.net_of(self.name).limit(self, cpuset=text)


class Docker(Host):
    """A container: `dimage`, `dcmd`, `volumes`, `environment`, `mem_limit`, `cpu_quota` and so on, as in Containernet.

    Its programs run with the image's own environment and in its working directory.
    """

    @property
    def dimage(self) -> str:
        """Its image."""
        return str(self.params.get("dimage"))

    @property
    def did(self) -> str | None:
        """Its container's id; None while it does not run."""
        return self.entry()["container_id"] if self.net is not None and self.net.inventory is not None else None

    def environment(self) -> dict[str, str]:
        """What its first process got: the image's variables and the host's own."""
        found: dict[str, str] = {}
        with suppress(OSError):
            text = Path(f"/proc/{self.entry()['pid']}/environ").read_text(encoding="utf-8", errors="replace")
            found = dict(item.partition("=")[::2] for item in text.split("\0") if "=" in item)
        return {**launch.node_environment(self.entry()), **found}

    def folder(self) -> str:
        """The image's working directory."""
        try:
            return os.readlink(f"/proc/{self.entry()['pid']}/cwd")
        except OSError:
            return "/"

    def updateCpuLimit(self, cpu_quota: int = -1, cpu_period: int = -1, cpu_shares: int = -1,
                       cores: str | None = None) -> None:  # fmt: skip
        """Change processor limits while it runs: quota and period in microseconds; what is not given stays."""
        self.net_of(self.name).limit_container(self, cpu_quota, cpu_period, cpu_shares, cores, None, None)

    def updateMemoryLimit(self, mem_limit: int | str = -1, memswap_limit: int | str = -1) -> None:
        """Change memory limits while it runs, in bytes or as '512m'; swap stays without limit of its own."""
        memory = None if mem_limit == -1 else mem_limit
        swap = None if memswap_limit == -1 else memswap_limit
        self.net_of(self.name).limit_container(self, -1, -1, -1, None, memory, swap)
