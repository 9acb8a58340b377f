"""The exporter over HTTP: what it answers, what it says when it cannot keep its period, and how it listens in nodes."""

from __future__ import annotations

import http.client
import http.server
import json
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from monitoring.exporter import namespaces
from monitoring.exporter.sampler import Sampler
from monitoring.exporter.server import ExporterServer, Punctuality
from tests.monitoring.exporter import data
from tests.monitoring.exporter.conftest import Bed
from tests.monitoring.exporter.test_live import until


def get(host: str, port: int, path: str, pid: int | None = None) -> tuple[int, str]:
    """(status, text) of a GET, from the host or from within a node."""
    connect = partial(socket.create_connection, (host, port), 10)
    connection = http.client.HTTPConnection(host, port, timeout=10)
    connection.sock = connect() if pid is None else namespaces.inside(f"/proc/{pid}/ns/net", connect)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def value(text: str, start: str) -> float:
    lines = [line for line in text.splitlines() if line.startswith(start)]
    assert len(lines) == 1, f"{start}: {lines}"
    return float(lines[0].rpartition(" ")[2])


@contextmanager
def serving(path: Path, period_s: float | None = None) -> Iterator[tuple[ExporterServer, Sampler]]:
    with Sampler(path) as sampler, ExporterServer(sampler, "127.0.0.1", 0, period_s) as server:
        yield server, sampler


def test_what_is_answered(tmp_path: Path) -> None:
    traffic = {"name": "background", "source": "fc.1", "destination": "fed.1", "protocol": "tcp", "pattern": "constant",
               "rate_bps": 2e7, "running": True, "started": 1.0, "changed": 1.0}  # fmt: skip
    (tmp_path / "traffic.json").write_text(json.dumps({"flows": [traffic]}))
    with serving(data.write(tmp_path)) as (server, _):
        assert get(*server.address, "/healthz") == (200, "ok\n")
        status, text = get(*server.address, "/metrics")
        assert status == 200
        assert value(text, 'node_up{testbed="t-exporter-data",node="fc.1",role="client",cohort="1"}') == 0
        assert value(text, "cohortnet_traffic_running{") == 1
        assert value(text, "cohortnet_traffic_target_bits_per_second{") == 2e7
        assert value(text, 'cohortnet_exporter_errors_total{testbed="t-exporter-data",what="core"}') >= 1
        status, text = get(*server.address, "/metrics?node=fed.1")
        assert status == 200 and 'node="fed.1"' in text and "fc.1" not in text and "cohortnet_exporter" not in text
        assert get(*server.address, "/metrics?node=fed.9") == (404, "'t-exporter-data' has no node 'fed.9'\n")
        assert get(*server.address, "/metrics?nodes=fed.1")[0] == 400
        assert get(*server.address, "/anything")[0] == 404
        (tmp_path / "traffic.json").write_text('{"flows": [{}]}')
        _, text = get(*server.address, "/metrics")
        assert value(text, 'cohortnet_exporter_errors_total{testbed="t-exporter-data",what="traffic"}') == 1
        assert "cohortnet_traffic" not in text
        host, port = server.address
    with pytest.raises(ConnectionRefusedError):
        get(host, port, "/healthz")


def test_a_taken_port_is_refused(tmp_path: Path) -> None:
    with serving(data.write(tmp_path)) as (server, sampler), pytest.raises(OSError, match="in use"):
        ExporterServer(sampler, *server.address).start()


def test_a_scrape_that_comes_late_is_counted_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), serving(data.write(tmp_path), 0.2) as (server, _):
        for _ in range(3):
            _, text = get(*server.address, "/metrics")
            time.sleep(0.4)
    late = 'cohortnet_exporter_overruns_total{testbed="t-exporter-data",reason="late"}'
    assert value(text, late) >= 1  # of the second; an answer's own lateness is counted after it
    said = [record.message for record in caplog.records if "series have a gap there" in record.message]
    assert len(said) == 1 and "the period is 0.2 s" in said[0]


