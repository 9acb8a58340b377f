"""The management plane: how the host reaches the nodes, and nodes the host, without a way from node to node.

Owns the host's one interface and the rules on the management bridge. Three things keep it from being a side path:
bridge ports are isolated from one another, the bridge drops whatever does not have the host's own address at its other
end (so no detour through the host is possible, whatever the host forwards), and the host's interface does not forward.
"""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
from ipaddress import IPv4Network
from pathlib import Path

from topology.engine import links, namespaces, netlink, programs
from topology.errors import CommandError, Problem, TopologyError
from topology.plan import Plan


def alias(testbed: str) -> str:
    """The alias of the host's interface: whose it is."""
    return f"cohortnet:{testbed}"


def overlapping_routes(routes: list[dict[str, object]], network: str, own: str) -> list[str]:
    """Destinations of the host's routes that overlap `network`, with their interface; default routes and `own`'s are
    none. Pure.
    """
    wanted = IPv4Network(network)
    found = []
    for route in routes:
        destination, device = str(route.get("dst", "default")), str(route.get("dev", "?"))
        if destination == "default" or device == own or route.get("type") == "multicast":
            continue
        try:
            other = IPv4Network(destination, strict=False)
        except ValueError:
            continue
        if other.prefixlen > 0 and other.overlaps(wanted):
            found.append(f"{destination} on {device}")
    return list(dict.fromkeys(found))


def check(plan: Plan) -> list[Problem]:
    """Refuses a management network that the host already routes elsewhere."""
    command = ["ip", "-json", "-4", "route", "show", "table", "all"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
        routes = json.loads(done.stdout or "[]")
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        return [Problem("management_pool", "no-routes", f"`{' '.join(command)}` failed: {error}", "install iproute2")]
    clash = overlapping_routes(routes, plan.management, plan.host_interface)
    if not clash:
        return []
    return [Problem(
        "management_pool", "route-taken", f"this machine already has a route into {plan.management}: {clash[0]}",
        "write another network, such as `management_pool: 172.31.240.0/20`",
    )]  # fmt: skip


def rules(host_address: str, network: str) -> str:
    """The bridge's rules for `nft -f`. Pure.

    Only what goes to or comes from the host's own address passes, and a node answers there but never begins: the
    host's services are not part of the testbed.
    """
    up = links.UPLINK
    return f"""table bridge cohortnet {{
  chain management {{
    type filter hook forward priority 0; policy drop;
    iifname "{up}" ether type arp arp saddr ip {host_address} accept
    iifname "{up}" ip saddr {host_address} ip daddr {network} accept
    oifname "{up}" ether type arp arp daddr ip {host_address} accept
    oifname "{up}" tcp flags & (syn | ack) == syn drop
    oifname "{up}" ip protocol udp drop
    oifname "{up}" ip saddr {network} ip daddr {host_address} accept
  }}
}}
"""


def _filter(plan: Plan) -> None:
    text = rules(plan.management_host, plan.management)
    namespace = namespaces.named(plan.core_namespace)
    try:
        namespaces.inside(namespace, lambda: programs.run(["nft", "-f", "-"], "management plane", text=text))
    except CommandError as error:
        if shutil.which("nft") is None:
            raise TopologyError("`nft` is missing; install the package nftables") from error
        raise


def raise_plane(plan: Plan, *, filtered: bool = True) -> None:
    """Set the rules and give the host's interface its address; its pair is there already (`links`).

    Without `filtered` (a kernel without nftables for bridges) isolation and the interface that does not forward are
    what keeps nodes apart. Raises TopologyError.
    """
    if filtered:
        _filter(plan)
    interface = plan.host_interface
    # Before the interface is up: nothing that comes in there may ever be passed on.
    links.write_sysctls({
        f"ipv6/conf/{interface}/disable_ipv6": "1",
        f"ipv4/conf/{interface}/forwarding": "0",
    })  # fmt: skip
    batch = netlink.Batch()
    batch.change(f"interface {interface}", name=interface, alias=alias(plan.testbed), up=True)
    with netlink.socket_here() as host:
        netlink.send(host, batch)
        second = netlink.Batch()
        index = int(Path(f"/sys/class/net/{interface}/ifindex").read_text(encoding="ascii"))
        second.address(index, plan.management_host, IPv4Network(plan.management).prefixlen, f"address of {interface}")
        netlink.send(host, second)


def remove_interface(testbed: str, name: str) -> str | None:
    """Delete the host's interface of that testbed, found by its name; gives back the name where it was there.

    An interface of that name that carries somebody else's alias is left alone. Raises TopologyError where the kernel
    refuses.
    """
    folder = Path("/sys/class/net") / name
    try:
        owner = (folder / "ifalias").read_text(encoding="utf-8").strip()
    except OSError:
        return None
    if owner not in ("", alias(testbed)):  # "": made, but not yet named when its maker was killed
        return None
    batch = netlink.Batch()
    batch.delete(name)
    with netlink.socket_here() as host:
        netlink.send(host, batch, ignore=(errno.ENODEV,))
    return name
