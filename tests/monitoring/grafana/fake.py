"""A testbed's metrics without a testbed: one exporter that serves every metric which the dashboards may name, with the
labels that the real ones have and counters that move; and a real Prometheus that scrapes it."""

from __future__ import annotations

import math
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import requests

PERIOD_S = 0.5
ROUND_S = 2.5
ROUNDS = 4
TESTBED = "lab"
COHORTS = {"1": ("fed.1", ("fc.10", "fc.11")), "2": ("fed.2", ("fc.12", "fc.13")), "x-3": ("fed.3", ("fc.14",))}
RUN = "run-1"


def accuracy(cohort: str, rounds: int) -> float:
    """Accuracy of a cohort after so many rounds."""
    return round(0.1 * rounds + 0.01 * list(COHORTS).index(cohort), 3)


class FakeTestbed:
    """The metrics' text at any moment; time begins when it is made."""

    def __init__(self) -> None:
        self.started = time.time()

    def text(self) -> str:
        lines: list[str] = []
        t = time.time() - self.started

        def put(name: str, value: float, **labels: str) -> None:
            shown = ",".join(f'{key}="{text}"' for key, text in {"testbed": TESTBED, **labels}.items())
            lines.append(f"{name}{{{shown}}} {value!r}")

        def histogram(name: str, bounds: list[float], per_second: float, mean: float, **labels: str) -> None:
            for bound in [*bounds, math.inf]:
                share = min(1.0, bound / (2 * mean))
                put(f"{name}_bucket", math.floor(1 + per_second * t) * share,
                    le="+Inf" if bound == math.inf else str(bound),
                    **labels)  # fmt: skip
            put(f"{name}_count", math.floor(1 + per_second * t), **labels)
            put(f"{name}_sum", math.floor(1 + per_second * t) * mean, **labels)

        self._nodes(put, t)
        self._network(put, histogram, t)
        self._learning(put, histogram, t)
        self._mlfo(put, histogram, t)
        return "\n".join(lines) + "\n"

    def nodes(self) -> Iterator[tuple[str, str, str]]:
        """(node, role, cohort)."""
        for cohort, (server, clients) in COHORTS.items():
            yield server, "server", cohort
            yield from ((client, "client", cohort) for client in clients)
        yield from (("mo.1", "mlfo-edge", ""), ("cloud.0", "mlfo-central", ""), ("app.1", "traffic-client", ""),
                    ("appserv.0", "traffic-server", ""), ("prom.0", "prometheus", ""))  # fmt: skip

    def _nodes(self, put, t):  # type: ignore[no-untyped-def]
        put("cohortnet_testbed_info", 1, runtime="namespace", datapath="netdev", controller="builtin", state="up")
        for number, (node, role, cohort) in enumerate(self.nodes(), start=1):
            four = {"node": node, "role": role, "cohort": cohort}
            put("cohortnet_node_info", 1, runtime="namespace", address=f"10.0.0.{number}", switch="sw1", **four)
            put("node_up", 1, **four)
            for way in ("receive", "transmit"):
                for what, speed in (("bytes", 50_000), ("packets", 40), ("drop", 1), ("errs", 0)):
                    put(f"node_network_{way}_{what}_total", speed * t * number, device=f"{node}-eth0", **four)
            for what in ("usage", "user", "system"):
                put(f"container_cpu_{what}_seconds_total", 0.05 * t, **four)
            put("container_cpu_cfs_periods_total", 10 * t, **four)
            put("container_cpu_cfs_throttled_periods_total", 2 * t, **four)
            put("container_cpu_cfs_throttled_seconds_total", 0.01 * t, **four)
            put("container_spec_cpu_limit_cores", 0.5, **four)
            put("container_spec_memory_limit_bytes", 2**29, **four)
            for what in ("usage", "working_set", "rss"):
                put(f"container_memory_{what}_bytes", 1e8, **four)
            put("container_oom_kills_total", 0, **four)
            put("container_processes", 3, **four)
            for kind in ("server", "client"):
                put("cohortnet_agent_processes", 1, kind=kind, state="running", **four)
        for name, value in (("collect_seconds", 0.02), ("collections_total", t), ("period_seconds", PERIOD_S),
                            ("series", 900), ("cpu_seconds_total", 0.01 * t), ("resident_bytes", 6e7)):  # fmt: skip
            put(f"cohortnet_exporter_{name}", value)
        put("cohortnet_exporter_overruns_total", 1, reason="late")
        put("cohortnet_exporter_errors_total", 1, what="socket")

    def _network(self, put, histogram, t):  # type: ignore[no-untyped-def]
        for cohort, (server, clients) in COHORTS.items():
            for client in clients:
                for node, role, peer in ((server, "server", client), (client, "client", server)):
                    flow = {"node": node, "role": role, "cohort": cohort, "peer": peer, "flow": "fl",
                            "local": "10.0.0.1:6000", "remote": f"10.0.1.{client[3:]}:40000"}  # fmt: skip
                    _flow(put, t, flow)
            histogram("tcprtt", [1.0, 10.0, 100.0], 4.0, 8.0, cohort=cohort)
        _flow(put, t, {"node": "app.1", "role": "traffic-client", "cohort": "", "peer": "appserv.0", "flow": "traffic",
                       "local": "10.0.1.2:40000", "remote": "10.0.0.2:5201"})  # fmt: skip
        for link, a, b in (("fed.1--sw1", "fed.1", "sw1"), ("fc.10--sw1", "fc.10", "sw1")):
            for direction in ("a_to_b", "b_to_a"):
                which = {"link": link, "a": a, "b": b, "direction": direction}
                put("cohortnet_link_rate_bits_per_second", 1e7, **which)
                put("cohortnet_link_delay_seconds", 0.012, **which)
                put("cohortnet_link_loss_ratio", 0.0, **which)
                for what, speed in (("bytes", 1e6), ("packets", 800), ("drops", 1)):
                    put(f"cohortnet_link_{what}_total", speed * t, **which)
                queue = {"link": link, "direction": direction, "kind": "htb", "handle": "1:"}
                put("cohortnet_qdisc_backlog_bytes", 3000, **queue)
                put("cohortnet_qdisc_backlog_packets", 2, **queue)
                for what in ("drops", "overlimits", "bytes"):
                    put(f"cohortnet_qdisc_{what}_total", 10 * t, **queue)
            put("cohortnet_link_up", 1, link=link, a=a, b=b)
            put("cohortnet_link_changed_timestamp_seconds", self.started, link=link)
        port = {"switch": "sw1", "port": "sw1-eth1", "peer": "fed.1"}
        for way in ("receive", "transmit"):
            for what in ("bytes", "packets", "drops", "errors"):
                put(f"cohortnet_switch_port_{way}_{what}_total", 1000 * t, **port)
        put("cohortnet_switch_flows", 60, switch="sw1", table="10")
        meter = {"meter": "first", "direction": "up", "kind": "cohort", "target": "1", "cohort": "1"}
        where = {**meter, "switch": "sw1", "meter_id": "1"}
        put("cohortnet_meter_rate", 2e6, unit="bit/s", in_force="yes", **meter)
        put("cohortnet_meter_pending", 0, meter="first")
        put("cohortnet_meter_changed_timestamp_seconds", self.started, meter="first")
        put("cohortnet_meter_packets_total", 100 * t, **where)
        put("cohortnet_meter_bytes_total", 3e5 * t, **where)
        put("cohortnet_meter_band_drop_packets_total", 10 * t, band="0", **where)
        put("cohortnet_meter_band_drop_bytes_total", 3e4 * t, band="0", **where)
        second = {**meter, "meter": "second"}
        put("cohortnet_meter_rate", 1e6, unit="bit/s", in_force="queue", **second)
        queued = {**second, "node": "", "interface": "sw1-eth1"}
        for what, speed in (("packets_total", 60), ("bytes_total", 1e5), ("drops_total", 20), ("backlog_bytes", 100)):
            put(f"cohortnet_meter_queue_{what}", speed * t, **queued)
        put("cohortnet_controller_switch_connected", 1, switch="sw1")
        put("cohortnet_controller_flow_changes_total", 80, switch="sw1")
        put("cohortnet_controller_openflow_errors_total", 0)
        put("cohortnet_controller_packet_ins_total", 3)
        for name, source in (("background", "app.1"), ("video", "app.1"), ("backup", "fc.10")):
            flow = {"flow": name, "source": source, "destination": "appserv.0", "pattern": "constant"}
            put("cohortnet_traffic_target_bits_per_second", 2e7, **flow)
            put("cohortnet_traffic_running", 1, **flow)

    def _learning(self, put, histogram, t):  # type: ignore[no-untyped-def]
        under_way = min(ROUNDS, 1 + int(t / ROUND_S))
        over = t >= ROUNDS * ROUND_S
        done = ROUNDS if over else under_way - 1
        for cohort, (server, clients) in COHORTS.items():
            four = {"node": server, "role": "server", "cohort": cohort, "run": RUN}
            put("fl_run_running", 0 if over else 1, application="image_classification", **four)
            put("fl_round", under_way, **four)
            put("fl_rounds_planned", ROUNDS, **four)
            put("fl_round_timestamp_seconds", self.started + (under_way - 1) * ROUND_S, **four)
            put("fl_model_bytes", 250_000, **four)
            put("fl_clients_joined", len(clients), **four)
            put("fl_clients_expected", len(clients), **four)
            put("fl_stragglers_total", 1, **four)
            for phase in ("train", "evaluate", "aggregate", "server_evaluate", "round"):
                histogram("fl_phase_seconds", [0.5, 1.0, 2.5, 10.0], 1.0, 1.0, phase=phase, **four)
                put("fl_phase_last_seconds", 1.1, phase=phase, **four)
            # The clients have evaluated while the server is still about to: their figure comes within the round.
            sooner = min(ROUNDS, int(t / ROUND_S + 0.3))
            for source, rounds in (("server", done), ("distributed", sooner), ("train", sooner)):
                if rounds:
                    put("model_accuracy", accuracy(cohort, rounds), source=source, **four)
                    put("model_loss", 2 - accuracy(cohort, rounds), source=source, **four)
            for client in clients:
                for direction in ("down", "up"):
                    put("fl_message_bytes_total", 250_000 * (1 + done), client=client, direction=direction, **four)
                    put("fl_client_round_bytes", 250_000, client=client, direction=direction, **four)
                put("fl_client_samples", 1200, client=client, **four)
                for phase in ("train", "evaluate"):
                    put("fl_client_seconds", 0.8, client=client, phase=phase, **four)
                own = {**four, "node": client, "role": "client"}
                put("model_accuracy", 0.5, source="client", **own)
                put("model_loss", 0.5, source="client", **own)
                put("fl_process_memory_bytes", 3e8, kind="rss", **own)
            put("fl_process_memory_bytes", 3e8, kind="rss", **four)
            put("fl_client_failures_total", 1, client=clients[0], reason="lost", **four)
            put("fl_client_failed_timestamp_seconds", self.started + 1, client=clients[0], **four)

    def _mlfo(self, put, histogram, t):  # type: ignore[no-untyped-def]
        for node, role in (("mo.1", "mlfo-edge"), ("cloud.0", "mlfo-central")):
            who = {"node": node, "role": role, "cohort": ""}
            for state in ("accepted", "running", "succeeded", "failed"):
                put("mlfo_intents", 1, state=state, **{**who, "role": role.removeprefix("mlfo-")})
            for phase in ("resolving", "allocating", "starting", "running"):
                histogram("mlfo_intent_phase_seconds", [0.1, 1.0, 10.0], 0.5, 0.6, phase=phase, **who)
            histogram("mlfo_intent_processing_seconds", [0.1, 1.0, 10.0], 0.5, 0.6, **who)
            put("mlfo_errors_total", 1, kind="unreachable", **who)
            way = {"method": "Deploy", "direction": "out" if role == "mlfo-edge" else "in"}
            put("mlfo_momo_messages_total", 2, outcome="ok", **way, **who)
            put("mlfo_momo_bytes_total", 600, **way, **who)
            histogram("mlfo_momo_seconds", [0.01, 0.1, 1.0], 0.5, 0.05, method="Deploy", **who)
            put("mlfo_intents_accepted_total", 3, **who)
            put("mlfo_intents_refused_total", 1, code="unknown-operand", **who)
            put("mlfo_intent_state_timestamp_seconds", self.started, intent="edgeintent01", run=RUN, state="running",
                **who)


