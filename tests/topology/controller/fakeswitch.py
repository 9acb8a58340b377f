"""A switch and a network of switches in memory: applies our flow messages, carries packets as OpenFlow 1.3
says.

For what real switches show only by chance: every pair of hosts in many graphs, copies of a broadcast, loops.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from topology.controller.flows import TO_CONTROLLER, Flow, FlowMod, Message, Value
from topology.controller.graph import Graph

BROADCAST = "ff:ff:ff:ff:ff:ff"


class Loop(AssertionError):
    """A packet went round."""


def _number(value: int | str) -> int:
    return value if isinstance(value, int) else int(value.replace(":", ""), 16)


def _agrees(value: Value, actual: int | str) -> bool:
    if isinstance(value, tuple):
        return _number(actual) & _number(value[1]) == _number(value[0]) & _number(value[1])
    return value == actual


@dataclass(frozen=True)
class Packet:
    source: str
    destination: str


class FakeSwitch:
    """Flow tables of one switch."""

    def __init__(self) -> None:
        self.flows: dict[object, Flow] = {}
        self.changes = 0

    def apply(self, messages: Iterable[Message]) -> None:
        for message in messages:
            if not isinstance(message, FlowMod):
                continue
            self.changes += 1
            if message.command == "add":
                self.flows[message.flow.key] = message.flow
            elif self.flows.get(message.flow.key) == message.flow:
                del self.flows[message.flow.key]

    def present(self) -> list[Flow]:
        return list(self.flows.values())

    def send(self, packet: Packet, in_port: int) -> list[int]:
        """Ports (and TO_CONTROLLER) to which a packet that came in at `in_port` goes."""
        outputs: list[int] = []
        table: int | None = 0
        fields: dict[str, int | str] = {
            "in_port": in_port,
            "eth_src": packet.source,
            "eth_dst": packet.destination,
        }
        while table is not None:
            hits = [
                flow
                for flow in self.flows.values()
                if flow.table == table and all(_agrees(v, fields[n]) for n, v in flow.match.fields)
            ]
            if not hits:
                break
            best = max(hits, key=lambda flow: flow.priority)
            assert sum(flow.priority == best.priority for flow in hits) == 1, f"ambiguous: {hits}"
            # A packet never goes back where it came from unless IN_PORT is named (OpenFlow 1.3.5, 7.2.5).
            outputs += [port for port in best.outputs if port != in_port]
            assert best.goto is None or best.goto > table, "goto leads back"
            table = best.goto
        return outputs


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
