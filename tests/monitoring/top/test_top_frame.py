"""One picture from two readings: rates, limits, what is saturated, what is down; drawn in 80 columns; services away."""

from __future__ import annotations

import io
import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from rich.console import Console

from monitoring.top import view
from monitoring.top.frame import Frame, build
from monitoring.top.reading import Growth, take
from monitoring.top.services import Progress, Services, Told, follow

NODE = ["testbed", "node", "role", "cohort"]
WHO = {
    "fed.1": ["t", "fed.1", "server", "1"],
    "fc.10": ["t", "fc.10", "client", "1"],
    "fc.11": ["t", "fc.11", "client", "1"],
    "app.1": ["t", "app.1", "traffic-client", ""],
}
INVENTORY: dict[str, Any] = {
    "testbed": "t",
    "state": "up",
    "core": {"controller": {"kind": "builtin"}},
    "published": [],
    "nodes": [{"name": who[1], "role": who[2], "cohort": who[3] or None} for who in WHO.values()],
    "cohorts": [{"name": "1", "server": "fed.1", "clients": ["fc.10", "fc.11"]}],
    "links": [
        {
            "name": "fed.1--s",
            "a": "fed.1",
            "b": "s",
            "a_to_b": {"rate_bps": 10_000_000},
            "b_to_a": {"rate_bps": 20_000_000},
        }
    ],
}


def collection(step: int) -> Iterator[Metric]:
    """The exporter's families after `step` seconds."""
    received = CounterMetricFamily("node_network_receive_bytes", "", labels=[*NODE, "device"])
    sent = CounterMetricFamily("node_network_transmit_bytes", "", labels=[*NODE, "device"])
    cpu = CounterMetricFamily("container_cpu_usage_seconds", "", labels=NODE)
    memory = GaugeMetricFamily("container_memory_working_set_bytes", "", labels=NODE)
    up = GaugeMetricFamily("node_up", "", labels=NODE)
    for number, (name, who) in enumerate(WHO.items()):
        received.add_metric([*who, "eth0"], step * 125_000 * (number + 1))
        sent.add_metric([*who, "eth0"], step * 250_000)
        cpu.add_metric(who, step * 0.1 * (number + 1))
        memory.add_metric(who, 2**20 * (100 - number))
        up.add_metric(who, 0 if name == "fc.11" else 1)
    link = ["testbed", "link", "a", "b", "direction"]
    octets, rate = (
        CounterMetricFamily("cohortnet_link_bytes", "", labels=link),
        GaugeMetricFamily("cohortnet_link_rate_bits_per_second", "", labels=link),
    )
    octets.add_metric(["t", "fed.1--s", "fed.1", "s", "a_to_b"], step * 1_200_000)
    rate.add_metric(["t", "fed.1--s", "fed.1", "s", "a_to_b"], 10_000_000)
    flow = ["testbed", "flow", "source", "destination", "pattern"]
    target, running = (
        GaugeMetricFamily(f"cohortnet_traffic_{name}", "", labels=flow)
        for name in ("target_bits_per_second", "running")
    )
    target.add_metric(["t", "background", "app.1", "appserv.0", "constant"], 20e6)
    running.add_metric(["t", "background", "app.1", "appserv.0", "constant"], 1)
    yield from (received, sent, cpu, memory, up, octets, rate, target, running)


def meter(dropped: int, octets: int, name: str = "m") -> dict[str, Any]:
    return {
        "name": name,
        "target": {"kind": "cohort", "name": "1"},
        "direction": "up",
        "unit": "bit/s",
        "rate": 2_000_000,
        "in_force": "drop",
        "pending": False,
        "entries": [{"direction": "up", "bytes": octets, "packets": 1, "bands": [{"packets": dropped}]}],
    }


def picture(name: str = "1") -> Frame:
    intent = {
        "id": "run-1",
        "intentID": "i",
        "state": "running",
        "cohort": "1",
        "server": "fed.1",
        "clients": ["fc.10", "fc.11"],
        "created": 1.0,
        "config": {"num-server-rounds": 9},
    }
    old = {**intent, "id": "run-0", "state": "failed", "created": 5.0}
    progress = {"run-1": Progress(round=3, phase="train", joined=2, accuracy=0.5, loss=1.25)}
    told = Told(
        [intent, old], progress, [meter(30, 750_000)], 12.0, [meter(10, 250_000)], 10.0, ["MLFO: does not answer"]
    )
    return build(INVENTORY, Growth(take(collection(0), 100.0), take(collection(2), 102.0)), told, 1_790_000_000.0, 0.01)


