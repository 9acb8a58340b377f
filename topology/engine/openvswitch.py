"""The testbed's own Open vSwitch: its database, its two daemons in the core namespace, all bridges in one transaction
and all ports in another.

Owns the folder `<state>/ovs`. The operations on the database (`ovsdb`) are built by pure functions, so no list of
arguments is ever too long. Meets no other Open vSwitch of the machine: neither its database nor its namespace.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from topology.engine import launch, ovsdb, packet_sockets, programs
from topology.errors import TopologyError
from topology.plan import Plan

CONTROLLER = "tcp:127.0.0.1:6653"
_SCHEMAS = ("/usr/share/openvswitch/vswitch.ovsschema", "/usr/local/share/openvswitch/vswitch.ovsschema")
_LEAST_TSO_VERSION = (2, 14)


def folder(plan: Plan) -> Path:
    """The run folder of the testbed's Open vSwitch."""
    return plan.state / "ovs"


def environment(plan: Plan) -> dict[str, str]:
    """What `ovs-ofctl`, `ovs-appctl` and `ovs-vsctl` need to reach this Open vSwitch."""
    place = str(folder(plan))
    return {"OVS_RUNDIR": place, "OVS_DBDIR": place, "OVS_LOGDIR": str(plan.logs), "OVS_SYSCONFDIR": place}


def check() -> list[str]:
    """What is missing of Open vSwitch beside its programs, as texts with what to install."""
    if not any(Path(path).exists() for path in _SCHEMAS):
        return [f"no database schema at {_SCHEMAS[0]}; install the package openvswitch-common"]
    return []


def start(plan: Plan, datapath: str, *, tso: bool) -> None:
    """Make the database with all bridges, start both daemons in the core namespace, return when they answer.

    The bridges come before any interface does: for each, vswitchd looks at all there are. Raises TopologyError.
    """
    place = folder(plan)
    place.mkdir(parents=True, exist_ok=True)
    database, unix = place / "conf.db", place / "db.sock"
    schema = next(path for path in _SCHEMAS if Path(path).exists())
    programs.run(["ovsdb-tool", "create", str(database), schema], "Open vSwitch database")
    server = ["ovsdb-server", str(database), f"--remote=punix:{unix}", f"--pidfile={place}/ovsdb-server.pid",
              f"--log-file={plan.logs}/ovsdb-server.log"]  # fmt: skip
    _daemon(plan, server)
    with ovsdb.Database(unix) as connection:  # before vswitchd starts: it reads these once
        connection.transact([first_row(tso), *bridge_operations(plan, datapath)])
    start_switch(plan)


def start_switch(plan: Plan) -> None:
    """Start vswitchd alone, also anew after its end: it makes what the database says. Raises TopologyError."""
    place = folder(plan)
    _daemon(plan, ["ovs-vswitchd", f"unix:{place}/db.sock", f"--pidfile={place}/ovs-vswitchd.pid",
                   f"--log-file={plan.logs}/ovs-vswitchd.log"])  # fmt: skip


def _daemon(plan: Plan, command: list[str]) -> None:
    # `--detach` returns when the daemon is ready.
    command = [*command, "-vconsole:off", "-vsyslog:off", "--detach", "--no-chdir"]
    env = {**os.environ, **environment(plan)}
    programs.run(launch.in_core(plan.testbed, command, namespace=plan.core_namespace), "Open vSwitch", env=env)


def first_row(tso: bool) -> dict[str, Any]:
    """The operation that makes the database's root row. Pure."""
    config = [["userspace-tso-enable", "true"]] if tso else []
    return {"op": "insert", "table": "Open_vSwitch", "row": {"other_config": ["map", config]}}


def bridge_operations(plan: Plan, datapath: str) -> list[dict[str, Any]]:
    """All bridges, each with its internal port only; `datapath` is `netdev` or `system`. Pure."""
    operations: list[dict[str, Any]] = []
    for number, switch in enumerate(plan.switches):
        real = ["map", [["name", switch.name]]]
        interface = {"name": switch.bridge, "type": "internal", "external_ids": real}
        operations.append({"op": "insert", "table": "Interface", "uuid-name": f"i{number}", "row": interface})
        port = {"name": switch.bridge, "interfaces": ["named-uuid", f"i{number}"]}
        operations.append({"op": "insert", "table": "Port", "uuid-name": f"p{number}", "row": port})
        row = {
            "name": switch.bridge, "datapath_type": datapath, "ports": ["named-uuid", f"p{number}"],
            "protocols": ["set", ["OpenFlow13"]], "fail_mode": plan.fail_mode,
            "other_config": ["map", [["datapath-id", f"{switch.datapath_id:016x}"], ["disable-in-band", "true"]]],
            "external_ids": ["map", [["cohortnet.testbed", plan.testbed]]],
        }  # fmt: skip
        operations.append({"op": "insert", "table": "Bridge", "uuid-name": f"b{number}", "row": row})
    bridges = [["named-uuid", f"b{number}"] for number in range(len(plan.switches))]
    changes: list[list[Any]] = [["bridges", "insert", ["set", bridges]], ["next_cfg", "+=", 1]]
    operations.append(ovsdb.mutation("Open_vSwitch", [], changes))
    return operations


