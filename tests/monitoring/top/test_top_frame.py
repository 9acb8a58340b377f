"""One picture from two readings: rates, limits, what is saturated, what is down; drawn in 80 columns; services away."""

from __future__ import annotations

import io
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from rich.console import Console

from monitoring.inventory import Inventory, parse
from monitoring.top import live, view
from monitoring.top.frame import Frame, build
from monitoring.top.reading import Growth, take
from monitoring.top.services import Progress, Services, Told, follow
from tests.monitoring.exporter import data

NODE = ["testbed", "node", "role", "cohort"]
WHO = {
    "fed.1": ["t", "fed.1", "server", "1"],
    "fc.10": ["t", "fc.10", "client", "1"],
    "fc.11": ["t", "fc.11", "client", "1"],
    "app.1": ["t", "app.1", "traffic-client", ""],
}
LINK = {"name": "fed.1--s", "a": "fed.1", "b": "s", "a_port": None, "b_port": 1, "a_interface": "eth0",
        "b_interface": "s-eth1", "a_to_b": data.SHAPE, "b_to_a": {**data.SHAPE, "rate_bps": 20_000_000}}  # fmt: skip


def inventory(**more: Any) -> Inventory:
    nodes = [data.node(who[1], number, role=who[2], cohort=who[3] or None) for number, who in enumerate(WHO.values())]
    cohorts = [{"name": "1", "server": "fed.1", "clients": ["fc.10", "fc.11"]}]
    return parse(
        data.inventory(Path("/nowhere"), testbed="t", nodes=nodes, cohorts=cohorts, links=[LINK], **more)
    )


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
    growth = Growth(take(collection(0), 100.0), take(collection(2), 102.0))
    return build(inventory(), growth, told, 1_790_000_000.0, 0.01)


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
        {"kind": "client.reply", "error": "RuntimeError: no", "failure": "application"},
        {"kind": "round.metrics", "round": 1, "source": "server", "metrics": {"loss": 2.0, "accuracy": 0.3}},
        {"kind": "round.metrics", "round": 2, "source": "distributed", "metrics": {"loss": 9.0, "accuracy": 0.9}},
    ):
        follow(progress, {"seq": progress.since + 1, **event})
    assert (progress.round, progress.joined, progress.failures, progress.since) == (1, 2, 1, 6)
    assert (progress.loss, progress.accuracy, progress.source) == (2.0, 0.3, "server")


def test_services_that_are_away_are_named_and_end_quickly() -> None:
    with socket.socket() as taken:  # bound and not listening: whoever connects is refused
        taken.bind(("127.0.0.1", 0))
        port = {"node": None, "host": "127.0.0.1", "host_port": taken.getsockname()[1]}
        services = Services(inventory(published=[port]), 0.05)
        services.ask()
        services.start()
        try:
            assert services.latest.problems == ("controller: does not answer",)
        finally:
            services.close()


def test_a_lost_client_fails_once_and_a_link_that_came_back_is_no_failure() -> None:
    progress = Progress()
    for event in (
        {"kind": "client.left", "client": "fc.10", "final": False},
        {"kind": "client.reconnected", "client": "fc.10"},
        {"kind": "client.left", "client": "fc.11", "final": False},
        {"kind": "client.left", "client": "fc.11", "final": True},
        {"kind": "client.reply", "client": "fc.11", "error": "client fc.11 is gone", "failure": "gone"},
        {"kind": "client.reply", "client": "fc.10", "error": "did not answer", "failure": "no-reply"},
        {"kind": "run.finished"},
        {"kind": "client.left", "client": "fc.10", "final": True},
    ):
        follow(progress, event)
    assert progress.failures == 2, "the loss of fc.11, and the answer that fc.10 did not give"


class Asked:
    """Meters of a controller that count as time passes; says from which threads it was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.threads: list[threading.Thread] = []
        monkeypatch.setattr(Services, "_meters", lambda _, problems: self.meters())

    def meters(self) -> list[dict[str, Any]]:
        self.threads.append(threading.current_thread())
        return [meter(0, int(time.monotonic() * 250_000))]


def test_one_picture_measures_meters_over_the_whole_period(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the background they would have been asked a moment before: after one second, as this period is."""
    asked = Asked(monkeypatch)
    with live.Watch(data.write(tmp_path), 1.0) as watch:
        (limit,) = live.once(watch, 1.0).meters
        told = watch._services.latest
    assert asked.threads == [threading.main_thread()] * 2
    assert told.meters_time - told.meters_before_time >= 1.0 and limit.rate == pytest.approx(2e6, rel=0.01)


def test_a_picture_is_of_the_inventory_as_it_is_now(tmp_path: Path) -> None:
    with live.Watch(data.write(tmp_path), 0.2) as watch:
        first = watch.look()
        nodes = [data.node("fed.1", 2, role="server"), data.node("fc.1", 1), data.node("fc.9", 9)]
        slower = {"rate_bps": 1_000_000, "delay_s": 0.0, "loss": 0.0}
        links = [{**LINK, "a_to_b": slower, "b_to_a": slower}]
        cohorts = [{"name": "1", "server": "fed.1", "clients": ["fc.1", "fc.9"]}]
        data.write(tmp_path, nodes=nodes, links=links, cohorts=cohorts)
        second = watch.look()
    assert (first.nodes_all, first.cohorts[0].clients, first.cohorts[0].down_limit_bps) == (2, 1, 10_000_000)
    assert (second.nodes_all, second.cohorts[0].clients, second.cohorts[0].down_limit_bps) == (3, 2, 1_000_000)
    assert "fc.9" in {node.name for node in second.nodes}
