"""A switch and a network of switches in memory: applies our flow messages, carries packets as OpenFlow 1.3
says.

For what real switches show only by chance: every pair of hosts in many graphs, copies of a broadcast, loops.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from topology.controller.flows import (
    TO_CONTROLLER,
    Contents,
    Flow,
    FlowMod,
    Message,
    Meter,
    MeterMod,
    Value,
)
from topology.controller.graph import Graph

BROADCAST = "ff:ff:ff:ff:ff:ff"


class Loop(AssertionError):
    """A packet went round."""


def _number(value: int | str) -> int:
    return value if isinstance(value, int) else int(value.replace(":", ""), 16)


def _agrees(value: Value, actual: int | str | None) -> bool:
    if actual is None:
        return False
    if isinstance(value, tuple):
        return _number(actual) & _number(value[1]) == _number(value[0]) & _number(value[1])
    return value == actual


@dataclass(frozen=True)
class Packet:
    source: str
    destination: str
    ipv4_source: str | None = None
    ipv4_destination: str | None = None


class FakeSwitch:
    """Flow tables and meters of one switch. Strict where real ones answer with an error: a message that one would
    refuse fails the test."""

    def __init__(self) -> None:
        self.flows: dict[object, Flow] = {}
        self.meters: dict[int, Meter] = {}
        self.changes = 0

    def apply(self, messages: Iterable[Message]) -> None:
        for message in messages:
            if isinstance(message, MeterMod):
                self.changes += 1
                self._apply_meter(message)
            elif isinstance(message, FlowMod):
                self.changes += 1
                if message.command == "add":
                    assert message.flow.meter is None or message.flow.meter in self.meters, "no such meter"
                    self.flows[message.flow.key] = message.flow
                elif self.flows.get(message.flow.key) == message.flow:
                    del self.flows[message.flow.key]
            assert {f.meter for f in self.flows.values()} - {None} <= self.meters.keys()

    def _apply_meter(self, message: MeterMod) -> None:
        number = message.meter.id
        assert (number in self.meters) == (message.command != "add"), f"{message.command} of meter {number}"
        if message.command == "delete":
            # A real switch takes the flows with it, and packets would no longer be limited by anything else.
            assert all(flow.meter != number for flow in self.flows.values()), "flows still use the meter"
            del self.meters[number]
        else:
            self.meters[number] = message.meter

    def restart(self) -> None:
        self.flows.clear()
        self.meters.clear()

    def present(self) -> list[Flow]:
        return list(self.flows.values())

    def contents(self) -> Contents:
        return Contents(tuple(self.flows.values()), tuple(self.meters.values()))

    def meters_of(self, packet: Packet, in_port: int) -> list[int]:
        """Ids of the meters that a packet passes."""
        return [flow.meter for flow in self._passed(packet, in_port) if flow.meter is not None]

    def send(self, packet: Packet, in_port: int) -> list[int]:
        """Ports (and TO_CONTROLLER) to which a packet that came in at `in_port` goes."""
        # A packet never goes back where it came from unless IN_PORT is named (OpenFlow 1.3.5, 7.2.5).
        return [port for flow in self._passed(packet, in_port) for port in flow.outputs if port != in_port]

    def _passed(self, packet: Packet, in_port: int) -> list[Flow]:
        """The entries that a packet meets, table by table."""
        passed: list[Flow] = []
        table: int | None = 0
        fields: dict[str, int | str | None] = {
            "in_port": in_port,
            "eth_src": packet.source,
            "eth_dst": packet.destination,
            "eth_type": 0x0800 if packet.ipv4_source or packet.ipv4_destination else None,
            "ipv4_src": packet.ipv4_source,
            "ipv4_dst": packet.ipv4_destination,
        }
        while table is not None:
            hits = [
                flow
                for flow in self.flows.values()
                if flow.table == table and all(_agrees(v, fields.get(n)) for n, v in flow.match.fields)
            ]
            if not hits:
                break
            best = max(hits, key=lambda flow: flow.priority)
            assert sum(flow.priority == best.priority for flow in hits) == 1, f"ambiguous: {hits}"
            passed.append(best)
            assert best.goto is None or best.goto > table, "goto leads back"
            table = best.goto
        return passed


class FakeNetwork:
    """Fake switches joined by the links of a graph; links in `down` carry nothing."""

    def __init__(self, graph: Graph, down: frozenset[str] = frozenset()) -> None:
        self.graph = graph
        self.switches = {datapath_id: FakeSwitch() for datapath_id in graph.switches}
        self.down = down

    def _far_end(self, switch: int, port: int) -> tuple[int, int] | None:
        for link in self.graph.links:
            if link.name not in self.down:
                if link.a == (switch, port):
                    return link.b
                if link.b == (switch, port):
                    return link.a
        return None

    def deliver(self, packet: Packet, switch: int, port: int) -> list[tuple[int, int]]:
        """(datapath id, port) of each copy that leaves the switches, for a packet that comes in there."""
        between = {end for link in self.graph.links for end in (link.a, link.b)}
        left: list[tuple[int, int]] = []
        todo = deque([(switch, port)])
        steps = 0
        while todo:
            at, in_port = todo.popleft()
            steps += 1
            if steps > 4 * len(self.switches) + 4:
                raise Loop(f"{packet} still travels after {steps} switches")
            for output in self.switches[at].send(packet, in_port):
                if output == TO_CONTROLLER:
                    left.append((at, TO_CONTROLLER))
                elif (at, output) in between:
                    end = self._far_end(at, output)
                    if end is not None:
                        todo.append(end)
                else:
                    left.append((at, output))
        return left

    def meters_passed(self, packet: Packet, switch: int, port: int) -> list[tuple[int, int]]:
        """(datapath id, meter id) of each meter on the way of a packet that comes in there and has one way."""
        passed: list[tuple[int, int]] = []
        at: tuple[int, int] | None = (switch, port)
        while at is not None:
            here, in_port = at
            passed += [(here, meter) for meter in self.switches[here].meters_of(packet, in_port)]
            outputs = self.switches[here].send(packet, in_port)
            assert len(outputs) <= 1, f"{packet} is copied at {here}"
            at = self._far_end(here, outputs[0]) if outputs else None
        return passed