def port_operations(plan: Plan) -> list[dict[str, Any]]:
    """What gives all bridges their ports. Pure."""
    # Without it vswitchd deletes, at each of its starts, whatever queueing discipline it finds on a port.
    noop = {"op": "insert", "table": "QoS", "uuid-name": "noop", "row": {"type": "linux-noop"}}
    operations: list[dict[str, Any]] = [noop]
    for number, switch in enumerate(plan.switches):
        ports: list[list[str]] = []
        for position, port in enumerate(switch.ports):
            row: dict[str, Any] = {"name": port.interface, "external_ids": ["map", [["name", port.name]]],
                                   "ofport_request": port.number}  # fmt: skip
            operations.append({"op": "insert", "table": "Interface", "uuid-name": f"i{number}_{position}", "row": row})
            row = {"name": port.interface, "interfaces": ["named-uuid", f"i{number}_{position}"],
                   "qos": ["named-uuid", "noop"]}  # fmt: skip
            operations.append({"op": "insert", "table": "Port", "uuid-name": f"p{number}_{position}", "row": row})
            ports.append(["named-uuid", f"p{number}_{position}"])
        changes: list[list[Any]] = [["ports", "insert", ["set", ports]]]
        operations.append(ovsdb.mutation("Bridge", [["name", "==", switch.bridge]], changes))
    return operations


def controller_operations(plan: Plan) -> list[dict[str, Any]]:
    """What tells all bridges where their controller is. Pure."""
    operations: list[dict[str, Any]] = []
    for number, switch in enumerate(plan.switches):
        row = {"target": CONTROLLER, "connection_mode": "out-of-band", "max_backoff": 1000, "inactivity_probe": 10_000}
        operations.append({"op": "insert", "table": "Controller", "uuid-name": f"c{number}", "row": row})
        operations.append(ovsdb.mutation("Bridge", [["name", "==", switch.bridge]],
                                  [["controller", "insert", ["named-uuid", f"c{number}"]]]))  # fmt: skip
    return operations


def add_ports(plan: Plan) -> None:
    """Give all bridges their ports, wait until vswitchd has taken them, and check each. Raises TopologyError naming the
    port. A controller that is not ours is named with them: a switch speaks to it when it has its ports.
    """
    external = plan.controller == "external"
    expected = {port.interface: port.number for switch in plan.switches for port in switch.ports}
    with ovsdb.Database(folder(plan) / "db.sock") as connection:
        connection.carry_out([*port_operations(plan), *(controller_operations(plan) if external else [])])
        rows = connection.transact(
            [{"op": "select", "table": "Interface", "where": [], "columns": ["name", "ofport", "error"]}]
        )
    for row in rows[0]["rows"]:
        error = row["error"] if isinstance(row["error"], str) else ""
        number = expected.get(row["name"])
        if error or (number is not None and row["ofport"] != number):
            reason = error or f"it has number {row['ofport']}"
            raise TopologyError(f"Open vSwitch refused port {row['name']!r}: {reason} (wanted {number}); see "
                                f"{plan.logs}/ovs-vswitchd.log")  # fmt: skip


def connect(plan: Plan) -> None:
    """Let all bridges connect to the controller, which has to listen by now: a switch that is refused, or hears
    nothing, waits a second or two before it tries again. Raises TopologyError.
    """
    with ovsdb.Database(folder(plan) / "db.sock") as connection:
        connection.transact(controller_operations(plan))


def wake(plan: Plan) -> None:
    """Make vswitchd go through its work once. While it waits for a controller's hello it does not look at that
    connection (3.1 and others), and would see the answer up to half a second later, when something else wakes it.
    """
    pid = vswitchd_pid(plan)
    if pid is not None:
        path = folder(plan) / f"ovs-vswitchd.{pid}.ctl"
        with suppress(OSError, TopologyError), ovsdb.Database(path, timeout_s=1.0) as control:
            control.call("version", [])


def enlarge_buffers(plan: Plan) -> int:
    """Give vswitchd's packet sockets larger receive buffers (`packet_sockets`); gives back how many sockets have one,
    0 where the kernel does not allow it. The controller does so again when a vswitchd has started anew.
    """
    pid = vswitchd_pid(plan)
    if pid is None:
        return 0
    with suppress(OSError):
        return packet_sockets.enlarge_receive(pid)
    return 0


def vswitchd_pid(plan: Plan) -> int | None:
    """The pid of the testbed's vswitchd, None where it has none."""
    return packet_sockets.vswitchd_pid(folder(plan))


def supports_tso(version: str | None) -> bool:
    """Whether an Open vSwitch of that version ("3.1.0") hands on large segments in its userspace datapath. Pure."""
    numbers = re.findall(r"\d+", version or "")
    return tuple(int(number) for number in numbers[:2]) >= _LEAST_TSO_VERSION
