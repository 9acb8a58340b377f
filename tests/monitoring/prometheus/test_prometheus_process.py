"""The real Prometheus under the daemon's hand: it scrapes with the right labels, follows the inventory, is started
again a few times, and says clearly why it cannot start."""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from monitoring.prometheus import process
from monitoring.prometheus.process import Prometheus, PrometheusError
from tests.monitoring.prometheus.prom_lab import Page, inventory, need, node, query, running, wait_for


def exporter_page() -> str:
    return ('node_up{testbed="t-prom-lab",node="fc.10",role="client",cohort="1"} 1\n'
            'node_up{testbed="t-prom-lab",node="mo.1",role="mlfo-edge",cohort=""} 0\n')  # fmt: skip


def test_series_get_the_four_labels_once_and_alerts_are_evaluated(tmp_path: Path) -> None:
    data = inventory(tmp_path)
    host, _, port = data["monitoring"]["exporter"].rpartition(":")
    with Page(exporter_page, host, int(port)), Page(lambda: "mlfo_intents 3\n", "127.18.2.1", 8000), running(
        data, tmp_path / "prometheus.log"
    ) as server:
        wait_for(lambda: query(server.url, "node_up"), 15)
        # What has labels of its own keeps them, what has none gets those of its node.
        assert sorted(query(server.url, "sum by (testbed,node,role,cohort) (node_up)")) == [
            "cohort=1,node=fc.10,role=client,testbed=t-prom-lab", "node=mo.1,role=mlfo-edge,testbed=t-prom-lab",
        ]  # fmt: skip
        wait_for(lambda: query(server.url, "mlfo_intents"), 15)
        assert list(query(server.url, "sum by (testbed,node,role,cohort) (mlfo_intents)")) == [
            "node=mo.1,role=mlfo-edge,testbed=t-prom-lab"
        ]
        pending = 'ALERTS{alertname="CohortnetNodeDown",node="mo.1"}'
        wait_for(lambda: query(server.url, pending), 15, "the alert of a node that is down")
        assert query(server.url, "count(prometheus_tsdb_head_series)") and not query(server.url, "go_goroutines")


def test_targets_follow_nodes_that_come_and_go(tmp_path: Path) -> None:
    pages = {name: f"127.18.2.{number}" for name, number in (("fc.10", 10), ("fc.12", 12))}
    data = inventory(tmp_path, nodes=[node("fc.10", "client", "1", 10)])
    with Page(lambda: "a 1\n", pages["fc.10"], 9300), Page(lambda: "a 2\n", pages["fc.12"], 9300), running(
        data, tmp_path / "prometheus.log"
    ) as server:
        wait_for(lambda: query(server.url, 'a{node="fc.10"}'), 15)
        changed = {**data, "nodes": [node("fc.10", "client", "1", 10, pid=None), node("fc.12", "client", "1", 12)]}
        server.follow(changed)
        wait_for(lambda: query(server.url, 'a{node="fc.12"}'), 15, "the new node's series")
        wait_for(lambda: not query(server.url, 'a{node="fc.10"}'), 15, "the end of the old node's series")
        assert server.restarts == 0


def kill(server: Prometheus) -> None:
    assert server._process is not None
    os.kill(server._process.pid, signal.SIGKILL)
    server._process.wait()


def test_it_is_started_again_with_its_data_and_given_up_loudly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(process, "BACKOFF_S", 0.001)
    data = inventory(tmp_path, nodes=[])
    host, _, port = data["monitoring"]["exporter"].rpartition(":")
    with Page(exporter_page, host, int(port)), running(data, tmp_path / "prometheus.log") as server:
        wait_for(lambda: query(server.url, "node_up"), 15)
        seen = time.time()
        kill(server)

        def again() -> bool:
            server.watch()
            return server.restarts == 1

        wait_for(again)
        server.wait_ready()
        assert query(server.url, f"count_over_time(node_up[1h] @ {seen:.3f})"), "what was scraped before is still there"

        def given_up() -> bool:
            if server._process is not None and server._process.poll() is None:
                kill(server)
            server.watch()
            return server.given_up

        with caplog.at_level(logging.ERROR, "monitoring"):
            wait_for(given_up, 20)
        assert server.restarts == process.MOST_RESTARTS
        assert "NO SERIES ARE KEPT" in caplog.text
        server.watch()


def test_a_port_that_is_taken_is_named_before_anything_starts(tmp_path: Path) -> None:
    need("prometheus")
    data = inventory(tmp_path)
    with socket.socket() as taken:
        host, _, port = data["monitoring"]["prometheus_address"].rpartition(":")
        taken.bind((host, int(port)))
        taken.listen()
        with pytest.raises(PrometheusError, match=rf"127\.0\.0\.1:{port} for Prometheus.*in use.*monitoring: {{port"):
            Prometheus(data, tmp_path / "log").start()


def test_where_it_is_not_installed_the_message_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process.shutil, "which", lambda *_, **__: None)
    with pytest.raises(PrometheusError, match="sudo apt-get install prometheus"):
        process.find_program()


@pytest.mark.parametrize("problem", ["data", "node"])
def test_a_start_that_fails_says_why(tmp_path: Path, problem: str) -> None:
    need("prometheus")
    changes: dict[str, Any] = {"prometheus": "in-band", "node": "prom.0"} if problem == "node" else {}
    server = Prometheus(inventory(tmp_path, monitoring=changes), tmp_path / "log")
    if problem == "node":
        with pytest.raises(PrometheusError, match="prom.0, the node that Prometheus runs in, does not run"):
            server.start()
        return
    (tmp_path / "prometheus").mkdir()
    (tmp_path / "prometheus" / "data").write_text("no folder")
    server.start()
    with pytest.raises(PrometheusError, match=r"(?s)ended with status \d.*err=.*data.*not a directory"):
        server.wait_ready()
    server.stop()
