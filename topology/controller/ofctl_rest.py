"""Ryu's `ofctl_rest` paths (`/stats/...`) with Ryu's JSON, so that its users' curl lines and scripts work.

What is installed here is the user's own: no part of the desired state, not put back after a restart of a
switch, exactly as with Ryu. Different from Ryu: a call returns once the switch confirmed or refused (then 4xx
with the OpenFlow error); nothing is skipped in silence; flows and meters of the controller itself are shown,
but never changed or deleted, by `clear` neither. A flow here is in table 0 unless `table_id` says
otherwise: with OUTPUT it ends there; one that only meters must go on with GOTO_TABLE 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, jsonify
from os_ken.lib import ofctl_v1_3 as ofctl
from os_ken.ofproto import ofproto_v1_3 as ofp
from os_ken.ofproto import ofproto_v1_3_parser as parser

from topology.controller.fleet import Fleet
from topology.controller.matching import FIRST_USER_METER
from topology.controller.ofctl_json import (
    FLOW_COMMANDS,
    METER_COMMANDS,
    Recorder,
    flow_filter,
    flow_message,
    meter_message,
    meter_number_given,
)
from topology.controller.refused import read_object, whole_number
from topology.controller.session import Session
from topology.controller.switchcalls import (
    ask,
    change_flows,
    meter_configurations,
    send,
    session_of,
    user_meter,
)

HIGHEST_DATAPATH_ID = (1 << 64) - 1


class _Asking(Recorder):
    """A recorder that asks the switch and gives os-ken's conversions the answer."""

    def __init__(self, session: Session) -> None:
        super().__init__(session.connection.id)
        self._session = session

    def send_msg(self, message: Any) -> None:
        """Ask, and hand over what came. Raises Refused."""
        message.xid = None
        entries = ask(self._session, message)
        single = isinstance(message, parser.OFPDescStatsRequest | parser.OFPAggregateStatsRequest)
        for event, replies in self.waiters[self.id].values():
            replies.append(_Reply(entries[0] if single else entries))
            event.set()


class _Reply:
    """As much of an os-ken reply as the conversions look at."""

    def __init__(self, body: Any) -> None:
        self.body = body


def _asked(session: Session, get: Callable[..., dict[str, Any]], *arguments: Any) -> Response:
    asking = _Asking(session)
    return jsonify(get(asking, asking.waiters, *arguments))


def _datapath_id(value: Any) -> int:
    return whole_number(value, "dpid", 0, HIGHEST_DATAPATH_ID)


def blueprint(fleet: Fleet) -> Blueprint:
    """The routes, over the switches of `fleet`."""
    routes = Blueprint("ofctl", __name__, url_prefix="/stats")

    def session_for(dpid: Any) -> Session:
        return session_of(fleet, _datapath_id(dpid))

    def meter_to_show(session: Session, given: str) -> int:
        number = whole_number(given, "meter_id", 1, ofp.OFPM_MAX)
        # The controller's own meters may be looked at by their number.
        if number < FIRST_USER_METER and not meter_configurations(session, number):
            return FIRST_USER_METER - 1 + number
        return number

    @routes.get("/switches")
    def switches() -> Response:
        return jsonify(sorted(fleet.sessions()))

    simple: dict[str, Callable[..., dict[str, Any]]] = {
        "desc": ofctl.get_desc_stats,
        "table": ofctl.get_table_stats,
        "portdesc": ofctl.get_port_desc,
        "meterfeatures": ofctl.get_meter_features,
        "port": ofctl.get_port_stats,
        "meter": ofctl.get_meter_stats,
        "meterconfig": ofctl.get_meter_config,
        "flow": ofctl.get_flow_stats,
        "aggregateflow": ofctl.get_aggregate_flow_stats,
    }

    @routes.get("/<any(desc, table, portdesc, meterfeatures, port, meter, meterconfig):what>/<dpid>")
    @routes.get("/<any(flow, aggregateflow):what>/<dpid>")
    def statistics(what: str, dpid: str) -> Response:
        return _asked(session_for(dpid), simple[what])

    @routes.post("/<any(flow, aggregateflow):what>/<dpid>")
    def filtered(what: str, dpid: str) -> Response:
        session = session_for(dpid)
        return _asked(session, simple[what], flow_filter(read_object(empty_is_object=True)))

    @routes.get("/port/<dpid>/<port>")
    def port(dpid: str, port: str) -> Response:
        session = session_for(dpid)
        if port.upper() == "ALL":
            return _asked(session, ofctl.get_port_stats)
        if port.upper() == "LOCAL":
            return _asked(session, ofctl.get_port_stats, ofp.OFPP_LOCAL)
        return _asked(session, ofctl.get_port_stats, whole_number(port, "port", 1, 0xFFFFFFFF))

    @routes.get("/<any(meter, meterconfig):what>/<dpid>/<meter_id>")
    def meter(what: str, dpid: str, meter_id: str) -> Response:
        session = session_for(dpid)
        if meter_id.upper() == "ALL":
            return _asked(session, simple[what])
        return _asked(session, simple[what], meter_to_show(session, meter_id))

    @routes.post("/flowentry/<any(add, modify, modify_strict, delete, delete_strict):command>")
    def flow_entry(command: str) -> Response:
        body = read_object()
        session = session_for(body.get("dpid"))
        message = flow_message(
            body, FLOW_COMMANDS[command], lambda given, path: user_meter(session, given, path)
        )
        change_flows(session, message)
        return Response(status=200)

    @routes.delete("/flowentry/clear/<dpid>")
    def clear(dpid: str) -> Response:
        session = session_for(dpid)
        message = flow_message({"table_id": ofp.OFPTT_ALL}, ofp.OFPFC_DELETE, lambda given, _: given)
        change_flows(session, message)
        return Response(status=200)

    @routes.post("/meterentry/<any(add, modify, delete):command>")
    def meter_entry(command: str) -> Response:
        body = read_object()
        session = session_for(body.get("dpid"))
        number, code = meter_number_given(body), METER_COMMANDS[command]
        if number == ofp.OFPM_ALL and command == "delete":
            present = [entry.meter_id for entry in meter_configurations(session)]
            users = [number for number in present if FIRST_USER_METER <= number <= ofp.OFPM_MAX]
            send(session, [meter_message(body, code, number) for number in users])
        else:
            send(session, [meter_message(body, code, user_meter(session, number))])
        return Response(status=200)

    return routes
