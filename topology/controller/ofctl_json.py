"""The JSON of Ryu's `ofctl_rest`: what users send, checked, and the OpenFlow messages made from it.

The conversions are os-ken's (`ofctl_v1_3`, Ryu's own code). They skip what they do not know and cut numbers
that are too long; so everything is looked at here first. Pure: `Recorder` stands for a switch and keeps the
message instead of sending it.
"""

from __future__ import annotations

import copy
import logging
import threading
from collections.abc import Callable
from typing import Any

from os_ken.lib import ofctl_v1_3 as ofctl
from os_ken.ofproto import ofproto_v1_3 as ofp
from os_ken.ofproto import ofproto_v1_3_parser as parser

from topology.controller.matching import is_own_cookie
from topology.controller.refused import (
    bad_value,
    list_of,
    object_of,
    only_keys,
    shown,
    whole_number,
)

MAXIMUM_ACTIONS = 64
MAXIMUM_BANDS = 8


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_FLOW_KEYS = _names(
    "dpid cookie cookie_mask table_id idle_timeout hard_timeout priority buffer_id out_port out_group flags "
    "match actions"
)
_FILTER_KEYS = _names("table_id flags out_port out_group cookie cookie_mask match priority")
_METER_KEYS = frozenset(("dpid", "flags", "meter_id", "bands"))
_BAND_KEYS = frozenset(("type", "rate", "burst_size", "prec_level"))
_METER_FLAGS = frozenset(("KBPS", "PKTPS", "BURST", "STATS"))
_INTEGERS = {
    "in_port": 32, "in_phy_port": 32, "metadata": 64, "dl_type": 16, "eth_type": 16, "dl_vlan": 13,
    "vlan_vid": 13, "vlan_pcp": 3, "ip_dscp": 6, "ip_ecn": 2, "nw_proto": 8, "ip_proto": 8, "tp_src": 16,
    "tp_dst": 16, "tcp_src": 16, "tcp_dst": 16, "udp_src": 16, "udp_dst": 16, "sctp_src": 16, "sctp_dst": 16,
    "icmpv4_type": 8, "icmpv4_code": 8, "arp_op": 16, "ipv6_flabel": 20, "icmpv6_type": 8, "icmpv6_code": 8,
    "mpls_label": 20, "mpls_tc": 3, "mpls_bos": 1, "pbb_isid": 24, "tunnel_id": 64, "ipv6_exthdr": 9,
}  # fmt: skip
"""Match fields that are numbers, and their length in bits."""
_ADDRESSES = _names(
    "dl_dst dl_src eth_dst eth_src nw_src nw_dst ipv4_src ipv4_dst arp_spa arp_tpa arp_sha arp_tha ipv6_src "
    "ipv6_dst ipv6_nd_target ipv6_nd_sll ipv6_nd_tll"
)
_ACTIONS: dict[str, frozenset[str]] = {
    name: _names(f"type {keys}")
    for name, keys in {
        "OUTPUT": "port max_len", "COPY_TTL_OUT": "", "COPY_TTL_IN": "", "SET_MPLS_TTL": "mpls_ttl",
        "DEC_MPLS_TTL": "", "PUSH_VLAN": "ethertype", "POP_VLAN": "", "PUSH_MPLS": "ethertype",
        "POP_MPLS": "ethertype", "SET_QUEUE": "queue_id", "GROUP": "group_id", "SET_NW_TTL": "nw_ttl",
        "DEC_NW_TTL": "", "SET_FIELD": "field value", "PUSH_PBB": "ethertype", "POP_PBB": "",
    }.items()
}  # fmt: skip
_INSTRUCTIONS: dict[str, frozenset[str]] = {
    "GOTO_TABLE": frozenset(("type", "table_id")),
    "WRITE_METADATA": frozenset(("type", "metadata", "metadata_mask")),
    "METER": frozenset(("type", "meter_id")),
    "WRITE_ACTIONS": frozenset(("type", "actions")),
    "CLEAR_ACTIONS": frozenset(("type",)),
}

FLOW_COMMANDS = {
    "add": ofp.OFPFC_ADD,
    "modify": ofp.OFPFC_MODIFY,
    "modify_strict": ofp.OFPFC_MODIFY_STRICT,
    "delete": ofp.OFPFC_DELETE,
    "delete_strict": ofp.OFPFC_DELETE_STRICT,
}
METER_COMMANDS = {"add": ofp.OFPMC_ADD, "modify": ofp.OFPMC_MODIFY, "delete": ofp.OFPMC_DELETE}

