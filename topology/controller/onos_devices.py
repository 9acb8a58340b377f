"""Switches and their ports in ONOS's words, as the switches describe them now."""

from __future__ import annotations

from typing import Any

from os_ken.ofproto import ofproto_v1_3 as ofp
from os_ken.ofproto import ofproto_v1_3_parser as parser

from topology.controller.fleet import Fleet
from topology.controller.onos_words import device_id
from topology.controller.switchcalls import ask, session_of


def device_shown(fleet: Fleet, number: int) -> dict[str, Any]:
    """A switch as ONOS describes a device, also while it is not connected. Raises Refused."""
    session = fleet.sessions().get(number)
    said, address, since = None, "", 0.0
    if session is not None:
        answer = ask(session, parser.OFPDescStatsRequest(session.connection, 0))
        said = answer[0] if answer else None
        address, since = str(session.connection.address[0]), session.connected_since

    def text(name: str) -> str:
        value = getattr(said, name, b"")
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)

    state = "connected" if session is not None else "not connected"
    return {
        "id": device_id(number),
        "type": "SWITCH",
        "available": session is not None,
        "role": "MASTER" if session is not None else "NONE",
        "mfr": text("mfr_desc"),
        "hw": text("hw_desc"),
        "sw": text("sw_desc"),
        "serial": text("serial_num"),
        "driver": "ovs",
        "chassisId": f"{number:x}",
        "lastUpdate": str(int(since * 1000)),
        "humanReadableLastUpdate": state,
        "annotations": {
            "managementAddress": address,
            "name": fleet.name_of(number),
            "protocol": "OF_13",
        },
    }


def ports_shown(fleet: Fleet, number: int) -> list[dict[str, Any]]:
    """The ports of a connected switch. Raises Refused."""
    session = session_of(fleet, number)
    ports = []
    for port in ask(session, parser.OFPPortDescStatsRequest(session.connection, 0)):
        down = port.config & ofp.OFPPC_PORT_DOWN or port.state & ofp.OFPPS_LINK_DOWN
        ports.append(
            {
                "element": device_id(number),
                "port": "local" if port.port_no == ofp.OFPP_LOCAL else str(port.port_no),
                "isEnabled": not down,
                "type": "copper",
                "portSpeed": port.curr_speed // 1000,
                "annotations": {
                    "portName": port.name.decode("utf-8", "replace"),
                    "portMac": port.hw_addr,
                    "adminState": "disabled" if port.config & ofp.OFPPC_PORT_DOWN else "enabled",
                },
            }
        )
    return ports
