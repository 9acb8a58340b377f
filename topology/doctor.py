"""What this machine means for testbeds: findings, each with what it costs and how to mend it.

Judges `topology.capabilities` and the host's present settings; `topology.plan_check` judges a plan by the
same. Changes nothing. This is the module to import from: the others are its parts.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from topology.capabilities import Capabilities, DockerFacts, capabilities
from topology.doctor_host import host_findings
from topology.finding import (
    ENGINE_PROGRAMS,
    NETEM_REMEDY,
    SWITCH_PROGRAMS,
    Finding,
    count,
    install,
    mebibytes,
)
from topology.kernel_limits import KernelLimits, kernel_limits
from topology.plan_check import check_plan, port_problems, unsupported
from topology.resources import resource_warnings

__all__ = [
    "Capabilities",
    "DockerFacts",
    "Finding",
    "KernelLimits",
    "can_raise",
    "capabilities",
    "check_plan",
    "findings",
    "kernel_limits",
    "port_problems",
    "resource_warnings",
    "unsupported",
]

DEFAULT_PORTS = (8000, 8001, 8080)
"""What the factory-satellite preset and its controller publish on the host."""

_WITHOUT = {
    "nsenter": "`nsenter` by hand into a node",
    "modprobe": "loading kernel modules that are there",
    "ethtool": "turning checksum offload off, and reading a link's settings",
    "iptables": "seeing what the host's firewall does",
    "ovs-ofctl": "looking at flows by hand",
    "ping": "`pingall` in namespace nodes",
    "iperf3": "`iperf`, measuring links and background traffic",
    "dockerd": "the runtime `docker`; the runtime `namespace` needs no daemon",
    "docker-init": "the runtime `docker`: its containers have an init process that reaps",
    "prometheus": "monitoring",
}


def findings(found: Capabilities | None = None, ports: Iterable[int] = DEFAULT_PORTS) -> list[Finding]:
    """Everything that `cohortnet doctor` shows. Works without root and says what could not be tried."""
    found = found or capabilities()
    return [
        *_kernel(found),
        *_switching(found),
        *_groups(found),
        _daemon(found.docker, found),
        *_programs(found),
        *host_findings(found, tuple(ports)),
    ]


ESSENTIAL = ("veth pairs", "Open vSwitch", "datapath", "programs")
"""Findings without which no testbed with switches can be raised; what others lack only narrows what a link or node can
do.
"""


def can_raise(results: Iterable[Finding]) -> bool:
    """Whether a testbed can be raised on this machine (by root)."""
    return not any(finding.name in ESSENTIAL and finding.status == "missing" for finding in results)


def _feature(name: str, value: bool | None, good: str, bad: str, cost: str, remedy: str) -> Finding:
    if value is None:
        return Finding(name, "warning", "could not be tried", cost, "`sudo cohortnet doctor` tries it")
    return Finding(name, "ok", good) if value else Finding(name, "missing", bad, cost, remedy)


def _machine(found: Capabilities) -> Finding:
    free = f"{mebibytes(found.memory_available_bytes)} of {mebibytes(found.memory_bytes)} free"
    detail = f"kernel {found.kernel}, Python {found.python}, {count(found.cores, 'core')}, {free}"
    if found.cores > 1:
        return Finding("machine", "ok", detail)
    return Finding(
        "machine",
        "warning",
        detail,
        "switches, controller and nodes share one core: rates above some 100 Mbit/s are not reached",
        "use a machine with two cores or more",
    )


def _kernel(found: Capabilities) -> list[Finding]:
    rights = "root" if found.root else "an ordinary user"
    return [
        Finding(
            "rights",
            "ok" if found.root else "warning",
            f"running as {rights}",
            "" if found.root else "testbeds cannot be raised, and some things below cannot be tried",
            "" if found.root else "use `sudo`",
        ),
        _machine(found),
        _feature(
            "qdisc netem",
            found.netem,
            "delays, loses, duplicates, corrupts and reorders packets",
            "not in this kernel",
            "links have no delay, jitter, loss, duplication, corruption or reordering; plans that declare "
            "them are refused",
            f"{NETEM_REMEDY}; or `--allow-unsupported delay`",
        ),
        _feature(
            "qdisc htb",
            found.htb,
            "limits rates",
            "not in this kernel",
            "links cannot have a rate",
            "`sudo modprobe sch_htb`",
        ),
        _feature(
            "qdisc tbf",
            found.tbf,
            "limits rates",
            "not in this kernel",
            "none while htb is there",
            "`sudo modprobe sch_tbf`",
        ),
        _feature(
            "veth pairs",
            found.veth,
            "links between namespaces",
            "not in this kernel",
            "no testbed can be raised",
            "`sudo modprobe veth`",
        ),
        _feature(
            "bridge isolation",
            found.bridge_isolation,
            "ports of the management bridge do not reach one another",
            "not in this kernel",
            "nodes are kept apart on the management network by nftables alone",
            "a kernel of 4.18 or later with CONFIG_BRIDGE",
        ),
        _feature(
            "nftables for bridges",
            found.nft_bridge,
            "filters the management bridge",
            "not usable",
            "the detour between nodes through the host is closed by port isolation alone",
            "`sudo apt-get install nftables`, `sudo modprobe nf_tables_bridge`",
        ),
    ]


def _switching(found: Capabilities) -> list[Finding]:
    results = []
    if found.ovs_version:
        results.append(Finding("Open vSwitch", "ok", f"version {found.ovs_version}"))
    else:
        results.append(
            Finding(
                "Open vSwitch",
                "missing",
                "not installed",
                "no testbed with switches can be raised",
                install(["ovs-vswitchd"]),
            )
        )
    results.append(_datapath(found))
    return results


def _datapath(found: Capabilities) -> Finding:
    if found.kernel_datapath:
        return Finding("datapath", "ok", "in the kernel")
    remedy = "`sudo modprobe openvswitch`, where the kernel has it"
    cost = (
        "one flow passes one switch with some Gbit/s, the whole factory-satellite preset with about "
        "1 Gbit/s, at the price of processor time"
    )
    if found.tun:
        return Finding(
            "datapath", "warning", "no openvswitch module: switches work in user space", cost, remedy
        )
    if found.tun is None:
        detail = "no openvswitch module; /dev/net/tun could not be tried"
        return Finding("datapath", "warning", detail, cost, f"`sudo cohortnet doctor` tries it; {remedy}")
    return Finding(
        "datapath",
        "missing",
        "neither an openvswitch module nor a usable /dev/net/tun",
        "no testbed with switches can be raised",
        f"{remedy}, else `sudo modprobe tun`; in a container: hand /dev/net/tun in",
    )


def _groups(found: Capabilities) -> list[Finding]:
    if found.cgroup_version is None:
        return [
            Finding(
                "cgroups",
                "missing",
                "no hierarchy with controllers is mounted",
                "nodes have no limits of processor and memory; plans that declare them are refused",
                "mount them (systemd does), or boot with `systemd.unified_cgroup_hierarchy=1`",
            )
        ]
    detail = f"version {found.cgroup_version}: {', '.join(found.controllers)}"
    lacking = [name for name in ("cpu", "memory", "cpuset", "pids") if name not in found.controllers]
    if not found.cpu_quota and "cpu" not in lacking:
        lacking.append("quota of cpu")
    if lacking:
        return [
            Finding(
                "cgroups",
                "warning",
                detail,
                f"no limits by: {', '.join(lacking)}",
                "boot with `cgroup_enable=memory cgroup_enable=cpuset`, or a kernel that has them",
            )
        ]
    return [Finding("cgroups", "ok", detail)]


def _daemon(docker: DockerFacts, found: Capabilities) -> Finding:
    if docker.answers:
        detail = (
            f"version {docker.version}, cgroup version {docker.cgroup_version} by {docker.cgroup_driver}, "
            f"storage {docker.storage_driver}"
        )
        if docker.storage_driver == "vfs":
            return Finding(
                "Docker",
                "warning",
                detail,
                "every container copies its whole image: slow, and large on disk",
                "start the daemon with `--storage-driver overlay2`",
            )
        if (
            docker.cgroup_version == 2
            and docker.cgroup_driver == "cgroupfs"
            and os.path.isdir("/run/systemd/system")
        ):
            return Finding(
                "Docker",
                "warning",
                detail,
                "systemd and Docker both manage one hierarchy; systemd may undo limits",
                'set `"exec-opts": ["native.cgroupdriver=systemd"]` in /etc/docker/daemon.json',
            )
        return Finding("Docker", "ok", detail)
    if not docker.permitted:
        return Finding(
            "Docker",
            "warning",
            docker.error or "not permitted",
            "cannot be told without root",
            "`sudo cohortnet doctor`",
        )
    cost = "the runtime `docker` cannot be used; the runtime `namespace` can"
    if found.programs.get("dockerd") is None and found.programs.get("docker") is None:
        return Finding("Docker", "missing", "not installed", cost, install(["dockerd"]))
    return Finding(
        "Docker",
        "warning",
        f"the daemon does not answer: {docker.error}",
        cost,
        "`sudo systemctl start docker` (without systemd: `sudo dockerd &`)",
    )


def _programs(found: Capabilities) -> list[Finding]:
    needed = [n for n in (*ENGINE_PROGRAMS, *SWITCH_PROGRAMS) if found.programs.get(n) is None]
    useful = [n for n in _WITHOUT if found.programs.get(n) is None]
    if not needed and not useful:
        return [Finding("programs", "ok", f"all {len(found.programs)} are installed")]
    results = []
    if needed:
        results.append(
            Finding(
                "programs",
                "missing",
                f"not installed: {', '.join(needed)}",
                "no testbed can be raised",
                install(needed),
            )
        )
    for name in useful:
        results.append(
            Finding(
                f"program {name}",
                "warning",
                "not installed",
                f"without it: {_WITHOUT[name]}",
                install([name]),
            )
        )
    return results