for _name in ("os_ken.lib.ofctl_v1_3", "os_ken.lib.ofctl_utils"):
    # What users write wrong is told to them, and does not fill the log.
    logging.getLogger(_name).setLevel(logging.CRITICAL)


class Recorder:
    """Stands for a switch in os-ken's conversions, and keeps the message that they would send."""

    ofproto = ofp
    ofproto_parser = parser

    def __init__(self, datapath_id: int = 0) -> None:
        self.id = datapath_id
        self.message: Any = None
        self.waiters: dict[int, dict[int, tuple[threading.Event, list[Any]]]] = {}

    def set_xid(self, message: Any) -> None:
        """Give a transaction id that `waiters` is kept by."""
        message.set_xid(0)

    def send_msg(self, message: Any) -> None:
        """Keep it; whoever waits for an answer waits no longer."""
        message.xid = None
        self.message = message
        for event, _ in self.waiters.get(self.id, {}).values():
            event.set()


def record(convert: Callable[[Recorder], Any], what: str) -> Any:
    """The message that a conversion makes, proven to be one that can be sent.

    Raises:
        Refused: 400 where the conversion fails.
    """
    recorder = Recorder()
    try:
        convert(recorder)
        message = recorder.message
        message.xid = 0
        message.serialize()
    except Exception as error:  # the conversions raise anything at all on values that they do not expect
        text = f"{type(error).__name__}: {str(error)[:160]}"
        hint = "see Ryu's ofctl_rest documentation for its fields"
        raise bad_value(what, f"the {what} cannot be put into OpenFlow 1.3 ({ascii(text)})", hint) from None
    message.xid, message.buf = None, None
    return message


def _check_integer(name: str, value: Any, path: str) -> None:
    bits = _INTEGERS[name]
    if name in ("in_port", "in_phy_port") and isinstance(value, str) and not value[:1].isdigit():
        return
    parts = value.split("/", 1) if isinstance(value, str) else [value]
    for part in parts:
        whole_number(part, path, 0, (1 << bits) - 1)


def check_match(match: Any, path: str = "match") -> dict[str, Any]:
    """A match with known fields only, every number within its field; a copy. Raises Refused."""
    fields = object_of(match, path)
    only_keys(fields, frozenset(_INTEGERS) | _ADDRESSES, path)
    for name, value in fields.items():
        where = f"{path}.{name}"
        if name in _INTEGERS:
            _check_integer(name, value, where)
        elif not isinstance(value, str) or len(value) > 100:
            raise bad_value(where, f"{where} is {shown(value)}", "an address as text")
    for name in ("tp_src", "tp_dst"):
        protocol = fields.get("nw_proto", fields.get("ip_proto"))
        if name in fields and protocol not in (6, 17):
            where = f"{path}.{name}"
            raise bad_value(where, f"{where} needs ip_proto 6 or 17 as a number", "or write tcp_src, udp_dst")
    record(lambda recorder: recorder.send_msg(_probe(recorder, copy.deepcopy(fields))), path)
    return copy.deepcopy(fields)


def _probe(recorder: Recorder, fields: dict[str, Any]) -> Any:
    match = ofctl.to_match(recorder, fields)
    return parser.OFPFlowStatsRequest(recorder, 0, 0, ofp.OFPP_ANY, ofp.OFPG_ANY, 0, 0, match)


def _check_set_field(action: dict[str, Any], path: str) -> None:
    field = action.get("field")
    if not isinstance(field, str) or field not in frozenset(_INTEGERS) | _ADDRESSES:
        raise bad_value(f"{path}.field", f"{path}.field is {shown(field)}", "a match field, such as eth_dst")
    value = action.get("value")
    if field in _INTEGERS:
        action["value"] = whole_number(value, f"{path}.value", 0, (1 << _INTEGERS[field]) - 1)
    elif not isinstance(value, str) or len(value) > 100:
        raise bad_value(f"{path}.value", f"{path}.value is {shown(value)}", "an address as text")


def _check_action(entry: Any, path: str, known: dict[str, frozenset[str]]) -> dict[str, Any]:
    action = dict(object_of(entry, path))
    kind = action.get("type")
    if not isinstance(kind, str) or kind not in known:
        raise bad_value(f"{path}.type", f"{path}.type is {shown(kind)}", f"one of {', '.join(known)}")
    only_keys(action, known[kind], path)
    if kind == "SET_FIELD":
        _check_set_field(action, path)
    if kind == "WRITE_ACTIONS":
        inner = list_of(action.get("actions"), f"{path}.actions", MAXIMUM_ACTIONS)
        action["actions"] = [
            _check_action(one, f"{path}.actions[{i}]", _ACTIONS) for i, one in enumerate(inner)
        ]
    return action


