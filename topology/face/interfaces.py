"""Interfaces and links as scripts hold them in their hands, before the network runs and while it does.

An interface knows its name, its addresses and its node; a link its two interfaces and the shape of each direction.
While the network runs, what is set here is set in the kernel and in the testbed's inventory at once.
"""

from __future__ import annotations

import fcntl
import socket
import struct
from typing import TYPE_CHECKING, Any

from topology.engine import namespaces
from topology.face.arguments import SHAPE_KEYS, SHAPE_WORDS, NotHonoured, address, leftover, mac, shape
from topology.plan import Shape

if TYPE_CHECKING:
    from topology.face.nodes import Node

_SIOCGIFHWADDR, _SIOCGIFADDR = 0x8927, 0x8915


class Intf:
    """One interface of a node or switch; `ip` and `mac` are None where it has none."""

    def __init__(self, name: str, node: Node, port: int, mac_address: str | None) -> None:
        self.name = name
        self.node = node
        self.port = port
        self.link: Link | None = None
        self.mac = mac_address
        self.ip: str | None = None
        self.prefixLen: int | None = None
        self.params: dict[str, Any] = {}

    def IP(self) -> str | None:
        """Its IPv4 address."""
        return self.ip

    def MAC(self) -> str | None:
        """Its hardware address."""
        return self.mac

    def setIP(self, ipstr: str, prefixLen: int | None = None) -> None:
        """Give it another IPv4 address, as '10.0.0.9/8', or with the prefix length apart. Raises TopologyError."""
        call = f"{self.name}.setIP()"
        if "/" not in str(ipstr) and prefixLen is None:
            raise NotHonoured(f"{call}: {ipstr!r} has no prefix length; write '{ipstr}/8'")
        ip, length = address(call, "ip", ipstr, prefixLen or 0)
        self.node.net_of(call).change_address(self, ip, length, None)
        self.ip, self.prefixLen = ip, length

    def setMAC(self, macstr: str) -> None:
        """Give it another hardware address. Raises TopologyError."""
        call = f"{self.name}.setMAC()"
        found = mac(call, "mac", macstr)
        self.node.net_of(call).change_address(self, None, 0, found)
        self.mac = found

    def ifconfig(self, *args: str) -> str:
        """`up`, `down`, an address, `hw ether MAC`; without arguments what `ip addr` says. Others are refused."""
        words = list(args) if len(args) != 1 else str(args[0]).split()
        if words in (["up"], ["down"]):
            return self.node.run_ip("link", "set", self.name, words[0])
        if not words:
            return self.node.run_ip("addr", "show", "dev", self.name)
        if words[:2] == ["hw", "ether"] and len(words) == 3:
            self.setMAC(words[2])
        elif words[0][:1].isdigit() and words[1:] in ([], ["up"]):
            self.setIP(words[0], 8)
        else:
            raise NotHonoured(f"{self.name}.ifconfig{tuple(args)}: write `{self.node.name}.cmd('ip ...')`")
        return ""

    def isUp(self, setUp: bool = False) -> bool:
        """Whether it is up."""
        if setUp:
            self.ifconfig("up")
        return "UP" in self.ifconfig().partition(">")[0]

    def updateIP(self) -> str | None:
        """Its IPv4 address as the kernel has it now."""
        found = self._ask(_SIOCGIFADDR)
        self.ip = None if found is None else socket.inet_ntoa(found[4:8])
        return self.ip

    def updateMAC(self) -> str | None:
        """Its hardware address as the kernel has it now."""
        found = self._ask(_SIOCGIFHWADDR)
        self.mac = None if found is None else ":".join(f"{octet:02x}" for octet in found[2:8])
        return self.mac

    def updateAddr(self) -> tuple[str | None, str | None]:
        """Both."""
        return self.updateIP(), self.updateMAC()

    def _ask(self, request: int) -> bytes | None:
        def ask() -> bytes | None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                try:
                    return fcntl.ioctl(probe, request, struct.pack("256s", self.name.encode()))[16:32]
                except OSError:
                    return None

        return namespaces.inside(self.node.network_namespace(), ask)

    def cmd(self, *args: Any, **kwargs: Any) -> str:
        """Run a command in the node."""
        return self.node.cmd(*args, **kwargs)

    def status(self) -> str:
        """`OK`, or `MISSING` where the kernel has no such interface."""
        return "MISSING" if self._ask(_SIOCGIFHWADDR) is None else "OK"

    def config(self, **params: Any) -> None:
        """Change what it is: `mac`, `ip`, `up`; and of a TCLink `bw`, `delay`, `jitter`, `loss`, `max_queue_size` of
        what it sends, also while the network runs. As in Mininet those that are not given are none then; without any
        of them the shape stays. Raises NotHonoured, TestbedProblems or TopologyError.
        """
        call = f"{self.name}.config()"
        wanted = {key: params.pop(key) for key in list(params) if key in SHAPE_WORDS}
        settings = {key: params.pop(key, None) for key in ("mac", "ip", "up")}
        leftover(call, params, f"mac, ip, up; {', '.join(SHAPE_KEYS)}")
        link = self.link
        sent = shape(call, dict(wanted), tc=link is not None and link.honours_shape)
        if settings["mac"] is not None:
            self.setMAC(settings["mac"])
        if settings["ip"] is not None:
            self.setIP(settings["ip"])
        if settings["up"] is not None:
            self.ifconfig("up" if settings["up"] else "down")
        if link is not None and any(wanted.get(key) is not None for key in SHAPE_KEYS):
            self.node.net_of(call).change_shape(link, self, sent)
            one, two = link.shapes
            link.shapes = (sent, two) if self is link.intf1 else (one, sent)

    def rename(self, newname: str) -> None:
        """Refused: the inventory knows interfaces by name. Name it with intfName1= of addLink()."""
        raise NotHonoured(f"{self.name}.rename({newname!r}): name it with intfName1= or intfName2= of addLink()")

    def delete(self) -> None:
        """Remove the link that it belongs to."""
        if self.link is not None:
            self.link.delete()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    def __str__(self) -> str:
        return self.name


class Link:
    """A link between two interfaces. `title` is its name in the testbed, `shapes` what each direction does."""

    honours_shape = False

    def __init__(self, intf1: Intf, intf2: Intf, title: str, shapes: tuple[Shape, Shape]) -> None:
        self.intf1, self.intf2 = intf1, intf2
        self.title = title
        self.shapes = shapes
        intf1.link = intf2.link = self

    def status(self) -> str:
        """Both interfaces' status."""
        return f"({self.intf1.status()} {self.intf2.status()})"

    def delete(self) -> None:
        """Remove the link, also while the network runs."""
        self.intf1.node.net_of(f"{self}.delete()").delLink(self)

    def stop(self) -> None:
        """Remove the link."""
        self.delete()

    def __str__(self) -> str:
        return f"{self.intf1}<->{self.intf2}"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self}>"


class TCLink(Link):
    """A link with bandwidth, delay, jitter, loss and queue."""

    honours_shape = True
