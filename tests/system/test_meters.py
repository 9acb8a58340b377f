"""Meters as users set them, on real testbeds: in the file, at the command line, at the prompt, by script, and as
docs/meters.md shows it."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cohortnet.controller_client import Controller, controller_url
from cohortnet.prompt import Prompt
from tests.system.conftest import REPOSITORY, Raise, run
from tests.system.leftovers import wait_for_none
from tests.topology.engine import lab

pytestmark = pytest.mark.live

LIMIT_BPS = 20_000_000
SETTLE_S = 3
"""The first burst (a second of the rate) is spent by then."""


def within(inventory: dict[str, Any], node: str, *argv: str) -> list[str]:
    """A command in the network namespace of a node, outside of its limits of processor time."""
    pid = next(entry["pid"] for entry in inventory["nodes"] if entry["name"] == node)
    return ["nsenter", f"--net=/proc/{pid}/ns/net", "--", *argv]


def total_goodput_bps(
    inventory: dict[str, Any], clients: list[str], server: str, direction: str, seconds: int = 8
) -> float:
    """TCP goodput (cubic) of all clients together, one flow each, at the receivers, once the burst is spent."""
    address = next(entry["address"] for entry in inventory["nodes"] if entry["name"] == server)
    ports = {client: str(5400 + number) for number, client in enumerate(clients)}
    with ExitStack() as stack:
        for port in ports.values():
            process = stack.enter_context(
                subprocess.Popen(within(inventory, server, "iperf3", "-s", "-1", "-p", port), stdout=subprocess.DEVNULL)
            )
            stack.callback(process.kill)
        deadline = time.monotonic() + 10
        while True:
            listening = subprocess.check_output(within(inventory, server, "ss", "-Hltn"), text=True)
            if all(f":{port} " in listening for port in ports.values()):
                break
            assert time.monotonic() < deadline, "iperf3 does not listen"
            time.sleep(0.05)

        def send(client: str) -> float:
            argv = within(inventory, client, "iperf3", "-c", address, "-p", ports[client], "-t", str(seconds),
                          "-O", str(SETTLE_S), "-C", "cubic", "-J")  # fmt: skip
            argv += ["-R"] if direction == "down" else []
            done = subprocess.run(argv, capture_output=True, text=True, timeout=seconds + 30, check=False)
            assert done.returncode == 0, done.stdout[-500:] + done.stderr
            return float(json.loads(done.stdout)["end"]["sum_received"]["bits_per_second"])

        with ThreadPoolExecutor(len(clients)) as pool:
            total = sum(pool.map(send, clients))
    print(f"{direction}: {len(clients)} clients {total / 1e6:.2f} Mbit/s")
    return total


def meter(*arguments: str) -> Any:
    """`cohortnet meter ... --json`, as data."""
    return json.loads(run("meter", *arguments, "--json").stdout)["meters"]


def ids(meters: list[dict[str, Any]]) -> dict[str, list[tuple[str, int]]]:
    return {entry["name"]: [(e["switch"], e["meter_id"]) for e in entry["entries"]] for entry in meters}


def in_switches(inventory: dict[str, Any]) -> list[str]:
    """All meters that the switches have, asked of them and not of the controller."""
    found = []
    for switch in inventory["switches"]:
        argv = ["ovs-ofctl", "-O", "OpenFlow13", "dump-meters", switch["bridge"]]
        env = {**os.environ, "OVS_RUNDIR": inventory["core"]["ovs_rundir"]}
        done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=True, env=env)
        lines = [line for line in done.stdout.splitlines() if line.startswith("meter=")]
        found += [f"{switch['name']} {line.split()[0]}" for line in lines]
    return found


def flows(inventory: dict[str, Any]) -> set[str]:
    """All flows without their counters."""
    answer = Controller(controller_url(inventory)).flows()
    gone = ("packets", "bytes", "seconds")
    return {
        json.dumps([switch["switch"], {key: value for key, value in flow.items() if key not in gone}], sort_keys=True)
        for switch in answer["switches"]
        for flow in switch["flows"]
    }


def test_meters_of_the_file_are_in_force_when_up_returns(testbed: Raise, tmp_path: Path) -> None:
    name = "t-user-file"
    file = tmp_path / "metered.yaml"
    file.write_text(json.dumps({
        "name": name, "runtime": "namespace", "preset": {"cohorts": 2, "clients": 8, "campuses": 2}, "publish": [],
        "controller": {"rest_host_port": lab.free_port()},
        "meters": [
            {"name": "all", "cohort": "1", "rate": "20 Mbit/s"},
            {"name": "one", "client": "fc.14", "direction": "up", "rate": "5 Mbit/s", "burst": "5 Mbit"},
            {"name": "gate", "switch": "swCampus2", "port": 5, "direction": "up", "rate": "500 packet/s"},
        ],
    }))  # fmt: skip
    inventory = testbed(name, str(file))
    assert [entry["name"] for entry in inventory["meters"]] == ["all", "one", "gate"]
    shown = {entry["name"]: entry for entry in meter("show", "--testbed", name)}
    assert set(shown) == {"all", "one", "gate"} and not any(entry["pending"] for entry in shown.values())
    assert (shown["all"]["rate"], shown["all"]["burst"], shown["all"]["in_force"]) == (LIMIT_BPS, LIMIT_BPS, "drop")
    assert (shown["gate"]["unit"], shown["gate"]["rate"]) == ("packet/s", 500)
    clients = ["fc.10", "fc.11", "fc.12", "fc.13"]
    for direction in ("up", "down"):
        found = total_goodput_bps(inventory, clients, "fed.1", direction)
        assert abs(found - LIMIT_BPS) <= 0.05 * LIMIT_BPS, f"{direction}: {found:.0f} bit/s, expected {LIMIT_BPS} +-5 %"
    found = total_goodput_bps(inventory, ["fc.14"], "fed.2", "up")
    assert abs(found - 5e6) <= 0.05 * 5e6, f"{found:.0f} bit/s, expected 5000000 +-5 %"


def test_set_show_and_rm_at_the_command_line() -> None:
    plan = lab.preset("t-user-cli", clients=4, cohorts=2)
    chosen = ("--testbed", plan.testbed)
    with lab.up(plan) as inventory:
        before = flows(inventory)
        first = meter("set", "c1", "--cohort", "1", "--up", "20mbit", "--down", "50mbit", *chosen)
        assert [(entry["name"], entry["direction"], entry["rate"]) for entry in first] == [
            ("c1.up", "up", 20_000_000), ("c1.down", "down", 50_000_000),
        ]  # fmt: skip
        again = meter("set", "c1", "--cohort", "1", "--up", "20mbit", "--down", "50mbit", *chosen)
        changed = meter("set", "c1", "--cohort", "1", "--up", "10mbit", "--burst", "8mbit", *chosen)
        assert ids(first) == ids(again) and ids(changed)["c1.up"] == ids(first)["c1.up"]
        assert (changed[0]["rate"], changed[0]["burst"]) == (10_000_000, 8_000_000)
        assert len(in_switches(inventory)) == 2
        meter("set", "one", "--client", "fc.10", "--rate", "5mbit", *chosen)
        meter("set", "gate", "--switch", "swCampus1", "--port", "1", "--rate", "500 packet/s", *chosen)
        meter("set", "srv", "--server", "fed.2", "--rate", "5mbit", "--direction", "down", "--enforce", "drop", *chosen)
        meter("set", "addr", "--address", "10.0.1.11", "--rate", "5mbit", *chosen)
        assert [entry["name"] for entry in meter("show", "c1", *chosen)] == ["c1.up", "c1.down"]
        assert len(meter("show", *chosen)) == 6
        text = run("meter", "show", *chosen).stdout
        assert "cohort 1" in text and "port swCampus1:1" in text and "10 Mbit/s" in text and "500 packet/s" in text
        shown = json.loads(run("show", "meters", "--switch", "aggsw10", "--json", *chosen).stdout)["meters"]
        assert {entry["name"] for entry in shown} == {"c1.up", "c1.down", "srv"}
        text = run("show", "flows", "--switch", "aggsw10", *chosen).stdout
        assert "meter" in text and "fail mode secure" in text and "forwarding" in text
        ports = json.loads(run("show", "ports", "--switch", "swCampus1", "--json", *chosen).stdout)
        assert ports["fail_mode"] == "secure" and ports["switches"][0]["connected"] is True
        assert {port["peer"] for port in ports["switches"][0]["ports"]} == {"fc.10", "swEdge12"}
        refusals(chosen)
        assert "removed: c1.up, c1.down" in run("meter", "rm", "c1", *chosen).stdout
        assert json.loads(run("meter", "rm", "--all", "--json", *chosen).stdout) == {
            "removed": ["one", "gate", "srv", "addr"]
        }
        assert in_switches(inventory) == [] and flows(inventory) == before


def refusals(chosen: tuple[str, ...]) -> None:
    """Wrong input ends with status 2 and says what is wrong; nothing changes."""
    for arguments, said in (
        (("set", "x", "--cohort", "9", "--up", "1mbit"), "'9'"),
        (("set", "x", "--cohort", "1", "--rate", "1mbit"), "c1."),
        (("set", "x", "--client", "fc.11", "--rate", "1 furlong"), "furlong"),
        (("set", "x", "--client", "fc.11", "--rate", "1mbit", "--burst", "100kbit"), "burst"),
        (("set", "x", "--client", "fc.11", "--rate", "5 packet/s", "--enforce", "queue"), "queue"),
        (("set", "x", "--switch", "swCampus1", "--port", "99", "--rate", "1mbit"), "99"),
        (("set", "-x", "--cohort", "1", "--rate", "1mbit"), "-x"),
        (("rm", "nothing"), "c1.up"),
        (("show", "nothing"), "c1.up"),
    ):
        done = run("meter", *arguments, *chosen, check=False)
        assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr, (arguments, done.stderr)
    done = run("show", "flows", "--switch", "nowhere", *chosen, check=False)
    assert done.returncode == 2 and "aggsw10" in done.stderr


@pytest.mark.parametrize("cohorts", [1, 3, 12, 20])
def test_two_runs_of_sendmeter_leave_one_meter_each(cohorts: int) -> None:
    plan = lab.preset(f"t-user-send{cohorts}", clients=20, cohorts=cohorts,
                      preset={"cohorts": cohorts, "clients": 20, "campuses": 3})  # fmt: skip

    def send(*arguments: str) -> list[dict[str, Any]]:
        command = [sys.executable, "scripts/sendmeter.py", "--url", url, *arguments, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=REPOSITORY, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return list(json.loads(done.stdout)["removed" if "--remove" in arguments else "meters"])

    with lab.up(plan) as inventory:
        url = controller_url(inventory)
        before = flows(inventory)
        rates = ("--cohorts", str(cohorts), "--up", "100mbit", "--down", "50mbit")
        first, second = send(*rates), send(*rates)
        assert ids(first) == ids(second) and len(first) == 2 * cohorts
        servers = {f"cohort-{k}.{way}": ("aggsw10", way) for k in range(1, cohorts + 1) for way in ("up", "down")}
        assert {m["name"]: (m["entries"][0]["switch"], m["direction"]) for m in second} == servers
        assert len({m["entries"][0]["meter_id"] for m in second}) == len(in_switches(inventory)) == 2 * cohorts
        campus = [send("--preset", "campus33") for _ in range(2)]
        assert ids(campus[0]) == ids(campus[1])
        uplinks = {s["name"]: p["number"] for s in inventory["switches"] for p in s["ports"] if p["peer"] == "swEdge12"}
        assert {m["target"]["switch"]: m["target"]["port"] for m in campus[1]} == {
            f"swCampus{c}": uplinks[f"swCampus{c}"] for c in (1, 2, 3)
        }
        assert all((m["rate"], m["direction"]) == (33_000_000, "up") for m in campus[1])
        assert len(send("--show")) == len(in_switches(inventory)) == 2 * cohorts + 3
        assert len(send("--remove", "--cohorts", str(cohorts))) == 2 * cohorts
        assert len(send("--remove", "--preset", "campus33")) == 3
        assert in_switches(inventory) == [] and flows(inventory) == before
        unknown = [sys.executable, "scripts/sendmeter.py", "--url", url, "--cohort", "nine", "--up", "1mbit"]
        done = subprocess.run(unknown, capture_output=True, text=True, timeout=60, cwd=REPOSITORY, check=False)
        assert done.returncode == 1 and "nine" in done.stderr


def test_the_campus_limit_holds_whatever_is_behind_it() -> None:
    plan = lab.preset("t-user-campus", preset={"cohorts": 2, "clients": 6, "campuses": 3})
    with lab.up(plan) as inventory:
        command = [sys.executable, "scripts/sendmeter.py", "--url", controller_url(inventory), "--preset", "campus33"]
        subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=REPOSITORY, check=True)
        limited = total_goodput_bps(inventory, ["fc.10", "fc.11"], "fed.1", "up")
        assert abs(limited - 33e6) <= 0.05 * 33e6, f"{limited:.0f} bit/s, expected 33000000 +-5 %"
        assert total_goodput_bps(inventory, ["fc.10"], "fed.1", "down", seconds=3) > 60e6  # upwards only


def test_a_queue_asked_for_shares_and_is_shown() -> None:
    plan = lab.preset("t-user-queue", clients=4, cohorts=1)
    chosen = ("--testbed", plan.testbed)
    with lab.up(plan) as inventory:
        asked = ("set", "c1", "--cohort", "1", "--up", "20mbit", "--enforce", "queue", *chosen)
        (view,) = meter(*asked)
        assert (view["in_force"], view["pending"], view["entries"][0]["node"]) == ("queue", False, None)
        clients = ["fc.10", "fc.11", "fc.12", "fc.13"]
        found = total_goodput_bps(inventory, clients, "fed.1", "up")
        expected = LIMIT_BPS * lab.GOODPUT_SHARE  # a queue counts whole frames, as a link does
        assert abs(found - expected) <= 0.03 * expected, f"{found:.0f} bit/s, expected {expected:.0f} +-3 %"
        (view,) = meter("show", "c1", *chosen)
        shares = [share["bytes"] for share in view["entries"][0]["shares"]]
        assert len(shares) == 4 and sum(shares) ** 2 / (4 * sum(share**2 for share in shares)) >= 0.95, shares
        assert "queue at core:" in run("meter", *asked).stdout
        run("meter", "rm", "c1", *chosen)
        assert total_goodput_bps(inventory, clients, "fed.1", "up", seconds=3) > 3 * LIMIT_BPS


def test_the_prompt_sets_lists_and_removes() -> None:
    plan = lab.preset("t-user-prompt", clients=4, cohorts=2)
    with lab.up(plan) as inventory:
        told = io.StringIO()
        prompt = Prompt(inventory, Console(file=told, width=200))
        prompt.onecmd("meter set lab --cohort 1 --up 20mbit --down 50mbit")
        prompt.onecmd("meters")
        assert "lab.up" in told.getvalue() and "50 Mbit/s" in told.getvalue()
        prompt.onecmd("meter set lab --cohort 1")
        prompt.onecmd("meter set lab --cohort 9 --up 1mbit")
        prompt.onecmd("show flows --switch aggsw10")
        assert "error: " in told.getvalue() and "which rate" in told.getvalue()
        prompt.onecmd("meter rm lab")
        assert in_switches(inventory) == []
        prompt.onecmd("meters")
        assert "0 meters" in told.getvalue()


def test_a_lost_controller_is_named_and_its_limits_stay() -> None:
    plan = lab.preset("t-user-lost", clients=4, cohorts=1)
    chosen = ("--testbed", plan.testbed)
    with lab.up(plan) as inventory:
        meter("set", "c1", "--cohort", "1", "--rate", "20mbit", *chosen)
        controllers = [path for path in Path("/proc").glob("[0-9]*/cmdline")
                       if f"--inventory\0{plan.inventory}".encode() in (read(path))
                       and b"topology.controller" in read(path)]  # fmt: skip
        assert len(controllers) == 1
        subprocess.run(["kill", "-KILL", controllers[0].parent.name], check=True)
        done = run("show", "flows", *chosen, check=False)
        assert done.returncode == 1 and "switches go on" in done.stderr
        assert len(in_switches(inventory)) == 2
        found = total_goodput_bps(inventory, ["fc.10", "fc.11"], "fed.1", "up")
        assert abs(found - LIMIT_BPS) <= 0.05 * LIMIT_BPS, f"{found:.0f} bit/s, expected {LIMIT_BPS} +-5 %"


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_the_page_s_commands_work(tmp_path: Path) -> None:
    """Every bash block of docs/meters.md, in order, and its file; only the ports and the name are the test's own."""
    from tests.docs.test_docs import blocks, page, shell

    name, rest = "t-user-page", lab.free_port()
    own = tmp_path / "page.yaml"
    own.write_text(json.dumps({
        "name": name, "runtime": "namespace", "preset": {"cohorts": 2, "clients": 8, "campuses": 3}, "publish": [],
        "controller": {"rest_host_port": rest},
    }))  # fmt: skip

    def typed(text: str) -> str:
        # The page's testbed has the default name and ports, which another one may hold; the test is root already.
        text = text.replace("--name metered --cohorts 2 --clients 8 --campuses 3 --runtime namespace",
                            f"{own} --runs {tmp_path / 'runs'}").replace("down metered", f"down {name}")  # fmt: skip
        text = re.sub(r"cohortnet ((?:meter|show) [a-z]+)", rf"cohortnet \1 --testbed {name}", text)
        text = text.replace("sudo ", "").replace(".venv/bin/cohortnet", ".venv/bin/python -m cohortnet")
        text = text.replace(".venv/bin/python", sys.executable).replace("127.0.0.1:8080", f"127.0.0.1:{rest}")
        return text.replace("sendmeter.py ", f"sendmeter.py --url http://127.0.0.1:{rest} ")

    parts = [typed(text) for text in blocks(page("docs/meters.md"), "bash")]
    assert f"cohortnet up {own}" in parts[0] and f"cohortnet down {name}" in parts[-1]
    try:
        told = "".join(shell(f"set -e\n{part}", REPOSITORY) for part in parts)
        wanted = ("slow.up: 20 Mbit/s up on cohort 1", "removed: slow.up, slow.down", "cohort-2.down",
                  "campus33-swCampus3.up", "100001", "of:000000000000000a")  # fmt: skip
        assert [text for text in wanted if text not in told] == []
        assert wait_for_none(name) == []  # the last block took the testbed down
    finally:
        run("down", name)