def check_actions(value: Any, meter_number: Callable[[int, str], int]) -> list[dict[str, Any]]:
    """Actions and instructions with known types and keys; meters by the number that they have in the switch.

    Args:
        value: what the user sent.
        meter_number: gives the number in the switch for what the user calls a meter, and where it stands.

    Raises:
        Refused: 400, and what `meter_number` raises.
    """
    checked = []
    for index, entry in enumerate(list_of(value, "actions", MAXIMUM_ACTIONS)):
        path = f"actions[{index}]"
        action = _check_action(entry, path, _ACTIONS | _INSTRUCTIONS)
        if action["type"] == "METER":
            where = f"{path}.meter_id"
            action["meter_id"] = meter_number(
                whole_number(action.get("meter_id"), where, 1, ofp.OFPM_MAX), where
            )
        checked.append(action)
    return checked


def flow_message(body: dict[str, Any], command: int, meter_number: Callable[[int, str], int]) -> Any:
    """The OpenFlow message of a `/stats/flowentry/...` body. Raises Refused."""
    only_keys(body, _FLOW_KEYS)
    flow = {key: value for key, value in body.items() if key not in ("dpid", "match", "actions")}
    flow["match"] = check_match(body.get("match", {}))
    flow["actions"] = check_actions(body.get("actions", []), meter_number)
    message = record(lambda recorder: ofctl.mod_flow_entry(recorder, flow, command), "flow")
    if is_own_cookie(message.cookie) and command in (ofp.OFPFC_ADD,):
        hint = "take any cookie that does not begin with 0xc0407e"
        raise bad_value("cookie", f"cookie {message.cookie:#x} marks flows of the controller itself", hint)
    return message


def flow_filter(body: dict[str, Any]) -> dict[str, Any]:
    """The filter of a `POST /stats/flow` body, proven to be convertible; a copy. Raises Refused."""
    only_keys(body, _FILTER_KEYS)
    wanted = {**copy.deepcopy(body), "match": check_match(body.get("match", {}))}
    if "priority" in wanted:
        wanted["priority"] = whole_number(wanted["priority"], "priority", -1, 0xFFFF)
    record(lambda recorder: ofctl.get_flow_stats(recorder, recorder.waiters, copy.deepcopy(wanted)), "filter")
    return wanted


def meter_number_given(body: dict[str, Any]) -> int:
    """`meter_id` of a body, as the user counts; `ALL` is OFPM_ALL. Raises Refused."""
    value = body.get("meter_id")
    if value == "ALL" or value == ofp.OFPM_ALL:
        return int(ofp.OFPM_ALL)
    return whole_number(value, "meter_id", 1, ofp.OFPM_MAX)


def meter_message(body: dict[str, Any], command: int, number: int) -> Any:
    """The OpenFlow message of a `/stats/meterentry/...` body for the meter with that number in the switch.

    Raises:
        Refused: 400; also for a rate of 0 and for a meter without a band, which would limit nothing.
    """
    only_keys(body, _METER_KEYS)
    flags = body.get("flags", [])
    flags = list_of([flags] if isinstance(flags, str) else flags, "flags", len(_METER_FLAGS))
    for index, flag in enumerate(flags):
        if not isinstance(flag, str) or flag not in _METER_FLAGS:
            names = ", ".join(sorted(_METER_FLAGS))
            raise bad_value(f"flags[{index}]", f"flags[{index}] is {shown(flag)}", f"one of {names}")
    bands = []
    for index, entry in enumerate(list_of(body.get("bands", []), "bands", MAXIMUM_BANDS)):
        path = f"bands[{index}]"
        band = dict(object_of(entry, path))
        only_keys(band, _BAND_KEYS, path)
        if band.get("type") not in ("DROP", "DSCP_REMARK"):
            raise bad_value(
                f"{path}.type", f"{path}.type is {shown(band.get('type'))}", "DROP or DSCP_REMARK"
            )
        band["rate"] = whole_number(band.get("rate"), f"{path}.rate", 1, 0xFFFFFFFF)
        bands.append(band)
    if command != ofp.OFPMC_DELETE and not bands:
        raise bad_value("bands", "the meter has no band", 'such as [{"type": "DROP", "rate": 1000}]')
    meter = {"flags": flags, "meter_id": number, "bands": bands}
    return record(lambda recorder: ofctl.mod_meter_entry(recorder, meter, command), "meter")
