"""What REST faces for other controllers' users ask of a switch: questions, changes, and OpenFlow errors as
answers.

What users install by these faces is theirs: it is no part of the desired state, and a switch that restarts
loses it. In turn no face changes what the controller itself keeps: flows with its cookie, meters below
100000.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from os_ken.ofproto import ofproto_v1_3 as ofp
from os_ken.ofproto import ofproto_v1_3_parser as parser

from topology.controller import wire
from topology.controller.fleet import QUESTION_S, Fleet
from topology.controller.matching import FIRST_USER_METER, canonical, is_own_cookie
from topology.controller.refused import Refused, bad_value
from topology.controller.session import FLOW_S, Session, SwitchSilent
from topology.errors import Problem

ALL_METERS = ofp.OFPM_ALL

_STATUS = {
    (ofp.OFPET_METER_MOD_FAILED, ofp.OFPMMFC_METER_EXISTS): 409,
    (ofp.OFPET_METER_MOD_FAILED, ofp.OFPMMFC_OUT_OF_METERS): 409,
    (ofp.OFPET_METER_MOD_FAILED, ofp.OFPMMFC_UNKNOWN_METER): 404,
    (ofp.OFPET_FLOW_MOD_FAILED, ofp.OFPFMFC_TABLE_FULL): 409,
    (ofp.OFPET_BAD_REQUEST, ofp.OFPBRC_BAD_PORT): 404,
}
"""HTTP status of an OpenFlow error; 400 for all others: a switch refuses what it was sent, and the caller
wrote that."""

_HINTS = {
    "OFPMMFC_METER_EXISTS": "change it with modify, or take another id",
    "OFPMMFC_INVALID_METER": f"make the meter first; ids of users begin at {FIRST_USER_METER}",
    "OFPMMFC_UNKNOWN_METER": "list the meters to see which there are",
    "OFPBMC_BAD_PREREQ": "name what the field stands in: eth_type before addresses, ip_proto before ports",
}


def session_of(fleet: Fleet, datapath_id: int) -> Session:
    """The session of a connected switch.

    Raises:
        Refused: 404 where no switch has that datapath id, 503 where it is not connected.
    """
    session = fleet.sessions().get(datapath_id)
    if session is not None:
        return session
    known = fleet.network.graph.switches
    if datapath_id in known:
        name = fleet.name_of(datapath_id)
        raise Refused(
            503,
            Problem(
                name, "silent-switch", f"{name} is not connected", "`/v1/topology` shows who is connected"
            ),
        )
    names = ", ".join(f"{number} ({switch.name})" for number, switch in list(known.items())[:20])
    raise Refused(
        404,
        Problem("dpid", "unknown-switch", f"no switch has datapath id {datapath_id:#x}", f"one of: {names}"),
    )


def exchange(session: Session, messages: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Send os-ken messages, of which the last is answered; gives entries of the answer, and OpenFlow errors.

    Raises:
        Refused: 503 where the switch does not answer in time.
    """
    try:
        return session.exchange(messages, QUESTION_S + len(messages) * FLOW_S)
    except SwitchSilent as silence:
        hint = "`/v1/topology` shows who is connected"
        raise Refused(503, Problem(session.name, "silent-switch", str(silence), hint)) from None


def _refuse(session: Session, errors: Sequence[Any]) -> None:
    if not errors:
        return
    status = _STATUS.get((errors[0].type, errors[0].code), 400)
    texts = list(dict.fromkeys(wire.describe_error(error) for error in errors))[:5]
    hint = next((text for name, text in _HINTS.items() if any(name in text_ for text_ in texts)), "")
    problem = Problem(session.name, "openflow-error", f"{session.name} refused it: {'; '.join(texts)}", hint)
    raise Refused(status, problem)


def ask(session: Session, request: Any) -> list[Any]:
    """Entries of the answer to a statistics request. Raises Refused, also for an OpenFlow error."""
    entries, errors = exchange(session, [request])
    _refuse(session, errors)
    return entries


def send(session: Session, messages: Sequence[Any]) -> None:
    """Send changes and wait until they are done. Raises Refused where the switch refuses one."""
    if messages:
        _, errors = exchange(session, [*messages, parser.OFPBarrierRequest(session.connection)])
        _refuse(session, errors)


# Flows.


def flows_matching(session: Session, change: Any) -> list[Any]:
    """Entries that a change (an os-ken flow message, read as a filter) selects, not looking at priority."""
    request = parser.OFPFlowStatsRequest(
        session.connection,
        0,
        change.table_id,
        change.out_port or ofp.OFPP_ANY,
        change.out_group or ofp.OFPG_ANY,
        change.cookie if change.cookie_mask else 0,
        change.cookie_mask,
        change.match,
    )
    return ask(session, request)


