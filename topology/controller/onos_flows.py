"""Flows in ONOS's JSON: what users send, checked and made into OpenFlow; entries of switches in ONOS's words.
Pure: asks nobody.

A flow's id is 15 bits of its application's name and 48 bits of where it stands (switch, table, priority,
match). It is the flow's cookie, so it stays the same over every restart of the controller.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Callable
from typing import Any

from os_ken.ofproto import ofproto_v1_3 as ofp
from os_ken.ofproto import ofproto_v1_3_parser as parser

from topology.controller.matching import canonical, is_own_cookie
from topology.controller.ofctl_json import Recorder, record
from topology.controller.onos_words import OTHER_APPLICATION, OWN_APPLICATION, boolean, device_id
from topology.controller.refused import bad_value, list_of, object_of, only_keys, shown, whole_number

MAXIMUM_CRITERIA = 40
MAXIMUM_INSTRUCTIONS = 64
PLACE_BITS = 48
_PLACE_MASK = (1 << PLACE_BITS) - 1
_TABLE_AFTER_METERING = 1

_RESERVED = {
    "IN_PORT": ofp.OFPP_IN_PORT, "TABLE": ofp.OFPP_TABLE, "NORMAL": ofp.OFPP_NORMAL,
    "FLOOD": ofp.OFPP_FLOOD, "ALL": ofp.OFPP_ALL, "CONTROLLER": ofp.OFPP_CONTROLLER, "LOCAL": ofp.OFPP_LOCAL,
}  # fmt: skip
_RESERVED_NAMES = {number: name for name, number in _RESERVED.items()}
_NUMBERS = {
    "IN_PORT": ("in_port", "port", 32), "ETH_TYPE": ("eth_type", "ethType", 16),
    "IP_PROTO": ("ip_proto", "protocol", 8), "TCP_SRC": ("tcp_src", "tcpPort", 16),
    "TCP_DST": ("tcp_dst", "tcpPort", 16), "UDP_SRC": ("udp_src", "udpPort", 16),
    "UDP_DST": ("udp_dst", "udpPort", 16),
}  # fmt: skip
"""Criteria that are numbers: field of OpenFlow, key in the JSON, bits."""
_TEXTS = {
    "ETH_SRC": ("eth_src", "mac"), "ETH_DST": ("eth_dst", "mac"),
    "IPV4_SRC": ("ipv4_src", "ip"), "IPV4_DST": ("ipv4_dst", "ip"),
}  # fmt: skip
_BY_FIELD = {field: (kind, key) for kind, (field, key, _) in _NUMBERS.items()} | {
    field: (kind, key) for kind, (field, key) in _TEXTS.items()
}
_FLOW_KEYS = frozenset(
    ("priority", "timeout", "isPermanent", "deviceId", "tableId", "appId", "treatment", "selector", "id")
)


# Ids of flows.


def application_bits(name: str) -> int:
    """15 bits of an application's name."""
    return (
        int.from_bytes(hashlib.blake2b(name.encode("utf-8", "replace"), digest_size=2).digest(), "big") >> 1
    )


def _place(device: int, table: int, priority: int, match: Any) -> int:
    text = f"{device}/{table}/{priority}/{canonical(match)}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=PLACE_BITS // 8).digest(), "big")


def flow_id(device: int, entry: Any) -> tuple[int, int | str]:
    """The id of an entry of flow statistics, and its application: bits of the name, or the name where it was
    not made by ONOS's paths."""
    place = _place(device, entry.table_id, entry.priority, entry.match)
    if entry.cookie & _PLACE_MASK == place and entry.cookie >> 63 == 0:
        return entry.cookie, entry.cookie >> PLACE_BITS
    name = OWN_APPLICATION if is_own_cookie(entry.cookie) else OTHER_APPLICATION
    return application_bits(name) << PLACE_BITS | place, name


# Flows that users send.


def _address(value: Any, path: str) -> str | tuple[str, str] | None:
    try:
        network = ipaddress.IPv4Network(value if isinstance(value, str) else None, strict=False)
    except ValueError:
        raise bad_value(path, f"{path} is {shown(value)}", "an IPv4 prefix, such as 10.0.1.0/24") from None
    if network.prefixlen == 0:
        return None
    whole = network.prefixlen == 32
    return str(network.network_address) if whole else (str(network.network_address), str(network.netmask))


