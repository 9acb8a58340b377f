"""ONOS's REST paths (`/onos/v1/devices`, `meters`, `flows`) with ONOS's JSON and status codes, so that a
script written for ONOS works after changing the address.

What is installed here is the user's own: no part of the desired state, not put back after a restart of a
switch. Flows and meters of the controller itself are listed, but not changed: 409. Flows stand in table 0:
with OUTPUT they end there; with METER and no OUTPUT they go on to table 1. Meters get the lowest free number
from 100000 up, given in `Location`; a script that counts from 1 is understood (1 is 100000, 2 is 100001).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, jsonify, request
from os_ken.ofproto import ofproto_v1_3 as ofp
from os_ken.ofproto import ofproto_v1_3_parser as parser

from topology.controller import onos_flows, onos_meters
from topology.controller.fleet import Fleet
from topology.controller.matching import FIRST_USER_METER, is_own_cookie
from topology.controller.onos_devices import device_shown, ports_shown
from topology.controller.onos_words import (
    DEFAULT_APPLICATION,
    OTHER_APPLICATION,
    OWN_APPLICATION,
    datapath_id,
    device_id,
)
from topology.controller.refused import (
    Refused,
    bad_value,
    list_of,
    object_of,
    read_object,
    shown,
    whole_number,
)
from topology.controller.session import Session
from topology.controller.switchcalls import (
    all_flows,
    ask,
    change_flows,
    delete_entries,
    meter_configurations,
    send,
    session_of,
    user_meter,
)
from topology.errors import Problem

PREFIX = "/onos/"
MAXIMUM_FLOWS = 1000
"""Flows in one call."""
MAXIMUM_APPLICATIONS = 1000
"""Names of applications that are remembered for showing."""
_ADD_ATTEMPTS = 3


def _not_found(what: str, path: str, hint: str = "") -> Refused:
    return Refused(404, Problem(path, "not-found", f"{what} is not found", hint))


class _Face:
    """The calls as functions of their arguments; `blueprint` gives them their addresses."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._meter_lock = threading.Lock()
        names = (DEFAULT_APPLICATION, "org.onosproject.core", "org.onosproject.cli")
        self._applications = {onos_flows.application_bits(name): name for name in names}

    # Devices.

    def number_of(self, device: str) -> int:
        number = datapath_id(device)
        if number is None or (
            number not in self._fleet.network.graph.switches and number not in self._fleet.sessions()
        ):
            known = ", ".join(device_id(n) for n in list(self._fleet.network.graph.switches)[:20])
            raise _not_found(f"Device {shown(device)}", "deviceId", f"one of: {known}")
        return number

    def session(self, device: str) -> Session:
        return session_of(self._fleet, self.number_of(device))

    def devices(self) -> list[int]:
        """Datapath ids of all switches that are connected or in the inventory."""
        return list(dict.fromkeys([*self._fleet.network.graph.switches, *sorted(self._fleet.sessions())]))

    def connected(self) -> list[tuple[int, Session]]:
        return sorted(self._fleet.sessions().items())

    # Meters.

    def meters_shown(self, number: int, session: Session, only: int | None = None) -> list[dict[str, Any]]:
        wanted = ofp.OFPM_ALL if only is None else only
        configurations = meter_configurations(session, wanted)
        if not configurations:
            return []
        answer = ask(session, parser.OFPMeterStatsRequest(session.connection, 0, ofp.OFPM_ALL))
        counted = {entry.meter_id: entry for entry in answer}
        return [
            onos_meters.meter_shown(
                number,
                entry,
                counted.get(entry.meter_id),
                OWN_APPLICATION if entry.meter_id < FIRST_USER_METER else DEFAULT_APPLICATION,
            )
            for entry in configurations
        ]

    def one_meter(self, device: str, given: int) -> list[dict[str, Any]]:
        number, session = self.number_of(device), self.session(device)
        found = self.meters_shown(number, session, given)
        if not found and given < FIRST_USER_METER:
            found = self.meters_shown(number, session, FIRST_USER_METER - 1 + given)
        if not found:
            raise _not_found(f"Meter {given} of {device}", "meterId", f"GET /onos/v1/meters/{device}")
        return found

    def add_meter(self, device: str, body: dict[str, Any]) -> int:
        number, session = self.number_of(device), self.session(device)
        with self._meter_lock:
            for attempt in range(_ADD_ATTEMPTS):
                taken = {entry.meter_id for entry in meter_configurations(session)}
                free = next(n for n in range(FIRST_USER_METER, ofp.OFPM_MAX) if n not in taken)
                message = onos_meters.meter_message(body, number, free)
                try:
                    send(session, [message])
                    return free
                except Refused as refused:
                    # Somebody else took the number at the same moment.
                    if refused.http_status != 409 or attempt == _ADD_ATTEMPTS - 1:
                        raise
        raise AssertionError("the last attempt returns or raises")

    def delete_meter(self, device: str, given: int) -> None:
        session = self.session(device)
        meter = user_meter(session, given, "meterId")
        send(session, [parser.OFPMeterMod(session.connection, ofp.OFPMC_DELETE, 0, meter, [])])

    # Flows.

    def remember(self, application: str) -> str:
        if not application or len(application) > 200:
            raise bad_value("appId", f"appId is {shown(application)}", "a name of 1 to 200 characters")
        if application in (OWN_APPLICATION, OTHER_APPLICATION):
            raise bad_value("appId", f"{application} is the controller's own", "take another name")
        bits = onos_flows.application_bits(application)
        other = self._applications.get(bits, application)
        if other != application:
            text = f"{shown(application)} cannot be told from {shown(other)} (they share 15 bits of a hash)"
            raise bad_value("appId", text, "take another name")
        if len(self._applications) < MAXIMUM_APPLICATIONS:
            self._applications[bits] = application
        return application

    def application_name(self, application: int | str) -> str:
        if isinstance(application, str):
            return application
        return self._applications.get(application, f"app-{application:04x}")

    def flows(self, number: int, session: Session) -> list[tuple[int, int | str, Any]]:
        """Id, application and entry of every flow of a switch."""
        return [(*onos_flows.flow_id(number, entry), entry) for entry in all_flows(session)]

    def flows_shown(
        self, number: int, session: Session, keep: Callable[[int, int | str], bool] = lambda *_: True
    ) -> list[dict[str, Any]]:
        seen_ms = int(time.time() * 1000)
        return [
            onos_flows.flow_shown(number, entry, self.application_name(application), flow, seen_ms)
            for flow, application, entry in self.flows(number, session)
            if keep(flow, application)
        ]

    def flow_to_add(self, device: str, body: dict[str, Any]) -> tuple[Session, Any]:
        application = request.args.get("appId", body.get("appId", DEFAULT_APPLICATION))
        if not isinstance(application, str):
            raise bad_value("appId", f"appId is {shown(application)}", "a name")
        number, session = self.number_of(device), self.session(device)
        message = onos_flows.flow_message(
            body, number, self.remember(application), lambda given, path: user_meter(session, given, path)
        )
        return session, message

    def delete_flows(self, device: str, numbers: set[int]) -> None:
        number, session = self.number_of(device), self.session(device)
        chosen = [entry for flow, _, entry in self.flows(number, session) if flow in numbers]
        if any(is_own_cookie(entry.cookie) for entry in chosen):
            text = f"that flow of {session.name} is the controller's own"
            hint = "`/v1/meters` changes what limits, the testbed file what forwards"
            raise Refused(409, Problem("flowId", "own-flow", text, hint))
        delete_entries(session, chosen)


