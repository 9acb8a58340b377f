"""What Prometheus is told of a testbed: configuration, targets, rules, command line. Pure: inventory in, text out.

In the inventory's `monitoring`, "host" means that Prometheus runs beside the testbed and reaches nodes over the
management network, "in-band" that it runs in a node and reaches the others over the emulated network, as their FL
traffic does; "none" that some other Prometheus on this machine does what "host" says.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

AGENT_PORT = 9300
MLFO_PORT = 8000
NODE_PORT = 9100
"""In-band: each node's own series but those of TCP."""
NODE_TCP_PORT = 9200
TESTBED_PORT = 9101
"""In-band, on loopback of Prometheus' own node: what is of no node (links, switches, the exporter)."""
CONTROLLER_PORT = 9102
"""In-band, likewise: the controller's metrics, which otherwise only the host reaches."""
PROMETHEUS_PORT = 9090
"""In-band, likewise: its own."""

WINDOW_PERIODS = 4
LEAST_WINDOW_S = 4.0
HOLD_PERIODS = 2
LEAST_HOLD_S = 10.0
RECENT_HOLDS = 2
LONGEST_TIMEOUT_S = 10.0
LEAST_EVALUATION_S = 1.0
_OWN_METRICS = "(process_cpu_seconds|process_resident_memory|prometheus_tsdb_(head|storage|wal_storage)_|" \
               "prometheus_(target|rule)_).*"  # fmt: skip
"""Of Prometheus' own hundreds of series those that tell its cost and its lacks."""

TargetGroup = dict[str, Any]


def duration(seconds: float) -> str:
    """Seconds as Prometheus writes them: 5.0 -> "5s", 0.5 -> "500ms"."""
    milliseconds = round(seconds * 1000)
    return f"{milliseconds // 1000}s" if milliseconds % 1000 == 0 else f"{milliseconds}ms"


def window_s(period_s: float) -> float:
    """Over how many seconds rates are taken."""
    return max(WINDOW_PERIODS * period_s, LEAST_WINDOW_S)


def rules_yml(period_s: float) -> str:
    """The shipped rules for that period."""
    text = resources.files("monitoring.prometheus").joinpath("rules.yml").read_text(encoding="utf-8")
    hold = max(HOLD_PERIODS * period_s, LEAST_HOLD_S)
    comments, _, rules = text.partition("groups:\n")  # the comment names the words and stays as it is
    for word, seconds in (("$window", window_s(period_s)), ("$hold", hold), ("$recent", RECENT_HOLDS * hold)):
        rules = rules.replace(word, duration(seconds))
    return comments + "groups:\n" + rules


def prometheus_yml(inventory: Mapping[str, Any]) -> str:
    """The configuration file. Targets stand in files of their own, which Prometheus reads again when they change."""
    monitoring = inventory["monitoring"]
    period = float(monitoring["period_s"])
    folder = Path(monitoring["folder"])
    jobs = [
        {
            "job_name": job,
            # The node's own labels are the right ones; the target's are for metrics that carry none.
            "honor_labels": True,
            "file_sd_configs": [{"files": [str(folder / "targets" / f"{job}.json")], "refresh_interval": "30s"}],
            **({"metric_relabel_configs": [{"source_labels": ["__name__"], "regex": _OWN_METRICS, "action": "keep"}]}
               if job == "prometheus" else {}),
        }
        for job in targets(inventory)
    ]  # fmt: skip
    data = {
        "global": {
            "scrape_interval": duration(period),
            "scrape_timeout": duration(min(period, LONGEST_TIMEOUT_S)),
            "evaluation_interval": duration(max(period, LEAST_EVALUATION_S)),
        },
        "rule_files": [str(folder / "rules.yml")],
        "scrape_configs": jobs,
    }
    said = f"# Made for the testbed {inventory['testbed']} when it came up; changes are lost with the next one.\n"
    return said + yaml.safe_dump(data, sort_keys=False)


def targets(inventory: Mapping[str, Any]) -> dict[str, list[TargetGroup]]:
    """Job -> its targets with their labels, as they stand in the target files. Nodes that do not run have none."""
    monitoring = inventory["monitoring"]
    inside = monitoring["prometheus"] == "in-band"
    testbed = {"testbed": inventory["testbed"]}
    running = [node for node in inventory["nodes"] if node["pid"]]

    def of(nodes: list[Mapping[str, Any]], *ports: int) -> list[TargetGroup]:
        key = "address" if inside else "management_address"
        return [{"targets": [f"{node[key]}:{port}" for port in ports], "labels": node_labels(inventory, node)}
                for node in nodes]  # fmt: skip

    def here(address: str) -> list[TargetGroup]:
        return [{"targets": [address], "labels": testbed}]

    agents = [node for node in running if "fl_node.agent" in (node["program"] or ())]
    orchestrators = [node for node in running if "mlfo" in (node["program"] or ())]
    if inside:
        exporter = [*of(running, NODE_PORT, NODE_TCP_PORT), *here(f"127.0.0.1:{TESTBED_PORT}")]
    else:
        exporter = here(monitoring["exporter"])
    controller = []
    if inventory["core"]["controller"]["kind"] == "builtin":
        rest = next((f"{port['host']}:{port['host_port']}" for port in inventory["published"] if port["node"] is None),
                    None)  # fmt: skip
        controller = here(f"127.0.0.1:{CONTROLLER_PORT}" if inside else rest) if rest else []
    own = f"127.0.0.1:{PROMETHEUS_PORT}" if inside else monitoring["prometheus_address"]
    return {
        "exporter": exporter,
        "agents": of(agents, AGENT_PORT),
        "mlfo": of(orchestrators, MLFO_PORT),
        "controller": controller,
        "prometheus": here(own) if own else [],
    }


def node_labels(inventory: Mapping[str, Any], node: Mapping[str, Any]) -> dict[str, str]:
    """The four labels that every series about a node carries."""
    return {"testbed": inventory["testbed"], "node": node["name"], "role": node["role"],
            "cohort": node["cohort"] or ""}  # fmt: skip


def target_files(inventory: Mapping[str, Any]) -> dict[str, str]:
    """File name -> text, for the folder of targets."""
    return {f"{job}.json": json.dumps(groups, indent=1) + "\n" for job, groups in targets(inventory).items()}


PICK_UP_OPTION = "--scrape.discovery-reload-interval=500ms"
"""Takes up new targets at once, where this version knows the option; else every 5 s, beside the 5 s of discovery."""


def command(program: str, monitoring: Mapping[str, Any], retention_bytes: int, *more: str) -> list[str]:
    """How Prometheus is started: on loopback, with data that is bounded in time and size; `more` are further options.
    """
    folder = Path(monitoring["folder"])
    port = PROMETHEUS_PORT if monitoring["prometheus"] == "in-band" else monitoring["prometheus_address"].split(":")[1]
    return [
        program,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--storage.tsdb.retention.time={duration(float(monitoring['retention_s']))}",
        f"--storage.tsdb.retention.size={retention_bytes}B",
        # What is not yet in a block does not count as old: blocks of two hours would keep that much whatever its size.
        "--storage.tsdb.min-block-duration=10m",
        "--storage.tsdb.max-block-duration=1h",
        f"--web.listen-address=127.0.0.1:{port}",
        "--web.max-connections=128",
        "--query.timeout=60s",
        "--query.max-concurrency=8",
        "--log.level=warn",
        *more,
    ]
