"""Judges a plan by what this machine can do: refuses what it cannot honour. `topology.resources` warns of what will be
tight.

`check_plan` is pure; `port_problems` looks at the host. Nothing here changes anything.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

from topology import host_state
from topology.capabilities import Capabilities
from topology.errors import Problem
from topology.finding import (
    ENGINE_PROGRAMS,
    NETEM_REMEDY,
    SWITCH_PROGRAMS,
    count,
    install,
    mebibytes,
    some,
)
from topology.plan import Plan, PlannedNode
from topology.resources import MOST_NODES

_NETEM_VERBS = {
    "delay": "delay packets",
    "jitter": "vary the delay of packets",
    "loss": "lose packets",
    "duplicate": "duplicate packets",
    "corrupt": "corrupt packets",
    "reorder": "reorder packets",
}


def check_plan(plan: Plan, found: Capabilities, *, raising: bool = True) -> list[Problem]:
    """Everything in the plan that this machine cannot honour. Pure.

    With `raising=False` (validation only) it is left out that raising needs root and programs.
    """
    problems = [*_check_properties(plan, found), *_check_limits(plan.nodes, found)]
    if len(plan.nodes) > MOST_NODES:
        problems.append(
            Problem(
                "nodes",
                "too-many-nodes",
                f"{len(plan.nodes)} nodes, and the kernel's bridge of the management network has {MOST_NODES} ports "
                "for them",
                f"at most {MOST_NODES} nodes a testbed; two testbeds may be up at once",
            )
        )
    if raising:
        if not found.root:
            problems.append(
                Problem(
                    "",
                    "needs-root",
                    "raising a testbed needs root (namespaces, links, limits)",
                    "repeat the command with `sudo`",
                )
            )
        wanted = ENGINE_PROGRAMS + (SWITCH_PROGRAMS if plan.switches else ())
        if plan.runtime == "namespace" and any(flow.start for flow in plan.traffic):  # a container brings its own
            wanted += ("iperf3",)
        missing = [name for name in wanted if found.programs.get(name) is None]
        if missing:
            problems.append(
                Problem("", "missing-program", f"not installed here: {', '.join(missing)}", install(missing))
            )
        watched = plan.monitoring
        if watched is not None and watched.prometheus != "none" and found.programs.get("prometheus") is None:
            problems.append(
                Problem(
                    "monitoring",
                    "missing-program",
                    "not installed here: prometheus",
                    f"{install(['prometheus'])}; or write `monitoring: {{prometheus: none}}` for the exporter alone",
                )
            )
    return problems


def unsupported(plan: Plan, found: Capabilities) -> tuple[str, ...]:
    """The declared properties that this kernel cannot do and the user goes on without: for the inventory."""
    if found.netem is not False:
        return ()
    return tuple(name for name in plan.needs_netem() if name in plan.allow_unsupported)


def _check_properties(plan: Plan, found: Capabilities) -> list[Problem]:
    problems = []
    for name, links in plan.needs_netem().items():
        if found.netem is False and name not in plan.allow_unsupported:
            problems.append(
                Problem(
                    some(links),
                    "unsupported",
                    f"this kernel ({found.kernel}) has no netem and cannot {_NETEM_VERBS[name]}; `{name}` "
                    f"is declared on {count(len(links), 'link')}",
                    f"{NETEM_REMEDY}; or go on without: `--allow-unsupported {name}`, `allow_unsupported: "
                    f"[{name}]` in the file",
                )
            )
    rated = [link.name for link in plan.links if (link.a_to_b.rate_bps, link.b_to_a.rate_bps) != (None, None)]
    if rated and found.htb is False:
        problems.append(
            Problem(
                some(rated),
                "unsupported",
                f"this kernel ({found.kernel}) has no HTB and cannot limit a rate; `rate` is declared on "
                f"{count(len(rated), 'link')}",
                "`sudo modprobe sch_htb`, or a kernel with CONFIG_NET_SCH_HTB, or leave `rate` out",
            )
        )
    if found.veth is False:
        problems.append(
            Problem(
                "",
                "unsupported",
                f"this kernel ({found.kernel}) has no veth pairs, of which links are made",
                "`sudo modprobe veth`, or a kernel with CONFIG_VETH",
            )
        )
    if found.veth is not False and found.bridge_isolation is False and found.nft_bridge is False:
        problems.append(
            Problem(
                "",
                "unsupported",
                f"this kernel ({found.kernel}) has neither isolated bridge ports nor nftables for bridges, "
                "so the management network would be a side path between nodes",
                "a kernel with CONFIG_BRIDGE (4.18 or later) or CONFIG_NF_TABLES_BRIDGE",
            )
        )
    if plan.switches and not found.kernel_datapath and found.tun is False:
        problems.append(
            Problem(
                "",
                "unsupported",
                "there is no openvswitch module, and /dev/net/tun, which Open vSwitch needs without it, "
                "cannot be opened",
                "`sudo modprobe openvswitch` or `sudo modprobe tun`; in a container: hand /dev/net/tun in",
            )
        )
    return problems


def _check_limits(nodes: Sequence[PlannedNode], found: Capabilities) -> list[Problem]:
    problems = []
    large = [n for n in nodes if n.cpu is not None and n.cpu > found.cores]
    if large:
        most = max(n.cpu or 0.0 for n in large)
        problems.append(
            Problem(
                some([n.name for n in large]),
                "too-many-cores",
                f"a `cpu` of {most:g} is more than the {count(found.cores, 'core')} of this machine",
                f"`cpu: {found.cores}` or less, or leave it out",
            )
        )
    elsewhere = [n for n in nodes if n.cpuset is not None and not _cpus(n.cpuset) <= set(found.processors)]
    if elsewhere:
        here = ",".join(str(number) for number in found.processors)
        problems.append(
            Problem(
                some([n.name for n in elsewhere]),
                "no-such-core",
                f"`cpuset: {elsewhere[0].cpuset}` names processors that are not here; this machine has "
                f"{here}",
                f'`cpuset: "{here}"` or a part of it',
            )
        )
    huge = [n for n in nodes if n.memory_bytes is not None and n.memory_bytes > found.memory_bytes]
    if huge:
        most_bytes = max(n.memory_bytes or 0 for n in huge)
        problems.append(
            Problem(
                some([n.name for n in huge]),
                "too-much-memory",
                f"a `memory` of {mebibytes(most_bytes)} is more than the {mebibytes(found.memory_bytes)} "
                "of this machine",
                "lower it, or leave it out",
            )
        )
    for key, controller, users in (
        ("cpu", "cpu", [n.name for n in nodes if n.cpu is not None]),
        ("memory", "memory", [n.name for n in nodes if n.memory_bytes is not None]),
        ("cpuset", "cpuset", [n.name for n in nodes if n.cpuset is not None]),
    ):
        if users and (controller not in found.controllers or (key == "cpu" and not found.cpu_quota)):
            problems.append(
                Problem(
                    some(users),
                    "no-controller",
                    f"`{key}` is declared on {count(len(users), 'node')}, and this machine has no cgroup "
                    f"controller `{controller}`"
                    + (" with a quota" if controller in found.controllers else ""),
                    f"leave `{key}` out, or boot with the controller (`cgroup_enable={controller}`)",
                )
            )
    return problems


def _cpus(text: str) -> set[int]:
    numbers: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        # A range without end would be a set without end: no machine has more.
        numbers.update(range(int(first), min(int(last or first), int(first) + 65536) + 1))
    return numbers


def port_problems(plan: Plan, known: Container[int] = ()) -> list[Problem]:
    """The plan's ports of the host (published ones, monitoring's) on which somebody listens already, now; those that
    are `known` to belong to a testbed are left out.
    """
    own = plan.monitoring.ports() if plan.monitoring else {}
    wanted = [*(port.host_port for port in plan.published), *own.values()]
    taken = host_state.listening([port for port in wanted if port not in known])
    return [
        *(_monitoring_port(key, port, taken[port]) for key, port in own.items() if port in taken),
        *_published_ports(plan, {port: who for port, who in taken.items() if port not in own.values()}),
    ]


def _monitoring_port(key: str, port: int, holder: str) -> Problem:
    # Debian starts a Prometheus of its own where the package is installed on a machine with systemd.
    end = "`sudo systemctl disable --now prometheus` ends the package's own service" if holder.startswith(
        "prometheus "
    ) else "end that program (`cohortnet ls` shows testbeds that are up)"  # fmt: skip
    name = key.rpartition(".")[2]
    return Problem(
        key,
        "port-in-use",
        f"port {port} of this host is in use" + (f" by {holder}" if holder else ""),
        f"write `monitoring: {{{name}: PORT}}` with a free one; or {end}",
    )


def _published_ports(plan: Plan, taken: Mapping[int, str]) -> list[Problem]:
    return [
        Problem(
            f"publish {port.host}:{port.host_port}",
            "port-in-use",
            f"port {port.host_port} of this host is in use"
            + (f" by {taken[port.host_port]}" if taken[port.host_port] else ""),
            "end that program (`cohortnet ls` shows testbeds that are up), or publish another `host_port:`",
        )
        for port in plan.published
        if port.host_port in taken
    ]