def _flow(put, t, labels):  # type: ignore[no-untyped-def]
    for name, value in (("rtt", 5.0), ("rttvar", 1.0), ("cwnd", 10), ("delivery_rate", 9e6), ("retransmits_total", t),
                        ("bytes_sent_total", 1e6 * t), ("bytes_received_total", 1e6 * t)):  # fmt: skip
        put(f"tcp_{name}", value, **labels)


@contextmanager
def exporter(testbed: FakeTestbed) -> Iterator[int]:
    """Serves the testbed on a port of 127.0.0.1 that the kernel chooses."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802 - the base class's name
            body = testbed.text().encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


CONFIGURATION = """
global: {{scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms}}
rule_files: [rules.yml]
scrape_configs:
  - job_name: fake
    honor_labels: true
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""
RULES = """
groups:
  - name: always
    rules:
      - {alert: AlwaysFires, expr: vector(1)}
"""


@contextmanager
def prometheus(folder: Path, scraped: int, port: int) -> Iterator[str]:
    """A real Prometheus that scrapes that port; gives its address once it answers."""
    program = shutil.which("prometheus")
    assert program is not None, "the program prometheus is missing; apt-get install prometheus"
    (folder / "prometheus.yml").write_text(CONFIGURATION.format(port=scraped))
    (folder / "rules.yml").write_text(RULES)
    url = f"http://127.0.0.1:{port}"
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [program, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
             f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)  # fmt: skip
        try:
            deadline = time.monotonic() + 30
            while True:
                try:
                    if requests.get(f"{url}/-/ready", timeout=1).status_code == 200:
                        break
                except requests.RequestException:
                    pass
                assert process.poll() is None and time.monotonic() < deadline, (folder / "prometheus.log").read_text()
                time.sleep(0.1)
            yield url
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