def test_late_is_more_than_one_and_a_half_periods_and_said_once_a_minute(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Sampler(data.write(tmp_path)) as sampler, caplog.at_level(logging.WARNING):
        watch = Punctuality(sampler)
        for start in (100.0, 101.0, 102.4, 104.0, 106.0, 166.0):
            watch.done(start, start + 0.1, 1.0)
        assert [record.message.partition(",")[0] for record in caplog.records] == [
            "a scrape came 1.60 s after the one before", "a scrape came 60.00 s after the one before"
        ]  # fmt: skip
        assert b'reason="late"} 3' in sampler.text()


def test_a_collection_longer_than_half_the_period_is_slow(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Sampler(data.write(tmp_path)) as sampler, caplog.at_level(logging.WARNING):
        watch = Punctuality(sampler)
        watch.done(10.0, 10.4, 1.0)
        watch.done(10.8, 10.9, None)  # in band: shares of one round, by node ...
        watch.done(10.9, 11.0, None)
        watch.done(11.0, 11.4, 1.0)  # ... count together
        assert [record.message for record in caplog.records] == [
            "collecting took 0.60 s of a period of 1 s; write a longer `monitoring: {period: ...}`"
        ]
        assert b'reason="slow"} 1' in sampler.text()


@pytest.mark.live
def test_in_band_each_node_serves_its_own_series(bed: Bed) -> None:
    pages = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Controller)
    threading.Thread(target=pages.serve_forever, daemon=True).start()
    bed.open.callback(pages.server_close)
    bed.open.callback(pages.shutdown)
    published = [{"node": None, "port": 8080, "host": "127.0.0.1", "host_port": pages.server_port}]
    bed.path.write_text(json.dumps({**bed.inventory, "published": published}))
    near, _ = bed.connect("fc.1", "fed.1", 6000)
    with serving(bed.path, 1.0) as (server, sampler):
        server.listen_in_nodes()
        prometheus = bed.node("prom.0")["pid"]
        client = bed.node("fc.1")["address"]
        status, text = get(client, 9100, "/metrics", prometheus)  # over the emulated network, as prom.0 does
        assert status == 200 and "node_network_receive_bytes_total" in text and "tcp_rtt" not in text
        assert {part.split('"')[1] for part in text.split("node=")[1:]} == {"fc.1"}
        status, text = get(client, 9200, "/metrics", prometheus)
        assert status == 200 and 'flow="fl"' in text and "node_network" not in text
        assert text.count("\ntcp_rtt{") == 1, "the scrape itself is told of"
        status, text = get("127.0.0.1", 9101, "/metrics", prometheus)
        assert status == 200 and "cohortnet_link_up" in text and "node_network" not in text
        assert value(text, 'tcprtt_count{testbed="t-exporter",cohort="1"}') == 1  # what port 9200 has observed
        assert get("127.0.0.1", 9102, "/metrics", prometheus) == (200, "controller 1\n")
        with ThreadPoolExecutor(4) as pool:  # many at once: each gets a whole answer
            for status, text in pool.map(lambda _: get(*server.address, "/metrics"), range(12)):
                assert status == 200
                count = sum(len(metric.samples) for metric in text_string_to_metric_families(text))
                assert count > value(text, "cohortnet_exporter_series") > 50
        assert set(sampler.errors.values()) == {0}
        with pytest.raises(ConnectionRefusedError):
            get("127.0.0.1", 9101, "/metrics", bed.node("fc.1")["pid"])
        # A node that is no longer listed is listened in no longer, within a period.
        nodes = [node for node in bed.inventory["nodes"] if node["name"] != "fc.1"]
        fresh = bed.path.with_suffix(".new")
        fresh.write_text(json.dumps({**bed.inventory, "nodes": nodes}))
        fresh.replace(bed.path)
        until(lambda: "fc.1" not in sampler.lives, "the inventory is followed without a scrape")
        until(lambda: not listens(bed.node("fc.1")["pid"]), "its ports are closed")


def listens(pid: int) -> bool:
    try:
        get("127.0.0.1", 9100, "/healthz", pid)
    except ConnectionRefusedError:
        return False
    return True


@pytest.mark.live
def test_sockets_in_a_node_do_not_keep_it_in_being(bed: Bed) -> None:
    with serving(bed.path, 1.0) as (server, _):
        server.listen_in_nodes()
        os.kill(bed.node("fc.1")["pid"], signal.SIGKILL)
        until(lambda: "s1-eth1" not in bed.tool("core", "ip", "-o", "link"), "the node's interfaces are gone")


class _Controller(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:  # noqa: N802
        self.send_response(200 if self.path == "/metrics" else 404)
        self.end_headers()
        self.wfile.write(b"controller 1\n")

    def log_message(self, format: str, *args: object) -> None:
        pass
