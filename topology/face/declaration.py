"""A network as a script declares it, call by call: its nodes and links by name, and what each call may say.

Nothing of it exists yet. `network` makes it, and is told of what is added or taken away (`_host_added` and the like) so
that it can do the same to a network that runs.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Network
from typing import TYPE_CHECKING, Any, cast

from topology.capabilities import capabilities
from topology.face import arguments, kinds, planned
from topology.face.arguments import NotHonoured, refuse
from topology.face.devices import Controller, OVSBridge, OVSSwitch, RemoteController, Switch
from topology.face.hosts import CPULimitedHost, Docker, Host
from topology.face.interfaces import Intf, Link, TCLink
from topology.face.nodes import Node
from topology.plan import Plan, PlannedNode
from topology.planning import short_interface

if TYPE_CHECKING:
    from topology.face.network import Mininet

HOSTS: dict[str, type] = {"Node": Host, "Host": Host, "CPULimitedHost": CPULimitedHost, "Docker": Docker}
SWITCHES: dict[str, type] = {"Switch": Switch, "OVSSwitch": OVSSwitch, "OVSKernelSwitch": OVSSwitch,
                             "OVSBridge": OVSBridge}  # fmt: skip
CONTROLLERS: dict[str, type] = {"Controller": Controller, "OVSController": Controller, "DefaultController": Controller,
                                "RemoteController": RemoteController}  # fmt: skip
LINKS: dict[str, type] = {"Link": Link, "TCLink": TCLink}
_LINK_WORDS = ("bw, delay, jitter, loss, max_queue_size, port1, port2, params1, params2, intfName1, intfName2, addr1, "
               "addr2")  # fmt: skip
_TESTBED_VARIABLE, ALLOW_VARIABLE = "COHORTNET_TESTBED", "COHORTNET_ALLOW_UNSUPPORTED"


class Declaration:
    """Hosts, switches, controllers and links by name, as calls of Mininet's names add them."""

    def __init__(
        self, topo: Any = None, switch: Any = OVSSwitch, host: Any = Host, controller: Any = Controller,
        link: Any = Link, intf: Any = None, build: bool = True, xterms: bool = False, cleanup: bool = False,
        ipBase: str = "10.0.0.0/8", inNamespace: bool = False, autoSetMacs: bool = False, autoStaticArp: bool = False,
        autoPinCpus: bool = False, listenPort: int | None = None, waitConnected: bool = False,
        testbed: str | None = None, allow_unsupported: Sequence[str] | None = None,
    ) -> None:  # fmt: skip
        call = f"{type(self).__name__}()"
        for name, value in (("xterms", xterms), ("inNamespace", inNamespace), ("listenPort", listenPort)):
            if value:
                raise refuse(call, name, value, "leave it out")
        if intf is not None and kinds.unwrap(intf)[0].__name__ not in ("Intf", "TCIntf"):
            raise refuse(call, "intf", intf, "leave it out")
        self.topo, self.switch, self.host, self.controller, self.link = topo, switch, host, controller, link
        if intf is not None and kinds.unwrap(intf)[0].__name__ == "TCIntf":
            self.link = TCLink
        self.ipBase = ipBase
        try:
            self.ip_network = IPv4Network(ipBase, strict=False)
        except ValueError:
            raise refuse(call, "ipBase", ipBase, "write a network, such as '10.0.0.0/8'") from None
        self.nextIP = int(ipBase.partition("/")[0].rpartition(".")[2] or 0) or 1
        self.autoSetMacs, self.autoStaticArp, self.autoPinCpus = autoSetMacs, autoStaticArp, autoPinCpus
        self.cleanup = cleanup
        self.testbed = planned.check_testbed_name(testbed or os.environ.get(_TESTBED_VARIABLE) or
                                                  planned.DEFAULT_TESTBED)  # fmt: skip
        allowed = os.environ.get(ALLOW_VARIABLE, "").replace(" ", "")
        self.allow_unsupported = list(
            allow_unsupported if allow_unsupported is not None else filter(None, allowed.split(","))
        )
        self.hosts: list[Host] = []
        self.switches: list[Switch] = []
        self.controllers: list[Controller] = []
        self.links: list[Link] = []
        self.nameToNode: dict[str, Node] = {}
        self.terms: list[Any] = []
        self.built = False
        self.plan: Plan | None = None
        """What the testbed was raised with, None before."""
        self.inventory: dict[str, Any] | None = None
        """The testbed's inventory while it is up."""
        self._owner = os.getpid()
        self._next_core = 0
        if topo is not None and build:
            self.build()

    # What whoever makes the network does about a change

    def _host_added(self, node: PlannedNode) -> None:
        """A host was added."""

    def _host_removed(self, host: Host) -> None:
        """A host is about to go."""

    def _link_added(self, link: Link) -> None:
        """A link was added."""

    def _link_removed(self, link: Link) -> None:
        """A link is about to go."""

    # Declaring

    def _adopt(self, node: Node, others: list[Any]) -> None:
        if node.name in self.nameToNode:
            raise NotHonoured(f"{node.name!r} is in the network already; give each node its own name")
        node.net = cast("Mininet", self)
        others.append(node)
        self.nameToNode[node.name] = node

    def addHost(self, name: str, cls: Any = None, **params: Any) -> Host:
        """Add a host, also while the network runs (then it is made at once). Raises NotHonoured."""
        call = f"addHost({name!r})"
        kind, held = kinds.pick(call, cls or self.host, HOSTS)
        params = {**held, **params}
        planned.check_host_name(call, name)
        position = self.nextIP
        automatic = "ip" not in params
        if automatic:
            address = self.ip_network.network_address + position
            if address not in self.ip_network or address == self.ip_network.broadcast_address:
                raise NotHonoured(f"{call}: {self.ipBase} has no address left; give ip=, or a larger ipBase")
            params["ip"] = f"{address}/{self.ip_network.prefixlen}"
        if self.autoSetMacs:
            params.setdefault("mac", ":".join(f"{octet:02x}" for octet in position.to_bytes(6, "big")))
        if self.autoPinCpus and issubclass(kind, CPULimitedHost):
            processors = capabilities().processors
            params.setdefault("cores", processors[self._next_core % len(processors)])
            self._next_core += 1
        self.nextIP += 1
        host: Host = kind(name, **params)
        host.automatic_ip = automatic
        ready, published = planned.planned_node(self.testbed, host, "")
        if self.inventory is not None and published:
            raise refuse(call, "port_bindings", params["port_bindings"], "ports are taken when the network starts")
        self._adopt(host, self.hosts)
        try:
            self._host_added(ready)
        except BaseException:
            self._drop(host, self.hosts)
            raise
        return host

    def addSwitch(self, name: str, cls: Any = None, **params: Any) -> Switch:
        """Add a switch. Raises NotHonoured, also once the network runs."""
        call = f"addSwitch({name!r})"
        if self.inventory is not None:
            raise NotHonoured(f"{call}: a network that runs keeps its switches; add it before start()")
        kind, held = kinds.pick(call, cls or self.switch, SWITCHES)
        params = {key: value for key, value in {**held, **params}.items() if (key, value) != ("listenPort", None)}
        switch: Switch = kind(planned.check_switch_name(call, name), **params)
        self._adopt(switch, self.switches)
        return switch

    def addController(self, name: Any = "c0", controller: Any = None, **params: Any) -> Controller | None:
        """Add the controller: by name and class, or one that was made already. None for `NullController`."""
        call = f"addController({getattr(name, 'name', name)!r})"
        if self.inventory is not None:
            raise NotHonoured(f"{call}: a network that runs keeps its controller; add it before start()")
        made: Controller | None
        if isinstance(name, Controller):
            made = name
        else:
            made = self._make_controller(call, str(name), controller or self.controller, params)
        if made is not None:
            self._adopt(made, self.controllers)
        return made

    def _make_controller(self, call: str, name: str, wanted: Any, params: dict[str, Any]) -> Controller | None:
        found, held = kinds.unwrap(wanted)
        if isinstance(found, Controller):
            return found
        label = getattr(found, "__name__", "")
        if inspect.isclass(found) or str(getattr(found, "__module__", "")).partition(".")[0] == "mininet":
            if label == "NullController":
                return None
            kind, held = kinds.pick(call, wanted, CONTROLLERS)
            made: Controller = kind(name, **{**held, **params})
            return made
        if not callable(found):
            raise refuse(call, "controller", wanted, "name a class: Controller or RemoteController")
        try:
            result = found(name, **{**held, **params})
        except OSError as error:  # Mininet's own class was called, which starts processes of Mininet's
            raise NotHonoured(f"{call}: {label or found} made a controller of Mininet's ({error}); take "
                              "RemoteController from topology.containernet") from error  # fmt: skip
        if result is not None and not isinstance(result, Controller):
            if hasattr(result, "terminate"):  # a node of Mininet's: its shell runs by now
                result.terminate()
            kind_name = f"{type(result).__module__}.{type(result).__name__}"
            raise NotHonoured(f"{call}: {label or found} gave a {kind_name}; take Controller or RemoteController from "
                              "topology.containernet")  # fmt: skip
        return result

    def addNAT(self, name: str = "nat0", *args: Any, **params: Any) -> None:
        """Refused: an emulated network has no way out of the testbed."""
        raise NotHonoured(f"addNAT({name!r}): an emulated network has no way out of the testbed; publish a port of a "
                          "Docker host with port_bindings=")  # fmt: skip

    def addLink(self, node1: Any, node2: Any, port1: int | None = None, port2: int | None = None, cls: Any = None,
                **params: Any) -> Link:  # fmt: skip
        """Add a link, also while the network runs. `bw`, `delay`, `jitter`, `loss`, `max_queue_size` need a TCLink; in
        `params1` and `params2` they are for what that end sends. Raises NotHonoured.
        """
        ends = [self._node("addLink()", node) for node in (node1, node2)]
        call = f"addLink({ends[0]}, {ends[1]})"
        kind, held = kinds.pick(call, cls or self.link, LINKS)
        params = {**held, **params}
        if ends[0] is ends[1]:
            raise NotHonoured(f"{call}: a link has two ends")
        sides = []
        for number, given_port in (("1", port1), ("2", port2)):
            side = dict(params.pop(f"params{number}", None) or {})
            side["port"] = given_port if given_port is not None else side.get("port")
            side["name"] = params.pop(f"intfName{number}", None)
            side["addr"] = params.pop(f"addr{number}", None)
            interface = params.pop(f"cls{number}", None)
            if interface is not None and getattr(interface, "__name__", "") not in ("Intf", "TCIntf"):
                raise refuse(call, f"cls{number}", interface, "leave it out")
            sides.append(side)
        for name in ("fast", "intf", "key"):
            params.pop(name, None)  # how Mininet makes a pair, and a topology's own book-keeping: no property of a link
        tc = issubclass(kind, TCLink)
        common = {key: params.pop(key) for key in list(params) if key in arguments.SHAPE_WORDS}
        arguments.leftover(call, params, _LINK_WORDS)
        # In each direction what the end says comes before what the link says, and nothing stays unread.
        shapes = []
        for side in sides:
            wanted = {**common, **{key: side.pop(key) for key in list(side) if key in arguments.SHAPE_WORDS}}
            shapes.append(arguments.shape(call, wanted, tc=tc))
        intfs = [self._interface(call, node, side) for node, side in zip(ends, sides, strict=True)]
        between = len(self.linksBetween(*ends))
        title = f"{ends[0].name}--{ends[1].name}" + (f"#{between + 1}" if between else "")
        link: Link = kind(intfs[0], intfs[1], self._free_title(title), (shapes[0], shapes[1]))
        for intf in intfs:
            intf.node.addIntf(intf, intf.port)
        self.links.append(link)
        try:
            for intf in intfs:
                if isinstance(intf.node, Host):
                    planned.give_addresses(intf.node, intf, running=self.inventory is not None)
            self._link_added(link)
        except BaseException:
            self._forget_link(link)
            raise
        return link

    def _free_title(self, title: str) -> str:
        taken = {link.title for link in self.links}
        number, found = 2, title
        while found in taken:
            found, number = f"{title.partition('#')[0]}#{number}", number + 1
        return found

    def _interface(self, call: str, node: Node, side: dict[str, Any]) -> Intf:
        if isinstance(node, Controller):
            raise NotHonoured(f"{call}: {node.name!r} is a controller; it has no interface in the emulated network")
        port = side.pop("port", None)
        port = node.newPort() if port is None else arguments.whole(call, "port", port, node.portBase)
        if port in node.intfs:
            raise refuse(call, "port", port, f"{node.name!r} has {node.intfs[port]} at that port")
        name = side.pop("name", None)
        if name is not None and (isinstance(node, Switch) or len(str(name)) > 15 or not str(name)):
            raise refuse(call, "intfName", name, "a host's interface takes up to 15 characters, a switch's is named by "
                         "its port")  # fmt: skip
        address = side.pop("addr", None)
        intf = Intf(str(name or f"{node.name}-eth{port}"), node, port,
                    None if address is None else arguments.mac(call, "addr", address))  # fmt: skip
        if isinstance(node, Host):
            intf.name = short_interface(intf.name)
            intf.params["ip"] = side.pop("ip", None)
        arguments.leftover(call, side, "ip (of hosts), bw, delay, jitter, loss, max_queue_size, port")
        return intf

    # Taking away

    def _forget_link(self, link: Link) -> None:
        for intf in (link.intf1, link.intf2):
            intf.node.delIntf(intf)
            intf.link = None
        if link in self.links:
            self.links.remove(link)

    def delLink(self, link: Link) -> None:
        """Remove a link, also while the network runs."""
        if link not in self.links:
            raise NotHonoured(f"delLink({link}): it is not in the network")
        self._link_removed(link)
        self._forget_link(link)

    def removeLink(self, link: Link | None = None, node1: Any = None, node2: Any = None) -> None:
        """Remove a link, given itself or by its two ends."""
        if link is None:
            ends = [self._node("removeLink()", node) for node in (node1, node2)]
            found = self.linksBetween(*ends)
            if not found:
                raise NotHonoured(f"removeLink(): there is no link between {ends[0]} and {ends[1]}")
            link = found[0]
        self.delLink(link)

    def delLinkBetween(self, node1: Any, node2: Any, index: int = 0, allLinks: bool = False) -> list[Link]:
        """Remove one link between two nodes, or all; gives those."""
        found = self.linksBetween(self._node("delLinkBetween()", node1), self._node("delLinkBetween()", node2))
        gone = found if allLinks else found[index : index + 1]
        for link in gone:
            self.delLink(link)
        return gone

    def _drop(self, node: Node, others: list[Any]) -> None:
        others.remove(node)
        del self.nameToNode[node.name]
        node.net = None

    def delHost(self, host: Any) -> None:
        """Remove a host and its links, also while the network runs."""
        found = self._node("delHost()", host)
        if not isinstance(found, Host):
            raise NotHonoured(f"delHost({found}): it is no host")
        found.terminate()
        self._host_removed(found)
        for intf in found.intfList():
            if intf.link is not None:
                self._forget_link(intf.link)
        self._drop(found, self.hosts)

    def removeHost(self, name: Any, **params: Any) -> bool:
        """`delHost`, in Containernet's words; gives True."""
        arguments.leftover(f"removeHost({name})", params, "name")
        self.delHost(name)
        return True

    def delNode(self, node: Any, nodes: Any = None) -> None:
        """Remove a host; before the start also a switch or a controller without links."""
        found = self._node("delNode()", node)
        if isinstance(found, Host):
            return self.delHost(found)
        if self.inventory is not None or found.intfs:
            raise NotHonoured(f"delNode({found}): only hosts are removed from a network that runs or is linked")
        self._drop(found, self.switches if isinstance(found, Switch) else self.controllers)
        return None

    delSwitch = delController = delNode

    # Finding

    def _node(self, call: str, node: Any) -> Node:
        found = self.nameToNode.get(node) if isinstance(node, str) else node
        if not isinstance(found, Node) or found.net is not self:
            raise NotHonoured(f"{call}: there is no {node!r} in the network; its nodes: {', '.join(self) or 'none'}")
        return found

    def get(self, *args: str) -> Any:
        """The node of that name, or a list for several names. Raises KeyError."""
        return self.nameToNode[args[0]] if len(args) == 1 else [self.nameToNode[name] for name in args]

    getNodeByName = get

    def __getitem__(self, key: str) -> Node:
        return self.nameToNode[key]

    def __delitem__(self, key: str) -> None:
        self.delNode(key)

    def __iter__(self) -> Iterator[str]:
        return (node.name for node in self.values())

    def __len__(self) -> int:
        return len(self.nameToNode)

    def __contains__(self, item: object) -> bool:
        return item in self.nameToNode

    def keys(self) -> list[str]:
        """Names of all nodes."""
        return list(self)

    def values(self) -> list[Node]:
        """All nodes: hosts, switches, controllers."""
        return [*self.hosts, *self.switches, *self.controllers]

    def items(self) -> Iterable[tuple[str, Node]]:
        """Names with their nodes."""
        return [(node.name, node) for node in self.values()]

    def linksBetween(self, node1: Node, node2: Node) -> list[Link]:
        """Links between two nodes."""
        return [link for link in self.links if {link.intf1.node, link.intf2.node} == {node1, node2}]

    # From a topology

    def buildFromTopo(self, topo: Any = None) -> None:
        """Declare what a `Topo` of Mininet's describes, and its default controller. Makes nothing yet."""
        topo = topo if topo is not None else self.topo
        if not self.controllers and self.controller is not None:
            wanted = self.controller if isinstance(self.controller, list) else [self.controller]
            for number, one in enumerate(wanted):
                self.addController(one if isinstance(one, Controller) else f"c{number}", one)
        for name in topo.hosts():
            self.addHost(name, **topo.nodeInfo(name))
        for name in topo.switches():
            self.addSwitch(name, **topo.nodeInfo(name))
        for _, _, params in topo.links(sort=True, withInfo=True):
            self.addLink(**params)

    def build(self) -> None:
        """Declare what the topology describes; the network is made by `start()`."""
        if self.topo is not None and not self.built:
            self.buildFromTopo(self.topo)
        self.built = True
