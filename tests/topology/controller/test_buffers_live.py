"""The socket buffers of a vswitchd that is killed and started anew, with the controller and real switches."""

from __future__ import annotations

import socket

import pytest

from tests.topology.controller.lab import Lab, ring, until
from topology.engine import packet_sockets
from topology.engine.send_buffer import SEND_BUFFER_BYTES

pytestmark = pytest.mark.live


def sizes(lab: Lab) -> dict[str, list[int]]:
    """Receive buffers of the sockets at ports, send buffers of the one that sends for all."""
    pid = packet_sockets.vswitchd_pid(lab.folder)
    assert pid == lab.processes["vswitchd"].pid
    found: dict[str, list[int]] = {"receive": [], "send": []}
    for packet in packet_sockets.borrowed(pid):
        if packet.getsockname()[0] == "":
            found["send"].append(packet.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF))
        else:
            found["receive"].append(packet.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF))
    return found


def large(lab: Lab) -> bool:
    found = sizes(lab)
    ports = sum(len(switch.ports) for switch in lab.plan.switches)
    assert len(found["receive"]) >= ports and len(found["send"]) == 1, found
    return min(found["receive"]) >= packet_sockets.RECEIVE_BUFFER_BYTES and found["send"][0] >= SEND_BUFFER_BYTES


def test_buffers_are_large_again_after_a_restart_of_vswitchd() -> None:
    with Lab(ring("t-core-buffers", 3)) as lab:
        small = sizes(lab)["receive"]
        assert max(small) < packet_sockets.RECEIVE_BUFFER_BYTES, "the kernel's own, before anybody did something"
        lab.start_controller()
        until("the buffers are large", lambda: large(lab), 10)
        lab.end("vswitchd", kill=True)
        lab.start_vswitchd()
        lab.wait_installed()
        until("the buffers are large again", lambda: large(lab), 10)
        assert not lab.status()["errors"], lab.status()["errors"]
