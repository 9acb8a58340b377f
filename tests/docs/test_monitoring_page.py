"""docs/monitoring.md as it stands there: each command, its Python, both of its testbed files, on a real testbed."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from monitoring.prometheus import files
from tests.docs.test_docs import blocks, page, shell
from tests.monitoring.prometheus.prom_lab import free_port, inventory, need, promtool
from tests.system.conftest import REPOSITORY, delay_options, run
from tests.system.leftovers import wait_for_none
from topology.model import parse_testbed

PAGE = page("docs/monitoring.md")
NAME = "t-prom-page"
BENCHMARK = "benchmarks/monitoring.py"
COMMANDS = [text for text in blocks(PAGE, "bash") if BENCHMARK not in text]
"""Of a user who follows the page; what measures the machine for minutes is only read."""


@pytest.mark.live
def test_the_page_s_commands_work_in_their_order(tmp_path: Path) -> None:
    need("prometheus")
    ports = {"9090": free_port(), "9100": free_port()}
    own = tmp_path / "page.yaml"
    own.write_text(json.dumps({
        "name": NAME, "runtime": "namespace", "preset": {"cohorts": 1, "clients": 4, "campuses": 1}, "publish": [],
        "controller": {"rest_host_port": free_port()},
        "monitoring": {"port": ports["9090"], "exporter_port": ports["9100"], "period": "2 s"},
    }))  # fmt: skip
    # The page is read in a checkout; records and reports are written into a folder of the test's own.
    for name in ("topo.py", "intents", "scripts"):
        (tmp_path / name).symlink_to(REPOSITORY / name)

    def typed(text: str) -> str:
        # Ports and name are the test's own, since another testbed may hold those of the page; the test is root already.
        text = text.replace("topo.py 2 --clients 8 --runtime namespace",
                            f"topo.py --file {own} {' '.join(delay_options())}")  # fmt: skip
        text = re.sub(r"cohortnet (intent send|top|logs|grafana) ?", rf"cohortnet \1 --testbed {NAME} ", text)
        text = text.replace("down factory-satellite", f"down {NAME}").replace("sudo ", "")
        text = text.replace(".venv/bin/cohortnet", f"{sys.executable} -m cohortnet").replace("python3", sys.executable)
        for port, real in ports.items():
            text = text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{real}")
        return text

    commands = [typed(text) for text in COMMANDS]
    assert "--monitoring --no-shell" in commands[0] and f"down {NAME}" in commands[-1]
    (reading,) = blocks(PAGE, "python")
    told: dict[str, str] = {}
    try:
        for block in commands[:-1]:
            for line in block.strip().splitlines():
                told[line] = shell(line, tmp_path)
        done = subprocess.run([sys.executable, "-c", reading], capture_output=True, text=True, timeout=60, cwd=tmp_path,
                              env={"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin:/bin"}, check=False)  # fmt: skip
        assert done.returncode == 0, done.stderr
        told["python"] = done.stdout
        shell(commands[-1], tmp_path)
    finally:
        run("down", NAME)
    assert wait_for_none(NAME) == []

    # A query of the page that finds nothing would be no example.
    queries = {line: json.loads(text) for line, text in told.items() if "api/v1/query" in line}
    assert len(queries) == 6
    empty = [line for line, answer in queries.items() if not answer["data"]["result"]]
    assert [line for line in empty if "process_cpu" not in line] == []  # that one needs a minute
    assert any("succeeded" in text for text in told.values())
    assert told["python"].count("fed.1") == 2 and "Mbit/s at most" in told["python"]
    assert "<html" in (tmp_path / "report.html").read_text()[:2000]
    assert len(list((tmp_path / "grafana").rglob("*.json"))) == 5


def test_the_page_s_testbeds_say_what_the_page_says() -> None:
    found = {data["name"]: parse_testbed(data) for data in map(yaml.safe_load, blocks(PAGE, "yaml")) if "name" in data}
    measured, inside = found["measured"].monitoring, found["in-band"].monitoring
    assert measured is not None and (measured.period, measured.retention, measured.port) == (1.0, 21600.0, 9091)
    assert inside is not None and inside.prometheus == "in-band" and inside.port == 9090


def test_the_page_s_benchmark_takes_what_the_page_types() -> None:
    (command,) = [text for text in blocks(PAGE, "bash") if BENCHMARK in text]
    spec = importlib.util.spec_from_file_location("monitoring_benchmark", REPOSITORY / BENCHMARK)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    words = shlex.split(command)
    assert words[:3] == ["sudo", ".venv/bin/python", BENCHMARK]
    assert module.command_line().parse_args(words[3:]).nodes == [20]


def test_a_prometheus_of_one_s_own_finds_everything_with_the_page_s_configuration(tmp_path: Path) -> None:
    (text,) = [text for text in blocks(PAGE, "yaml") if "scrape_configs" in text]
    data = inventory(tmp_path, monitoring={"prometheus": "none", "prometheus_address": None})
    folder = data["monitoring"]["folder"]
    files.write_configuration(data)
    files.write_targets(data)
    assert "/run/cohortnet/measured/prometheus" in text
    own = tmp_path / "own.yml"
    own.write_text(text.replace("/run/cohortnet/measured/prometheus", folder))
    said = promtool("check", "config", str(own))
    assert "SUCCESS" in said and "9 rules found" in said
    said = promtool("check", "service-discovery", str(own), "cohortnet", "--timeout=2s")
    listed, _ = json.JSONDecoder().raw_decode(said)  # a line of the log may follow
    found = [target["labels"] for target in listed if target.get("labels")]
    assert {(target["job"], target.get("node", ""), target["instance"]) for target in found} == {
        ("exporter", "", data["monitoring"]["exporter"]), ("mlfo", "mo.1", "127.18.2.1:8000"),
        ("agents", "fed.1", "127.18.2.101:9300"), ("agents", "fc.10", "127.18.2.10:9300"),
    }  # fmt: skip
    whole = promtool("check", "config", f"{folder}/prometheus.yml")
    assert "SUCCESS" in whole


def test_every_metric_named_on_the_page_exists() -> None:
    """Names stand in the code that serves them; wildcards of the page match at least one."""
    sources = "\n".join(
        path.read_text() for folder in ("monitoring", "fl_node", "mlfo", "topology")
        for path in (REPOSITORY / folder).rglob("*") if path.suffix in (".py", ".yml")
    )  # fmt: skip
    known = set(re.findall(r"[a-z][a-z0-9_:]{4,}", sources))
    text = "\n".join(line for line in PAGE.read_text().splitlines() if line.startswith("|"))
    names = re.findall(r"`((?:node|container|tcp|tcprtt|cohortnet[_:]|model|fl|mlfo)[a-z_:]*\*?)`", text)
    assert len(names) > 20
    missing = []
    for name in names:
        stem = name.rstrip("*").removesuffix("_total")
        found = any(word.startswith(stem) for word in known) if name.endswith("*") else stem in known or name in known
        if not found:
            missing.append(name)
    assert missing == []
