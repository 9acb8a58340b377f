"""What Prometheus is told: targets with the four labels, in band over the emulated network, windows of four periods;
promtool takes all of it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitoring.prometheus import config, files
from tests.monitoring.prometheus.prom_lab import TESTBED, inventory, node, promtool

BUILTIN = {"core": {"controller": {"kind": "builtin"}},
           "published": [{"node": None, "port": 8080, "host": "127.0.0.1", "host_port": 18281}]}  # fmt: skip


def by_node(groups: list[dict[str, Any]]) -> dict[str, list[str]]:
    return {group["labels"].get("node", ""): group["targets"] for group in groups}


def test_beside_the_testbed_nodes_are_reached_over_the_management_network(tmp_path: Path) -> None:
    found = config.targets(inventory(tmp_path, monitoring={"exporter": "127.0.0.1:9100"}, **BUILTIN))
    assert by_node(found["exporter"]) == {"": ["127.0.0.1:9100"]}
    assert by_node(found["agents"]) == {"fed.1": ["127.18.2.101:9300"], "fc.10": ["127.18.2.10:9300"]}
    assert by_node(found["mlfo"]) == {"mo.1": ["127.18.2.1:8000"]}
    assert by_node(found["controller"]) == {"": ["127.0.0.1:18281"]}
    labels = found["agents"][0]["labels"]
    assert labels == {"testbed": TESTBED, "node": "fed.1", "role": "server", "cohort": "1"}


def test_in_band_every_node_is_reached_over_the_emulated_network(tmp_path: Path) -> None:
    nodes = [node("fed.1", "server", "1", 101), node("prom.0", "prometheus", None, 100, program="none")]
    found = config.targets(inventory(tmp_path, nodes=nodes, monitoring={"prometheus": "in-band", "node": "prom.0"},
                                     **BUILTIN))  # fmt: skip
    assert by_node(found["exporter"]) == {
        "fed.1": ["10.0.1.101:9100", "10.0.1.101:9200"],
        "prom.0": ["10.0.1.100:9100", "10.0.1.100:9200"],
        "": ["127.0.0.1:9101"],
    }
    assert by_node(found["agents"]) == {"fed.1": ["10.0.1.101:9300"]}
    assert by_node(found["controller"]) == {"": ["127.0.0.1:9102"]}
    assert by_node(found["prometheus"]) == {"": ["127.0.0.1:9090"]}


def test_nodes_that_do_not_run_and_programs_that_serve_nothing_are_no_targets(tmp_path: Path) -> None:
    nodes = [node("fc.1", "client", "1", 1, pid=None), node("fc.2", "client", "1", 2, program="own.program")]
    found = config.targets(inventory(tmp_path, nodes=nodes))
    assert found["agents"] == [] and found["controller"] == []


@pytest.mark.parametrize(
    ("seconds", "text"), [(5.0, "5s"), (0.5, "500ms"), (0.25, "250ms"), (1.5, "1500ms"), (86400.0, "86400s")]
)
def test_durations_are_written_as_prometheus_reads_them(seconds: float, text: str) -> None:
    assert config.duration(seconds) == text


@pytest.mark.parametrize("period_s", [0.1, 0.5, 1.0, 5.0, 15.0, 60.0])
def test_rates_are_taken_over_at_least_four_periods_at_every_period(tmp_path: Path, period_s: float) -> None:
    assert config.window_s(period_s) >= 4 * period_s
    text = config.rules_yml(period_s)
    rules = yaml.safe_load(text)
    filled = text.partition("groups:")[2]
    assert not any(word in filled for word in ("$window", "$hold", "$recent"))
    windows = set(re.findall(r"rate\([^\[]+\[(\w+)\]", filled))
    assert windows == {config.duration(config.window_s(period_s))}
    assert all(rule["expr"] for group in rules["groups"] for rule in group["rules"])


@pytest.mark.parametrize("kind", ["host", "in-band"])
def test_promtool_takes_configuration_rules_and_targets(tmp_path: Path, kind: str) -> None:
    data = inventory(tmp_path, period_s=0.5, monitoring={"prometheus": kind}, **BUILTIN)
    files.write_configuration(data)
    assert sorted(files.write_targets(data)) == [
        "agents.json", "controller.json", "exporter.json", "mlfo.json", "prometheus.json",
    ]  # fmt: skip
    folder = Path(data["monitoring"]["folder"])
    said = promtool("check", "config", str(folder / "prometheus.yml"))
    assert "SUCCESS" in said and "9 rules found" in said
    assert "FAILED" not in said and "WARNING" not in said
    assert files.write_targets(data) == [], "files that stay the same are not touched"
    data["nodes"][1]["pid"] = None
    changed = files.write_targets(data)
    assert changed == (["agents.json"] if kind == "host" else ["exporter.json", "agents.json"])
    assert len(json.loads((folder / "targets" / "agents.json").read_text())) == 1


def test_data_is_bounded_in_time_and_size_and_stays_on_loopback(tmp_path: Path) -> None:
    argv = config.command("prometheus", inventory(tmp_path)["monitoring"], 123456789)
    assert "--storage.tsdb.retention.size=123456789B" in argv and "--storage.tsdb.retention.time=3600s" in argv
    assert [option for option in argv if "listen-address" in option][0].startswith("--web.listen-address=127.0.0.1:")
    assert files.LEAST_BYTES <= files.retention_bytes(tmp_path) <= files.MOST_BYTES
