"""MLFO: intents and where their time goes, errors, and what the orchestrators say to one another."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from monitoring.grafana.boards.frame import RATE, TESTBED, Row, board
from monitoring.grafana.boards.pieces import (
    BITS,
    BYTES,
    CORES,
    COUNT,
    MEMORY,
    RED,
    SECONDS,
    YELLOW,
    bars,
    figure,
    graph,
    heat,
    listing,
    now,
    query,
)

EDGE = f'{TESTBED},role="mlfo-edge"'
KNOWN = f'{TESTBED},role=~"(mlfo-)?edge"'
"""Of mlfo_intents, which names the orchestrator's own role, without `mlfo-`."""
BOTH = f'{TESTBED},role=~"mlfo-.*"'
SINCE = "since the orchestrator started"


def _quantile(share: str, histogram: str, by: str, selector: str) -> str:
    # Of the whole counters: intents are few, and what a window of seconds holds of them is mostly nothing.
    return f"histogram_quantile({share}, sum by (le, {by}) ({histogram}_bucket{{{selector}}}))"


def _state() -> list[object]:
    return [
        figure("Running", "Intents whose run is going on.", COUNT,
               now(f'sum(mlfo_intents{{{KNOWN},state="running"}})')),
        figure("Accepted", f"Intents accepted {SINCE}.", COUNT, now(f"sum(mlfo_intents_accepted_total{{{EDGE}}})")),
        figure("Refused", f"Intents refused {SINCE}.", COUNT, now(f"sum(mlfo_intents_refused_total{{{EDGE}}})"),
               limits=((1.0, YELLOW),)),
        figure("Failed", "Intents that failed.", COUNT, now(f'sum(mlfo_intents{{{KNOWN},state="failed"}})'),
               limits=((1.0, RED),)),
        figure("From accepted to running", f"Median {SINCE}.", SECONDS,
               now(_quantile("0.5", "mlfo_intent_processing_seconds", "role", EDGE)), decimals=2),
        figure("Errors", f"Errors of both orchestrators {SINCE}.", COUNT, now(f"sum(mlfo_errors_total{{{BOTH}}})"),
               limits=((1.0, YELLOW),)),
    ]  # fmt: skip


def _intents() -> list[object]:
    latest = f'mlfo_intent_state_timestamp_seconds{{{EDGE},run=~"$run"}}'
    return [
        graph("Intents by state", "How many intents are in each state.", COUNT,
              query(f"sum by (state) (mlfo_intents{{{KNOWN}}})", "{{state}}"), stacked=True, points=True),
        graph("Accepted and refused", f"Intents {SINCE}; refused ones by the reason's code.", COUNT,
              query(f"sum(mlfo_intents_accepted_total{{{EDGE}}})", "accepted"),
              query(f"sum by (code) (mlfo_intents_refused_total{{{EDGE}}})", "refused: {{code}}"), points=True),
        listing("Latest intents", "State of each of the latest hundred intents, and since when.",
                ("intent", "run", "state"),
                [("since", "dateTimeAsIso", f"1000 * max by (intent, run, state) ({latest})")], sort="since", height=8),
    ]  # fmt: skip


def _times() -> list[object]:
    phase = "mlfo_intent_phase_seconds"
    return [
        bars("Median by phase", f"Of all intents {SINCE}.", SECONDS,
             now(_quantile("0.5", phase, "phase", EDGE), "{{phase}}"), width=8, decimals=2),
        bars("95 % by phase", f"Of all intents {SINCE}.", SECONDS,
             now(_quantile("0.95", phase, "phase", EDGE), "{{phase}}"), width=8, decimals=2),
        bars("Mean by phase", f"Of all intents {SINCE}.", SECONDS,
             now(f"sum by (phase) ({phase}_sum{{{EDGE}}}) / sum by (phase) ({phase}_count{{{EDGE}}})", "{{phase}}"),
             width=8, decimals=2),
        graph("From accepted to running", f"Quantiles of all intents {SINCE}.", SECONDS,
              *(query(_quantile(share, "mlfo_intent_processing_seconds", "node", EDGE), name)
                for share, name in (("0.5", "median"), ("0.95", "95 %")))),
        heat("Times of phases", "How many phases ended in each moment, by their duration.", SECONDS,
             query(f"sum by (le) (increase({phase}_bucket{{{EDGE}}}{RATE}))")),
    ]  # fmt: skip


def _momo() -> list[object]:
    of = "{{node}} {{method}} {{direction}}"
    return [
        graph("Mo-Mo messages", f"Calls {SINCE}, by method, direction and outcome.", COUNT,
              query(f"sum by (node, method, direction, outcome) (mlfo_momo_messages_total{{{BOTH}}})",
                    f"{of}: {{{{outcome}}}}"), many=True, points=True),
        graph("Mo-Mo bytes", f"Serialised requests and replies {SINCE}.", BYTES,
              query(f"sum by (node, method, direction) (mlfo_momo_bytes_total{{{BOTH}}})", of), many=True, points=True),
        bars("Mo-Mo: seconds a call", f"Median {SINCE}, by method.", SECONDS,
             now(_quantile("0.5", "mlfo_momo_seconds", "method", BOTH), "{{method}}"), width=8, decimals=3),
        graph("Bandwidth", "What the orchestrators' interfaces send and receive.", BITS,
              query(f"8 * rate(node_network_transmit_bytes_total{{{BOTH}}}{RATE})", "{{node}} sent"),
              query(f"8 * rate(node_network_receive_bytes_total{{{BOTH}}}{RATE})", "{{node}} received"), width=16),
    ]  # fmt: skip


def _health() -> list[object]:
    return [
        graph("Errors", f"By kind, {SINCE}.", COUNT,
              query(f"sum by (node, kind) (mlfo_errors_total{{{BOTH}}})", "{{node}} {{kind}}"), points=True, width=8),
        graph("CPU of the orchestrators", "Processor time a second.", CORES,
              query(f"rate(container_cpu_usage_seconds_total{{{BOTH}}}{RATE})", "{{node}}"), width=8),
        graph("Memory of the orchestrators", "Without inactive file cache.", MEMORY,
              query(f"container_memory_working_set_bytes{{{BOTH}}}", "{{node}}"), width=8),
    ]  # fmt: skip


def mlfo() -> dashboard.Dashboard:
    """The dashboard `mlfo`."""
    return board(
        "cohortnet-mlfo",
        "Cohortnet: MLFO",
        "Intents by state, where their time goes, errors, and the conversation between edge and central orchestrator.",
        [
            Row("Now", _state()),
            Row("Intents", _intents()),
            Row("Time of intents", _times()),
            Row("Mo-Mo", _momo()),
            Row("Health", _health()),
        ],
        uses=("testbed", "run"),
    )
