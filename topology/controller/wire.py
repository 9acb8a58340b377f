"""Our plain messages as OpenFlow 1.3, and what a switch reports as our plain values. The one place that
builds os-ken messages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from os_ken.ofproto import ofproto_v1_3 as ofp
from os_ken.ofproto import ofproto_v1_3_parser as parser

from topology.controller.flows import TO_CONTROLLER, Barrier, Flow, Match, Message, Meter, MeterMod
from topology.controller.network import PortState

HEADER_BYTES = 96
"""How much of a packet goes to the controller: headers up to that of IPv4 or ARP are all that is read."""

_METER_COMMANDS = {"add": ofp.OFPMC_ADD, "modify": ofp.OFPMC_MODIFY, "delete": ofp.OFPMC_DELETE}
_UNITS = {"bit/s": ofp.OFPMF_KBPS, "packet/s": ofp.OFPMF_PKTPS}
_METER_FLAGS = ofp.OFPMF_BURST | ofp.OFPMF_STATS


def _match(match: Match) -> Any:
    return parser.OFPMatch(**dict(match.fields))


def _instructions(flow: Flow) -> list[Any]:
    actions = [
        parser.OFPActionOutput(port, HEADER_BYTES if port == TO_CONTROLLER else 0) for port in flow.outputs
    ]
    instructions = [] if flow.meter is None else [parser.OFPInstructionMeter(flow.meter)]
    if actions:
        instructions.append(parser.OFPInstructionActions(ofp.OFPIT_APPLY_ACTIONS, actions))
    if flow.goto is not None:
        instructions.append(parser.OFPInstructionGotoTable(flow.goto))
    return instructions


def _meter_mod(datapath: Any, message: MeterMod) -> Any:
    meter, bands = message.meter, []
    if message.command != "delete":
        bands = [parser.OFPMeterBandDrop(rate=meter.rate, burst_size=meter.burst)]
    command, flags = _METER_COMMANDS[message.command], _UNITS[meter.unit] | _METER_FLAGS
    return parser.OFPMeterMod(datapath, command, flags, meter.id, bands)


def to_openflow(datapath: Any, message: Message) -> Any:
    """The os-ken message for one of ours; without a transaction id yet."""
    if isinstance(message, Barrier):
        return parser.OFPBarrierRequest(datapath)
    if isinstance(message, MeterMod):
        return _meter_mod(datapath, message)
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
    meter: int | None = None
    other: list[str] = []
    for instruction in entry.instructions:
        if isinstance(instruction, parser.OFPInstructionGotoTable):
            goto = instruction.table_id
        elif isinstance(instruction, parser.OFPInstructionMeter):
            meter = instruction.meter_id
        elif getattr(instruction, "type", None) == ofp.OFPIT_APPLY_ACTIONS:
            for action in instruction.actions:
                if isinstance(action, parser.OFPActionOutput):
                    outputs.append(action.port)
                else:
                    other.append(str(action))
        else:
            other.append(str(instruction))
    fields = Match(tuple(sorted(entry.match.items())))
    text = " ".join(other)
    return Flow(entry.table_id, entry.priority, fields, tuple(outputs), goto, entry.cookie, text, meter)


def from_meter_configuration(entry: Any) -> Meter:
    """A Meter from one entry of a meter configuration reply."""
    unit = "packet/s" if entry.flags & ofp.OFPMF_PKTPS else "bit/s"
    other = [f"flags={entry.flags:#x}"] if entry.flags != _UNITS[unit] | _METER_FLAGS else []
    if len(entry.bands) != 1 or entry.bands[0].type != ofp.OFPMBT_DROP:
        other.append(f"bands={[band.type for band in entry.bands]}")
    rate, burst = (entry.bands[0].rate, entry.bands[0].burst_size) if entry.bands else (0, 0)
    return Meter(entry.meter_id, unit, rate, burst, " ".join(other))


def meter_features_request(datapath: Any) -> Any:
    """Ask how many meters the switch can have."""
    return parser.OFPMeterFeaturesStatsRequest(datapath, 0)


def meter_configuration_request(datapath: Any, meter: int | None = None) -> Any:
    """Ask for the configuration of one meter, or of all."""
    return parser.OFPMeterConfigStatsRequest(datapath, 0, ofp.OFPM_ALL if meter is None else meter)


def meter_statistics_request(datapath: Any, meter: int | None = None) -> Any:
    """Ask for the counters of one meter, or of all."""
    return parser.OFPMeterStatsRequest(datapath, 0, ofp.OFPM_ALL if meter is None else meter)


def meter_counters(entry: Any) -> dict[str, Any]:
    """Counters of one meter by our names."""
    return {
        "packets": entry.packet_in_count,
        "bytes": entry.byte_in_count,
        "duration_s": entry.duration_sec + entry.duration_nsec / 1e9,
        "bands": [
            {"packets": band.packet_band_count, "bytes": band.byte_band_count} for band in entry.band_stats
        ],
    }


def match_fields(match: Any) -> dict[str, Any]:
    """What an entry matches, as plain data."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in match.items()}


def flow_statistics_request(datapath: Any, cookie: int = 0, cookie_mask: int = 0) -> Any:
    """Ask for all flows whose cookie agrees with `cookie` under the mask (a mask of 0: all)."""
    return parser.OFPFlowStatsRequest(
        datapath, 0, ofp.OFPTT_ALL, ofp.OFPP_ANY, ofp.OFPG_ANY, cookie, cookie_mask, parser.OFPMatch()
    )


def port_statistics_request(datapath: Any) -> Any:
    """Ask for the counters of all ports."""
    return parser.OFPPortStatsRequest(datapath, 0, ofp.OFPP_ANY)


def table_statistics_request(datapath: Any) -> Any:
    """Ask how many flows each table has."""
    return parser.OFPTableStatsRequest(datapath, 0)


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


def packet_source(packet_in: Any) -> tuple[int, str, str | None] | None:
    """Port, source address, and IPv4 source (of IPv4 or ARP) of a packet-in; None where it is no Ethernet frame."""
    port, data = packet_in.match.get("in_port"), bytes(packet_in.data)
    if not isinstance(port, int) or len(data) < 14:
        return None
    at = {b"\x08\x00": 26, b"\x08\x06": 28}.get(data[12:14])
    address = None if at is None or len(data) < at + 4 else ".".join(map(str, data[at : at + 4]))
    return port, data[6:12].hex(":"), address


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
