"""Other testbeds of this host: what a plan and they cannot both have. Refused by the other testbed's name, before
anything is made.

Emulated networks lie in namespaces of their own, so two testbeds may have the same `address_pool`; what the host itself
holds (ports, the management network, names of containers) they may not share.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Network

from topology.engine import state
from topology.errors import Problem, TestbedProblems, TopologyError
from topology.finding import some
from topology.plan import STATE_ROOT, Plan, PublishedPort

_WAIT = "`cohortnet ls` shows it"


def others(testbed: str) -> list[Plan]:
    """Plans of all other testbeds that are up or being raised, as far as this user may read them."""
    loaded = (state.load(name) for name in state.names() if name != testbed)
    return [known.plan for known in loaded if known is not None]


def problems(plan: Plan, existing: Sequence[Plan]) -> list[Problem]:
    """What the plan and existing testbeds cannot both have. Pure."""
    found: list[Problem] = []
    for other in existing:
        found += [*_ports(plan, other), *_networks(plan, other), *_names(plan, other)]
    return found


def host_ports(plan: Plan) -> dict[int, str]:
    """Ports of this host that a testbed takes -> what they are."""
    held = {port: f"its monitoring, {key.rpartition('.')[2]}"
            for key, port in (plan.monitoring.ports() if plan.monitoring else {}).items()}  # fmt: skip
    for port in plan.published:
        held[port.host_port] = f"port {port.port} of its {port.node!r}" if port.node else "its controller's REST"
    return held


def known_ports(plan: Plan) -> set[int]:
    """Ports of this host that testbeds hold, one of the plan's own name included: whose they are is said elsewhere."""
    own = state.load(plan.testbed)
    return {port for other in [*others(plan.testbed), *([own.plan] if own else [])] for port in host_ports(other)}


def _where(plan: Plan, port: PublishedPort) -> str:
    if port.node is None:
        return "controller.rest_host_port"
    return f"publish[{plan.published.index(port)}].host_port"


def _ports(plan: Plan, other: Plan) -> Iterator[Problem]:
    held = host_ports(other)
    wanted = [(_where(plan, port), port.host_port) for port in plan.published]
    wanted += list((plan.monitoring.ports() if plan.monitoring else {}).items())
    for path, number in wanted:
        if number in held:
            hint = {"controller": "write `controller: {rest_host_port: PORT}`",
                    "publish": "write another `host_port:`, or `publish: []`"}.get(
                path.partition(".")[0].partition("[")[0], f"write another `{path.rpartition('.')[2]}:`")  # fmt: skip
            yield Problem(path, "port-taken",
                          f"port {number} of this host belongs to the testbed {other.testbed!r} ({held[number]})",
                          f"{hint}; {_WAIT}")  # fmt: skip


def _networks(plan: Plan, other: Plan) -> Iterator[Problem]:
    if IPv4Network(plan.management).overlaps(IPv4Network(other.management)):
        hint = "write another network, such as `management_pool: 172.31.240.0/20`"
        yield Problem("management_pool", "pool-taken",
                      f"{plan.management} overlaps the management network {other.management} of the testbed "
                      f"{other.testbed!r}", hint)  # fmt: skip
    if IPv4Network(plan.address_pool).overlaps(IPv4Network(other.management)):
        # The nodes would be reached, the host's answers would not: it routes them to the other testbed.
        yield Problem("address_pool", "pool-taken",
                      f"{plan.address_pool} overlaps the management network {other.management} of the testbed "
                      f"{other.testbed!r}", "write another `address_pool:`")  # fmt: skip
    if plan.host_interface == other.host_interface:
        yield Problem("name", "name-taken",
                      f"{plan.testbed!r} and the testbed {other.testbed!r} would have one interface of this host "
                      f"({plan.host_interface})", "give it another name")  # fmt: skip


def _names(plan: Plan, other: Plan) -> Iterator[Problem]:
    if plan.runtime != "docker" or other.runtime != "docker":
        return
    theirs = {node.container for node in other.nodes}
    shared = [node.container for node in plan.nodes if node.container in theirs]
    if shared:
        yield Problem("container_prefix", "name-taken",
                      f"containers {some(shared)} belong to the testbed {other.testbed!r}",
                      f"write another prefix, such as `container_prefix: {plan.testbed[:20]}.`")  # fmt: skip


@contextlib.contextmanager
def _registry() -> Iterator[None]:
    """Held while one testbed looks at the others and writes its own state: two at once see one another."""
    try:
        STATE_ROOT.mkdir(mode=0o755, exist_ok=True)
        fd = os.open(STATE_ROOT, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise TopologyError(f"{STATE_ROOT}: {error.strerror}; handling testbeds needs root") from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)  # held for milliseconds, freed by the kernel with its holder
        yield
    finally:
        os.close(fd)


def claim(plan: Plan) -> None:
    """Write the testbed's state file, unless another testbed has what it needs: from here on others see it.

    Raises:
        TestbedProblems: naming the other testbeds; nothing was written then.
    """
    with _registry():
        found = problems(plan, others(plan.testbed))
        if found:
            raise TestbedProblems(found)
        state.begin(plan)