def test_rates_limits_and_states() -> None:
    frame = picture()
    (cohort,) = frame.cohorts
    assert (cohort.run, cohort.state, cohort.round, cohort.rounds) == ("run-1", "running", 3, 9), (
        "the live run, not the newest"
    )
    assert cohort.up_bps == pytest.approx(1e6), "what the server received"
    assert cohort.down_bps == pytest.approx(2e6 + 3e6), "what both clients received"
    assert (cohort.up_limit_bps, cohort.up_limit_kind) == (2e6, "meter"), "tighter than the link's 20 Mbit/s"
    assert (cohort.down_limit_bps, cohort.down_limit_kind) == (1e7, "link")
    (limit,) = frame.meters
    assert (limit.rate, limit.drops_per_s, limit.dropped) == (pytest.approx(2e6), pytest.approx(10.0), 30)
    (link,) = frame.links
    assert link.saturated and link.share == pytest.approx(0.96) and (link.sender, link.receiver) == ("fed.1", "s")
    assert frame.nodes[0].name == "fc.11" and not frame.nodes[0].up, "what is down comes first"
    assert [node.name for node in frame.nodes[1:]] == ["app.1", "fc.10", "fed.1"], "then the busiest"
    assert frame.traffic[0].source_bps == pytest.approx(2e6) and frame.traffic[0].target_bps == 20e6
    assert json.loads(json.dumps(frame.as_dict()))["nodes_up"] == 3


@pytest.mark.parametrize(("width", "height"), [(80, 24), (80, 50), (118, 40), (200, None)])
def test_it_fits_its_terminal_and_says_what_matters(width: int, height: int | None) -> None:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(view.draw(picture(), width, height, live=True))
    drawn = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert all(len(line) <= width for line in drawn)
    assert height is None or len(drawn) <= height, f"{len(drawn)} lines in {height}"
    text = "\n".join(drawn)
    for said in ("1 DOWN", "3/9", "50.0%", "1.250", "1M/2Mm", "! MLFO: does not answer", "saturated", "fc.11"):
        assert said in text, f"{said!r} is missing in\n{text}"


def test_plain_lines_name_what_drops() -> None:
    lines = view.lines(picture())
    assert any("cohort 1 (fed.1): running round 3/9 accuracy 50.0%" in line for line in lines)
    assert any("meter m up: offered 2M of 2M bit/s, 10 drops/s" in line for line in lines)
    assert any("link fed.1 → s" in line for line in lines)


def test_markup_in_names_is_drawn_as_text() -> None:
    frame = picture()
    frame.cohorts[0].name = "[red]x[/red]"
    console = Console(file=io.StringIO(), width=120)
    console.print(view.draw(frame, 120))
    assert "[red]x[/red]" in console.file.getvalue()  # type: ignore[attr-defined]


def test_progress_keeps_the_server_s_own_evaluation_over_the_clients() -> None:
    progress = Progress()
    for event in (
        {"kind": "client.joined", "joined": 2},
        {"kind": "phase.started", "round": 1, "phase": "train"},
        {"kind": "round.metrics", "round": 1, "source": "train", "metrics": {"train_loss": 3.0}},
        {"kind": "client.reply", "error": "lost"},
        {"kind": "round.metrics", "round": 1, "source": "server", "metrics": {"loss": 2.0, "accuracy": 0.3}},
        {"kind": "round.metrics", "round": 2, "source": "distributed", "metrics": {"loss": 9.0, "accuracy": 0.9}},
    ):
        follow(progress, {"seq": progress.since + 1, **event})
    assert (progress.round, progress.joined, progress.failures, progress.since) == (1, 2, 1, 6)
    assert (progress.loss, progress.accuracy, progress.source) == (2.0, 0.3, "server")


def test_services_that_are_away_are_named_and_end_quickly() -> None:
    with socket.socket() as taken:  # bound and not listening: whoever connects is refused
        taken.bind(("127.0.0.1", 0))
        inventory = {
            **INVENTORY,
            "published": [{"node": None, "host": "127.0.0.1", "host_port": taken.getsockname()[1]}],
        }
        services = Services(inventory, 0.05)
        services.start()
        try:
            assert services.latest.problems == ("controller: does not answer",)
        finally:
            services.close()
