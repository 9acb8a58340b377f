"""Every series about federated learning that an agent gives, declared in one place, and made from the runs' states.

Pure: states in, metric families out. Each series has the labels testbed, node, role, cohort and run.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from fl_node.agent.model_runs import ModelRun
from fl_node.agent.run_state import ServerState

NODE_LABELS = ("testbed", "node", "role", "cohort")
_Family = GaugeMetricFamily | CounterMetricFamily | HistogramMetricFamily
_Declared = tuple[type[_Family], str, tuple[str, ...]]

DECLARED: dict[str, _Declared] = {
    "model_loss": (GaugeMetricFamily, "Loss of the latest round, or of the client's own last work", ("source",)),
    "model_accuracy": (GaugeMetricFamily, "Accuracy, 0 to 1, of the same", ("source",)),
    "fl_round": (GaugeMetricFamily, "Number of the current round", ()),
    "fl_rounds_planned": (GaugeMetricFamily, "Rounds that the run is to have", ()),
    "fl_run_running": (GaugeMetricFamily, "1 while the run goes on, 0 before and after", ("application",)),
    "fl_round_timestamp_seconds": (GaugeMetricFamily, "Wall time at which the current round began", ()),
    "fl_phase_seconds": (HistogramMetricFamily, "Durations of phases and of whole rounds", ("phase",)),
    "fl_phase_last_seconds": (GaugeMetricFamily, "Duration of the last of them", ("phase",)),
    "fl_message_bytes": (CounterMetricFamily, "Payload bytes between server and client", ("client", "direction")),
    "fl_client_round_bytes": (
        GaugeMetricFamily, "The same in the last round that has ended", ("client", "direction"),
    ),
    "fl_client_samples": (GaugeMetricFamily, "Examples of the client's last training", ("client",)),
    "fl_client_seconds": (GaugeMetricFamily, "Time from message to reply, the last one", ("client", "phase")),
    "fl_clients_joined": (GaugeMetricFamily, "Clients that are connected to the server", ()),
    "fl_clients_expected": (GaugeMetricFamily, "Clients of the run", ()),
    "fl_stragglers": (CounterMetricFamily, "Replies that took more than twice the median of their phase", ()),
    "fl_client_failures": (
        CounterMetricFamily, "Error replies, and clients lost for good", ("client", "reason"),
    ),
    "fl_client_failed_timestamp_seconds": (GaugeMetricFamily, "Wall time of the last of them", ("client",)),
    "fl_model_bytes": (GaugeMetricFamily, "Serialised size of the model", ()),
    "fl_process_memory_bytes": (GaugeMetricFamily, "Resident memory of the FL process", ("kind",)),
}  # fmt: skip
"""Name (counters without `_total`), family, help, labels beside those that all have."""


def families(runs: Iterable[ModelRun], node: tuple[str, str, str, str]) -> list[Metric]:
    """All series of these runs; families without any are left out. `node` has the values of NODE_LABELS."""
    made: dict[str, Any] = {
        name: kind(name, text, labels=[*NODE_LABELS, "run", *labels])
        for name, (kind, text, labels) in DECLARED.items()
    }
    for run in runs:
        common = [*node, run.run]
        if isinstance(run.state, ServerState):
            _server(made, common, run.application, run.state)
        else:
            for name, value in run.state.quality.items():
                made[f"model_{name}"].add_metric([*common, "client"], value)
        if run.state.memory_bytes is not None:
            made["fl_process_memory_bytes"].add_metric([*common, run.kind], run.state.memory_bytes)
    return [family for family in made.values() if family.samples]


def _server(made: dict[str, Any], common: list[str], application: str, state: ServerState) -> None:
    def add(name: str, value: float | None, *labels: str) -> None:
        if value is not None:
            made[name].add_metric([*common, *labels], value)

    for source, values in state.quality.items():
        for name, value in values.items():
            add(f"model_{name}", value, source)
    add("fl_round", state.round)
    add("fl_rounds_planned", state.rounds_planned)
    add("fl_run_running", float(state.running), application)
    add("fl_round_timestamp_seconds", state.round_began)
    for phase, durations in state.durations.items():
        made["fl_phase_seconds"].add_metric([*common, phase], durations.buckets(), durations.total_s)
        add("fl_phase_last_seconds", durations.last_s, phase)
    for (client, direction), size in state.message_bytes.items():
        add("fl_message_bytes", size, client, direction)
    for (client, direction), size in state.round_bytes.items():
        add("fl_client_round_bytes", size, client, direction)
    for client, count in state.samples.items():
        add("fl_client_samples", count, client)
    for (client, phase), seconds in state.client_seconds.items():
        add("fl_client_seconds", seconds, client, phase)
    add("fl_clients_joined", state.joined)
    add("fl_clients_expected", state.expected)
    add("fl_stragglers", state.stragglers)
    for (client, reason), count in state.failures.items():
        add("fl_client_failures", count, client, reason)
    for client, at in state.failed_at.items():
        add("fl_client_failed_timestamp_seconds", at, client)
    add("fl_model_bytes", state.model_bytes)