def _same_place(change: Any, entry: Any) -> bool:
    return entry.priority == change.priority and canonical(entry.match) == canonical(change.match)


def _own_problem(session: Session, change: Any) -> Refused:
    where = f"table {change.table_id}, priority {change.priority}"
    return Refused(
        409,
        Problem(
            session.name,
            "own-flow",
            f"{session.name} has a flow of the controller itself in that place ({where})",
            "choose another priority; `/v1/meters` changes what limits, the testbed file what forwards",
        ),
    )


def _aimed(session: Session, change: Any, entry: Any, command: int) -> Any:
    """The change as it concerns exactly one entry."""
    return parser.OFPFlowMod(
        session.connection,
        cookie=entry.cookie,
        cookie_mask=0xFFFFFFFFFFFFFFFF,
        table_id=entry.table_id,
        command=command,
        priority=entry.priority,
        buffer_id=ofp.OFP_NO_BUFFER,
        out_port=ofp.OFPP_ANY,
        out_group=ofp.OFPG_ANY,
        flags=0 if change is None else change.flags,
        match=parser.OFPMatch(**dict(entry.match.items())),
        instructions=[] if change is None else change.instructions,
    )


def change_flows(session: Session, change: Any) -> int:
    """Carry out a flow message of a user's without touching the controller's own flows; gives how many
    entries it went to.

    Additions go as they are. What changes or deletes every flow that matches is asked for first and then
    sent for each flow that is not the controller's.

    Raises:
        Refused: 409 where it aims at one flow, and that is the controller's own; what the switch refuses.
    """
    command = change.command
    if command == ofp.OFPFC_ADD:
        request = parser.OFPFlowStatsRequest(
            session.connection, 0, change.table_id, ofp.OFPP_ANY, ofp.OFPG_ANY, 0, 0, change.match
        )
        for entry in ask(session, request):
            if is_own_cookie(entry.cookie) and _same_place(change, entry):
                raise _own_problem(session, change)
        send(session, [change])
        return 1
    strict = command in (ofp.OFPFC_MODIFY_STRICT, ofp.OFPFC_DELETE_STRICT)
    deletes = command in (ofp.OFPFC_DELETE, ofp.OFPFC_DELETE_STRICT)
    entries = flows_matching(session, change)
    if strict:
        entries = [entry for entry in entries if _same_place(change, entry)]
        if any(is_own_cookie(entry.cookie) for entry in entries):
            raise _own_problem(session, change)
    aimed = ofp.OFPFC_DELETE_STRICT if deletes else ofp.OFPFC_MODIFY_STRICT
    users = [entry for entry in entries if not is_own_cookie(entry.cookie)]
    send(session, [_aimed(session, None if deletes else change, entry, aimed) for entry in users])
    return len(users)


def delete_entries(session: Session, entries: Sequence[Any]) -> None:
    """Delete exactly these entries of flow statistics. Raises Refused."""
    send(session, [_aimed(session, None, entry, ofp.OFPFC_DELETE_STRICT) for entry in entries])


def all_flows(session: Session) -> list[Any]:
    """Entries of all flows of a switch. Raises Refused."""
    return ask(session, wire.flow_statistics_request(session.connection))


# Meters.


def meter_configurations(session: Session, meter_id: int = ALL_METERS) -> list[Any]:
    """Configurations of one meter or all; none where there is no such meter. Raises Refused."""
    request = parser.OFPMeterConfigStatsRequest(session.connection, 0, meter_id)
    entries, errors = exchange(session, [request])
    unknown = (ofp.OFPET_METER_MOD_FAILED, ofp.OFPMMFC_UNKNOWN_METER)
    if any((error.type, error.code) == unknown for error in errors):
        return []
    _refuse(session, errors)
    return entries


def user_meter(session: Session, given: int, path: str = "meter_id") -> int:
    """The number in the switch of the meter that a user calls `given`.

    Users' meters have numbers from 100000 up. Many scripts count from 1: where a lower number is given it
    stands for the n-th of the users' numbers (1 is 100000, 2 is 100001).

    Raises:
        Refused: 409 where the controller itself has a meter of that very number on that switch: it could be
            mistaken for the user's; 400 where it is no number of a meter.
    """
    if not 1 <= given <= ofp.OFPM_MAX:
        raise bad_value(path, f"{given} is no id of a meter", f"a number from 1 to {ofp.OFPM_MAX}")
    if given >= FIRST_USER_METER:
        return given
    number = FIRST_USER_METER - 1 + given
    if meter_configurations(session, given):
        raise Refused(
            409,
            Problem(
                path,
                "own-meter",
                f"meter {given} of {session.name} is the controller's own",
                f"say {number}, or use `/v1/meters` to change what the controller keeps",
            ),
        )
    return number