def _only_application() -> None:
    for name in request.args:
        if name != "appId":
            raise bad_value(name, f"the parameter {shown(name)} is not known here", "this call takes `appId`")


def _created(*parts: object) -> Response:
    location = f"{request.url_root.rstrip('/')}/onos/v1/{'/'.join(str(part) for part in parts)}"
    answer = Response(status=201)
    answer.headers["Location"] = location
    return answer


def blueprint(fleet: Fleet) -> Blueprint:
    """The routes, over the switches of `fleet`."""
    routes = Blueprint("onos", __name__, url_prefix="/onos/v1")
    face = _Face(fleet)

    @routes.get("/devices")
    def devices() -> Response:
        return jsonify({"devices": [device_shown(fleet, number) for number in face.devices()]})

    @routes.get("/devices/<device>")
    def device(device: str) -> Response:
        return jsonify(device_shown(fleet, face.number_of(device)))

    @routes.get("/devices/<device>/ports")
    def ports(device: str) -> Response:
        number = face.number_of(device)
        return jsonify({**device_shown(fleet, number), "ports": ports_shown(fleet, number)})

    @routes.get("/meters")
    def meters() -> Response:
        found = [
            meter for number, session in face.connected() for meter in face.meters_shown(number, session)
        ]
        return jsonify({"meters": found})

    @routes.get("/meters/<device>")
    def meters_of(device: str) -> Response:
        return jsonify({"meters": face.meters_shown(face.number_of(device), face.session(device))})

    @routes.get("/meters/<device>/<meter_id>")
    def meter(device: str, meter_id: str) -> Response:
        given = whole_number(meter_id, "meterId", 1, ofp.OFPM_MAX)
        return jsonify({"meters": face.one_meter(device, given)})

    @routes.post("/meters/<device>")
    def add_meter(device: str) -> Response:
        number = face.add_meter(device, read_object())
        return _created("meters", device, number)

    @routes.delete("/meters/<device>/<meter_id>")
    def delete_meter(device: str, meter_id: str) -> Response:
        face.delete_meter(device, whole_number(meter_id, "meterId", 1, ofp.OFPM_MAX))
        return Response(status=204)

    @routes.get("/flows")
    def flows() -> Response:
        found = [flow for number, session in face.connected() for flow in face.flows_shown(number, session)]
        return jsonify({"flows": found})

    @routes.get("/flows/<device>")
    def flows_of(device: str) -> Response:
        return jsonify({"flows": face.flows_shown(face.number_of(device), face.session(device))})

    @routes.get("/flows/<device>/<flow_id>")
    def flow(device: str, flow_id: str) -> Response:
        wanted = whole_number(flow_id, "flowId", 0, (1 << 63) - 1)
        number, session = face.number_of(device), face.session(device)
        return jsonify({"flows": face.flows_shown(number, session, lambda flow, _: flow == wanted)})

    @routes.get("/flows/application/<application>")
    def flows_of_application(application: str) -> Response:
        bits = onos_flows.application_bits(application)

        def keep(_: int, of: int | str) -> bool:
            return of in (application, bits)

        found = [
            flow for number, session in face.connected() for flow in face.flows_shown(number, session, keep)
        ]
        return jsonify({"flows": found})

    @routes.post("/flows/<device>")
    def add_flow(device: str) -> Response:
        _only_application()
        session, message = face.flow_to_add(device, read_object())
        change_flows(session, message)
        return _created("flows", device, message.cookie)

    @routes.post("/flows")
    def add_flows() -> Response:
        _only_application()
        entries = list_of(read_object().get("flows"), "flows", MAXIMUM_FLOWS)
        made = []
        for index, entry in enumerate(entries):
            body = object_of(entry, f"flows[{index}]")
            device = body.get("deviceId")
            if not isinstance(device, str):
                raise bad_value(
                    f"flows[{index}].deviceId", f"deviceId is {shown(device)}", "such as of:" + "0" * 16
                )
            made.append((device, *face.flow_to_add(device, body)))
        # All are looked at before the first is sent.
        for _, session, message in made:
            change_flows(session, message)
        return jsonify(
            {"flows": [{"deviceId": device, "flowId": str(message.cookie)} for device, _, message in made]}
        )

    @routes.delete("/flows/<device>/<flow_id>")
    def delete_flow(device: str, flow_id: str) -> Response:
        face.delete_flows(device, {whole_number(flow_id, "flowId", 0, (1 << 63) - 1)})
        return Response(status=204)

    @routes.delete("/flows/application/<application>")
    def delete_application(application: str) -> Response:
        bits = onos_flows.application_bits(application)
        for number, session in face.connected():
            delete_entries(session, [entry for _, of, entry in face.flows(number, session) if of == bits])
        return Response(status=204)

    @routes.delete("/flows")
    def delete_flows() -> Response:
        by_device: dict[str, set[int]] = {}
        for index, entry in enumerate(list_of(read_object().get("flows"), "flows", MAXIMUM_FLOWS)):
            body = object_of(entry, f"flows[{index}]")
            device = body.get("deviceId")
            if not isinstance(device, str):
                raise bad_value(
                    f"flows[{index}].deviceId", f"deviceId is {shown(device)}", "such as of:" + "0" * 16
                )
            flow = whole_number(body.get("flowId"), f"flows[{index}].flowId", 0, (1 << 63) - 1)
            by_device.setdefault(device, set()).add(flow)
        for device, numbers in by_device.items():
            face.delete_flows(device, numbers)
        return Response(status=204)

    return routes
