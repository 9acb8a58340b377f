"""Our plain messages as OpenFlow 1.3, and what a switch reports as our plain values. The one place that
builds os-ken messages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from os_ken.ofproto import ofproto_v1_3 as ofp
from os_ken.ofproto import ofproto_v1_3_parser as parser

from topology.controller.flows import TO_CONTROLLER, Barrier, Flow, Match, Message
from topology.controller.network import PortState

HEADER_BYTES = 96
"""How much of a packet goes to the controller: the Ethernet header is all that is read."""


def _match(match: Match) -> Any:
    return parser.OFPMatch(**dict(match.fields))


def _instructions(flow: Flow) -> list[Any]:
    actions = [
        parser.OFPActionOutput(port, HEADER_BYTES if port == TO_CONTROLLER else 0) for port in flow.outputs
    ]
    instructions = [parser.OFPInstructionActions(ofp.OFPIT_APPLY_ACTIONS, actions)] if actions else []
    if flow.goto is not None:
        instructions.append(parser.OFPInstructionGotoTable(flow.goto))
    return instructions


def to_openflow(datapath: Any, message: Message) -> Any:
    """The os-ken message for one of ours; without a transaction id yet."""
    if isinstance(message, Barrier):
        return parser.OFPBarrierRequest(datapath)
    flow, deletes = message.flow, message.command == "delete"
    return parser.OFPFlowMod(
        datapath,
        cookie=flow.cookie,
        # A deletion is bound to the cookie too: an entry that somebody else put in the same place stays.
        cookie_mask=0xFFFFFFFFFFFFFFFF if deletes else 0,
        table_id=flow.table,
        command=ofp.OFPFC_DELETE_STRICT if deletes else ofp.OFPFC_ADD,
        priority=flow.priority,
        buffer_id=ofp.OFP_NO_BUFFER,
        out_port=ofp.OFPP_ANY,
        out_group=ofp.OFPG_ANY,
        match=_match(flow.match),
        instructions=[] if deletes else _instructions(flow),
    )


def from_statistics(entry: Any) -> Flow:
    """A Flow from one entry of a flow statistics reply."""
    outputs: list[int] = []
    goto: int | None = None
    other: list[str] = []
    for instruction in entry.instructions:
        if isinstance(instruction, parser.OFPInstructionGotoTable):
            goto = instruction.table_id
        elif getattr(instruction, "type", None) == ofp.OFPIT_APPLY_ACTIONS:
            for action in instruction.actions:
                if isinstance(action, parser.OFPActionOutput):
                    outputs.append(action.port)
                else:
                    other.append(str(action))
        else:
            other.append(str(instruction))
    fields = Match(tuple(sorted(entry.match.items())))
    return Flow(entry.table_id, entry.priority, fields, tuple(outputs), goto, entry.cookie, " ".join(other))


def flow_statistics_request(datapath: Any, cookie: int = 0, cookie_mask: int = 0) -> Any:
    """Ask for all flows whose cookie agrees with `cookie` under the mask (a mask of 0: all)."""
    return parser.OFPFlowStatsRequest(
        datapath, 0, ofp.OFPTT_ALL, ofp.OFPP_ANY, ofp.OFPG_ANY, cookie, cookie_mask, parser.OFPMatch()
    )


def port_statistics_request(datapath: Any) -> Any:
    """Ask for the counters of all ports."""
    return parser.OFPPortStatsRequest(datapath, 0, ofp.OFPP_ANY)


def is_last_part(reply: Any) -> bool:
    """Whether no further part of this multipart reply follows."""
    return not reply.flags & ofp.OFPMPF_REPLY_MORE


def port_state(port: Any) -> PortState:
    """A port from a switch's description of it."""
    up = not port.config & ofp.OFPPC_PORT_DOWN and not port.state & ofp.OFPPS_LINK_DOWN
    name = port.name.decode("utf-8", "replace") if isinstance(port.name, bytes) else str(port.name)
    return PortState(port.port_no, name, up)


def port_is_gone(status: Any) -> bool:
    """Whether a port status message says that the port was deleted."""
    return bool(status.reason == ofp.OFPPR_DELETE)


def port_counters(entry: Any) -> dict[str, int]:
    """Counters of one port by our names."""
    return {
        "rx_bytes": entry.rx_bytes,
        "tx_bytes": entry.tx_bytes,
        "rx_packets": entry.rx_packets,
        "tx_packets": entry.tx_packets,
        "rx_dropped": entry.rx_dropped,
        "tx_dropped": entry.tx_dropped,
        "rx_errors": entry.rx_errors,
        "tx_errors": entry.tx_errors,
    }


def packet_source(packet_in: Any) -> tuple[int, str] | None:
    """Port and source address of a packet-in; None where it is no Ethernet frame."""
    port, data = packet_in.match.get("in_port"), bytes(packet_in.data)
    if not isinstance(port, int) or len(data) < 14:
        return None
    return port, data[6:12].hex(":")


def describe_error(error: Any) -> str:
    """Type and code of an OpenFlow error by their names in the specification."""
    try:
        kind, code = ofp.ofp_error_type_to_str(error.type), ofp.ofp_error_code_to_str(error.type, error.code)
    except (KeyError, ValueError, TypeError):
        kind, code = f"type {error.type}", f"code {error.code}"
    return f"{kind} {code}"


def serialise(datapath: Any, messages: Iterable[Any]) -> tuple[bytes, list[int]]:
    """Messages as one run of bytes, and the transaction ids that they got, in the same order."""
    data, numbers = bytearray(), []
    for message in messages:
        numbers.append(datapath.set_xid(message))
        message.serialize()
        data += message.buf
    return bytes(data), numbers