def _mac(value: Any, path: str) -> str:
    text = value.lower().replace("-", ":") if isinstance(value, str) else ""
    if not re.fullmatch(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", text):
        raise bad_value(path, f"{path} is {shown(value)}", "a MAC address, such as 02:00:0a:00:01:0a")
    return text


def _selector(value: Any) -> Any:
    selector = object_of(value, "selector")
    only_keys(selector, frozenset(("criteria",)), "selector")
    fields: dict[str, Any] = {}
    criteria = list_of(selector.get("criteria", []), "selector.criteria", MAXIMUM_CRITERIA)
    for index, entry in enumerate(criteria):
        path = f"selector.criteria[{index}]"
        criterion = object_of(entry, path)
        kind = criterion.get("type")
        if isinstance(kind, str) and kind in _NUMBERS:
            field, key, bits = _NUMBERS[kind]
            made: Any = whole_number(criterion.get(key), f"{path}.{key}", 0, (1 << bits) - 1)
        elif isinstance(kind, str) and kind in _TEXTS:
            field, key = _TEXTS[kind]
            convert = _mac if key == "mac" else _address
            made = convert(criterion.get(key), f"{path}.{key}")
        else:
            names = ", ".join([*_NUMBERS, *_TEXTS])
            raise bad_value(f"{path}.type", f"{path}.type is {shown(kind)}", f"one of {names}")
        only_keys(criterion, frozenset(("type", key)), path)
        if field in fields:
            raise bad_value(path, f"{path}: there are two criteria {kind}", "give each once")
        fields[field] = made
    known = {field: made for field, made in fields.items() if made is not None}
    message = record(
        lambda recorder: recorder.send_msg(
            parser.OFPFlowStatsRequest(
                recorder, 0, 0, ofp.OFPP_ANY, ofp.OFPG_ANY, 0, 0, parser.OFPMatch(**known)
            )
        ),
        "selector",
    )
    return message.match


def _output_port(value: Any, path: str) -> int:
    if isinstance(value, str) and value.upper() in _RESERVED:
        return _RESERVED[value.upper()]
    # ONOS also writes reserved ports as negative numbers: -3 is CONTROLLER.
    number = whole_number(value, path, -8, 0xFFFFFFFF)
    return number & 0xFFFFFFFF


def _treatment(value: Any, meter_number: Callable[[int, str], int]) -> list[Any]:
    treatment = object_of(value, "treatment")
    only_keys(treatment, frozenset(("instructions", "deferred", "clearDeferred")), "treatment")
    if treatment.get("deferred"):
        raise bad_value("treatment.deferred", "deferred instructions are not taken", "use `instructions`")
    meters: list[int] = []
    outputs: list[int] = []
    tables: list[int] = []
    drops = False
    entries = list_of(treatment.get("instructions", []), "treatment.instructions", MAXIMUM_INSTRUCTIONS)
    for index, entry in enumerate(entries):
        path = f"treatment.instructions[{index}]"
        instruction = object_of(entry, path)
        kind = instruction.get("type")
        if kind == "OUTPUT":
            only_keys(instruction, frozenset(("type", "port")), path)
            outputs.append(_output_port(instruction.get("port"), f"{path}.port"))
        elif kind == "METER":
            only_keys(instruction, frozenset(("type", "meterId")), path)
            where = f"{path}.meterId"
            given = whole_number(instruction.get("meterId"), where, 1, ofp.OFPM_MAX)
            meters.append(meter_number(given, where))
        elif kind == "TABLE":
            only_keys(instruction, frozenset(("type", "tableId")), path)
            tables.append(whole_number(instruction.get("tableId"), f"{path}.tableId", 1, 253))
        elif kind in ("NOACTION", "DROP"):
            drops = True
        else:
            hint = "one of OUTPUT, METER, TABLE, NOACTION"
            raise bad_value(f"{path}.type", f"{path}.type is {shown(kind)}", hint)
    if len(meters) > 1 or len(tables) > 1 or (drops and (outputs or tables)):
        hint = "at most one METER and one TABLE; NOACTION without OUTPUT and TABLE"
        raise bad_value("treatment.instructions", "these instructions do not go together", hint)
    if meters and not outputs and not tables and not drops:
        # Only metered: it goes on to the tables that meter and forward.
        tables = [_TABLE_AFTER_METERING]
    actions = [parser.OFPActionOutput(port, ofp.OFPCML_MAX) for port in outputs]
    made = [parser.OFPInstructionMeter(meter) for meter in meters]
    if actions:
        made.append(parser.OFPInstructionActions(ofp.OFPIT_APPLY_ACTIONS, actions))
    return [*made, *(parser.OFPInstructionGotoTable(table) for table in tables)]


def flow_message(
    body: dict[str, Any], device: int, application: str, meter_number: Callable[[int, str], int]
) -> Any:
    """The OpenFlow message that adds a flow of ONOS's JSON; its cookie is the flow's id.

    Args:
        body: the flow.
        device: datapath id of the switch that it is for.
        application: name of the application that it belongs to.
        meter_number: gives the number in the switch for what the user calls a meter, and where it stands.

    Raises:
        Refused: 400, and what `meter_number` raises.
    """
    only_keys(body, _FLOW_KEYS)
    if "deviceId" in body and body["deviceId"] != device_id(device):
        raise bad_value(
            "deviceId", f"deviceId is {shown(body['deviceId'])}", f"here it is {device_id(device)}"
        )
    table = whole_number(body.get("tableId", 0), "tableId", 0, 0)
    priority = whole_number(body.get("priority"), "priority", 0, 0xFFFF)
    permanent = boolean(body.get("isPermanent"), "isPermanent")
    timeout = whole_number(body.get("timeout", 0 if permanent else None), "timeout", 0, 0xFFFF)
    match = _selector(body.get("selector", {}))
    instructions = _treatment(body.get("treatment", {}), meter_number)
    number = application_bits(application) << PLACE_BITS | _place(device, table, priority, match)

    def build(recorder: Recorder) -> None:
        recorder.send_msg(
            parser.OFPFlowMod(
                recorder,
                cookie=number,
                table_id=table,
                command=ofp.OFPFC_ADD,
                idle_timeout=0 if permanent else timeout,
                priority=priority,
                buffer_id=ofp.OFP_NO_BUFFER,
                out_port=ofp.OFPP_ANY,
                out_group=ofp.OFPG_ANY,
                match=match,
                instructions=instructions,
            )
        )

    return record(build, "flow")


# Flows for showing.


def _instructions_shown(entry: Any) -> list[dict[str, Any]]:
    first: list[dict[str, Any]] = []
    meters: list[dict[str, Any]] = []
    tables: list[dict[str, Any]] = []
    for instruction in entry.instructions:
        if isinstance(instruction, parser.OFPInstructionMeter):
            meters.append({"type": "METER", "meterId": str(instruction.meter_id)})
        elif isinstance(instruction, parser.OFPInstructionGotoTable):
            tables.append({"type": "TABLE", "tableId": instruction.table_id})
        elif isinstance(instruction, parser.OFPInstructionActions):
            for action in instruction.actions:
                if isinstance(action, parser.OFPActionOutput):
                    port = _RESERVED_NAMES.get(action.port, str(action.port))
                    first.append({"type": "OUTPUT", "port": port})
                else:
                    first.append({"type": type(action).__name__.removeprefix("OFPAction").upper()})
    return [*first, *meters, *tables] or [{"type": "NOACTION"}]


def _criterion_shown(name: str, value: int | str, mask: int | str | None) -> dict[str, Any]:
    kind, key = _BY_FIELD.get(name, (name.upper(), "value"))
    if name == "eth_type":
        return {"type": kind, key: f"0x{value:x}"}
    if key == "ip":
        prefix = 32 if mask is None else bin(int(ipaddress.IPv4Address(mask))).count("1")
        return {"type": kind, key: f"{value}/{prefix}"}
    return {"type": kind, key: value if mask is None else f"{value}/{mask}"}


def flow_shown(device: int, entry: Any, application: str, number: int, seen_ms: int) -> dict[str, Any]:
    """An entry of flow statistics in ONOS's words; `life` in seconds, `seen_ms` milliseconds since 1970."""
    return {
        "groupId": 0,
        "state": "ADDED",
        "life": entry.duration_sec,
        "liveType": "UNKNOWN",
        "lastSeen": seen_ms,
        "packets": entry.packet_count,
        "bytes": entry.byte_count,
        "id": str(number),
        "appId": application,
        "priority": entry.priority,
        "timeout": entry.idle_timeout or entry.hard_timeout,
        "isPermanent": not (entry.idle_timeout or entry.hard_timeout),
        "deviceId": device_id(device),
        "tableId": entry.table_id,
        "tableName": str(entry.table_id),
        "treatment": {"instructions": _instructions_shown(entry), "deferred": []},
        "selector": {"criteria": [_criterion_shown(*field) for field in canonical(entry.match)]},
    }
