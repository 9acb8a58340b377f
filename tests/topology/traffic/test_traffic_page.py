"""docs/traffic.md does what it says: its commands in order, its testbed with every flow running, its prompt."""

from __future__ import annotations

import io
import json
import re
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from cohortnet.prompt import Prompt
from tests.docs.test_docs import blocks, page, shell
from tests.system.conftest import REPOSITORY, delay_options, run
from tests.system.leftovers import wait_for_none
from tests.topology.engine import lab
from topology.inventory import inventory_path, read_inventory
from topology.traffic import client

pytestmark = pytest.mark.live

PAGE = "docs/traffic.md"


def test_the_page_s_commands_work(tmp_path: Path) -> None:
    name = "t-traffic-page"
    own = tmp_path / "own.yaml"
    own.write_text(json.dumps({
        "name": name, "runtime": "namespace", "preset": {"cohorts": 1, "clients": 4, "campuses": 2}, "publish": [],
        "controller": {"rest_host_port": lab.free_port()},
    }))  # fmt: skip

    def typed(text: str) -> str:
        # The page's testbed has ports that another one may hold; the test is root already.
        text = text.replace("--name busy --cohorts 1 --clients 4 --campuses 2 --runtime namespace",
                            f"{own} --runs {tmp_path / 'runs'}").replace("down busy", f"down {name}")  # fmt: skip
        text = re.sub(r"cohortnet traffic ([a-z]+)", rf"cohortnet traffic \1 --testbed {name}", text)
        return text.replace("sudo .venv/bin/cohortnet", f"{sys.executable} -m cohortnet")

    (part,) = (typed(text) for text in blocks(page(PAGE), "bash"))
    assert f"cohortnet up {own}" in part and part.count("cohortnet traffic") == 5
    try:
        told = shell(f"set -e\n{part}", REPOSITORY)
        assert '"rate_bps": 10000000' in told and '"state": "running"' in told and "stopped" in told
        assert wait_for_none(name) == []  # the last line took the testbed down
    finally:
        run("down", name)


def test_the_page_s_testbed_comes_up_with_all_flows_running_and_its_prompt_works(tmp_path: Path) -> None:
    (text,) = blocks(page(PAGE), "yaml")
    data: dict[str, Any] = {**yaml.safe_load(text), "name": "t-traffic-yaml", "publish": [],
                            "controller": {"rest_host_port": lab.free_port()}}  # fmt: skip
    own = tmp_path / "own.yaml"
    own.write_text(yaml.safe_dump(data))
    try:
        done = run("up", str(own), *delay_options(), "--runs", str(tmp_path / "runs"))
        assert "cohortnet: traffic" not in done.stderr, done.stderr
        inventory = read_inventory(inventory_path("t-traffic-yaml"))
        flows = {flow["name"]: flow for flow in client.listed(inventory)}
        assert sorted(flows) == ["background", "backup", "day", "sensors", "video"]
        assert {flow["state"] for flow in flows.values()} == {"running"}
        time.sleep(6)  # a period of on-off, six slots of Poisson, six steps of a sine
        assert all(flow["running"] and flow["tries"] == 0 for flow in client.listed(inventory))

        out = io.StringIO()
        prompt = Prompt(inventory, Console(file=out, width=200))
        (lines,) = re.findall(r"^```\n((?:traffic .*\n)+)^```", page(PAGE).read_text(), re.MULTILINE)
        for line in lines.splitlines():
            prompt.onecmd(line)
        prompt.onecmd("traffic set background")
        assert "error: " in out.getvalue() and "--rate" in out.getvalue()
        flows = {flow["name"]: flow for flow in client.listed(inventory)}
        assert flows["background"]["rate_bps"] == 10_000_000
        assert {flow["state"] for flow in flows.values()} == {"stopped"}
    finally:
        run("down", "t-traffic-yaml")
    assert wait_for_none("t-traffic-yaml") == []
