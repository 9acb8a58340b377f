"""FL traffic has one way: through the switches. The management bridge carries nothing from node to node."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from cohortnet.probe import ping_all
from tests.links import set_link
from tests.system.conftest import Raise
from topology.engine import execution

pytestmark = pytest.mark.live


@pytest.mark.parametrize("runtime", ["namespace", "docker"])
def test_with_the_uplink_down_no_client_reaches_a_server_by_any_path(testbed: Raise, runtime: str) -> None:
    inventory = testbed(f"t-iso-{runtime}", "--cohorts", "1", "--clients", "3", "--campuses", "2", "--runtime", runtime)
    assert all(ping_all(inventory).values())
    nodes = {node["name"]: node for node in inventory["nodes"]}
    host = inventory["network"]["management_host"]
    with socket.create_server(("0.0.0.0", 0)) as service:  # a service of the host is no part of the testbed
        knock = f"import socket; socket.create_connection(('{host}', {service.getsockname()[1]}), 2)"
        python = sys.executable if runtime == "namespace" else "python"
        done = execution.execute(inventory, "fc.10", [python, "-c", knock], tty=False, timeout_s=20)
        assert done.returncode != 0 and "timed out" in done.stderr, done
    forward = Path("/proc/sys/net/ipv4/ip_forward")
    before = forward.read_text()
    set_link(inventory, "aggsw10", "satsw11", False)
    try:
        forward.write_text("1")  # Docker sets it on many hosts: the host must not become a detour
        for client in ("fc.10", "fc.11", "fc.12"):
            for target in (nodes["fed.1"]["address"], nodes["fed.1"]["management_address"]):
                ping = execution.execute(
                    inventory, client, ["ping", "-c", "1", "-W", "1", target], tty=False, timeout_s=10
                )
                assert ping.returncode != 0, f"{client} reaches {target}"
        if runtime == "namespace":  # a container has no right to change its routes; a namespace's root has
            for target in (nodes["fed.1"]["address"], nodes["fed.1"]["management_address"]):
                route = ["ip", "route", "replace", f"{target}/32", "via", host]
                assert execution.execute(inventory, "fc.10", route, tty=False, timeout_s=10).returncode == 0
                ping = execution.execute(
                    inventory, "fc.10", ["ping", "-c", "1", "-W", "1", target], tty=False, timeout_s=10
                )
                assert ping.returncode != 0, f"fc.10 reaches {target} by the host"
                route = ["ip", "route", "del", f"{target}/32", "via", host]
                assert execution.execute(inventory, "fc.10", route, tty=False, timeout_s=10).returncode == 0
    finally:
        forward.write_text(before)
        set_link(inventory, "aggsw10", "satsw11", True)
    matrix = ping_all(inventory, wait_s=3.0)
    assert all(matrix.values()), [pair for pair, answered in matrix.items() if not answered]
