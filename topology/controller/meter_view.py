"""What `/v1/meters` shows: each meter with where it holds, whether it is in force, and its counters. Asks switches
and queues, with a deadline; changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from topology.controller import wire
from topology.controller.flows import COOKIE_METERS, COOKIE_PURPOSE_MASK, Meter, meter_cookie, meter_of
from topology.controller.metering import Metering
from topology.controller.placement import Numbered, Place
from topology.controller.queuekeeper import concerning
from topology.controller.session import Session, SwitchSilent
from topology.errors import TopologyError

if TYPE_CHECKING:
    from topology.controller.queues import QueueLimit

WORKERS = 4
QUESTION_S = 2.0
_ALL_COOKIE_BITS = 0xFFFFFFFFFFFFFFFF


@dataclass
class _Reading:
    """What a switch says about meters of ours, by id."""

    counters: dict[int, dict[str, Any]] = field(default_factory=dict)
    configured: dict[int, Meter] = field(default_factory=dict)
    flows: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    silence: str | None = None


def _read(session: Session, only: int | None, with_flows: bool) -> _Reading:
    reading = _Reading()
    try:
        for entry in session.meter_statistics(only, QUESTION_S):
            reading.counters[entry.meter_id] = wire.meter_counters(entry)
        for meter in session.meter_configurations(only, QUESTION_S):
            reading.configured[meter.id] = meter
        if with_flows:
            cookie, mask = COOKIE_METERS, COOKIE_PURPOSE_MASK
            if only is not None:
                cookie, mask = meter_cookie(only), _ALL_COOKIE_BITS
            for entry in session.flow_statistics(cookie, mask, QUESTION_S):
                number = meter_of(entry.cookie)
                flow = {
                    "table": entry.table_id,
                    "match": wire.match_fields(entry.match),
                    "packets": entry.packet_count,
                    "bytes": entry.byte_count,
                }
                reading.flows.setdefault(number or 0, []).append(flow)
    except SwitchSilent as silence:
        reading.silence = str(silence)
    return reading


class MeterView:
    """Makes the views."""

    def __init__(self, metering: Metering, sessions: Callable[[], Mapping[int, Session]]) -> None:
        self._metering, self._sessions = metering, sessions

    def one(self, name: str) -> dict[str, Any]:
        """The view of one meter. Raises MeterRefused (404)."""
        entry = self._metering.entry(name)
        return self._views([entry])[0]

    def all(self, *, flows: bool = True) -> list[dict[str, Any]]:
        """The views of all meters; `flows` false leaves out the flows that use them."""
        return self._views(list(self._metering.plan.book.state.entries.values()), flows=flows)

    def plain(self, names: Iterable[str]) -> list[dict[str, Any]]:
        """Views without counters, for which nobody is asked."""
        entries = self._metering.plan.book.state.entries
        return self._views([entries[name] for name in names if name in entries], statistics=False)

    def _views(self, entries: list[Numbered], *, statistics: bool = True, flows: bool = True) -> list[dict[str, Any]]:
        layout, sessions = self._metering.plan.layout(), self._sessions()
        places = {entry.spec.name: layout.places.get(entry.spec.name, ()) for entry in entries}
        readings: dict[tuple[int, int | None], _Reading] = {}
        single = len(entries) == 1
        if statistics:
            questions = {
                (place.switch, place.meter.id if single else None)
                for found in places.values()
                for place in found
                if place.switch is not None and place.meter is not None and _confirmed(place, sessions)
            }
            with ThreadPoolExecutor(WORKERS) as pool:
                answers = pool.map(lambda question: _read(sessions[question[0]], question[1], flows), questions)
                readings = dict(zip(questions, answers, strict=True))
        return [
            self._view(entry, places[entry.spec.name], sessions, readings, single, statistics) for entry in entries
        ]

    def _view(
        self,
        entry: Numbered,
        places: tuple[Place, ...],
        sessions: Mapping[int, Session],
        readings: Mapping[tuple[int, int | None], _Reading],
        single: bool,
        statistics: bool,
    ) -> dict[str, Any]:
        spec = entry.spec
        shown: list[dict[str, Any]] = []
        problems: list[str] = []
        pending = not places
        for place in places:
            if place.switch is None:
                pending = True
                problems.append(f"{place.direction}: {place.problem}")
            elif place.limit is not None:
                entry_, problem = self._queue(place, place.limit, statistics)
                shown.append(entry_)
                problems += [problem] if problem else []
                pending = pending or place.limit not in self._metering.keeper.in_force
            elif place.meter is not None:
                reading = readings.get((place.switch, place.meter.id if single else None), _Reading())
                shown.append(self._drop(place, place.switch, place.meter, reading))
                here = _confirmed(place, sessions)
                pending = pending or not here
                if place.switch not in sessions:
                    problems.append(f"{place.direction}: {self._name(place.switch)} is not connected")
                elif reading.silence:
                    problems.append(f"{place.direction}: {reading.silence}")
        force = places[0].force if places else "drop"
        return {
            **spec.as_body(),
            "burst": spec.burst_for(force),
            "changed": entry.changed or None,
            "in_force": force,
            "pending": pending,
            "problem": "; ".join(problems) or None,
            "entries": shown,
        }

    def _name(self, switch: int) -> str:
        known = self._metering.plan.scene().graph.switches.get(switch)
        return known.name if known else f"datapath {switch:#x}"

    def _drop(self, place: Place, switch: int, meter: Meter, reading: _Reading) -> dict[str, Any]:
        counters = reading.counters.get(meter.id, {})
        meter = reading.configured.get(meter.id, meter)
        factor = 1000 if meter.unit == "bit/s" else 1
        bands = counters.get("bands") or [{"packets": None, "bytes": None}]
        return {
            "direction": place.direction,
            "switch": self._name(switch),
            "datapath_id": switch,
            "meter_id": meter.id,
            "packets": counters.get("packets"),
            "bytes": counters.get("bytes"),
            "duration_s": counters.get("duration_s"),
            "bands": [
                {"type": "drop", "rate": meter.rate * factor, "burst": meter.burst * factor, **band}
                for band in bands
            ],
            "flows": reading.flows.get(meter.id, []),
        }

    def _queue(self, place: Place, limit: QueueLimit, statistics: bool) -> tuple[dict[str, Any], str | None]:
        keeper = self._metering.keeper
        counters: dict[str, Any] = dict.fromkeys(("packets", "bytes", "drops", "backlog_bytes"))
        counters["shares"] = []
        problems = concerning(limit, keeper.problems)
        problem = f"{place.direction}: {problems[0]}" if problems else None
        if statistics and limit in keeper.in_force:
            try:
                counters = keeper.statistics(limit)
                if error_text := counters.pop("error", None):
                    problem = f"{place.direction}: {error_text}"
            except (TopologyError, OSError, LookupError, ValueError) as error:
                problem = f"{place.direction}: its queue cannot be read: {error}"
        entry = {"direction": place.direction, "interface": limit.interface, "node": limit.node,
                 "burst": limit.burst_bits, **counters}  # fmt: skip
        return entry, problem


def _confirmed(place: Place, sessions: Mapping[int, Session]) -> bool:
    """Whether the switch said that it has the meter and all of its flows as they should be."""
    session = sessions.get(place.switch or 0)
    if session is None or place.meter is None:
        return False
    confirmed = session.confirmed
    return confirmed.get(place.meter.id) == place.meter and all(
        confirmed.get(flow.key) == flow for flow in place.flows
    )
