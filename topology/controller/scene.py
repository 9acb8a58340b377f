"""The network as placing meters needs it: who stands where, and who is behind which port. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Literal

from topology.controller.forwarding import Board
from topology.controller.graph import Cohort, Graph, Host, Paths, find_paths
from topology.controller.meters import Direction

if TYPE_CHECKING:
    from topology.controller.network import PortState


class NotPlaced(Exception):
    """The meter holds nowhere now. `forever`: nothing that may still appear would change that."""

    def __init__(self, reason: str, hint: str = "", *, forever: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.hint, self.forever = reason, hint, forever


class Scene:
    """The network as placing needs it, with indexes. Made once for each state of the network."""

    def __init__(
        self,
        graph: Graph,
        paths: Paths,
        boards: Iterable[Board] = (),
        ports: Mapping[int, Mapping[int, PortState]] | None = None,
    ) -> None:
        self.graph, self.paths, self.boards = graph, paths, tuple(boards)
        self._ports = ports or {}
        self._hosts = {host.name: host for host in graph.hosts}
        self._cohorts = {cohort.name: cohort for cohort in graph.cohorts}
        self._servers = {cohort.server for cohort in graph.cohorts}
        self._unbroken: Paths | None = None

    def host(self, name: str | None) -> Host:
        """The node of that name. Raises NotPlaced."""
        found = self._hosts.get(name or "")
        if found is None:
            raise NotPlaced(f"no node is called {name!r} any more")
        return found

    def cohort(self, name: str | None) -> Cohort:
        """The cohort of that name. Raises NotPlaced."""
        found = self._cohorts.get(name or "")
        if found is None:
            raise NotPlaced(f"no cohort is called {name!r} any more")
        return found

    def is_server(self, host: Host) -> bool:
        """Whether up leads to it."""
        return host.role == "server" or host.name in self._servers

    def standing(self, address: str) -> Host | Board:
        """The node or board with that IPv4 address; nodes come first, then who used it first. Raises
        NotPlaced."""
        for host in self.graph.hosts:
            if host.address == address:
                return host
        for board in self.boards:
            if address in board.addresses:
                return board
        raise NotPlaced(f"no board with the address {address} was seen yet", "it counts once it sends a packet")

    def port_towards(self, at: int, stands: Host | Board, paths: Paths | None = None) -> int | None:
        """The port of the switch `at` by which packets for it leave; None where there is no way."""
        if stands.switch == at:
            return stands.port
        return (paths or self.paths).hops.get(at, {}).get(stands.switch)

    def behind(self, switch: int, port: int) -> list[Host | Board]:
        """Everybody whose packets leave the switch by that port now."""
        everybody: tuple[Host | Board, ...] = (*self.graph.hosts, *self.boards)
        return [one for one in everybody if self.port_towards(switch, one) == port]

    def port_way(self, switch: int, port: int, direction: Direction) -> Literal["in", "out"]:
        """Whether packets in that direction enter by the port or leave by it. A link that is down changes
        nothing: what is up stays up."""
        known = self.graph.switches[switch].ports.get(port)
        up_leaves = False
        if known is not None and known.peer_kind == "switch":
            if self._unbroken is None:
                self._unbroken = find_paths(self.graph, frozenset())
            servers = [host for host in self.graph.hosts if self.is_server(host)]
            beyond = sum(self.port_towards(switch, host, self._unbroken) == port for host in servers)
            up_leaves = beyond > len(servers) - beyond
        elif known is not None:
            node = self._hosts.get(known.peer)
            up_leaves = node is not None and self.is_server(node)
        return "out" if up_leaves == (direction == "up") else "in"

    def port_interface(self, switch: int, port: int) -> str:
        """The interface of a switch's port, in the core namespace. Raises NotPlaced."""
        known = self.graph.switches[switch].ports.get(port)
        if known is not None:
            return known.interface or known.name
        state = self._ports.get(switch, {}).get(port)
        if state is None:
            raise NotPlaced(f"{self.graph.switches[switch].name} has no port {port} now")
        return state.name

    def members(self, cohort_name: str | None) -> tuple[Host, list[Host]]:
        """A cohort's server and clients. Raises NotPlaced."""
        cohort = self.cohort(cohort_name)
        return self.host(cohort.server), [self.host(client) for client in cohort.clients]

    def switch_named(self, name: str | None) -> int:
        """The datapath id of that switch. Raises NotPlaced."""
        found = self.graph.switch_named(name or "")
        if found is None:
            raise NotPlaced(f"no switch is called {name!r} any more")
        return found.datapath_id
