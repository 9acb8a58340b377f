"""The network of a script: made from its declaration at `start()`, changed while it runs, gone at `stop()`.

Owns one testbed. All that was declared becomes one plan, which the engine raises at once. A script that ends, also by
an error, takes its network with it; one that is killed leaves it to `cohortnet down`.
"""

from __future__ import annotations

import atexit
import os
import select
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from mininet.cli import CLI
from mininet.log import error, info

from topology.capabilities import capabilities
from topology.engine import change_links, change_nodes, change_shapes, engine, interrupts, launch
from topology.errors import Problem, TestbedProblems, TopologyError
from topology.face import arguments, measure, planned
from topology.face.arguments import NotHonoured, refuse
from topology.face.declaration import ALLOW_VARIABLE, Declaration
from topology.face.hosts import Docker, Host
from topology.face.interfaces import Intf, Link
from topology.face.nodes import Node
from topology.plan import PlannedNode, Shape

_REMOVE = """import sys
from topology.engine.engine import remove_testbed
result = remove_testbed(sys.argv[1])
sys.exit("; ".join(result.left) or 0)"""
_AT_EXIT_S = 180.0


class Mininet(Declaration):
    """A network. Arguments as Mininet's; beyond them:

    `testbed` names what is made (for `cohortnet ls` and `cohortnet down`; default `mn`, or $COHORTNET_TESTBED), and
    `allow_unsupported` lists properties (delay, jitter, loss) that may be left out where this machine's kernel cannot
    do them (default $COHORTNET_ALLOW_UNSUPPORTED, separated by commas).
    """

    # A change while it runs is made at once

    def _host_added(self, node: PlannedNode) -> None:
        if self.inventory is not None:
            self.inventory = change_nodes.add_node(self.testbed, node)

    def _host_removed(self, host: Host) -> None:
        if self.inventory is not None:
            self.inventory = change_nodes.remove_node(self.testbed, host.name)

    def _link_added(self, link: Link) -> None:
        if self.inventory is not None:
            ends = {intf.node.name: planned.node_end(intf) for intf in (link.intf1, link.intf2)
                    if isinstance(intf.node, Host)}  # fmt: skip
            self.inventory = change_links.add_link(self.testbed, planned.planned_link(link), ends)

    def _link_removed(self, link: Link) -> None:
        if self.inventory is not None:
            self.inventory = change_links.remove_link(self.testbed, link.title)

    # Life

    def start(self) -> None:
        """Make the network: when this returns all hosts run and all switches forward. Again: does nothing.

        Raises:
            TestbedProblems: with everything that stands against it; nothing was made then.
            TopologyError: where a step failed; what had been made is removed again.
        """
        if self.inventory is not None:
            return
        self.build()
        if self.cleanup:
            engine.remove_testbed(self.testbed)
        plan = planned.make_plan(planned.Declared(
            self.testbed, self.hosts, self.switches, self.links, self.controllers, self.allow_unsupported,
            self.ip_network,
        ))  # fmt: skip
        self._check_datapath()
        info(f"*** Starting network: {len(self.hosts)} hosts, {len(self.switches)} switches, {len(self.links)} links\n")
        atexit.register(self._at_exit)
        try:
            self.inventory = engine.raise_testbed(plan)
        except TestbedProblems as error:
            raise TestbedProblems([_in_script(problem) for problem in error.problems]) from None
        self.plan = plan
        try:
            raised = {link.name for link in plan.links}
            for link in self.links:
                if link.title not in raised:
                    self._link_added(link)
            for host in self.hosts:
                host.configDefault()
            if self.autoStaticArp:
                self.staticArp()
        except BaseException as failure:
            self._remove(failure)
            raise

    def _check_datapath(self) -> None:
        kernel = capabilities().kernel_datapath
        for switch in self.switches:
            if switch.datapath is not None and (switch.datapath == "kernel") != bool(kernel):
                said = "this machine has no openvswitch module" if not kernel else "this machine's kernel has one"
                raise refuse(f"addSwitch({switch.name!r})", "datapath", switch.datapath,
                             f"{said}, and all switches use what it has; leave it out")  # fmt: skip

    def _remove(self, failure: BaseException | None = None) -> None:
        for node in self.values():
            node.terminate() if isinstance(node, Host) else Node.terminate(node)
        self.inventory = None
        with interrupts.uninterrupted():
            result = engine.remove_testbed(self.testbed)
        if result.left:
            said = f"could not be removed: {'; '.join(result.left)}; `cohortnet down {self.testbed}` tries again"
            if failure is None:
                raise TopologyError(f"stop(): {said}")
            failure.add_note(f"and these {said}")

    def stop(self) -> None:
        """Take the network away. Again: does nothing. Raises TopologyError where something would not go."""
        if self.inventory is None:
            return
        info(f"*** Stopping network: {len(self.hosts)} hosts, {len(self.switches)} switches\n")
        self._remove()
        atexit.unregister(self._at_exit)

    def _at_exit(self) -> None:
        if os.getpid() != self._owner or self.inventory is None:  # a forked child's end is not the script's
            return
        # An interpreter that ends starts no threads any more, and a removal needs some: a fresh one does it.
        command = [sys.executable, "-c", _REMOVE, self.testbed]
        try:
            done = subprocess.run(command, env=launch.python_environment(), timeout=_AT_EXIT_S, check=False)
        except subprocess.TimeoutExpired:
            done = None
        if done is None or done.returncode:
            error(f"*** {self.testbed} could not be removed; `cohortnet down {self.testbed}` tries again\n")

    def run(self, test: Any, *args: Any, **kwargs: Any) -> Any:
        """`start`, one call, `stop`; gives what the call gave."""
        self.start()
        try:
            return test(*args, **kwargs)
        finally:
            self.stop()

    def interact(self) -> Any:
        """`start`, the command line, `stop`."""
        return self.run(CLI, self)

    def __enter__(self) -> Mininet:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def waitConnected(self, timeout: float | None = None, delay: float = 0.5) -> bool:
        """Whether all switches are connected; `start()` has waited for that already."""
        return all(switch.connected() for switch in self.switches)

    # Changing and measuring

    def change_address(self, intf: Intf, address: str | None, prefix_length: int, mac: str | None) -> None:
        """What `setIP` and `setMAC` do while the network runs."""
        if self.inventory is not None:
            if not isinstance(intf.node, Host):
                raise NotHonoured(f"{intf}: a switch's port has no address to set")
            self.inventory = change_nodes.set_address(self.testbed, intf.node.name, intf.name, address=address,
                                                      prefix_length=prefix_length, mac=mac)  # fmt: skip

    def change_shape(self, link: Link, intf: Intf, shape: Shape) -> None:
        """What `intf.config()` does to a link while the network runs."""
        if self.inventory is None:
            return
        try:
            self.inventory = change_shapes.put_shape(self.testbed, link.title, intf.node.name, shape)
        except TestbedProblems as error:
            raise TestbedProblems([_in_script(problem) for problem in error.problems]) from None

    def limit(self, host: Host, *, cpu: float | None = None, cpuset: str | None = None) -> None:
        """Change limits of a host that runs."""
        host.running(f"{host}: limits")
        self.inventory = change_nodes.set_limits(self.testbed, host.name, cpu=cpu, cpuset=cpuset)

    def limit_container(self, host: Docker, quota: int, period: int, shares: int, cores: str | None,
                        memory: int | str | None, swap: int | str | None) -> None:  # fmt: skip
        """Change limits of a container that runs, in Docker's units; -1 and None leave one as it is."""
        call = f"{host}: limits"
        host.running(call)
        docker: dict[str, Any] = {}
        cpu = None
        if quota != -1:
            used = period if period > 0 else 100_000
            docker |= {"cpu_quota": arguments.whole(call, "cpu_quota", quota, 1000), "cpu_period": used}
            cpu = quota / used
        elif period > 0:
            raise refuse(call, "cpu_period", period, "give cpu_quota= with it")
        if shares >= 0:
            docker["cpu_shares"] = arguments.whole(call, "cpu_shares", shares, 2)
        limit = None if memory is None else arguments.size_bytes(call, "mem_limit", memory)
        if swap is not None:
            docker["memswap_limit"] = arguments.size_bytes(call, "memswap_limit", swap)
        cpuset = None if cores is None else str(cores)
        self.inventory = change_nodes.set_limits(self.testbed, host.name, cpu=cpu, memory_bytes=limit, cpuset=cpuset,
                                                 docker=docker)  # fmt: skip

    def configLinkStatus(self, src: str, dst: str, status: str) -> None:
        """Take all links between two nodes `down`, or `up` again. Raises NotHonoured where there are none."""
        ends = [self._node("configLinkStatus()", name) for name in (src, dst)]
        if status not in ("up", "down"):
            raise refuse("configLinkStatus()", "status", status, "it is 'up' or 'down'")
        found = self.linksBetween(*ends)
        if not found:
            raise NotHonoured(f"configLinkStatus(): {src} and {dst} are not linked")
        inventory = ends[0].running("configLinkStatus()").inventory
        assert inventory is not None
        for link in found:
            change_links.set_state(inventory, link.title, status == "up")

    def staticArp(self) -> None:
        """Tell every host every other's hardware address."""
        for source in self.hosts:
            for other in self.hosts:
                if source is not other and source.intfs and other.IP() and other.MAC():
                    source.setARP(str(other.IP()), str(other.MAC()))

    def _ready(self, call: str, hosts: Sequence[Any] | None) -> list[Host]:
        if self.inventory is None:
            raise NotHonoured(f"{call}: the network does not run; it is made by start()")
        chosen = [self._node(call, host) for host in hosts] if hosts else list(self.hosts)
        return [host for host in chosen if isinstance(host, Host)]

    def ping(self, hosts: Sequence[Any] | None = None, timeout: Any = None, manualdestip: str | None = None) -> float:
        """Ping between all pairs of hosts (or from each to one address): the loss in per cent."""
        return measure.ping(self._ready("ping()", hosts), timeout, manualdestip)

    def pingAll(self, timeout: Any = None) -> float:
        """Ping between all hosts: the loss in per cent."""
        return self.ping(timeout=timeout or None)

    def pingPair(self) -> float:
        """Ping between the first two hosts."""
        return self.ping(self.hosts[:2])

    def pingFull(self, hosts: Sequence[Any] | None = None, timeout: Any = None) -> list[Any]:
        """Ping between all pairs: (source, other, (sent, received, min, avg, max, deviation in ms))."""
        return measure.ping_full(self._ready("pingFull()", hosts), timeout)

    def pingAllFull(self) -> list[Any]:
        """`pingFull` of all hosts."""
        return self.pingFull()

    def pingPairFull(self) -> list[Any]:
        """`pingFull` of the first two hosts."""
        return self.pingFull(self.hosts[:2])

    def iperf(self, hosts: Sequence[Any] | None = None, l4Type: str = "TCP", udpBw: str = "10M",
              fmt: str | None = None, seconds: float = 5, port: int = 5001) -> list[str]:  # fmt: skip
        """The rate from the first host to the second (default: the first and the last): [receiver's, sender's]."""
        chosen = self._ready("iperf()", hosts or [self.hosts[0], self.hosts[-1]])
        return measure.iperf(self, chosen, l4Type, udpBw, fmt, seconds, port)

    def monitor(self, hosts: Sequence[Any] | None = None, timeoutms: int = -1) -> Iterator[Any]:
        """Lines of output of hosts whose commands run, as (host, line); (None, None) where none comes in time."""
        poller = select.poll()
        for host in self._ready("monitor()", hosts):
            poller.register(host.stdout, select.POLLIN)
        while True:
            ready = poller.poll(timeoutms)
            for fd, event in ready:
                node = Node.fdToNode(fd)
                if event & select.POLLIN and node is not None:
                    line = node.readline()
                    while line is not None:
                        yield node, line
                        line = node.readline() if "\n" in node.readbuf else None
            if not ready and timeoutms >= 0:
                yield None, None


