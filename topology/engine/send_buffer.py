"""The send buffer of vswitchd: one packet socket through which the netdev datapath sends on all ports.

Whatever waits in queues at switch ports is charged to this socket. With the kernel's default (208 KiB) a few busy
queues fill it, and then vswitchd drops on every port, also on idle ones: queues neither hold their length nor share
fairly (measured: ten clients at 20 Mbit/s, Jain's index 0.27 to 0.36; with a large buffer 1.00). vswitchd makes the
socket when it first sends a frame, so one is sent to a node, of an experimental type that every system ignores.
"""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from topology.engine import packet_sockets

SEND_BUFFER_BYTES = 256 * 2**20
"""A bound on what all queues of a testbed hold together; each queue has its own, much smaller one."""
_SO_SNDBUFFORCE = 32
_EXPERIMENTAL_TYPE = "88b5"  # IEEE 802 local experimental


def enlarge(inventory: Mapping[str, Any]) -> str | None:
    """Enlarge it; what went wrong as a text, None where all is well or the datapath is the kernel's. Idempotent."""
    if inventory["core"]["datapath"] != "netdev":
        return None
    rundir = Path(inventory["core"]["ovs_rundir"])
    problem: str | None = "it does not run"
    try:
        if (pid := packet_sockets.vswitchd_pid(rundir)) is not None:
            if _enlarge(pid):
                return None
            problem = _send_one_frame(inventory, rundir)
            if problem is None and not _enlarge(pid):
                problem = "it has no packet socket of its own for sending"
    except OSError as error:
        problem = str(error)
    if problem is None:
        return None
    return f"the send buffer of Open vSwitch ({rundir}) cannot be enlarged, queues share unevenly: {problem}"


def _enlarge(pid: int) -> int:
    count = 0
    for packet in packet_sockets.borrowed(pid):
        if packet.getsockname()[0] == "":  # bound to no interface: the one that sends
            if packet.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) < SEND_BUFFER_BYTES:
                packet.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, SEND_BUFFER_BYTES)
            count += 1
    return count


def _send_one_frame(inventory: Mapping[str, Any], rundir: Path) -> str | None:
    macs = {node["name"]: node["mac"] for node in inventory["nodes"]}
    for switch in inventory["switches"]:
        for port in switch["ports"]:
            if port["peer"] in macs:
                mac = macs[port["peer"]].replace(":", "")
                packet = mac + mac + _EXPERIMENTAL_TYPE + "00" * 46
                target = f"{rundir}/{switch['bridge']}.mgmt"
                words = f"in_port=controller packet={packet} actions=output:{port['number']}"
                command = ["ovs-ofctl", "-O", "OpenFlow13", "packet-out", target, words]
                try:
                    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
                except subprocess.TimeoutExpired:
                    return f"`{' '.join(command[:5])}` did not end in 10 s"
                return f"`{' '.join(command[:5])}`: {done.stderr.strip()}" if done.returncode else None
    return "no switch has a port with a node"
