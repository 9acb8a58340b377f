"""What is set on this host, as findings of the doctor: ports, clock, firewall, routing, memory, the kernel's limits."""

from __future__ import annotations

from collections.abc import Sequence

from topology import host_state
from topology.capabilities import Capabilities
from topology.finding import Finding, mebibytes
from topology.kernel_limits import kernel_limits
from topology.resources import CLIENT_BYTES, CORE_BYTES, nodes_that_fit

FEW_NODES = 100


def host_findings(found: Capabilities, ports: Sequence[int]) -> list[Finding]:
    """Ports in use, clock, firewall, routing, congestion control, memory and the kernel's limits."""
    return [_ports(ports), _clock(), _firewall(), _routing(), _congestion(), _memory(found), _limits(found)]


def _ports(ports: Sequence[int]) -> Finding:
    taken = host_state.listening(ports)
    shown = ", ".join(str(port) for port in ports)
    if not taken:
        return Finding("published ports", "ok", f"{shown} are free")
    held = ", ".join(f"{port}" + (f" by {who}" if who else "") for port, who in sorted(taken.items()))
    return Finding(
        "published ports",
        "warning",
        f"in use: {held}",
        "a testbed that publishes these ports cannot be raised (a testbed that is up holds its own)",
        "`cohortnet ls`, end the program, or publish other ports (`publish:`, `rest_host_port:`)",
    )


def _clock() -> Finding:
    clock = host_state.clock()
    offset = "" if clock.offset_s is None else f", {clock.offset_s * 1e3:.3g} ms off as {clock.service} says"
    if clock.synchronised is False:
        return Finding(
            "clock",
            "warning",
            f"source {clock.source}; no time service keeps it",
            "times of events on several machines cannot be compared; on one machine nothing",
            "`sudo timedatectl set-ntp true`, or `sudo apt-get install chrony`",
        )
    if clock.offset_s is not None and clock.offset_s > 0.05:
        return Finding(
            "clock",
            "warning",
            f"source {clock.source}{offset}",
            "times of events on several machines differ by as much; on one machine a step back may come",
            "wait until it is kept, or `sudo chronyc makestep` while no testbed is up",
        )
    if clock.source in ("hpet", "acpi_pm", "jiffies"):
        return Finding(
            "clock",
            "warning",
            f"source {clock.source}, a slow one{offset}",
            "each look at the clock costs a microsecond or more, and pacing of traffic suffers",
            "boot with `clocksource=tsc` where the processor's is stable",
        )
    kept = "kept by a time service" if clock.synchronised else "whether a time service keeps it is not known"
    return Finding("clock", "ok", f"source {clock.source}, {kept}{offset}")


def _firewall() -> Finding:
    forwarding = host_state.forwarding()
    calls = ", bridged frames pass through it" if forwarding.bridge_calls else ""
    if forwarding.policy is None and forwarding.dropping is None:
        return Finding(
            "firewall",
            "warning",
            f"policy of FORWARD could not be read{calls}",
            "cannot be told",
            "`sudo cohortnet doctor`, with `iptables` or `nftables` installed",
        )
    chains = "".join(f", nftables chain {chain!r} drops" for chain in forwarding.dropping or ())
    detail = f"policy of FORWARD is {forwarding.policy or 'not known'}{chains}{calls}"
    if forwarding.policy != "DROP" and not forwarding.dropping:
        return Finding("firewall", "ok", detail)
    bridged = [chain for chain in forwarding.dropping or () if chain.startswith("bridge ")]
    if forwarding.bridge_calls or bridged:
        remedy = "`sudo sysctl net.bridge.bridge-nf-call-iptables=0`" if forwarding.bridge_calls else ""
        more = f"accept in the chain {bridged[0]!r} what shall pass (`sudo nft list ruleset`)" if bridged else ""
        return Finding(
            "firewall",
            "warning",
            detail,
            "frames over bridges in the host's own namespace are dropped (of other emulators, of Docker); testbeds "
            "have their bridges in namespaces of their own and lose nothing",
            "; ".join(part for part in (remedy, more) if part),
        )
    # Docker sets this policy on every host it runs on; testbeds are not forwarded by the host at all.
    return Finding("firewall", "ok", f"{detail}; testbeds need no forwarding by the host")


def _routing() -> Finding:
    if host_state.sysctl("net.ipv4.ip_forward") == "1":
        return Finding("ip_forward", "ok", "on")
    return Finding(
        "ip_forward",
        "warning",
        "off",
        "testbeds: none; containers on Docker's own networks (image builds) reach nothing",
        "`sudo sysctl net.ipv4.ip_forward=1` (dockerd does it at its start)",
    )


def _congestion() -> Finding:
    kind = host_state.sysctl("net.ipv4.tcp_congestion_control") or "unknown"
    if kind in ("cubic", "reno"):
        return Finding("TCP", "ok", f"congestion control {kind}")
    return Finding(
        "TCP",
        "warning",
        f"congestion control {kind}",
        f"shares and latency on a narrow link differ from those of cubic; results have to say {kind}",
        "`sudo sysctl net.ipv4.tcp_congestion_control=cubic` before a testbed is raised",
    )


def _memory(found: Capabilities) -> Finding:
    free = found.memory_available_bytes
    fits = {kind: max(0, free - CORE_BYTES) // each for kind, each in CLIENT_BYTES.items()}
    detail = (f"{mebibytes(free)} free: about {fits['namespace']} PyTorch clients as namespaces, {fits['docker']} as "
              "containers")  # fmt: skip
    if fits["namespace"] >= FEW_NODES // 2:
        return Finding("memory", "ok", detail)
    return Finding("memory", "warning", detail, "larger testbeds end where the kernel ends their processes",
                   "end other programs, or use a larger machine")  # fmt: skip


def _limits(found: Capabilities) -> Finding:
    limits = kernel_limits()
    fits, first = nodes_that_fit(found, limits)
    rooms = (("threads", limits.threads), ("resolved addresses", limits.neighbours),
             ("open files a process", limits.open_files), ("inotify instances", limits.inotify))  # fmt: skip
    listed = ", ".join(f"{name} {room.most}" for name, room in rooms if room.most is not None)
    detail = f"{listed}; the first that ends is {first}, at about {fits} FL clients"
    if fits >= FEW_NODES:
        return Finding("kernel limits", "ok", detail)
    raisers = {"threads": limits.threads.setting + "65536",
               "neighbours (gc_thresh3)": limits.neighbours.setting + "16384",
               "open files of a process (ulimit -n)": limits.open_files.setting + "8192",
               "open files": limits.files.setting + "1000000",
               "network namespaces": limits.net_namespaces.setting + "10000"}  # fmt: skip
    remedy = f"`{raisers[first]}`" if first in raisers else "a larger machine"
    return Finding("kernel limits", "warning", detail, "larger testbeds fail while they are raised, or lose packets",
                   remedy)  # fmt: skip
