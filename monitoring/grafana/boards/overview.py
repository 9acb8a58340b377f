"""Overview: the twelve panels that this field looks at first, by cohort, and whether anything is wrong."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from monitoring.grafana.boards.frame import ONE_COHORT, RATE, RUN, SERVER_RUN, TESTBED, Row, board
from monitoring.grafana.boards.meters import PACKETS_DROPPED
from monitoring.grafana.boards.pieces import (
    BITS,
    BYTES,
    CORES,
    COUNT,
    MILLISECONDS,
    PACKETS,
    PLAIN,
    RED,
    SECONDS,
    SEGMENTS,
    SHARE,
    YELLOW,
    bars,
    figure,
    graph,
    now,
    query,
)

SERVERS = f'{ONE_COHORT},role="server"'
CLIENTS = f'{ONE_COHORT},role="client"'
SENT, RECEIVED = "node_network_transmit_bytes_total", "node_network_receive_bytes_total"
FL_FLOWS = f'{ONE_COHORT},flow="fl"'
EVALUATED = 'source=~"server|distributed"'


def _rate(counter: str, selector: str) -> str:
    return f"8 * rate({counter}{{{selector}}}{RATE})"


def _data() -> list[object]:
    return [
        bars(
            "FL data in total",
            "Bytes that the FL servers' interfaces sent (down) and received (up) within the time range: models, "
            "messages and their headers.",
            BYTES,
            now(f"sum by (cohort) (increase({SENT}{{{SERVERS}}}[$__range]))", "cohort {{cohort}} down"),
            now(f"sum by (cohort) (increase({RECEIVED}{{{SERVERS}}}[$__range]))", "cohort {{cohort}} up"),
            width=8,
        ),
        graph(
            "FL data rate",
            "Both directions at the FL servers' interfaces together.",
            BITS,
            query(
                f"sum by (cohort) ({_rate(SENT, SERVERS)}) + sum by (cohort) ({_rate(RECEIVED, SERVERS)})",
                "cohort {{cohort}}",
            ),
            width=16,
        ),
        graph(
            "Rate sent by servers",
            "The models that go down to the clients, at each server's interface.",
            BITS,
            query(f"sum by (cohort, node) ({_rate(SENT, SERVERS)})", "cohort {{cohort}} ({{node}})"),
        ),
        graph(
            "Rate received by servers",
            "The updates that come up from the clients, at each server's interface.",
            BITS,
            query(f"sum by (cohort, node) ({_rate(RECEIVED, SERVERS)})", "cohort {{cohort}} ({{node}})"),
        ),
    ]


def _transport() -> list[object]:
    mean = "sum by (cohort) (increase(tcprtt_sum{%s}[15m])) / sum by (cohort) (increase(tcprtt_count{%s}[15m]))"
    return [
        graph(
            "TCP congestion window by cohort",
            "Mean of the FL connections' congestion windows, at the server's end (models down) and the clients' "
            "(updates "
            "up).",
            SEGMENTS,
            query(f"avg by (cohort, role) (tcp_cwnd{{{FL_FLOWS}}})", "cohort {{cohort}} {{role}}"),
            width=9,
        ),
        graph(
            "TCP latency by cohort",
            "Smoothed round trip time of the FL connections: mean, and the slowest at either end.",
            MILLISECONDS,
            query(f"avg by (cohort) (tcp_rtt{{{FL_FLOWS}}})", "cohort {{cohort}} mean"),
            query(f"max by (cohort) (tcp_rtt{{{FL_FLOWS}}})", "cohort {{cohort}} slowest"),
            width=9,
        ),
        bars(
            "Mean RTT over 15 min",
            "Mean of all round trip times of the cohort's connections that were observed in the last 15 minutes.",
            MILLISECONDS,
            now(mean % (ONE_COHORT, ONE_COHORT), "cohort {{cohort}}"),
            decimals=2,
        ),
    ]


def _background() -> list[object]:
    sources = f'on (testbed, node) label_join(cohortnet_traffic_running{{{TESTBED}}}, "node", "", "source")'
    return [
        graph(
            "Background application latency",
            "Round trip time of the background application's TCP connections.",
            MILLISECONDS,
            query(f'avg by (node, peer) (tcp_rtt{{{TESTBED},flow="traffic"}})', "{{node}} → {{peer}}"),
        ),
        graph(
            "Background traffic rate",
            "What leaves the interfaces of the nodes from which background flows go, whatever else these nodes send, "
            "and (dashed) what the flows are asked to have.",
            BITS,
            query(f"sum by (node) ({_rate(SENT, TESTBED)} and {sources})", "{{node}}"),
            query(
                f"sum by (flow) (cohortnet_traffic_target_bits_per_second{{{TESTBED}}} "
                f"* on (testbed, flow) group_left () cohortnet_traffic_running{{{TESTBED}}})",
                "asked of {{flow}}",
            ),
            dashed="asked of .*",
        ),
    ]


def _learning() -> list[object]:
    return [
        graph(
            "Loss",
            "Latest loss of the global model: evaluated by the server, or by the clients (distributed).",
            PLAIN,
            query(f"model_loss{{{SERVER_RUN},{EVALUATED}}}", "cohort {{cohort}} {{source}}"),
            points=True,
            least=None,
        ),
        graph(
            "Accuracy",
            "Latest accuracy of the global model: evaluated by the server, or by the clients (distributed).",
            SHARE,
            query(f"model_accuracy{{{SERVER_RUN},{EVALUATED}}}", "cohort {{cohort}} {{source}}"),
            points=True,
            most=1.0,
        ),
    ]


def _orchestration() -> list[object]:
    central = f'{TESTBED},role="mlfo-central"'
    return [
        graph(
            "Central MLFO bandwidth",
            "What the central orchestrator's interface sends and receives.",
            BITS,
            query(f"sum by (node) ({_rate(SENT, central)})", "{{node}} sent"),
            query(f"sum by (node) ({_rate(RECEIVED, central)})", "{{node}} received"),
        ),
        graph(
            "Intents by state",
            "Intents that the edge orchestrator knows, by the state that they are in.",
            COUNT,
            query(f'sum by (state) (mlfo_intents{{{TESTBED},role=~"(mlfo-)?edge"}})', "{{state}}"),
            stacked=True,
            points=True,
        ),
    ]


def _averages() -> list[object]:
    return [
        bars(
            "Accuracy",
            "Mean over the cohort's runs, of their latest accuracy.",
            SHARE,
            now(f"avg by (cohort) (model_accuracy{{{SERVER_RUN},{EVALUATED}}})", "cohort {{cohort}}"),
            most=1.0,
        ),
        bars(
            "Seconds a round",
            "Mean of all rounds of the chosen runs.",
            SECONDS,
            now(
                f'sum by (cohort) (fl_phase_seconds_sum{{{SERVER_RUN},phase="round"}}) / '
                f'sum by (cohort) (fl_phase_seconds_count{{{SERVER_RUN},phase="round"}})',
                "cohort {{cohort}}",
            ),
            decimals=2,
        ),
        bars(
            "Data rate a client",
            "Mean over the cohort's clients and the time range, both directions.",
            BITS,
            now(
                f"avg by (cohort) (8 * rate({SENT}{{{CLIENTS}}}[$__range]) + 8 * "
                f"rate({RECEIVED}{{{CLIENTS}}}[$__range]))",
                "cohort {{cohort}}",
            ),
        ),
        bars(
            "CPU a client",
            "Mean over the cohort's clients and the time range.",
            CORES,
            now(
                f"avg by (cohort) (rate(container_cpu_usage_seconds_total{{{CLIENTS}}}[$__range]))", "cohort {{cohort}}"
            ),
            decimals=3,
        ),
    ]


def overview() -> dashboard.Dashboard:
    """The dashboard `overview`."""
    state = [
        figure("Nodes up", "Nodes whose first process runs.", COUNT, now(f"sum(node_up{{{TESTBED}}})")),
        figure("FL runs going on", "Runs whose server is at work now.", COUNT,
               now(f'sum(fl_run_running{{{RUN},role="server"}})')),
        figure("Best accuracy", "The best of all cohorts' latest accuracies.", SHARE,
               now(f"max(model_accuracy{{{SERVER_RUN},{EVALUATED}}})"), decimals=1),
        figure("Dropped by meters", "Packets that all meters drop now.", PACKETS,
               now(f"sum({PACKETS_DROPPED})"),
               limits=((1.0, YELLOW), (100.0, RED)), empty="no meter", decimals=0),
        figure("Alerts", "Alerts that fire now; Prometheus's page /alerts names them.", COUNT,
               now('count(ALERTS{alertstate="firing"})'), limits=((1.0, RED),)),
        figure("One collection", "How long reading everything takes the exporter; half its period is too long.",
               SECONDS,
               now(f"max(cohortnet_exporter_collect_seconds{{{TESTBED}}})"), decimals=3),
    ]  # fmt: skip
    return board(
        "cohortnet-overview",
        "Cohortnet: overview",
        "The testbed at a glance: federated learning, transport, background application, orchestration; by cohort.",
        [
            Row("Now", state),
            Row("Data of federated learning", _data()),
            Row("Transport", _transport()),
            Row("Learning", _learning()),
            Row("Background application", _background()),
            Row("Orchestration", _orchestration()),
            Row("Averages by cohort", _averages()),
        ],
        uses=("testbed", "run", "cohort"),
    )
