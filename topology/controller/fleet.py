"""All switches of the testbed: sessions by datapath id, and the events that concern more than one of them.

Takes what os-ken's handlers and the inventory's watcher report, changes the network's belief, wakes the
sessions. The REST face reads here.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from topology.controller import wire
from topology.controller.bufferkeeper import BufferKeeper
from topology.controller.flows import Contents, Flow
from topology.controller.graph import Graph
from topology.controller.meter_view import MeterView
from topology.controller.meterbook import MeterBook
from topology.controller.metering import Metering
from topology.controller.meterplan import MeterPlan
from topology.controller.metrics import Metrics
from topology.controller.network import MAXIMUM_BOARDS, Network, PortState
from topology.controller.queuekeeper import QueueKeeper
from topology.controller.session import Session, SwitchSilent

LOG = logging.getLogger("controller")

SETTLE_S = 2.5
"""How long a switch that already has flows waits, after a start, for the others to report their ports, boards
and links. Before that, a link that is down at a switch not heard yet would be believed up. Switches come back
within 1 s or 2 (max_backoff 1000)."""
QUESTION_S = 2.0
"""Deadline of a question that a REST call or a scrape asks."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class Trouble:
    """Something that went wrong, for `/v1/status`."""

    time: float
    message: str


class Fleet:
    """Every connected switch, known to the inventory or not."""

    def __init__(self, graph: Graph, metrics: Metrics, book: MeterBook, audit_s: float = 30.0) -> None:
        self._audit_s = audit_s
        self.network = Network(graph)
        self.meters = MeterPlan(self.network, book)
        self.queues = QueueKeeper(
            lambda: self.meters.layout().limits,
            lambda: self.network.graph.inventory,
            book.path.parent,
            self.trouble,
            audit_s,
        )
        self.buffers = BufferKeeper(lambda: self.network.graph.inventory, self.trouble, audit_s)
        self.metering = Metering(self.meters, self.queues, self.sessions)
        self.meter_view = MeterView(self.metering, self.sessions)
        self.metrics = metrics
        self.started = time.time()
        self.troubles: deque[Trouble] = deque(maxlen=100)
        self._lock = threading.Lock()
        self._sessions: dict[int, Session] = {}
        self._heard: set[int] = set()
        self._ever: set[int] = set()
        self._settled = threading.Event()
        self._settle_by: float | None = None

    def trouble(self, message: str) -> None:
        """Log it and keep it for `/v1/status`."""
        LOG.error("%s", message)
        self.troubles.append(Trouble(time.time(), message))

    def sessions(self) -> dict[int, Session]:
        """The connected switches by datapath id (a copy)."""
        with self._lock:
            return dict(self._sessions)

    def name_of(self, datapath_id: int) -> str:
        """The switch's name, or its datapath id in words where the inventory does not know it."""
        switch = self.network.graph.switches.get(datapath_id)
        return switch.name if switch else f"datapath {datapath_id:#x}"

    def wake_all(self) -> None:
        """What switches and queues should have may have changed."""
        for session in self.sessions().values():
            session.wake()
        self.queues.wake()

    def has_port(self, datapath_id: int, number: int) -> bool:
        """Whether the switch said that it has that port."""
        return self.network.port(datapath_id, number) is not None

    def contents(self, datapath_id: int) -> Contents | None:
        """What that switch should have; None where the inventory does not know it."""
        flows = self.network.flows(datapath_id)
        if flows is None:
            return None
        metered = self.meters.contents(datapath_id)
        return Contents((*flows, *metered.flows), metered.meters)

    # Events.

    def switch_connected(self, datapath_id: int, connection: Any, ports: Iterable[PortState]) -> None:
        """A switch said who it is and which ports it has."""
        name = self.name_of(datapath_id)
        session = Session(
            connection,
            name,
            wanted=lambda: self.contents(datapath_id),
            on_read=lambda present, meters: self._switch_read(datapath_id, present, meters),
            on_error=self._openflow_trouble,
            on_sent=lambda count: self.metrics.flows_sent(name, count),
            audit_s=self._audit_s,
        )
        with self._lock:
            before = self._sessions.get(datapath_id)
            self._sessions[datapath_id] = session
            again = datapath_id in self._ever
            self._ever.add(datapath_id)
            if self._settle_by is None:
                self._settle_by = time.monotonic() + SETTLE_S
        if before is not None:
            before.close()
            before.connection.disconnect()
            LOG.warning("%s connected while it was connected: the older connection is closed", name)
        self.metrics.connected(name)
        if datapath_id not in self.network.graph.switches:
            self.trouble(
                f"{name} from {connection.address[0]} is no switch of this testbed: "
                "it gets no flows until the inventory lists it"
            )
        else:
            LOG.info("switch %s connected%s", name, " again" if again else "")
            self.buffers.wake()
        changed = self.network.set_ports(datapath_id, ports)
        session.start()
        if changed:
            self.wake_all()

    def _switch_read(self, datapath_id: int, present: Contents, maximum_meters: int) -> None:
        known = datapath_id in self.network.graph.switches
        remade = known and self.meters.set_maximum_meters(datapath_id, maximum_meters)
        if maximum_meters == 0 and known:
            LOG.warning("switch %s has no meters: limits there are enforced by queues", self.name_of(datapath_id))
        boards = self.network.adopt(datapath_id, present.flows)
        for board in boards:
            LOG.info(
                "board %s behind port %d of %s: known from before",
                board.mac,
                board.port,
                self.name_of(board.switch),
            )
        with self._lock:
            self._heard.add(datapath_id)
            complete = self._heard >= set(self.network.graph.switches)
            settle_by = self._settle_by or 0.0
        if complete:
            self._settled.set()
        if boards or remade:
            self.wake_all()
        if present.flows and not self._settled.wait(max(0.0, settle_by - time.monotonic())):
            self._settled.set()

    def switch_left(self, datapath_id: int, connection: Any) -> None:
        """A connection ended. What its ports were is still believed: its flows go on without us."""
        with self._lock:
            session = self._sessions.get(datapath_id)
            if session is None or session.connection is not connection:
                return
            del self._sessions[datapath_id]
        session.close()
        LOG.warning("switch %s disconnected", session.name)

    def port_changed(self, datapath_id: int, number: int, port: PortState | None) -> None:
        """A port came, changed, or (None) went."""
        if self.network.port(datapath_id, number) != port:
            state = "gone" if port is None else "up" if port.up else "down"
            LOG.info("switch %s: port %d is %s", self.name_of(datapath_id), number, state)
        if self.network.set_port(datapath_id, number, port):
            self.wake_all()

    def source_seen(self, datapath_id: int, port: int, mac: str, address: str | None = None) -> None:
        """A packet from an unknown source came in at a port that the inventory does not list."""
        self.metrics.packet_ins.inc()
        result = self.network.learn(datapath_id, port, mac, address)
        where = f"port {port} of {self.name_of(datapath_id)}"
        if result in ("new", "moved"):
            LOG.info("board %s is behind %s%s", mac, where, "" if result == "new" else " now")
        elif result == "address":
            LOG.info("board %s has the address %s", mac, address)
        elif result == "host":
            self.trouble(
                f"{where}: a board uses {mac}, which the inventory gives to a node elsewhere; not learnt: "
                "give the board another address"
            )
        elif result == "full":
            LOG.warning("%s: board %s is not learnt, there are %d already", where, mac, MAXIMUM_BOARDS)
        if result in ("new", "moved", "address", "host"):
            self.wake_all()

    def graph_read(self, graph: Graph) -> None:
        """The inventory was read again."""
        before = self.network.graph
        changed = self.network.set_graph(graph)
        if not changed and self.network.graph is not before:
            self.queues.wake()  # other shapes of links: flows are the same, queues stand within those shapes
        if changed:
            LOG.info("inventory: %d switches, %d nodes", len(graph.switches), len(graph.hosts))
            self.wake_all()

    def _openflow_trouble(self, message: str) -> None:
        self.metrics.errors.inc()
        self.trouble(message)

    # Questions to switches.

    def flow_statistics(self, datapath_id: int) -> list[Flow]:
        """All flows of a switch. Raises SwitchSilent, also where it is not connected."""
        return [wire.from_statistics(entry) for entry in self.raw_flow_statistics(datapath_id)]

    def raw_flow_statistics(self, datapath_id: int) -> list[Any]:
        """The same with counters, as os-ken gives them. Raises SwitchSilent."""
        return self._session(datapath_id).flow_statistics(timeout_s=QUESTION_S)

    def port_statistics(self, datapath_id: int) -> dict[int, dict[str, int]]:
        """Counters by port number. Raises SwitchSilent."""
        entries = self._session(datapath_id).port_statistics(timeout_s=QUESTION_S)
        return {entry.port_no: wire.port_counters(entry) for entry in entries}

    def table_statistics(self, datapath_id: int) -> dict[int, int]:
        """How many flows each table has, those without any left out. Raises SwitchSilent."""
        entries = self._session(datapath_id).table_statistics(timeout_s=QUESTION_S)
        return {entry.table_id: entry.active_count for entry in entries if entry.active_count}

    def _session(self, datapath_id: int) -> Session:
        with self._lock:
            session = self._sessions.get(datapath_id)
        if session is None:
            raise SwitchSilent(f"{self.name_of(datapath_id)} is not connected")
        return session

    def close(self) -> None:
        """End all sessions; flows stay in the switches."""
        with self._lock:
            sessions = list(self._sessions.values())
            self._sessions.clear()
        self._settled.set()
        self.queues.close()
        self.buffers.close()
        for session in sessions:
            session.close()