class Containernet(Mininet):
    """A network with containers as hosts."""

    def addDocker(self, name: str, cls: Any = Docker, **params: Any) -> Docker:
        """Add a container as a host, also while the network runs. Raises NotHonoured."""
        host = self.addHost(name, cls=cls, **params)
        if not isinstance(host, Docker):
            raise refuse(f"addDocker({name!r})", "cls", cls, "it is Docker, or a class of yours that derives from it")
        return host

    def removeDocker(self, name: Any, **params: Any) -> bool:
        """`removeHost`."""
        return self.removeHost(name, **params)

    def addExtSAP(self, *args: Any, **params: Any) -> None:
        """Refused: an emulated network has no way out of the testbed."""
        raise NotHonoured("addExtSAP(): an emulated network has no way out of the testbed; publish a port of a Docker "
                          "host with port_bindings=")  # fmt: skip


def _in_script(problem: Problem) -> Problem:
    """A problem of the engine, with what to write in a script instead of what to type."""
    if problem.code != "unsupported" or "--allow-unsupported" not in problem.hint:
        return problem
    remedy, _, rest = problem.hint.partition("; or go on without: ")
    name = rest.split("`")[1].split()[-1]
    return replace(problem, hint=f"{remedy}; or go on without: Containernet(allow_unsupported=[{name!r}]), or "
                                 f"{ALLOW_VARIABLE}={name} in the environment")  # fmt: skip
