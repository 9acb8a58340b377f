"""What the controller says of meters, flows and ports, as tables for people. Pure: data in, Rich tables out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.table import Table

from topology.units import format_rate, format_size

_PURPOSES = {1: "forwarding", 2: "meter"}


def describe_target(target: Mapping[str, Any]) -> str:
    """What a meter limits: "cohort 1", "port swCampus1:11"."""
    if target["kind"] == "port":
        return f"port {target['switch']}:{target['port']}"
    return f"{target['kind']} {target.get('name') or target.get('address') or ''}".strip()


def _amount(value: float | None, unit: str, *, rate: bool) -> str:
    if value is None:
        return ""
    if unit == "packet/s":
        return f"{value:g} packet/s" if rate else f"{value:g} packets"
    text = format_rate(round(value))
    return text if rate else text.removesuffix("/s")


def _place(entry: Mapping[str, Any]) -> str:
    if entry.get("meter_id") is not None:
        return f"{entry['switch']} meter {entry['meter_id']}"
    return f"{entry.get('node') or 'core'}:{entry.get('interface')}"


def _sum(entries: Iterable[Mapping[str, Any]], key: str) -> int:
    return sum(int(entry.get(key) or 0) for entry in entries)


def _dropped(entries: Sequence[Mapping[str, Any]]) -> int:
    # A meter counts what its drop band took, a queue what did not fit into it.
    return _sum(entries, "drops") + sum(_sum(entry.get("bands") or (), "packets") for entry in entries)


def state(meter: Mapping[str, Any]) -> str:
    """Which of the two ways is in force, that none is yet, and what stands in its way."""
    text = f"{meter['in_force']}, pending" if meter.get("pending") else str(meter["in_force"])
    return f"{text}: {meter['problem']}" if meter.get("problem") else text


def meter_line(meter: Mapping[str, Any]) -> str:
    """A meter in one line, for the answer to setting it."""
    places = ", ".join(dict.fromkeys(_place(entry) for entry in meter.get("entries") or ()))
    rate = _amount(meter["rate"], meter["unit"], rate=True)
    burst = _amount(meter.get("burst"), meter["unit"], rate=False)
    return (f"{meter['name']}: {rate} {meter['direction']} on {describe_target(meter['target'])}, burst {burst}; "
            f"in force: {state(meter)}" + (f" at {places}" if places else ""))  # fmt: skip


def meter_table(meters: Sequence[Mapping[str, Any]]) -> Table:
    """Meters with rate, burst, which of drop and queue is in force, where, and what passed and was dropped."""
    table = _table(f"{len(meters)} meters", ("meter", "limits", "direction", "rate", "burst", "in force", "where",
                                             "packets", "bytes", "dropped"))  # fmt: skip
    for meter in meters:
        entries = list(meter.get("entries") or ())
        table.add_row(
            meter["name"], describe_target(meter["target"]), meter["direction"],
            _amount(meter["rate"], meter["unit"], rate=True), _amount(meter.get("burst"), meter["unit"], rate=False),
            state(meter), ", ".join(dict.fromkeys(_place(entry) for entry in entries)),
            str(_sum(entries, "packets")), format_size(_sum(entries, "bytes")), str(_dropped(entries)),
        )  # fmt: skip
    return table


def flow_tables(answer: Mapping[str, Any], connected: Mapping[str, bool], fail_mode: str) -> list[Table]:
    """One table a switch: its flows in the order in which packets meet them."""
    tables = []
    for switch in answer["switches"]:
        title = f"{_title(switch, connected, fail_mode)}, {len(switch['flows'])} flows"
        table = _table(title, ("table", "priority", "match", "does", "for", "packets", "bytes"))
        for flow in sorted(switch["flows"], key=lambda flow: (flow["table"], -flow["priority"])):
            match = " ".join(f"{key}={_value(value)}" for key, value in flow["match"].items()) or "any"
            table.add_row(str(flow["table"]), str(flow["priority"]), match, _action(flow), _purpose(flow),
                          str(flow["packets"]), format_size(flow["bytes"]))  # fmt: skip
        tables.append(table)
    return tables


def _value(value: Any) -> str:
    return "/".join(str(part) for part in value) if isinstance(value, list) else str(value)


def _action(flow: Mapping[str, Any]) -> str:
    does = [f"meter {flow['meter']}"] if flow.get("meter") is not None else []
    does += [f"output {port}" for port in flow["outputs"]]
    does += [f"table {flow['goto']}"] if flow.get("goto") is not None else []
    does += [str(flow["other"])] if flow.get("other") else []
    return ", ".join(does) or "drop"


def _purpose(flow: Mapping[str, Any]) -> str:
    if flow.get("purpose"):
        return str(flow["purpose"])
    # 24 bits of ours, 8 bits of purpose, 32 bits of layout (docs/architecture.md).
    purpose = _PURPOSES.get((int(str(flow["cookie"]), 0) >> 32) & 0xFF, "ours")
    return purpose if flow.get("ours") or purpose == "meter" else "others"


def port_tables(answer: Mapping[str, Any], connected: Mapping[str, bool], fail_mode: str) -> list[Table]:
    """One table a switch: its ports, what is behind them and their counters."""
    tables = []
    for switch in answer["switches"]:
        table = _table(_title(switch, connected, fail_mode),
                       ("port", "name", "to", "state", "in packets", "in bytes", "in drops", "out packets",
                        "out bytes", "out drops"))  # fmt: skip
        for port in switch["ports"]:
            counters = port.get("counters") or {}
            counts = [
                format_size(counters[f"{way}_bytes"]) if what == "bytes" else str(counters[f"{way}_{what}"])
                for way in ("rx", "tx") for what in ("packets", "bytes", "dropped")
            ] if counters else [""] * 6  # fmt: skip
            peer = port["peer"] or port["peer_kind"]
            if port.get("peer_port"):
                peer = f"{peer}:{port['peer_port']}"
            table.add_row(str(port["number"]), port["name"], peer, port["state"], *counts)
        tables.append(table)
    return tables


def _title(switch: Mapping[str, Any], connected: Mapping[str, bool], fail_mode: str) -> str:
    name = switch["switch"]
    state = "connected" if connected.get(name, True) else "NOT CONNECTED to the controller"
    return f"{name} (0x{switch['datapath_id']:016x}): {state}, fail mode {fail_mode}"


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
